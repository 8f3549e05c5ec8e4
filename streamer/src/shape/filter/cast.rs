//! Casts: which there are and what they do.

use std::borrow::Cow;

use super::array::Array;
use super::datetime::{self, DAY};
use super::eval::Fail;
use super::interval::Interval;
use super::lexer::cut;
use super::numeric::Numeric;
use super::text;
use super::types::{Category, Type};
use super::value::{Maybe, Value};

/// Whether there is a cast that we compute; more of them for constants, whose text is read once and refused if it is
/// written in a way that only Postgres reads.
pub(super) fn exists(from: &Type, to: &Type, constant: bool) -> bool {
    use Type::{Bool, Date, Int4, Interval, Name, Time, Timestamp, Timestamptz, Uuid};
    if from == to || from.becomes(to) {
        return !matches!(to, Type::Other(_));
    }
    if let (Some(from), Some(to)) = (from.element(), to.element()) {
        return exists(from, to, constant);
    }
    if to.is_text() {
        return from.is_text() || (*to != Name && shows_exactly(from));
    }
    if from.is_text() {
        return match to {
            Bool | Uuid => true,
            Type::Other(_) | Type::Unknown => false,
            _ => constant || to.category() == Category::Number,
        };
    }
    match (from, to) {
        (Bool, Int4)
        | (Int4, Bool)
        | (Timestamp, Date | Time)
        | (Timestamptz, Date | Time | Timestamp)
        | (Interval, Time) => true,
        _ => from.category() == Category::Number && to.category() == Category::Number,
    }
}

/// Types whose text we print digit by digit as Postgres does. Its floats have rules of their own.
fn shows_exactly(of: &Type) -> bool {
    match of {
        Type::Array(element) => shows_exactly(element),
        Type::Float4 | Type::Float8 | Type::Other(_) => false,
        _ => true,
    }
}

/// The value as `to`; infinity has no time of day.
pub(super) fn cast<'a>(value: Value<'a>, from: &Type, to: &Type, modifier: &[i32]) -> Result<Maybe<'a>, Fail> {
    if let (Type::Time, Value::Timestamp(datetime::INFINITY | datetime::MINUS_INFINITY)) = (to, &value) {
        return Ok(None);
    }
    if let (Type::Time, Value::Timestamptz(datetime::INFINITY | datetime::MINUS_INFINITY)) = (to, &value) {
        return Ok(None);
    }
    modified(plain(value, from, to)?, to, modifier).map(Some)
}

fn modified<'a>(plain: Value<'a>, to: &Type, modifier: &[i32]) -> Result<Value<'a>, Fail> {
    match (to, modifier) {
        (_, []) => Ok(plain),
        (Type::Varchar, [length, ..]) => Ok(match plain {
            Value::Text(text) => Value::Text(shortened(text, *length)),
            other => other,
        }),
        (Type::Bpchar, [length, ..]) => Ok(match plain {
            Value::Bpchar(text) => Value::Bpchar(padded(shortened(text, *length), *length)),
            other => other,
        }),
        (Type::Numeric, [precision, scale @ ..]) => match plain {
            Value::Numeric(number) => {
                let precision = u32::try_from(*precision).unwrap_or(0);
                let fitted = number.fitted(precision, scale.first().copied().unwrap_or(0));
                fitted.map(Value::Numeric).map_err(|_| Fail("numeric field overflow"))
            }
            other => Ok(other),
        },
        _ => Err(UNKNOWN),
    }
}

const UNKNOWN: Fail = Fail("this cast does not exist");

