//! Writing jsonb as Postgres stores it (`src/include/utils/jsonb.h`), without its parse state: a captured row costs one
//! pass over its values and one copy.
//!
//! A container is a header (count and kind), a `JEntry` for each element (for an object: the keys', then the values'),
//! then their bytes. Object keys stand in the order of their length, then of their bytes. Numerics and containers
//! begin at multiples of four; the padding belongs to their element. Every 32nd entry holds an end offset, the others
//! a length.

use std::cmp::Ordering;
use std::ffi::CString;

use pgrx::PgSqlErrorCode;
use pgrx::pg_sys::{self, Datum};
use serde_json::{Map, Value};

use crate::raise::raise;

/// `numeric_in`, as in `pg_proc.dat`.
pub(super) const NUMERIC_IN: pg_sys::Oid = pg_sys::Oid::from_u32(1701);

pub(super) const IS_STRING: u32 = 0x0000_0000;
pub(super) const IS_NUMERIC: u32 = 0x1000_0000;
pub(super) const IS_FALSE: u32 = 0x2000_0000;
pub(super) const IS_TRUE: u32 = 0x3000_0000;
pub(super) const IS_NULL: u32 = 0x4000_0000;
pub(super) const IS_CONTAINER: u32 = 0x5000_0000;
pub(super) const TYPE_MASK: u32 = 0x7000_0000;
pub(super) const HAS_OFFSET: u32 = 0x8000_0000;
pub(super) const LENGTH_MASK: u32 = 0x0fff_ffff;
/// How often an entry holds an offset.
const OFFSET_STRIDE: usize = 32;

pub(super) const SCALAR: u32 = 0x1000_0000;
pub(super) const OBJECT: u32 = 0x2000_0000;
pub(super) const ARRAY: u32 = 0x4000_0000;
pub(super) const COUNT_MASK: u32 = 0x0fff_ffff;

/// The varlena's own header.
pub(super) const VARLENA_HEADER: usize = 4;
pub(super) const ENTRY: usize = 4;

/// Where an object keeps its keys.
pub(crate) fn key_order(a: &str, b: &str) -> Ordering {
    a.len().cmp(&b.len()).then_with(|| a.as_bytes().cmp(b.as_bytes()))
}

/// A jsonb being written. Used again and again, it keeps its memory.
#[derive(Default)]
pub(crate) struct Writer {
    bytes: Vec<u8>,
}

/// A container that is being written. Its elements are added in order; an object's keys all before its values.
#[must_use = "a container ends with `end` or `finish`"]
pub(crate) struct Container {
    /// Where it begins, padding included.
    start: usize,
    entries: usize,
    next: usize,
    length: usize,
}

impl Writer {
    /// How much memory it holds on to.
    pub(crate) fn kept_bytes(&self) -> usize {
        self.bytes.capacity()
    }

    /// Begins a document that is an object of so many members.
    pub(crate) fn object(&mut self, members: usize) -> Container {
        self.bytes.clear();
        self.bytes.resize(VARLENA_HEADER, 0);
        self.container(members, OBJECT)
    }

    /// Begins a document of one value. Postgres keeps a lone scalar in an array of its own.
    pub(crate) fn lone(&mut self) -> Container {
        self.bytes.clear();
        self.bytes.resize(VARLENA_HEADER, 0);
        self.container(1, ARRAY | SCALAR)
    }

    /// Ends a document of one value: the varlena.
    pub(crate) fn finish_lone(&mut self, container: Container) -> &[u8] {
        if word(&self.bytes, container.entries) & TYPE_MASK == IS_CONTAINER {
            // It needs no array around it.
            self.bytes.drain(VARLENA_HEADER..container.entries + ENTRY);
        }
        self.finish(container)
    }

    /// Begins an object within another container.
    pub(crate) fn nested_object(&mut self, members: usize) -> Container {
        self.container(members, OBJECT)
    }

    /// Begins an array within another container.
    pub(crate) fn nested_array(&mut self, elements: usize) -> Container {
        self.container(elements, ARRAY)
    }

