//! From the tree as written to typed expressions: names, types and casts resolved as Postgres' analyser does it, or refused.
//!
//! Here are literals, columns, and what an expression becomes when its type is known; `comparisons` has the operators,
//! `composed` what is made of several parts, `types` what types are called, become and have in common.

mod comparisons;
mod composed;
mod types;

use std::collections::BTreeMap;

use self::types::long_name;
use super::calls;
use super::error::WhereError;
use super::eval::{self, Row};
use super::expr::{Expr, Kind};
use super::lexer::characters;
use super::subquery::{self, Catalog, Subquery};
use super::syntax::{self, Node};
use super::text;
use super::types::Type;
use super::value::Value;
use super::{MAX_ANALYZED, MAX_DEPTH, Purpose};
use crate::shape::table::TableSchema;

/// A part with its type, or a literal that waits for one.
#[derive(Clone, Debug)]
pub(super) enum Typed {
    Known(Expr),
    Literal { at: usize, text: Option<String>, param: Option<u32> },
}

impl Typed {
    pub(super) fn ty(&self) -> &Type {
        match self {
            Self::Known(expr) => &expr.ty,
            Self::Literal { .. } => &Type::Unknown,
        }
    }
}

/// Resolves the parts of one expression.
pub(super) struct Analyzer<'a> {
    pub(super) text: &'a str,
    pub(super) table: &'a TableSchema,
    pub(super) params: &'a BTreeMap<u32, String>,
    pub(super) purpose: Purpose,
    /// What each parameter was taken for.
    pub(super) param_types: BTreeMap<u32, Type>,
    /// Tables of subqueries, if there may be any.
    pub(super) catalog: Option<&'a dyn Catalog>,
    /// Subqueries so far.
    pub(super) subqueries: Vec<Subquery>,
    /// Parts so far: BETWEEN and its like repeat theirs.
    pub(super) spent: usize,
}

