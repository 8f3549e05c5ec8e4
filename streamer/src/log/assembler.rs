//! From pgoutput messages to transactions: counts the ops, frames the events, keeps the rows, no more than the ring could hold.

use super::frame::EventRow;
use super::ring::Watermark;
use super::rows::Collector;
use super::transaction::{Event, Transaction};
use crate::decode::{Cell, Message, OldRow, Relation, RelationColumn, Tuple};
use bytes::BytesMut;
use headwater_model::cursor::{Cursor, Epoch, Lsn, Offset, Position};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// Frames are cut from chunks of this size: one allocation for a hundred events.
const CHUNK_BYTES: usize = 64 * 1024;

/// Entity types and active tenants are few; should something make up names without end, sharing them is not worth the
/// memory.
const INTERNED_NAMES: usize = 10_000;

/// To send so many rows and events takes Postgres longer than its reader then pauses: a batch of clients' events, too.
const BULK_OPERATIONS: u64 = 64;

/// What `headwater.tell_streamer` writes.
const REGISTRY_MESSAGE: &str = "headwater.registry";

/// Builds transactions from one replication connection's messages.
#[derive(Debug)]
pub struct Assembler {
    epoch: Epoch,
    limit_bytes: usize,
    /// By OID; only the event table has columns here.
    event_tables: HashMap<u32, EventColumns>,
    rows: Collector,
    open: Option<Open>,
    watermark: Position,
    chunk: BytesMut,
    entity_types: Names,
    tenants: Names,
}

#[derive(Debug)]
struct Open {
    xid: u32,
    commit: Lsn,
    next_op: u64,
    /// The `id:` line of its events, but for the op at its end.
    id: String,
    bytes: usize,
    oversize: bool,
    /// Whether there were events that were not kept.
    lost_events: bool,
    registry: bool,
    events: Vec<Event>,
}

impl Open {
    fn give_up(&mut self) {
        self.oversize = true;
        self.lost_events |= !self.events.is_empty();
        self.events = Vec::new();
    }
}

