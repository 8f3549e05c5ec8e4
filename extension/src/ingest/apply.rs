//! Applying events: under the entities' locks, each event is stored and its entity's row brought to what the fold says.
//!
//! The row in the user's table equals the fold after every commit. An event that is its entity's newest applies straight
//! to the row, for the row is the fold of all before it; a late one folds the entity anew. What the table itself made of
//! the row is recorded as a captured `updated`, right behind the event that it belongs to (same instant, an id
//! shortly behind):
//! defaults behind the event that began the entity, so that they yield to events which arrive late; what triggers and
//! generated columns changed behind the last event.

use std::collections::BTreeMap;
use std::rc::Rc;

use headwater_model::clock::Micros;
use headwater_model::event::{Code, NewEvent, Reject, StoredEvent, id_behind};
use headwater_model::fold::{self, State};
use pgrx::pg_sys::Oid;
use pgrx::prelude::*;
use pgrx::spi::SpiClient;
use serde_json::{Map, Value};

use super::Arrived;
use super::outcome::Rejection;
use super::row;
use crate::clock::{self, pg_uuid};
use crate::head::{self, Entity, Folded, Order};
use crate::session::ActingAs;
use crate::settings::Settings;
use crate::spi::{self, SqlError, Statement, run_once};
use crate::table::Table;

/// Where an event comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// `POST /events/batch`
    Client,
    /// `headwater.emit`
    Sql,
    /// The table itself.
    Capture,
}

impl Source {
    fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Sql => "sql",
            Self::Capture => "capture",
        }
    }
}

/// An event whose table is known and whose payload fits its rule.
pub(crate) struct Prepared {
    pub(crate) table: Rc<Table>,
    pub(crate) event: NewEvent,
    /// Whose the row is; `None` where the table has no tenant column.
    pub(crate) tenant: Option<String>,
    pub(crate) user_id: Option<String>,
    pub(crate) occurred_at: Micros,
    pub(crate) source: Source,
    /// How it came, if it has a receipt.
    pub(super) arrived: Option<Arrived>,
}

impl Prepared {
    /// An event that did not come in a batch.
    pub(crate) fn emitted(table: Rc<Table>, event: NewEvent, occurred_at: Micros) -> Self {
        let (tenant, user_id) = (event.tenant_id.clone(), event.user_id.clone());
        Self { table, tenant, user_id, occurred_at, source: Source::Sql, event, arrived: None }
    }

    fn entity(&self) -> Entity {
        Entity {
            entity_type: self.event.entity_type.clone(),
            entity_id: self.event.entity_id.clone(),
            tenant: self.tenant.clone(),
        }
    }

    fn stored(&self) -> StoredEvent {
        StoredEvent {
            occurred_at: self.occurred_at,
            id: self.event.id,
            name: self.event.name().to_owned(),
            captured: false,
            payload: self.event.payload.clone(),
        }
    }

    fn record(&self) -> Record {
        Record {
            id: self.event.id,
            tenant: self.tenant.clone(),
            entity_type: self.event.entity_type.clone(),
            entity_id: self.event.entity_id.clone(),
            event_type: self.event.event_type.clone(),
            payload: self.event.payload.clone(),
            schema_version: self.event.schema_version,
            occurred_at: self.occurred_at,
            user_id: self.user_id.clone(),
            client_id: self.event.client_id.clone(),
            source: self.source,
            applies: true,
        }
    }
}

/// Applies all of the events or none. A transient failure is raised: the whole batch is to be sent again.
pub(super) fn attempt(events: &[&Prepared], role: Oid, claims: &str) -> Result<(), Rejection> {
    match spi::attempt(|| apply(events, role, Some(claims)), Result::is_ok) {
        Ok(applied) => applied.map_err(Rejection::of),
        Err(error) => Err(rejection(error)),
    }
}

/// Applies all of the events; an error leaves some of it done.
pub(crate) fn apply(events: &[&Prepared], role: Oid, claims: Option<&str>) -> Result<(), Reject> {
    let _settings = Settings::for_rendering();
    let mut by_entity: BTreeMap<Entity, Vec<&Prepared>> = BTreeMap::new();
    for event in events {
        by_entity.entry(event.entity()).or_default().push(event);
    }
    let mut touched = Vec::with_capacity(by_entity.len());
    let entities: Vec<_> = by_entity.into_iter().collect();
    for group in entities.chunk_by(|(a, _), (b, _)| a.entity_type == b.entity_type && a.tenant == b.tenant) {
        touched.extend(lock(group, role, claims)?);
    }
    Spi::connect_mut(|client| record(client, &events.iter().map(|event| event.record()).collect::<Vec<_>>()));
    let mut made_by_the_table = Vec::new();
    for entity in touched {
        let folded = entity.fold();
        made_by_the_table.extend(entity.write(folded, role, claims)?);
    }
    Spi::connect_mut(|client| record(client, &made_by_the_table));
    // Deferred constraints and triggers judge now, while a violation can still be laid at these events' door.
    let _acting = ActingAs::role(role, claims);
    Spi::connect_mut(|client| {
        run_once(client, "set constraints all immediate", &[]);
    });
    Ok(())
}

