//! The rows that a shape begins with: read once for all who ask, in chunks that stay what they are, joined exactly to the
//! log (`crate::seam`).

use super::chunks::{Chunks, Room};
use super::error::ShapeError;
use super::pieces::Piece;
use super::wake::Wake;
use crate::log::Transaction;
use headwater_model::cursor::Lsn;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};
use tokio::time::sleep;

/// A client that takes longer from one chunk to the next may find that the rows were let go, and begins anew.
const BETWEEN_CHUNKS: Duration = Duration::from_mins(1);

/// A client that has got nothing yet comes back within this time, if only its connection was lost; else nobody waits any more.
const BEFORE_FIRST_CHUNK: Duration = Duration::from_secs(2);

/// A client that was told to begin anew comes at once, or after it has waited as clients do when they are told so often.
const BEHIND_PROMISE: Duration = Duration::from_secs(10);

/// How far the reading is.
#[derive(Clone, Debug)]
enum Progress {
    /// The joint with the log is not known yet.
    Starting,
    /// So many chunks are there.
    Reading(usize),
    /// All of them are.
    Done(usize),
    /// It broke off.
    Failed(Arc<ShapeError>),
}

/// The rows that a shape begins with.
pub(super) struct Initial {
    chunks: Chunks,
    readers: Mutex<Readers>,
    progress: Mutex<Progress>,
    moved: Wake,
    joint: OnceLock<Joint>,
}

/// Who wants a part of it.
#[derive(Debug)]
struct Readers {
    waiting: usize,
    /// When somebody last began or stopped to wait.
    asked_at: Instant,
    /// How long after that it is kept for who comes back.
    patience: Duration,
}

/// Somebody waits for a part.
struct Waiting<'a>(&'a Initial);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut readers = self.0.readers();
        readers.waiting -= 1;
        readers.asked_at = Instant::now();
    }
}

/// Where rows and log meet.
#[derive(Debug)]
pub(super) struct Joint {
    /// The marker: from here on the log alone is enough.
    pub(super) lsn: Lsn,
    /// Transactions before it that the rows do not have.
    pub(super) missed: Vec<Arc<Transaction>>,
}

/// A chunk, or the end.
#[derive(Debug)]
pub(super) enum Chunk {
    /// Its messages, as elements of an array.
    Rows(Piece),
    /// There are no more: the log goes on.
    End,
}

impl fmt::Debug for Initial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Initial").field("progress", &self.progress).finish_non_exhaustive()
    }
}

impl Initial {
    /// Of a shape whose rows are wanted.
    pub(super) fn new(room: Arc<Room>) -> Self {
        Self {
            chunks: Chunks::new(room),
            readers: Mutex::new(Readers { waiting: 0, asked_at: Instant::now(), patience: BEFORE_FIRST_CHUNK }),
            progress: Mutex::new(Progress::Starting),
            moved: Wake::default(),
            joint: OnceLock::new(),
        }
    }

    /// The reading begins: the joint with the log is known.
    pub(super) fn joins(&self, joint: Joint) {
        let _ = self.joint.set(joint); // once
        self.moves(Progress::Reading(0));
    }

    /// The next chunk.
    pub(super) async fn add(&self, chunk: Vec<u8>) -> Result<(), ShapeError> {
        self.chunks.push(chunk).await?;
        self.moves(Progress::Reading(self.chunks.len()));
        Ok(())
    }

    /// The reading has ended.
    pub(super) fn ends(&self, outcome: Result<(), ShapeError>) {
        match outcome {
            Ok(()) => self.moves(Progress::Done(self.chunks.len())),
            Err(error) => self.fails(&Arc::new(error)),
        }
    }

    /// The reading has failed, perhaps those of others too.
    pub(super) fn fails(&self, error: &Arc<ShapeError>) {
        self.moves(Progress::Failed(Arc::clone(error)));
    }

    /// Whether nobody has wanted a part of it for a while: then it has failed.
    pub(super) fn ends_if_forsaken(&self) -> bool {
        let forsaken = self.wanted_for().is_zero();
        if forsaken {
            self.ends(Err(ShapeError::not_begun(1)));
        }
        forsaken
    }

    /// Waits until nobody has wanted a part of it for a while.
    pub(super) async fn is_forsaken(&self) {
        loop {
            let left = self.wanted_for();
            if left.is_zero() {
                return;
            }
            sleep(left).await;
        }
    }

    /// How long it is wanted at least, if nobody asks for it any more.
    fn wanted_for(&self) -> Duration {
        let readers = self.readers();
        let patience = readers.patience;
        if readers.waiting > 0 { patience } else { patience.saturating_sub(readers.asked_at.elapsed()) }
    }

    fn progress(&self) -> Progress {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn moves(&self, to: Progress) {
        *self.progress.lock().unwrap_or_else(PoisonError::into_inner) = to;
        self.moved.wake();
    }

    /// Waits until it is as far as this.
    async fn until(&self, is_there: impl Fn(&Progress) -> bool) -> Progress {
        loop {
            let seen = self.moved.seen();
            let progress = self.progress();
            if is_there(&progress) {
                return progress;
            }
            self.moved.changed(seen).await;
        }
    }

    fn readers(&self) -> MutexGuard<'_, Readers> {
        self.readers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn waiting(&self) -> Waiting<'_> {
        let mut readers = self.readers();
        readers.waiting += 1;
        readers.asked_at = Instant::now();
        Waiting(self)
    }

