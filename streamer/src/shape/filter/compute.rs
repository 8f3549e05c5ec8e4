//! Operators and functions over values that are not null.

use std::cmp::Ordering;

use super::array::Array;
use super::datetime::{self, DAY};
use super::eval::{Fail, Row};
use super::expr::Op;
use super::interval::Interval;
use super::json::Json;
use super::like;
use super::numeric::{Numeric, NumericError};
use super::types::Type;
use super::value::{Maybe, Value};

const OVERFLOW: Fail = Fail("value out of range: overflow");
const UNDERFLOW: Fail = Fail("value out of range: underflow");
const BY_ZERO: Fail = Fail("division by zero");
const INT2: Fail = Fail("smallint out of range");
const INT4: Fail = Fail("integer out of range");
const INT8: Fail = Fail("bigint out of range");
const TIMESTAMP: Fail = Fail("timestamp out of range");
const DATE: Fail = Fail("date out of range");
const INTERVAL: Fail = Fail("interval out of range");
const UNKNOWN: Fail = Fail("an operator that is not known for these values");

impl From<NumericError> for Fail {
    fn from(error: NumericError) -> Self {
        match error {
            NumericError::Overflow => Self("value overflows numeric format"),
            NumericError::DivisionByZero => BY_ZERO,
        }
    }
}

/// Whether a comparison holds, of two values in this order.
pub(super) fn compared(op: Op, order: Ordering) -> bool {
    match op {
        Op::Equal => order == Ordering::Equal,
        Op::NotEqual => order != Ordering::Equal,
        Op::Less => order == Ordering::Less,
        Op::LessOrEqual => order != Ordering::Greater,
        Op::Greater => order == Ordering::Greater,
        _ => order != Ordering::Less,
    }
}

/// With one side.
pub(super) fn unary(op: Op, of: Value<'_>) -> Result<Maybe<'_>, Fail> {
    let value = match (op, of) {
        (Op::Plus, of) => of,
        (Op::Negate, Value::Int2(a)) => Value::Int2(a.checked_neg().ok_or(INT2)?),
        (Op::Negate, Value::Int4(a)) => Value::Int4(a.checked_neg().ok_or(INT4)?),
        (Op::Negate, Value::Int8(a)) => Value::Int8(a.checked_neg().ok_or(INT8)?),
        (Op::Negate, Value::Float4(a)) => Value::Float4(-a),
        (Op::Negate, Value::Float8(a)) => Value::Float8(-a),
        (Op::Negate, Value::Numeric(a)) => Value::Numeric(a.negated()),
        (Op::Negate, Value::Interval(a)) => Value::Interval(a.negated().ok_or(INTERVAL)?),
        (Op::Absolute, Value::Int2(a)) => Value::Int2(a.checked_abs().ok_or(INT2)?),
        (Op::Absolute, Value::Int4(a)) => Value::Int4(a.checked_abs().ok_or(INT4)?),
        (Op::Absolute, Value::Int8(a)) => Value::Int8(a.checked_abs().ok_or(INT8)?),
        (Op::Absolute, Value::Float4(a)) => Value::Float4(a.abs()),
        (Op::Absolute, Value::Float8(a)) => Value::Float8(a.abs()),
        (Op::Absolute, Value::Numeric(a)) => Value::Numeric(a.absolute()),
        (Op::BitNot, Value::Int2(a)) => Value::Int2(!a),
        (Op::BitNot, Value::Int4(a)) => Value::Int4(!a),
        (Op::BitNot, Value::Int8(a)) => Value::Int8(!a),
        (Op::SquareRoot, Value::Float8(a)) if a < 0.0 => {
            return Err(Fail("cannot take square root of a negative number"));
        }
        (Op::SquareRoot, Value::Float8(a)) => Value::Float8(a.sqrt()),
        (Op::Lower(letters), Value::Text(text)) => Value::text(like::lower(&text, letters).into_owned()),
        (Op::Upper(letters), Value::Text(text)) => Value::text(like::upper(&text, letters).into_owned()),
        (Op::Length, of @ (Value::Text(_) | Value::Bpchar(_))) => {
            let length = of.as_text().map_or(0, |text| text.chars().count());
            Value::Int4(i32::try_from(length).map_err(|_| INT4)?)
        }
        (Op::ArrayDimensions, Value::Array(array)) => {
            if array.dimensions.is_empty() {
                return Ok(None);
            }
            Value::Int4(i32::try_from(array.dimensions.len()).map_err(|_| INT4)?)
        }
        (Op::JustifyDays, Value::Interval(a)) => Value::Interval(a.justify_days().ok_or(INTERVAL)?),
        (Op::JustifyHours, Value::Interval(a)) => Value::Interval(a.justify_hours().ok_or(INTERVAL)?),
        (Op::JustifyInterval, Value::Interval(a)) => Value::Interval(a.justify().ok_or(INTERVAL)?),
        _ => return Err(UNKNOWN),
    };
    Ok(Some(value))
}

/// Functions of arrays, for which null is a value.
pub(super) fn array<'a>(op: Op, left: Maybe<'a>, right: Maybe<'a>) -> Result<Maybe<'a>, Fail> {
    let fits = |array| Some(Value::Array(array));
    let ragged = Fail("cannot concatenate incompatible arrays");
    let several = Fail("argument must be empty or one-dimensional array");
    let empty = || super::array::Array::flat(Vec::new());
    let whole = |of: Maybe<'a>| match of {
        Some(Value::Array(array)) => Ok(array),
        None => Ok(empty()),
        Some(_) => Err(UNKNOWN),
    };
    match op {
        Op::ArrayJoin => match (left, right) {
            (None, other) | (other, None) => Ok(other),
            (left, right) => whole(left)?.concatenated(whole(right)?).map(fits).ok_or(ragged),
        },
        Op::ArrayAppend => whole(left)?.appended(right).map(fits).ok_or(several),
        Op::ArrayPrepend => whole(right)?.prepended(left).map(fits).ok_or(several),
        _ => Err(UNKNOWN),
    }
}