/// An entity under its lock, with the events that came for it.
struct Touched<'e> {
    entity: Entity,
    table: Rc<Table>,
    events: Vec<&'e Prepared>,
    /// The row's state.
    before: Option<State>,
    head: Option<Order>,
}

/// Locks entities of one type and tenant, and reads where they stand.
fn lock<'e>(
    group: &[(Entity, Vec<&'e Prepared>)],
    role: Oid,
    claims: Option<&str>,
) -> Result<Vec<Touched<'e>>, Reject> {
    let (first, events) = &group[0];
    let table = Rc::clone(&events[0].table);
    let ids: Vec<String> = group.iter().map(|(entity, _)| entity.entity_id.clone()).collect();
    let mut rows = row::lock(&table, first.tenant.as_deref(), &ids, role, claims)?;
    Spi::connect_mut(|client| {
        let heads = head::heads(client, &first.entity_type, first.tenant.as_deref(), &ids);
        let touched: Vec<_> = group
            .iter()
            .zip(heads)
            .map(|((entity, events), head)| Touched {
                entity: entity.clone(),
                table: Rc::clone(&table),
                events: events.clone(),
                before: rows.remove(&entity.entity_id),
                head,
            })
            .collect();
        if !table.backfilled {
            baselines(client, &touched);
        }
        for entity in &touched {
            entity.expect_position(client)?;
        }
        Ok(touched)
    })
}

/// Until a table is backfilled, the first event of a row that was there before writes its baseline.
fn baselines(client: &mut SpiClient<'_>, touched: &[Touched<'_>]) {
    for touched in touched.iter().filter(|touched| touched.head.is_none()) {
        if let Some(before) = &touched.before {
            run_once(
                client,
                "insert into headwater.snapshot (entity_type, entity_id, tenant_id, state) values ($1, $2, $3, $4::jsonb)
                 on conflict do nothing",
                &[
                    touched.entity.entity_type.as_str().into(),
                    touched.entity.entity_id.as_str().into(),
                    touched.entity.tenant.as_deref().into(),
                    Value::Object(before.clone()).to_string().into(),
                ],
            );
        }
    }
}

impl Touched<'_> {
    fn expect_position(&self, client: &mut SpiClient<'_>) -> Result<(), Reject> {
        let Some(expected) = self.events.iter().find_map(|event| event.event.expected_position) else { return Ok(()) };
        let latest = head::latest_position(client, &self.entity);
        if latest == expected {
            return Ok(());
        }
        let reason = format!("expected_position is {expected}, but the entity's latest event stands at {latest}");
        Err(Reject::new(Code::VersionConflict, reason))
    }

    /// The state that the entity has with the new events.
    fn fold(&self) -> Folded {
        let mut new: Vec<_> = self.events.iter().map(|event| event.stored()).collect();
        let late = new.iter().any(|event| self.head.is_some_and(|head| event.order() <= head));
        if !late {
            return head::fold(self.before.clone(), &mut new, &self.table.rules);
        }
        // The new events are in the table already.
        let (baseline, mut events) = Spi::connect_mut(|client| head::fold_of(client, &self.entity, None));
        head::fold(baseline, &mut events, &self.table.rules)
    }

    /// Brings the row to the folded state; returns what the table itself made of it, as events.
    fn write(&self, folded: Folded, role: Oid, claims: Option<&str>) -> Result<Vec<Record>, Reject> {
        let newest =
            self.events.iter().max_by_key(|event| event.stored().order()).expect("an entity is touched by an event");
        let actual = row::write(
            &self.table,
            &self.entity,
            self.before.as_ref(),
            folded.state.as_ref(),
            newest.user_id.as_deref(),
            role,
            claims,
        )?;
        let (Some(after), Some(actual)) = (folded.state, actual) else { return Ok(Vec::new()) };
        let last = newest.stored().order().max(self.head.unwrap_or((Micros(i64::MIN), uuid::Uuid::nil())));
        let (changed, defaults): (State, State) =
            fold::difference(&after, &actual).into_iter().partition(|(name, _)| after.contains_key(name));
        let defaults = (folded.begun_by.unwrap_or(last), defaults);
        let made = if defaults.0 == last {
            vec![(last, defaults.1.into_iter().chain(changed).collect())]
        } else {
            vec![defaults, (last, changed)]
        };
        let made = made.into_iter().filter(|(_, difference): &(Order, State)| !difference.is_empty());
        Ok(made.map(|(behind, difference)| self.updated(behind, difference, newest)).collect())
    }

    fn updated(&self, behind: Order, difference: State, cause: &Prepared) -> Record {
        let (occurred_at, id) = match id_behind(behind.1, clock::random()) {
            Some(next) => (behind.0, next),
            None => (behind.0.plus(1), clock::new_id()),
        };
        Record {
            id,
            tenant: self.entity.tenant.clone(),
            entity_type: self.entity.entity_type.clone(),
            entity_id: self.entity.entity_id.clone(),
            event_type: format!("{}.updated", self.entity.entity_type),
            payload: difference,
            schema_version: self.table.schema_version,
            occurred_at,
            user_id: cause.user_id.clone(),
            client_id: None,
            source: Source::Capture,
            applies: true,
        }
    }
}

