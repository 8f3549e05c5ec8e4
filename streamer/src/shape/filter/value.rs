//! Values, and how Postgres orders them.

use std::borrow::Cow;
use std::cmp::Ordering;

use super::array::Array;
use super::datetime;
use super::interval::Interval;
use super::json::Json;
use super::numeric::Numeric;

/// A value that is not null.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value<'a> {
    Bool(bool),
    Int2(i16),
    Int4(i32),
    Int8(i64),
    Float4(f32),
    Float8(f64),
    Numeric(Numeric),
    /// `text`, `varchar` and `name`.
    Text(Cow<'a, str>),
    /// Blanks at the end do not count in comparisons.
    Bpchar(Cow<'a, str>),
    Uuid([u8; 16]),
    Date(i32),
    Time(i64),
    Timestamp(i64),
    Timestamptz(i64),
    Interval(Interval),
    Json(Json),
    /// The place of the label.
    Enum(usize),
    Array(Array<'a>),
}

/// NULL is none.
pub(super) type Maybe<'a> = Option<Value<'a>>;

impl<'a> Value<'a> {
    pub(super) fn text(text: impl Into<Cow<'a, str>>) -> Self {
        Self::Text(text.into())
    }

    /// Free of what it borrows.
    pub(super) fn into_owned(self) -> Value<'static> {
        match self {
            Self::Text(text) => Value::Text(text.into_owned().into()),
            Self::Bpchar(text) => Value::Bpchar(text.into_owned().into()),
            Self::Array(array) => Value::Array(array.into_owned()),
            Self::Bool(value) => Value::Bool(value),
            Self::Int2(value) => Value::Int2(value),
            Self::Int4(value) => Value::Int4(value),
            Self::Int8(value) => Value::Int8(value),
            Self::Float4(value) => Value::Float4(value),
            Self::Float8(value) => Value::Float8(value),
            Self::Numeric(value) => Value::Numeric(value),
            Self::Uuid(value) => Value::Uuid(value),
            Self::Date(value) => Value::Date(value),
            Self::Time(value) => Value::Time(value),
            Self::Timestamp(value) => Value::Timestamp(value),
            Self::Timestamptz(value) => Value::Timestamptz(value),
            Self::Interval(value) => Value::Interval(value),
            Self::Json(value) => Value::Json(value),
            Self::Enum(value) => Value::Enum(value),
        }
    }

    /// The text of a text type, `char(n)` without its blanks.
    pub(super) fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Bpchar(text) => Some(text.trim_end_matches(' ')),
            _ => None,
        }
    }

    fn as_i64(&self) -> Option<i64> {
        match self {
            Self::Int2(value) => Some(i64::from(*value)),
            Self::Int4(value) => Some(i64::from(*value)),
            Self::Int8(value) => Some(*value),
            _ => None,
        }
    }

    pub(super) fn as_f64(&self) -> Option<f64> {
        match self {
            Self::Float4(value) => Some(f64::from(*value)),
            Self::Float8(value) => Some(*value),
            _ => None,
        }
    }

    /// Microseconds of a point in time; `Err` says that a date lies beyond every timestamp.
    fn as_instant(&self) -> Option<Result<i64, ()>> {
        match self {
            Self::Timestamp(micros) | Self::Timestamptz(micros) => Some(Ok(*micros)),
            Self::Date(date) => Some(datetime::midnight(*date).ok_or(())),
            _ => None,
        }
    }

    /// Which of two values of one family is greater, text byte by byte; none if they cannot be compared.
    pub(super) fn order(&self, other: &Self) -> Option<Ordering> {
        Some(match (self, other) {
            (Self::Bool(a), Self::Bool(b)) => a.cmp(b),
            (Self::Numeric(a), Self::Numeric(b)) => a.order(b),
            (Self::Text(a), Self::Text(b)) => a.as_bytes().cmp(b.as_bytes()),
            (Self::Bpchar(a), Self::Bpchar(b)) => {
                a.trim_end_matches(' ').as_bytes().cmp(b.trim_end_matches(' ').as_bytes())
            }
            (Self::Uuid(a), Self::Uuid(b)) => a.cmp(b),
            (Self::Date(a), Self::Date(b)) => a.cmp(b),
            (Self::Time(a), Self::Time(b)) => a.cmp(b),
            (Self::Interval(a), Self::Interval(b)) => a.length().cmp(&b.length()),
            (Self::Enum(a), Self::Enum(b)) => a.cmp(b),
            (Self::Array(a), Self::Array(b)) => a.order(b)?,
            // No operator asks for more than whether they are equal.
            (Self::Json(a), Self::Json(b)) => {
                if a == b {
                    Ordering::Equal
                } else {
                    Ordering::Less
                }
            }
            _ => {
                if let (Some(a), Some(b)) = (self.as_i64(), other.as_i64()) {
                    a.cmp(&b)
                } else if let (Some(a), Some(b)) = (self.as_f64(), other.as_f64()) {
                    order_of_floats(a, b)
                } else {
                    match (self.as_instant()?, other.as_instant()?) {
                        (Ok(a), Ok(b)) => a.cmp(&b),
                        // Later than every timestamp but infinity.
                        (Err(()), other) => {
                            if other == Ok(datetime::INFINITY) {
                                Ordering::Less
                            } else {
                                Ordering::Greater
                            }
                        }
                        (other, Err(())) => {
                            if other == Ok(datetime::INFINITY) {
                                Ordering::Greater
                            } else {
                                Ordering::Less
                            }
                        }
                    }
                }
            }
        })
    }
}

/// NaN is the greatest and equal to itself; the zeros are equal.
fn order_of_floats(a: f64, b: f64) -> Ordering {
    a.partial_cmp(&b).unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()))
}
