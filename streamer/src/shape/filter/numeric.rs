//! `numeric` as Postgres has it: exact, with a display scale, NaN and infinities (`src/backend/utils/adt/numeric.c`).

use num_bigint::{BigInt, Sign};
use std::cmp::Ordering;
use std::fmt;

/// Most digits before the point (`NUMERIC_WEIGHT_MAX` + 1 groups of four).
const MAX_INTEGER_DIGITS: i64 = 131_072;
/// Most digits behind it (`NUMERIC_DSCALE_MAX`).
const MAX_SCALE: u32 = 16_383;
/// Division shows at least so many significant digits, and never more behind the point than the other.
const MIN_SIGNIFICANT_DIGITS: i64 = 16;
const MAX_DISPLAY_SCALE: i64 = 1000;

/// A number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Numeric {
    NegativeInfinity,
    /// `digits` / 10^`scale`.
    Finite {
        digits: BigInt,
        scale: u32,
    },
    Infinity,
    NaN,
}

/// The result has no place in the type, or does not exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NumericError {
    Overflow,
    DivisionByZero,
}

fn ten_to(power: u32) -> BigInt {
    BigInt::from(10).pow(power)
}

fn is_zero(digits: &BigInt) -> bool {
    digits.sign() == Sign::NoSign
}

/// Half away from zero, as numeric rounds.
fn divide_rounded(dividend: &BigInt, divisor: &BigInt) -> BigInt {
    let (quotient, remainder) = (dividend / divisor, dividend % divisor);
    let twice = BigInt::from(remainder.magnitude().clone()) * 2;
    if twice >= BigInt::from(divisor.magnitude().clone()) {
        let up = if (dividend.sign() == Sign::Minus) == (divisor.sign() == Sign::Minus) { 1 } else { -1 };
        quotient + up
    } else {
        quotient
    }
}

impl From<i64> for Numeric {
    fn from(value: i64) -> Self {
        Self::Finite { digits: value.into(), scale: 0 }
    }
}

impl Numeric {
    /// Reads what `numeric_in` reads, except digit separators and other bases, which only newer servers know.
    pub(super) fn read(text: &str) -> Option<Self> {
        let text = text.trim_matches(|c: char| c.is_ascii_whitespace() || c == '\u{b}');
        let (negative, body) = match text.as_bytes().first()? {
            b'-' => (true, &text[1..]),
            b'+' => (false, &text[1..]),
            _ => (false, text),
        };
        if body.eq_ignore_ascii_case("nan") {
            return (body.len() == text.len()).then_some(Self::NaN);
        }
        if body.eq_ignore_ascii_case("infinity") || body.eq_ignore_ascii_case("inf") {
            return Some(if negative { Self::NegativeInfinity } else { Self::Infinity });
        }
        let (mantissa, exponent) = match body.find(['e', 'E']) {
            Some(at) => {
                let exponent = &body[at + 1..];
                let digits = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
                if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
                    return None;
                }
                (&body[..at], exponent.parse::<i64>().ok()?)
            }
            None => (body, 0),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let mut digits = String::with_capacity(mantissa.len());
        digits.push_str(whole);
        digits.push_str(fraction);
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        if exponent.abs() > MAX_INTEGER_DIGITS {
            return None;
        }
        let mut value = BigInt::parse_bytes(digits.as_bytes(), 10)?;
        if negative {
            value = -value;
        }
        let scale = i64::try_from(fraction.len()).ok()? - exponent;
        let made = if scale < 0 {
            Self::Finite { digits: value * ten_to(u32::try_from(-scale).ok()?), scale: 0 }
        } else {
            Self::Finite { digits: value, scale: u32::try_from(scale).ok()? }
        };
        made.checked().ok()
    }

    fn checked(self) -> Result<Self, NumericError> {
        match &self {
            Self::Finite { digits, scale } => {
                if *scale > MAX_SCALE {
                    return self.rounded(i64::from(MAX_SCALE));
                }
                // Bits first: counting decimal digits is costly.
                let bits = i64::try_from(digits.bits()).unwrap_or(i64::MAX);
                let most = MAX_INTEGER_DIGITS + i64::from(*scale);
                if bits * 3 / 10 < most || decimal_digits(digits) - i64::from(*scale) <= MAX_INTEGER_DIGITS {
                    Ok(self)
                } else {
                    Err(NumericError::Overflow)
                }
            }
            _ => Ok(self),
        }
    }

