//! A poller that waits: it is woken when there may be something for it, and reads a page like any other.
//!
//! The log is looked through, so that what its filter passes over costs no query; the page itself comes from the table
//! up to the watermark, for a poller's cursor has no offset.

use super::{Events, Filter};
use crate::log::Read;
use headwater_model::cursor::{Epoch, Offset};
use std::sync::Arc;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// What a poller has not looked at yet.
#[derive(Debug)]
pub struct Wait {
    events: Arc<Events>,
    filter: Filter,
    epoch: Option<Epoch>,
    /// Everything in the log up to here has been looked at.
    offset: Offset,
    /// What was committed before lies below the watermark when a round beyond this one has ended; until then a page
    /// may have missed it.
    unsettled: Option<u64>,
    arrivals: watch::Receiver<u64>,
    rounds: watch::Receiver<u64>,
}

impl Events {
    /// Begins to watch for what `filter` takes. Called before the page is read that may turn out to be empty.
    pub fn watch(self: &Arc<Self>, filter: &Filter) -> Wait {
        let arrivals = self.log.arrivals();
        let tip = self.log.tip();
        Wait {
            events: Arc::clone(self),
            filter: filter.clone(),
            epoch: tip.epoch,
            offset: Offset::just_before(tip.head),
            unsettled: Some(self.rounds.begun()),
            arrivals,
            rounds: self.rounds.finished(),
        }
    }
}

impl Wait {
    /// Waits until a page may have something; false when it is `until` or the streamer stops.
    pub async fn something(&mut self, until: Instant) -> bool {
        loop {
            // Marked before the look: what arrives in between wakes us.
            self.arrivals.mark_unchanged();
            if self.look() {
                self.unsettled = Some(self.events.rounds.begun());
                return true;
            }
            let unsettled = self.unsettled;
            let settled = async {
                match unsettled {
                    Some(begun) => self.rounds.wait_for(|finished| *finished > begun).await.map(drop),
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.events.shutdown.cancelled() => return false,
                () = sleep_until(until) => return false,
                arrived = self.arrivals.changed() => if arrived.is_err() { return false },
                ended = settled => {
                    self.unsettled = None;
                    return ended.is_ok();
                }
            }
        }
    }

    /// Whether the log has something new for us, or cannot tell.
    fn look(&mut self) -> bool {
        let Some(epoch) = self.epoch else { return true };
        let entities = self.events.registry.entities();
        let mut found = false;
        loop {
            let read = self.events.log.read(epoch, self.offset, |_, event| {
                found |= self.filter.takes(event, &entities);
                true
            });
            match read {
                Read::Foreign => return true, // the page says so
                Read::Behind => {
                    self.offset = Offset::just_before(self.events.log.tip().head);
                    return true;
                }
                Read::More { next } => self.offset = next,
                Read::CaughtUp { next, .. } => {
                    self.offset = next;
                    return found;
                }
            }
        }
    }
}