/// What one text in an evaluation may come to. A condition can name a column thousands of times, and Postgres, where the limit
/// is 1 GiB, evaluates it in a process of its own; here it would be everybody's memory.
const MAX_VALUE_BYTES: usize = 16 << 20;

/// Whether so long a text is taken.
pub(super) fn fits(bytes: usize) -> Result<(), Fail> {
    if bytes > MAX_VALUE_BYTES { Err(Fail("a text becomes too long")) } else { Ok(()) }
}

/// How large a value is, as far as work on it depends on that.
pub(super) fn size(value: &Value<'_>) -> usize {
    match value {
        Value::Text(text) | Value::Bpchar(text) => text.len(),
        Value::Numeric(number) => number.size(),
        Value::Json(json) => json.size(),
        Value::Array(array) => array.elements.len() + array.elements.iter().flatten().map(size).sum::<usize>(),
        _ => 1,
    }
}

/// The steps that it takes to read, or to write, a value of so many bytes: numbers are converted, in the square of their length.
pub(super) fn reading(ty: &Type, bytes: usize) -> usize {
    match ty {
        Type::Numeric => bytes.saturating_mul(bytes) / 256,
        Type::Array(_) | Type::Jsonb => bytes,
        _ => bytes / 16,
    }
}

/// The steps that an operator takes.
fn cost(op: Op, left: &Value<'_>, right: &Value<'_>) -> usize {
    let (a, b) = (size(left), size(right));
    match (left, right) {
        (Value::Array(_), Value::Array(_)) | (Value::Json(_), Value::Json(_)) if !op.compares() => a.saturating_mul(b),
        (Value::Json(_), Value::Array(_)) => a.saturating_mul(b) / 16 + b,
        (Value::Json(_), _) => a,
        (Value::Numeric(_), Value::Numeric(_)) => (a + b).saturating_add(a.saturating_mul(b) / 64),
        // Where one begins otherwise than the other, the rest is not looked at.
        _ if op.compares() => a.min(b) / 16,
        _ => a.saturating_add(b) / 16,
    }
}