fn shortened(text: Cow<'_, str>, length: i32) -> Cow<'_, str> {
    let length = usize::try_from(length).unwrap_or(0);
    match text.char_indices().nth(length) {
        None => text,
        Some((end, _)) => match text {
            Cow::Borrowed(text) => Cow::Borrowed(&text[..end]),
            Cow::Owned(text) => Cow::Owned(text[..end].to_owned()),
        },
    }
}

fn padded(text: Cow<'_, str>, length: i32) -> Cow<'_, str> {
    let missing = usize::try_from(length).unwrap_or(0).saturating_sub(text.chars().count());
    if missing == 0 { text } else { Cow::Owned(text.into_owned() + &" ".repeat(missing)) }
}

fn plain<'a>(value: Value<'a>, from: &Type, to: &Type) -> Result<Value<'a>, Fail> {
    if from == to {
        return Ok(value);
    }
    if let (Some(from), Some(to_element)) = (from.element(), to.element()) {
        let Value::Array(array) = value else { return Err(UNKNOWN) };
        let cast = |element: Option<Value<'a>>| element.map(|element| plain(element, from, to_element)).transpose();
        let elements = array.elements.into_iter().map(cast).collect::<Result<Vec<_>, _>>()?;
        return Ok(Value::Array(Array { dimensions: array.dimensions, elements }));
    }
    if to.is_text() {
        return Ok(into_text(value, from, to));
    }
    match value {
        Value::Text(text) => text::read(to, text).ok_or(Fail("a text is not valid input for the type of a cast")),
        Value::Bpchar(text) => {
            text::read(to, trimmed(text)).ok_or(Fail("a text is not valid input for the type of a cast"))
        }
        Value::Bool(value) => Ok(Value::Int4(i32::from(value))),
        Value::Int4(value) if *to == Type::Bool => Ok(Value::Bool(value != 0)),
        Value::Int2(value) => integer(i64::from(value), to),
        Value::Int4(value) => integer(i64::from(value), to),
        Value::Int8(value) => integer(value, to),
        Value::Float4(value) => single(value, to),
        Value::Float8(value) => double(value, to),
        Value::Numeric(value) => numeric(&value, to),
        other => time(&other, to),
    }
}

fn trimmed(text: Cow<'_, str>) -> Cow<'_, str> {
    match text {
        Cow::Borrowed(text) => Cow::Borrowed(text.trim_end_matches(' ')),
        Cow::Owned(text) => Cow::Owned(text.trim_end_matches(' ').to_owned()),
    }
}

/// `char(n)` loses its blanks on the way, except to itself.
fn into_text<'a>(value: Value<'a>, from: &Type, to: &Type) -> Value<'a> {
    let text = match value {
        Value::Bpchar(text) => trimmed(text),
        Value::Text(text) => text,
        other => Cow::Owned(text::show(from, &other)),
    };
    match to {
        Type::Bpchar => Value::Bpchar(text),
        Type::Name => Value::Text(match text {
            Cow::Borrowed(text) => Cow::Borrowed(cut(text)),
            Cow::Owned(text) => Cow::Owned(cut(&text).to_owned()),
        }),
        _ => Value::Text(text),
    }
}

fn out_of_range(to: &Type) -> Fail {
    Fail(match to {
        Type::Int2 => "smallint out of range",
        Type::Int4 => "integer out of range",
        Type::Int8 => "bigint out of range",
        _ => "value out of range",
    })
}

#[expect(clippy::cast_precision_loss, reason = "Postgres rounds to the nearest here too")]
fn integer(value: i64, to: &Type) -> Result<Value<'static>, Fail> {
    let fail = || out_of_range(to);
    Ok(match to {
        Type::Int2 => Value::Int2(i16::try_from(value).map_err(|_| fail())?),
        Type::Int4 => Value::Int4(i32::try_from(value).map_err(|_| fail())?),
        Type::Int8 => Value::Int8(value),
        Type::Float4 => Value::Float4(value as f32),
        Type::Float8 => Value::Float8(value as f64),
        Type::Numeric => Value::Numeric(value.into()),
        _ => return Err(UNKNOWN),
    })
}

