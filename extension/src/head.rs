//! Where an entity's fold stands, and the fold itself, read from the event table.

use std::cell::RefCell;
use std::collections::HashSet;

use headwater_model::clock::Micros;
use headwater_model::event::{StoredEvent, name_of};
use headwater_model::fold::{self, State};
use headwater_model::rules::Rules;
use headwater_model::upcast::{Shape, Upcasts};
use pgrx::prelude::*;
use pgrx::spi::{SpiClient, quote_literal};
use pgrx::{FromDatum, Uuid, pg_sys};
use serde_json::Value;

use crate::clock;
use crate::custom::{self, Runner};
use crate::jsonb::JsonB;
use crate::seek::Seek;
use crate::spi::{SetStatement, Statement, for_each_row, latest, read_once};

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

/// Where an entity stands.
pub(crate) struct Head {
    /// The last applying event, folded into a snapshot or not; none where there is none.
    pub(crate) last: Option<Order>,
    /// It was erased: nothing is taken for it any more.
    pub(crate) erased: bool,
}

/// Where these entities stand, all of one type and tenant.
pub(crate) fn heads(
    client: &mut SpiClient<'_>,
    entity_type: &str,
    tenant: Option<&str>,
    entity_ids: &[String],
) -> Vec<Head> {
    thread_local! {
        /// Types of which something had been erased or folded when this backend last asked: it stays so.
        static GONE: RefCell<HashSet<String>> = RefCell::default();
        static IS_GONE: Statement = Statement::new(
            "select exists (select from headwater.erased x where x.entity_type = $1)
                 or exists (select from headwater.snapshot s where s.entity_type = $1 and s.id is not null)",
        );
    }
    if !GONE.with_borrow(|gone| gone.contains(entity_type))
        && let Some(seek) = Seek::now(entity_type, tenant)
    {
        let last = seek.last(entity_ids);
        seek.close();
        // Asked behind it: what is not there now was not there then.
        let gone = IS_GONE.with(|gone| gone.run(client, &[entity_type.into()]).first().get_one());
        if gone.expect("a boolean") == Some(false) {
            return last.into_iter().map(|last| Head { last, erased: false }).collect();
        }
        GONE.with_borrow_mut(|gone| gone.insert(entity_type.to_owned()));
    }
    heads_among_all(client, entity_type, tenant, entity_ids)
}

/// The same, where entities were erased, or events folded into snapshots.
fn heads_among_all(
    client: &mut SpiClient<'_>,
    entity_type: &str,
    tenant: Option<&str>,
    entity_ids: &[String],
) -> Vec<Head> {
    thread_local! {
        static HEADS: SetStatement = SetStatement::new(
            // Where nothing was ever erased or folded, that is asked once, not for each entity.
            "select h.occurred_at, h.id,
                    (select exists (select from headwater.erased))
                    and exists (select from headwater.erased x where x.entity_type = $1 and x.entity_id = u.entity_id)
             from unnest($3::text[]) with ordinality u (entity_id, place)
             left join lateral (
               (select e.occurred_at, e.id from headwater.event e
                where e.entity_type = $1 and e.entity_id = u.entity_id and e.tenant_id is not distinct from $2 and e.applies
                order by e.occurred_at desc, e.id desc limit 1)
               union all
               (select s.occurred_at, s.id from headwater.snapshot s
                where (select exists (select from headwater.snapshot)) and s.entity_type = $1 and s.entity_id = u.entity_id and s.tenant_id is not distinct from $2
                  and s.id is not null)
               order by 1 desc, 2 desc limit 1
             ) h on true
             order by u.place",
        );
    }
    HEADS.with(|heads| heads.run(client, &[entity_type.into(), tenant.into(), entity_ids.to_vec().into()]));
    let mut heads = Vec::with_capacity(entity_ids.len());
    for_each_row(client, |values, nulls| {
        // SAFETY: a timestamptz, a uuid and a boolean.
        let (at, id, erased) = unsafe {
            (
                TimestampWithTimeZone::from_datum(values[0], nulls[0]),
                Uuid::from_datum(values[1], nulls[1]),
                bool::from_datum(values[2], nulls[2]),
            )
        };
        let last = at.zip(id).map(|(at, id)| (micros(at), uuid::Uuid::from_bytes(*id.as_bytes())));
        heads.push(Head { last, erased: erased.expect("exists is not null") });
    });
    heads
}

/// The latest position of an entity; 0 where it has no event.
pub(crate) fn latest_position(client: &SpiClient<'_>, entity: &Entity) -> i64 {
    read_once(
        client,
        // Retention leaves the greatest position that it drops in the snapshot.
        "select greatest(
           (select max(position) from headwater.event
            where entity_type = $1 and entity_id = $2 and tenant_id is not distinct from $3),
           (select max(position) from headwater.snapshot
            where entity_type = $1 and entity_id = $2 and tenant_id is not distinct from $3))",
        &[entity.entity_type.as_str().into(), entity.entity_id.as_str().into(), entity.tenant.as_deref().into()],
    )
    .first()
    .get_one()
    .expect("one bigint")
    .unwrap_or(0)
}

