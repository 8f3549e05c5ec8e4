//! A shape that somebody asks for: its definition, the rows that it begins with, and what is known of its log without
//! looking. None of it is needed to answer: a replica that never heard of the shape works it out again.

use super::definition::Definition;
use super::error::ShapeError;
use super::initial::Initial;
use super::message::Framing;
use super::reader::{From, Hits, Messages, Part, Renderer};
use super::router::Router;
use super::source::Source;
use super::tale::Tale;
use super::wake::{Seen, Wake};
use crate::identity::Reach;
use crate::log::{Log, Transaction};
use headwater_model::cursor::{Epoch, Lsn, Offset};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Rows of earlier snapshots that are kept for clients in the middle of fetching them.
const OLDER_SNAPSHOTS: usize = 2;

/// Transactions that concern a shape, remembered by their commits. A busier shape forgets the oldest; who asks for what
/// lies behind them looks through the ring.
const REMEMBERED_HITS: usize = 1024;

/// Answers kept for clients that ask for the same: those who were woken together.
const SHARED_ANSWERS: usize = 4;

/// A snapshot is taken anew for newcomers when the log behind it is this many times larger than its rows …
const WORTHWHILE_FACTOR: u64 = 4;
/// … and at least this long, in bytes of WAL.
const WORTHWHILE_WAL: u64 = 16 << 20;

/// A shape.
#[derive(Debug)]
pub(super) struct Shape {
    pub(super) renderer: Arc<Renderer>,
    pub(super) epoch: Epoch,
    /// The log of a shape with subqueries, while somebody asks for it.
    tale: Mutex<Option<Arc<Tale>>>,
    state: Mutex<State>,
    shared: Mutex<Vec<Shared>>,
    hits: Mutex<Recorded>,
    /// Wakes parked readers.
    wake: Wake,
    /// Its table is another one by now, or it was deleted.
    stale: AtomicBool,
    /// When it was asked for, by the router's clock.
    pub(super) asked_at: AtomicU64,
    /// Whether the router watches for it.
    pub(super) routed: AtomicBool,
    /// Numbers subsets.
    marks: AtomicU32,
}

#[derive(Debug, Default)]
struct State {
    current: Option<Arc<Initial>>,
    older: VecDeque<Arc<Initial>>,
    /// What handles say that were given out without rows (`offset=now`).
    minted: Option<Lsn>,
    /// Handles up to here were deleted.
    deleted: Lsn,
    /// Nothing concerned the shape behind the first place, up to the second.
    quiet: Option<(Offset, Offset)>,
}

#[derive(Debug)]
struct Shared {
    after: Offset,
    framing: Framing,
    with_missed: bool,
    messages: Messages,
}

#[derive(Debug, Default)]
struct Recorded {
    /// Behind this place they are complete.
    behind: Option<Offset>,
    commits: VecDeque<Lsn>,
}

impl Shape {
    pub(super) fn new(definition: Definition, epoch: Epoch) -> Self {
        Self {
            renderer: Arc::new(Renderer::new(definition)),
            epoch,
            tale: Mutex::default(),
            state: Mutex::default(),
            shared: Mutex::default(),
            hits: Mutex::default(),
            wake: Wake::default(),
            stale: AtomicBool::new(false),
            asked_at: AtomicU64::new(0),
            routed: AtomicBool::new(false),
            marks: AtomicU32::new(0),
        }
    }

    pub(super) fn definition(&self) -> &Definition {
        &self.renderer.definition
    }

    /// The rows that a newcomer begins with: those that are there, if the log goes on from them, or new ones.
    pub(super) fn initial(&self, source: &Arc<Source>, reach: &Reach) -> Arc<Initial> {
        let mut state = self.state();
        if let Some(current) =
            state.current.as_ref().filter(|current| self.is_good(current, state.deleted, &source.log))
        {
            return Arc::clone(current);
        }
        let new = source.begin(Arc::clone(&self.renderer), self.tale(source), self.epoch, reach);
        if let Some(old) = state.current.replace(Arc::clone(&new)).filter(|old| !old.has_failed()) {
            state.older.push_back(old);
            if state.older.len() > OLDER_SNAPSHOTS {
                state.older.pop_front();
            }
        }
        new
    }

    /// The rows of the snapshot at `lsn`, if they are here.
    pub(super) fn initial_at(&self, lsn: Lsn) -> Option<Arc<Initial>> {
        let state = self.state();
        let mut all = state.current.iter().chain(&state.older);
        all.find(|initial| initial.known_joint().is_some_and(|joint| joint.lsn == lsn)).map(Arc::clone)
    }

