//! Applying events: under the entities' locks, each event is stored and its entity's row brought to what the fold says.
//!
//! The row in the user's table equals the fold after every commit. An event that is its entity's newest applies straight
//! to the row, for the row is the fold of all before it; a late one folds the entity anew. What the table itself made of
//! the row is recorded as a captured `updated`, right behind the event that it belongs to (same instant, an id shortly
//! behind): what defaults filled in behind the event that began the entity, as a fill that yields to events which arrive
//! late; what triggers and generated columns changed behind the last event.

use std::collections::BTreeMap;
use std::rc::Rc;

use headwater_model::clock::Micros;
use headwater_model::event::{Code, NewEvent, Reject, StoredEvent, id_behind, id_of_fill};
use headwater_model::fold::{self, State};
use headwater_model::rules::{Rule, Rules};
use pgrx::pg_sys::Oid;
use pgrx::prelude::*;
use pgrx::spi::SpiClient;
use serde_json::{Map, Value};

use super::Arrived;
use super::outcome::Rejection;
use super::row;
use crate::capture;
use crate::clock::{self, pg_uuid};
use crate::custom::Runner;
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

    pub(super) fn entity(&self) -> Entity {
        Entity {
            entity_type: self.event.entity_type.clone(),
            entity_id: self.event.entity_id.clone(),
            tenant: self.tenant.clone(),
        }
    }

    fn order(&self) -> Order {
        (self.occurred_at, self.event.id)
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
    let work = || apply(events, role, Some(claims)).inspect(|()| check_constraints(role, claims));
    match spi::attempt(work, Result::is_ok) {
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
    for mut entity in touched {
        made_by_the_table.extend(entity.apply(role, claims)?);
    }
    Spi::connect_mut(|client| record(client, &made_by_the_table));
    Ok(())
}

/// Deferred constraints and triggers judge now, while a violation can still be laid at these events' door.
fn check_constraints(role: Oid, claims: &str) {
    let _acting = ActingAs::role(role, Some(claims));
    Spi::connect_mut(|client| {
        run_once(client, "set constraints all immediate", &[]);
    });
}

/// An entity under its lock, with the events that came for it.
struct Touched<'e> {
    entity: Entity,
    table: Rc<Table>,
    events: Vec<&'e Prepared>,
    /// The row's state.
    row: Option<State>,
    /// The last applying event.
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
                row: rows.remove(&entity.entity_id),
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
        if let Some(row) = &touched.row {
            run_once(
                client,
                "insert into headwater.snapshot (entity_type, entity_id, tenant_id, state) values ($1, $2, $3, $4::jsonb)
                 on conflict do nothing",
                &[
                    touched.entity.entity_type.as_str().into(),
                    touched.entity.entity_id.as_str().into(),
                    touched.entity.tenant.as_deref().into(),
                    Value::Object(row.clone()).to_string().into(),
                ],
            );
        }
    }
}

