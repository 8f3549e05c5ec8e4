//! How it went during the last minutes: a bounded ring of samples, so that a page has its plots at once.

use crate::events::Events;
use crate::log::{Feed, Log};
use crate::metrics::Metrics;
use crate::vitals::Vitals;
use serde::Serialize;
use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

/// As often as Postgres is asked of the slot anyway ([`Vitals`]).
const EVERY: Duration = Duration::from_secs(2);

/// A quarter of an hour, in some 50 KiB.
const KEPT: usize = 450;

/// One look.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Sample {
    /// Counts up by one; a page asks for what it does not have yet.
    pub number: u64,
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// Whether the log follows the WAL.
    pub streaming: bool,
    /// Events that have come through the log since the start.
    pub events: u64,
    /// Transactions, the same.
    pub transactions: u64,
    /// WAL that was written and not received; none if Postgres does not answer.
    pub lag_bytes: Option<u64>,
    /// WAL that Postgres keeps for our slot.
    pub retained_bytes: Option<i64>,
    /// Time since it was last found how far pollers may read.
    pub watermark_age_ms: u64,
    /// Open streams of all transports.
    pub clients: i64,
}

/// The last samples.
#[derive(Debug, Default)]
pub struct Samples(Mutex<VecDeque<Sample>>);

impl Samples {
    /// Those behind number `after`, oldest first.
    pub fn after(&self, after: Option<u64>) -> Vec<Sample> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // A number from before a restart may be above ours: then all are new.
        let after = after.filter(|after| all.back().is_some_and(|last| *after <= last.number));
        all.iter().filter(|sample| after.is_none_or(|after| sample.number > after)).copied().collect()
    }

    fn push(&self, sample: Sample) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() == KEPT {
            all.pop_front();
        }
        all.push_back(sample);
    }

    /// Looks every few seconds until `shutdown`.
    pub(super) async fn keep(
        &self,
        log: &Log,
        vitals: &Vitals,
        metrics: &Metrics,
        events: &Events,
        shutdown: &CancellationToken,
    ) {
        let mut ticks = interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        for number in 1.. {
            tokio::select! {
                () = shutdown.cancelled() => return,
                _ = ticks.tick() => {}
            }
            let streaming = *log.feed().borrow() == Feed::Streaming;
            // While nothing streams the database is most likely away.
            let found = if streaming { Some(vitals.look().await) } else { None };
            let end = found.as_ref().and_then(|found| found.wal_end);
            let counts = log.counts();
            self.push(Sample {
                number,
                at_ms: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, millis),
                streaming,
                events: counts.events,
                transactions: counts.transactions,
                lag_bytes: end.map(|end| end.saturating_sub(log.tip().head.0)),
                retained_bytes: found.as_ref().and_then(|found| found.slot.as_ref()?.retained_bytes),
                watermark_age_ms: millis(events.watermark_age()),
                clients: metrics.open_streams().iter().map(|(_, count)| count).sum(),
            });
        }
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_gets_what_it_does_not_have() {
        let samples = Samples::default();
        let sample = |number| Sample {
            number,
            at_ms: number,
            streaming: true,
            events: number,
            transactions: 0,
            lag_bytes: None,
            retained_bytes: None,
            watermark_age_ms: 0,
            clients: 0,
        };
        let first_and_last = |after| {
            let found = samples.after(after);
            Some((found.first()?.number, found.last()?.number))
        };
        assert_eq!(first_and_last(None), None);
        (1..=500).for_each(|number| samples.push(sample(number)));
        assert_eq!(first_and_last(None), Some((51, 500)));
        assert_eq!(first_and_last(Some(3)), Some((51, 500)));
        assert_eq!(first_and_last(Some(498)), Some((499, 500)));
        assert_eq!(first_and_last(Some(500)), None);
        assert_eq!(first_and_last(Some(9000)), Some((51, 500)), "of the streamer before");
    }
}