/// With two sides. `row` pays for it.
pub(super) fn binary(op: Op, left: &Value<'_>, right: &Value<'_>, row: &Row<'_>) -> Result<Maybe<'static>, Fail> {
    row.spend(cost(op, left, right))?;
    if op.compares() {
        let order = left.order(right).ok_or(UNKNOWN)?;
        return Ok(Some(Value::Bool(compared(op, order))));
    }
    let value = match (op, left, right) {
        (Op::Join, Value::Text(a), Value::Text(b)) => {
            fits(a.len() + b.len())?;
            Value::text(format!("{a}{b}"))
        }
        (Op::Like { negated, fold, letters }, a, Value::Text(pattern)) => {
            let (Value::Text(text) | Value::Bpchar(text)) = a else { return Err(UNKNOWN) };
            let matches = if fold {
                like::like(&like::lower(text, letters), &like::lower(pattern, letters), row)?
            } else {
                like::like(text, pattern, row)?
            };
            Value::Bool(matches != negated)
        }
        (Op::Contains, Value::Array(a), Value::Array(b)) => Value::Bool(a.contains(b).ok_or(UNKNOWN)?),
        (Op::Contained, Value::Array(a), Value::Array(b)) => Value::Bool(b.contains(a).ok_or(UNKNOWN)?),
        (Op::Overlaps, Value::Array(a), Value::Array(b)) => Value::Bool(a.overlaps(b).ok_or(UNKNOWN)?),
        (Op::Contains, Value::Json(a), Value::Json(b)) => Value::Bool(a.contains(b)),
        (Op::Contained, Value::Json(a), Value::Json(b)) => Value::Bool(b.contains(a)),
        (Op::Step { as_text }, Value::Json(of), step) => {
            let found = match step {
                Value::Text(key) => of.member(key),
                Value::Int4(index) => of.element(i64::from(*index)),
                _ => return Err(UNKNOWN),
            };
            return Ok(found.and_then(|found| looked_up(found, as_text)));
        }
        (Op::Path { as_text }, Value::Json(of), Value::Array(path)) => {
            let Some(steps) = texts(path) else { return Ok(None) };
            return Ok(of.at_path(steps).and_then(|found| looked_up(found, as_text)));
        }
        (Op::HasKey, Value::Json(of), Value::Text(key)) => Value::Bool(of.has(key)),
        (Op::HasAnyKey, Value::Json(of), Value::Array(keys)) => Value::Bool(known_texts(keys).any(|key| of.has(key))),
        (Op::HasAllKeys, Value::Json(of), Value::Array(keys)) => Value::Bool(known_texts(keys).all(|key| of.has(key))),
        (Op::AtZone, Value::Text(_), Value::Timestamp(micros)) => Value::Timestamptz(*micros),
        (Op::AtZone, Value::Text(_), Value::Timestamptz(micros)) => Value::Timestamp(*micros),
        (Op::Power, Value::Float8(a), Value::Float8(b)) => Value::Float8(power(*a, *b)?),
        (Op::Add | Op::Subtract | Op::Multiply | Op::Divide | Op::Remainder, ..) => arithmetic(op, left, right)?,
        (Op::BitAnd | Op::BitOr | Op::BitXor, ..) => bits(op, left, right)?,
        _ => return Err(UNKNOWN),
    };
    Ok(Some(value))
}

/// What was found in a `jsonb`; null as text is NULL.
fn looked_up(found: &Json, as_text: bool) -> Maybe<'static> {
    let found = found.clone();
    if as_text { found.into_text().map(Value::text) } else { Some(Value::Json(found)) }
}

fn known_texts<'v>(array: &'v Array<'_>) -> impl Iterator<Item = &'v str> {
    array.elements.iter().flatten().filter_map(Value::as_text)
}

/// The elements of a path; none if one is null.
fn texts<'v>(array: &'v Array<'_>) -> Option<Vec<&'v str>> {
    array.elements.iter().map(|element| element.as_ref()?.as_text()).collect()
}

fn bits(op: Op, left: &Value<'_>, right: &Value<'_>) -> Result<Value<'static>, Fail> {
    macro_rules! apply {
        ($a:expr, $b:expr) => {
            match op {
                Op::BitAnd => $a & $b,
                Op::BitOr => $a | $b,
                _ => $a ^ $b,
            }
        };
    }
    Ok(match (left, right) {
        (Value::Int2(a), Value::Int2(b)) => Value::Int2(apply!(a, b)),
        (Value::Int4(a), Value::Int4(b)) => Value::Int4(apply!(a, b)),
        (Value::Int8(a), Value::Int8(b)) => Value::Int8(apply!(a, b)),
        _ => return Err(UNKNOWN),
    })
}

