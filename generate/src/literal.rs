//! JSON values and names as they are written in TypeScript.

use serde_json::Value;

/// A value as an expression. JSON is one already, but for `__proto__`, which would set the prototype.
pub(crate) fn expression(value: &Value, indent: usize) -> String {
    let compact = one_line(value);
    if compact.len() + indent <= LINE {
        return compact;
    }
    let inner = " ".repeat(indent + 2);
    let outer = " ".repeat(indent);
    let lines: Vec<String> = match value {
        Value::Array(items) => items.iter().map(|item| expression(item, indent + 2)).collect(),
        Value::Object(members) => {
            sorted(members).map(|(name, value)| format!("{}: {}", key(name), expression(value, indent + 2))).collect()
        }
        _ => return compact,
    };
    let (open, close) = if value.is_array() { ('[', ']') } else { ('{', '}') };
    format!("{open}\n{inner}{},\n{outer}{close}", lines.join(&format!(",\n{inner}")))
}

/// A value in one line.
pub(crate) fn one_line(value: &Value) -> String {
    let listed = |items: Vec<String>, open: &str, close: &str| format!("{open}{}{close}", items.join(", "));
    match value {
        Value::Array(items) => listed(items.iter().map(one_line).collect(), "[", "]"),
        Value::Object(members) if members.is_empty() => "{}".to_owned(),
        Value::Object(members) => listed(
            sorted(members).map(|(name, value)| format!("{}: {}", key(name), one_line(value))).collect(),
            "{ ",
            " }",
        ),
        Value::String(text) => quoted(text),
        other => other.to_string(),
    }
}

/// A text in single quotes.
pub(crate) fn quoted(text: &str) -> String {
    let mut literal = String::from("'");
    for character in text.chars() {
        match character {
            '\'' | '\\' => literal.extend(['\\', character]),
            '\n' => literal.push_str("\\n"),
            '\r' => literal.push_str("\\r"),
            c if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}') => {
                literal.extend(c.escape_unicode());
            }
            c => literal.push(c),
        }
    }
    literal.push('\'');
    literal
}

/// The name of a member of a type.
pub(crate) fn member(name: &str) -> String {
    if is_plain(name) { name.to_owned() } else { quoted(name) }
}

/// A text within a block comment, which it cannot end.
pub(crate) fn comment(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace("*/", "* /")
}

/// The members in the order of their names, whatever order the map keeps.
pub(crate) fn sorted(members: &serde_json::Map<String, Value>) -> impl Iterator<Item = (&String, &Value)> {
    let mut pairs: Vec<_> = members.iter().collect();
    pairs.sort_by_key(|(name, _)| *name);
    pairs.into_iter()
}

/// Lines are broken behind so many characters.
const LINE: usize = 120;

/// The name of a member in an object literal.
fn key(name: &str) -> String {
    match name {
        "__proto__" => "['__proto__']".to_owned(),
        name if is_plain(name) => name.to_owned(),
        name => quoted(name),
    }
}

fn is_plain(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_' || c == '$')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '$')
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn values_are_written_so_that_they_mean_the_same() {
        let check = |value: Value, literal: &str| assert_eq!(one_line(&value), literal);
        check(json!({"b": 1, "a": [true, null, 1.5]}), "{ a: [true, null, 1.5], b: 1 }");
        check(
            json!({"__proto__": {"a b": "it's \\ \n \u{2028}"}}),
            r"{ ['__proto__']: { 'a b': 'it\'s \\ \n \u{2028}' } }",
        );
        check(json!("*/ ü"), "'*/ ü'");
        assert_eq!(comment("ends */ here\nand on"), "ends * / here and on");
        assert_eq!(member("od/d na~me"), "'od/d na~me'");
        assert_eq!(member("class"), "class");
    }

    #[test]
    fn long_values_are_broken() {
        let long = json!({"a": vec!["x".repeat(50); 3], "b": 1});
        let text = expression(&long, 0);
        assert!(text.lines().all(|line| line.len() <= LINE), "{text}");
        assert!(text.starts_with("{\n  a: [\n    'xxx"), "{text}");
    }
}
