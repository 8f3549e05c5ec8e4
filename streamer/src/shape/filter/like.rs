//! LIKE as Postgres matches it (`src/backend/utils/adt/like_match.c`), and the case of letters for ILIKE, `lower` and `upper`.

use std::borrow::Cow;

use super::eval::{Fail, Row};
use crate::shape::table::Letters;

/// What a comparison of the rest came to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Match {
    Yes,
    No,
    /// The text ended first: no later start can match either.
    Never,
}

/// `%` is any text, `_` any character, a backslash takes the next character as it is.
pub(super) fn like(text: &str, pattern: &str, row: &Row<'_>) -> Result<bool, Fail> {
    Ok(rest(text.as_bytes(), pattern.as_bytes(), row)? == Match::Yes)
}

/// The length of the character at the front.
fn character(text: &[u8]) -> usize {
    1 + text[1..].iter().take_while(|byte| **byte & 0xc0 == 0x80).count()
}

const ENDS_IN_ESCAPE: Fail = Fail("LIKE pattern must not end with escape character");

/// Recursion only at `%`, and `Never` stops all levels: the cost is bounded by text × pattern, and by what the row may take.
fn rest(mut text: &[u8], mut pattern: &[u8], row: &Row<'_>) -> Result<Match, Fail> {
    while let ([_, ..], [first, behind @ ..]) = (text, pattern) {
        row.spend(1)?;
        match first {
            b'\\' => {
                let Some(wanted) = behind.first() else { return Err(ENDS_IN_ESCAPE) };
                if text[0] != *wanted {
                    return Ok(Match::No);
                }
                (text, pattern) = (&text[1..], &behind[1..]);
            }
            b'%' => {
                pattern = behind;
                loop {
                    match pattern {
                        [b'%', more @ ..] => pattern = more,
                        [b'_', more @ ..] => {
                            if text.is_empty() {
                                return Ok(Match::Never);
                            }
                            text = &text[character(text)..];
                            pattern = more;
                        }
                        _ => break,
                    }
                }
                let wanted = match pattern {
                    [] => return Ok(Match::Yes),
                    [b'\\'] => return Err(ENDS_IN_ESCAPE),
                    [b'\\', wanted, ..] | [wanted, ..] => *wanted,
                };
                while !text.is_empty() {
                    row.spend(1)?;
                    if text[0] == wanted {
                        let matched = rest(text, pattern, row)?;
                        if matched != Match::No {
                            return Ok(matched);
                        }
                    }
                    text = &text[character(text)..];
                }
                return Ok(Match::Never);
            }
            b'_' => (text, pattern) = (&text[character(text)..], behind),
            _ => {
                if text[0] != *first {
                    return Ok(Match::No);
                }
                (text, pattern) = (&text[1..], behind);
            }
        }
    }
    if !text.is_empty() {
        return Ok(Match::No);
    }
    let rest = pattern.iter().skip_while(|byte| **byte == b'%').count();
    Ok(if rest == 0 { Match::Yes } else { Match::Never })
}

/// A pattern with another escape character, rewritten to the backslash (`like_escape`).
pub(super) fn with_backslashes(pattern: &str, escape: &str) -> Result<String, &'static str> {
    let mut signs = escape.chars();
    let sign = signs.next();
    if signs.next().is_some() {
        return Err("invalid escape string: it must be empty or one character");
    }
    if sign == Some('\\') {
        return Ok(pattern.to_owned());
    }
    let mut rewritten = String::with_capacity(pattern.len() + 8);
    let mut escaped = false;
    for character in pattern.chars() {
        if Some(character) == sign && !escaped {
            rewritten.push('\\');
            escaped = true;
        } else if character == '\\' && !escaped {
            rewritten.push_str("\\\\");
        } else {
            rewritten.push(character);
            escaped = false;
        }
    }
    Ok(rewritten)
}

/// In lower case.
pub(super) fn lower(text: &str, letters: Letters) -> Cow<'_, str> {
    if text.is_ascii() || letters == Letters::Ascii {
        let changes = text.bytes().any(|byte| byte.is_ascii_uppercase());
        return if changes { Cow::Owned(text.to_ascii_lowercase()) } else { Cow::Borrowed(text) };
    }
    match letters {
        Letters::Full => Cow::Owned(text.to_lowercase()),
        _ => Cow::Owned(text.chars().map(|c| single(c, c.to_lowercase())).collect()),
    }
}

/// In upper case.
pub(super) fn upper(text: &str, letters: Letters) -> Cow<'_, str> {
    if text.is_ascii() || letters == Letters::Ascii {
        let changes = text.bytes().any(|byte| byte.is_ascii_lowercase());
        return if changes { Cow::Owned(text.to_ascii_uppercase()) } else { Cow::Borrowed(text) };
    }
    match letters {
        Letters::Full => Cow::Owned(text.to_uppercase()),
        _ => Cow::Owned(text.chars().map(|c| single(c, c.to_uppercase())).collect()),
    }
}

/// The mapping of one character to one: where the full mapping has several, the simple one is the character itself or
/// stands in `UnicodeData.txt`.
fn single(of: char, mapped: impl ExactSizeIterator<Item = char>) -> char {
    let mut mapped = mapped;
    if mapped.len() == 1 {
        return mapped.next().unwrap_or(of);
    }
    match of {
        '\u{130}' => 'i',
        // Greek letters with iota subscript: their simple upper case is the title case, eight further on.
        '\u{1f80}'..='\u{1f87}' | '\u{1f90}'..='\u{1f97}' | '\u{1fa0}'..='\u{1fa7}' => {
            char::from_u32(u32::from(of) + 8).unwrap_or(of)
        }
        '\u{1fb3}' => '\u{1fbc}',
        '\u{1fc3}' => '\u{1fcc}',
        '\u{1ff3}' => '\u{1ffc}',
        _ => of,
    }
}
