//! jsonb as a Rust value. Unlike pgrx's own type it tells the caller where JSON is nested too deeply to be read.

use headwater_model::fold::State;
use pgrx::callconv::{Arg, ArgAbi, BoxRet, FcInfo};
use pgrx::datum::Datum;
use pgrx::nullable::Nullable;
use pgrx::pg_sys::{self, Oid};
use pgrx::{FromDatum, IntoDatum, PgSqlErrorCode};
use serde_json::Value;

use crate::raise::raise;
use crate::render::{MAX_LEVELS, Stored, Writer};

/// A jsonb.
#[derive(Debug)]
pub(crate) struct JsonB(pub(crate) Value);

/// JSON that cannot be read.
pub(crate) fn unreadable() -> ! {
    raise(
        PgSqlErrorCode::ERRCODE_PROGRAM_LIMIT_EXCEEDED,
        format!("JSON is nested more than {MAX_LEVELS} levels deep, or is not UTF-8"),
        "Store what is nested that deeply as text.",
    )
}

/// An object as a jsonb.
pub(crate) struct Members<'a>(pub(crate) &'a State);

impl IntoDatum for Members<'_> {
    fn into_datum(self) -> Option<pg_sys::Datum> {
        Some(datum(Writer::default().members(self.0)))
    }

    fn type_oid() -> Oid {
        pg_sys::JSONBOID
    }
}

/// A copy of a varlena in the current memory context.
pub(crate) fn datum(varlena: &[u8]) -> pg_sys::Datum {
    // SAFETY: as many bytes as are asked for.
    unsafe {
        let copy = pg_sys::palloc(varlena.len()).cast::<u8>();
        std::ptr::copy_nonoverlapping(varlena.as_ptr(), copy, varlena.len());
        pg_sys::Datum::from(copy)
    }
}

impl FromDatum for JsonB {
    unsafe fn from_polymorphic_datum(datum: pg_sys::Datum, is_null: bool, _: Oid) -> Option<Self> {
        if is_null {
            return None;
        }
        // SAFETY: the datum is a jsonb, as the caller promises.
        let value = unsafe { Stored::of(datum) }.read().unwrap_or_else(|| unreadable());
        Some(Self(value))
    }
}

impl IntoDatum for JsonB {
    fn into_datum(self) -> Option<pg_sys::Datum> {
        Some(datum(Writer::default().value(&self.0)))
    }

    fn type_oid() -> Oid {
        pg_sys::JSONBOID
    }
}

// SAFETY: as pgrx does it for its own type: the datum is read by `FromDatum`, which copies.
unsafe impl<'fcx> ArgAbi<'fcx> for JsonB {
    unsafe fn unbox_arg_unchecked(arg: Arg<'_, 'fcx>) -> Self {
        // SAFETY: as above; functions that take one without Option are strict.
        unsafe { arg.unbox_arg_using_from_datum() }.expect("the function is strict")
    }

    unsafe fn unbox_nullable_arg(arg: Arg<'_, 'fcx>) -> Nullable<Self> {
        // SAFETY: as above.
        unsafe { arg.unbox_arg_using_from_datum() }.into()
    }
}

// SAFETY: returns the datum of a jsonb.
unsafe impl BoxRet for JsonB {
    unsafe fn box_into<'fcx>(self, fcinfo: &mut FcInfo<'fcx>) -> Datum<'fcx> {
        match self.into_datum() {
            // SAFETY: a jsonb in the context of the call.
            Some(datum) => unsafe { fcinfo.return_raw_datum(datum) },
            None => fcinfo.return_null(),
        }
    }
}

pgrx::impl_sql_translatable!(JsonB, "jsonb");

/// A jsonb argument where it lies: for as long as the call lasts.
pub(crate) struct StoredJson(pub(crate) Stored<'static>);

// SAFETY: the datum is a jsonb. What a call is given lives until it returns, and so does a detoasted copy.
unsafe impl<'fcx> ArgAbi<'fcx> for StoredJson {
    unsafe fn unbox_arg_unchecked(arg: Arg<'_, 'fcx>) -> Self {
        // SAFETY: as above; functions that take one are strict.
        unsafe {
            let datum: Option<pg_sys::Datum> = arg.unbox_arg_using_from_datum::<JsonbDatum>().map(|datum| datum.0);
            Self(Stored::of(datum.expect("the function is strict")))
        }
    }
}

/// The datum of a jsonb.
struct JsonbDatum(pg_sys::Datum);

impl FromDatum for JsonbDatum {
    unsafe fn from_polymorphic_datum(datum: pg_sys::Datum, is_null: bool, _: Oid) -> Option<Self> {
        (!is_null).then_some(Self(datum))
    }
}

pgrx::impl_sql_translatable!(StoredJson, "jsonb");
