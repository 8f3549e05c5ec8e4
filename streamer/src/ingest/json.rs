//! What valid JSON may hold that jsonb or JavaScript would not keep: looks at the text only. Pure.

use std::fmt;

/// Postgres parses jsonb recursively and JavaScript's engines have stacks too; nobody nests a payload this deep.
const MAX_DEPTH: usize = 100;

/// Why a JSON text is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Problem {
    /// `\u0000`: jsonb has no such character.
    Zero,
    /// Half of a surrogate pair: no character at all.
    LoneSurrogate,
    /// Would be another number in JavaScript.
    Number(String),
    /// Too many brackets in each other.
    Depth,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Zero => f.write_str("a string has the character \\u0000, which Postgres cannot store"),
            Self::LoneSurrogate => f.write_str("a string has half of a surrogate pair, which is no character"),
            Self::Number(number) => {
                write!(f, "the number {number} does not survive as an IEEE double: send it as a string")
            }
            Self::Depth => write!(f, "the event is nested more than {MAX_DEPTH} deep"),
        }
    }
}

/// The first problem of `text`, which must be valid JSON.
pub(super) fn problem(text: &str) -> Option<Problem> {
    let bytes = text.as_bytes();
    let (mut at, mut depth) = (0, 0_usize);
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => match string(bytes, at + 1) {
                Ok(end) => at = end,
                Err(problem) => return Some(problem),
            },
            b'-' | b'0'..=b'9' => {
                let length = bytes[at..].iter().take_while(|byte| is_of_number(**byte)).count();
                let number = &text[at..at + length];
                if !survives(number) {
                    return Some(Problem::Number(shortened(number)));
                }
                at += length;
            }
            b'{' | b'[' => {
                depth += 1;
                if depth > MAX_DEPTH {
                    return Some(Problem::Depth);
                }
                at += 1;
            }
            b'}' | b']' => {
                depth = depth.saturating_sub(1);
                at += 1;
            }
            _ => at += 1,
        }
    }
    None
}

/// Walks a string from behind its opening quote; answers the place behind the closing one.
fn string(bytes: &[u8], mut at: usize) -> Result<usize, Problem> {
    loop {
        match bytes.get(at) {
            None => return Ok(at),
            Some(b'"') => return Ok(at + 1),
            Some(b'\\') if bytes.get(at + 1) == Some(&b'u') => {
                let unit = unit(bytes, at);
                at += 6;
                match unit {
                    Some(0) => return Err(Problem::Zero),
                    Some(0xd800..=0xdbff) if matches!(self::unit(bytes, at), Some(0xdc00..=0xdfff)) => at += 6,
                    Some(0xd800..=0xdfff) => return Err(Problem::LoneSurrogate),
                    _ => {}
                }
            }
            Some(b'\\') => at += 2,
            Some(_) => at += 1,
        }
    }
}

