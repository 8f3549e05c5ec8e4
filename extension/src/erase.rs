//! `headwater.erase`: an entity is forgotten, but for a marker and a tombstone.

use std::borrow::Cow;

use headwater_model::event::{Code, Reject};
use pgrx::PgSqlErrorCode;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use pgrx::spi::SpiClient;
use serde_json::Map;

use crate::clock;
use crate::head::Entity;
use crate::ingest::record::{Record, Source, record};
use crate::ingest::{delete_row, lock_for_record};
use crate::materialize::{enabled, instant};
use crate::raise::raise;
use crate::retention::changing_events;
use crate::session;
use crate::spi::run_once;

#[pg_extern(sql = false)]
fn erase(entity_type: &str, entity_id: &str) -> i64 {
    let table = enabled(entity_type);
    Spi::connect_mut(|client| {
        run_once(client, "select headwater.require_owner($1::oid::regclass)", &[table.relid.into()]);
        // What others wrote of the entity until now is to be seen, and deleted.
        run_once(client, "select headwater.require_read_committed()", &[]);
    });
    // From here on nobody else writes events of this entity; those who wait will find the marker.
    let row = lock_for_record(&table, entity_id).unwrap_or_else(|reject| refuse(&reject));
    let owner = row.map(|row| row.tenant);
    let of_entity = || [entity_type.into(), entity_id.into()];
    Spi::connect_mut(|client| {
        // Those who are copying states have not seen the marker: what they wrote is deleted below.
        run_once(client, "select headwater.lock_snapshots($1, true)", &[entity_type.into()]);
        run_once(
            client,
            "insert into headwater.erased (entity_type, entity_id, erased_by) values ($1, $2, headwater.caller())
             on conflict do nothing",
            &of_entity(),
        );
    });
    if let Some(tenant) = owner.clone() {
        let entity = Entity { entity_type: entity_type.to_owned(), entity_id: entity_id.to_owned(), tenant };
        delete_row(&table, &entity, session::eraser(table.relid)).unwrap_or_else(|reject| refuse(&reject));
    }
    Spi::connect_mut(|client| {
        let mut tenants = tenants(client, entity_type, entity_id);
        if let Some(tenant) = owner.filter(|tenant| !tenants.contains(tenant)) {
            tenants.push(tenant);
        }
        let emptied = changing_events(|| {
            // Who changed it, and on which device, may be the very person.
            let sql = "update headwater.event set payload = '{}', user_id = null, client_id = null
                       where entity_type = $1 and entity_id = $2 and (payload <> '{}' or num_nonnulls(user_id, client_id) > 0)";
            run_once(client, &format!("with emptied as ({sql} returning 1) select count(*) from emptied"), &of_entity())
                .first()
                .get_one::<i64>()
        });
        for sql in [
            "delete from headwater.snapshot where entity_type = $1 and entity_id = $2",
            "delete from headwater.receipt r using headwater.event e
             where e.entity_type = $1 and e.entity_id = $2 and r.event_id = e.id and r.tenant_id is not distinct from e.tenant_id",
            "delete from headwater.receipt where entity_type = $1 and entity_id = $2",
            "delete from headwater.rejected_event where event->>'entity_type' = $1 and event->>'entity_id' = $2",
        ] {
            run_once(client, sql, &of_entity());
        }
        let occurred_at = run_once(
            client,
            "select max(occurred_at) from headwater.event where entity_type = $1 and entity_id = $2",
            &of_entity(),
        )
        .first()
        .get_one()
        .expect("a timestamptz")
        .map_or_else(clock::now, |last| clock::now().max(instant(last).plus(1)));
        let tombstone = |tenant: Option<String>| Record {
            id: clock::new_id(),
            tenant: tenant.map(Cow::Owned),
            entity_type: Cow::Borrowed(entity_type),
            entity_id: Cow::Borrowed(entity_id),
            event_type: Cow::Owned(format!("{entity_type}.erased")),
            payload: Cow::Owned(Map::new()),
            schema_version: table.schema_version,
            occurred_at,
            user_id: None,
            client_id: None,
            source: Source::Capture,
            applies: true,
        };
        record(tenants.into_iter().map(tombstone));
        tell_of_former_keys(client, entity_type, entity_id);
        emptied.expect("a count").unwrap_or(0)
    })
}

/// How many events before a `created` the `deleted` of the same statement is looked for.
const POSITIONS_LOOKED_AT: i32 = 1000;

/// A row whose key was changed is a new entity, and what stood under its former key is another's history. Nothing names that
/// entity for certain: whether it was the same person is for the caller to say.
fn tell_of_former_keys(client: &mut SpiClient<'_>, entity_type: &str, entity_id: &str) {
    let former: Option<String> = run_once(
        client,
        "select string_agg(format('select headwater.erase(%L, %L);', $1, f.entity_id), ' ')
         from (select distinct d.entity_id
               from headwater.event c
               join headwater.event d on d.position between c.position - $3 and c.position - 1
                 and d.entity_type = c.entity_type and d.event_type = $1 || '.deleted' and d.source = 'capture'
                 and d.recorded_at = c.recorded_at and d.entity_id <> c.entity_id
               where c.entity_type = $1 and c.entity_id = $2 and c.event_type = $1 || '.created' and c.source = 'capture'
                 and not exists (select from headwater.erased x where x.entity_type = $1 and x.entity_id = d.entity_id)
               order by 1 limit 10) f",
        &[entity_type.into(), entity_id.into(), POSITIONS_LOOKED_AT.into()],
    )
    .first()
    .get_one()
    .expect("a text");
    if let Some(former) = former {
        let what =
            format!("{entity_type} {entity_id:?} may have had another key before: what stood under that is not erased");
        ErrorReport::new(PgSqlErrorCode::ERRCODE_SUCCESSFUL_COMPLETION, what, function_name!())
            .set_hint(format!("The same statement that created it deleted these. If one was the same: {former}"))
            .report(PgLogLevel::NOTICE);
    }
}

/// Every tenant that has had the entity: each is told.
fn tenants(client: &SpiClient<'_>, entity_type: &str, entity_id: &str) -> Vec<Option<String>> {
    let sql = "select tenant_id from headwater.event where entity_type = $1 and entity_id = $2
               union select tenant_id from headwater.snapshot where entity_type = $1 and entity_id = $2";
    let rows = client.select(sql, None, &[entity_type.into(), entity_id.into()]).expect("the query is ours");
    rows.map(|row| row.get(1).expect("a text")).collect()
}

fn refuse(reject: &Reject) -> ! {
    let (code, hint) = match reject.code {
        Code::Forbidden => {
            (PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE, "A policy or a trigger of the table keeps the row.")
        }
        _ => (PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE, "entity_id is the row's key as headwater.event has it."),
    };
    raise(code, format!("cannot erase: {}", reject.reason), hint)
}
