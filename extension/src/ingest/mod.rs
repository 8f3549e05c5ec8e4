//! Ingest: a batch of clients' events, each stored and applied to its row or rejected, alone, in one transaction.
//!
//! 1. [`identity`]: what the body claims must be what the token says.
//! 2. [`receipts`]: an event that was judged before gets its first answer. Two transactions with the same event meet
//!    here, on the receipts' unique index, and the second waits for the first.
//! 3. [`apply`]: the whole batch at once; if anything is wrong with it, in halves of halves, each in a subtransaction.
//! 4. What was refused is written down: in its receipt, and as a dead letter.
//!
//! Locks are taken in one order, receipts by id and then entities by key, so that batches seldom meet in opposite order:
//! of the entities first rows that are expected to be there, then the names of all others, whose rows are looked for under
//! these. Rows are written in the order of the batch, so that an order may stand before its lines. With plain SQL, and where
//! what is created is there already, batches may meet: then one is told to try again, by an error that the streamer answers
//! with 503.

pub(crate) mod apply;
mod identity;
mod outcome;
mod receipts;
pub(crate) mod record;
mod row;
mod touched;
pub(crate) mod unseen;
mod waves;
mod write;

pub(crate) use outcome::Rejection;
pub(crate) use row::lock_for_record;
pub(crate) use touched::begin_batch;
pub(crate) use write::delete as delete_row;

use std::rc::Rc;

use headwater_model::clock::{Micros, Stamper};
use headwater_model::event::{Code, FILL_VERSION, NewEvent, Reject, is_name};
use headwater_model::fold::State;
use headwater_model::upcast::Shape;
use pgrx::pg_sys::Oid;
use pgrx::prelude::*;
use pgrx::{PgSqlErrorCode, pg_sys};

use crate::jsonb::{JsonB, StoredJson, unreadable};
use crate::raise::raise;
use crate::render::Stored;
use serde_json::Value;

use crate::clock;
use crate::custom::{self, Runner};
use crate::put_off;
use crate::settings::Settings;
use crate::spi;
use crate::table::{self, Table};
use apply::{Constraints, Prepared};
use identity::Identity;
use outcome::{Judged, Outcome};
use receipts::{Receipts, Reserved};
use record::Source;

/// An event on its way through ingest.
pub(crate) struct Arrived {
    /// Its place in the batch.
    index: usize,
    /// As it was sent, for the dead letters. It lies in the argument of ingest.
    sent: Stored<'static>,
    event: Rc<NewEvent>,
    /// When it counts from.
    occurred_at: Micros,
    /// What tells it from another event of the same id.
    digest: Vec<u8>,
}

impl Arrived {
    /// As it was sent, and whose it is: what a trusted backend would send in its place.
    fn to_retry(&self) -> Value {
        let mut event = self.sent.read().unwrap_or_else(|| unreadable());
        event["tenant_id"] = self.event.tenant_id.clone().into();
        event["user_id"] = self.event.user_id.clone().into();
        event
    }
}

/// Events in a batch: each entity that is not there yet takes a lock by name, of which a server has some 7,000 for everybody
/// (`max_locks_per_transaction` times `max_connections`), unless it is told otherwise.
const MAX_EVENTS: usize = 5000;

#[pg_extern(sql = false)]
fn ingest(events: StoredJson, claims: JsonB) -> JsonB {
    require_read_committed();
    let Some(events) = events.0.elements() else {
        raise(PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE, "a batch is a JSON array of events", String::new())
    };
    if events.len() > MAX_EVENTS {
        raise(
            PgSqlErrorCode::ERRCODE_PROGRAM_LIMIT_EXCEEDED,
            format!("a batch of {} events is too large", events.len()),
            format!("Send at most {MAX_EVENTS} at a time."),
        )
    }
    let identity = Identity::of(&claims.0);
    lock_events();
    begin_batch();
    let mut outcome = Outcome::default();

    let arrived = receive(events, &identity, &mut outcome);
    let Reserved { judged, new, twins } = Receipts::reserve(arrived);
    outcome.extend(judged);

    let (prepared, refused) = prepare(new, &identity);
    let mut judged = {
        // What the table's triggers set, a search_path perhaps, is not for the session's next statement.
        let _settings = Settings::passing();
        put_off::forbidden(|| judge(prepared, &identity)).into_iter().chain(refused).collect::<Vec<_>>()
    };
    Receipts::forget_erased(&mut judged);
    Receipts::settle(&judged, &identity.claims);
    outcome.extend(judged);
    for (twin, first) in twins {
        let verdict = outcome.of(first);
        outcome.add(Judged::as_before(&twin, verdict));
    }
    JsonB(outcome.into_json())
}