    fn is_good(&self, initial: &Initial, deleted: Lsn, log: &Log) -> bool {
        if initial.has_failed() {
            return false;
        }
        let Some(joint) = initial.known_joint() else { return true };
        let place = Offset::just_before(joint.lsn);
        if joint.lsn <= deleted || !log.holds_rows(self.epoch, &self.definition().layout.watched, place) {
            return false;
        }
        let untouched = log.last_change(&self.definition().layout.watched).is_none_or(|last| last.lsn < joint.lsn);
        let behind = log.tip().head.0.saturating_sub(joint.lsn.0);
        let large = |bytes: u64| behind > (bytes * WORTHWHILE_FACTOR).max(WORTHWHILE_WAL);
        untouched || !initial.bytes().is_some_and(large)
    }

    /// The LSN of handles for those who want no rows; none if it has to be a new one, above the head.
    pub(super) fn mint(&self, log: &Log) -> Option<Lsn> {
        let mut state = self.state();
        let members = &self.definition().layout.watched;
        let deleted = state.deleted;
        let holds = |lsn: &Lsn| *lsn > deleted && log.holds_rows(self.epoch, members, Offset::just_before(*lsn));
        let current = state.current.as_ref().and_then(|current| current.known_joint()).map(|joint| joint.lsn);
        let lsn = current.into_iter().chain(state.minted).chain([log.tip().head]).find(holds)?;
        state.minted = Some(lsn);
        Some(lsn)
    }

    /// Whether handles with this LSN are still good, as far as we know.
    pub(super) fn honours(&self, lsn: Lsn) -> bool {
        lsn > self.state().deleted
    }

    /// Whether there is anything to delete.
    pub(super) fn exists(&self) -> bool {
        let state = self.state();
        state.current.is_some() || state.minted.is_some()
    }

    /// Whether this handle was given out here.
    pub(super) fn gave(&self, lsn: Lsn) -> bool {
        self.honours(lsn) && (self.state().minted == Some(lsn) || self.initial_at(lsn).is_some())
    }

    /// The log does not go on from places up to this one: there was something that copies cannot follow, though the table may be
    /// what it was before.
    pub(super) fn breaks(&self, upto: Lsn) {
        let mut state = self.state();
        let is_broken = |initial: &Arc<Initial>| initial.known_joint().is_some_and(|joint| joint.lsn <= upto);
        if state.current.as_ref().is_some_and(is_broken) {
            state.current = None;
        }
        state.older.retain(|older| !is_broken(older));
        state.minted = state.minted.filter(|minted| *minted > upto);
    }

    /// All handles up to now are worth nothing any more.
    pub(super) fn delete(&self, head: Lsn) {
        let mut state = self.state();
        let given = (state.current.iter().chain(&state.older)).filter_map(|initial| Some(initial.known_joint()?.lsn));
        let newest = given.chain(state.minted).max().unwrap_or_default();
        state.deleted = head.max(newest);
        self.renderer.is_new(state.deleted);
        (state.current, state.minted) = (None, None);
        state.older.clear();
        drop(state);
        self.wake();
    }

    /// Forgets rows that could be read again and that nobody is in the middle of fetching. (Whoever waits for changes has
    /// them already.)
    pub(super) fn shed(&self) {
        let mut state = self.state();
        state.older.retain(|older| older.is_being_read());
        if state.current.as_ref().is_some_and(|current| current.bytes().is_some() && !current.is_being_read()) {
            state.current = None;
        }
    }

    /// The log of a shape with subqueries.
    pub(super) fn tale(&self, source: &Source) -> Option<Arc<Tale>> {
        if !self.definition().has_subqueries() {
            return None;
        }
        let mut tale = self.tale.lock().unwrap_or_else(PoisonError::into_inner);
        if tale.is_none() {
            *tale = Tale::of(self.definition(), source, self.epoch).map(Arc::new);
        }
        tale.clone()
    }

    /// What the log has behind `after`; shared by those who ask for the same at the same time.
    #[expect(clippy::too_many_arguments, reason = "what is asked for, and where it is")]
    pub(super) async fn read(
        &self,
        log: &Log,
        router: &Router,
        missed: &[Arc<Transaction>],
        after: Offset,
        limit: usize,
        framing: Framing,
        hold: impl FnOnce(Messages) -> Result<Messages, ShapeError>,
    ) -> Result<Option<Messages>, ShapeError> {
        if let Some(known) = self.shared_answer(log, missed, after, framing) {
            return Ok(Some(known));
        }
        let start = match self.state().quiet {
            Some((from, to)) if missed.is_empty() && from <= after && after < to => to,
            _ => after,
        };
        let hits = self.hits_behind(start, router);
        let from = From { missed, after: start, hits: hits.as_ref() };
        let part = self.renderer.read(log, self.epoch, &from, limit, framing).await;
        let Part::Messages(messages) = part else { return Ok(None) };
        let messages = hold(messages)?;
        self.note(after, start, &messages);
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        if shared.len() == SHARED_ANSWERS {
            shared.remove(0);
        }
        if messages.last.is_some() {
            shared.push(Shared { after, framing, with_missed: !missed.is_empty(), messages: messages.clone() });
        }
        Ok(Some(messages))
    }