/// The first of these entities, each with a place in its history, of which another transaction has by now committed an
/// event behind that place.
pub(crate) fn overtaken(
    client: &mut SpiClient<'_>,
    entity_type: &str,
    tenant: Option<&str>,
    places: &[(&str, Order)],
) -> Option<String> {
    if let Some(seek) = Seek::latest(entity_type, tenant) {
        let overtaken = seek.overtaken(places);
        seek.close();
        return overtaken;
    }
    thread_local! {
        static BEHIND: SetStatement = SetStatement::new(
            "select u.entity_id, e.xmin
             from unnest($3::text[], $4::timestamptz[], $5::uuid[]) u (entity_id, occurred_at, id)
             join headwater.event e
               on e.entity_type = $1 and e.entity_id = u.entity_id and e.tenant_id is not distinct from $2 and e.applies
                  and (e.occurred_at, e.id) > (u.occurred_at, u.id)",
        );
    }
    let ids: Vec<_> = places.iter().map(|(entity_id, _)| (*entity_id).to_owned()).collect();
    let at: Vec<_> = places.iter().map(|(_, (at, _))| clock::timestamp(*at)).collect();
    let event_ids: Vec<_> = places.iter().map(|(_, (_, id))| clock::pg_uuid(*id)).collect();
    BEHIND.with(|behind| {
        behind.run_latest(client, &[entity_type.into(), tenant.into(), ids.into(), at.into(), event_ids.into()]);
    });
    let mut overtaken = None;
    for_each_row(client, |values, nulls| {
        // SAFETY: a text and a transaction's number.
        unsafe {
            let writer = pg_sys::TransactionId::from_datum(values[1], nulls[1]).expect("every row has a writer");
            if overtaken.is_none() && !pg_sys::TransactionIdIsCurrentTransactionId(writer) {
                overtaken = String::from_datum(values[0], nulls[0]);
            }
        }
    });
    overtaken
}

/// Whether an entity has an event with this id, in whatever tenant, as of this moment.
pub(crate) fn has_event(client: &SpiClient<'_>, entity_type: &str, entity_id: &str, id: uuid::Uuid) -> bool {
    let (entity_type, entity_id) = (quote_literal(entity_type), quote_literal(entity_id));
    let sql = format!(
        "select 'true'::jsonb from headwater.event
         where entity_type = {entity_type} and entity_id = {entity_id} and id = '{id}' limit 1"
    );
    latest(client, &sql).is_some()
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
            clock::timestamp(occurred_at).into(),
            clock::pg_uuid(id).into(),
        ],
    )
    .next()
    .and_then(|row| row.get(1).expect("a text"))
}

/// Whether an entity was erased, as of this moment.
pub(crate) fn is_erased(client: &SpiClient<'_>, entity_type: &str, entity_id: &str) -> bool {
    let (entity_type, entity_id) = (quote_literal(entity_type), quote_literal(entity_id));
    let sql = format!(
        "select 'true'::jsonb from headwater.erased where entity_type = {entity_type} and entity_id = {entity_id}"
    );
    latest(client, &sql).is_some()
}

/// What an entity's fold is made of, every state and payload in its present form.
pub(crate) struct Folding {
    /// The state beneath the events.
    pub(crate) base: Option<State>,
    /// The last event that the base is the fold of; none beneath a baseline.
    pub(crate) folded: Option<Order>,
    /// The applying events above the base.
    pub(crate) events: Vec<StoredEvent>,
    /// Where two events stand in one place: somebody has used the id of another event.
    pub(crate) doubled: Vec<Order>,
}

/// Up to where an entity is folded.
#[derive(Clone, Copy)]
pub(crate) enum Until {
    /// All of its events.
    Now,
    /// What had happened by then.
    Instant(Micros),
    /// The event that stands there, and those before it.
    Event(Order),
}

impl Until {
    fn arguments<'a>(self) -> [pgrx::datum::DatumWithOid<'a>; 2] {
        // The greatest id there is: every event of the instant stands at or before it.
        let (at, id) = match self {
            Self::Now => (None, None),
            Self::Instant(at) => (Some(at), Some(uuid::Uuid::max())),
            Self::Event((at, id)) => (Some(at), Some(id)),
        };
        [at.map(clock::timestamp).into(), id.map(clock::pg_uuid).into()]
    }
}

