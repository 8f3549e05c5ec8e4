//! The log: the newest transactions in memory, shared by every reader. Filled by a source, and does not know which.
//!
//! An event is framed once, when it arrives; a row change is kept as it came. Readers hold a place in the ring, never a
//! queue.

mod assembler;
mod frame;
mod reads;
mod ring;
mod rows;
mod snapshot;
mod timestamp;
mod transaction;
#[cfg(test)]
pub(crate) mod written;

pub use assembler::{AssembleError, Assembler};
pub use frame::{EventRow, put};
pub use reads::{Read, RowsRead, Taken};
pub use ring::{Limits, Watermark};
pub use rows::{RowChange, RowKind, Rows, Table, TableColumn};
pub use snapshot::{InvalidSnapshot, Snapshot};
pub use timestamp::write_rfc3339;
pub use transaction::{Event, Touched, Transaction};

use headwater_model::cursor::{Epoch, Lsn};
use ring::Ring;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use tokio::sync::watch;

/// Idle readers are woken when the head has moved by this part of the ring's length, in WAL or in memory, so that they keep their place:
/// whoever has read up to the head once stays this far in front of the ring's start.
const REFRESH_PART: u32 = 4;

/// How the feed from Postgres stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feed {
    /// Not connected yet, or still reading what the ring held before a restart.
    Starting,
    /// The log follows the WAL.
    Streaming,
    /// It did, and the source is trying to get back.
    Interrupted,
}

/// What there is to know at a glance.
#[derive(Clone, Copy, Debug)]
pub struct Tip {
    /// The history, once a source has told it.
    pub epoch: Option<Epoch>,
    /// The first position that the ring still covers.
    pub start: Lsn,
    /// Everything before it has been received.
    pub head: Lsn,
    /// Memory that the ring takes.
    pub bytes: usize,
    /// The newest watermark.
    pub watermark: Option<Watermark>,
}

/// How much has arrived.
#[derive(Clone, Copy, Debug)]
pub struct Counts {
    /// Transactions, those without events included.
    pub transactions: u64,
    /// Events.
    pub events: u64,
}

/// Called when readers have something to do; must not wait.
type Waker = Box<dyn Fn() + Send + Sync>;

/// The shared log.
pub struct Log {
    limits: Limits,
    state: RwLock<State>,
    transactions: AtomicU64,
    events: AtomicU64,
    /// Counts what readers of events should wake up for.
    arrivals: watch::Sender<u64>,
    /// Threads that are woken besides, without a task in between.
    wakers: RwLock<Vec<Waker>>,
    /// Counts arrivals of row changes.
    row_arrivals: watch::Sender<u64>,
    head: watch::Sender<Lsn>,
    feed: watch::Sender<Feed>,
    watermark: watch::Sender<Option<Watermark>>,
    epoch: watch::Sender<Option<Epoch>>,
}

#[derive(Debug)]
struct State {
    epoch: Option<Epoch>,
    ring: Ring,
    woken_at_head: Lsn,
    /// What the ring has taken since readers were woken last.
    bytes_since: usize,
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log").field("limits", &self.limits).field("tip", &self.tip()).finish_non_exhaustive()
    }
}

impl Log {
    /// Empty, and of no history yet.
    pub fn new(limits: Limits) -> Self {
        let ring = Ring::new(limits, Lsn(0));
        Self {
            limits,
            transactions: AtomicU64::new(0),
            events: AtomicU64::new(0),
            state: RwLock::new(State { epoch: None, ring, woken_at_head: Lsn(0), bytes_since: 0 }),
            arrivals: watch::Sender::new(0),
            wakers: RwLock::default(),
            row_arrivals: watch::Sender::new(0),
            head: watch::Sender::new(Lsn(0)),
            feed: watch::Sender::new(Feed::Starting),
            watermark: watch::Sender::new(None),
            epoch: watch::Sender::new(None),
        }
    }

    /// How much the ring may hold.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// Keeps less WAL than was asked for, as long as Postgres would not keep more for us.
    pub fn limit_wal(&self, bytes: u64) {
        self.write().ring.limit_wal(bytes.min(self.limits.wal_bytes));
    }

    /// A source has connected: the slot of history `epoch` goes on from `confirmed`. Answers where to start.
    ///
    /// What the ring has is kept if the slot can go on behind it; else everything starts anew at `confirmed`, and
    /// readers go on from the table.
    pub fn open(&self, epoch: Epoch, confirmed: Lsn) -> Lsn {
        let mut state = self.write();
        let continues = state.epoch == Some(epoch) && confirmed <= state.ring.head() && state.ring.head() > Lsn(0);
        if !continues {
            let watermark = state.ring.watermark().filter(|_| state.epoch == Some(epoch));
            state.ring = Ring::new(state.ring.limits(), confirmed);
            state.woken_at_head = confirmed;
            if let Some(watermark) = watermark {
                state.ring.set_watermark(watermark);
            }
            state.epoch = Some(epoch);
            self.watermark.send_replace(watermark);
            self.epoch.send_replace(Some(epoch));
        }
        let head = state.ring.head();
        drop(state);
        self.head.send_replace(head);
        self.wake();
        self.wake_for_rows();
        head
    }

