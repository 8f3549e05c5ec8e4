//! The tree of an expression as it was written, before anybody asked what its names and signs mean.

/// A node and where it stands, in bytes of the clause.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) at: usize,
    pub(super) kind: Kind,
    /// Levels of nodes from here down.
    pub(super) depth: usize,
}

/// What the node says.
#[derive(Clone, Debug)]
pub(super) enum Kind {
    /// A column; more than one part is a qualified name.
    Column(Vec<String>),
    String(String),
    Integer(String),
    Decimal(String),
    Bool(bool),
    Null,
    Param(u32),
    And(Vec<Node>),
    Or(Vec<Node>),
    Not(Box<Node>),
    Unary(String, Box<Node>),
    Binary(String, Box<Node>, Box<Node>),
    Is {
        test: Test,
        negated: bool,
        of: Box<Node>,
    },
    Distinct {
        negated: bool,
        left: Box<Node>,
        right: Box<Node>,
    },
    In {
        negated: bool,
        left: Box<Node>,
        list: Vec<Node>,
    },
    InSelect {
        negated: bool,
        left: Vec<Node>,
        select: Box<Select>,
    },
    Between {
        negated: bool,
        symmetric: bool,
        of: Box<Node>,
        low: Box<Node>,
        high: Box<Node>,
    },
    Like {
        negated: bool,
        fold: bool,
        of: Box<Node>,
        pattern: Box<Node>,
        escape: Option<Box<Node>>,
    },
    /// `left op ANY (right)`, or ALL.
    Quantified {
        operator: String,
        all: bool,
        left: Box<Node>,
        right: Box<Node>,
    },
    Cast(Box<Node>, TypeName),
    Subscript(Box<Node>, Vec<Index>),
    Array(Vec<Node>),
    Row(Vec<Node>),
    Function {
        name: String,
        arguments: Vec<Node>,
    },
    Case {
        operand: Option<Box<Node>>,
        branches: Vec<(Node, Node)>,
        default: Option<Box<Node>>,
    },
    Collate(Box<Node>, String),
    AtTimeZone(Box<Node>, Box<Node>),
}

/// `IS …`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Test {
    Null,
    True,
    False,
    Unknown,
}

/// `[1]` or `[1:2]`, either bound of which may be left out.
#[derive(Clone, Debug)]
pub(super) enum Index {
    One(Node),
    Slice(Option<Node>, Option<Node>),
}

/// A type as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TypeName {
    /// Postgres' own name, as `int4`.
    pub(super) name: String,
    /// What stands in parentheses.
    pub(super) modifiers: Vec<i32>,
    pub(super) array: bool,
}

/// `SELECT columns FROM table [WHERE filter]`
#[derive(Clone, Debug)]
pub(super) struct Select {
    pub(super) columns: Vec<(usize, Vec<String>)>,
    pub(super) table: Vec<String>,
    pub(super) table_at: usize,
    pub(super) filter: Option<Node>,
}

impl Node {
    /// Every direct child.
    pub(super) fn children(&self) -> Vec<&Node> {
        match &self.kind {
            Kind::Column(_)
            | Kind::String(_)
            | Kind::Integer(_)
            | Kind::Decimal(_)
            | Kind::Bool(_)
            | Kind::Null
            | Kind::Param(_) => Vec::new(),
            Kind::And(of) | Kind::Or(of) | Kind::Array(of) | Kind::Row(of) => of.iter().collect(),
            Kind::Not(of) | Kind::Unary(_, of) | Kind::Is { of, .. } | Kind::Cast(of, _) | Kind::Collate(of, _) => {
                vec![of]
            }
            Kind::Binary(_, left, right)
            | Kind::Distinct { left, right, .. }
            | Kind::Quantified { left, right, .. }
            | Kind::AtTimeZone(left, right) => vec![left, right],
            Kind::In { left, list, .. } => std::iter::once(&**left).chain(list).collect(),
            Kind::InSelect { left, select, .. } => left.iter().chain(&select.filter).collect(),
            Kind::Between { of, low, high, .. } => vec![of, low, high],
            Kind::Like { of, pattern, escape, .. } => {
                let mut all: Vec<&Node> = vec![of, pattern];
                all.extend(escape.as_deref());
                all
            }
            Kind::Subscript(of, indexes) => {
                let mut all: Vec<&Node> = vec![of];
                for index in indexes {
                    match index {
                        Index::One(one) => all.push(one),
                        Index::Slice(low, high) => all.extend(low.iter().chain(high)),
                    }
                }
                all
            }
            Kind::Function { arguments, .. } => arguments.iter().collect(),
            Kind::Case { operand, branches, default } => {
                let mut all: Vec<&Node> = operand.as_deref().into_iter().collect();
                all.extend(branches.iter().flat_map(|(when, then)| [when, then]));
                all.extend(default.as_deref());
                all
            }
        }
    }
}
