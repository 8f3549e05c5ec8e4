//! Text into values and back, as Postgres' input and output functions do under the settings that sessions here have:
//! `DateStyle = 'ISO, DMY'`, `TimeZone = UTC`, `IntervalStyle = iso_8601`, `extra_float_digits = 1`.

use std::borrow::Cow;
use std::fmt::Write as _;

use super::array::Array;
use super::datetime;
use super::interval::Interval;
use super::json::Json;
use super::lexer::cut;
use super::numeric::Numeric;
use super::types::Type;
use super::value::Value;

fn trimmed(text: &str) -> &str {
    text.trim_matches(|c: char| c.is_ascii_whitespace() || c == '\u{b}')
}

/// Reads a value of a type; none if it is none, or in a form that we do not read.
pub(super) fn read<'a>(of: &Type, text: Cow<'a, str>) -> Option<Value<'a>> {
    Some(match of {
        Type::Text | Type::Varchar => Value::Text(text),
        Type::Bpchar => Value::Bpchar(text),
        Type::Name => Value::Text(match text {
            Cow::Borrowed(text) => Cow::Borrowed(cut(text)),
            Cow::Owned(text) => Cow::Owned(cut(&text).to_owned()),
        }),
        Type::Array(element) => match text {
            Cow::Borrowed(text) => Value::Array(Array::read(text, &|text| read(element, text))?),
            Cow::Owned(text) => {
                let read = |text: Cow<'_, str>| read(element, text).map(Value::into_owned);
                Value::Array(Array::read(&text, &read)?.into_owned())
            }
        },
        _ => read_plain(of, &text)?,
    })
}

/// Of those that keep nothing of their text.
fn read_plain(of: &Type, text: &str) -> Option<Value<'static>> {
    Some(match of {
        Type::Bool => Value::Bool(read_bool(text)?),
        Type::Int2 => Value::Int2(trimmed(text).parse().ok()?),
        Type::Int4 => Value::Int4(trimmed(text).parse().ok()?),
        Type::Int8 => Value::Int8(trimmed(text).parse().ok()?),
        Type::Float4 => Value::Float4(read_f32(trimmed(text))?),
        Type::Float8 => Value::Float8(read_f64(trimmed(text))?),
        Type::Numeric => Value::Numeric(Numeric::read(text)?),
        Type::Uuid => Value::Uuid(read_uuid(text)?),
        Type::Date => Value::Date(datetime::read_date(text)?),
        Type::Time => Value::Time(datetime::read_time(text)?),
        Type::Timestamp => Value::Timestamp(datetime::read_timestamp(text, false)?),
        Type::Timestamptz => Value::Timestamptz(datetime::read_timestamp(text, true)?),
        Type::Interval => Value::Interval(Interval::read(text)?),
        Type::Jsonb => Value::Json(Json::read(text)?),
        Type::Enum(of) => Value::Enum(of.labels.iter().position(|label| label == text)?),
        _ => return None,
    })
}

/// `t`, `yes`, `on`, `1` and what is short for them (`parse_bool_with_len`).
fn read_bool(text: &str) -> Option<bool> {
    let text = trimmed(text).to_ascii_lowercase();
    let short_for = |word: &str, least: usize| text.len() >= least && word.starts_with(text.as_str());
    if text == "1" || short_for("true", 1) || short_for("yes", 1) || text == "on" {
        return Some(true);
    }
    (text == "0" || short_for("false", 1) || short_for("no", 1) || short_for("off", 2)).then_some(false)
}

/// The special words, or a plain decimal: what C reads besides (hexadecimal) is refused.
fn is_plain_float(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'+' | b'-' | b'.' | b'e' | b'E'))
}

fn float_word(text: &str) -> Option<f64> {
    let (sign, word) = match text.as_bytes().first()? {
        b'-' => (-1.0, &text[1..]),
        b'+' => (1.0, &text[1..]),
        _ => (1.0, text),
    };
    if word.eq_ignore_ascii_case("nan") {
        Some(f64::NAN)
    } else if word.eq_ignore_ascii_case("infinity") || word.eq_ignore_ascii_case("inf") {
        Some(sign * f64::INFINITY)
    } else {
        None
    }
}

