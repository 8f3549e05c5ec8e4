//! Lines of `COPY … TO STDOUT` (text): the types' own output, exactly as the WAL has it. Pure.
//!
//! Format: "COPY", section "Text Format" in the Postgres manual.

use std::ops::Range;

/// As in a row of the WAL.
const UNREADABLE: &str = "\u{fffd}";

/// Reads lines, with buffers that are used again.
#[derive(Debug)]
pub(super) struct Lines {
    width: usize,
    /// For each field, its column's place in the table.
    places: Vec<usize>,
    fields: Vec<Field>,
    unescaped: Vec<u8>,
}

#[derive(Clone, Debug)]
enum Field {
    Null,
    Plain(Range<usize>),
    Unescaped(Range<usize>),
}

impl Lines {
    /// Lines with these columns of a table that has `width`.
    pub(super) fn new(width: usize, places: Vec<usize>) -> Self {
        Self { width, places, fields: Vec::new(), unescaped: Vec::new() }
    }

    /// Passes the row on: values by their columns' place in the table.
    pub(super) fn read(&mut self, line: &[u8], take: impl FnOnce(&[Option<&str>])) {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        self.fields.clear();
        self.unescaped.clear();
        let mut start = 0;
        // A table can have no columns at all.
        for field in line.split(|byte| *byte == b'\t').take(self.places.len()) {
            let range = start..start + field.len();
            start = range.end + 1;
            let read = if field == b"\\N" {
                Field::Null
            } else if field.contains(&b'\\') {
                let from = self.unescaped.len();
                unescape(field, &mut self.unescaped);
                Field::Unescaped(from..self.unescaped.len())
            } else {
                Field::Plain(range)
            };
            self.fields.push(read);
        }
        let text = |bytes| Some(std::str::from_utf8(bytes).unwrap_or(UNREADABLE));
        let mut row = vec![None; self.width];
        for (field, place) in self.fields.iter().zip(&self.places) {
            row[*place] = match field {
                Field::Null => None,
                Field::Plain(range) => text(&line[range.clone()]),
                Field::Unescaped(range) => text(&self.unescaped[range.clone()]),
            };
        }
        take(&row);
    }
}

fn unescape(field: &[u8], out: &mut Vec<u8>) {
    let mut bytes = field.iter();
    while let Some(byte) = bytes.next() {
        if *byte != b'\\' {
            out.push(*byte);
            continue;
        }
        // COPY TO writes no octal or hexadecimal forms.
        match bytes.next() {
            Some(b'b') => out.push(0x08),
            Some(b'f') => out.push(0x0c),
            Some(b'n') => out.push(b'\n'),
            Some(b'r') => out.push(b'\r'),
            Some(b't') => out.push(b'\t'),
            Some(b'v') => out.push(0x0b),
            Some(other) => out.push(*other),
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_escape() {
        let check = |line: &str, expected: &[Option<&str>]| {
            let mut lines = Lines::new(3, vec![0, 2]);
            let mut seen = None;
            lines.read(line.as_bytes(), |row| seen = Some(row == expected));
            assert_eq!(seen, Some(true), "{line:?}");
        };
        check("1\tx\n", &[Some("1"), None, Some("x")]);
        check("\\N\t\n", &[None, None, Some("")]);
        check("\\\\N\ta\\tb\\nc\\\\d\\r\\b\\f\\v\n", &[Some("\\N"), None, Some("a\tb\nc\\d\r\u{8}\u{c}\u{b}")]);
        check("ü\t\\\\x00\n", &[Some("ü"), None, Some("\\x00")]);
    }
}
