//! `headwater.to_json("any")`: the same rendering for SQL.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use pgrx::pg_sys::{self, Datum, Oid};
use pgrx::prelude::*;

use super::{Form, Writer};

/// Types that a backend remembers.
const MAX_FORMS: usize = 256;

thread_local! {
    static FORMS: RefCell<HashMap<Oid, Rc<Form>>> = RefCell::default();
}

fn form_of(type_oid: Oid) -> Rc<Form> {
    FORMS.with_borrow_mut(|forms| {
        if forms.len() >= MAX_FORMS {
            forms.clear();
        }
        Rc::clone(forms.entry(type_oid).or_insert_with(|| Rc::new(Form::of(type_oid))))
    })
}

#[unsafe(no_mangle)]
#[doc(hidden)]
extern "C-unwind" fn pg_finfo_to_json_wrapper() -> &'static pg_sys::Pg_finfo_record {
    const V1: pg_sys::Pg_finfo_record = pg_sys::Pg_finfo_record { api_version: 1 };
    &V1
}

/// By hand: what pgrx would write around it would read the jsonb as text and write it again.
#[unsafe(no_mangle)]
#[doc(hidden)]
#[pg_guard]
unsafe extern "C-unwind" fn to_json_wrapper(call: pg_sys::FunctionCallInfo) -> Datum {
    // SAFETY: Postgres calls a strict function with the one argument that `sql/to_json.sql` declares; where it knows the
    // call's expression it knows the argument's type.
    unsafe {
        let type_oid = pg_sys::get_fn_expr_argtype((*call).flinfo, 0);
        let datum = (*(*call).args.as_ptr()).value;
        if type_oid == pg_sys::JSONBOID {
            return datum;
        }
        let form = form_of(type_oid);
        let mut writer = Writer::default();
        let mut document = writer.lone();
        form.write(&mut writer, &mut document, datum);
        let jsonb = writer.finish_lone(document);
        let copy = pg_sys::palloc(jsonb.len()).cast::<u8>();
        std::ptr::copy_nonoverlapping(jsonb.as_ptr(), copy, jsonb.len());
        Datum::from(copy)
    }
}