/// The stream cannot be understood.
#[derive(Debug, thiserror::Error)]
pub enum AssembleError {
    /// A message stands where it cannot.
    #[error("{0} outside a transaction")]
    Outside(&'static str),
    /// The event table is not the one that this version knows.
    #[error("headwater.event has no column `{0}`: is the extension older or newer than this binary?")]
    Column(&'static str),
    /// A value cannot be read.
    #[error("column `{0}` of a row of headwater.event cannot be read")]
    Value(&'static str),
}

impl Assembler {
    /// For a fresh connection. A transaction with more than `limit_bytes` of frames is marked oversize.
    pub fn new(epoch: Epoch, limit_bytes: usize) -> Self {
        Self {
            epoch,
            limit_bytes,
            event_tables: HashMap::new(),
            rows: Collector::default(),
            open: None,
            watermark: Position(0),
            chunk: BytesMut::new(),
            entity_types: Names::default(),
            tenants: Names::default(),
        }
    }

    /// Whether the transaction that is being read is one of many changes: nobody sees them before its commit.
    pub fn is_in_bulk(&self) -> bool {
        self.open.as_ref().is_some_and(|open| open.next_op >= BULK_OPERATIONS)
    }

    /// Takes one message; a commit gives the transaction. `watermarks` tells the watermark in force at an LSN.
    pub fn push(
        &mut self,
        message: &Message<'_>,
        watermarks: impl FnOnce(Lsn) -> Option<Watermark>,
    ) -> Result<Option<Transaction>, AssembleError> {
        match message {
            Message::Begin { commit, xid } => {
                if let Some(watermark) = watermarks(*commit) {
                    self.watermark = self.watermark.max(watermark.position);
                }
                let (xid, commit) = (*xid, *commit);
                self.rows.clear();
                self.open = Some(Open {
                    xid,
                    commit,
                    next_op: 0,
                    id: String::new(),
                    bytes: 0,
                    oversize: false,
                    lost_events: false,
                    registry: false,
                    events: Vec::new(),
                });
            }
            Message::Commit { end, .. } => {
                let open = self.open.take().ok_or(AssembleError::Outside("a commit"))?;
                let Open { xid, commit, oversize, lost_events, registry, events, .. } = open;
                let (rows, touched, described) = self.rows.take();
                return Ok(Some(Transaction {
                    xid,
                    commit,
                    end: *end,
                    watermark: self.watermark,
                    oversize,
                    lost_events,
                    registry,
                    events,
                    rows,
                    touched,
                    described,
                }));
            }
            Message::Relation(relation) => self.learn(relation)?,
            Message::Insert { relation, new } => {
                let op = self.count("an insert")?;
                if self.event_tables.contains_key(relation) {
                    self.event(*relation, op, new)?;
                } else {
                    self.row(*relation, op, false, |rows| rows.insert(*relation, op, new));
                }
            }
            Message::Update { relation, old, new } => {
                let op = self.count("an update")?;
                let untold = !matches!(old, Some(OldRow::Full(_)));
                self.row(*relation, op, untold, |rows| rows.update(*relation, op, old.as_ref(), new));
            }
            Message::Delete { relation, old } => {
                let op = self.count("a delete")?;
                let untold = !matches!(old, OldRow::Full(_));
                self.row(*relation, op, untold, |rows| rows.delete(*relation, op, old));
            }
            Message::Truncate { relations } => {
                let op = self.count("a truncate")?;
                for relation in relations.iter() {
                    self.row(relation, op, true, |rows| rows.truncate(relation, op));
                }
            }
            Message::Logical { transactional: true, prefix } => {
                self.count("a transactional message")?;
                if let Some(open) = self.open.as_mut().filter(|_| *prefix == REGISTRY_MESSAGE) {
                    open.registry = true;
                }
            }
            Message::Logical { transactional: false, .. } | Message::Origin | Message::Type => {}
        }
        Ok(None)
    }

    fn count(&mut self, what: &'static str) -> Result<u64, AssembleError> {
        let open = self.open.as_mut().ok_or(AssembleError::Outside(what))?;
        let op = open.next_op;
        open.next_op += 2;
        Ok(op)
    }

    fn learn(&mut self, relation: &Relation<'_>) -> Result<(), AssembleError> {
        if relation.schema == "headwater" && relation.name == "event" {
            self.event_tables.insert(relation.oid, EventColumns::new(&relation.columns)?);
            self.rows.forget(relation.oid);
        } else {
            self.event_tables.remove(&relation.oid);
            self.rows.learn(relation);
        }
        Ok(())
    }

    fn row(&mut self, relation: u32, op: u64, broken: bool, keep: impl FnOnce(&mut Collector)) {
        let Some(open) = self.open.as_mut().filter(|_| self.rows.knows(relation)) else { return };
        if open.oversize {
            return self.rows.touch(relation, op, broken);
        }
        keep(&mut self.rows);
        if open.bytes + self.rows.bytes() > self.limit_bytes {
            open.give_up();
            self.rows.give_up();
        }
    }

    fn event(&mut self, relation: u32, op: u64, tuple: &Tuple<'_>) -> Result<(), AssembleError> {
        let (Some(open), Some(columns)) = (self.open.as_mut(), self.event_tables.get(&relation)) else { return Ok(()) };
        if open.oversize {
            open.lost_events = true;
            return Ok(());
        }
        let row = columns.row(tuple)?;
        if open.id.is_empty() {
            let offset = Some(Offset { lsn: open.commit, op: 0 });
            let cursor = Cursor { epoch: self.epoch, position: self.watermark, offset };
            open.id = format!("id: {cursor}");
            open.id.pop();
        }
        // An estimate is enough: a frame that needs more grows the chunk.
        if self.chunk.capacity() < row.payload.len() + 1024 {
            self.chunk.reserve(CHUNK_BYTES.max(row.payload.len() + 1024));
        }
        let id_length = row.write_block_of(&open.id, op, &mut self.chunk);
        let entity_type = self.entity_types.share(row.entity_type);
        let tenant = row.tenant_id.map(|tenant| self.tenants.share(tenant));
        let event = Event { op, entity_type, tenant, block: self.chunk.split().freeze(), id_length };
        open.bytes += event.bytes();
        open.events.push(event);
        if open.bytes + self.rows.bytes() > self.limit_bytes {
            open.give_up();
            self.rows.give_up();
        }
        Ok(())
    }
}

/// Names that many events share.
#[derive(Debug, Default)]
struct Names {
    all: HashSet<Arc<str>>,
    /// Most events follow one of their kind.
    last: Option<Arc<str>>,
}

impl Names {
    fn share(&mut self, name: &str) -> Arc<str> {
        if let Some(last) = self.last.as_ref().filter(|last| ***last == *name) {
            return Arc::clone(last);
        }
        let shared = self.all.get(name).map_or_else(|| name.into(), Arc::clone);
        if self.all.len() < INTERNED_NAMES {
            self.all.insert(Arc::clone(&shared));
        }
        self.last = Some(Arc::clone(&shared));
        shared
    }
}

/// Where each field stands in a row of the event table: columns are found by name, so that later ones may be added.
#[derive(Debug)]
struct EventColumns {
    /// For each cell, which of [`NAMES`] it is.
    fields: Vec<Option<usize>>,
}

const NAMES: [&str; 14] = [
    "position",
    "id",
    "tenant_id",
    "entity_type",
    "entity_id",
    "event_type",
    "payload",
    "schema_version",
    "occurred_at",
    "recorded_at",
    "user_id",
    "client_id",
    "source",
    "applies",
];

impl EventColumns {
    fn new(columns: &[RelationColumn<'_>]) -> Result<Self, AssembleError> {
        if let Some(missing) = NAMES.into_iter().find(|name| columns.iter().all(|column| column.name != *name)) {
            return Err(AssembleError::Column(missing));
        }
        let fields = columns.iter().map(|column| NAMES.iter().position(|name| *name == column.name)).collect();
        Ok(Self { fields })
    }

    fn row<'a>(&self, tuple: &Tuple<'a>) -> Result<EventRow<'a>, AssembleError> {
        let mut values: [Option<&'a str>; NAMES.len()] = [None; NAMES.len()];
        for (cell, field) in tuple.cells().zip(&self.fields) {
            if let (Cell::Text(text), Some(field)) = (cell, *field) {
                values[field] = Some(std::str::from_utf8(text).map_err(|_| AssembleError::Value(NAMES[field]))?);
            }
        }
        let given = |field: usize| values[field].ok_or(AssembleError::Value(NAMES[field]));
        Ok(EventRow {
            position: given(0)?.parse().map_err(|_| AssembleError::Value(NAMES[0]))?,
            id: given(1)?,
            tenant_id: values[2],
            entity_type: given(3)?,
            entity_id: given(4)?,
            event_type: given(5)?,
            payload: given(6)?,
            schema_version: given(7)?.parse().map_err(|_| AssembleError::Value(NAMES[7]))?,
            occurred_at: given(8)?,
            recorded_at: given(9)?,
            user_id: values[10],
            client_id: values[11],
            source: given(12)?,
            applies: given(13)? == "t",
        })
    }
}

#[cfg(test)]
mod tests;
