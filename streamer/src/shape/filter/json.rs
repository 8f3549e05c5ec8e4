//! `jsonb` values: read and printed as Postgres does, looked into, compared for equality and containment
//! (`src/backend/utils/adt/jsonb_util.c`, `jsonfuncs.c`). Their order is not computed: it depends on a collation.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt::Write as _;

use super::numeric::Numeric;

/// Most levels that are read: the recursion over them stays within a worker thread's stack. A deeper value is unreadable.
const MAX_LEVELS: usize = 256;

/// Numbers longer than this are read as such, which finds those that have no place in `numeric`.
const LONG_NUMBER: usize = 1_000;

/// A value.
#[derive(Clone, Debug)]
pub(super) enum Json {
    Null,
    Bool(bool),
    /// In digits, without exponent, as `numeric` prints it.
    Number(Box<str>),
    Text(Box<str>),
    Array(Vec<Self>),
    /// Keys in Postgres' order, the shorter first.
    Object(Vec<(Box<str>, Self)>),
}

impl PartialEq for Json {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Null, Self::Null) => true,
            (Self::Bool(a), Self::Bool(b)) => a == b,
            (Self::Number(a), Self::Number(b)) => without_zeros(a) == without_zeros(b),
            (Self::Text(a), Self::Text(b)) => a == b,
            (Self::Array(a), Self::Array(b)) => a == b,
            (Self::Object(a), Self::Object(b)) => a == b,
            _ => false,
        }
    }
}

/// `1.50` and `1.5` are one number.
fn without_zeros(number: &str) -> &str {
    if number.contains('.') { number.trim_end_matches('0').trim_end_matches('.') } else { number }
}

fn order_of_keys(a: &str, b: &str) -> Ordering {
    a.len().cmp(&b.len()).then_with(|| a.as_bytes().cmp(b.as_bytes()))
}

impl Json {
    /// Reads what `jsonb_in` reads.
    pub(super) fn read(text: &str) -> Option<Self> {
        let mut reader = Reader { text, at: 0 };
        let value = reader.value(0)?;
        reader.skip_space();
        (reader.at == text.len()).then_some(value)
    }

    /// As Postgres prints it.
    pub(super) fn show(&self) -> String {
        let mut out = String::new();
        self.write(&mut out);
        out
    }

    fn write(&self, out: &mut String) {
        match self {
            Self::Null => out.push_str("null"),
            Self::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
            Self::Number(digits) => out.push_str(digits),
            Self::Text(text) => quote(text, out),
            Self::Array(elements) => {
                out.push('[');
                for (at, element) in elements.iter().enumerate() {
                    out.push_str(if at > 0 { ", " } else { "" });
                    element.write(out);
                }
                out.push(']');
            }
            Self::Object(members) => {
                out.push('{');
                for (at, (key, value)) in members.iter().enumerate() {
                    out.push_str(if at > 0 { ", " } else { "" });
                    quote(key, out);
                    out.push_str(": ");
                    value.write(out);
                }
                out.push('}');
            }
        }
    }

    /// What `->>` makes of it: a text as it is, null as NULL, the rest as it is printed.
    pub(super) fn into_text(self) -> Option<String> {
        match self {
            Self::Null => None,
            Self::Text(text) => Some(text.into()),
            other => Some(other.show()),
        }
    }

    /// `-> 'key'`
    pub(super) fn member(&self, key: &str) -> Option<&Self> {
        let Self::Object(members) = self else { return None };
        let at = members.binary_search_by(|(own, _)| order_of_keys(own, key)).ok()?;
        Some(&members[at].1)
    }

    /// `-> 2`, from the end if negative. What is neither array nor object counts as an array of itself.
    pub(super) fn element(&self, index: i64) -> Option<&Self> {
        let elements = match self {
            Self::Array(elements) => elements,
            Self::Object(_) => return None,
            _ => std::slice::from_ref(self),
        };
        place(index, elements.len()).map(|at| &elements[at])
    }

