//! A committed transaction in the ring: its events, each framed once for all clients, and its row changes.

use super::rows::Rows;
use bytes::{BufMut, Bytes};
use headwater_model::cursor::{Cursor, Epoch, Lsn, Offset, Position};
use std::sync::Arc;

/// What an event costs in the ring besides its bytes: its own record and its share of allocations.
const EVENT_OVERHEAD_BYTES: usize = 128;

/// The events of one committed transaction, in the order in which they were written.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub struct Transaction {
    /// Low 32 bits of its top-level transaction id.
    pub xid: u32,
    /// Start of its commit record.
    pub commit: Lsn,
    /// The first byte behind its commit record.
    pub end: Lsn,
    /// The watermark in force at `commit`; the shared `id:` lines carry it.
    pub watermark: Position,
    /// Whether it was larger than the ring; then `events` and `rows` are empty, and they are in the tables only.
    pub oversize: bool,
    /// Whether an oversize one had events.
    pub lost_events: bool,
    /// Whether it changed the registry or the epoch.
    pub registry: bool,
    /// Its events, ascending in `op`.
    pub events: Vec<Event>,
    /// Its changes of rows of published tables.
    pub rows: Rows,
    /// The published tables with changes; of an oversize one, too.
    pub touched: Box<[Touched]>,
    /// Whether a table was described since the transaction before: it is new to this connection, or different.
    pub described: bool,
}

impl Transaction {
    /// Roughly how much memory it takes.
    pub fn bytes(&self) -> usize {
        self.events.iter().map(Event::bytes).sum::<usize>() + self.rows.bytes() + size_of_val(&*self.touched)
    }

    /// Whether it has anything for anybody.
    pub fn is_empty(&self) -> bool {
        self.events.is_empty() && self.rows.is_empty()
    }

    /// Whether it changed one of these tables; `tables` in ascending order.
    pub fn touches(&self, tables: &[u32]) -> bool {
        self.touched.iter().any(|touched| tables.binary_search(&touched.table).is_ok())
    }

    /// Those of its events that lie behind `offset`.
    pub fn events_after(&self, offset: Offset) -> &[Event] {
        if self.commit > offset.lsn {
            return &self.events;
        }
        let known = if self.commit == offset.lsn {
            self.events.partition_point(|event| event.op <= offset.op)
        } else {
            self.events.len()
        };
        &self.events[known..]
    }

    /// The offset of one of its events.
    pub fn offset(&self, event: &Event) -> Offset {
        Offset { lsn: self.commit, op: event.op }
    }
}

/// A table that a transaction changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Touched {
    /// Its OID.
    pub table: u32,
    /// The op of the last change.
    pub last: u64,
    /// Whether what clients have of it cannot be brought up to date: it was truncated, or a change was not told whole.
    pub broken: bool,
}

/// One event, ready to be sent.
#[derive(Debug)]
pub struct Event {
    /// Second part of its offset.
    pub op: u64,
    /// For filters.
    pub entity_type: Arc<str>,
    /// Whose it is.
    pub tenant: Option<Arc<str>>,
    /// The whole SSE block.
    pub block: Bytes,
    /// How long the block's `id:` line is.
    pub id_length: usize,
}

impl Event {
    /// Roughly how much memory it takes.
    pub fn bytes(&self) -> usize {
        self.block.len() + EVENT_OVERHEAD_BYTES
    }

    /// Whether it is of the entity whose id stands as `json` in JSON.
    pub fn is_of(&self, json: &str) -> bool {
        self.entity_json() == Some(json.as_bytes())
    }

    /// Its entity's id as it stands in the JSON object, quotes included.
    pub fn entity_json(&self) -> Option<&[u8]> {
        // Only a UUID, a number and a declared name stand before it in the object, so the first match is the member.
        const BEFORE: &[u8] = b",\"entity_id\":";
        const DATA: &[u8] = b"\ndata: ";
        let find = |text: &[u8], part: &[u8]| text.windows(part.len()).position(|window| window == part);
        let object = &self.block[find(&self.block, DATA)? + DATA.len()..];
        let value = &object[find(object, BEFORE)? + BEFORE.len()..];
        let mut escaped = false;
        let end = value.iter().skip(1).position(|byte| {
            let ends = *byte == b'"' && !escaped;
            escaped = *byte == b'\\' && !escaped;
            ends
        })?;
        value.get(..end + 2)
    }

    /// Appends the block for a reader whose own watermark is `position`.
    ///
    /// The shared `id:` line is right for nearly everybody. A reader that brought a newer watermark than the ring
    /// knew at this place (it was re-filled after a restart) gets a line of its own, so that its cursor never moves back.
    pub fn write_block(&self, epoch: Epoch, transaction: &Transaction, position: Position, out: &mut impl BufMut) {
        if position <= transaction.watermark {
            return out.put_slice(&self.block);
        }
        let cursor = Cursor { epoch, position, offset: Some(transaction.offset(self)) };
        out.put_slice(format!("id: {cursor}\n").as_bytes());
        out.put_slice(&self.block[self.id_length..]);
    }
}
