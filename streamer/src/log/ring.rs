//! The ring: the newest transactions, bounded by WAL distance and by bytes. No locks, no I/O.
//!
//! Invariants:
//! 1. Every published transaction with `start <= commit < head` that has events or row changes is here; of one that is larger than
//!    the ring and has no events, only which tables it `broke`.
//! 2. `start` and `confirmed` never fall, `confirmed <= start <= head`.
//! 3. A transaction that left before a snapshot was known to see it is remembered in `unseen` (and the slot's
//!    confirmed position stays behind it): with synchronous replication a commit can be in the WAL long before it is
//!    visible, and a reader of the table would miss it there.

use super::snapshot::Snapshot;
use super::transaction::{Event, Transaction};
use headwater_model::cursor::{Lsn, Offset, Position};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

/// Older watermarks serve a stream that lags behind the SQL answer by a few markers; 16 are four seconds.
const REMEMBERED_WATERMARKS: usize = 16;

/// How much the ring may hold.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Memory for frames.
    pub bytes: usize,
    /// Distance between start and head in the WAL.
    pub wal_bytes: u64,
}

/// Every event up to `position` is visible or will never exist, and stands in the WAL before `lsn`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watermark {
    /// The watermark.
    pub position: Position,
    /// The marker that was committed when it was reached.
    pub lsn: Lsn,
}

/// A transaction that left the ring before it was seen.
#[derive(Clone, Copy, Debug)]
struct Unseen {
    commit: Lsn,
    xid: u32,
}

#[derive(Debug)]
pub(super) struct Ring {
    limits: Limits,
    transactions: VecDeque<Arc<Transaction>>,
    bytes: usize,
    start: Lsn,
    head: Lsn,
    /// Every transaction with a smaller commit LSN is visible to any snapshot taken from now on.
    seen_before: Lsn,
    unseen: VecDeque<Unseen>,
    pins: BTreeMap<u64, Lsn>,
    next_pin: u64,
    watermarks: VecDeque<Watermark>,
    /// From here on `touched` knows everything, also what has left the ring.
    touched_from: Lsn,
    /// The last change of each published table, by OID.
    touched: HashMap<u32, Offset>,
    /// The last change of each by which clients' copies could not be brought up to date.
    broken: HashMap<u32, Offset>,
}

impl Ring {
    pub(super) fn new(limits: Limits, start: Lsn) -> Self {
        Self {
            limits,
            transactions: VecDeque::new(),
            bytes: 0,
            start,
            head: start,
            seen_before: start,
            unseen: VecDeque::new(),
            pins: BTreeMap::new(),
            next_pin: 0,
            watermarks: VecDeque::new(),
            touched_from: start,
            touched: HashMap::new(),
            broken: HashMap::new(),
        }
    }

    pub(super) fn limits(&self) -> Limits {
        self.limits
    }

    pub(super) fn limit_wal(&mut self, bytes: u64) {
        self.limits.wal_bytes = bytes;
        self.advance(self.head);
    }

    pub(super) fn start(&self) -> Lsn {
        self.start
    }