fn single(value: f32, to: &Type) -> Result<Value<'static>, Fail> {
    match to {
        Type::Float8 => Ok(Value::Float8(f64::from(value))),
        Type::Numeric => Ok(Value::Numeric(decimal(f64::from(value), &format!("{value:.5e}"))?)),
        _ => whole(f64::from(value.round_ties_even()), to),
    }
}

fn double(value: f64, to: &Type) -> Result<Value<'static>, Fail> {
    match to {
        Type::Float4 => {
            #[expect(clippy::cast_possible_truncation, reason = "overflow and underflow are looked for")]
            let single = value as f32;
            if single.is_infinite() && value.is_finite() {
                return Err(Fail("value out of range: overflow"));
            }
            if single == 0.0 && value != 0.0 {
                return Err(Fail("value out of range: underflow"));
            }
            Ok(Value::Float4(single))
        }
        Type::Numeric => Ok(Value::Numeric(decimal(value, &format!("{value:.14e}"))?)),
        _ => whole(value.round_ties_even(), to),
    }
}

/// A double that is a whole number, as an integer.
#[expect(clippy::cast_possible_truncation, reason = "the range was looked at")]
#[expect(clippy::cast_precision_loss, reason = "powers of two are exact")]
fn whole(value: f64, to: &Type) -> Result<Value<'static>, Fail> {
    if !(value >= i64::MIN as f64 && value < -(i64::MIN as f64)) {
        return Err(out_of_range(to));
    }
    match to {
        Type::Int2 | Type::Int4 | Type::Int8 => integer(value as i64, to),
        _ => Err(UNKNOWN),
    }
}

/// A float's 15 (or 6) significant digits, without zeros at the end, as `%g` prints them.
fn decimal(value: f64, digits: &str) -> Result<Numeric, Fail> {
    if value.is_nan() {
        return Ok(Numeric::NaN);
    }
    if value.is_infinite() {
        return Ok(if value > 0.0 { Numeric::Infinity } else { Numeric::NegativeInfinity });
    }
    let (mantissa, exponent) = digits.split_once('e').unwrap_or((digits, "0"));
    let mantissa = if mantissa.contains('.') { mantissa.trim_end_matches('0').trim_end_matches('.') } else { mantissa };
    Numeric::read(&format!("{mantissa}e{exponent}")).ok_or(Fail("value overflows numeric format"))
}

fn numeric(value: &Numeric, to: &Type) -> Result<Value<'static>, Fail> {
    match to {
        Type::Float4 | Type::Float8 => {
            text::read(to, Cow::Owned(value.to_string())).ok_or(Fail("a number is out of range for a float"))
        }
        _ => integer(value.to_i64().ok_or_else(|| out_of_range(to))?, to),
    }
}

fn time(value: &Value<'_>, to: &Type) -> Result<Value<'static>, Fail> {
    let day = |micros: i64| datetime::day_of(micros).ok_or(Fail("timestamp out of range"));
    Ok(match (value, to) {
        (Value::Date(date), Type::Timestamp | Type::Timestamptz) => {
            let micros = datetime::midnight(*date).ok_or(Fail("date out of range for timestamp"))?;
            if *to == Type::Timestamp { Value::Timestamp(micros) } else { Value::Timestamptz(micros) }
        }
        (Value::Timestamp(micros), Type::Timestamptz) => Value::Timestamptz(*micros),
        (Value::Timestamptz(micros), Type::Timestamp) => Value::Timestamp(*micros),
        (Value::Timestamp(micros) | Value::Timestamptz(micros), Type::Date) => Value::Date(day(*micros)?),
        (Value::Timestamp(micros) | Value::Timestamptz(micros), Type::Time) => Value::Time(micros.rem_euclid(DAY)),
        (Value::Time(micros), Type::Interval) => Value::Interval(Interval { months: 0, days: 0, micros: *micros }),
        (Value::Interval(interval), Type::Time) => Value::Time(interval.micros.rem_euclid(DAY)),
        _ => return Err(UNKNOWN),
    })
}
