//! Capture: what a statement changed in an enabled table becomes events, in the same transaction.
//!
//! Statement-level AFTER triggers with transition tables: one insert into `headwater.event` a statement, whose plan is
//! kept. The rows are locked by the statement before the trigger runs, so the positions of an entity rise in commit order.
//!
//! 1. Each changed row is one event: `created` with the row, `updated` with what changed, `deleted` with the key.
//! 2. A row whose key or tenant changed is `deleted` under the old and `created` under the new. All deletes of a
//!    statement come before its creates, so that keys that are handed on end with the row that has them now.
//! 3. Ingest's own write of a row is passed over, nothing else that it sets off (see [`own_write`]).

pub(crate) mod own_write;
mod statements;

use std::cell::Cell;
use std::ffi::CStr;

use headwater_model::clock::Micros;
use pgrx::datum::DatumWithOid;
use pgrx::pg_sys;
use pgrx::prelude::*;
use pgrx::spi::SpiClient;

use crate::clock;
use crate::settings::{self, Settings};
use crate::table::{self, Table};
use own_write::Operation;

thread_local! {
    static RECORDED: Cell<i64> = const { Cell::new(0) };
}

/// How many events this backend has captured so far.
pub(crate) fn recorded() -> i64 {
    RECORDED.get()
}

#[pg_trigger(sql = false)]
fn capture<'a>(trigger: &'a PgTrigger<'a>) -> Result<Option<PgHeapTuple<'a, impl WhoAllocated>>, PgTriggerError> {
    let entity_type = trigger.extra_args()?.into_iter().next().expect("attach_capture names the entity");
    let table = table::of_trigger(trigger.relid()?, &entity_type);
    let data = trigger.trigger_data();
    let _settings = Settings::for_rendering();
    Spi::connect_mut(|client| {
        // SAFETY: the trigger data that Postgres gave us; the connection is the one just opened.
        unsafe { pg_sys::SPI_register_trigger_data(std::ptr::from_ref(data).cast_mut()) };
        let statement = Fired { table: &table, client, occurred_at: clock::now(), user: acting_user() };
        match trigger.op()? {
            PgTriggerOperation::Insert => statement.insert(),
            // SAFETY: an update's trigger has both transition tables.
            PgTriggerOperation::Update => statement.update(unsafe { pg_sys::tuplestore_tuple_count(data.tg_oldtable) }),
            PgTriggerOperation::Delete => statement.delete(),
            PgTriggerOperation::Truncate => statement.truncate(),
        }
        Ok::<_, PgTriggerError>(())
    })?;
    Ok(None::<PgHeapTuple<'a, pgrx::AllocatedByRust>>)
}

/// A statement that changed rows of a table.
struct Fired<'t, 'c, 'm> {
    table: &'t Table,
    client: &'m mut SpiClient<'c>,
    occurred_at: Micros,
    user: Option<String>,
}

impl Fired<'_, '_, '_> {
    fn insert(mut self) {
        let own = own_write::take(self.table.relid, Operation::Insert);
        self.record("insert", statements::insert, own.as_deref());
    }

    fn update(mut self, rows: i64) {
        let own = own_write::take(self.table.relid, Operation::Update);
        self.baselines(statements::Source::OldRows);
        let recorded = if rows == 1 {
            self.record("update_one", statements::update_one, own.as_deref())
        } else {
            self.record("update", statements::update, own.as_deref())
        };
        // What is missing moved to another key or tenant.
        if recorded < rows - i64::from(own.is_some()) {
            self.record("move", statements::moves, own.as_deref());
        }
    }

    fn delete(mut self) {
        let own = own_write::take(self.table.relid, Operation::Delete);
        self.baselines(statements::Source::OldRows);
        self.record("delete", |table| statements::delete(table, statements::Source::OldRows), own.as_deref());
    }

    fn truncate(mut self) {
        self.baselines(statements::Source::Table);
        self.record("truncate", |table| statements::delete(table, statements::Source::Table), None);
    }

    /// Records events by a statement of three parameters; returns how many.
    fn record(&mut self, name: &str, sql: fn(&Table) -> String, own: Option<&str>) -> i64 {
        let arguments: [DatumWithOid<'_>; 3] =
            [clock::timestamp(self.occurred_at).into(), self.user.clone().into(), own.into()];
        let recorded = self.table.statement(name, || sql(self.table)).run(self.client, &arguments).len();
        let recorded = i64::try_from(recorded).expect("fewer rows than a statement can change");
        RECORDED.set(RECORDED.get() + recorded);
        recorded
    }

    /// Until a table is backfilled, a row's first change writes its baseline.
    fn baselines(&mut self, source: statements::Source) {
        if !self.table.backfilled {
            let name = if source == statements::Source::OldRows { "baseline" } else { "baseline_truncate" };
            self.table.statement(name, || statements::baseline(self.table, source)).run(self.client, &[]);
        }
    }
}

/// Who acts, where the application says so the way PostgREST and ingest do: `sub` of the token's claims.
fn acting_user() -> Option<String> {
    let claims = settings::current(c"request.jwt.claims").map(CStr::to_string_lossy)?;
    let claims: serde_json::Value = serde_json::from_str(&claims).ok()?;
    claims.get("sub")?.as_str().map(str::to_owned)
}
