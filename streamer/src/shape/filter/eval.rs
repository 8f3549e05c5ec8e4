//! Computes an expression over a row, three-valued, as Postgres would; what would be an error there is one here.

use super::array::{Array, Dimension};
use super::cast;
use super::compute;
use super::expr::{Expr, Kind, Op};
use super::text;
use super::types::Type;
use super::value::{Maybe, Value};
use std::cell::Cell;
use std::cmp::Ordering;

/// Postgres would raise an error for this row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fail(pub(super) &'static str);

/// What one row may take, in steps of some nanoseconds: a look at a part of the expression, at a few bytes of a text. A client
/// writes the condition and perhaps the rows, and all share the threads; beyond it the row counts as one that fails.
const MAX_STEPS: u64 = 20_000_000;

/// A row as the WAL has it, and what the subqueries say of it.
pub(super) struct Row<'a> {
    cells: &'a [Option<&'a str>],
    /// Whether each subquery has the row's value.
    atoms: &'a [Option<bool>],
    /// What the evaluation has taken.
    steps: Cell<u64>,
}

impl<'a> Row<'a> {
    pub(super) fn new(cells: &'a [Option<&'a str>], atoms: &'a [Option<bool>]) -> Self {
        Self { cells, atoms, steps: Cell::new(0) }
    }

    /// For constants.
    pub(super) fn empty() -> Self {
        Self::new(&[], &[])
    }

    /// What the evaluation has taken so far.
    pub(super) fn spent(&self) -> u64 {
        self.steps.get()
    }

    /// Takes more steps, if there are.
    pub(super) fn spend(&self, steps: usize) -> Result<(), Fail> {
        let sum = self.steps.get().saturating_add(steps as u64);
        self.steps.set(sum);
        if sum > MAX_STEPS { Err(Fail("the condition takes too long for this row")) } else { Ok(()) }
    }
}

const UNREADABLE: Fail = Fail("a value of the row has a form that is not known");

/// The value of an expression.
pub(super) fn value<'a>(expr: &'a Expr, row: &Row<'a>) -> Result<Maybe<'a>, Fail> {
    row.spend(1)?;
    match &expr.kind {
        Kind::Const(value) => Ok(value.clone()),
        Kind::Column(index) => match row.cells.get(*index).copied().flatten() {
            None => Ok(None),
            Some(text) => {
                row.spend(compute::reading(&expr.ty, text.len()))?;
                text::read(&expr.ty, text.into()).map(Some).ok_or(UNREADABLE)
            }
        },
        Kind::Call { op, arguments, .. } => call(*op, arguments, row),
        Kind::Cast { of, modifier } => match value(of, row)? {
            Some(value) => {
                row.spend(compute::reading(&expr.ty, compute::size(&value)))?;
                cast::cast(value, &of.ty, &expr.ty, modifier)
            }
            None => Ok(None),
        },
        Kind::And(_)
        | Kind::Or(_)
        | Kind::Not(_)
        | Kind::IsNull(_)
        | Kind::Fields { .. }
        | Kind::Is(..)
        | Kind::Same(..)
        | Kind::Atom(_)
        | Kind::Among(..)
        | Kind::Quantified { .. } => Ok(truth(expr, row)?.map(Value::Bool)),
        Kind::Coalesce(all) => {
            for one in all {
                if let Some(found) = value(one, row)? {
                    return Ok(Some(found));
                }
            }
            Ok(None)
        }
        Kind::Extreme { greatest, of } => extreme(*greatest, of, row),
        Kind::NullIf(left, right) => {
            let (left, right) = (value(left, row)?, value(right, row)?);
            match (&left, &right) {
                (Some(a), Some(b)) if equal(a, b)? => Ok(None),
                _ => Ok(left),
            }
        }
        Kind::Case { branches, default } => {
            for (when, then) in branches {
                if truth(when, row)? == Some(true) {
                    return value(then, row);
                }
            }
            default.as_deref().map_or(Ok(None), |default| value(default, row))
        }
        Kind::Array(all) => array(all, row),
        Kind::Subscript(of, indexes) => subscript(of, indexes, row),
        Kind::Slice(of, bounds) => slice(of, bounds, row),
        Kind::Concat(all) => {
            let mut joined = String::new();
            for one in all {
                compute::fits(joined.len())?;
                match value(one, row)? {
                    None => {}
                    // What the output function says, not the cast.
                    Some(Value::Bool(value)) => joined.push(if value { 't' } else { 'f' }),
                    Some(value) => {
                        row.spend(compute::reading(&one.ty, compute::size(&value)))?;
                        joined.push_str(&text::show(&one.ty, &value));
                    }
                }
            }
            Ok(Some(Value::text(joined)))
        }
        Kind::Collate(of) => value(of, row),
    }
}