    /// `#> '{key,2}'`
    pub(super) fn at_path<'p>(&self, path: impl IntoIterator<Item = &'p str>) -> Option<&Self> {
        path.into_iter().try_fold(self, |value, step| match value {
            Self::Object(_) => value.member(step),
            Self::Array(elements) => place(index(step)?, elements.len()).map(|at| &elements[at]),
            _ => None,
        })
    }

    /// `? 'key'`: a key of an object, a text in an array, or the text itself.
    pub(super) fn has(&self, key: &str) -> bool {
        let is = |value: &Self| matches!(value, Self::Text(text) if **text == *key);
        match self {
            Self::Object(_) => self.member(key).is_some(),
            Self::Array(elements) => elements.iter().any(is),
            other => is(other),
        }
    }

    /// `@>`. An array contains a single value, too, but nowhere below its first level.
    pub(super) fn contains(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Array(elements), single) if single.is_single() => elements.contains(single),
            _ => self.holds(other),
        }
    }

    /// As `other`, or with more in its arrays and objects.
    fn holds(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Object(_), Self::Object(wanted)) => {
                wanted.iter().all(|(key, wanted)| self.member(key).is_some_and(|own| own.holds(wanted)))
            }
            (Self::Array(own), Self::Array(wanted)) => {
                wanted.iter().all(|wanted| own.iter().any(|own| own.holds(wanted)))
            }
            (own, wanted) => own.is_single() && own == wanted,
        }
    }

    fn is_single(&self) -> bool {
        !matches!(self, Self::Array(_) | Self::Object(_))
    }

    /// How much there is to look at.
    pub(super) fn size(&self) -> usize {
        match self {
            Self::Null | Self::Bool(_) => 1,
            Self::Number(text) | Self::Text(text) => 1 + text.len() / 16,
            Self::Array(elements) => 1 + elements.iter().map(Self::size).sum::<usize>(),
            Self::Object(members) => {
                1 + members.iter().map(|(key, value)| key.len() / 16 + value.size()).sum::<usize>()
            }
        }
    }
}

fn place(index: i64, length: usize) -> Option<usize> {
    let length = i64::try_from(length).ok()?;
    let at = if index < 0 { index + length } else { index };
    usize::try_from(at).ok().filter(|_| at < length)
}

/// A step of a path that is a place in an array, as C's `strtol` reads it.
fn index(step: &str) -> Option<i64> {
    let step = step.trim_start_matches([' ', '\t', '\n', '\r', '\u{b}', '\u{c}']);
    step.parse::<i32>().ok().map(i64::from)
}

