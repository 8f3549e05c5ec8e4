//! A datum as JSON that JavaScript reads without loss.
//!
//! | type | JSON |
//! |---|---|
//! | int2, int4, finite float4 and float8 | number |
//! | int8, numeric, NaN and the infinities | decimal string, `"NaN"`, `"Infinity"` |
//! | boolean; json, jsonb | boolean; itself |
//! | date, timestamp, timestamptz | ISO 8601 string, UTC; `"infinity"` |
//! | bytea | string of `\x` and hexadecimal digits |
//! | arrays | arrays, nested for each dimension |
//! | composite types | objects by the names of their fields |
//! | all else: text, uuid, enums, ranges, intervals, addresses… | string, as Postgres prints it |
//!
//! No code of a user's runs: a type is printed by its output function, never by a cast to json.

#![expect(clippy::cast_ptr_alignment, reason = "what Postgres detoasts is aligned for any type")]

use std::cell::RefCell;
use std::ffi::CStr;

use pgrx::pg_sys::{self, Datum, Oid};

use super::jsonb::{Container, NUMERIC_IN, Writer, key_order};
use super::print::{Decimal, Detoasted, Function, hex, int2, int4, int8, output_function, prints_steadily};
use crate::spi;

/// How the values of a type become JSON.
pub(crate) enum Form {
    Bool,
    Int2,
    Int4,
    Int8,
    Float(Function),
    Text,
    Uuid,
    Bytea,
    /// date, timestamp, timestamptz: this one.
    Time(Oid),
    Json,
    Jsonb,
    Array(Box<Element>),
    Composite(RefCell<Option<Fields>>),
    /// What its output function prints.
    Output {
        function: Function,
        /// The output does not depend on settings.
        steady: bool,
    },
}

/// The element type of an array.
pub(crate) struct Element {
    form: Form,
    type_oid: Oid,
    length: i16,
    by_value: bool,
    align: i8,
}

/// The fields of a composite type, in the order of an object's keys.
pub(crate) struct Fields {
    /// Postgres counts the changes of a type; this is the one described.
    version: u64,
    fields: Vec<(String, usize, Form)>,
}

impl Form {
    /// How values of this type are rendered.
    pub(crate) fn of(type_oid: Oid) -> Self {
        // SAFETY: catalog look-ups; both accept any type's OID.
        let (base, element, kind) = unsafe {
            let base = pg_sys::getBaseType(type_oid);
            (base, pg_sys::get_element_type(base), pg_sys::get_typtype(base))
        };
        match base {
            pg_sys::BOOLOID => Self::Bool,
            pg_sys::INT2OID => Self::Int2,
            pg_sys::INT4OID => Self::Int4,
            pg_sys::INT8OID => Self::Int8,
            pg_sys::FLOAT4OID | pg_sys::FLOAT8OID => Self::Float(output_function(base)),
            pg_sys::TEXTOID | pg_sys::VARCHAROID | pg_sys::BPCHAROID => Self::Text,
            pg_sys::UUIDOID => Self::Uuid,
            pg_sys::BYTEAOID => Self::Bytea,
            pg_sys::DATEOID | pg_sys::TIMESTAMPOID | pg_sys::TIMESTAMPTZOID => Self::Time(base),
            pg_sys::JSONOID => Self::Json,
            pg_sys::JSONBOID => Self::Jsonb,
            _ if element != Oid::INVALID => {
                let (mut length, mut by_value, mut align) = (0, false, 0);
                // SAFETY: a catalog look-up.
                unsafe {
                    pg_sys::get_typlenbyvalalign(element, &raw mut length, &raw mut by_value, &raw mut align);
                }
                Self::Array(Box::new(Element { form: Self::of(element), type_oid: element, length, by_value, align }))
            }
            _ if kind == pg_sys::TYPTYPE_COMPOSITE.cast_signed() => Self::Composite(RefCell::default()),
            _ => Self::Output { function: output_function(base), steady: prints_steadily(base, kind) },
        }
    }

    /// Whether the session's settings make a difference: then they must be pinned while it renders.
    pub(crate) fn depends_on_settings(&self) -> bool {
        match self {
            Self::Float(_) | Self::Composite(_) => true,
            Self::Array(element) => element.form.depends_on_settings(),
            Self::Output { steady, .. } => !steady,
            _ => false,
        }
    }

    /// Whether only `jsonb_populate_record` reads its JSON back.
    pub(crate) fn is_structured(&self) -> bool {
        matches!(self, Self::Array(_) | Self::Composite(_))
    }