    pub(super) fn head(&self) -> Lsn {
        self.head
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// What the slot may be told to forget.
    pub(super) fn confirmed(&self) -> Lsn {
        self.unseen.front().map_or(self.start, |unseen| unseen.commit.min(self.start))
    }

    pub(super) fn append(&mut self, transaction: Transaction) {
        if transaction.commit < self.head {
            return; // sent again after a reconnection
        }
        let end = transaction.end;
        for touched in &transaction.touched {
            let offset = Offset { lsn: transaction.commit, op: touched.last };
            self.touched.insert(touched.table, offset);
            if touched.broken || transaction.oversize {
                self.broken.insert(touched.table, offset);
            }
        }
        if transaction.oversize && transaction.lost_events {
            // It takes everything before it along: whoever has not read that yet goes to the table anyway.
            self.evict(usize::MAX);
            self.remember(transaction.commit, transaction.xid);
            self.start = end;
        } else if transaction.oversize || !transaction.is_empty() {
            self.bytes += transaction.bytes();
            self.transactions.push_back(Arc::new(transaction));
        }
        self.advance(end);
    }

    /// Everything before `head` has been received.
    pub(super) fn advance(&mut self, head: Lsn) {
        self.head = self.head.max(head);
        while self.bytes > self.limits.bytes && !self.transactions.is_empty() {
            self.evict(1);
        }
        let floor = self.head.minus(self.limits.wal_bytes);
        let old = self.transactions.iter().take_while(|transaction| transaction.end <= floor).count();
        self.evict(old);
        let floor = self.transactions.front().map_or(floor, |first| floor.min(first.commit));
        self.start = self.start.max(floor);
    }

    fn evict(&mut self, count: usize) {
        for _ in 0..count {
            let Some(transaction) = self.transactions.pop_front() else { return };
            self.bytes -= transaction.bytes();
            self.remember(transaction.commit, transaction.xid);
            self.start = transaction.end;
        }
    }

    fn remember(&mut self, commit: Lsn, xid: u32) {
        // A pin has taken its snapshot already, perhaps without seeing what is visible by now.
        let seen = self.pins.values().copied().fold(self.seen_before, Lsn::min);
        if commit >= seen {
            self.unseen.push_back(Unseen { commit, xid });
        }
    }

    /// A snapshot that was taken when everything before `head` had been received: what it sees needs no care any more.
    pub(super) fn observe(&mut self, head: Lsn, snapshot: &Snapshot) {
        let from = self.index(self.seen_before);
        let first_unseen = (self.transactions.iter().skip(from).take_while(|transaction| transaction.commit < head))
            .find(|transaction| !snapshot.sees(transaction.xid));
        let seen = first_unseen.map_or(head, |transaction| transaction.commit);
        self.seen_before = self.seen_before.max(seen);
        let pinned = self.pins.values().min().copied().unwrap_or(Lsn(u64::MAX));
        self.unseen.retain(|unseen| unseen.commit >= pinned || unseen.commit >= head || !snapshot.sees(unseen.xid));
    }

    pub(super) fn needs_observation(&self) -> bool {
        !self.unseen.is_empty() || self.transactions.back().is_some_and(|last| last.commit >= self.seen_before)
    }

    /// From here on, what leaves the ring stays remembered until `unpin`.
    pub(super) fn pin(&mut self) -> u64 {
        self.next_pin += 1;
        self.pins.insert(self.next_pin, self.start);
        self.next_pin
    }

    pub(super) fn unpin(&mut self, pin: u64) {
        self.pins.remove(&pin);
    }

    /// The transactions before `marker` that `snapshot` does not see; none if one of those has left the ring.
    pub(super) fn missed_by(&self, snapshot: &Snapshot, marker: Lsn) -> Option<Vec<Arc<Transaction>>> {
        if self.unseen.iter().any(|unseen| !snapshot.sees(unseen.xid)) {
            return None;
        }
        let before = self.transactions.iter().take_while(|transaction| transaction.commit < marker);
        let missed: Vec<_> = before.filter(|transaction| !snapshot.sees(transaction.xid)).map(Arc::clone).collect();
        // What it changed is nowhere but in the tables.
        (!missed.iter().any(|transaction| transaction.oversize)).then_some(missed)
    }

    pub(super) fn set_watermark(&mut self, watermark: Watermark) {
        if self.watermarks.len() == REMEMBERED_WATERMARKS {
            self.watermarks.pop_front();
        }
        self.watermarks.push_back(watermark);
    }

    pub(super) fn watermark(&self) -> Option<Watermark> {
        self.watermarks.back().copied()
    }

    /// The newest watermark whose marker lies at or before `lsn`.
    pub(super) fn watermark_at(&self, lsn: Lsn) -> Option<Watermark> {
        self.watermarks.iter().rev().find(|watermark| watermark.lsn <= lsn).copied()
    }

    /// Whether everything behind `offset` is here.
    pub(super) fn holds(&self, offset: Offset) -> bool {
        offset >= Offset::just_before(self.start)
    }

    /// The last change of any of these tables, as far back as is known.
    pub(super) fn last_change(&self, tables: &[u32]) -> Option<Offset> {
        tables.iter().filter_map(|table| self.touched.get(table)).max().copied()
    }

    /// Whether everything behind `offset` that concerns these tables is here, and brings a copy up to date: what has
    /// left the ring was others', and no table was truncated.
    pub(super) fn holds_of(&self, tables: &[u32], offset: Offset) -> bool {
        if self.breaks(tables, offset) {
            return false;
        }
        let known = offset >= Offset::just_before(self.touched_from);
        self.holds(offset) || (known && self.last_change(tables).is_none_or(|last| last <= offset))
    }

    /// Whether one of these tables was truncated behind `offset`, or a change of it was not told whole.
    pub(super) fn breaks(&self, tables: &[u32], offset: Offset) -> bool {
        tables.iter().filter_map(|table| self.broken.get(table)).any(|broken| *broken > offset)
    }

    /// The transaction with this commit.
    pub(super) fn committed_at(&self, commit: Lsn) -> Option<&Arc<Transaction>> {
        self.transactions.get(self.index(commit)).filter(|transaction| transaction.commit == commit)
    }

    /// The transactions that may have something behind `offset`, oldest first.
    pub(super) fn transactions_after(&self, offset: Offset) -> impl Iterator<Item = &Arc<Transaction>> {
        self.transactions.iter().skip(self.index(offset.lsn))
    }

    /// What follows `offset`, oldest first.
    pub(super) fn after(&self, offset: Offset) -> impl Iterator<Item = (&Transaction, &Event)> {
        self.transactions_after(offset).flat_map(move |transaction| {
            transaction.events_after(offset).iter().map(move |event| (transaction.as_ref(), event))
        })
    }

    /// The first transaction that committed at or behind `lsn`.
    fn index(&self, lsn: Lsn) -> usize {
        self.transactions.partition_point(|transaction| transaction.commit < lsn)
    }
}

#[cfg(test)]
mod tests;