    /// Appends committed transactions in the order of the WAL, then moves the head.
    pub fn append(&self, transactions: Vec<Transaction>, head: Lsn) {
        let mut state = self.write();
        let arrived = transactions.iter().any(|transaction| !transaction.events.is_empty());
        self.transactions.fetch_add(transactions.len() as u64, Ordering::Relaxed);
        let events: usize = transactions.iter().map(|transaction| transaction.events.len()).sum();
        self.events.fetch_add(events as u64, Ordering::Relaxed);
        let rows = transactions.iter().any(|transaction| !transaction.touched.is_empty());
        for transaction in transactions {
            state.bytes_since += if transaction.is_empty() && !transaction.oversize { 0 } else { transaction.bytes() };
            state.ring.append(transaction);
        }
        state.ring.advance(head);
        let head = state.ring.head();
        let limits = state.ring.limits();
        let moved_far = head.0 - state.woken_at_head.0 > limits.wal_bytes / u64::from(REFRESH_PART)
            || state.bytes_since > limits.bytes / REFRESH_PART as usize;
        if arrived || moved_far {
            state.woken_at_head = head;
            state.bytes_since = 0;
        }
        drop(state);
        // First those who bring events to sockets: waking a task may take this thread a system call each.
        if arrived || moved_far {
            self.wake();
        }
        self.head.send_if_modified(|known| std::mem::replace(known, head) != head);
        if rows {
            self.wake_for_rows();
        }
    }

    /// How much has arrived since the start.
    pub fn counts(&self) -> Counts {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Counts { transactions: of(&self.transactions), events: of(&self.events) }
    }

    /// How far the slot may be confirmed.
    pub fn confirmed(&self) -> Lsn {
        self.read_state().ring.confirmed()
    }

    /// Keeps in mind what leaves the ring until the pin is dropped; taken before a snapshot that is to be joined.
    pub fn pin(self: &Arc<Self>) -> Pin {
        Pin { id: self.write().ring.pin(), log: Arc::clone(self) }
    }

    /// Whether [`Log::observe`] has anything to learn.
    pub fn needs_observation(&self) -> bool {
        self.read_state().ring.needs_observation()
    }

    /// Tells which transactions a snapshot sees that was taken after the head was at `head`.
    pub fn observe(&self, head: Lsn, snapshot: &Snapshot) {
        self.write().ring.observe(head, snapshot);
    }

    /// A new watermark of the history `epoch`.
    pub fn set_watermark(&self, epoch: Epoch, watermark: Watermark) {
        let mut state = self.write();
        if state.epoch == Some(epoch) {
            state.ring.set_watermark(watermark);
            drop(state);
            self.watermark.send_replace(Some(watermark));
        }
    }

    /// The newest watermark whose marker lies at or before `lsn`.
    pub fn watermark_at(&self, lsn: Lsn) -> Option<Watermark> {
        self.read_state().ring.watermark_at(lsn)
    }

    /// What there is to know at a glance.
    pub fn tip(&self) -> Tip {
        let state = self.read_state();
        let ring = &state.ring;
        Tip {
            epoch: state.epoch,
            start: ring.start(),
            head: ring.head(),
            bytes: ring.bytes(),
            watermark: ring.watermark(),
        }
    }

    /// Changes whenever readers have something to do.
    pub fn arrivals(&self) -> watch::Receiver<u64> {
        self.arrivals.subscribe()
    }

    /// Changes whenever there are new row changes.
    pub fn row_arrivals(&self) -> watch::Receiver<u64> {
        self.row_arrivals.subscribe()
    }

    /// Calls `waker` whenever readers have something to do, from the thread that brings it: it must not wait.
    pub fn on_arrival(&self, waker: impl Fn() + Send + Sync + 'static) {
        self.wakers.write().unwrap_or_else(PoisonError::into_inner).push(Box::new(waker));
    }

    /// The head.
    pub fn head(&self) -> watch::Receiver<Lsn> {
        self.head.subscribe()
    }

    /// How the feed stands.
    pub fn feed(&self) -> watch::Receiver<Feed> {
        self.feed.subscribe()
    }

    /// Tells how the feed stands.
    pub fn set_feed(&self, feed: Feed) {
        self.feed.send_replace(feed);
    }

    /// The newest watermark.
    pub fn watermarks(&self) -> watch::Receiver<Option<Watermark>> {
        self.watermark.subscribe()
    }

    /// The history.
    pub fn epochs(&self) -> watch::Receiver<Option<Epoch>> {
        self.epoch.subscribe()
    }

    fn wake(&self) {
        for wake in &*self.wakers.read().unwrap_or_else(PoisonError::into_inner) {
            wake();
        }
        self.arrivals.send_modify(|count| *count = count.wrapping_add(1));
    }

    fn wake_for_rows(&self) {
        self.row_arrivals.send_modify(|count| *count = count.wrapping_add(1));
    }

    // A panic under the lock leaves whole transactions or none: the ring stays usable.
    fn read_state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Between a snapshot and its join: see [`Log::pin`].
#[derive(Debug)]
pub struct Pin {
    id: u64,
    log: Arc<Log>,
}

impl Pin {
    /// The transactions before `marker` that `snapshot` does not see, in the order of the log; none if one of them
    /// has left the ring already, and the snapshot has to be taken again.
    pub fn missed_by(&self, snapshot: &Snapshot, marker: Lsn) -> Option<Vec<Arc<Transaction>>> {
        self.log.read_state().ring.missed_by(snapshot, marker)
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        self.log.write().ring.unpin(self.id);
    }
}
