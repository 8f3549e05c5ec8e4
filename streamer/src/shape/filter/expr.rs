//! An expression whose every part has a type: what the evaluator computes and what the SQL says.

use super::among::Set;
use super::types::Type;
use super::value::{Maybe, Value};
use crate::shape::table::Letters;

/// A part and its type.
#[derive(Clone, Debug)]
pub(super) struct Expr {
    pub(super) ty: Type,
    pub(super) kind: Kind,
}

/// What it computes.
#[derive(Clone, Debug)]
pub(super) enum Kind {
    Const(Maybe<'static>),
    /// By index of the table's columns.
    Column(usize),
    Call {
        op: Op,
        sign: Sign,
        arguments: Vec<Expr>,
    },
    /// To the type of the node; `modifier` is what stood in parentheses.
    Cast {
        of: Box<Expr>,
        modifier: Vec<i32>,
    },
    And(Vec<Expr>),
    Or(Vec<Expr>),
    Not(Box<Expr>),
    IsNull(Box<Expr>),
    /// `IS NULL` of a composite column: whether all its fields are null; or whether none is, which is its `IS NOT NULL`.
    Fields {
        column: usize,
        null: bool,
    },
    /// `IS TRUE`, or FALSE.
    Is(bool, Box<Expr>),
    /// `IS NOT DISTINCT FROM`
    Same(Box<Expr>, Box<Expr>),
    /// `left op ANY (array)`, or ALL.
    Quantified {
        op: Op,
        sign: Sign,
        all: bool,
        left: Box<Expr>,
        right: Box<Expr>,
    },
    Coalesce(Vec<Expr>),
    /// `GREATEST`, or LEAST.
    Extreme {
        greatest: bool,
        of: Vec<Expr>,
    },
    NullIf(Box<Expr>, Box<Expr>),
    Case {
        branches: Vec<(Expr, Expr)>,
        default: Option<Box<Expr>>,
    },
    Array(Vec<Expr>),
    Subscript(Box<Expr>, Vec<Expr>),
    Slice(Box<Expr>, Vec<(Option<Expr>, Option<Expr>)>),
    /// The function `concat`: nulls are nothing.
    Concat(Vec<Expr>),
    /// `COLLATE "C"`
    Collate(Box<Expr>),
    /// IN with a subquery, by its place among the filter's.
    Atom(usize),
    /// IN with constants; only for evaluation ([`super::among`]).
    Among(Box<Expr>, Set),
}

/// How SQL writes a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sign {
    Infix(&'static str),
    Prefix(&'static str),
    Function(&'static str),
}

/// Operators and functions; the types of the arguments say which of a family it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Op {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
    Power,
    SquareRoot,
    Absolute,
    Negate,
    Plus,
    BitAnd,
    BitOr,
    BitXor,
    BitNot,
    Join,
    Like {
        negated: bool,
        fold: bool,
        letters: Letters,
    },
    Contains,
    Contained,
    Overlaps,
    /// `->` and `->>`, with a key or a place.
    Step {
        as_text: bool,
    },
    /// `#>` and `#>>`
    Path {
        as_text: bool,
    },
    /// `?`, `?|`, `?&`
    HasKey,
    HasAnyKey,
    HasAllKeys,
    ArrayJoin,
    ArrayAppend,
    ArrayPrepend,
    ArrayDimensions,
    Lower(Letters),
    Upper(Letters),
    Length,
    JustifyDays,
    JustifyHours,
    JustifyInterval,
    /// `timezone('UTC', …)`
    AtZone,
}

impl Op {
    /// The same for text whose case is mapped this way.
    pub(super) fn with(self, letters: Letters) -> Self {
        match self {
            Self::Lower(_) => Self::Lower(letters),
            Self::Upper(_) => Self::Upper(letters),
            Self::Like { negated, fold, .. } => Self::Like { negated, fold, letters },
            other => other,
        }
    }

    /// Whether null in makes null out.
    pub(super) fn is_strict(self) -> bool {
        !matches!(self, Self::ArrayJoin | Self::ArrayAppend | Self::ArrayPrepend)
    }

    /// Whether it needs to know which text is less, not only which is equal.
    pub(super) fn orders(self) -> bool {
        matches!(self, Self::Less | Self::LessOrEqual | Self::Greater | Self::GreaterOrEqual)
    }

    pub(super) fn compares(self) -> bool {
        self.orders() || matches!(self, Self::Equal | Self::NotEqual)
    }
}

impl Expr {
    pub(super) fn new(ty: Type, kind: Kind) -> Self {
        Self { ty, kind }
    }

    pub(super) fn bool(kind: Kind) -> Self {
        Self { ty: Type::Bool, kind }
    }

    pub(super) fn constant(&self) -> Option<&Maybe<'static>> {
        match &self.kind {
            Kind::Const(value) => Some(value),
            _ => None,
        }
    }

    /// The same with every subquery that stands under AND, OR and NOT replaced by what makes the whole true rather than
    /// false.
    pub(super) fn with_atoms_possible(&self, negated: bool) -> Self {
        let all = |of: &[Self]| of.iter().map(|one| one.with_atoms_possible(negated)).collect();
        let kind = match &self.kind {
            Kind::Atom(_) => Kind::Const(Some(Value::Bool(!negated))),
            Kind::And(of) => Kind::And(all(of)),
            Kind::Or(of) => Kind::Or(all(of)),
            Kind::Not(of) => Kind::Not(Box::new(of.with_atoms_possible(!negated))),
            _ => return self.clone(),
        };
        Self { kind, ty: self.ty.clone() }
    }

    /// Every direct part.
    pub(super) fn parts(&self) -> Vec<&Expr> {
        match &self.kind {
            Kind::Const(_) | Kind::Column(_) | Kind::Atom(_) | Kind::Fields { .. } => Vec::new(),
            Kind::Call { arguments: all, .. }
            | Kind::And(all)
            | Kind::Or(all)
            | Kind::Coalesce(all)
            | Kind::Extreme { of: all, .. }
            | Kind::Array(all)
            | Kind::Concat(all) => all.iter().collect(),
            Kind::Cast { of, .. }
            | Kind::Not(of)
            | Kind::IsNull(of)
            | Kind::Is(_, of)
            | Kind::Collate(of)
            | Kind::Among(of, _) => {
                vec![of]
            }
            Kind::Same(left, right) | Kind::NullIf(left, right) | Kind::Quantified { left, right, .. } => {
                vec![left, right]
            }
            Kind::Case { branches, default } => {
                let mut all: Vec<&Expr> = branches.iter().flat_map(|(when, then)| [when, then]).collect();
                all.extend(default.as_deref());
                all
            }
            Kind::Subscript(of, indexes) => std::iter::once(&**of).chain(indexes).collect(),
            Kind::Slice(of, bounds) => {
                let bounds = bounds.iter().flat_map(|(low, high)| low.iter().chain(high));
                std::iter::once(&**of).chain(bounds).collect()
            }
        }
    }
}
