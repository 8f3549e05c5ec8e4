//! Who is calling, and acting as another role for a while.

use std::ffi::{CStr, CString, c_int};

use pgrx::pg_sys::Oid;
use pgrx::prelude::*;
use pgrx::{PgSqlErrorCode, pg_sys};

use crate::raise::raise;

use crate::settings::Settings;

/// The role under which events are applied if nobody names another.
pub(crate) const DEFAULT_ROLE: &str = "headwater_client";

/// The role that called from outside: what `current_role` was before any security definer function.
///
/// An error within ANALYZE, REINDEX and the like: there Postgres runs functions of a table's owner in a superuser's
/// session, and that superuser calls nothing.
pub(crate) fn caller() -> Oid {
    // SAFETY: both read variables of the backend.
    unsafe {
        if pg_sys::InSecurityRestrictedOperation() {
            raise(
                PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
                "headwater's functions cannot be called within a security-restricted operation",
                "An index expression or a materialized view calls one of them.",
            );
        }
        pg_sys::GetOuterUserId()
    }
}

#[pg_extern(sql = false)]
fn caller_name() -> &'static CStr {
    // SAFETY: the role exists, for it is connected; the name is palloc'd in the caller's context.
    unsafe { CStr::from_ptr(pg_sys::GetUserNameFromId(caller(), false)) }
}

/// The role of that name, if the caller may act as it. An error otherwise: which role to use is the operator's
/// decision, no event's.
pub(crate) fn role_open_to_caller(name: &str) -> Oid {
    let unusable = |why: &str, hint: String| -> ! {
        raise(
            PgSqlErrorCode::ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION,
            format!("cannot apply events as role \"{name}\": {why}"),
            hint,
        )
    };
    let c_name = CString::new(name).unwrap_or_default();
    // SAFETY: catalog look-ups by a string that outlives the call.
    unsafe {
        let role = pg_sys::get_role_oid(c_name.as_ptr(), true);
        if role == Oid::INVALID {
            unusable("there is no such role", format!("create role {} nologin;", pgrx::spi::quote_identifier(name)));
        }
        if !pg_sys::is_member_of_role(caller(), role) {
            unusable("the caller is no member of it", format!("grant {} to …;", pgrx::spi::quote_identifier(name)));
        }
        role
    }
}

/// Acting as another role until dropped: its privileges and row security count, and the session's own `search_path`
/// finds what the application's triggers name.
pub(crate) struct ActingAs {
    user: Oid,
    context: c_int,
    _settings: Settings,
}

impl ActingAs {
    /// Begins to act as `role`, for the token that `claims` were read from.
    pub(crate) fn role(role: Oid, claims: Option<&str>) -> Self {
        let mut settings = Settings::unchanged();
        settings.set(c"search_path", &crate::settings::of_the_session(c"search_path"));
        // The reason of a reject is read from the message, and must not depend on the server's language.
        settings.set(c"lc_messages", "C");
        if let Some(claims) = claims {
            settings.set(c"request.jwt.claims", claims);
        }
        let (mut user, mut context) = (Oid::INVALID, 0);
        // SAFETY: sets back in `drop`; an aborted subtransaction sets back too (AbortSubTransaction). The flag forbids
        // SET ROLE meanwhile, as in a security definer function.
        unsafe {
            pg_sys::GetUserIdAndSecContext(&raw mut user, &raw mut context);
            pg_sys::SetUserIdAndSecContext(role, context | pg_sys::SECURITY_LOCAL_USERID_CHANGE.cast_signed());
        }
        Self { user, context, _settings: settings }
    }
}

impl Drop for ActingAs {
    fn drop(&mut self) {
        // SAFETY: what `role` found.
        unsafe { pg_sys::SetUserIdAndSecContext(self.user, self.context) };
    }
}
