//! JSON values as the fold compares and adds them: numbers by value, never through a float.

use std::str::FromStr;

use bigdecimal::BigDecimal;
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

/// `value + by`, exact, written as `value` was: a number stays a number, a string a string.
/// An absent or null `value` counts as zero and takes the form of `by`. `None` if either is not a decimal.
///
/// ```
/// use headwater_model::json::add;
/// use serde_json::json;
/// assert_eq!(add(&json!("9007199254740993"), &json!(1)), Some(json!("9007199254740994")));
/// assert_eq!(add(&json!("0.10"), &json!("0.2")), Some(json!("0.30")));
/// assert_eq!(add(&json!(null), &json!(2)), Some(json!(2)));
/// ```
pub fn add(value: &Value, by: &Value) -> Option<Value> {
    let amount = decimal(by)?;
    let (sum, as_text) = match value {
        Value::Null => (amount, by.is_string()),
        _ => (decimal(value)? + amount, value.is_string()),
    };
    let text = sum.to_plain_string();
    Some(if as_text { Value::String(text) } else { Value::Number(Number::from_str(&text).ok()?) })
}

fn decimal_of(number: &Number) -> Option<BigDecimal> {
    parse_decimal(number.as_str())
}

fn parse_decimal(text: &str) -> Option<BigDecimal> {
    let digits_only = text.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'+' | b'-' | b'.' | b'e' | b'E'));
    if text.is_empty() || !digits_only {
        return None;
    }
    let decimal = BigDecimal::from_str(text).ok()?;
    (decimal.fractional_digit_count().abs() <= MAX_EXPONENT).then_some(decimal)
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
        ] {
            assert_eq!(add(&json!(1), &wrong), None, "{wrong}");
            assert_eq!(add(&wrong, &json!(1)), None, "{wrong}");
        }
    }
}
