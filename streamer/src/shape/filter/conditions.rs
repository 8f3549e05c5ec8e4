//! What every row of a filter must have, as far as an index can use it: `column = constant`, IN, containment.

use super::expr::{Expr, Kind, Op};
use super::text;
use super::types::Type;
use super::value::{Maybe, Value};
use crate::shape::table::{Collation, TableSchema};

/// One of the conditions that all hold where the filter holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// The column is one of these texts, as the WAL has them.
    OneOf {
        /// Index of the column.
        column: usize,
        /// Texts that only equal values have.
        values: Vec<String>,
    },
    /// The array column has all of these elements.
    Contains {
        /// Index of the column.
        column: usize,
        /// Texts of elements.
        elements: Vec<String>,
    },
    /// Nothing matches.
    Never,
}

/// Types whose equal values have equal texts in the WAL, so that texts can be looked up. `numeric` (`1.0`), floats (`-0`),
/// `interval` and `char(n)` are not among them.
pub(super) fn has_one_text(of: &Type) -> bool {
    matches!(
        of,
        Type::Bool
            | Type::Int2
            | Type::Int4
            | Type::Int8
            | Type::Text
            | Type::Varchar
            | Type::Name
            | Type::Uuid
            | Type::Date
            | Type::Time
            | Type::Timestamp
            | Type::Timestamptz
            | Type::Enum(_)
    )
}

/// As the output function prints it, not the cast to text.
fn wal_text(of: &Type, value: &Value<'_>) -> String {
    match value {
        Value::Bool(value) => if *value { "t" } else { "f" }.to_owned(),
        _ => text::show(of, value),
    }
}

/// The column beneath casts that keep values apart: integers among each other, texts among each other.
fn column<'a>(expr: &'a Expr, table: &TableSchema) -> Option<(usize, &'a Type)> {
    match &expr.kind {
        Kind::Column(index) => {
            let loose = table.columns[*index].collation == Collation::Nondeterministic;
            (has_one_text(&expr.ty) && !loose).then_some((*index, &expr.ty))
        }
        Kind::Cast { of, modifier } if modifier.is_empty() => {
            let int = |ty: &Type| matches!(ty, Type::Int2 | Type::Int4 | Type::Int8);
            let text = |ty: &Type| matches!(ty, Type::Text | Type::Varchar | Type::Name);
            let kept = (int(&of.ty) && (int(&expr.ty) || expr.ty == Type::Numeric))
                || (text(&of.ty) && matches!(expr.ty, Type::Text | Type::Varchar))
                || (matches!(of.ty, Type::Enum(_)) && expr.ty == Type::Text);
            if kept { column(of, table) } else { None }
        }
        Kind::Collate(of) => column(of, table),
        _ => None,
    }
}

/// The text that a column of type `of` has where it equals this constant: `Err` if it cannot equal it.
fn text_of(of: &Type, value: &Value<'_>) -> Option<Result<String, ()>> {
    Some(match (of, value) {
        (Type::Int2 | Type::Int4 | Type::Int8, Value::Int2(_) | Value::Int4(_) | Value::Int8(_)) => {
            Ok(wal_text(of, value))
        }
        (Type::Int2 | Type::Int4 | Type::Int8, Value::Numeric(number)) => match number.to_i64() {
            Some(whole) if number.order(&whole.into()).is_eq() => Ok(whole.to_string()),
            _ => Err(()),
        },
        (Type::Text | Type::Varchar | Type::Name | Type::Enum(_), Value::Text(text)) => Ok(text.to_string()),
        (Type::Bool, Value::Bool(_))
        | (Type::Uuid, Value::Uuid(_))
        | (Type::Date, Value::Date(_))
        | (Type::Time, Value::Time(_))
        | (Type::Timestamp, Value::Timestamp(_))
        | (Type::Timestamptz, Value::Timestamptz(_))
        | (Type::Enum(_), Value::Enum(_)) => Ok(wal_text(of, value)),
        _ => return None,
    })
}

