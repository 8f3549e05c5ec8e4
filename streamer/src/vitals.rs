//! What Postgres says of our slot, looked up when somebody asks, and not more often than makes sense.

use crate::database::Database;
use crate::error::Error;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

/// An answer is good for this long: probes and scrapes of all kinds share it.
const FRESH: Duration = Duration::from_secs(2);

/// A database that does not answer within this time is one that does not answer.
const PATIENCE: Duration = Duration::from_secs(2);

const SLOT: &str = "select (w.now - '0/0')::int8, s.active, s.wal_status, (w.now - s.restart_lsn)::int8, s.safe_wal_size \
     from (select pg_catalog.pg_current_wal_lsn() as now) w \
     left join pg_catalog.pg_replication_slots s on s.slot_name = $1";

/// Asks Postgres.
#[derive(Debug)]
pub struct Vitals {
    database: Database,
    slot: String,
    known: Mutex<Option<(Instant, Arc<Found>)>>,
}

/// What Postgres said.
#[derive(Debug)]
pub struct Found {
    /// Where its WAL ends; none if it did not answer.
    pub wal_end: Option<u64>,
    /// Our slot; none if there is none, or no answer.
    pub slot: Option<Slot>,
}

/// A row of `pg_replication_slots`.
#[derive(Debug)]
pub struct Slot {
    /// Whether it is being read.
    pub active: bool,
    /// `reserved`, `extended`, `unreserved` or `lost`.
    pub wal_status: String,
    /// WAL that is kept for it.
    pub retained_bytes: Option<i64>,
    /// What may still be written before it is in danger, if there is a limit.
    pub safe_bytes: Option<i64>,
}

impl Vitals {
    /// Of the slot of this name.
    pub fn new(database: Database, slot: String) -> Self {
        Self { database, slot, known: Mutex::new(None) }
    }

    /// The slot's name.
    pub fn slot(&self) -> &str {
        &self.slot
    }

    /// What Postgres says, or said a moment ago.
    pub async fn look(&self) -> Arc<Found> {
        let mut known = self.known.lock().await;
        if let Some((_, found)) = known.as_ref().filter(|(looked, _)| looked.elapsed() < FRESH) {
            return Arc::clone(found);
        }
        let found = match timeout(PATIENCE, self.ask()).await {
            Ok(Ok(found)) => found,
            Ok(Err(error)) => {
                tracing::debug!(%error, "the slot cannot be looked up");
                Found { wal_end: None, slot: None }
            }
            Err(_) => Found { wal_end: None, slot: None },
        };
        let found = Arc::new(found);
        *known = Some((Instant::now(), Arc::clone(&found)));
        found
    }

    async fn ask(&self) -> Result<Found, Error> {
        let client = self.database.get().await?;
        let row = client.query_one(SLOT, &[&self.slot]).await?;
        let end: i64 = row.try_get(0)?;
        let active: Option<bool> = row.try_get(1)?;
        let slot = match active {
            None => None,
            Some(active) => Some(Slot {
                active,
                wal_status: row.try_get::<_, Option<String>>(2)?.unwrap_or_else(|| "unknown".to_owned()),
                retained_bytes: row.try_get(3)?,
                safe_bytes: row.try_get(4)?,
            }),
        };
        Ok(Found { wal_end: u64::try_from(end).ok(), slot })
    }
}