    /// The number with so many digits behind the point; before it, if negative.
    pub(super) fn rounded(&self, to: i64) -> Result<Self, NumericError> {
        let Self::Finite { digits, scale } = self else { return Ok(self.clone()) };
        let from = i64::from(*scale);
        let shown = u32::try_from(to.max(0)).unwrap_or(0);
        if to >= from {
            let digits = digits * ten_to(u32::try_from(to - from).unwrap_or(0));
            return Self::Finite { digits, scale: shown }.checked();
        }
        let cut = u32::try_from(from - to).unwrap_or(u32::MAX).min(MAX_SCALE + 131_072);
        let mut rounded = divide_rounded(digits, &ten_to(cut));
        if to < 0 {
            rounded *= ten_to(u32::try_from(-to).unwrap_or(0));
        }
        Self::Finite { digits: rounded, scale: shown }.checked()
    }

    /// Whether it fits `numeric(precision, scale)` after rounding.
    pub(super) fn fitted(&self, precision: u32, scale: i32) -> Result<Self, NumericError> {
        match self {
            Self::NaN => return Ok(Self::NaN),
            Self::Infinity | Self::NegativeInfinity => return Err(NumericError::Overflow),
            Self::Finite { .. } => {}
        }
        let rounded = self.rounded(i64::from(scale))?;
        let Self::Finite { digits, scale: shown } = &rounded else { return Ok(rounded) };
        let most = i64::from(precision) - i64::from(scale) + i64::from(*shown);
        if is_zero(digits) || decimal_digits(digits) <= most { Ok(rounded) } else { Err(NumericError::Overflow) }
    }

    pub(super) fn add(&self, other: &Self) -> Result<Self, NumericError> {
        match (self, other) {
            (Self::Finite { digits: a, scale: s }, Self::Finite { digits: b, scale: t }) => {
                let (a, b, scale) = aligned(a, *s, b, *t);
                Self::Finite { digits: a + b, scale }.checked()
            }
            (Self::NaN, _)
            | (_, Self::NaN)
            | (Self::Infinity, Self::NegativeInfinity)
            | (Self::NegativeInfinity, Self::Infinity) => Ok(Self::NaN),
            (Self::Finite { .. }, infinite) | (infinite, _) => Ok(infinite.clone()),
        }
    }

    /// How many bytes its digits take, roughly.
    pub(super) fn size(&self) -> usize {
        match self {
            Self::Finite { digits, scale } => {
                usize::try_from(digits.bits() / 8 + u64::from(*scale) / 2 + 1).unwrap_or(usize::MAX)
            }
            _ => 1,
        }
    }

    pub(super) fn negated(&self) -> Self {
        match self {
            Self::Finite { digits, scale } => Self::Finite { digits: -digits, scale: *scale },
            Self::Infinity => Self::NegativeInfinity,
            Self::NegativeInfinity => Self::Infinity,
            Self::NaN => Self::NaN,
        }
    }

    pub(super) fn absolute(&self) -> Self {
        if self.sign() == Ordering::Less { self.negated() } else { self.clone() }
    }

    /// Against zero; NaN is greater.
    fn sign(&self) -> Ordering {
        match self {
            Self::NegativeInfinity => Ordering::Less,
            Self::Infinity | Self::NaN => Ordering::Greater,
            Self::Finite { digits, .. } => digits.sign().cmp(&Sign::NoSign),
        }
    }

    pub(super) fn multiply(&self, other: &Self) -> Result<Self, NumericError> {
        match (self, other) {
            (Self::NaN, _) | (_, Self::NaN) => Ok(Self::NaN),
            (Self::Finite { digits: a, scale: s }, Self::Finite { digits: b, scale: t }) => {
                Self::Finite { digits: a * b, scale: s + t }.checked()
            }
            _ => Ok(match (self.sign(), other.sign()) {
                (Ordering::Equal, _) | (_, Ordering::Equal) => Self::NaN,
                (a, b) if a == b => Self::Infinity,
                _ => Self::NegativeInfinity,
            }),
        }
    }

    pub(super) fn divide(&self, other: &Self) -> Result<Self, NumericError> {
        match (self, other) {
            (Self::NaN, _) | (_, Self::NaN) => Ok(Self::NaN),
            (Self::Finite { digits: a, scale: s }, Self::Finite { digits: b, scale: t }) => {
                if is_zero(b) {
                    return Err(NumericError::DivisionByZero);
                }
                let scale = quotient_scale((a, *s), (b, *t));
                // a/10^s ÷ b/10^t = a·10^(t+scale−s)/b with `scale` digits shown.
                let power = i64::from(*t) + i64::from(scale) - i64::from(*s);
                let magnitude = u32::try_from(power.unsigned_abs()).unwrap_or(u32::MAX);
                let digits = if power >= 0 {
                    divide_rounded(&(a * ten_to(magnitude)), b)
                } else {
                    divide_rounded(a, &(b * ten_to(magnitude)))
                };
                Self::Finite { digits, scale }.checked()
            }
            (Self::Finite { .. }, _) => Ok(Self::from(0)),
            (_, Self::Finite { digits, .. }) if is_zero(digits) => Err(NumericError::DivisionByZero),
            (infinite, Self::Finite { .. }) => {
                Ok(if other.sign() == Ordering::Less { infinite.negated() } else { infinite.clone() })
            }
            _ => Ok(Self::NaN),
        }
    }

