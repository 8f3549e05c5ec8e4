//! Names as clients write them: `t`, `s.t`, `"Quoted"."t"`, lists of columns. Pure.

/// Why a name cannot be read.
pub(super) type Invalid = String;

/// The schema and the name of a table; the schema is `public` unless one is given.
pub(super) fn table(text: &str) -> Result<(String, String), Invalid> {
    let mut rest = text;
    let mut parts = Vec::new();
    loop {
        let (part, behind) = identifier(rest)?;
        parts.push(part);
        match behind.strip_prefix('.') {
            Some(next) => rest = next,
            None if behind.is_empty() => break,
            None => return Err(format!("Invalid unquoted identifier contains special characters: {text}")),
        }
    }
    let mut parts = parts.into_iter();
    match (parts.next(), parts.next(), parts.next()) {
        (Some(name), None, None) => Ok(("public".to_owned(), name)),
        (Some(schema), Some(name), None) => Ok((schema, name)),
        _ => Err(format!("Invalid table name: {text}")),
    }
}

/// A list of columns.
pub(super) fn columns(text: &str) -> Result<Vec<String>, Invalid> {
    let mut rest = text;
    let mut columns = Vec::new();
    loop {
        let (column, behind) = identifier(rest.trim_start_matches(' '))?;
        columns.push(column);
        let behind = behind.trim_start_matches(' ');
        match behind.strip_prefix(',') {
            Some(next) => rest = next,
            None if behind.is_empty() => return Ok(columns),
            None => return Err(format!("Invalid unquoted identifier contains special characters: {text}")),
        }
    }
}

/// One identifier and what stands behind it, as SQL reads it: folded to lower case unless quoted, cut nowhere.
pub(super) fn identifier(text: &str) -> Result<(String, &str), Invalid> {
    if let Some(quoted) = text.strip_prefix('"') {
        let mut name = String::new();
        let mut rest = quoted;
        loop {
            let Some((part, behind)) = rest.split_once('"') else {
                return Err(format!("Invalid identifier with unterminated quote: {text}"));
            };
            name.push_str(part);
            match behind.strip_prefix('"') {
                Some(next) => {
                    name.push('"');
                    rest = next;
                }
                None if name.is_empty() => return Err("Invalid zero-length delimited identifier".to_owned()),
                None => return Ok((name, behind)),
            }
        }
    }
    let first = |c: char| c.is_alphabetic() || c == '_';
    let end = text.find(|c: char| !(first(c) || c.is_ascii_digit() || c == '$')).unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    match name.chars().next() {
        None if rest.is_empty() || rest.starts_with(['.', ',']) => Err("Invalid zero-length identifier".to_owned()),
        Some(c) if first(c) => Ok((name.to_ascii_lowercase(), rest)),
        _ => Err(format!("Invalid unquoted identifier contains special characters: {text}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables() {
        let check = |text: &str, expected: Option<(&str, &str)>| {
            let read = table(text).ok();
            assert_eq!(read.as_ref().map(|(schema, name)| (schema.as_str(), name.as_str())), expected, "{text}");
        };
        check("items", Some(("public", "items")));
        check("Items", Some(("public", "items")));
        check("app.Items", Some(("app", "items")));
        check("\"App\".\"It\"\"e.ms\"", Some(("App", "It\"e.ms")));
        check("_a$1", Some(("public", "_a$1")));
        check("größe", Some(("public", "größe")));
        for wrong in ["", ".", "a.", ".a", "a.b.c", "a b", "a;b", "1a", "\"a", "\"\"", "a\"b\"", "a-b", " a"] {
            check(wrong, None);
        }
    }

    #[test]
    fn lists() {
        let check = |text: &str, expected: Option<&[&str]>| {
            let read = columns(text).ok();
            assert_eq!(
                read.as_deref(),
                expected.map(|list| list.iter().map(|&name| name.to_owned()).collect::<Vec<_>>()).as_deref(),
                "{text}"
            );
        };
        check("id", Some(&["id"]));
        check("id,Title, \"Owner, of\"", Some(&["id", "title", "Owner, of"]));
        for wrong in ["", "id,", ",id", "id,,b", "id b"] {
            check(wrong, None);
        }
    }
}