/// The value of a condition.
pub(super) fn truth<'a>(expr: &'a Expr, row: &Row<'a>) -> Result<Option<bool>, Fail> {
    Ok(match &expr.kind {
        Kind::And(all) => return decided(all, row, false),
        Kind::Or(all) => return decided(all, row, true),
        Kind::Not(of) => truth(of, row)?.map(|value| !value),
        Kind::IsNull(of) => Some(match &of.kind {
            // Also of types that we cannot read.
            Kind::Column(index) => row.cells.get(*index).copied().flatten().is_none(),
            _ => value(of, row)?.is_none(),
        }),
        Kind::Fields { column, null } => Some(match row.cells.get(*column).copied().flatten() {
            None => *null,
            Some(text) => {
                row.spend(text.len() / 16)?;
                fields_are_null(text, *null).ok_or(UNREADABLE)?
            }
        }),
        Kind::Is(wanted, of) => Some(truth(of, row)? == Some(*wanted)),
        Kind::Same(left, right) => Some(match (value(left, row)?, value(right, row)?) {
            (None, None) => true,
            (Some(a), Some(b)) => equal(&a, &b)?,
            _ => false,
        }),
        Kind::Atom(index) => row.atoms.get(*index).copied().flatten(),
        Kind::Among(of, set) => match value(of, row)? {
            Some(value) => set.has(&value)?,
            None => None,
        },
        Kind::Quantified { op, all, left, right, .. } => quantified(*op, *all, left, right, row)?,
        _ => match value(expr, row)? {
            Some(Value::Bool(value)) => Some(value),
            Some(_) => return Err(Fail("a condition is not boolean")),
            None => None,
        },
    })
}

/// Whether each field of a composite value is null, or each is not: a null field is written as nothing at all (`record_out`).
fn fields_are_null(text: &str, null: bool) -> Option<bool> {
    let fields = text.strip_prefix('(')?.strip_suffix(')')?;
    // `()` has one field, and that is null; types without any are not worth the distinction.
    let (mut quoted, mut empty, mut letters) = (false, true, fields.bytes());
    while let Some(letter) = letters.next() {
        match letter {
            b'"' => {
                quoted = !quoted;
                empty = false;
            }
            b'\\' => drop(letters.next()),
            b',' if !quoted => {
                if empty != null {
                    return Some(false);
                }
                empty = true;
            }
            _ => empty = false,
        }
    }
    Some(empty == null)
}

/// AND and OR: one operand may decide, whatever the others are, errors included; Postgres, too, is free in their order.
fn decided<'a>(all: &'a [Expr], row: &Row<'a>, deciding: bool) -> Result<Option<bool>, Fail> {
    let (mut failed, mut unknown) = (None, false);
    for one in all {
        match truth(one, row) {
            Ok(Some(value)) if value == deciding => return Ok(Some(deciding)),
            Ok(Some(_)) => {}
            Ok(None) => unknown = true,
            Err(fail) => failed = Some(fail),
        }
    }
    match failed {
        Some(fail) => Err(fail),
        None if unknown => Ok(None),
        None => Ok(Some(!deciding)),
    }
}

pub(super) const INCOMPARABLE: Fail = Fail("values cannot be compared");

fn equal(a: &Value<'_>, b: &Value<'_>) -> Result<bool, Fail> {
    Ok(a.order(b).ok_or(INCOMPARABLE)? == Ordering::Equal)
}

fn call<'a>(op: Op, arguments: &'a [Expr], row: &Row<'a>) -> Result<Maybe<'a>, Fail> {
    match arguments {
        [one] => match value(one, row)? {
            Some(one) => {
                row.spend(compute::size(&one))?;
                compute::unary(op, one)
            }
            None => Ok(None),
        },
        [left, right] => {
            let (left, right) = (value(left, row)?, value(right, row)?);
            match op {
                Op::ArrayJoin | Op::ArrayAppend | Op::ArrayPrepend => {
                    row.spend([&left, &right].into_iter().flatten().map(compute::size).sum())?;
                    compute::array(op, left, right)
                }
                _ => match (left, right) {
                    (Some(left), Some(right)) => compute::binary(op, &left, &right, row),
                    _ => Ok(None),
                },
            }
        }
        _ => Err(Fail("an operator without arguments")),
    }
}

