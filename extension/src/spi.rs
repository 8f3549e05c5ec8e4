//! SQL from within the backend: statements whose plan is kept, and attempts that can fail without the transaction.

use std::cell::{Cell, OnceCell};
use std::ffi::CString;
use std::panic::AssertUnwindSafe;

use pgrx::datum::{Datum, DatumWithOid};
use pgrx::pg_sys::panic::CaughtError;
use pgrx::prelude::*;
use pgrx::spi::{OwnedPreparedStatement, SpiClient, SpiTupleTable};
use pgrx::{PgSqlErrorCode, pg_sys};

/// A statement that is planned when it first runs and keeps its plan as long as it lives.
pub(crate) struct Statement {
    sql: String,
    plan: OnceCell<OwnedPreparedStatement>,
}

impl Statement {
    /// A statement with parameters `$1`…, whose types are those of the first run's arguments.
    pub(crate) fn new(sql: impl Into<String>) -> Self {
        Self { sql: sql.into(), plan: OnceCell::new() }
    }

    /// Runs it. Sees what was committed until now and what this transaction has done.
    pub(crate) fn run<'c>(&self, client: &mut SpiClient<'c>, args: &[DatumWithOid<'_>]) -> SpiTupleTable<'c> {
        let plan = self.plan.get_or_init(|| {
            let types: Vec<_> = args.iter().map(|arg| pg_sys::PgOid::from(arg.oid())).collect();
            client.prepare_mut(self.sql.as_str(), &types).expect("the statement is ours").keep()
        });
        client.update(plan, None, args).expect("the statement is ours")
    }
}

/// A statement about a set of keys, whose rows [`for_each_row`] reads. It is planned once, for whatever set, and looks each
/// key up: a hundred keys of a table that is small yet would be worth reading all of it, and the plan stays when it has
/// grown.
pub(crate) struct SetStatement {
    sql: CString,
    plan: Cell<pg_sys::SPIPlanPtr>,
}

impl SetStatement {
    /// A statement with parameters `$1`…, whose types are those of the first run's arguments.
    pub(crate) fn new(sql: impl Into<Vec<u8>>) -> Self {
        Self { sql: CString::new(sql).expect("names hold no NUL"), plan: Cell::new(std::ptr::null_mut()) }
    }

    /// Runs it. Sees what was committed until now and what this transaction has done.
    pub(crate) fn run(&self, client: &mut SpiClient<'_>, args: &[DatumWithOid<'_>]) {
        // SAFETY: connected to SPI, as the client shows. From here on `read_once` sees what is done, in this
        // subtransaction too.
        unsafe { pg_sys::GetCurrentTransactionId() };
        self.execute(client, args, false);
    }

    /// Runs a query as of this moment, as [`latest`]: at every isolation level it sees what others have committed by now.
    pub(crate) fn run_latest(&self, client: &mut SpiClient<'_>, args: &[DatumWithOid<'_>]) {
        // SAFETY: connected to SPI, as the client shows. An error ends the (sub)transaction, which pops the snapshot.
        unsafe {
            pg_sys::PushActiveSnapshot(pg_sys::GetLatestSnapshot());
            self.execute(client, args, true);
            pg_sys::PopActiveSnapshot();
        }
    }

    /// Runs a query as [`read_once`] does: a transaction that has written nothing remains without an id.
    pub(crate) fn read(&self, client: &SpiClient<'_>, args: &[DatumWithOid<'_>]) {
        // SAFETY: reads a variable of the backend.
        let written = unsafe { pg_sys::GetCurrentTransactionIdIfAny() } != pg_sys::InvalidTransactionId;
        self.execute(client, args, !written);
    }

    /// Read-only, it uses the snapshot that is active.
    fn execute(&self, _client: &SpiClient<'_>, args: &[DatumWithOid<'_>], read_only: bool) {
        let mut values: Vec<_> =
            args.iter().map(|arg| arg.datum().map_or(pg_sys::Datum::from(0), Datum::sans_lifetime)).collect();
        let nulls: Vec<_> = args.iter().map(|arg| if arg.datum().is_some() { b' ' } else { b'n' }).collect();
        // SAFETY: connected to SPI, as the client shows; as many values as the statement has parameters, of their types.
        // A plan that is kept outlives the transaction.
        unsafe {
            if self.plan.get().is_null() {
                let mut types: Vec<_> = args.iter().map(DatumWithOid::oid).collect();
                let count = i32::try_from(types.len()).expect("a few");
                let options = pg_sys::CURSOR_OPT_GENERIC_PLAN.cast_signed();
                let plan = pg_sys::SPI_prepare_cursor(self.sql.as_ptr(), count, types.as_mut_ptr(), options);
                assert!(!plan.is_null(), "the statement is ours");
                pg_sys::SPI_keepplan(plan);
                self.plan.set(plan);
            }
            self.find_by_index();
            pg_sys::SPI_tuptable = std::ptr::null_mut();
            let done =
                pg_sys::SPI_execute_plan(self.plan.get(), values.as_mut_ptr(), nulls.as_ptr().cast(), read_only, 0);
            assert!(done >= 0, "the statement is ours");
        }
    }
}