    /// Answers that are kept for whoever asks for the same.
    pub(super) fn forget_answers(&self) {
        *self.shared.lock().unwrap_or_else(PoisonError::into_inner) = Vec::new();
    }

    fn shared_answer(
        &self,
        log: &Log,
        missed: &[Arc<Transaction>],
        after: Offset,
        framing: Framing,
    ) -> Option<Messages> {
        let shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        let same = |known: &&Shared| {
            known.after == after && known.framing == framing && known.with_missed != missed.is_empty()
        };
        let known = shared.iter().find(same)?;
        let last = log.last_change(&self.definition().layout.members);
        let nothing_since = last.is_none_or(|last| last.lsn < known.messages.head);
        (nothing_since || !known.messages.complete).then(|| known.messages.clone())
    }

    fn note(&self, after: Offset, start: Offset, messages: &Messages) {
        let mut state = self.state();
        let to = messages.next;
        state.quiet = match (messages.last, state.quiet) {
            (Some(last), _) if last < to => Some((last, to)),
            (Some(_), _) => state.quiet,
            (None, Some((from, known))) if from <= after && after <= known && start >= after => {
                Some((from, known.max(to)))
            }
            (None, Some((_, known))) if known > to => state.quiet,
            (None, _) => Some((after, to)),
        };
    }

    fn hits_behind(&self, after: Offset, router: &Router) -> Option<Hits> {
        // Before the hits: what lies before it has been recorded.
        let upto = router.position();
        let hits = self.hits.lock().unwrap_or_else(PoisonError::into_inner);
        let behind = hits.behind?;
        if after < behind || after >= Offset::just_before(upto) {
            return None;
        }
        let commits = hits.commits.iter().copied().filter(|commit| *commit >= after.lsn && *commit < upto).collect();
        Some(Hits { commits, upto })
    }

    /// The router begins to watch.
    pub(super) fn begin_hits(&self, from: Lsn) {
        let mut hits = self.hits.lock().unwrap_or_else(PoisonError::into_inner);
        hits.commits.clear();
        hits.behind = Some(Offset::just_before(from));
    }

    /// The router has stopped watching.
    pub(super) fn end_hits(&self) {
        *self.tale.lock().unwrap_or_else(PoisonError::into_inner) = None;
        *self.hits.lock().unwrap_or_else(PoisonError::into_inner) = Recorded::default();
        self.forget_answers();
    }

    /// A transaction may concern the shape. False if that was known.
    pub(super) fn hit(&self, commit: Lsn) -> bool {
        let mut hits = self.hits.lock().unwrap_or_else(PoisonError::into_inner);
        if hits.commits.back() == Some(&commit) {
            return false;
        }
        if hits.commits.len() == REMEMBERED_HITS {
            // Complete behind the whole of the one that goes: somebody may have had a part of it.
            hits.behind = hits.commits.pop_front().map(|oldest| Offset { lsn: oldest, op: u64::MAX });
        }
        hits.commits.push_back(commit);
        true
    }

    /// What tells a subset's rows from those of others: a number of 31 bits that does not come again soon, here or on
    /// another replica.
    pub(super) fn next_mark(&self) -> u32 {
        let random =
            std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |now| now.subsec_nanos());
        (random ^ self.marks.fetch_add(0x9e37_79b1, Ordering::Relaxed)) >> 1
    }

    /// Parked readers look again.
    pub(super) fn wake(&self) {
        self.wake.wake();
    }

    /// For somebody who is going to wait.
    pub(super) fn wakes(self: &Arc<Self>) -> Wakes {
        self.wake.enter();
        Wakes { shape: Arc::clone(self), seen: self.wake.seen() }
    }

    pub(super) fn has_readers(&self) -> bool {
        self.wake.has_readers()
    }

    /// Its table is not what it was.
    pub(super) fn end(&self) {
        self.stale.store(true, Ordering::Release);
        self.wake();
    }

    pub(super) fn is_stale(&self) -> bool {
        self.stale.load(Ordering::Acquire)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Somebody who waits for changes of a shape, or is about to.
#[derive(Debug)]
pub(super) struct Wakes {
    shape: Arc<Shape>,
    seen: Seen,
}

impl Wakes {
    /// Before a look: what arrives from here on wakes.
    pub(super) fn mark_unchanged(&mut self) {
        self.seen = self.shape.wake.seen();
    }

    /// Waits until something has arrived since.
    pub(super) async fn changed(&self) {
        self.shape.wake.changed(self.seen).await;
    }
}

impl Drop for Wakes {
    fn drop(&mut self) {
        self.shape.wake.leave();
    }
}