fn quantified<'a>(op: Op, all: bool, left: &'a Expr, right: &'a Expr, row: &Row<'a>) -> Result<Option<bool>, Fail> {
    let left = value(left, row)?;
    // Constants are borrowed: lists may be long.
    let owned;
    let array = match right.constant() {
        Some(Some(Value::Array(array))) => array,
        Some(_) => return Ok(None),
        None => match value(right, row)? {
            Some(Value::Array(array)) => {
                owned = array;
                &owned
            }
            _ => return Ok(None),
        },
    };
    if array.elements.is_empty() {
        return Ok(Some(all));
    }
    let Some(left) = left else { return Ok(None) };
    let mut unknown = false;
    for element in &array.elements {
        let Some(element) = element else {
            unknown = true;
            continue;
        };
        let holds = if op.compares() {
            row.spend(1 + compute::size(&left).min(compute::size(element)) / 8)?;
            compute::compared(op, left.order(element).ok_or(INCOMPARABLE)?)
        } else {
            compute::binary(op, &left, element, row)? == Some(Value::Bool(true))
        };
        if holds != all {
            return Ok(Some(!all));
        }
    }
    Ok(if unknown { None } else { Some(all) })
}

fn extreme<'a>(greatest: bool, all: &'a [Expr], row: &Row<'a>) -> Result<Maybe<'a>, Fail> {
    let mut best: Maybe<'a> = None;
    for one in all {
        let Some(next) = value(one, row)? else { continue };
        let better = match &best {
            None => true,
            Some(best) => {
                let wanted = if greatest { Ordering::Greater } else { Ordering::Less };
                next.order(best).ok_or(INCOMPARABLE)? == wanted
            }
        };
        if better {
            best = Some(next);
        }
    }
    Ok(best)
}

const RAGGED: Fail = Fail("multidimensional arrays must have array expressions with matching dimensions");

/// `ARRAY[…]`, of elements or of arrays.
fn array<'a>(all: &'a [Expr], row: &Row<'a>) -> Result<Maybe<'a>, Fail> {
    if !all.iter().any(|one| matches!(one.ty, Type::Array(_))) {
        let elements = all.iter().map(|one| value(one, row)).collect::<Result<Vec<_>, _>>()?;
        return Ok(Some(Value::Array(Array::flat(elements))));
    }
    let (mut inner, mut count, mut empty): (Option<Vec<Dimension>>, usize, bool) = (None, 0, false);
    let mut elements = Vec::new();
    for one in all {
        match value(one, row)? {
            Some(Value::Array(array)) if !array.dimensions.is_empty() => {
                if inner.get_or_insert_with(|| array.dimensions.clone()) != &array.dimensions {
                    return Err(RAGGED);
                }
                count += 1;
                elements.extend(array.elements);
            }
            _ => empty = true,
        }
    }
    let Some(inner) = inner else { return Ok(Some(Value::Array(Array::flat(Vec::new())))) };
    if empty || inner.len() >= super::array::MAX_DIMENSIONS {
        return Err(RAGGED);
    }
    let mut dimensions = vec![Dimension { lower: 1, length: count }];
    dimensions.extend(inner);
    Ok(Some(Value::Array(Array { dimensions, elements })))
}

fn index<'a>(expr: &'a Expr, row: &Row<'a>) -> Result<Option<i64>, Fail> {
    Ok(match value(expr, row)? {
        Some(Value::Int4(index)) => Some(i64::from(index)),
        _ => None,
    })
}

fn subscript<'a>(of: &'a Expr, indexes: &'a [Expr], row: &Row<'a>) -> Result<Maybe<'a>, Fail> {
    let array = value(of, row)?;
    let mut places = Vec::with_capacity(indexes.len());
    for one in indexes {
        match index(one, row)? {
            Some(place) => places.push(place),
            None => return Ok(None),
        }
    }
    Ok(match array {
        Some(Value::Array(array)) => array.at(&places),
        _ => None,
    })
}

fn slice<'a>(of: &'a Expr, bounds: &'a [(Option<Expr>, Option<Expr>)], row: &Row<'a>) -> Result<Maybe<'a>, Fail> {
    let array = value(of, row)?;
    let mut places = Vec::with_capacity(bounds.len());
    for (low, high) in bounds {
        let mut place = [None, None];
        for (at, bound) in [low, high].into_iter().enumerate() {
            if let Some(bound) = bound {
                match index(bound, row)? {
                    Some(found) => place[at] = Some(found),
                    None => return Ok(None),
                }
            }
        }
        places.push((place[0], place[1]));
    }
    Ok(match array {
        Some(Value::Array(array)) => Some(Value::Array(array.slice(&places))),
        _ => None,
    })
}