fn one_of(of: &Expr, values: &[&Maybe<'static>], table: &TableSchema) -> Option<Condition> {
    let (column, ty) = column(of, table)?;
    let mut texts = Vec::with_capacity(values.len());
    for value in values.iter().copied().flatten() {
        if let Ok(text) = text_of(ty, value)? {
            texts.push(text);
        }
    }
    texts.sort_unstable();
    texts.dedup();
    Some(if texts.is_empty() { Condition::Never } else { Condition::OneOf { column, values: texts } })
}

/// The array column that contains all of a constant array.
fn contains(of: &Expr, wanted: &Expr) -> Option<Condition> {
    let (Kind::Column(column), Some(Some(Value::Array(array)))) = (&of.kind, wanted.constant()) else { return None };
    let element = of.ty.element().filter(|element| has_one_text(element))?;
    if array.elements.iter().any(Option::is_none) {
        return Some(Condition::Never);
    }
    let mut elements: Vec<String> = array.elements.iter().flatten().map(|value| wal_text(element, value)).collect();
    elements.sort_unstable();
    elements.dedup();
    (!elements.is_empty()).then_some(Condition::Contains { column: *column, elements })
}

/// The conditions of a conjunction. Without any the filter may match every row.
pub(super) fn of(expr: &Expr, table: &TableSchema) -> Vec<Condition> {
    let mut found = Vec::new();
    collect(expr, table, &mut found);
    if found.contains(&Condition::Never) { vec![Condition::Never] } else { found }
}

fn collect(expr: &Expr, table: &TableSchema, found: &mut Vec<Condition>) {
    match &expr.kind {
        Kind::Const(Some(Value::Bool(true))) => {}
        Kind::Const(_) => found.push(Condition::Never),
        Kind::And(all) => {
            for one in all {
                collect(one, table, found);
            }
        }
        Kind::Or(all) => found.extend(any_of(all, table)),
        Kind::Is(true, of) => collect(of, table, found),
        Kind::Column(_) if expr.ty == Type::Bool => {
            let yes = Some(Value::Bool(true));
            found.extend(one_of(expr, &[&yes], table));
        }
        Kind::Not(of) if matches!(of.kind, Kind::Column(_)) => {
            let no = Some(Value::Bool(false));
            found.extend(one_of(of, &[&no], table));
        }
        Kind::Call { op: Op::Equal, arguments, .. } => {
            if let [left, right] = arguments.as_slice() {
                if let Some(value) = right.constant() {
                    found.extend(one_of(left, &[value], table));
                } else if let Some(value) = left.constant() {
                    found.extend(one_of(right, &[value], table));
                }
            }
        }
        Kind::Call { op: op @ (Op::Contains | Op::Contained), arguments, .. } => {
            if let [left, right] = arguments.as_slice() {
                found.extend(if *op == Op::Contains { contains(left, right) } else { contains(right, left) });
            }
        }
        Kind::Quantified { op: Op::Equal, all: false, left, right, .. } => {
            if let Some(Some(Value::Array(array))) = right.constant() {
                found.extend(one_of(left, &array.elements.iter().collect::<Vec<_>>(), table));
            } else if let (Kind::Column(column), Some(value)) = (&right.kind, left.constant()) {
                let element = right.ty.element().filter(|element| has_one_text(element));
                match (element, value) {
                    (Some(_), None) => found.push(Condition::Never),
                    (Some(element), Some(value)) => {
                        found.push(Condition::Contains { column: *column, elements: vec![wal_text(element, value)] });
                    }
                    _ => {}
                }
            }
        }
        _ => {}
    }
}

/// `column = a OR column IN (b, c)`: one column in every branch.
fn any_of(all: &[Expr], table: &TableSchema) -> Option<Condition> {
    let mut union: Option<(usize, Vec<String>)> = None;
    for one in all {
        let mut branch = Vec::new();
        collect(one, table, &mut branch);
        if branch.contains(&Condition::Never) {
            continue;
        }
        let (column, values) = branch.into_iter().find_map(|condition| match condition {
            Condition::OneOf { column, values } if union.as_ref().is_none_or(|(of, _)| *of == column) => {
                Some((column, values))
            }
            _ => None,
        })?;
        union.get_or_insert((column, Vec::new())).1.extend(values);
    }
    Some(match union {
        None => Condition::Never,
        Some((column, mut values)) => {
            values.sort_unstable();
            values.dedup();
            Condition::OneOf { column, values }
        }
    })
}