impl SetStatement {
    /// Plans it, if it has no plan or an old one, as if there were no scans of whole tables.
    unsafe fn find_by_index(&self) {
        struct Setting(bool);
        impl Drop for Setting {
            fn drop(&mut self) {
                // SAFETY: a variable of the backend.
                unsafe { pg_sys::enable_seqscan = self.0 };
            }
        }
        // SAFETY: connected to SPI; the plan is kept. What is returned here stays for the next to ask.
        unsafe {
            let _before = Setting(pg_sys::enable_seqscan);
            pg_sys::enable_seqscan = false;
            let planned = pg_sys::SPI_plan_get_cached_plan(self.plan.get());
            if !planned.is_null() {
                pg_sys::ReleaseCachedPlan(planned, pg_sys::CurrentResourceOwner);
            }
        }
    }
}

impl Drop for SetStatement {
    fn drop(&mut self) {
        if !self.plan.get().is_null() {
            // SAFETY: a kept plan, which nobody else has.
            unsafe { pg_sys::SPI_freeplan(self.plan.get()) };
        }
    }
}

/// Calls `each` with every row that the last statement of this connection gave: its values and which are null.
pub(crate) fn for_each_row(_client: &SpiClient<'_>, mut each: impl FnMut(&[pg_sys::Datum], &[bool])) {
    // SAFETY: connected to SPI, as the client shows; the table of the last statement lives until another is run.
    unsafe {
        let found = pg_sys::SPI_tuptable;
        if found.is_null() {
            return;
        }
        let attributes = usize::try_from((*(*found).tupdesc).natts).expect("a count");
        let mut values = vec![pg_sys::Datum::from(0); attributes];
        let mut nulls = vec![true; attributes];
        for place in 0..usize::try_from((*found).numvals).expect("a count") {
            let tuple = *(*found).vals.add(place);
            pg_sys::heap_deform_tuple(tuple, (*found).tupdesc, values.as_mut_ptr(), nulls.as_mut_ptr());
            each(&values, &nulls);
        }
    }
}