/// The UTF-16 unit of the escape `\uXXXX` that starts at `at`, if one does.
fn unit(bytes: &[u8], at: usize) -> Option<u16> {
    let digits = bytes.get(at..at + 6)?.strip_prefix(b"\\u")?;
    u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

fn is_of_number(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E')
}

/// Whether reading the number as a double and printing that gives the same number again.
fn survives(number: &str) -> bool {
    // Up to 15 significant digits always do, within the range of exponents; this spares nearly all the real work.
    if number.len() <= 15 && !number.contains(['e', 'E']) {
        return true;
    }
    let Ok(double) = number.parse::<f64>() else { return false };
    double.is_finite()
        && Decimal::read(number).is_some_and(|exact| Decimal::read(&format!("{double:e}")) == Some(exact))
}

fn shortened(number: &str) -> String {
    if number.len() <= 40 { number.to_owned() } else { format!("{}…", &number[..40]) }
}

/// A decimal number in its one normal form: `0.digits × 10^exponent`, without zeros at either end; zero has no digits.
#[derive(Debug, PartialEq, Eq)]
struct Decimal {
    negative: bool,
    digits: Vec<u8>,
    exponent: i64,
}

impl Decimal {
    fn read(text: &str) -> Option<Self> {
        let (negative, text) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
        let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let written: Vec<u8> = whole.bytes().chain(fraction.bytes()).collect();
        let leading = written.iter().take_while(|digit| **digit == b'0').count();
        let trailing = written[leading..].iter().rev().take_while(|digit| **digit == b'0').count();
        let digits = written[leading..written.len() - trailing].to_vec();
        if digits.is_empty() {
            return Some(Self { negative: false, digits, exponent: 0 });
        }
        let point = i64::try_from(whole.len()).ok()?.checked_sub(i64::try_from(leading).ok()?)?;
        let exponent = exponent.parse::<i64>().ok()?.checked_add(point)?;
        Some(Self { negative, digits, exponent })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn strings() {
        let check = |text: &str, expected: Option<Problem>| assert_eq!(problem(text), expected, "{text}");
        check(r#"{"a":"b"}"#, None);
        check(r#""\\u0000""#, None);
        check(r#""\\\u0000""#, Some(Problem::Zero));
        check(r#"{"\u0000":1}"#, Some(Problem::Zero));
        check(r#""\ud83d\ude00""#, None);
        check(r#""\uD83D\uDE00 \u00e9""#, None);
        check(r#""\ud83d""#, Some(Problem::LoneSurrogate));
        check(r#""\ud83dx""#, Some(Problem::LoneSurrogate));
        check(r#""\ud83d\n""#, Some(Problem::LoneSurrogate));
        check(r#""\ude00\ud83d""#, Some(Problem::LoneSurrogate));
        check(r#""\ud83d\ud83d\ude00""#, Some(Problem::LoneSurrogate));
        check(r#""1e999 \" 9007199254740993""#, None);
        check("\"é\u{1f600}\"", None);
    }

    #[test]
    fn numbers() {
        let check = |number: &str, expected: bool| {
            assert_eq!(problem(&format!("[{number}]")).is_none(), expected, "{number}");
        };
        for good in [
            "0",
            "-0",
            "0.0",
            "1.50",
            "9007199254740991",
            "9007199254740992",
            "-9007199254740992",
            "0.1",
            "1e3",
            "1E+3",
            "100000000000000000000",
            "1e308",
            "1.7976931348623157e308",
            "5e-324",
            "0e999999",
            "0.00000000000000000001",
            "3.141592653589793",
            "12345678.90000000000000000000",
        ] {
            check(good, true);
        }
        for bad in [
            "9007199254740993",
            "-9007199254740993",
            "1e309",
            "1e-400",
            "1e99999999999999999999",
            "0.1234567890123456789",
            "12345678901234567890.5",
            "3.14159265358979323846",
        ] {
            check(bad, false);
        }
    }

    #[test]
    fn depth() {
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        assert_eq!(problem(&nested(MAX_DEPTH)), None);
        assert_eq!(problem(&nested(MAX_DEPTH + 1)), Some(Problem::Depth));
        assert_eq!(problem(&format!("[{}1]", "[],".repeat(500))), None, "wide is not deep");
    }

    proptest! {
        #[test]
        fn every_double_survives_as_it_prints(double in any::<f64>().prop_filter("finite", |d| d.is_finite())) {
            let (short, long) = (format!("{double:e}"), double.to_string());
            prop_assert!(survives(&short) && survives(&long));
        }

        #[test]
        fn integers_survive_up_to_two_to_the_53(number in -(1_i64 << 53)..=1 << 53) {
            prop_assert!(survives(&number.to_string()));
        }

        #[test]
        fn odd_integers_beyond_do_not(half in 1_i64 << 52..1 << 62) {
            let number = (2 * half + 1).to_string();
            prop_assert!(!survives(&number));
        }

        #[test]
        fn no_text_makes_it_panic(text in ".*") {
            let _ = problem(&text);
        }
    }
}
