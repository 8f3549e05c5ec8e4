//! What readers of the log get, each from its own place: events one by one, whole transactions, row changes of tables.
//!
//! All of it is read under the log's lock, and so in bounded portions.

use super::{Event, Log, Transaction, Watermark};
use headwater_model::cursor::{Epoch, Lsn, Offset};
use std::sync::Arc;

/// Readers copy at most this many events under the lock, so that the writer is never kept waiting.
const EVENTS_PER_READ: usize = 4096;

/// The same for transactions that a shape's reader looks at.
const TRANSACTIONS_PER_READ: usize = 16_384;

/// How a read ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Read {
    /// The log follows another history by now.
    Foreign,
    /// The ring does not reach back that far.
    Behind,
    /// There is more behind `next`.
    More {
        /// Where to go on.
        next: Offset,
    },
    /// Nothing is left. `next` has moved up to the head, `watermark` is in force there.
    CaughtUp {
        /// Where to go on.
        next: Offset,
        /// The watermark that a cursor at `next` may carry.
        watermark: Option<Watermark>,
    },
}

/// How a read of row changes ended.
#[derive(Debug)]
pub enum RowsRead {
    /// The log follows another history by now.
    Foreign,
    /// The ring does not reach back that far, or a table was truncated since.
    Behind,
    /// What there is.
    Found {
        /// Transactions that changed one of the tables, oldest first. The first one may have changes that are not
        /// behind the place asked for.
        transactions: Vec<Arc<Transaction>>,
        /// Everything committed before it has been looked at.
        upto: Lsn,
        /// The head at that time: there is more if it is larger.
        head: Lsn,
    },
}

/// What [`Log::take`] found.
#[derive(Debug)]
pub enum Taken {
    /// The log follows another history by now.
    Foreign,
    /// The ring does not reach back that far.
    Behind,
    /// These follow, and more behind them.
    Some(Vec<Arc<Transaction>>),
    /// These follow, and nothing behind them.
    All {
        /// The first of them may be known in part.
        transactions: Vec<Arc<Transaction>>,
        /// Where to go on when they are read.
        next: Offset,
        /// The watermark that a cursor at `next` may carry.
        watermark: Option<Watermark>,
    },
}

impl Log {
    /// Passes what follows `after` to `take`, oldest first, until that answers false.
    pub fn read(&self, epoch: Epoch, after: Offset, mut take: impl FnMut(&Transaction, &Event) -> bool) -> Read {
        let state = self.read_state();
        if state.epoch != Some(epoch) {
            return Read::Foreign;
        }
        if !state.ring.holds(after) {
            return Read::Behind;
        }
        let mut next = after;
        for (count, (transaction, event)) in state.ring.after(after).enumerate() {
            if count == EVENTS_PER_READ || !take(transaction, event) {
                return Read::More { next };
            }
            next = transaction.offset(event);
        }
        let head = state.ring.head();
        Read::CaughtUp { next: next.max(Offset::just_before(head)), watermark: state.ring.watermark_at(head) }
    }

    /// The transactions behind `after` that changed one of `tables` (OIDs, ascending), at most about `bytes` of them.
    pub fn rows(&self, epoch: Epoch, tables: &[u32], after: Offset, bytes: usize) -> RowsRead {
        let state = self.read_state();
        if state.epoch != Some(epoch) {
            return RowsRead::Foreign;
        }
        if !state.ring.holds_of(tables, after) {
            return RowsRead::Behind;
        }
        let head = state.ring.head();
        let (mut transactions, mut found, mut upto) = (Vec::new(), 0, head);
        if state.ring.last_change(tables).is_none_or(|last| last <= after) {
            return RowsRead::Found { transactions, upto, head };
        }
        for (count, transaction) in state.ring.transactions_after(after).enumerate() {
            if count == TRANSACTIONS_PER_READ || found >= bytes {
                upto = transaction.commit;
                break;
            }
            if transaction.touches(tables) {
                found += transaction.rows.bytes();
                transactions.push(Arc::clone(transaction));
            }
        }
        RowsRead::Found { transactions, upto, head }
    }

    /// As [`Log::rows`], by somebody who knows which transactions before `upto` are of interest: those with these
    /// commits. The others need not be in the ring any more.
    pub fn rows_at(&self, epoch: Epoch, tables: &[u32], after: Offset, commits: &[Lsn], upto: Lsn) -> RowsRead {
        let state = self.read_state();
        if state.epoch != Some(epoch) {
            return RowsRead::Foreign;
        }
        if state.ring.breaks(tables, after) {
            return RowsRead::Behind;
        }
        let transactions: Option<Vec<Arc<Transaction>>> =
            commits.iter().map(|commit| state.ring.committed_at(*commit).map(Arc::clone)).collect();
        let Some(transactions) = transactions else { return RowsRead::Behind };
        RowsRead::Found { transactions, upto, head: state.ring.head() }
    }

    /// The transactions with row changes that committed at or behind `from`, and the head; none if they are not all in
    /// the ring any more. At most so many that the writer is not kept waiting: the place to go on from comes with them.
    pub fn routed(&self, from: Lsn) -> (Option<Vec<Arc<Transaction>>>, Lsn) {
        let state = self.read_state();
        let head = state.ring.head();
        if from < state.ring.start() {
            return (None, head);
        }
        let mut transactions = Vec::new();
        for (count, transaction) in state.ring.transactions_after(Offset { lsn: from, op: 0 }).enumerate() {
            if count == TRANSACTIONS_PER_READ {
                return (Some(transactions), transaction.commit);
            }
            if !transaction.touched.is_empty() {
                transactions.push(Arc::clone(transaction));
            }
        }
        (Some(transactions), head)
    }

    /// The last change of any of these tables, as far back as is known.
    pub fn last_change(&self, tables: &[u32]) -> Option<Offset> {
        self.read_state().ring.last_change(tables)
    }

    /// Whether everything behind `after` that concerns these tables is in the ring.
    pub fn holds_rows(&self, epoch: Epoch, tables: &[u32], after: Offset) -> bool {
        let state = self.read_state();
        state.epoch == Some(epoch) && state.ring.holds_of(tables, after)
    }

    /// What follows `after`, to be read without the lock: whole transactions, until they hold `events` events.
    pub fn take(&self, epoch: Epoch, after: Offset, events: usize) -> Taken {
        let state = self.read_state();
        if state.epoch != Some(epoch) {
            return Taken::Foreign;
        }
        if !state.ring.holds(after) {
            return Taken::Behind;
        }
        let mut transactions = Vec::new();
        let mut found = 0;
        for transaction in state.ring.transactions_after(after).filter(|transaction| !transaction.events.is_empty()) {
            if found >= events {
                return Taken::Some(transactions);
            }
            found += transaction.events_after(after).len();
            transactions.push(Arc::clone(transaction));
        }
        let head = state.ring.head();
        let last = transactions.last().and_then(|last| last.events.last().map(|event| last.offset(event)));
        let next = after.max(last.unwrap_or(after)).max(Offset::just_before(head));
        Taken::All { transactions, next, watermark: state.ring.watermark_at(head) }
    }
}