/// Runs a query once. As long as the transaction has written nothing it remains without an id: it costs none, and works
/// on a standby. Once it has written, the query sees what was committed until now.
pub(crate) fn read_once<'c>(client: &SpiClient<'c>, sql: &str, args: &[DatumWithOid<'_>]) -> SpiTupleTable<'c> {
    client.select(sql, None, args).expect("the query is ours")
}

/// The jsonb that a query gives, as of this moment: whatever snapshot the transaction has, what was committed by now is
/// seen. For what must not be out of date, as the registry. `None` where the query gives no row, or null.
pub(crate) fn latest(_client: &SpiClient<'_>, sql: &str) -> Option<serde_json::Value> {
    let sql = CString::new(sql).expect("names hold no NUL");
    // SAFETY: connected to SPI, as the client shows. Read-only, so that SPI uses the snapshot just pushed. An error
    // ends the (sub)transaction, which pops it.
    unsafe {
        pg_sys::PushActiveSnapshot(pg_sys::GetLatestSnapshot());
        let done = pg_sys::SPI_execute(sql.as_ptr(), true, 1);
        pg_sys::PopActiveSnapshot();
        if done != pg_sys::SPI_OK_SELECT.cast_signed() || pg_sys::SPI_processed == 0 {
            return None;
        }
        let found = pg_sys::SPI_tuptable;
        let mut is_null = false;
        let datum = pg_sys::SPI_getbinval(*(*found).vals, (*found).tupdesc, 1, &raw mut is_null);
        let value = crate::jsonb::JsonB::from_datum(datum, is_null).map(|json| json.0);
        pg_sys::SPI_freetuptable(found);
        value.filter(|value| !value.is_null())
    }
}

/// Runs a statement once.
pub(crate) fn run_once<'c>(client: &mut SpiClient<'c>, sql: &str, args: &[DatumWithOid<'_>]) -> SpiTupleTable<'c> {
    client.update(sql, None, args).expect("the statement is ours")
}

/// An error that Postgres raised.
#[derive(Debug)]
pub(crate) struct SqlError {
    /// The SQLSTATE as Postgres packs it.
    code: i32,
    pub(crate) message: String,
    caught: Box<CaughtError>,
}

impl SqlError {
    /// The five characters of its SQLSTATE.
    pub(crate) fn sqlstate(&self) -> String {
        // Six bits a character, the first lowest: `MAKE_SQLSTATE` in elog.h.
        let code = self.code.cast_unsigned();
        (0..5).map(|i| char::from(b'0' + u8::try_from((code >> (6 * i)) & 0x3f).expect("six bits"))).collect()
    }

    /// Raises it again.
    pub(crate) fn rethrow(self) -> ! {
        self.caught.rethrow()
    }
}

/// Runs `work` in a subtransaction. If Postgres raises an error, or `keep` does not want what came of it,
/// everything is as it was before.
pub(crate) fn attempt<T>(work: impl FnOnce() -> T, keep: impl FnOnce(&T) -> bool) -> Result<T, SqlError> {
    // SAFETY: the pattern of PL/pgSQL's blocks with exceptions (exec_stmt_block): the memory context and the
    // resource owner are put back whichever way the subtransaction ends.
    unsafe {
        let context = pg_sys::CurrentMemoryContext;
        let owner = pg_sys::CurrentResourceOwner;
        pg_sys::BeginInternalSubTransaction(std::ptr::null());
        pg_sys::MemoryContextSwitchTo(context);
        let callers = pg_sys::error_context_stack;
        NOTED.set(0);
        let mut note =
            pg_sys::ErrorContextCallback { previous: callers, callback: Some(note_code), arg: std::ptr::null_mut() };
        pg_sys::error_context_stack = &raw mut note;
        let outcome =
            PgTryBuilder::new(AssertUnwindSafe(|| Ok(work()))).catch_others(|caught| Err(sql_error(caught))).execute();
        pg_sys::error_context_stack = callers;
        pg_sys::MemoryContextSwitchTo(context);
        if outcome.as_ref().is_ok_and(keep) {
            pg_sys::ReleaseCurrentSubTransaction();
        } else {
            pg_sys::RollbackAndReleaseCurrentSubTransaction();
        }
        pg_sys::MemoryContextSwitchTo(context);
        pg_sys::CurrentResourceOwner = owner;
        outcome
    }
}

thread_local! {
    static NOTED: Cell<i32> = const { Cell::new(0) };
}

/// Called while an error (or a notice) is being reported: pgrx knows only the SQLSTATEs of Postgres itself, and takes
/// those that applications raise for internal errors.
unsafe extern "C-unwind" fn note_code(_arg: *mut std::ffi::c_void) {
    // SAFETY: within an error context callback, which is what the function is for.
    NOTED.set(unsafe { pg_sys::geterrcode() });
}

fn sql_error(caught: CaughtError) -> SqlError {
    let (code, message) = match &caught {
        CaughtError::PostgresError(report) | CaughtError::ErrorReport(report) => {
            let code = match report.sql_error_code() {
                PgSqlErrorCode::ERRCODE_INTERNAL_ERROR if NOTED.get() != 0 => NOTED.get(),
                known => known as i32,
            };
            (code, report.message().to_owned())
        }
        // Nothing that an application raised, whatever was noted before.
        CaughtError::RustPanic { .. } => (PgSqlErrorCode::ERRCODE_INTERNAL_ERROR as i32, String::new()),
    };
    SqlError { code, message, caught: Box::new(caught) }
}
