//! Awaiting a condition, with a deadline that names what was awaited.

use std::future::Future;
use std::time::{Duration, Instant};

/// Long enough for a loaded machine with two cores; a test that meets it hangs for good.
pub const PATIENCE: Duration = Duration::from_mins(1);

pub(crate) const BETWEEN_LOOKS: Duration = Duration::from_millis(10);

/// Looks again and again until `look` gives a value.
pub async fn eventually<T, F, Fut>(what: &str, look: F) -> T
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Option<T>>,
{
    eventually_within(PATIENCE, what, look).await
}

/// As `eventually`, with a deadline of its own.
pub async fn eventually_within<T, F, Fut>(patience: Duration, what: &str, mut look: F) -> T
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Option<T>>,
{
    let deadline = Instant::now() + patience;
    loop {
        if let Some(value) = look().await {
            return value;
        }
        assert!(Instant::now() < deadline, "waited {patience:?} in vain for: {what}");
        tokio::time::sleep(BETWEEN_LOOKS).await;
    }
}

/// As long as `progress` keeps changing it may take any time; ends when `done` holds, fails when all stands still.
pub async fn while_it_moves<P: PartialEq>(what: &str, mut progress: impl FnMut() -> P, mut done: impl FnMut() -> bool) {
    let mut last = progress();
    let mut moved = Instant::now();
    while !done() {
        let now = progress();
        if now != last {
            last = now;
            moved = Instant::now();
        }
        assert!(moved.elapsed() < PATIENCE, "nothing moved for {PATIENCE:?} while waiting for: {what}");
        tokio::time::sleep(BETWEEN_LOOKS).await;
    }
}