    fn container(&mut self, count: usize, kind: u32) -> Container {
        let start = self.bytes.len();
        self.pad();
        let header = u32::try_from(count).ok().filter(|count| *count <= COUNT_MASK).unwrap_or_else(|| too_large());
        self.bytes.extend_from_slice(&(header | kind).to_ne_bytes());
        let entries = self.bytes.len();
        let slots = if kind & OBJECT == 0 { count } else { 2 * count };
        self.bytes.resize(entries + slots * ENTRY, 0);
        Container { start, entries, next: 0, length: 0 }
    }

    /// Ends a container within another.
    pub(crate) fn end(&mut self, parent: &mut Container, container: Container) {
        let length = self.bytes.len() - container.start;
        self.entry(parent, IS_CONTAINER, length);
    }

    /// Ends the document: the varlena.
    pub(crate) fn finish(&mut self, _container: Container) -> &[u8] {
        let length = u32::try_from(self.bytes.len()).ok().filter(|l| *l < 1 << 30).unwrap_or_else(|| too_large());
        set_varlena_length(&mut self.bytes, length);
        &self.bytes
    }

    /// The document that was finished last.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// A key, or a text.
    pub(crate) fn text(&mut self, container: &mut Container, text: &[u8]) {
        self.bytes.extend_from_slice(text);
        self.entry(container, IS_STRING, text.len());
    }

    pub(crate) fn null(&mut self, container: &mut Container) {
        self.entry(container, IS_NULL, 0);
    }

    pub(crate) fn bool(&mut self, container: &mut Container, value: bool) {
        self.entry(container, if value { IS_TRUE } else { IS_FALSE }, 0);
    }

    /// A number, as a numeric's datum with a long header.
    ///
    /// # Safety
    /// The datum is a numeric that is not toasted.
    pub(crate) unsafe fn numeric(&mut self, container: &mut Container, numeric: Datum) {
        let start = self.bytes.len();
        self.pad();
        // SAFETY: the caller's promise; `varsize_any` knows both headers.
        let image = unsafe {
            let varlena = numeric.cast_mut_ptr::<pg_sys::varlena>();
            std::slice::from_raw_parts(varlena.cast::<u8>(), pgrx::varsize_any(varlena))
        };
        self.bytes.extend_from_slice(image);
        self.entry(container, IS_NUMERIC, self.bytes.len() - start);
    }

    /// A small whole number.
    pub(crate) fn int4(&mut self, container: &mut Container, value: i32) {
        let start = self.bytes.len();
        self.pad();
        let (image, length) = numeric_of(value);
        self.bytes.extend_from_slice(&image[..length]);
        self.entry(container, IS_NUMERIC, self.bytes.len() - start);
    }

    /// A value as a document: the varlena.
    pub(crate) fn value(&mut self, value: &Value) -> &[u8] {
        let mut lone = self.lone();
        self.add(&mut lone, value);
        self.finish_lone(lone)
    }

    /// An object as a document: the varlena.
    pub(crate) fn members(&mut self, members: &Map<String, Value>) -> &[u8] {
        let mut object = self.object(members.len());
        self.add_members(&mut object, members);
        self.finish(object)
    }

    fn add(&mut self, container: &mut Container, value: &Value) {
        match value {
            Value::Null => self.null(container),
            Value::Bool(value) => self.bool(container, *value),
            Value::Number(number) => self.number(container, number.as_str()),
            Value::String(text) => self.text(container, text.as_bytes()),
            Value::Array(elements) => {
                let mut array = self.nested_array(elements.len());
                for element in elements {
                    self.add(&mut array, element);
                }
                self.end(container, array);
            }
            Value::Object(members) => {
                let mut object = self.nested_object(members.len());
                self.add_members(&mut object, members);
                self.end(container, object);
            }
        }
    }

    fn add_members(&mut self, object: &mut Container, members: &Map<String, Value>) {
        let mut members: Vec<_> = members.iter().collect();
        members.sort_unstable_by(|(a, _), (b, _)| key_order(a, b));
        for (name, _) in &members {
            self.text(object, name.as_bytes());
        }
        for (_, value) in members {
            self.add(object, value);
        }
    }

    /// A number by its digits.
    fn number(&mut self, container: &mut Container, digits: &str) {
        // `05` and `+5` are no JSON, so what reads as a small whole number was written as one, but for `-0`.
        if let Ok(small) = digits.parse() {
            self.int4(container, small);
            return;
        }
        let digits = CString::new(digits).expect("a number has digits");
        // SAFETY: numeric's input function, of a C string; it returns a numeric of the long form.
        unsafe {
            let numeric =
                pg_sys::OidInputFunctionCall(NUMERIC_IN, digits.as_ptr().cast_mut(), pg_sys::Oid::INVALID, -1);
            self.numeric(container, numeric);
        }
    }