/// Under a snapshot that is older than the locks, the rows that the locks are for could not be seen.
fn require_read_committed() {
    // SAFETY: reads a variable of the backend.
    if unsafe { pg_sys::XactIsoLevel } > pg_sys::XACT_READ_COMMITTED.cast_signed() {
        raise(
            PgSqlErrorCode::ERRCODE_INVALID_TRANSACTION_STATE,
            "headwater.ingest needs the isolation level read committed",
            "begin isolation level read committed;",
        );
    }
}

/// Takes the writers' lock on the event table before the registry is looked at: `headwater.compact` raises a horizon, and
/// then waits for those who may not have seen it, whom it knows by this lock.
fn lock_events() {
    // SAFETY: a relation of the extension, and so there as long as its functions run. Taking a new lock takes in what
    // other transactions have made invalid (`LockRelationOid`).
    unsafe { pg_sys::LockRelationOid(event_table(), pg_sys::RowExclusiveLock.cast_signed()) };
}

/// `headwater.event`
fn event_table() -> pg_sys::Oid {
    // SAFETY: catalog look-ups by names that outlive the calls.
    unsafe {
        let schema = pg_sys::get_namespace_oid(c"headwater".as_ptr(), false);
        pg_sys::get_relname_relid(c"event".as_ptr(), schema)
    }
}

/// Reads the events one by one. What cannot be read, is somebody else's or of the future is rejected without a
/// receipt: its answer does not depend on anything that could change, or is meant to be different next time.
fn receive(events: Vec<Stored<'static>>, identity: &Identity, outcome: &mut Outcome) -> Vec<Arrived> {
    let mut stamper = Stamper::new(clock::now());
    let mut arrived = Vec::with_capacity(events.len());
    for (index, sent) in events.into_iter().enumerate() {
        let value = sent.read().unwrap_or_else(|| unreadable());
        let id = value.get("id").and_then(Value::as_str).map(str::to_owned);
        let mut refuse = |reject: Reject| outcome.add(Judged::unread(index, id.as_deref(), reject));
        let mut event = match NewEvent::parse(value) {
            Ok(event) => event,
            Err(reject) => {
                refuse(reject);
                continue;
            }
        };
        if event.id.get_version_num() == FILL_VERSION {
            let reason = "ids of version 8 are the server's own; a device makes ids of version 7 or 4";
            refuse(Reject::new(Code::Conflict, reason));
            continue;
        }
        if let Err(reject) = identity.claim(&mut event) {
            refuse(reject);
            continue;
        }
        match stamper.stamp(event.timestamp) {
            Ok(occurred_at) => {
                let digest = receipts::digest(&event);
                arrived.push(Arrived { index, sent, event: Rc::new(event), occurred_at, digest });
            }
            Err(skew) => outcome.add(Judged::too_early(index, event.id, event.timestamp, skew)),
        }
    }
    arrived
}

/// Finds each event's table and rule.
fn prepare(arrived: Vec<Arrived>, identity: &Identity) -> (Vec<Prepared>, Vec<Judged>) {
    let mut prepared = Vec::with_capacity(arrived.len());
    let mut refused = Vec::new();
    for arrived in arrived {
        match check(&arrived.event, arrived.occurred_at, Runner::Role(identity.role, Some(&identity.claims))) {
            Ok(Checked { table, lifted }) => {
                let tenant = table.tenant.as_ref().and(arrived.event.tenant_id.clone());
                let user_id = arrived.event.user_id.clone().or_else(|| identity.user.clone());
                prepared.push(Prepared {
                    table,
                    tenant,
                    user_id,
                    occurred_at: arrived.occurred_at,
                    source: Source::Client,
                    event: Rc::clone(&arrived.event),
                    lifted,
                    arrived: Some(arrived),
                });
            }
            Err(rejection) => refused.push(Judged::new(arrived, Some(rejection))),
        }
    }
    (prepared, refused)
}

/// An event that its entity's rules can take.
pub(crate) struct Checked {
    pub(crate) table: Rc<Table>,
    /// Its payload in the present form, where that is another than the one it came in.
    pub(crate) lifted: Option<State>,
}