/// `escape_json`
fn quote(text: &str, out: &mut String) {
    out.push('"');
    for letter in text.chars() {
        match letter {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            control if control < ' ' => {
                let _ = write!(out, "\\u{:04x}", u32::from(control));
            }
            other => out.push(other),
        }
    }
    out.push('"');
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    fn rest(&self) -> &'a [u8] {
        &self.text.as_bytes()[self.at..]
    }

    fn peek(&self) -> Option<u8> {
        self.rest().first().copied()
    }

    fn skip_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    /// Whether this sign comes next; then it is taken.
    fn takes(&mut self, sign: u8) -> bool {
        self.skip_space();
        let found = self.peek() == Some(sign);
        self.at += usize::from(found);
        found
    }

    fn word(&mut self, word: &str, value: Json) -> Option<Json> {
        self.rest().starts_with(word.as_bytes()).then(|| {
            self.at += word.len();
            value
        })
    }

    fn value(&mut self, level: usize) -> Option<Json> {
        if level > MAX_LEVELS {
            return None;
        }
        self.skip_space();
        match self.peek()? {
            b'n' => self.word("null", Json::Null),
            b't' => self.word("true", Json::Bool(true)),
            b'f' => self.word("false", Json::Bool(false)),
            b'"' => self.string().map(|text| Json::Text(text.into())),
            b'[' => {
                self.at += 1;
                let mut elements = Vec::new();
                if self.takes(b']') {
                    return Some(Json::Array(elements));
                }
                loop {
                    elements.push(self.value(level + 1)?);
                    if self.takes(b']') {
                        return Some(Json::Array(elements));
                    }
                    self.takes(b',').then_some(())?;
                }
            }
            b'{' => self.object(level),
            _ => self.number(),
        }
    }

    fn object(&mut self, level: usize) -> Option<Json> {
        self.at += 1;
        let mut members: Vec<(Box<str>, Json)> = Vec::new();
        if self.takes(b'}') {
            return Some(Json::Object(members));
        }
        loop {
            self.skip_space();
            let key = self.string()?;
            self.takes(b':').then_some(())?;
            members.push((key.into(), self.value(level + 1)?));
            if self.takes(b'}') {
                break;
            }
            self.takes(b',').then_some(())?;
        }
        // Of several with one key the last counts: it comes first for a moment.
        members.reverse();
        members.sort_by(|(a, _), (b, _)| order_of_keys(a, b));
        members.dedup_by(|(later, _), (first, _)| later == first);
        Some(Json::Object(members))
    }

    fn string(&mut self) -> Option<Cow<'a, str>> {
        if self.peek() != Some(b'"') {
            return None;
        }
        self.at += 1;
        let mut from = self.at;
        let mut text = Cow::Borrowed("");
        loop {
            match self.peek()? {
                b'"' => {
                    text += &self.text[from..self.at];
                    self.at += 1;
                    return Some(text);
                }
                b'\\' => {
                    text += &self.text[from..self.at];
                    self.at += 1;
                    text.to_mut().push(self.escape()?);
                    from = self.at;
                }
                0..=31 => return None,
                _ => self.at += 1,
            }
        }
    }

    /// Behind a backslash.
    fn escape(&mut self) -> Option<char> {
        let sign = self.peek()?;
        self.at += 1;
        Some(match sign {
            b'"' | b'\\' | b'/' => char::from(sign),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let unit = self.unit()?;
                let mut units = vec![unit];
                if (0xd800..0xdc00).contains(&unit) {
                    self.rest().starts_with(b"\\u").then_some(())?;
                    self.at += 2;
                    units.push(self.unit()?);
                }
                char::decode_utf16(units).next()?.ok().filter(|letter| *letter != '\0')?
            }
            _ => return None,
        })
    }

    /// Four hexadecimal digits.
    fn unit(&mut self) -> Option<u16> {
        let digits = self.text.get(self.at..self.at + 4).filter(|of| of.bytes().all(|of| of.is_ascii_hexdigit()))?;
        self.at += 4;
        u16::from_str_radix(digits, 16).ok()
    }

    fn digits(&mut self) -> usize {
        let count = self.rest().iter().take_while(|byte| byte.is_ascii_digit()).count();
        self.at += count;
        count
    }

    fn number(&mut self) -> Option<Json> {
        let from = self.at;
        self.at += usize::from(self.peek() == Some(b'-'));
        let zero = self.peek() == Some(b'0');
        let whole = self.digits();
        if whole == 0 || (zero && whole > 1) {
            return None;
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            (self.digits() > 0).then_some(())?;
        }
        let plain = !matches!(self.peek(), Some(b'e' | b'E'));
        if !plain {
            self.at += 1;
            self.at += usize::from(matches!(self.peek(), Some(b'+' | b'-')));
            (self.digits() > 0).then_some(())?;
        }
        let text = &self.text[from..self.at];
        let minus_zero = text.starts_with("-0") && !text.contains(|digit| matches!(digit, '1'..='9'));
        if plain && !minus_zero && text.len() <= LONG_NUMBER {
            return Some(Json::Number(text.into()));
        }
        // What `numeric` prints otherwise than it was written, or does not take.
        Some(Json::Number(Numeric::read(text)?.to_string().into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_that_is_no_jsonb_is_refused() {
        let deep = "[".repeat(1000) + &"]".repeat(1000);
        for wrong in [
            "",
            " ",
            "{",
            "[1,]",
            "[1 2]",
            "{\"a\"}",
            "{\"a\": 1,}",
            "{a: 1}",
            "01",
            "+1",
            "1.",
            ".5",
            "1e",
            "nul",
            "\"a",
            "\"\n\"",
            "\"\\x\"",
            "\"\\u0000\"",
            "\"\\ud800\"",
            "\"\\ud800\\u0041\"",
            "\"\\u12g4\"",
            "1 2",
            "NaN",
            "1e999999",
            &deep,
        ] {
            assert!(Json::read(wrong).is_none(), "{wrong:.40}");
        }
    }

    #[test]
    fn values_are_printed_as_postgres_prints_them() {
        for (text, shown) in [
            (" {\"b\":1,\"a\":{ },\"aa\":[ ],\"b\":-0.0}\t", "{\"a\": {}, \"b\": 0.0, \"aa\": []}"),
            ("[1e2, 1.50, -7, 12E-2]", "[100, 1.50, -7, 0.12]"),
            ("\"\\u00e9\\ud83d\\ude00\\/\\u001f\\t\\\"\"", "\"é😀/\\u001f\\t\\\"\""),
            ("null", "null"),
        ] {
            assert_eq!(Json::read(text).map(|json| json.show()).as_deref(), Some(shown), "{text}");
        }
    }
}
