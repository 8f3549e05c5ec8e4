//! jsonb as a Rust value. Unlike pgrx's own type it tells the caller where JSON is nested too deeply to be read.

use std::ffi::CStr;

use pgrx::callconv::{Arg, ArgAbi, BoxRet, FcInfo};
use pgrx::datum::Datum;
use pgrx::nullable::Nullable;
use pgrx::pg_sys::{self, Oid};
use pgrx::{FromDatum, IntoDatum, PgSqlErrorCode};
use serde_json::Value;

use crate::raise::raise;

/// How many levels of arrays and objects can be read: what `serde_json` allows, so that no stack runs out. Postgres itself
/// stores some thousands.
const MAX_LEVELS: usize = 127;

/// A jsonb.
#[derive(Debug)]
pub(crate) struct JsonB(pub(crate) Value);

impl FromDatum for JsonB {
    unsafe fn from_polymorphic_datum(datum: pg_sys::Datum, is_null: bool, _: Oid) -> Option<Self> {
        if is_null {
            return None;
        }
        // SAFETY: the datum is a jsonb, as the caller promises; jsonb_out writes any, as text in the database's encoding.
        let text = unsafe { pgrx::direct_function_call::<&CStr>(pg_sys::jsonb_out, &[Some(datum)]) };
        let value = text.and_then(|text| serde_json::from_slice(text.to_bytes()).ok()).unwrap_or_else(|| {
            raise(
                PgSqlErrorCode::ERRCODE_PROGRAM_LIMIT_EXCEEDED,
                format!("JSON is nested more than {MAX_LEVELS} levels deep, or is not UTF-8"),
                "Store what is nested that deeply as text.",
            )
        });
        Some(Self(value))
    }
}

impl IntoDatum for JsonB {
    fn into_datum(self) -> Option<pg_sys::Datum> {
        pgrx::JsonB(self.0).into_datum()
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
