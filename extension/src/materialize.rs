//! `headwater.materialize`: an entity's state, now or at an instant.

use headwater_model::clock::Micros;
use pgrx::PgSqlErrorCode;
use pgrx::prelude::*;
use pgrx::spi::SpiClient;
use serde_json::Value;

use crate::custom::Runner;
use crate::head::{self, Entity};
use crate::jsonb::JsonB;
use crate::raise::raise;
use crate::spi::read_once;
use crate::table;

#[pg_extern(sql = false)]
fn materialize(
    entity: Option<&str>,
    entity_id: Option<&str>,
    as_of: Option<TimestampWithTimeZone>,
    tenant_id: Option<&str>,
) -> Option<JsonB> {
    let (entity_type, entity_id) = entity.zip(entity_id)?;
    Spi::connect(|client| {
        let tenant = tenant_id.map(str::to_owned).or_else(|| {
            read_once(
                client,
                "(select tenant_id from headwater.event where entity_type = $1 and entity_id = $2
                  order by occurred_at desc, id desc limit 1)
                 union all
                 (select tenant_id from headwater.snapshot where entity_type = $1 and entity_id = $2 limit 1)",
                &[entity_type.into(), entity_id.into()],
            )
            .next()?
            .get(1)
            .expect("a text")
        });
        state(client, entity_type, entity_id, as_of, tenant)
    })
}

/// The state within exactly this tenant; null is one, too.
#[pg_extern(sql = false)]
fn state_within(entity: Option<&str>, entity_id: Option<&str>, tenant_id: Option<String>) -> Option<JsonB> {
    let (entity, entity_id) = entity.zip(entity_id)?;
    Spi::connect(|client| state(client, entity, entity_id, None, tenant_id))
}

fn state(
    client: &SpiClient<'_>,
    entity_type: &str,
    entity_id: &str,
    as_of: Option<TimestampWithTimeZone>,
    tenant: Option<String>,
) -> Option<JsonB> {
    let Some(table) = table::of_entity(entity_type) else {
        raise(
            PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT,
            format!("no enabled table is entity \"{entity_type}\""),
            "select * from headwater.syncable_tables() lists them.",
        )
    };
    let entity = Entity { entity_type: entity_type.to_owned(), entity_id: entity_id.to_owned(), tenant };
    let as_of = as_of.map(|at| Micros::from_postgres(at.into_inner()));
    let (baseline, mut events) = head::fold_of(client, &entity, as_of);
    head::fold(baseline, &mut events, &table.rules, Runner::Current).state.map(|state| JsonB(Value::Object(state)))
}