fn arithmetic(op: Op, left: &Value<'_>, right: &Value<'_>) -> Result<Value<'static>, Fail> {
    use Value::{Date, Float4, Float8, Int2, Int4, Int8};
    let wide = |of: &Value<'_>| match of {
        Int2(a) => Some(i64::from(*a)),
        Int4(a) => Some(i64::from(*a)),
        Int8(a) => Some(*a),
        _ => None,
    };
    match (left, right) {
        (Int8(_), Int2(_) | Int4(_) | Int8(_)) | (Int2(_) | Int4(_), Int8(_)) => {
            let (Some(a), Some(b)) = (wide(left), wide(right)) else { return Err(UNKNOWN) };
            integers(op, a, b).map(Int8)
        }
        (Int4(_), Int2(_) | Int4(_)) | (Int2(_), Int4(_)) => {
            let (Some(a), Some(b)) = (wide(left), wide(right)) else { return Err(UNKNOWN) };
            i32::try_from(integers(op, a, b)?).map(Int4).map_err(|_| INT4)
        }
        (Int2(a), Int2(b)) => i16::try_from(integers(op, i64::from(*a), i64::from(*b))?).map(Int2).map_err(|_| INT2),
        (Float4(a), Float4(b)) => singles(op, *a, *b).map(Float4),
        (Float4(_) | Float8(_), Float4(_) | Float8(_)) => {
            let (Some(a), Some(b)) = (left.as_f64(), right.as_f64()) else { return Err(UNKNOWN) };
            doubles(op, a, b).map(Float8)
        }
        (Value::Numeric(a), Value::Numeric(b)) => numerics(op, a, b).map(Value::Numeric),
        (Date(a), Int4(b)) if op == Op::Subtract => days(*a, -i64::from(*b)),
        (Date(a), Int4(b)) | (Int4(b), Date(a)) => days(*a, i64::from(*b)),
        _ => times(op, left, right),
    }
}

fn integers(op: Op, a: i64, b: i64) -> Result<i64, Fail> {
    match op {
        Op::Add => a.checked_add(b),
        Op::Subtract => a.checked_sub(b),
        Op::Multiply => a.checked_mul(b),
        _ if b == 0 => return Err(BY_ZERO),
        Op::Divide => a.checked_div(b),
        // −2^63 % −1 is no overflow in Postgres.
        Op::Remainder => Some(a.wrapping_rem(b)),
        _ => return Err(UNKNOWN),
    }
    .ok_or(INT8)
}

fn numerics(op: Op, a: &Numeric, b: &Numeric) -> Result<Numeric, Fail> {
    Ok(match op {
        Op::Add => a.add(b)?,
        Op::Subtract => a.add(&b.negated())?,
        Op::Multiply => a.multiply(b)?,
        Op::Divide => a.divide(b)?,
        Op::Remainder => a.remainder(b)?,
        _ => return Err(UNKNOWN),
    })
}

/// `float8_pl` and its like: infinity out of finite numbers is an error, and so is zero out of others.
fn doubles(op: Op, a: f64, b: f64) -> Result<f64, Fail> {
    let (result, zero_is_fine) = match op {
        Op::Add => (a + b, true),
        Op::Subtract => (a - b, true),
        Op::Multiply => (a * b, a == 0.0 || b == 0.0),
        Op::Divide if b == 0.0 && !a.is_nan() => return Err(BY_ZERO),
        Op::Divide => (a / b, a == 0.0 || b.is_infinite()),
        _ => return Err(UNKNOWN),
    };
    if result.is_infinite() && !a.is_infinite() && !b.is_infinite() {
        return Err(OVERFLOW);
    }
    if result == 0.0 && !zero_is_fine { Err(UNDERFLOW) } else { Ok(result) }
}

fn singles(op: Op, a: f32, b: f32) -> Result<f32, Fail> {
    let (result, zero_is_fine) = match op {
        Op::Add => (a + b, true),
        Op::Subtract => (a - b, true),
        Op::Multiply => (a * b, a == 0.0 || b == 0.0),
        Op::Divide if b == 0.0 && !a.is_nan() => return Err(BY_ZERO),
        Op::Divide => (a / b, a == 0.0 || b.is_infinite()),
        _ => return Err(UNKNOWN),
    };
    if result.is_infinite() && !a.is_infinite() && !b.is_infinite() {
        return Err(OVERFLOW);
    }
    if result == 0.0 && !zero_is_fine { Err(UNDERFLOW) } else { Ok(result) }
}

