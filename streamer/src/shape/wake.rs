//! Wakes those who wait for something to move. As `tokio::sync::watch`, whose channel has nine rows for waiters: a shape that
//! nobody waits for should not cost that.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use tokio::sync::Notify;

/// A count that goes up, and those who wait for that.
#[derive(Debug, Default)]
pub(super) struct Wake {
    count: AtomicU64,
    waiting: AtomicUsize,
    moved: Notify,
}

/// What a waiter has seen.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen(u64);

impl Wake {
    /// Everybody looks again.
    pub(super) fn wake(&self) {
        self.count.fetch_add(1, Ordering::AcqRel);
        self.moved.notify_waiters();
    }

    /// Marked before the look: what moves from here on wakes.
    pub(super) fn seen(&self) -> Seen {
        Seen(self.count.load(Ordering::Acquire))
    }

    /// Waits until something has moved since.
    pub(super) async fn changed(&self, seen: Seen) {
        loop {
            // It hears of what moves from here on, polled or not.
            let moved = self.moved.notified();
            if self.count.load(Ordering::Acquire) != seen.0 {
                return;
            }
            moved.await;
        }
    }

    /// Somebody is there, waiting or not.
    pub(super) fn enter(&self) {
        self.waiting.fetch_add(1, Ordering::Relaxed);
    }

    /// As many times as [`Wake::enter`].
    pub(super) fn leave(&self) {
        self.waiting.fetch_sub(1, Ordering::Relaxed);
    }

    /// Whether somebody is.
    pub(super) fn has_readers(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    #[tokio::test]
    async fn who_has_marked_is_woken_by_what_moves_from_then_on() {
        let wake = Wake::default();
        wake.wake();
        let seen = wake.seen();
        assert!(wake.changed(seen).now_or_never().is_none(), "nothing has moved since");
        // Between the mark and the wait.
        wake.wake();
        assert!(wake.changed(seen).now_or_never().is_some());
        let seen = wake.seen();
        let mut waiting = std::pin::pin!(wake.changed(seen));
        assert!((&mut waiting).now_or_never().is_none());
        wake.wake();
        assert!(waiting.now_or_never().is_some(), "while waiting");
    }
}
