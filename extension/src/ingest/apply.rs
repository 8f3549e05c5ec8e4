//! Applying events: under the entities' locks, each event is stored and its entity's row brought to what the fold says
//! (see [`super::touched`]), the rows of many entities at a time ([`super::waves`]).

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};
use std::rc::Rc;

use headwater_model::clock::Micros;
use headwater_model::event::{Code, NewEvent, Reject, StoredEvent};
use headwater_model::fold::State;
use headwater_model::rules::Rule;
use pgrx::PgSqlErrorCode;
use pgrx::pg_sys::Oid;
use pgrx::prelude::*;
use pgrx::spi::SpiClient;
use serde_json::{Map, Value};

use super::Arrived;
use super::outcome::Rejection;
use super::record::{Record, Source, record};
use super::touched::Touched;
use super::{row, waves};
use crate::head::{self, Entity, Order};
use crate::raise::raise;
use crate::session::ActingAs;
use crate::settings::Settings;
use crate::spi::{self, SqlError, run_once};
use crate::table::Table;

/// An event whose table is known and whose payload fits its rule.
pub(crate) struct Prepared {
    pub(crate) table: Rc<Table>,
    /// As it was sent; so it is stored.
    pub(crate) event: Rc<NewEvent>,
    /// Its payload in the present form, where that is another one.
    pub(crate) lifted: Option<State>,
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
    pub(crate) fn emitted(table: Rc<Table>, event: NewEvent, lifted: Option<State>, occurred_at: Micros) -> Self {
        let (tenant, user_id) = (event.tenant_id.clone(), event.user_id.clone());
        let event = Rc::new(event);
        Self { table, tenant, user_id, occurred_at, source: Source::Sql, event, lifted, arrived: None }
    }

    pub(super) fn entity(&self) -> Entity {
        Entity {
            entity_type: self.event.entity_type.clone(),
            entity_id: self.event.entity_id.clone(),
            tenant: self.tenant.clone(),
        }
    }

    pub(super) fn order(&self) -> Order {
        (self.occurred_at, self.event.id)
    }

    pub(super) fn stored(&self) -> StoredEvent {
        StoredEvent {
            occurred_at: self.occurred_at,
            id: self.event.id,
            name: self.event.name().to_owned(),
            captured: false,
            payload: self.lifted.as_ref().unwrap_or(&self.event.payload).clone(),
        }
    }

    fn record(&self) -> Record<'_> {
        Record {
            id: self.event.id,
            tenant: self.tenant.as_deref().map(Cow::Borrowed),
            entity_type: Cow::Borrowed(&self.event.entity_type),
            entity_id: Cow::Borrowed(&self.event.entity_id),
            event_type: Cow::Borrowed(&self.event.event_type),
            payload: Cow::Borrowed(&self.event.payload),
            schema_version: self.event.schema_version,
            occurred_at: self.occurred_at,
            user_id: self.user_id.as_deref().map(Cow::Borrowed),
            client_id: self.event.client_id.as_deref().map(Cow::Borrowed),
            source: self.source,
            applies: true,
        }
    }
}

/// Whether an attempt asks deferred constraints and triggers too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Constraints {
    /// They have judged when the attempt ends.
    Checked,
    /// They wait, as the table's owner wants it.
    Deferred,
}

/// Applies all of the events or none. A transient failure is raised: the whole batch is to be sent again.
pub(super) fn attempt(
    events: &[&Prepared],
    constraints: Constraints,
    role: Oid,
    claims: &str,
) -> Result<(), Rejection> {
    let check = || {
        if constraints == Constraints::Checked {
            check_constraints(role, claims);
        }
    };
    let work = || apply(events, role, Some(claims)).inspect(|()| check());
    match spi::attempt(work, Result::is_ok) {
        Ok(applied) => applied,
        Err(error) => Err(rejection(error)),
    }
}

/// Applies all of the events; an error leaves some of it done.
pub(crate) fn apply(events: &[&Prepared], role: Oid, claims: Option<&str>) -> Result<(), Rejection> {
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
    // Rows in the order in which their events came: what a foreign key wants may be among them.
    touched.sort_by_key(|touched| touched.events.iter().filter_map(|one| Some(one.arrived.as_ref()?.index)).min());
    record(events.iter().map(|event| event.record()));
    record(waves::apply(&mut touched, role, claims)?);
    Ok(())
}

/// Deferred constraints and triggers judge now, while a violation can still be laid at these events' door.
pub(super) fn check_constraints(role: Oid, claims: &str) {
    let _acting = ActingAs::role(role, Some(claims));
    Spi::connect_mut(|client| {
        run_once(client, "set constraints all immediate", &[]);
    });
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
    // What is created now is not there yet, as a rule.
    let begins = |event: &&Prepared| matches!(table.rules.get(event.event.name()), Some(Rule::Create));
    let begun: HashSet<&str> = group
        .iter()
        .filter(|(_, events)| events.iter().any(begins))
        .map(|(entity, _)| entity.entity_id.as_str())
        .collect();
    let mut rows = row::lock(&table, first.tenant.as_deref(), &ids, |id| !begun.contains(id), role, claims)?;
    Spi::connect_mut(|client| {
        let heads = head::heads(client, &first.entity_type, first.tenant.as_deref(), &ids);
        if heads.iter().any(|head| head.erased) {
            return Err(erased());
        }
        let touched: Vec<_> = group
            .iter()
            .zip(heads)
            .map(|((entity, events), head)| Touched {
                entity: entity.clone(),
                table: Rc::clone(&table),
                events: events.clone(),
                row: rows.remove(&entity.entity_id),
                head: head.last,
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
                "insert into headwater.snapshot (entity_type, entity_id, tenant_id, state, schema_version) values ($1, $2, $3, $4::jsonb, $5)
                 on conflict do nothing",
                &[
                    touched.entity.entity_type.as_str().into(),
                    touched.entity.entity_id.as_str().into(),
                    touched.entity.tenant.as_deref().into(),
                    Value::Object(row.clone()).to_string().into(),
                    touched.table.schema_version.into(),
                ],
            );
        }
    }
}

/// The transaction is to be done again: others have written events beside it.
pub(crate) fn serialization_failure() -> ! {
    raise(
        PgSqlErrorCode::ERRCODE_T_R_SERIALIZATION_FAILURE,
        "could not serialize access due to concurrent events of the same entity",
        "The transaction might succeed if retried.",
    )
}

/// The entity was erased.
pub(super) fn erased() -> Reject {
    Reject::new(Code::Erased, "it was erased; nothing is taken for it any more")
}

/// What happened before the horizon has been folded into snapshots, and cannot be folded otherwise any more.
pub(super) fn too_late(entity_type: &str) -> Reject {
    let reason = format!("it happened before what has been folded into {entity_type}'s snapshots for good");
    Reject::new(Code::TooLate, reason)
}

/// What an error of the table means for the event that caused it. Failures that are nobody's fault are raised again.
pub(super) fn rejection(error: SqlError) -> Rejection {
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
