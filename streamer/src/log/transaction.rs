//! A committed transaction in the ring: its events, each framed once for all clients.

use bytes::{BufMut, Bytes, BytesMut};
use headwater_model::cursor::{Cursor, Epoch, Lsn, Offset, Position};
use std::sync::Arc;

/// What an event costs in the ring besides its bytes: its own record and its share of allocations.
const EVENT_OVERHEAD_BYTES: usize = 112;

/// The events of one committed transaction, in the order in which they were written.
#[derive(Debug)]
pub struct Transaction {
    /// Low 32 bits of its top-level transaction id.
    pub xid: u32,
    /// Start of its commit record.
    pub commit: Lsn,
    /// The first byte behind its commit record.
    pub end: Lsn,
    /// The watermark in force at `commit`; the shared `id:` lines carry it.
    pub watermark: Position,
    /// Whether it was larger than the ring; then `events` is empty, and they are in the table only.
    pub oversize: bool,
    /// Its events, ascending in `op`.
    pub events: Vec<Event>,
}

impl Transaction {
    /// Roughly how much memory it takes.
    pub fn bytes(&self) -> usize {
        self.events.iter().map(Event::bytes).sum()
    }

    /// The offset of one of its events.
    pub fn offset(&self, event: &Event) -> Offset {
        Offset { lsn: self.commit, op: event.op }
    }
}

/// One event, ready to be sent.
#[derive(Debug)]
pub struct Event {
    /// Second part of its offset.
    pub op: u64,
    /// For filters.
    pub entity_type: Arc<str>,
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

    /// Appends the block for a reader whose own watermark is `position`.
    ///
    /// The shared `id:` line is right for nearly everybody. A reader that brought a newer watermark than the ring
    /// knew at this place (it was re-filled after a restart) gets a line of its own, so that its cursor never moves back.
    pub fn write_block(&self, epoch: Epoch, transaction: &Transaction, position: Position, out: &mut BytesMut) {
        if position <= transaction.watermark {
            return out.put_slice(&self.block);
        }
        let cursor = Cursor { epoch, position, offset: Some(transaction.offset(self)) };
        super::frame::put(out, format_args!("id: {cursor}\n"));
        out.put_slice(&self.block[self.id_length..]);
    }
}