/// `dpow`: the C library's, with Postgres' errors.
#[expect(clippy::float_cmp, reason = "whether a number is exactly 1, or whole")]
fn power(a: f64, b: f64) -> Result<f64, Fail> {
    if a.is_nan() || b.is_nan() {
        return Ok(if b == 0.0 || a == 1.0 { 1.0 } else { f64::NAN });
    }
    if a == 0.0 && b < 0.0 {
        return Err(Fail("zero raised to a negative power is undefined"));
    }
    if a < 0.0 && b.floor() != b {
        return Err(Fail("a negative number raised to a non-integer power yields a complex result"));
    }
    let result = a.powf(b);
    if a.is_finite() && b.is_finite() {
        if result.is_infinite() {
            return Err(OVERFLOW);
        }
        if result == 0.0 && a != 0.0 {
            return Err(UNDERFLOW);
        }
    }
    Ok(result)
}

fn days(date: i32, more: i64) -> Result<Value<'static>, Fail> {
    if matches!(date, datetime::DATE_INFINITY | datetime::DATE_MINUS_INFINITY) {
        return Ok(Value::Date(date));
    }
    datetime::date(i64::from(date) + more).map(Value::Date).ok_or(DATE)
}

fn is_infinite(micros: i64) -> bool {
    matches!(micros, datetime::INFINITY | datetime::MINUS_INFINITY)
}

/// Dates, times and intervals among each other.
fn times(op: Op, left: &Value<'_>, right: &Value<'_>) -> Result<Value<'static>, Fail> {
    use Value::{Date, Float8, Interval as Span, Time, Timestamp, Timestamptz};
    let subtract = op == Op::Subtract;
    let signed = |span: &Interval| if subtract { span.negated().ok_or(INTERVAL) } else { Ok(*span) };
    Ok(match (left, right) {
        (Span(a), Float8(b)) if op == Op::Divide => {
            if *b == 0.0 {
                return Err(BY_ZERO);
            }
            Span(a.divide(*b).ok_or(INTERVAL)?)
        }
        (Span(a), Float8(b)) | (Float8(b), Span(a)) => Span(a.multiply(*b).ok_or(INTERVAL)?),
        (Span(a), Span(b)) if subtract => Span(a.subtract(*b).ok_or(INTERVAL)?),
        (Span(a), Span(b)) => Span(a.add(*b).ok_or(INTERVAL)?),
        (Date(a), Date(b)) => {
            let infinite = |date: i32| matches!(date, datetime::DATE_INFINITY | datetime::DATE_MINUS_INFINITY);
            if infinite(*a) || infinite(*b) {
                return Err(Fail("cannot subtract infinite dates"));
            }
            Value::Int4(a.wrapping_sub(*b))
        }
        (Date(a), Time(b)) | (Time(b), Date(a)) => {
            let midnight = datetime::midnight(*a).ok_or(Fail("date out of range for timestamp"))?;
            if is_infinite(midnight) {
                return Ok(Timestamp(midnight));
            }
            Timestamp(datetime::timestamp(midnight + b).ok_or(TIMESTAMP)?)
        }
        (Date(a), Span(b)) | (Span(b), Date(a)) => {
            let midnight = datetime::midnight(*a).ok_or(Fail("date out of range for timestamp"))?;
            Timestamp(datetime::add_interval(midnight, signed(b)?).ok_or(TIMESTAMP)?)
        }
        (Timestamp(a), Span(b)) | (Span(b), Timestamp(a)) => {
            Timestamp(datetime::add_interval(*a, signed(b)?).ok_or(TIMESTAMP)?)
        }
        (Timestamptz(a), Span(b)) | (Span(b), Timestamptz(a)) => {
            Timestamptz(datetime::add_interval(*a, signed(b)?).ok_or(TIMESTAMP)?)
        }
        (Time(a), Span(b)) | (Span(b), Time(a)) => {
            let micros = if subtract { a.wrapping_sub(b.micros) } else { a.wrapping_add(b.micros) };
            Time(micros.rem_euclid(DAY))
        }
        (Time(a), Time(b)) => Span(Interval { months: 0, days: 0, micros: a - b }),
        (Timestamp(a), Timestamp(b)) | (Timestamptz(a), Timestamptz(b)) => {
            if is_infinite(*a) || is_infinite(*b) {
                return Err(Fail("cannot subtract infinite timestamps"));
            }
            let micros = a.checked_sub(*b).ok_or(INTERVAL)?;
            let span = Interval { months: 0, days: 0, micros };
            Span(span.justify_hours().ok_or(INTERVAL)?)
        }
        _ => return Err(UNKNOWN),
    })
}
