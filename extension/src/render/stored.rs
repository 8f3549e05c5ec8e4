//! Reading jsonb as Postgres stores it (see [`super::jsonb`]) into a Rust value, without the detour over text.

use pgrx::pg_sys::{self, Datum};
use serde_json::{Map, Number, Value};

use super::jsonb::{
    ARRAY, COUNT_MASK, ENTRY, HAS_OFFSET, IS_CONTAINER, IS_FALSE, IS_NULL, IS_NUMERIC, IS_STRING, IS_TRUE, LENGTH_MASK,
    OBJECT, SCALAR, TYPE_MASK, VARLENA_HEADER, word,
};

/// How many levels of arrays and objects are read: what `serde_json` allows, so that no stack runs out. Postgres itself
/// stores some thousands.
pub(crate) const MAX_LEVELS: usize = 127;

/// A jsonb in memory.
#[derive(Clone, Copy)]
pub(crate) struct Stored<'a>(Element<'a>);

/// A value within a jsonb: what kind it is, and its bytes. A container's begin with its header.
#[derive(Clone, Copy)]
struct Element<'a> {
    kind: u32,
    bytes: &'a [u8],
}

impl Stored<'_> {
    /// # Safety
    /// The datum is a jsonb, which lives as long as this is used; detoasted, it is a copy in the current memory context.
    pub(crate) unsafe fn of(datum: Datum) -> Self {
        // SAFETY: the caller's promise; detoasted, it has a long header and is aligned, and the root follows.
        let root = unsafe {
            let varlena = pg_sys::pg_detoast_datum(datum.cast_mut_ptr());
            let whole = std::slice::from_raw_parts(varlena.cast::<u8>(), pgrx::varsize_any(varlena));
            &whole[VARLENA_HEADER..]
        };
        if word(root, 0) & SCALAR == 0 {
            return Self(Element { kind: IS_CONTAINER, bytes: root });
        }
        // A lone scalar stands in an array of its own.
        Self(Element { kind: word(root, ENTRY) & TYPE_MASK, bytes: &root[2 * ENTRY..] })
    }

    /// The elements of an array; `None` if it is none.
    pub(crate) fn elements(self) -> Option<Vec<Self>> {
        let is_array = self.0.kind == IS_CONTAINER && word(self.0.bytes, 0) & ARRAY != 0;
        is_array.then(|| self.0.children().map(Self).collect())
    }

    /// The value; `None` if it is nested too deeply, or not UTF-8.
    pub(crate) fn read(self) -> Option<Value> {
        self.0.read(MAX_LEVELS)
    }
}

impl<'a> Element<'a> {
    /// A container's elements; an object's keys, then its values.
    fn children(self) -> impl Iterator<Item = Element<'a>> {
        let header = word(self.bytes, 0);
        let count = (header & COUNT_MASK) as usize;
        let entries = if header & OBJECT == 0 { count } else { 2 * count };
        let data = ENTRY + entries * ENTRY;
        let mut start = 0;
        (0..entries).map(move |i| {
            let entry = word(self.bytes, ENTRY + i * ENTRY);
            let shown = (entry & LENGTH_MASK) as usize;
            let end = if entry & HAS_OFFSET == 0 { start + shown } else { shown };
            let kind = entry & TYPE_MASK;
            // Numerics and containers are aligned, counted from the varlena's start; each container here begins aligned.
            let padded = if matches!(kind, IS_NUMERIC | IS_CONTAINER) { start.next_multiple_of(4) } else { start };
            let bytes = &self.bytes[data + padded.min(end)..data + end];
            start = end;
            Element { kind, bytes }
        })
    }

    fn read(self, levels: usize) -> Option<Value> {
        Some(match self.kind {
            IS_NULL => Value::Null,
            IS_TRUE => Value::Bool(true),
            IS_FALSE => Value::Bool(false),
            IS_STRING => Value::String(self.text()?),
            IS_NUMERIC => Value::Number(number(self.bytes)?),
            _ => {
                let levels = levels.checked_sub(1)?;
                let header = word(self.bytes, 0);
                if header & OBJECT == 0 {
                    return self
                        .children()
                        .map(|element| element.read(levels))
                        .collect::<Option<_>>()
                        .map(Value::Array);
                }
                let count = (header & COUNT_MASK) as usize;
                let (keys, values) = (self.children().take(count), self.children().skip(count));
                let members = keys.zip(values).map(|(key, value)| Some((key.text()?, value.read(levels)?)));
                Value::Object(members.collect::<Option<Map<_, _>>>()?)
            }
        })
    }

    fn text(self) -> Option<String> {
        std::str::from_utf8(self.bytes).ok().map(str::to_owned)
    }
}

/// A numeric, as `numeric_out` writes it.
fn number(varlena: &[u8]) -> Option<Number> {
    if let Some(whole) = whole(&varlena[VARLENA_HEADER..]) {
        return Some(Number::from(whole));
    }
    // SAFETY: a numeric of the long form, aligned; the text is valid for the call.
    let text = unsafe {
        pgrx::direct_function_call::<&std::ffi::CStr>(pg_sys::numeric_out, &[Some(Datum::from(varlena.as_ptr()))])
    };
    text?.to_str().ok()?.parse().ok()
}

/// The value of a numeric that is a small whole number written without a fraction: most are. Its digits are of base
/// 10,000, the most significant first, without zeros at the end (`src/backend/utils/adt/numeric.c`, the short form).
fn whole(numeric: &[u8]) -> Option<i64> {
    const FORM: u16 = 0xc000;
    const SHORT: u16 = 0x8000;
    const NEGATIVE: u16 = 0x2000;
    /// Digits behind the point, and a negative weight.
    const SCALE: u16 = 0x1f80 | 0x0040;
    const WEIGHT: u16 = 0x003f;
    /// Of 10,000: sixteen digits fit in an i64.
    const MAX_WEIGHT: u16 = 3;
    let half = |at: usize| u16::from_ne_bytes([numeric[at], numeric[at + 1]]);
    let header = half(0);
    let digits = numeric.len() / 2 - 1;
    if header & FORM != SHORT || header & SCALE != 0 || header & WEIGHT > MAX_WEIGHT {
        return None;
    }
    let places = usize::from(header & WEIGHT) + 1;
    if digits > places {
        return None;
    }
    let digit = |i: usize| if i < digits { i64::from(half(2 + 2 * i)) } else { 0 };
    let value = (0..if digits == 0 { 0 } else { places }).fold(0, |value, i| value * 10_000 + digit(i));
    Some(if header & NEGATIVE == 0 { value } else { -value })
}