    /// The remainder has the sign of the dividend.
    pub(super) fn remainder(&self, other: &Self) -> Result<Self, NumericError> {
        match (self, other) {
            (Self::NaN, _) | (_, Self::NaN) => Ok(Self::NaN),
            (Self::Finite { digits: a, scale: s }, Self::Finite { digits: b, scale: t }) => {
                if is_zero(b) {
                    return Err(NumericError::DivisionByZero);
                }
                let (a, b, scale) = aligned(a, *s, b, *t);
                Ok(Self::Finite { digits: a % b, scale })
            }
            (Self::Finite { .. }, _) => Ok(self.clone()),
            (_, Self::Finite { digits, .. }) if is_zero(digits) => Err(NumericError::DivisionByZero),
            _ => Ok(Self::NaN),
        }
    }

    /// Rounded to an integer, if it is one that fits.
    pub(super) fn to_i64(&self) -> Option<i64> {
        match self.rounded(0).ok()? {
            Self::Finite { digits, .. } => i64::try_from(digits).ok(),
            _ => None,
        }
    }
}

/// Both with the larger scale.
fn aligned(a: &BigInt, s: u32, b: &BigInt, t: u32) -> (BigInt, BigInt, u32) {
    let scale = s.max(t);
    let lift = |digits: &BigInt, from: u32| if from == scale { digits.clone() } else { digits * ten_to(scale - from) };
    (lift(a, s), lift(b, t), scale)
}

fn decimal_digits(digits: &BigInt) -> i64 {
    i64::try_from(digits.magnitude().to_string().len()).unwrap_or(i64::MAX)
}

/// The weight and value of the first group of four digits, counted from the point.
fn first_group(digits: &BigInt, scale: u32) -> (i64, i64) {
    if is_zero(digits) {
        return (0, 0);
    }
    let text = digits.magnitude().to_string();
    let before = i64::try_from(text.len()).unwrap_or(i64::MAX) - i64::from(scale);
    // The first digit stands `before` places left of the point: group 0 is the four digits left of it.
    let weight = (before - 1).div_euclid(4);
    let length = usize::try_from((before - 1).rem_euclid(4) + 1).unwrap_or(1);
    let mut group = String::from(text.get(..length).unwrap_or(&text));
    while group.len() < length {
        group.push('0');
    }
    (weight, group.parse().unwrap_or(0))
}

/// How many digits a quotient shows (`select_div_scale`).
fn quotient_scale(a: (&BigInt, u32), b: (&BigInt, u32)) -> u32 {
    let (weight_a, first_a) = first_group(a.0, a.1);
    let (weight_b, first_b) = first_group(b.0, b.1);
    let mut weight = weight_a - weight_b;
    if first_a <= first_b {
        weight -= 1;
    }
    let scale =
        (MIN_SIGNIFICANT_DIGITS - weight * 4).max(i64::from(a.1)).max(i64::from(b.1)).clamp(0, MAX_DISPLAY_SCALE);
    u32::try_from(scale).unwrap_or(0)
}

impl Numeric {
    /// Postgres' order: NaN is the greatest, and equal to itself. (`==` also looks at the scale.)
    pub(super) fn order(&self, other: &Self) -> Ordering {
        let rank = |of: &Self| match of {
            Self::NegativeInfinity => 0,
            Self::Finite { .. } => 1,
            Self::Infinity => 2,
            Self::NaN => 3,
        };
        match (self, other) {
            (Self::Finite { digits: a, scale: s }, Self::Finite { digits: b, scale: t }) => {
                if s == t {
                    return a.cmp(b);
                }
                let (a, b, _) = aligned(a, *s, b, *t);
                a.cmp(&b)
            }
            _ => rank(self).cmp(&rank(other)),
        }
    }
}

impl fmt::Display for Numeric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (digits, scale) = match self {
            Self::NaN => return f.write_str("NaN"),
            Self::Infinity => return f.write_str("Infinity"),
            Self::NegativeInfinity => return f.write_str("-Infinity"),
            Self::Finite { digits, scale } => (digits, *scale as usize),
        };
        if digits.sign() == Sign::Minus {
            f.write_str("-")?;
        }
        let text = digits.magnitude().to_string();
        if scale == 0 {
            return f.write_str(&text);
        }
        if text.len() > scale {
            let (whole, fraction) = text.split_at(text.len() - scale);
            write!(f, "{whole}.{fraction}")
        } else {
            write!(f, "0.{text:0>scale$}")
        }
    }
}
