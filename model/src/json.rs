//! JSON values as the fold compares and adds them: numbers by value, never through a float.

use std::str::FromStr;

use bigdecimal::{BigDecimal, Zero};
use serde_json::{Map, Number, Value};

/// How large an exponent a decimal may have before it is refused: `1e131072` is the largest that Postgres'
/// `numeric` holds, and writing such a number out takes as many digits.
const MAX_EXPONENT: i64 = 131_072;

/// Whether two values are equal as JSON: the order of members does not count, and numbers compare by value.
///
/// ```
/// use headwater_model::json::equal;
/// use serde_json::json;
/// assert!(equal(&json!({"a": 1, "b": [1.0]}), &json!({"b": [1], "a": 1.00})));
/// assert!(!equal(&json!("1"), &json!(1)));
/// ```
pub fn equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => {
            a == b || matches!((decimal_of(a), decimal_of(b)), (Some(a), Some(b)) if a == b)
        }
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| equal(a, b)),
        (Value::Object(a), Value::Object(b)) => equal_objects(a, b),
        (a, b) => a == b,
    }
}

/// [`equal`] for the members of two objects.
pub fn equal_objects(a: &Map<String, Value>, b: &Map<String, Value>) -> bool {
    a.len() == b.len() && a.iter().all(|(name, value)| b.get(name).is_some_and(|other| equal(value, other)))
}

/// The exact decimal that a value stands for: a number, or a string that holds one (as int8 and numeric travel).
pub fn decimal(value: &Value) -> Option<BigDecimal> {
    match value {
        Value::Number(number) => decimal_of(number),
        Value::String(text) => parse_decimal(text),
        _ => None,
    }
}

/// `value + by`, written as `value` was: a number stays a number, a string a string.
/// An absent or null `value` counts as zero and takes the form of `by`. `None` if either is not a decimal.
///
/// A string's sum is exact. A number's is the double that lies nearest to the exact sum, because to JavaScript and to
/// a `float8` column a number is a double; `None` if that is infinite.
///
/// ```
/// use headwater_model::json::add;
/// use serde_json::json;
/// assert_eq!(add(&json!("9007199254740993"), &json!(1)), Some(json!("9007199254740994")));
/// assert_eq!(add(&json!("0.10"), &json!("0.2")), Some(json!("0.30")));
/// assert_eq!(add(&json!(0.1), &json!(0.2)), Some(json!(0.3)));
/// assert_eq!(add(&json!(null), &json!(2)), Some(json!(2)));
/// ```
pub fn add(value: &Value, by: &Value) -> Option<Value> {
    let amount = decimal(by)?;
    let (sum, as_text) = match value {
        Value::Null => (amount, by.is_string()),
        _ => (decimal(value)? + amount, value.is_string()),
    };
    Some(if as_text { Value::String(all_digits_of(&sum)) } else { Value::Number(nearest_double(&sum)?) })
}

/// Without an exponent. `BigDecimal` would print a zero with all the zeros of its exponent before the point.
fn all_digits_of(sum: &BigDecimal) -> String {
    if sum.is_zero() && sum.fractional_digit_count() < 0 { "0".to_owned() } else { sum.to_plain_string() }
}

fn nearest_double(sum: &BigDecimal) -> Option<Number> {
    let double = sum.to_string().parse::<f64>().ok().filter(|double| double.is_finite())?;
    Number::from_str(&double.to_string()).ok()
}

/// Without the zeros at its end: `1.50` and `1.5` are the same number to JavaScript, and add up to the same text.
fn decimal_of(number: &Number) -> Option<BigDecimal> {
    parse_decimal(number.as_str()).map(|decimal| decimal.normalized())
}

fn parse_decimal(text: &str) -> Option<BigDecimal> {
    if !is_decimal(text) {
        return None;
    }
    let decimal = BigDecimal::from_str(text).ok()?;
    (decimal.fractional_digit_count().abs() <= MAX_EXPONENT).then_some(decimal)
}

/// A sign, digits with at most one point among them, an exponent; all but one digit may be missing.
fn is_decimal(text: &str) -> bool {
    let unsigned = |text: &str| text.strip_prefix(['+', '-']).unwrap_or(text).to_owned();
    let all_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(unsigned(exponent))),
        None => (text, None),
    };
    let mantissa = unsigned(mantissa);
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((&mantissa, ""));
    !(whole.is_empty() && fraction.is_empty())
        && all_digits(whole)
        && all_digits(fraction)
        && exponent.is_none_or(|exponent| !exponent.is_empty() && all_digits(&exponent))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn numbers_compare_by_value_and_keep_all_their_digits() {
        let value = |text: &str| serde_json::from_str::<Value>(text).expect(text);
        let check = |a: &str, b: &str, expected: bool| assert_eq!(equal(&value(a), &value(b)), expected, "{a} {b}");
        check("1", "1.0", true);
        check("1e2", "100", true);
        check("12345678901234567890123", "12345678901234567890124", false);
        check("-0", "0", true);
        check("1", "true", false);
        check("{\"a\":[{\"b\":1}]}", "{\"a\":[{\"b\":1.00}]}", true);
        check("[1,2]", "[2,1]", false);
        check("null", "{}", false);
    }

    #[test]
    fn what_is_no_decimal_is_not_added() {
        for wrong in [
            json!("NaN"),
            json!("Infinity"),
            json!(""),
            json!("1 "),
            json!("0x1"),
            json!([]),
            json!(true),
            json!("1e999999999"),
            json!("."),
            json!(".+5"),
            json!("1e"),
            json!("1_0"),
        ] {
            assert_eq!(add(&json!(1), &wrong), None, "{wrong}");
            assert_eq!(add(&wrong, &json!(1)), None, "{wrong}");
        }
    }

    #[test]
    fn a_number_is_a_double_and_a_text_is_exact() {
        let value = |text: &str| serde_json::from_str::<Value>(text).expect(text);
        let check = |a: &str, b: &str, sum: Option<&str>| {
            let (a, b) = (value(a), value(b));
            assert_eq!(add(&a, &b).map(|sum| sum.to_string()).as_deref(), sum, "{a} + {b}");
        };
        check("\"1.0\"", "1.50", Some("\"2.5\""));
        check("\".5\"", "\"+1.\"", Some("\"1.5\""));
        check("9007199254740992", "1", Some("9007199254740992"));
        check("0.10", "0.20", Some("0.3"));
        check("1e308", "1e308", None);
        check("null", "\"1e3\"", Some("\"1000\""));
        check("null", "2.50", Some("2.5"));
        check("null", "\"0e5\"", Some("\"0\""));
        check("\"0.00\"", "0", Some("\"0.00\""));
    }
}
