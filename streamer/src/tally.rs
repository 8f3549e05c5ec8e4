//! What becomes of streams, counted where it happens; whoever shows numbers reads them here.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Why a stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The reader went, or its network.
    Left,
    /// It took nothing for `--write-timeout`.
    Slow,
    /// Its token expired.
    Expired,
    /// Its cursor is of no use any more: it was told to start anew.
    Reset,
    /// The streamer stops.
    Shutdown,
}

impl Reason {
    /// All of them, in the order in which they are counted.
    pub const ALL: [Self; 5] = [Self::Left, Self::Slow, Self::Expired, Self::Reset, Self::Shutdown];

    /// As it stands in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Left => "left",
            Self::Slow => "slow",
            Self::Expired => "expired",
            Self::Reset => "reset",
            Self::Shutdown => "shutdown",
        }
    }
}

/// The counts of one streamer. Polls that wait are no streams here.
#[derive(Debug, Default)]
pub struct Tally {
    ended: [AtomicU64; Reason::ALL.len()],
    catch_ups: AtomicU64,
}

impl Tally {
    /// A stream has ended.
    pub fn end(&self, reason: Reason) {
        self.ended[reason as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// How many have ended so.
    pub fn ended(&self, reason: Reason) -> u64 {
        self.ended[reason as usize].load(Ordering::Relaxed)
    }

    /// A stream that is behind the ring begins to read the table, to be joined to the log.
    pub fn catch_up(&self) {
        self.catch_ups.fetch_add(1, Ordering::Relaxed);
    }

    /// How often that was.
    pub fn catch_ups(&self) -> u64 {
        self.catch_ups.load(Ordering::Relaxed)
    }
}

/// One stream's end, which is counted once, whoever drops it.
#[derive(Debug)]
pub struct Ending {
    tally: Arc<Tally>,
    reason: Option<Reason>,
}

impl Ending {
    /// Unless something else is said, it is the reader who leaves.
    pub fn new(tally: Arc<Tally>) -> Self {
        Self { tally, reason: Some(Reason::Left) }
    }

    /// Why it will have ended.
    pub fn because(&mut self, reason: Reason) {
        self.reason = Some(reason);
    }

    /// Somebody else carries the stream on, and counts its end.
    pub fn pass_on(mut self) {
        self.reason = None;
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        if let Some(reason) = self.reason {
            self.tally.end(reason);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_end_is_counted_once_by_its_reason() {
        let tally = Arc::new(Tally::default());
        drop(Ending::new(Arc::clone(&tally)));
        let mut slow = Ending::new(Arc::clone(&tally));
        slow.because(Reason::Slow);
        drop(slow);
        Ending::new(Arc::clone(&tally)).pass_on();
        assert_eq!(Reason::ALL.map(|reason| tally.ended(reason)), [1, 1, 0, 0, 0]);
    }
}
