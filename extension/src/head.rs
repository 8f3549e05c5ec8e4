//! Where an entity's fold stands, and the fold itself, read from the event table.

use headwater_model::clock::Micros;
use headwater_model::event::{StoredEvent, name_of};
use headwater_model::fold::{self, State};
use headwater_model::rules::Rules;
use pgrx::Uuid;
use pgrx::prelude::*;
use pgrx::spi::SpiClient;
use serde_json::Value;

use crate::custom::{self, Runner};
use crate::jsonb::JsonB;
use crate::spi::read_once;

/// An entity within a tenant: what locks, heads and folds belong to.
#[allow(clippy::struct_field_names, reason = "the names that they have in SQL")]
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Entity {
    pub(crate) entity_type: String,
    pub(crate) entity_id: String,
    pub(crate) tenant: Option<String>,
}

/// The place of an event among those of its entity.
pub(crate) type Order = (Micros, uuid::Uuid);

/// The last applying event of each of these entities, all of one type and tenant; none where there is none.
pub(crate) fn heads(
    client: &SpiClient<'_>,
    entity_type: &str,
    tenant: Option<&str>,
    entity_ids: &[String],
) -> Vec<Option<Order>> {
    read_once(
        client,
        "select h.occurred_at, h.id
         from unnest($3::text[]) with ordinality u (entity_id, place)
         left join lateral (
           (select e.occurred_at, e.id from headwater.event e
            where e.entity_type = $1 and e.entity_id = u.entity_id and e.tenant_id is not distinct from $2 and e.applies
            order by e.occurred_at desc, e.id desc limit 1)
           union all
           (select s.occurred_at, s.id from headwater.snapshot s
            where s.entity_type = $1 and s.entity_id = u.entity_id and s.tenant_id is not distinct from $2 and s.id is not null)
           order by 1 desc, 2 desc limit 1
         ) h on true
         order by u.place",
        &[entity_type.into(), tenant.into(), entity_ids.to_vec().into()],
    )
    .map(|row| {
        let occurred_at: Option<TimestampWithTimeZone> = row.get(1).expect("a timestamptz");
        let id: Option<Uuid> = row.get(2).expect("a uuid");
        occurred_at.zip(id).map(|(occurred_at, id)| (micros(occurred_at), uuid::Uuid::from_bytes(*id.as_bytes())))
    })
    .collect()
}

/// The latest position of an entity; 0 where it has no event.
pub(crate) fn latest_position(client: &SpiClient<'_>, entity: &Entity) -> i64 {
    read_once(
        client,
        "select coalesce(max(position), 0) from headwater.event
         where entity_type = $1 and entity_id = $2 and tenant_id is not distinct from $3",
        &[entity.entity_type.as_str().into(), entity.entity_id.as_str().into(), entity.tenant.as_deref().into()],
    )
    .first()
    .get_one()
    .expect("one bigint")
    .unwrap_or(0)
}

/// Whether an entity has an event with this id, in whatever tenant.
pub(crate) fn has_event(client: &SpiClient<'_>, entity_type: &str, entity_id: &str, id: uuid::Uuid) -> bool {
    let sql = "select 1 from headwater.event where entity_type = $1 and entity_id = $2 and id = $3 limit 1";
    let arguments = [entity_type.into(), entity_id.into(), crate::clock::pg_uuid(id).into()];
    read_once(client, sql, &arguments).next().is_some()
}

/// Who sent the event that has this place among those of its entity.
pub(crate) fn user_of(client: &SpiClient<'_>, entity: &Entity, (occurred_at, id): Order) -> Option<String> {
    read_once(
        client,
        "select user_id from headwater.event
         where entity_type = $1 and entity_id = $2 and tenant_id is not distinct from $3 and occurred_at = $4 and id = $5",
        &[
            entity.entity_type.as_str().into(),
            entity.entity_id.as_str().into(),
            entity.tenant.as_deref().into(),
            crate::clock::timestamp(occurred_at).into(),
            crate::clock::pg_uuid(id).into(),
        ],
    )
    .next()
    .and_then(|row| row.get(1).expect("a text"))
}

/// What an entity's fold is made of: its baseline and the events above it, up to and including `as_of`.
pub(crate) fn fold_of(
    client: &SpiClient<'_>,
    entity: &Entity,
    as_of: Option<Micros>,
) -> (Option<State>, Vec<StoredEvent>) {
    let of_entity =
        [entity.entity_type.as_str().into(), entity.entity_id.as_str().into(), entity.tenant.as_deref().into()];
    let baseline = read_once(
        client,
        "select state from headwater.snapshot where entity_type = $1 and entity_id = $2 and tenant_id is not distinct from $3",
        &of_entity,
    )
    .next()
    .and_then(|row| row.get::<JsonB>(1).expect("a jsonb"))
    .and_then(|state| object(state.0));
    let [entity_type, entity_id, tenant] = of_entity;
    let mut events: Vec<_> = read_once(
        client,
        "select occurred_at, id, event_type, source = 'capture', payload from headwater.event
         where entity_type = $1 and entity_id = $2 and tenant_id is not distinct from $3 and applies
           and ($4::timestamptz is null or occurred_at <= $4)
         order by occurred_at, id",
        &[entity_type, entity_id, tenant, as_of.map(crate::clock::timestamp).into()],
    )
    .filter_map(|row| {
        let get = "the event table's columns are not null";
        let event_type: String = row.get(3).expect(get).expect(get);
        let id: Uuid = row.get(2).expect(get).expect(get);
        Some(StoredEvent {
            occurred_at: micros(row.get(1).expect(get).expect(get)),
            id: uuid::Uuid::from_bytes(*id.as_bytes()),
            name: name_of(&event_type, &entity.entity_type)?.to_owned(),
            captured: row.get(4).expect(get).expect(get),
            payload: object(row.get::<JsonB>(5).expect(get).expect(get).0)?,
        })
    })
    .collect();
    // One that is there twice counts once.
    events.dedup_by_key(|event: &mut StoredEvent| event.order());
    (baseline, events)
}

/// A state, and the event that last began it.
#[derive(Debug)]
pub(crate) struct Folded {
    pub(crate) state: Option<State>,
    /// `None` where the state began with the baseline, or has not begun.
    pub(crate) begun_by: Option<Order>,
}

/// The fold; `runner` says as whom custom rules are called.
pub(crate) fn fold(baseline: Option<State>, events: &mut [StoredEvent], rules: &Rules, runner: Runner<'_>) -> Folded {
    let mut custom = |function: &str, state: &State, event: &StoredEvent| custom::merge(runner, function, state, event);
    let before = Folded { state: baseline, begun_by: None };
    fold::in_order(events).fold(before, |Folded { state, begun_by }, event| {
        let was_absent = state.is_none();
        let state = fold::apply(state, event, rules, &mut custom);
        let begun_by = if was_absent && state.is_some() { Some(event.order()) } else { begun_by };
        Folded { state, begun_by }
    })
}

/// The members of a JSON object.
pub(crate) fn object(value: Value) -> Option<State> {
    match value {
        Value::Object(members) => Some(members),
        _ => None,
    }
}

fn micros(at: TimestampWithTimeZone) -> Micros {
    Micros::from_postgres(at.into_inner())
}