    /// Adds a value to a container.
    ///
    /// # Safety
    /// A datum of this type, not null.
    pub(crate) unsafe fn write(&self, out: &mut Writer, into: &mut Container, datum: Datum) {
        // SAFETY: the caller's promise, and by it the datum's type is the one that each arm reads.
        unsafe {
            match self {
                Self::Bool => out.bool(into, datum.value() & 0xff != 0),
                Self::Int2 => out.int4(into, i32::from(int2(datum))),
                Self::Int4 => out.int4(into, int4(datum)),
                Self::Float(function) => {
                    let printed = function.print(datum);
                    if printed.last().is_some_and(u8::is_ascii_digit) {
                        let printed = printed.as_ptr().cast_mut().cast();
                        out.numeric(into, pg_sys::OidInputFunctionCall(NUMERIC_IN, printed, Oid::INVALID, -1));
                    } else {
                        out.text(into, printed);
                    }
                }
                Self::Json => {
                    let text = Detoasted::new(datum);
                    match to_jsonb(&text) {
                        Some(document) => out.document(into, document),
                        None => out.text(into, text.bytes()),
                    }
                }
                Self::Jsonb => out.document(into, datum),
                Self::Array(element) => element.write_array(out, into, datum),
                Self::Composite(fields) => write_composite(fields, out, into, datum),
                Self::Int8 | Self::Text | Self::Uuid | Self::Bytea | Self::Time(_) | Self::Output { .. } => {
                    self.with_printed(datum, |printed| out.text(into, printed));
                }
            }
        }
    }

    /// Calls `then` with the string that stands for a value in JSON.
    pub(super) unsafe fn with_printed<T>(&self, datum: Datum, then: impl FnOnce(&[u8]) -> T) -> T {
        // SAFETY: as in `write`.
        unsafe {
            match self {
                Self::Int8 => then(Decimal::of(int8(datum)).bytes()),
                Self::Text => then(Detoasted::new(datum).bytes()),
                Self::Uuid => then(
                    uuid::Uuid::from_bytes(*datum.cast_mut_ptr::<[u8; 16]>())
                        .hyphenated()
                        .encode_lower(&mut [0; 36])
                        .as_bytes(),
                ),
                Self::Bytea => then(&hex(Detoasted::new(datum).bytes())),
                Self::Time(oid) => {
                    // MAXDATELEN is 128.
                    let mut buffer = [0_i8; 129];
                    let utc = 0;
                    let zone = if *oid == pg_sys::TIMESTAMPTZOID { &raw const utc } else { std::ptr::null() };
                    pg_sys::JsonEncodeDateTime(buffer.as_mut_ptr(), datum, *oid, zone);
                    then(CStr::from_ptr(buffer.as_ptr()).to_bytes())
                }
                Self::Output { function, .. } => then(function.print(datum)),
                _ => unreachable!("the other forms are not strings"),
            }
        }
    }
}

/// `jsonb_in`, as in `pg_proc.dat`.
const JSONB_IN: Oid = Oid::from_u32(3806);

/// Documents up to here hold no number that is out of jsonb's range by its digits alone (16,383 behind the point).
const MAX_CERTAIN_BYTES: usize = 16_000;

/// The text of a `json` value as jsonb; `None` where jsonb does not take it: `json` has looked at its syntax only. The
/// user's write is not to fail for that.
unsafe fn to_jsonb(text: &Detoasted) -> Option<Datum> {
    // SAFETY: text in the server's encoding, which json's input has taken.
    let convert = || unsafe { pg_sys::OidInputFunctionCall(JSONB_IN, text.to_c_string(), Oid::INVALID, -1) };
    if certainly_jsonb(text.bytes()) {
        return Some(convert());
    }
    match spi::attempt(convert, |_| true) {
        Ok(document) => Some(document),
        // Of characters that it cannot hold, of numbers out of range, of texts too long.
        Err(error) if matches!(&error.sqlstate()[..2], "22" | "54") => None,
        Err(error) => error.rethrow(),
    }
}

/// Whether a json text has nothing that jsonb could refuse: escaped characters, long exponents, numbers of many digits.
fn certainly_jsonb(text: &[u8]) -> bool {
    let escaped = text.windows(2).any(|pair| pair == b"\\u");
    let exponent = |at: usize| {
        let digits = text[at + 1..].iter().skip_while(|byte| matches!(byte, b'+' | b'-'));
        digits.take_while(|byte| byte.is_ascii_digit()).count() > 3
    };
    text.len() <= MAX_CERTAIN_BYTES
        && !escaped
        && !text.iter().enumerate().any(|(at, byte)| matches!(byte, b'e' | b'E') && exponent(at))
}