fn is_zero_literal(text: &str) -> bool {
    text.split(['e', 'E']).next().is_some_and(|mantissa| !mantissa.bytes().any(|byte| (b'1'..=b'9').contains(&byte)))
}

/// Postgres refuses what is too large or too small for the type.
fn read_f64(text: &str) -> Option<f64> {
    if let Some(value) = float_word(text) {
        return Some(value);
    }
    let value: f64 = Some(text).filter(|text| is_plain_float(text))?.parse().ok()?;
    (value.is_finite() && (value != 0.0 || is_zero_literal(text))).then_some(value)
}

fn read_f32(text: &str) -> Option<f32> {
    if let Some(value) = float_word(text) {
        #[expect(clippy::cast_possible_truncation, reason = "NaN and infinities stay what they are")]
        return Some(value as f32);
    }
    let value: f32 = Some(text).filter(|text| is_plain_float(text))?.parse().ok()?;
    (value.is_finite() && (value != 0.0 || is_zero_literal(text))).then_some(value)
}

/// With or without braces, a hyphen allowed behind each four digits.
fn read_uuid(text: &str) -> Option<[u8; 16]> {
    let body = match text.strip_prefix('{') {
        Some(rest) => rest.strip_suffix('}')?,
        None => text,
    };
    let mut bytes = [0_u8; 16];
    let mut rest = body.as_bytes();
    for (at, byte) in bytes.iter_mut().enumerate() {
        let [high, low, behind @ ..] = rest else { return None };
        let digit = |of: u8| char::from(of).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        *byte = digit(*high)? << 4 | digit(*low)?;
        rest = behind;
        if at % 2 == 1 && at < 15 {
            rest = rest.strip_prefix(b"-").unwrap_or(rest);
        }
    }
    rest.is_empty().then_some(bytes)
}

fn show_uuid(bytes: &[u8; 16]) -> String {
    let mut text = String::with_capacity(36);
    for (at, byte) in bytes.iter().enumerate() {
        if matches!(at, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// As Postgres prints it. Booleans as in a cast to text: `true`.
pub(super) fn show(of: &Type, value: &Value<'_>) -> String {
    match value {
        Value::Bool(value) => value.to_string(),
        Value::Int2(value) => value.to_string(),
        Value::Int4(value) => value.to_string(),
        Value::Int8(value) => value.to_string(),
        Value::Float4(value) => show_float(f64::from(*value), &format!("{value:e}")),
        Value::Float8(value) => show_float(*value, &format!("{value:e}")),
        Value::Numeric(value) => value.to_string(),
        Value::Text(text) | Value::Bpchar(text) => text.clone().into_owned(),
        Value::Uuid(bytes) => show_uuid(bytes),
        Value::Date(date) => datetime::show_date(*date),
        Value::Time(time) => datetime::show_time(*time),
        Value::Timestamp(micros) => datetime::show_timestamp(*micros, false),
        Value::Timestamptz(micros) => datetime::show_timestamp(*micros, true),
        Value::Interval(interval) => interval.show(),
        Value::Json(json) => json.show(),
        Value::Enum(place) => match of {
            Type::Enum(of) => of.labels.get(*place).cloned().unwrap_or_default(),
            _ => String::new(),
        },
        Value::Array(array) => {
            let element = of.element().unwrap_or(&Type::Unknown);
            array.show(&|value| match value {
                // Inside arrays a boolean is what its output function says.
                Value::Bool(value) => if *value { "t" } else { "f" }.to_owned(),
                _ => show(element, value),
            })
        }
    }
}

/// Reads back as the same number; not always the digits that Postgres would print.
fn show_float(value: f64, digits: &str) -> String {
    if value.is_nan() {
        "NaN".to_owned()
    } else if value.is_infinite() {
        if value > 0.0 { "Infinity" } else { "-Infinity" }.to_owned()
    } else {
        digits.to_owned()
    }
}
