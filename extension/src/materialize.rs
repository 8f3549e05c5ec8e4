//! `headwater.materialize`: an entity's state, now or at an instant; and what else reads folds and payloads of the past.

use headwater_model::clock::Micros;
use headwater_model::event::name_of;
use headwater_model::upcast::Shape;
use pgrx::prelude::*;
use pgrx::spi::SpiClient;
use pgrx::{PgSqlErrorCode, Uuid};
use serde_json::Value;
use std::rc::Rc;

use crate::clock;
use crate::custom::{self, Runner};
use crate::head::{self, Entity, Folding, Until, object};
use crate::jsonb::JsonB;
use crate::raise::raise;
use crate::spi::read_once;
use crate::table::{self, Table};

#[pg_extern(sql = false)]
fn materialize(
    entity: Option<&str>,
    entity_id: Option<&str>,
    as_of: Option<TimestampWithTimeZone>,
    tenant_id: Option<&str>,
) -> Option<JsonB> {
    let (entity_type, entity_id) = entity.zip(entity_id)?;
    let table = enabled(entity_type);
    Spi::connect(|client| {
        let tenant = tenant_id.map(str::to_owned).or_else(|| {
            read_once(
                client,
                "(select tenant_id from headwater.event where entity_type = $1 and entity_id = $2
                  order by occurred_at desc, id desc limit 1)
                 union all
                 (select tenant_id from headwater.snapshot where entity_type = $1 and entity_id = $2
                  order by occurred_at desc nulls last, id desc limit 1)",
                &[entity_type.into(), entity_id.into()],
            )
            .next()?
            .get(1)
            .expect("a text")
        });
        let entity = Entity { entity_type: entity_type.to_owned(), entity_id: entity_id.to_owned(), tenant };
        let until = as_of.map(instant).map_or(Until::Now, Until::Instant);
        if let Until::Instant(at) = until {
            require_history(client, &entity, at);
        }
        fold_until(client, &table, &entity, until).map(JsonB)
    })
}

/// The state within exactly this tenant; null is one, too.
#[pg_extern(sql = false)]
fn state_within(entity: Option<&str>, entity_id: Option<&str>, tenant_id: Option<String>) -> Option<JsonB> {
    let (entity, entity_id) = entity.zip(entity_id)?;
    let table = enabled(entity);
    let entity = Entity { entity_type: entity.to_owned(), entity_id: entity_id.to_owned(), tenant: tenant_id };
    Spi::connect(|client| fold_until(client, &table, &entity, Until::Now)).map(JsonB)
}

/// The state right behind one event, and the schema version of whose form it is: what `headwater.compact` keeps.
#[pg_extern(sql = false)]
fn fold_to(
    entity_type: Option<&str>,
    entity_id: Option<&str>,
    tenant_id: Option<String>,
    occurred_at: Option<TimestampWithTimeZone>,
    id: Option<Uuid>,
) -> TableIterator<'static, (name!(state, Option<JsonB>), name!(schema_version, i32))> {
    let Some(((entity_type, entity_id), (occurred_at, id))) = entity_type.zip(entity_id).zip(occurred_at.zip(id))
    else {
        return TableIterator::new(Vec::new());
    };
    let table = enabled(entity_type);
    let entity = Entity { entity_type: entity_type.to_owned(), entity_id: entity_id.to_owned(), tenant: tenant_id };
    let order = (instant(occurred_at), uuid::Uuid::from_bytes(*id.as_bytes()));
    let state = Spi::connect(|client| fold_until(client, &table, &entity, Until::Event(order))).map(JsonB);
    TableIterator::new(vec![(state, table.schema_version)])
}

/// An event's payload in the present form; as it is where its table is not enabled.
#[pg_extern(sql = false)]
fn lift(entity_type: &str, event_type: &str, source: &str, schema_version: i32, payload: JsonB) -> JsonB {
    let Some((table, name)) = table::of_entity(entity_type).zip(name_of(event_type, entity_type)) else {
        return payload;
    };
    let shape = Shape::of_event(name, source == "capture");
    if !table.upcasts.concern(shape, schema_version) {
        return payload;
    }
    let members = object(payload.0).unwrap_or_default();
    JsonB(Value::Object(custom::lift(&table.upcasts, shape, schema_version, members, Runner::Current)))
}

fn fold_until(client: &SpiClient<'_>, table: &Table, entity: &Entity, until: Until) -> Option<Value> {
    let Folding { base, mut events, .. } = head::folding_of(client, entity, until, &table.upcasts, Runner::Current);
    head::fold(base, &mut events, &table.rules, Runner::Current).state.map(Value::Object)
}

/// The instant of a timestamp; of one beyond the years 1 to 9999, where no event stands, the nearest in them.
pub(crate) fn instant(at: TimestampWithTimeZone) -> Micros {
    const YEAR_1: Micros = Micros(-62_135_596_800_000_000);
    const YEAR_9999: Micros = Micros(253_402_300_799_999_999);
    let at = at.into_inner().clamp(YEAR_1.to_postgres(), YEAR_9999.to_postgres());
    Micros::from_postgres(at)
}

/// The table of an entity; an error where there is none.
pub(crate) fn enabled(entity_type: &str) -> Rc<Table> {
    table::of_entity(entity_type).unwrap_or_else(|| {
        raise(
            PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT,
            format!("no enabled table is entity \"{entity_type}\""),
            "select * from headwater.syncable_tables() lists them.",
        )
    })
}

/// An error where retention has dropped what the state of that time was made of.
fn require_history(client: &SpiClient<'_>, entity: &Entity, at: Micros) {
    let floor = read_once(
        client,
        "select occurred_at from headwater.snapshot
         where entity_type = $1 and entity_id = $2 and tenant_id is not distinct from $3 and is_floor and occurred_at > $4",
        &[entity.entity_type.as_str().into(), entity.entity_id.as_str().into(), entity.tenant.as_deref().into(), clock::timestamp(at).into()],
    )
    .next()
    .map(|row| row.get::<TimestampWithTimeZone>(1).expect("a timestamptz").expect("a fold has a last event"));
    if let Some(floor) = floor.map(instant) {
        raise(
            PgSqlErrorCode::ERRCODE_NO_DATA_FOUND,
            format!(
                "the history of {} {:?} reaches back to {floor}; as_of is {at}",
                entity.entity_type, entity.entity_id
            ),
            "What was before has been dropped by headwater.apply_retention.",
        );
    }
}
