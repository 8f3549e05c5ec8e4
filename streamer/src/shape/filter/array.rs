//! Arrays: any number of dimensions, lower bounds, null elements (`src/backend/utils/adt/arrayfuncs.c`).

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt::Write as _;

use super::value::{Maybe, Value};

/// Most dimensions (`MAXDIM`).
pub(super) const MAX_DIMENSIONS: usize = 6;

/// An array; without dimensions it is empty.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Array<'a> {
    pub(super) dimensions: Vec<Dimension>,
    /// Row by row.
    pub(super) elements: Vec<Maybe<'a>>,
}

/// One dimension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Dimension {
    pub(super) lower: i32,
    pub(super) length: usize,
}

impl Dimension {
    /// The place of an index within it.
    fn place(self, index: i64) -> Option<usize> {
        let place = usize::try_from(index.checked_sub(i64::from(self.lower))?).ok()?;
        (place < self.length).then_some(place)
    }

    fn upper(self) -> i64 {
        i64::from(self.lower) + i64::try_from(self.length).unwrap_or(i64::MAX) - 1
    }
}

impl<'a> Array<'a> {
    /// One dimension, from index 1.
    pub(super) fn flat(elements: Vec<Maybe<'a>>) -> Self {
        let dimensions =
            if elements.is_empty() { Vec::new() } else { vec![Dimension { lower: 1, length: elements.len() }] };
        Self { dimensions, elements }
    }

