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

/// A function of ours that acts as its owner where it needs to, and only there, instead of being `security definer` with a
/// `search_path` of its own throughout: to set that up and to take it back is a seventh of what it costs to capture a row.
///
/// Whoever acts as the owner has the path pinned, always.
#[derive(Clone, Copy)]
pub(crate) struct Definer(Oid);

impl Definer {
    /// The function that is being called.
    ///
    /// # Safety
    /// A call by the function manager.
    pub(crate) unsafe fn of(call: pg_sys::FunctionCallInfo) -> Self {
        // SAFETY: the caller's promise.
        Self(unsafe { (*(*call).flinfo).fn_oid })
    }

    /// Acts as the owner until dropped, with what `set search_path = pg_catalog, pg_temp` sets.
    pub(crate) fn act(self) -> ActingAs {
        let mut settings = Settings::unchanged();
        settings.set(c"search_path", "pg_catalog, pg_temp");
        ActingAs::begin(self.owner(), 0, settings)
    }

    #[expect(clippy::cast_ptr_alignment, reason = "a tuple's data is aligned")]
    fn owner(self) -> Oid {
        // SAFETY: a catalog look-up; the tuple is released.
        unsafe {
            let cache = pg_sys::SysCacheIdentifier::PROCOID.cast_signed();
            let tuple = pg_sys::SearchSysCache1(cache, self.0.into());
            if tuple.is_null() {
                raise(
                    PgSqlErrorCode::ERRCODE_UNDEFINED_FUNCTION,
                    format!("the function with the OID {} is gone", self.0.to_u32()),
                    "Try again: the extension was dropped at this moment.",
                );
            }
            let owner = (*pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_proc>()).proowner;
            pg_sys::ReleaseSysCache(tuple);
            owner
        }
    }
}

/// Who owns a table.
#[expect(clippy::cast_ptr_alignment, reason = "a tuple's data is aligned")]
fn owner(relid: Oid) -> Oid {
    // SAFETY: a catalog look-up; the tuple is released.
    unsafe {
        let cache = pg_sys::SysCacheIdentifier::RELOID.cast_signed();
        let tuple = pg_sys::SearchSysCache1(cache, relid.into());
        if tuple.is_null() {
            raise(
                PgSqlErrorCode::ERRCODE_UNDEFINED_TABLE,
                format!("the table with the OID {} is gone", relid.to_u32()),
                "Try again: it was dropped at this moment.",
            );
        }
        let owner = (*pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_class>()).relowner;
        pg_sys::ReleaseSysCache(tuple);
        owner
    }
}

/// As whom a row is deleted for the caller, who owns the table or is a member of the role that does: a superuser as the
/// owner, whose triggers are not to be trusted with more.
pub(crate) fn eraser(relid: Oid) -> Oid {
    let caller = caller();
    // SAFETY: a catalog look-up.
    if unsafe { pg_sys::superuser_arg(caller) } { owner(relid) } else { caller }
}

/// The role of [`DEFAULT_ROLE`], for functions that compute and leave nothing behind.
pub(crate) fn default_role() -> Oid {
    let name = CString::new(DEFAULT_ROLE).expect("no NUL");
    // SAFETY: a catalog look-up by a string that outlives the call; an error where there is no such role.
    unsafe { pg_sys::get_role_oid(name.as_ptr(), false) }
}

/// Acting as another role until dropped: its privileges and row security count.
pub(crate) struct ActingAs {
    user: Oid,
    context: c_int,
    _settings: Settings,
}

/// Nothing that is done may outlive the operation: no temporary tables, no deferred triggers, no cursors that are held. What
/// VACUUM and REINDEX do; else code of one role could wait for the moment at which another acts again.
const RESTRICTED: u32 = pg_sys::SECURITY_RESTRICTED_OPERATION;

impl ActingAs {
    /// Begins to act as `role`, for the token that `claims` were read from, to write rows: triggers may do what triggers
    /// do, and the session's own `search_path` finds what they name.
    pub(crate) fn role(role: Oid, claims: Option<&str>) -> Self {
        Self::begin(role, 0, settings_of_the_session(Settings::unchanged(), claims))
    }

    /// The same to call a function that does nothing but compute.
    pub(crate) fn restricted(role: Oid, claims: Option<&str>) -> Self {
        Self::begin(role, RESTRICTED, settings_of_the_session(Settings::passing(), claims))
    }

    /// Begins to act as the owner of a table, for a statement of ours that names it: to plan one runs code of the owner's,
    /// as that in the expressions of its indexes. Row security does not hide rows from this owner, FORCE or not.
    ///
    /// The owner needs USAGE on the table's schema and what the statement does to the table.
    pub(crate) fn owner_of(relid: Oid) -> Self {
        Self::begin(owner(relid), RESTRICTED | pg_sys::SECURITY_NOFORCE_RLS, Settings::passing())
    }

    fn begin(role: Oid, flags: u32, settings: Settings) -> Self {
        let (mut user, mut context) = (Oid::INVALID, 0);
        let flags = (flags | pg_sys::SECURITY_LOCAL_USERID_CHANGE).cast_signed();
        // SAFETY: sets back in `drop`; an aborted subtransaction sets back too (AbortSubTransaction). The flag forbids
        // SET ROLE meanwhile, as in a security definer function.
        unsafe {
            pg_sys::GetUserIdAndSecContext(&raw mut user, &raw mut context);
            pg_sys::SetUserIdAndSecContext(role, context | flags);
        }
        Self { user, context, _settings: settings }
    }
}

fn settings_of_the_session(mut settings: Settings, claims: Option<&str>) -> Settings {
    settings.set(c"search_path", &crate::settings::of_the_session(c"search_path"));
    // The reason of a reject is read from the message, and must not depend on the server's language.
    settings.set(c"lc_messages", "C");
    if let Some(claims) = claims {
        settings.set(c"request.jwt.claims", claims);
    }
    settings
}

impl Drop for ActingAs {
    fn drop(&mut self) {
        // SAFETY: what `begin` found.
        unsafe { pg_sys::SetUserIdAndSecContext(self.user, self.context) };
    }
}
