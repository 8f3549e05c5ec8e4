//! While clients' events are applied, nothing is put off to a time when another role acts.
//!
//! Triggers of the table's owner run as the role that applies events. A deferred trigger that is queued behind the last
//! `set constraints all immediate`, or a cursor that is held, would run at COMMIT, as whoever called ingest: a member of
//! `headwater_writer`. Postgres forbids both only in operations that may not create temporary tables either, which
//! triggers do.

use std::cell::Cell;
use std::ffi::c_char;

use pgrx::pg_sys;
use pgrx::{PgSqlErrorCode, pg_guard};

use crate::raise::raise;

thread_local! {
    static FORBIDDEN: Cell<bool> = const { Cell::new(false) };
    static NEXT: Cell<pg_sys::ProcessUtility_hook_type> = const { Cell::new(None) };
}

/// Runs `work`, within which nothing can be put off; an error ends that too.
pub(crate) fn forbidden<T>(work: impl FnOnce() -> T) -> T {
    struct Restore(bool);
    impl Drop for Restore {
        fn drop(&mut self) {
            FORBIDDEN.set(self.0);
        }
    }
    let _restore = Restore(FORBIDDEN.replace(true));
    work()
}

/// Has Postgres ask before each utility statement of this backend.
pub(crate) fn watch() {
    // SAFETY: once a backend, in _PG_init; whoever was there before is called in turn.
    unsafe {
        NEXT.set(pg_sys::ProcessUtility_hook);
        pg_sys::ProcessUtility_hook = Some(utility);
    }
}

#[pg_guard]
#[expect(clippy::too_many_arguments, reason = "the hook's")]
unsafe extern "C-unwind" fn utility(
    statement: *mut pg_sys::PlannedStmt,
    query: *const c_char,
    read_only_tree: bool,
    context: pg_sys::ProcessUtilityContext::Type,
    parameters: pg_sys::ParamListInfo,
    environment: *mut pg_sys::QueryEnvironment,
    destination: *mut pg_sys::DestReceiver,
    completion: *mut pg_sys::QueryCompletion,
) {
    // SAFETY: Postgres' own arguments, handed on as they came.
    unsafe {
        if FORBIDDEN.get() {
            refuse_to_put_off((*statement).utilityStmt);
        }
        match NEXT.get() {
            Some(next) => pg_sys::ffi::pg_guard_ffi_boundary(|| {
                next(statement, query, read_only_tree, context, parameters, environment, destination, completion);
            }),
            None => pg_sys::standard_ProcessUtility(
                statement,
                query,
                read_only_tree,
                context,
                parameters,
                environment,
                destination,
                completion,
            ),
        }
    }
}

/// # Safety
/// A utility statement.
#[expect(clippy::cast_ptr_alignment, reason = "the tag says what it is")]
unsafe fn refuse_to_put_off(statement: *mut pg_sys::Node) {
    // SAFETY: the node's tag says what it is.
    let what = unsafe {
        match (*statement).type_ {
            pg_sys::NodeTag::T_ConstraintsSetStmt if (*statement.cast::<pg_sys::ConstraintsSetStmt>()).deferred => {
                "SET CONSTRAINTS … DEFERRED"
            }
            pg_sys::NodeTag::T_DeclareCursorStmt
                if (*statement.cast::<pg_sys::DeclareCursorStmt>()).options & pg_sys::CURSOR_OPT_HOLD.cast_signed()
                    != 0 =>
            {
                "DECLARE … CURSOR WITH HOLD"
            }
            _ => return,
        }
    };
    raise(
        PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
        format!("a trigger may not use {what} while clients' events are applied"),
        "What is put off would run when ingest's transaction ends, with the rights of its caller.",
    );
}