/// A row of the event table, but for its position and `recorded_at`.
pub(crate) struct Record {
    pub(crate) id: uuid::Uuid,
    pub(crate) tenant: Option<String>,
    pub(crate) entity_type: String,
    pub(crate) entity_id: String,
    pub(crate) event_type: String,
    pub(crate) payload: Map<String, Value>,
    pub(crate) schema_version: i32,
    pub(crate) occurred_at: Micros,
    pub(crate) user_id: Option<String>,
    pub(crate) client_id: Option<String>,
    pub(crate) source: Source,
    pub(crate) applies: bool,
}

/// Inserts events; their positions rise in the order given.
pub(crate) fn record(client: &mut SpiClient<'_>, records: &[Record]) {
    thread_local! {
        static INSERT: Statement = Statement::new(
            "insert into headwater.event (id, tenant_id, entity_type, entity_id, event_type, payload, schema_version,
                                          occurred_at, recorded_at, user_id, client_id, source, applies)
             select id, tenant_id, entity_type, entity_id, event_type, payload::jsonb, schema_version,
                    occurred_at, $13, user_id, client_id, source, applies
             from unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::int[],
                         $8::timestamptz[], $9::text[], $10::text[], $11::text[], $12::bool[])
                  with ordinality e (id, tenant_id, entity_type, entity_id, event_type, payload, schema_version,
                                     occurred_at, user_id, client_id, source, applies, place)
             order by place",
        );
    }
    if records.is_empty() {
        return;
    }
    fn column<T>(records: &[Record], of: impl Fn(&Record) -> T) -> Vec<T> {
        records.iter().map(of).collect()
    }
    INSERT.with(|insert| {
        insert.run(
            client,
            &[
                column(records, |r| pg_uuid(r.id)).into(),
                column(records, |r| r.tenant.clone()).into(),
                column(records, |r| r.entity_type.clone()).into(),
                column(records, |r| r.entity_id.clone()).into(),
                column(records, |r| r.event_type.clone()).into(),
                column(records, |r| serde_json::to_string(&r.payload).expect("a map of JSON values")).into(),
                column(records, |r| r.schema_version).into(),
                column(records, |r| clock::timestamp(r.occurred_at)).into(),
                column(records, |r| r.user_id.clone()).into(),
                column(records, |r| r.client_id.clone()).into(),
                column(records, |r| r.source.as_str().to_owned()).into(),
                column(records, |r| r.applies).into(),
                clock::timestamp(clock::now()).into(),
            ],
        );
    });
}

/// What an error of the table means for the event that caused it. Failures that are nobody's fault are raised again.
fn rejection(error: SqlError) -> Rejection {
    let sqlstate = error.sqlstate();
    let code = match (&sqlstate[..2], sqlstate.as_str()) {
        // Serialization and deadlock, resources, operator intervention, I/O, connection, read-only, our own bugs.
        ("08" | "25" | "40" | "53" | "57" | "58" | "F0" | "XX", _) | (_, "55P03") => error.rethrow(),
        (_, "42501") => Code::Forbidden,
        ("22", _) | (_, "42804") => Code::InvalidPayload,
        _ => Code::ConstraintViolation,
    };
    let mut more = Map::new();
    more.insert("sqlstate".to_owned(), sqlstate.into());
    if let Some(constraint) = constraint_name(&error.message) {
        more.insert("constraint".to_owned(), constraint.into());
    }
    Rejection { reject: Reject::new(code, error.message), more }
}

/// The constraint that a message names. (The error's own field for it does not reach Rust.)
fn constraint_name(message: &str) -> Option<&str> {
    let (_, name) = message.split_once("constraint \"")?;
    name.split_once('"').map(|(name, _)| name)
}
