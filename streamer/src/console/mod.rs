//! What operators see of a running Headwater: how it goes, what is enabled, what happened, what was refused, what is wrong.
//!
//! It sees every tenant, so nothing of it is given to anybody but [`Operators`]. It reads as `headwater_reader`, whatever else the
//! streamer's role may do, and touches dead letters only as `headwater_admin`, if that was granted.

mod attempts;
mod catalog;
mod history;
mod letters;
mod samples;
mod session;

pub use attempts::{Attempts, TooMany};
pub use history::Asked;
pub use letters::{Decision, Letters};
pub use samples::{Sample, Samples};

use crate::database::Database;
use crate::events::Events;
use crate::identity::Operators;
use crate::log::Log;
use crate::metrics::Metrics;
use crate::vitals::Vitals;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// Queries of the console at a time: with every operator's page open it must not take the pool (8 at least) from clients.
const CONCURRENT_QUERIES: usize = 2;

/// What the console's endpoints share.
#[derive(Debug)]
pub struct Console {
    /// Who may see it.
    pub operators: Operators,
    /// Who has tried to get in, and failed.
    pub attempts: Attempts,
    /// How it went during the last minutes.
    pub samples: Samples,
    /// The name of this streamer.
    pub replica: String,
    /// Whether dead letters may be replayed and discarded.
    pub writes: bool,
    /// When this streamer started.
    pub started: Instant,
    database: Database,
    queries: Semaphore,
}

impl Console {
    /// For these operators.
    pub fn new(operators: Operators, database: Database, replica: String, writes: bool) -> Self {
        Self {
            operators,
            attempts: Attempts::default(),
            samples: Samples::default(),
            replica,
            writes,
            started: Instant::now(),
            database,
            queries: Semaphore::new(CONCURRENT_QUERIES),
        }
    }

    /// Takes samples until `shutdown`.
    pub fn watch(
        self: Arc<Self>,
        log: &Arc<Log>,
        vitals: &Arc<Vitals>,
        metrics: &Arc<Metrics>,
        events: &Arc<Events>,
        shutdown: CancellationToken,
    ) -> impl Future<Output = ()> + use<> {
        let (log, vitals) = (Arc::clone(log), Arc::clone(vitals));
        let (metrics, events) = (Arc::clone(metrics), Arc::clone(events));
        async move { self.samples.keep(&log, &vitals, &metrics, &events, &shutdown).await }
    }
}