    fn is_kept_for(&self, patience: Duration) {
        let mut readers = self.readers();
        readers.patience = readers.patience.max(patience);
    }

    /// Where rows and log meet; waits until it is known.
    pub(super) async fn joint(&self) -> Result<&Joint, ShapeError> {
        let _waiting = self.waiting();
        match self.until(|progress| !matches!(progress, Progress::Starting)).await {
            Progress::Failed(error) if self.joint.get().is_none() => Err(again(&error)),
            _ => self.joint.get().ok_or_else(|| ShapeError::not_begun(1)),
        }
    }

    /// The same for somebody who will be told of it, and then comes for the rows.
    pub(super) async fn promise(&self) -> Result<&Joint, ShapeError> {
        let joint = self.joint().await?;
        self.is_kept_for(BEHIND_PROMISE);
        Ok(joint)
    }

    /// The joint, if it is known already.
    pub(super) fn known_joint(&self) -> Option<&Joint> {
        self.joint.get()
    }

    /// Whether it broke off.
    pub(super) fn has_failed(&self) -> bool {
        matches!(self.progress(), Progress::Failed(_))
    }

    /// How large it is, if it is complete.
    pub(super) fn bytes(&self) -> Option<u64> {
        matches!(self.progress(), Progress::Done(_)).then(|| self.chunks.bytes())
    }

    /// Whether somebody may be in the middle of fetching it.
    pub(super) fn is_being_read(&self) -> bool {
        let readers = self.readers();
        readers.waiting > 0 || readers.asked_at.elapsed() < BETWEEN_CHUNKS
    }

    /// A chunk; waits until it is there, or known not to be.
    pub(super) async fn chunk(&self, index: usize) -> Result<Chunk, ShapeError> {
        let _waiting = self.waiting();
        let known = self.until(|progress| match progress {
            Progress::Starting => false,
            Progress::Reading(chunks) => *chunks > index,
            Progress::Done(_) | Progress::Failed(_) => true,
        });
        match known.await {
            Progress::Done(chunks) if index >= chunks => Ok(Chunk::End),
            Progress::Failed(error) => Err(again(&error)),
            _ => match self.chunks.get(index) {
                Some(rows) => {
                    self.is_kept_for(BETWEEN_CHUNKS);
                    Ok(Chunk::Rows(rows))
                }
                None => Err(ShapeError::not_begun(1)),
            },
        }
    }
}

/// The same failure for everybody who waits.
fn again(error: &ShapeError) -> ShapeError {
    match error {
        ShapeError::Invalid(errors) => ShapeError::Invalid(errors.clone()),
        ShapeError::Refetch(_) => ShapeError::Refetch(None),
        ShapeError::Unreadable => ShapeError::Unreadable,
        ShapeError::Unavailable { body, retry_after } => {
            ShapeError::Unavailable { body: body.clone(), retry_after: *retry_after }
        }
        other => {
            tracing::error!(error = %other, "a shape's rows could not be read");
            ShapeError::not_begun(10)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    fn shortly_before(time: Duration) -> Duration {
        time.saturating_sub(Duration::from_secs(1))
    }

    fn initial() -> Initial {
        Initial::new(Arc::new(Room::new(1000, 0)))
    }

    fn joint() -> Joint {
        Joint { lsn: Lsn(1), missed: Vec::new() }
    }

    /// As if nobody had asked for so long.
    fn since_asked(initial: &Initial, time: Duration) {
        initial.readers().asked_at = Instant::now().checked_sub(time).expect("the machine has been up for longer");
    }

    fn is_forsaken_after(initial: &Initial, time: Duration) -> bool {
        since_asked(initial, time);
        initial.is_forsaken().now_or_never().is_some()
    }

    /// It is kept until then, and no longer.
    fn check(initial: &Initial, kept: Duration) {
        assert!(!is_forsaken_after(initial, shortly_before(kept)), "let go too early");
        assert!(is_forsaken_after(initial, kept), "still kept after {kept:?}");
    }

    #[tokio::test]
    async fn rows_wait_for_who_was_told_to_come_and_are_let_go_then() {
        let promised = initial();
        check(&promised, BEFORE_FIRST_CHUNK);
        promised.joins(joint());
        promised.promise().await.expect("the joint is known");
        check(&promised, BEHIND_PROMISE);
        since_asked(&promised, shortly_before(BEHIND_PROMISE));
        assert!(!promised.ends_if_forsaken() && !promised.has_failed());
        since_asked(&promised, BEHIND_PROMISE);
        assert!(promised.ends_if_forsaken() && promised.has_failed(), "nobody reads on");
    }

    #[tokio::test]
    async fn who_has_a_part_has_a_minute_for_the_next() {
        let fetched = initial();
        fetched.joins(joint());
        fetched.add(b"rows".to_vec()).await.expect("there is room");
        assert!(matches!(fetched.chunk(0).await, Ok(Chunk::Rows(_))));
        check(&fetched, BETWEEN_CHUNKS);
        fetched.promise().await.expect("the joint is known");
        check(&fetched, BETWEEN_CHUNKS);
    }

    #[tokio::test]
    async fn who_waits_is_waited_for() {
        let wanted = initial();
        let mut waiting = Box::pin(wanted.joint());
        assert!((&mut waiting).now_or_never().is_none());
        assert!(!is_forsaken_after(&wanted, BETWEEN_CHUNKS));
        drop(waiting);
        assert!(!wanted.ends_if_forsaken(), "the time begins when the last one goes");
        check(&wanted, BEFORE_FIRST_CHUNK);
    }
}