    pub(super) fn into_owned(self) -> Array<'static> {
        let elements = self.elements.into_iter().map(|element| element.map(Value::into_owned)).collect();
        Array { dimensions: self.dimensions, elements }
    }

    /// `btarraycmp`: elements first (null is the greatest), then numbers of elements and dimensions, then bounds.
    pub(super) fn order(&self, other: &Self) -> Option<Ordering> {
        for pair in self.elements.iter().zip(&other.elements) {
            let order = match pair {
                (None, None) => Ordering::Equal,
                (None, Some(_)) => Ordering::Greater,
                (Some(_), None) => Ordering::Less,
                (Some(a), Some(b)) => a.order(b)?,
            };
            if order != Ordering::Equal {
                return Some(order);
            }
        }
        let bounds = |of: &Self| -> Vec<i32> { of.dimensions.iter().map(|dimension| dimension.lower).collect() };
        let lengths = |of: &Self| -> Vec<usize> { of.dimensions.iter().map(|dimension| dimension.length).collect() };
        Some(
            (self.elements.len().cmp(&other.elements.len()))
                .then(self.dimensions.len().cmp(&other.dimensions.len()))
                .then_with(|| lengths(self).cmp(&lengths(other)))
                .then_with(|| bounds(self).cmp(&bounds(other))),
        )
    }

    /// `@>`: every element of the other is here; a null element is nowhere.
    pub(super) fn contains(&self, other: &Self) -> Option<bool> {
        for wanted in &other.elements {
            if !self.has(wanted.as_ref())? {
                return Some(false);
            }
        }
        Some(true)
    }

    /// `&&`
    pub(super) fn overlaps(&self, other: &Self) -> Option<bool> {
        for wanted in &other.elements {
            if self.has(wanted.as_ref())? {
                return Some(true);
            }
        }
        Some(false)
    }

    fn has(&self, wanted: Option<&Value<'_>>) -> Option<bool> {
        let Some(wanted) = wanted else { return Some(false) };
        for element in self.elements.iter().flatten() {
            if element.order(wanted)? == Ordering::Equal {
                return Some(true);
            }
        }
        Some(false)
    }

    /// `a[i][j]`: null outside, and with any other number of indexes than dimensions.
    pub(super) fn at(&self, indexes: &[i64]) -> Maybe<'a> {
        if indexes.len() != self.dimensions.len() || indexes.is_empty() {
            return None;
        }
        let mut place = 0;
        for (dimension, index) in self.dimensions.iter().zip(indexes) {
            place = place * dimension.length + dimension.place(*index)?;
        }
        self.elements.get(place).cloned().flatten()
    }

    /// `a[i:j][k:l]`: with fewer bounds than dimensions the others are taken whole; indexes begin at 1 again.
    pub(super) fn slice(&self, bounds: &[(Option<i64>, Option<i64>)]) -> Self {
        let empty = Self { dimensions: Vec::new(), elements: Vec::new() };
        if bounds.len() > self.dimensions.len() {
            return empty;
        }
        let mut ranges = Vec::new();
        for (at, dimension) in self.dimensions.iter().enumerate() {
            let (low, high) = bounds.get(at).copied().unwrap_or((None, None));
            let low = low.map_or(i64::from(dimension.lower), |low| low.max(i64::from(dimension.lower)));
            let high = high.map_or(dimension.upper(), |high| high.min(dimension.upper()));
            if low > high {
                return empty;
            }
            let from = usize::try_from(low - i64::from(dimension.lower)).unwrap_or(0);
            ranges.push((from, usize::try_from(high - low + 1).unwrap_or(0)));
        }
        let mut elements = Vec::new();
        self.pick(&ranges, 0, 0, &mut elements);
        let dimensions = ranges.iter().map(|(_, length)| Dimension { lower: 1, length: *length }).collect();
        Self { dimensions, elements }
    }

    fn pick(&self, ranges: &[(usize, usize)], depth: usize, place: usize, into: &mut Vec<Maybe<'a>>) {
        let Some((from, length)) = ranges.get(depth) else {
            into.push(self.elements.get(place).cloned().flatten());
            return;
        };
        for at in *from..from + length {
            self.pick(ranges, depth + 1, place * self.dimensions[depth].length + at, into);
        }
    }

    /// `array_cat`: none if the dimensions do not fit.
    pub(super) fn concatenated(self, other: Self) -> Option<Self> {
        if self.dimensions.is_empty() {
            return Some(other);
        }
        if other.dimensions.is_empty() {
            return Some(self);
        }
        let (mine, theirs) = (self.dimensions.len(), other.dimensions.len());
        let mut dimensions;
        if mine == theirs {
            if self.dimensions[1..] != other.dimensions[1..] {
                return None;
            }
            dimensions = self.dimensions;
            dimensions[0].length += other.dimensions[0].length;
        } else if mine == theirs + 1 {
            if self.dimensions[1..] != other.dimensions[..] {
                return None;
            }
            dimensions = self.dimensions;
            dimensions[0].length += 1;
        } else if theirs == mine + 1 {
            if other.dimensions[1..] != self.dimensions[..] {
                return None;
            }
            dimensions = other.dimensions;
            dimensions[0].length += 1;
        } else {
            return None;
        }
        let mut elements = self.elements;
        elements.extend(other.elements);
        Some(Self { dimensions, elements })
    }

    /// `array_append`: none if the array has several dimensions.
    pub(super) fn appended(mut self, element: Maybe<'a>) -> Option<Self> {
        match self.dimensions.as_mut_slice() {
            [] => return Some(Self::flat(vec![element])),
            [one] => one.length += 1,
            _ => return None,
        }
        self.elements.push(element);
        Some(self)
    }

    /// `array_prepend`: the lower bound stays.
    pub(super) fn prepended(mut self, element: Maybe<'a>) -> Option<Self> {
        match self.dimensions.as_mut_slice() {
            [] => return Some(Self::flat(vec![element])),
            [one] => one.length += 1,
            _ => return None,
        }
        self.elements.insert(0, element);
        Some(self)
    }

    /// Reads `{1,2}`, `{{a,NULL},{"c d",e}}`, `[0:1]={1,2}`; `element` reads one.
    pub(super) fn read(text: &'a str, element: &dyn Fn(Cow<'a, str>) -> Option<Value<'a>>) -> Option<Self> {
        let text = text.trim_matches(|c: char| c.is_ascii_whitespace() || c == '\u{b}');
        let (declared, body) = if text.starts_with('[') { Self::read_bounds(text)? } else { (None, text) };
        let mut reader = Reader { text: body, at: 0, lengths: Vec::new(), elements: Vec::new(), element };
        reader.level(0)?;
        if reader.at != body.len() {
            return None;
        }
        let Reader { lengths, elements, .. } = reader;
        let lengths: Vec<usize> = lengths.into_iter().map(Option::unwrap_or_default).collect();
        if elements.is_empty() {
            // `{{},{}}` is refused or empty, depending on the version.
            let plain = lengths == [0] && declared.is_none();
            return plain.then_some(Self { dimensions: Vec::new(), elements });
        }
        let dimensions = match declared {
            Some(declared) => {
                let fits = declared.iter().map(|dimension| dimension.length).eq(lengths.iter().copied());
                fits.then_some(declared)?
            }
            None => lengths.into_iter().map(|length| Dimension { lower: 1, length }).collect(),
        };
        Some(Self { dimensions, elements })
    }

    /// `[0:1][2:3]=`
    fn read_bounds(text: &str) -> Option<(Option<Vec<Dimension>>, &str)> {
        let (bounds, body) = text.split_once('=')?;
        let mut dimensions = Vec::new();
        for part in bounds.strip_suffix(']')?.strip_prefix('[')?.split("][") {
            let (lower, upper) = part.split_once(':')?;
            let (lower, upper): (i32, i32) = (lower.parse().ok()?, upper.parse().ok()?);
            let length = usize::try_from(i64::from(upper) - i64::from(lower) + 1).ok()?;
            dimensions.push(Dimension { lower, length });
        }
        (dimensions.len() <= MAX_DIMENSIONS).then_some((Some(dimensions), body))
    }

    /// As Postgres prints it; `element` shows one.
    pub(super) fn show(&self, element: &dyn Fn(&Value<'_>) -> String) -> String {
        if self.dimensions.is_empty() {
            return "{}".to_owned();
        }
        let mut text = String::new();
        if self.dimensions.iter().any(|dimension| dimension.lower != 1) {
            for dimension in &self.dimensions {
                let _ = write!(text, "[{}:{}]", dimension.lower, dimension.upper());
            }
            text.push('=');
        }
        let mut elements = self.elements.iter();
        self.show_level(0, &mut elements, &mut text, element);
        text
    }

    fn show_level(
        &self,
        depth: usize,
        elements: &mut std::slice::Iter<'_, Maybe<'a>>,
        text: &mut String,
        element: &dyn Fn(&Value<'_>) -> String,
    ) {
        text.push('{');
        for at in 0..self.dimensions[depth].length {
            if at > 0 {
                text.push(',');
            }
            if depth + 1 < self.dimensions.len() {
                self.show_level(depth + 1, elements, text, element);
                continue;
            }
            match elements.next().and_then(Option::as_ref) {
                None => text.push_str("NULL"),
                Some(value) => push_element(text, &element(value)),
            }
        }
        text.push('}');
    }
}

fn is_space(byte: u8) -> bool {
    byte.is_ascii_whitespace() || byte == 0x0b
}

/// Quoted where Postgres quotes.
fn push_element(text: &mut String, element: &str) {
    let quoted = element.is_empty()
        || element.eq_ignore_ascii_case("null")
        || element.bytes().any(|byte| matches!(byte, b'"' | b'\\' | b'{' | b'}' | b',') || is_space(byte));
    if !quoted {
        text.push_str(element);
        return;
    }
    text.push('"');
    for character in element.chars() {
        if matches!(character, '"' | '\\') {
            text.push('\\');
        }
        text.push(character);
    }
    text.push('"');
}

struct Reader<'a, 'f> {
    text: &'a str,
    at: usize,
    /// Of each dimension, once known.
    lengths: Vec<Option<usize>>,
    elements: Vec<Maybe<'a>>,
    element: &'f dyn Fn(Cow<'a, str>) -> Option<Value<'a>>,
}