/// Whether an event of that instant fits what is declared; `runner` says as whom custom upcasts are called.
pub(crate) fn check(event: &NewEvent, occurred_at: Micros, runner: Runner<'_>) -> Result<Checked, Rejection> {
    let table = declared(event)?;
    if table.horizon.is_some_and(|horizon| occurred_at < horizon) {
        return Err(Rejection::of(apply::too_late(&event.entity_type)));
    }
    let shape = Shape::Event(event.name());
    let lifted = if table.upcasts.concern(shape, event.schema_version) {
        let lift = || custom::lift(&table.upcasts, shape, event.schema_version, event.payload.clone(), runner);
        Some(spi::attempt(lift, |_| true).map_err(apply::rejection)?)
    } else {
        None
    };
    let rule = table.rules.get(event.name()).expect("its rule was found");
    rule.check(lifted.as_ref().unwrap_or(&event.payload), &table.settable)?;
    Ok(Checked { table, lifted })
}

/// The table of an event that is declared, in a version that is known.
fn declared(event: &NewEvent) -> Result<Rc<Table>, Reject> {
    let unknown = |reason: String| Reject::new(Code::UnknownEventType, reason);
    let table = if is_name(&event.entity_type) { table::for_writing(&event.entity_type) } else { None }
        .ok_or_else(|| unknown(format!("no enabled table is entity {:?}", event.entity_type)))?;
    table.rules.get(event.name()).ok_or_else(|| {
        let known: Vec<_> = table.rules.iter().map(|(name, _)| format!("{}.{name}", event.entity_type)).collect();
        unknown(format!("{:?} is not declared; clients may send {}", event.event_type, known.join(", ")))
    })?;
    if event.schema_version > table.schema_version {
        return Err(Reject::new(
            Code::UnsupportedVersion,
            format!(
                "schema_version {} is not known here; the present one is {}",
                event.schema_version, table.schema_version
            ),
        ));
    }
    Ok(table)
}

/// How often an event is tried whose row somebody else creates, or creates and deletes, at the same moment: the next try
/// finds what is there then, unless that happens again.
const MAX_TRIES: usize = 5;

/// The whole batch at once; if anything is wrong with it, its halves one after the other, and so on down to single
/// events, in the order in which they came: what one of them needs may be what an earlier one made.
fn judge(mut prepared: Vec<Prepared>, identity: &Identity) -> Vec<Judged> {
    let (role, claims) = (identity.role, identity.claims.as_str());
    let events: Vec<_> = prepared.iter().collect();
    let at_once = events.len() > 1 && apply::attempt(&events, Constraints::Checked, role, claims).is_ok();
    let verdicts = if at_once { vec![None; events.len()] } else { apart(&events, role, claims) };
    let judged = prepared.iter_mut().zip(verdicts);
    judged.filter_map(|(one, rejection)| Some(Judged::new(one.arrived.take()?, rejection))).collect()
}

/// Events of which something is wrong. Deferred constraints judge behind the last, for a later event may mend what an
/// earlier one left open; only where that fails do they judge each event.
fn apart(events: &[&Prepared], role: Oid, claims: &str) -> Vec<Option<Rejection>> {
    if events.len() > 1 {
        let together = || {
            let verdicts = halves(events, Constraints::Deferred, role, claims);
            apply::check_constraints(role, claims);
            verdicts
        };
        match spi::attempt(together, |_| true) {
            Ok(verdicts) => return verdicts,
            // Raised again unless it is the events' fault.
            Err(error) => drop(apply::rejection(error)),
        }
    }
    halves(events, Constraints::Checked, role, claims)
}

/// Both halves of what failed as a whole, or the single event.
fn halves(events: &[&Prepared], constraints: Constraints, role: Oid, claims: &str) -> Vec<Option<Rejection>> {
    let (first, second) = match events {
        [] => return Vec::new(),
        [one] => return vec![alone(one, constraints, role, claims).err()],
        _ => events.split_at(events.len() / 2),
    };
    let mut verdicts = Vec::with_capacity(events.len());
    for half in [first, second] {
        let at_once = half.len() > 1 && apply::attempt(half, constraints, role, claims).is_ok();
        verdicts.extend(if at_once { vec![None; half.len()] } else { halves(half, constraints, role, claims) });
    }
    verdicts
}

fn alone(one: &Prepared, constraints: Constraints, role: Oid, claims: &str) -> Result<(), Rejection> {
    let mut judged = apply::attempt(&[one], constraints, role, claims);
    for _ in 1..MAX_TRIES {
        match &judged {
            Err(rejection) if rejection.is_taken_key() || rejection.is_overtaken() => {
                judged = apply::attempt(&[one], constraints, role, claims);
            }
            _ => break,
        }
    }
    if judged.as_ref().is_err_and(Rejection::is_overtaken) {
        apply::serialization_failure();
    }
    judged
}