impl Analyzer<'_> {
    pub(super) fn error(&self, at: usize, message: impl Into<String>) -> WhereError {
        WhereError::at(characters(self.text, at), message)
    }

    fn spend(&mut self) -> Result<(), WhereError> {
        self.spent += 1;
        if self.spent > MAX_ANALYZED {
            return Err(WhereError::whole(format!("the expression comes to more than {MAX_ANALYZED} parts")));
        }
        Ok(())
    }

    /// The whole: a boolean.
    pub(super) fn boolean(&mut self, node: &Node) -> Result<Expr, WhereError> {
        let typed = self.typed(node)?;
        if !matches!(typed.ty(), Type::Bool | Type::Unknown) {
            return Err(WhereError::whole("WHERE clause must return a boolean"));
        }
        self.coerce(typed, &Type::Bool, node.at)
    }

    /// An operand of AND, OR, NOT, CASE.
    fn condition(&mut self, node: &Node) -> Result<Expr, WhereError> {
        let typed = self.typed(node)?;
        if !matches!(typed.ty(), Type::Bool | Type::Unknown) {
            let found = long_name(typed.ty());
            return Err(self.error(node.at, format!("argument must be type boolean, not type {found}")));
        }
        self.coerce(typed, &Type::Bool, node.at)
    }

    pub(super) fn typed(&mut self, node: &Node) -> Result<Typed, WhereError> {
        self.spend()?;
        let at = node.at;
        Ok(Typed::Known(match &node.kind {
            syntax::Kind::String(text) => return Ok(Typed::Literal { at, text: Some(text.clone()), param: None }),
            syntax::Kind::Null => return Ok(Typed::Literal { at, text: None, param: None }),
            syntax::Kind::Param(number) => {
                let Some(text) = self.params.get(number) else {
                    return Err(self.error(at, format!("parameter ${number} was not provided")));
                };
                return Ok(Typed::Literal { at, text: Some(text.clone()), param: Some(*number) });
            }
            syntax::Kind::Integer(digits) => self.number(at, digits)?,
            syntax::Kind::Decimal(digits) => self.constant(at, &Type::Numeric, digits)?,
            syntax::Kind::Bool(value) => Expr::bool(Kind::Const(Some(Value::Bool(*value)))),
            syntax::Kind::Column(names) => self.column(at, names)?,
            syntax::Kind::And(all) => {
                Expr::bool(Kind::And(all.iter().map(|one| self.condition(one)).collect::<Result<_, _>>()?))
            }
            syntax::Kind::Or(all) => {
                Expr::bool(Kind::Or(all.iter().map(|one| self.condition(one)).collect::<Result<_, _>>()?))
            }
            syntax::Kind::Not(of) => Expr::bool(Kind::Not(self.condition(of)?.into())),
            syntax::Kind::Unary(sign, of) => {
                let of = self.typed(of)?;
                self.operator(at, sign, vec![of])?
            }
            syntax::Kind::Binary(sign, left, right) => {
                let sides = vec![self.typed(left)?, self.typed(right)?];
                self.operator(at, sign, sides)?
            }
            syntax::Kind::Is { test, negated, of } => self.is(*test, *negated, of)?,
            syntax::Kind::Distinct { negated, left, right } => self.distinct(at, *negated, left, right)?,
            syntax::Kind::In { negated, left, list } => {
                let within = self.within(at, left, list)?;
                if *negated { Self::not(within) } else { within }
            }
            syntax::Kind::Between { negated, symmetric, of, low, high } => {
                self.between(at, *symmetric, of, low, high, *negated)?
            }
            syntax::Kind::Like { negated, fold, of, pattern, escape } => {
                self.like(at, (*negated, *fold), of, pattern, escape.as_deref())?
            }
            syntax::Kind::Quantified { operator, all, left, right } => {
                self.quantified(at, operator, *all, left, right)?
            }
            syntax::Kind::Cast(of, name) => self.cast(at, of, name)?,
            syntax::Kind::Subscript(of, indexes) => self.subscript(at, of, indexes)?,
            syntax::Kind::Array(items) => self.array(at, items)?,
            syntax::Kind::Row(_) => {
                return Err(self.error(at, "rows are only supported as (a, b) IN (SELECT …)"));
            }
            syntax::Kind::InSelect { negated, left, select } => {
                let found = subquery::atom(self, at, left, select)?;
                if *negated { Self::not(found) } else { found }
            }
            syntax::Kind::Function { name, arguments } => self.function(at, name, arguments)?,
            syntax::Kind::Case { operand, branches, default } => {
                self.case(at, operand.as_deref(), branches, default.as_deref())?
            }
            syntax::Kind::Collate(of, name) => self.collate(at, of, name)?,
            syntax::Kind::AtTimeZone(of, zone) => {
                let arguments = vec![self.typed(zone)?, self.typed(of)?];
                calls::call(self, at, "timezone", arguments)?
            }
        }))
    }

    fn number(&mut self, at: usize, digits: &str) -> Result<Expr, WhereError> {
        let value = match digits.parse::<i64>() {
            Ok(value) => match i32::try_from(value) {
                Ok(value) => Value::Int4(value),
                Err(_) => Value::Int8(value),
            },
            Err(_) => return self.constant(at, &Type::Numeric, digits),
        };
        let ty = if matches!(value, Value::Int4(_)) { Type::Int4 } else { Type::Int8 };
        Ok(Expr::new(ty, Kind::Const(Some(value))))
    }

    /// A literal of this type.
    fn constant(&mut self, at: usize, ty: &Type, text: &str) -> Result<Expr, WhereError> {
        if let Some(value) = text::read(ty, text.into()) {
            return Ok(Expr::new(ty.clone(), Kind::Const(Some(value.into_owned()))));
        }
        let shown: String = text.chars().take(80).collect();
        Err(self.error(at, format!("invalid input syntax for type {}: \"{shown}\"{}", long_name(ty), hint(ty))))
    }

    fn column(&mut self, at: usize, names: &[String]) -> Result<Expr, WhereError> {
        let [name] = names else {
            return Err(
                self.error(at, format!("unknown reference {}: columns are named without their table", names.join(".")))
            );
        };
        let Some(index) = self.table.column(name) else {
            return Err(self.error(at, format!("unknown reference {name}")));
        };
        let column = &self.table.columns[index];
        let ty = Type::of_column(column);
        Ok(Expr::new(ty, Kind::Column(index)))
    }

    /// Gives a part this type, as Postgres would without being asked; a literal is read.
    pub(super) fn coerce(&mut self, typed: Typed, to: &Type, place: usize) -> Result<Expr, WhereError> {
        match typed {
            Typed::Literal { at, text, param } => {
                if let Some(number) = param {
                    let known = self.param_types.entry(number).or_insert_with(|| to.clone());
                    if known != to {
                        let known = long_name(known);
                        return Err(self.error(
                            at,
                            format!("type conflict for ${number}: it cannot be both {known} and {}", long_name(to)),
                        ));
                    }
                }
                match text {
                    None => Ok(Expr::new(to.clone(), Kind::Const(None))),
                    Some(text) => self.constant(at, to, &text),
                }
            }
            Typed::Known(expr) if expr.ty == *to => Ok(expr),
            Typed::Known(expr) if expr.ty.becomes(to) => {
                let cast = Kind::Cast { of: expr.into(), modifier: Vec::new() };
                self.folded(place, Expr::new(to.clone(), cast))
            }
            Typed::Known(expr) => {
                let (from, to) = (long_name(&expr.ty), long_name(to));
                Err(self.error(place, format!("a value of type {from} cannot be taken for {to}: write a cast")))
            }
        }
    }

    /// Computes what is constant already, so that its errors are refusals.
    pub(super) fn folded(&mut self, at: usize, expr: Expr) -> Result<Expr, WhereError> {
        self.spend()?;
        let constant = match &expr.kind {
            Kind::Column(_) | Kind::Const(_) | Kind::Atom(_) => false,
            _ => expr.parts().iter().all(|part| part.constant().is_some()),
        };
        // Postgres, too, does not look at the other arguments, whatever errors they would make.
        if let Kind::Call { op, arguments, .. } = &expr.kind
            && op.is_strict()
            && arguments.iter().any(|argument| matches!(argument.constant(), Some(None)))
        {
            return Ok(Expr::new(expr.ty, Kind::Const(None)));
        }
        // Nothing is equal to null: as there, the first argument is all that is left (`eval_const_expressions`).
        if let Kind::NullIf(left, right) = &expr.kind
            && left.ty == expr.ty
            && [left, right].iter().any(|argument| matches!(argument.constant(), Some(None)))
        {
            return Ok(Expr::clone(left));
        }
        if !constant {
            if needs_name(&expr) {
                return Err(self.error(at, "enum literals alone have no type in SQL: name an enum column beside them"));
            }
            return Ok(expr);
        }
        match eval::value(&expr, &Row::empty()) {
            Ok(value) => Ok(Expr::new(expr.ty.clone(), Kind::Const(value.map(Value::into_owned)))),
            Err(fail) => Err(self.error(at, fail.0)),
        }
    }

    fn not(expr: Expr) -> Expr {
        match expr.kind {
            Kind::Const(Some(Value::Bool(value))) => Expr::bool(Kind::Const(Some(Value::Bool(!value)))),
            Kind::Const(None) => expr,
            _ => Expr::bool(Kind::Not(expr.into())),
        }
    }
}

