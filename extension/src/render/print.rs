//! What prints a datum: the output functions of types, and the digits of those that need none.

use std::cell::UnsafeCell;
use std::ffi::CStr;

use pgrx::pg_sys::{self, Datum, Oid};

/// A function that prints a value, with what it remembers from call to call.
pub(crate) struct Function(Box<UnsafeCell<pg_sys::FmgrInfo>>);

impl Function {
    pub(super) fn new(oid: Oid) -> Self {
        let info = Box::new(UnsafeCell::new(pg_sys::FmgrInfo::default()));
        // SAFETY: the box does not move what it holds; what the function remembers lives as long as the backend.
        unsafe { pg_sys::fmgr_info_cxt(oid, info.get(), pg_sys::TopMemoryContext) };
        Self(info)
    }

    /// What it prints, in the current memory context.
    ///
    /// # Safety
    /// An output function, and a datum of its type.
    pub(super) unsafe fn print<'a>(&self, datum: Datum) -> &'a [u8] {
        // SAFETY: the caller's promise.
        unsafe { CStr::from_ptr(pg_sys::OutputFunctionCall(self.0.get(), datum)).to_bytes() }
    }

    pub(super) fn call(&self, datum: Datum) -> Datum {
        // SAFETY: a cast function of one argument.
        unsafe { pg_sys::FunctionCall1Coll(self.0.get(), pg_sys::DEFAULT_COLLATION_OID, datum) }
    }
}

pub(super) fn output_function(type_oid: Oid) -> Function {
    let (mut function, mut is_varlena) = (Oid::INVALID, false);
    // SAFETY: a catalog look-up.
    unsafe { pg_sys::getTypeOutputInfo(type_oid, &raw mut function, &raw mut is_varlena) };
    Function::new(function)
}

/// Types whose output no setting changes.
pub(super) fn prints_steadily(base: Oid, kind: core::ffi::c_char) -> bool {
    kind == pg_sys::TYPTYPE_ENUM.cast_signed()
        || matches!(
            base,
            pg_sys::NUMERICOID
                | pg_sys::OIDOID
                | pg_sys::NAMEOID
                | pg_sys::CHAROID
                | pg_sys::TIMEOID
                | pg_sys::TIMETZOID
                | pg_sys::BITOID
                | pg_sys::VARBITOID
                | pg_sys::INETOID
                | pg_sys::CIDROID
                | pg_sys::MACADDROID
                | pg_sys::MACADDR8OID
                | pg_sys::INT4RANGEOID
                | pg_sys::INT8RANGEOID
                | pg_sys::NUMRANGEOID
                | pg_sys::TSVECTOROID
                | pg_sys::TSQUERYOID
        )
}

/// A varlena without its toast; freed with its memory context.
pub(super) struct Detoasted(*mut pg_sys::varlena);

impl Detoasted {
    /// # Safety
    /// The datum is a varlena.
    pub(super) unsafe fn new(datum: Datum) -> Self {
        // SAFETY: the caller has a varlena.
        Self(unsafe { pg_sys::pg_detoast_datum_packed(datum.cast_mut_ptr()) })
    }

    pub(super) fn bytes(&self) -> &[u8] {
        // SAFETY: both helpers know short and long headers.
        unsafe { std::slice::from_raw_parts(pgrx::vardata_any(self.0).cast::<u8>(), pgrx::varsize_any_exhdr(self.0)) }
    }

    pub(super) fn to_c_string(&self) -> *mut core::ffi::c_char {
        // SAFETY: a text.
        unsafe { pg_sys::text_to_cstring(self.0) }
    }
}

pub(super) fn int2(datum: Datum) -> i16 {
    // SAFETY: not null, as all here.
    unsafe { pgrx::FromDatum::from_datum(datum, false) }.expect("not null")
}

pub(super) fn int4(datum: Datum) -> i32 {
    // SAFETY: as above.
    unsafe { pgrx::FromDatum::from_datum(datum, false) }.expect("not null")
}

pub(super) fn int8(datum: Datum) -> i64 {
    // SAFETY: as above.
    unsafe { pgrx::FromDatum::from_datum(datum, false) }.expect("not null")
}

/// A whole number's digits.
pub(super) struct Decimal {
    buffer: [u8; 20],
    start: usize,
}

impl Decimal {
    pub(super) fn of(value: i64) -> Self {
        let mut decimal = Self { buffer: [0; 20], start: 20 };
        let mut rest = value.unsigned_abs();
        loop {
            decimal.prepend(b'0' + u8::try_from(rest % 10).expect("a digit"));
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        if value < 0 {
            decimal.prepend(b'-');
        }
        decimal
    }

    fn prepend(&mut self, byte: u8) {
        self.start -= 1;
        self.buffer[self.start] = byte;
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.buffer[self.start..]
    }
}

/// bytea's `hex` form.
pub(super) fn hex(bytes: &[u8]) -> Vec<u8> {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = Vec::with_capacity(2 + 2 * bytes.len());
    text.extend_from_slice(b"\\x");
    for byte in bytes {
        text.push(DIGITS[usize::from(byte >> 4)]);
        text.push(DIGITS[usize::from(byte & 15)]);
    }
    text
}