/// Reads what an entity's fold is made of, from the latest snapshot that lies at or before `until`.
pub(crate) fn folding_of(
    client: &SpiClient<'_>,
    entity: &Entity,
    until: Until,
    upcasts: &Upcasts,
    runner: Runner<'_>,
) -> Folding {
    thread_local! {
        // One statement: between two, retention could drop what the first has found to be of use.
        static FOLDING: SetStatement = SetStatement::new(
            "with beneath as (
               select state, schema_version, occurred_at, id from headwater.snapshot
               where entity_type = $1 and entity_id = $2 and tenant_id is not distinct from $3
                 and ($4::timestamptz is null or id is null or (occurred_at, id) <= ($4, $5::uuid))
               order by occurred_at desc nulls last, id desc limit 1
             )
             select occurred_at, id, null, null, state, schema_version, 0 as place from beneath
             union all
             select occurred_at, id, event_type, source = 'capture', payload, schema_version, 1 from headwater.event
             where entity_type = $1 and entity_id = $2 and tenant_id is not distinct from $3 and applies
               and ($4::timestamptz is null or (occurred_at, id) <= ($4, $5::uuid))
               and (occurred_at, id) > (coalesce((select occurred_at from beneath), '-infinity'),
                                        coalesce((select id from beneath), '00000000-0000-0000-0000-000000000000'))
             order by place, occurred_at, id",
        );
    }
    let [at, id] = until.arguments();
    let arguments =
        [entity.entity_type.as_str().into(), entity.entity_id.as_str().into(), entity.tenant.as_deref().into(), at, id];
    FOLDING.with(|folding| folding.read(client, &arguments));
    let mut rows = Vec::new();
    for_each_row(client, |values, nulls| rows.push(Row::of(values, nulls)));
    let lift = |shape: Shape<'_>, from: i32, members: State| custom::lift(upcasts, shape, from, members, runner);
    let mut folding = Folding { base: None, folded: None, events: Vec::with_capacity(rows.len()), doubled: Vec::new() };
    // A step of an upcast may ask the database: the rows are taken out before.
    for Row { order, event_type, captured, members, version } in rows {
        let Some(event_type) = event_type else {
            folding.base = members.map(|state| lift(Shape::State, version, state));
            folding.folded = order;
            continue;
        };
        let (Some(name), Some(payload)) = (name_of(&event_type, &entity.entity_type), members) else { continue };
        let payload = lift(Shape::of_event(name, captured), version, payload);
        let (occurred_at, id) = order.expect(NOT_NULL);
        folding.events.push(StoredEvent { occurred_at, id, name: name.to_owned(), captured, payload });
    }
    // One that is there twice counts once.
    folding.events.dedup_by(|event, before| {
        let same = event.order() == before.order();
        if same {
            folding.doubled.push(event.order());
        }
        same
    });
    folding
}

const NOT_NULL: &str = "the event table's columns are not null";

/// What lies beneath a fold, or an event of it.
struct Row {
    order: Option<Order>,
    /// None for what lies beneath.
    event_type: Option<String>,
    captured: bool,
    members: Option<State>,
    version: i32,
}

impl Row {
    fn of(values: &[pg_sys::Datum], nulls: &[bool]) -> Self {
        // SAFETY: a timestamptz, a uuid, a text, a boolean, a jsonb and an integer.
        unsafe {
            let at = TimestampWithTimeZone::from_datum(values[0], nulls[0]);
            let id = Uuid::from_datum(values[1], nulls[1]);
            Self {
                order: at.zip(id).map(|(at, id)| (micros(at), uuid::Uuid::from_bytes(*id.as_bytes()))),
                event_type: String::from_datum(values[2], nulls[2]),
                captured: bool::from_datum(values[3], nulls[3]).unwrap_or(false),
                members: JsonB::from_datum(values[4], nulls[4]).and_then(|members| object(members.0)),
                version: i32::from_datum(values[5], nulls[5]).expect(NOT_NULL),
            }
        }
    }
}

/// A state, and the event that last began it.
#[derive(Clone, Debug)]
pub(crate) struct Folded {
    pub(crate) state: Option<State>,
    /// `None` where the state began with the baseline, or has not begun.
    pub(crate) begun_by: Option<Order>,
}

/// The fold; `runner` says as whom custom rules are called.
pub(crate) fn fold(baseline: Option<State>, events: &mut [StoredEvent], rules: &Rules, runner: Runner<'_>) -> Folded {
    fold_on(Folded { state: baseline, begun_by: None }, events, rules, runner)
}

/// The fold of what was folded `before`, and these events behind.
pub(crate) fn fold_on(before: Folded, events: &mut [StoredEvent], rules: &Rules, runner: Runner<'_>) -> Folded {
    let mut custom = |function: &str, state: &State, event: &StoredEvent| custom::merge(runner, function, state, event);
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