    /// A whole document as an element of this one.
    ///
    /// # Safety
    /// The datum is a jsonb, toasted or not.
    pub(crate) unsafe fn document(&mut self, container: &mut Container, jsonb: Datum) {
        // SAFETY: the caller's promise; detoasted, it has a long header and is aligned, and the root follows.
        let root = unsafe {
            let varlena = pg_sys::pg_detoast_datum(jsonb.cast_mut_ptr());
            let whole = std::slice::from_raw_parts(varlena.cast::<u8>(), pgrx::varsize_any(varlena));
            &whole[VARLENA_HEADER..]
        };
        let header = word(root, 0);
        if header & SCALAR == 0 {
            let start = self.bytes.len();
            self.pad();
            self.bytes.extend_from_slice(root);
            self.entry(container, IS_CONTAINER, self.bytes.len() - start);
            return;
        }
        let kind = word(root, ENTRY) & TYPE_MASK;
        let start = self.bytes.len();
        if kind == IS_NUMERIC {
            self.pad();
        }
        self.bytes.extend_from_slice(&root[2 * ENTRY..]);
        self.entry(container, kind, self.bytes.len() - start);
    }

    fn entry(&mut self, container: &mut Container, kind: u32, length: usize) {
        container.length += length;
        let shown = if container.next.is_multiple_of(OFFSET_STRIDE) { container.length } else { length };
        let shown = u32::try_from(shown).ok().filter(|shown| *shown <= LENGTH_MASK);
        // Lengths count too: whatever the stride, no offset may overflow.
        let (Some(shown), true) = (shown, container.length <= LENGTH_MASK as usize) else { too_large() };
        let offset = if container.next.is_multiple_of(OFFSET_STRIDE) { HAS_OFFSET } else { 0 };
        let place = container.entries + container.next * ENTRY;
        self.bytes[place..place + ENTRY].copy_from_slice(&(kind | offset | shown).to_ne_bytes());
        container.next += 1;
    }

    /// To a multiple of four, counted from the varlena's start.
    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

/// A 32-bit integer as numeric: its varlena and how many bytes of it count. Digits of base 10,000, the most significant
/// first, without zeros at the end (`src/backend/utils/adt/numeric.c`, the short format).
fn numeric_of(value: i32) -> ([u8; 12], usize) {
    const SHORT: u16 = 0x8000;
    const NEGATIVE: u16 = 0x2000;
    let mut digits = [0_u16; 3];
    let mut rest = value.unsigned_abs();
    let mut first = 3;
    while rest > 0 {
        first -= 1;
        digits[first] = u16::try_from(rest % 10_000).expect("below 10,000");
        rest /= 10_000;
    }
    let weight = u16::try_from(3 - first).expect("at most 3").saturating_sub(1);
    let mut end = 3;
    while end > first && digits[end - 1] == 0 {
        end -= 1;
    }
    let mut image = [0; 12];
    let length = VARLENA_HEADER + 2 + 2 * (end - first);
    set_varlena_length(&mut image, u32::try_from(length).expect("at most 12"));
    let header = SHORT | if value < 0 { NEGATIVE } else { 0 } | weight;
    image[4..6].copy_from_slice(&header.to_ne_bytes());
    for (place, digit) in image[6..].chunks_exact_mut(2).zip(&digits[first..end]) {
        place.copy_from_slice(&digit.to_ne_bytes());
    }
    (image, length)
}

/// `SET_VARSIZE_4B` (`src/include/varatt.h`).
fn set_varlena_length(bytes: &mut [u8], length: u32) {
    let header = if cfg!(target_endian = "big") { length & 0x3fff_ffff } else { length << 2 };
    bytes[..VARLENA_HEADER].copy_from_slice(&header.to_ne_bytes());
}

pub(super) fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn too_large() -> ! {
    raise(
        PgSqlErrorCode::ERRCODE_PROGRAM_LIMIT_EXCEEDED,
        "a row of an enabled table is too large for an event: its values together exceed 256 MB as JSON",
        "Leave the large column out: select headwater.enable(…, exclude => array['column']).",
    )
}
