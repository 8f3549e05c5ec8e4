//! Errors as Postgres reports them: an SQLSTATE, what was wrong, and what to do.

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

/// Raises an error; the transaction, or the subtransaction around it, is over. An empty hint is none.
pub(crate) fn raise(code: PgSqlErrorCode, what: impl Into<String>, hint: impl Into<String>) -> ! {
    let (report, hint) = (ErrorReport::new(code, what.into(), function_name!()), hint.into());
    let report = if hint.is_empty() { report } else { report.set_hint(hint) };
    report.report(PgLogLevel::ERROR);
    unreachable!("an ERROR does not return")
}
