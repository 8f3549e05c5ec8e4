//! Until a table is backfilled, a row's first change writes its baseline: the row as it was.

use pgrx::datum::DatumWithOid;
use pgrx::pg_sys::{self, Datum};
use pgrx::prelude::*;

use crate::render::{Row, Writer};
use crate::session::Definer;
use crate::settings::Settings;
use crate::table::Table;

/// From the transition table of the rows that were changed.
pub(super) fn of_old_rows(table: &Table, data: &pg_sys::TriggerData, definer: Definer) {
    if table.backfilled {
        return;
    }
    let _acting = definer.act();
    let _settings = Settings::for_rendering();
    Spi::connect_mut(|client| {
        // SAFETY: the trigger data that Postgres gave us; the connection is the one just opened.
        unsafe { pg_sys::SPI_register_trigger_data(std::ptr::from_ref(data).cast_mut()) };
        table.statement("baseline", || from(table, "old_rows o")).run(client, &[]);
    });
}

/// From one row.
pub(super) fn of_row(table: &Table, row: &Row<'_>, definer: Definer) {
    if table.backfilled {
        return;
    }
    let _acting = definer.act();
    let renderer = &table.renderer;
    let (mut writer, mut entity_id) = (Writer::default(), Vec::new());
    renderer.entity_id(row, &mut entity_id);
    let entity_id = String::from_utf8_lossy(&entity_id).into_owned();
    let tenant = renderer.tenant(row).map(|tenant| String::from_utf8_lossy(&tenant).into_owned());
    let state = renderer.state(row, &mut writer);
    Spi::connect_mut(|client| {
        // SAFETY: a jsonb that outlives the statement; only its bytes are read.
        let state = unsafe { DatumWithOid::new(Datum::from(state.as_ptr()), pg_sys::JSONBOID) };
        let sql = "insert into headwater.snapshot (entity_type, entity_id, tenant_id, state, schema_version)
                   select $1, $2, $3, $4, $5
                   where not exists (select from headwater.event e where e.entity_type = $1 and e.entity_id = $2
                                     and e.tenant_id is not distinct from $3 and e.applies)
                   on conflict do nothing";
        let arguments =
            [table.entity_type.as_str().into(), entity_id.into(), tenant.into(), state, table.schema_version.into()];
        table.statement("baseline_row", || sql.to_owned()).run(client, &arguments);
    });
}

/// The rows as they were, for those that have no event yet.
fn from(table: &Table, rows: &str) -> String {
    let entity_id = table.entity_id("o");
    format!(
        "insert into headwater.snapshot (entity_type, entity_id, tenant_id, state, schema_version)
         select {entity}, {entity_id}, {tenant}, {state}, {version} from {rows}
         where not exists (select from headwater.event e where e.entity_type = {entity} and e.entity_id = {entity_id}
                           and e.tenant_id is not distinct from {tenant} and e.applies)
         on conflict do nothing",
        entity = table.entity_literal(),
        tenant = table.tenant_of("o"),
        state = table.state("o"),
        version = table.schema_version,
    )
}