impl Touched<'_> {
    /// Optimistic concurrency. Several events in one batch are judged one by one: each moves the position.
    fn expect_position(&self, client: &mut SpiClient<'_>) -> Result<(), Reject> {
        let Some(expected) = self.events.iter().find_map(|event| event.event.expected_position) else { return Ok(()) };
        let latest = head::latest_position(client, &self.entity);
        if latest == expected && self.events.len() == 1 {
            return Ok(());
        }
        let reason = format!("expected_position is {expected}, but the entity's latest event stands at {latest}");
        Err(Reject::new(Code::VersionConflict, reason))
    }

    /// Brings the row to the state that it has with the new events; returns what the table itself made of it, as events.
    fn apply(&mut self, role: Oid, claims: Option<&str>) -> Result<Vec<Record>, Reject> {
        self.events.sort_by_key(|event| event.order());
        let events = std::mem::take(&mut self.events);
        let mut made = Vec::new();
        let mut left = &events[..];
        // One write for each event, so that constraints and policies judge each; but one for those of the same instant,
        // among which what the table made of the first could sort behind the second.
        for step in events.chunk_by(|a, b| a.occurred_at == b.occurred_at) {
            if self.head.is_some_and(|head| step[0].order() <= head) {
                Spi::connect_mut(|client| record(client, &std::mem::take(&mut made)));
                return self.fold_anew(left, role, claims);
            }
            let mut new: Vec<_> = step.iter().map(|event| event.stored()).collect();
            let folded = head::fold(self.row.clone(), &mut new, &self.table.rules, Runner::Role(role, claims));
            let captured_before = capture::recorded();
            made.extend(self.write(folded, step, role, claims)?);
            left = &left[step.len()..];
            if capture::recorded() != captured_before && !left.is_empty() {
                // Triggers of the user's have changed rows, perhaps this one again.
                self.look_again(role, claims)?;
            }
        }
        Ok(made)
    }

    /// For events that come late: the state from the beginning. They are in the table already.
    fn fold_anew(&mut self, events: &[&Prepared], role: Oid, claims: Option<&str>) -> Result<Vec<Record>, Reject> {
        let (baseline, mut all) = Spi::connect_mut(|client| head::fold_of(client, &self.entity, None));
        let folded = head::fold(baseline, &mut all, &self.table.rules, Runner::Role(role, claims));
        let deleted = || all.iter().any(|event| ends(event, &self.table.rules));
        if folded.state.is_none() && self.row.is_some() && !deleted() {
            // A row is never deleted because its history does not reach back to its beginning.
            let reason = "the entity's history does not explain its row; an operator can mend that: headwater.check()";
            return Err(Reject::new(Code::ConstraintViolation, reason));
        }
        self.write(folded, events, role, claims)
    }

    /// Reads row and head anew.
    fn look_again(&mut self, role: Oid, claims: Option<&str>) -> Result<(), Reject> {
        let Entity { entity_type, entity_id, tenant } = &self.entity;
        let ids = std::slice::from_ref(entity_id);
        self.row = row::lock(&self.table, tenant.as_deref(), ids, role, claims)?.remove(entity_id);
        let heads = Spi::connect(|client| head::heads(client, entity_type, tenant.as_deref(), ids));
        self.head = self.head.max(heads.into_iter().flatten().next());
        Ok(())
    }

    /// Writes the row. Afterwards `row` and `head` are what they are with `events`, the newest last.
    fn write(
        &mut self,
        folded: Folded,
        events: &[&Prepared],
        role: Oid,
        claims: Option<&str>,
    ) -> Result<Vec<Record>, Reject> {
        let newest = events.last().expect("an entity is touched by an event");
        let actual = row::write(
            &self.table,
            &self.entity,
            self.row.as_ref(),
            folded.state.as_ref(),
            newest.user_id.as_deref(),
            role,
            claims,
        )?;
        self.row.clone_from(&actual);
        let last = self.head.map_or(newest.order(), |head| head.max(newest.order()));
        self.head = Some(last);
        let (Some(after), Some(actual)) = (folded.state, actual) else { return Ok(Vec::new()) };
        let begun = folded.begun_by.unwrap_or(last);
        let (changed, filled): (State, State) =
            fold::difference(&after, &actual).into_iter().partition(|(name, _)| after.contains_key(name));
        let filled = (!filled.is_empty()).then(|| (begun.0, id_of_fill(begun.1, clock::random()), filled));
        let gap = u32::try_from(clock::random() >> 96).expect("32 bits");
        let changed = (!changed.is_empty()).then(|| (last.0, id_behind(last.1, gap), changed));
        let made = [filled, changed].into_iter().flatten();
        Ok(made.map(|(at, id, difference)| self.updated(at, id, difference, newest)).collect())
    }

    /// Without an id that sorts behind the cause's, the event stands one microsecond behind.
    fn updated(&self, at: Micros, id: Option<uuid::Uuid>, difference: State, cause: &Prepared) -> Record {
        let (occurred_at, id) = id.map_or_else(|| (at.plus(1), clock::new_id()), |id| (at, id));
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

/// Whether an event can end its entity.
fn ends(event: &StoredEvent, rules: &Rules) -> bool {
    let custom = |rule: &Rule| matches!(rule, Rule::Delete | Rule::Custom { .. });
    if event.captured { event.name == "deleted" } else { rules.get(&event.name).is_some_and(custom) }
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

fn column<T>(records: &[Record], of: impl Fn(&Record) -> T) -> Vec<T> {
    records.iter().map(of).collect()
}
