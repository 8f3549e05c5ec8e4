//! `a IN (…)`, `a = b OR a = c …` and `a = ANY ('{…}')` with constants: a look into a set, however many there are.

use super::eval::{Fail, INCOMPARABLE};
use super::expr::{Expr, Kind, Op};
use super::value::{Maybe, Value};
use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::Arc;

/// With fewer constants, comparing one after the other is as quick.
const WORTHWHILE: usize = 4;

/// The constants.
#[derive(Clone, Debug)]
pub(super) struct Set {
    keys: Arc<HashSet<Key<'static>>>,
    /// Beside a null, what is not found may be in.
    has_null: bool,
}

/// A value of a type whose equal values are the same.
#[derive(Debug, PartialEq, Eq, Hash)]
enum Key<'a> {
    Int(i64),
    Text(Cow<'a, str>),
    Uuid([u8; 16]),
    Day(i32),
    Micros(i64),
    Label(usize),
}

fn key<'a>(value: &'a Value<'_>) -> Option<Key<'a>> {
    Some(match value {
        Value::Int2(value) => Key::Int(i64::from(*value)),
        Value::Int4(value) => Key::Int(i64::from(*value)),
        Value::Int8(value) => Key::Int(*value),
        Value::Text(text) => Key::Text(Cow::Borrowed(text)),
        Value::Uuid(bytes) => Key::Uuid(*bytes),
        Value::Date(day) => Key::Day(*day),
        Value::Time(micros) | Value::Timestamp(micros) | Value::Timestamptz(micros) => Key::Micros(*micros),
        Value::Enum(label) => Key::Label(*label),
        _ => return None,
    })
}

impl Set {
    fn of<'a>(values: impl Iterator<Item = &'a Maybe<'static>>) -> Option<Self> {
        let (mut keys, mut has_null, mut kind) = (HashSet::new(), false, None);
        for value in values {
            let Some(value) = value else {
                has_null = true;
                continue;
            };
            // A date among timestamps is none of their keys.
            let own = std::mem::discriminant(value);
            if kind.replace(own).is_some_and(|kind| kind != own) {
                return None;
            }
            keys.insert(match key(value)? {
                Key::Text(text) => Key::Text(Cow::Owned(text.into_owned())),
                Key::Int(value) => Key::Int(value),
                Key::Uuid(bytes) => Key::Uuid(bytes),
                Key::Day(day) => Key::Day(day),
                Key::Micros(micros) => Key::Micros(micros),
                Key::Label(label) => Key::Label(label),
            });
        }
        Some(Self { keys: Arc::new(keys), has_null })
    }

    /// Whether a value is in.
    pub(super) fn has(&self, value: &Value<'_>) -> Result<Option<bool>, Fail> {
        let found = self.keys.contains(&key(value).ok_or(INCOMPARABLE)?);
        Ok(if found || !self.has_null { Some(found) } else { None })
    }
}

/// The same expression, for evaluation only, with sets for lists.
pub(super) fn with_sets(expr: &Expr) -> Expr {
    let all = |of: &[Expr]| of.iter().map(with_sets).collect::<Vec<_>>();
    let kind = match &expr.kind {
        Kind::And(of) => Kind::And(all(of)),
        Kind::Or(of) => return any(of),
        Kind::Not(of) => Kind::Not(Box::new(with_sets(of))),
        Kind::Is(wanted, of) => Kind::Is(*wanted, Box::new(with_sets(of))),
        Kind::Quantified { op: Op::Equal, all: false, left, right, .. } => match right.constant() {
            Some(Some(Value::Array(array))) if array.elements.len() >= WORTHWHILE => {
                match Set::of(array.elements.iter()) {
                    Some(set) if is_of(&left.ty, array.elements.iter()) => Kind::Among(left.clone(), set),
                    _ => return expr.clone(),
                }
            }
            _ => return expr.clone(),
        },
        _ => return expr.clone(),
    };
    Expr::new(expr.ty.clone(), kind)
}

/// Whether constants are of this type: then their keys are those of its values.
fn is_of<'a>(ty: &super::types::Type, values: impl Iterator<Item = &'a Maybe<'static>>) -> bool {
    use super::types::Type;
    values.flatten().all(|value| {
        matches!(
            (ty, value),
            (Type::Int2 | Type::Int4 | Type::Int8, Value::Int2(_) | Value::Int4(_) | Value::Int8(_))
                | (Type::Text | Type::Varchar | Type::Name, Value::Text(_))
                | (Type::Uuid, Value::Uuid(_))
                | (Type::Date, Value::Date(_))
                | (Type::Time, Value::Time(_))
                | (Type::Timestamp, Value::Timestamp(_))
                | (Type::Timestamptz, Value::Timestamptz(_))
                | (Type::Enum(_), Value::Enum(_))
        )
    })
}

/// An OR: comparisons of one thing with constants become one look.
fn any(all: &[Expr]) -> Expr {
    let mut rest = Vec::new();
    let mut lists: Vec<(&Expr, Vec<(&Expr, &Maybe<'static>)>)> = Vec::new();
    for one in all {
        match compared(one) {
            None => rest.push(with_sets(one)),
            Some((left, value)) => match lists.last_mut().filter(|(of, _)| same(of, left)) {
                Some((_, list)) => list.push((one, value)),
                None => lists.push((left, vec![(one, value)])),
            },
        }
    }
    for (left, list) in lists {
        let values = || list.iter().map(|(_, value)| *value);
        match Set::of(values()).filter(|_| list.len() >= WORTHWHILE && is_of(&left.ty, values())) {
            Some(set) => rest.push(Expr::bool(Kind::Among(Box::new(left.clone()), set))),
            None => rest.extend(list.into_iter().map(|(one, _)| one.clone())),
        }
    }
    Expr::bool(Kind::Or(rest))
}

fn compared(expr: &Expr) -> Option<(&Expr, &Maybe<'static>)> {
    let Kind::Call { op: Op::Equal, arguments, .. } = &expr.kind else { return None };
    let [left, right] = arguments.as_slice() else { return None };
    right.constant().map(|value| (left, value))
}

/// Columns, cast or not: other things are seldom written twice.
fn same(a: &Expr, b: &Expr) -> bool {
    a.ty == b.ty
        && match (&a.kind, &b.kind) {
            (Kind::Column(a), Kind::Column(b)) => a == b,
            (Kind::Cast { of: a, modifier: m }, Kind::Cast { of: b, modifier: n }) => m == n && same(a, b),
            (Kind::Collate(a), Kind::Collate(b)) => same(a, b),
            _ => false,
        }
}