impl<'a> Reader<'a, '_> {
    fn byte(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn space(&mut self) {
        while self.byte().is_some_and(is_space) {
            self.at += 1;
        }
    }

    /// One pair of braces. All at one depth are equally long, and hold elements or braces, not both.
    fn level(&mut self, depth: usize) -> Option<()> {
        if depth >= MAX_DIMENSIONS || self.byte()? != b'{' {
            return None;
        }
        self.at += 1;
        if self.lengths.len() == depth {
            if !self.elements.is_empty() {
                return None;
            }
            self.lengths.push(None);
        }
        let mut length = 0;
        self.space();
        if self.byte()? == b'}' {
            self.at += 1;
        } else {
            loop {
                self.space();
                if self.byte()? == b'{' {
                    self.level(depth + 1)?;
                } else {
                    if self.lengths.len() != depth + 1 {
                        return None;
                    }
                    self.leaf()?;
                }
                length += 1;
                self.space();
                let byte = self.byte()?;
                self.at += 1;
                match byte {
                    b',' => {}
                    b'}' => break,
                    _ => return None,
                }
            }
        }
        let known = self.lengths.get_mut(depth)?;
        match known {
            Some(known) if *known != length => None,
            _ => {
                *known = Some(length);
                Some(())
            }
        }
    }

    fn leaf(&mut self) -> Option<()> {
        let value = if self.byte()? == b'"' {
            let text = self.quoted()?;
            Some((self.element)(text)?)
        } else {
            let (text, escaped) = self.bare()?;
            if !escaped && text.eq_ignore_ascii_case("null") { None } else { Some((self.element)(text)?) }
        };
        self.elements.push(value);
        Some(())
    }

    fn quoted(&mut self) -> Option<Cow<'a, str>> {
        self.at += 1;
        let start = self.at;
        let mut owned: Option<String> = None;
        let mut from = start;
        loop {
            match self.byte()? {
                b'"' => {
                    let rest = &self.text[from..self.at];
                    self.at += 1;
                    return Some(match owned {
                        Some(owned) => Cow::Owned(owned + rest),
                        None => Cow::Borrowed(rest),
                    });
                }
                b'\\' => {
                    owned.get_or_insert_with(String::new).push_str(&self.text[from..self.at]);
                    from = self.at + 1;
                    self.at += 1 + self.text.get(from..)?.chars().next()?.len_utf8();
                }
                _ => self.at += 1,
            }
        }
    }

    /// Without quotes; blanks at its end do not count.
    fn bare(&mut self) -> Option<(Cow<'a, str>, bool)> {
        let start = self.at;
        while !matches!(self.byte()?, b',' | b'}') {
            // Escapes outside quotes are allowed in Postgres, but nobody writes them.
            if matches!(self.byte()?, b'{' | b'"' | b'\\') {
                return None;
            }
            self.at += 1;
        }
        let text = self.text[start..self.at].trim_end_matches(|c: char| c.is_ascii_whitespace() || c == '\u{b}');
        (!text.is_empty()).then_some((Cow::Borrowed(text), false))
    }
}