impl Element {
    unsafe fn write_array(&self, out: &mut Writer, into: &mut Container, datum: Datum) {
        // SAFETY: an array, once detoasted; deconstruct_array gives as many datums as its dimensions multiply to.
        unsafe {
            let array = pg_sys::pg_detoast_datum(datum.cast_mut_ptr()).cast::<pg_sys::ArrayType>();
            let (mut datums, mut nulls, mut count) = (std::ptr::null_mut(), std::ptr::null_mut(), 0);
            pg_sys::deconstruct_array(
                array,
                self.type_oid,
                self.length.into(),
                self.by_value,
                self.align,
                &raw mut datums,
                &raw mut nulls,
                &raw mut count,
            );
            let count = usize::try_from(count).expect("arrays hold some elements, or none");
            let dimensions = usize::try_from((*array).ndim).expect("at most 6");
            if dimensions == 0 {
                let empty = out.nested_array(0);
                out.end(into, empty);
                return;
            }
            let lengths = array.cast::<u8>().add(size_of::<pg_sys::ArrayType>()).cast::<i32>();
            let lengths: Vec<usize> =
                (0..dimensions).map(|i| usize::try_from(*lengths.add(i)).expect("a length")).collect();
            let values = std::slice::from_raw_parts(datums, count);
            let nulls = std::slice::from_raw_parts(nulls, count);
            self.write_dimension(out, into, &lengths, values, nulls);
        }
    }

    unsafe fn write_dimension(
        &self,
        out: &mut Writer,
        into: &mut Container,
        lengths: &[usize],
        values: &[Datum],
        nulls: &[bool],
    ) {
        let mut array = out.nested_array(lengths[0]);
        let inner = &lengths[1..];
        let step = inner.iter().product::<usize>();
        for i in 0..lengths[0] {
            let part = i * step..(i + 1) * step;
            // SAFETY: elements of the array's type.
            unsafe {
                if !inner.is_empty() {
                    self.write_dimension(out, &mut array, inner, &values[part.clone()], &nulls[part]);
                } else if nulls[i] {
                    out.null(&mut array);
                } else {
                    self.form.write(out, &mut array, values[i]);
                }
            }
        }
        out.end(into, array);
    }
}

unsafe fn write_composite(fields: &RefCell<Option<Fields>>, out: &mut Writer, into: &mut Container, datum: Datum) {
    // SAFETY: a composite value, once detoasted, names its type; its fields are read by that type's description.
    unsafe {
        let header = pg_sys::pg_detoast_datum(datum.cast_mut_ptr()).cast::<pg_sys::HeapTupleHeaderData>();
        let (type_oid, type_modifier) =
            ((*header).t_choice.t_datum.datum_typeid, (*header).t_choice.t_datum.datum_typmod);
        let description = pg_sys::lookup_rowtype_tupdesc(type_oid, type_modifier);
        let attributes = usize::try_from((*description).natts).expect("a count");
        let version = pg_sys::assign_record_type_identifier(type_oid, type_modifier);
        let mut fields = fields.borrow_mut();
        if fields.as_ref().is_none_or(|fields| fields.version != version) {
            *fields = Some(Fields::of(description, attributes, version));
        }
        let fields = &fields.as_ref().expect("just described").fields;

        let mut tuple = pg_sys::HeapTupleData {
            t_len: u32::try_from(pgrx::varsize_any(header.cast())).expect("below 1 GB"),
            t_data: header,
            ..Default::default()
        };
        let mut values = vec![Datum::from(0); attributes];
        let mut nulls = vec![true; attributes];
        pg_sys::heap_deform_tuple(&raw mut tuple, description, values.as_mut_ptr(), nulls.as_mut_ptr());
        let mut object = out.nested_object(fields.len());
        for (name, _, _) in fields {
            out.text(&mut object, name.as_bytes());
        }
        for (_, place, form) in fields {
            if nulls[*place] {
                out.null(&mut object);
            } else {
                form.write(out, &mut object, values[*place]);
            }
        }
        out.end(into, object);
        if (*description).tdrefcount >= 0 {
            pg_sys::DecrTupleDescRefCount(description);
        }
    }
}

impl Fields {
    unsafe fn of(description: pg_sys::TupleDesc, attributes: usize, version: u64) -> Self {
        let mut fields = Vec::with_capacity(attributes);
        for place in 0..attributes {
            // SAFETY: a place within the description.
            let attribute = unsafe { &*attribute(description, place) };
            if !attribute.attisdropped {
                // SAFETY: a name, with its NUL.
                let name = unsafe { CStr::from_ptr(attribute.attname.data.as_ptr()) };
                fields.push((name.to_string_lossy().into_owned(), place, Form::of(attribute.atttypid)));
            }
        }
        fields.sort_by(|(a, ..), (b, ..)| key_order(a, b));
        Self { version, fields }
    }
}

/// One attribute of a row's description.
///
/// # Safety
/// A place within it.
pub(crate) unsafe fn attribute(description: pg_sys::TupleDesc, place: usize) -> *const pg_sys::FormData_pg_attribute {
    #[cfg(feature = "pg18")]
    // SAFETY: the caller's promise.
    unsafe {
        pg_sys::TupleDescAttr(description, i32::try_from(place).expect("at most 1,600"))
    }
    #[cfg(not(feature = "pg18"))]
    // SAFETY: the caller's promise.
    unsafe {
        (*description).attrs.as_ptr().add(place)
    }
}
