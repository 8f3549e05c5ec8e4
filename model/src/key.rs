//! An entity's id: the text of its key, the parts of a composite key joined by `/`.
//!
//! A single-column key stands as it is. In a composite key each part is escaped, `~` as `~0` and `/` as `~1`
//! (the escapes of RFC 6901, JSON Pointer), so that different keys never share a text.

use std::borrow::Cow;

/// What separates the parts of a composite key.
pub const SEPARATOR: char = '/';

/// The entity id of a key given as its column values in text form.
///
/// ```
/// use headwater_model::key;
/// assert_eq!(key::join(&["a/b"]), "a/b");
/// assert_eq!(key::join(&["a/b", "c~d"]), "a~1b/c~0d");
/// ```
pub fn join(parts: &[&str]) -> String {
    match parts {
        [single] => (*single).to_owned(),
        _ => parts.iter().map(|part| escape(part)).collect::<Vec<_>>().join("/"),
    }
}

/// The column values of an entity id, or `None` if it is not the id of a key with that many columns.
///
/// ```
/// use headwater_model::key;
/// assert_eq!(key::split("a~1b/c~0d", 2), Some(vec!["a/b".to_owned(), "c~d".to_owned()]));
/// assert!(key::split("a/b/c", 2).is_none());
/// assert!(key::split("a~2/b", 2).is_none());
/// ```
pub fn split(entity_id: &str, columns: usize) -> Option<Vec<String>> {
    if columns == 1 {
        return Some(vec![entity_id.to_owned()]);
    }
    let parts = entity_id.split(SEPARATOR).map(unescape).collect::<Option<Vec<_>>>()?;
    (parts.len() == columns).then_some(parts)
}

fn escape(part: &str) -> Cow<'_, str> {
    if part.contains(['~', SEPARATOR]) { part.replace('~', "~0").replace(SEPARATOR, "~1").into() } else { part.into() }
}

fn unescape(part: &str) -> Option<String> {
    let mut out = String::with_capacity(part.len());
    let mut chars = part.chars();
    while let Some(c) = chars.next() {
        out.push(match c {
            '~' => match chars.next()? {
                '0' => '~',
                '1' => SEPARATOR,
                _ => return None,
            },
            other => other,
        });
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_key_survives_the_round_trip(parts in prop::collection::vec("[a~/01é]{0,6}", 1..5)) {
            let borrowed: Vec<&str> = parts.iter().map(String::as_str).collect();
            prop_assert_eq!(split(&join(&borrowed), parts.len()), Some(parts.clone()));
        }

        #[test]
        fn different_keys_have_different_ids(a in prop::collection::vec("[a~/01]{0,4}", 2), b in prop::collection::vec("[a~/01]{0,4}", 2)) {
            let id = |parts: &[String]| join(&parts.iter().map(String::as_str).collect::<Vec<_>>());
            prop_assert_eq!(a == b, id(&a) == id(&b));
        }
    }
}