/// What to write instead, where we read less than Postgres.
fn hint(ty: &Type) -> &'static str {
    match ty.element().unwrap_or(ty) {
        Type::Date => ": write YYYY-MM-DD",
        Type::Time => ": write HH:MM:SS",
        Type::Timestamp | Type::Timestamptz => ": write YYYY-MM-DDTHH:MM:SSZ",
        Type::Interval => ": write 1 day 02:03:04 or P1DT2H3M4S",
        _ => "",
    }
}

/// Whether an enum's name would be needed to say in SQL what type this has: literals take theirs from a column beside them.
fn needs_name(expr: &Expr) -> bool {
    if !matches!(expr.ty.element().unwrap_or(&expr.ty), Type::Enum(_)) {
        return false;
    }
    match &expr.kind {
        Kind::Column(_) => false,
        Kind::Case { branches, default } => {
            branches.iter().map(|(_, then)| then).chain(default.as_deref()).all(needs_name)
        }
        Kind::Subscript(of, _) | Kind::Slice(of, _) => needs_name(of),
        _ => expr.parts().into_iter().all(needs_name),
    }
}

/// No filter is nested deeper than its text: the evaluator's stack is bounded by the parser's.
const _: () = assert!(MAX_DEPTH < 1000, "recursion over expressions must stay shallow");
