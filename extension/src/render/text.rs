//! A datum as text: what `value::text` gives for the types of Postgres, what the output function prints for types of users,
//! whose casts are their own code.

use pgrx::pg_sys::{self, Datum, Oid};

use super::print::{Detoasted, Function, output_function, prints_steadily};
use super::value::Form;

/// How a value becomes text: what `value::text` gives for the types of Postgres, what the output function prints for
/// types of users (whose casts are their own code).
pub(crate) enum Text {
    /// As in JSON.
    Printed(Form),
    Cast(Function),
    Output {
        function: Function,
        steady: bool,
    },
}

impl Text {
    pub(crate) fn of(type_oid: Oid, builtin: bool) -> Self {
        // SAFETY: a catalog look-up.
        let base = unsafe { pg_sys::getBaseType(type_oid) };
        match base {
            pg_sys::INT8OID | pg_sys::TEXTOID | pg_sys::VARCHAROID | pg_sys::UUIDOID => {
                return Self::Printed(Form::of(base));
            }
            _ => {}
        }
        if builtin {
            let mut function = Oid::INVALID;
            // SAFETY: a catalog look-up.
            let path = unsafe {
                pg_sys::find_coercion_pathway(
                    pg_sys::TEXTOID,
                    base,
                    pg_sys::CoercionContext::COERCION_EXPLICIT,
                    &raw mut function,
                )
            };
            if path == pg_sys::CoercionPathType::COERCION_PATH_FUNC {
                return Self::Cast(Function::new(function));
            }
        }
        // SAFETY: a catalog look-up.
        let kind = unsafe { pg_sys::get_typtype(base) };
        let steady =
            matches!(base, pg_sys::INT2OID | pg_sys::INT4OID | pg_sys::NUMERICOID) || prints_steadily(base, kind);
        Self::Output { function: output_function(base), steady }
    }

    pub(crate) fn depends_on_settings(&self) -> bool {
        matches!(self, Self::Output { steady: false, .. })
    }

    /// Calls `then` with the text.
    ///
    /// # Safety
    /// A datum of this type, not null.
    pub(crate) unsafe fn with<T>(&self, datum: Datum, then: impl FnOnce(&[u8]) -> T) -> T {
        // SAFETY: the caller's promise.
        unsafe {
            match self {
                Self::Printed(form) => form.with_printed(datum, then),
                Self::Cast(function) => then(Detoasted::new(function.call(datum)).bytes()),
                Self::Output { function, .. } => then(function.print(datum)),
            }
        }
    }
}
