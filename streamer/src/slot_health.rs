//! How our slot stands, as Postgres tells it every few seconds: for `/health`, for metrics, and for a warning before
//! WAL is lost rather than after.

use crate::database::Database;
use crate::error::Error;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// Retention changes with checkpoints, minutes apart; five seconds are soon enough, and cost one query on a small view.
const INTERVAL: Duration = Duration::from_secs(5);

/// `failover` is a column from Postgres 17 on.
const READ: &str = "select s.wal_status, s.active, \
     pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_lsn(), s.restart_lsn)::bigint, \
     pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_lsn(), s.confirmed_flush_lsn)::bigint, \
     s.safe_wal_size, (pg_catalog.to_jsonb(s) ->> 'failover')::boolean \
     from pg_catalog.pg_replication_slots s where s.slot_name = $1";

/// Whether the WAL that the slot needs is still there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WalStatus {
    /// Within `max_wal_size`.
    Reserved,
    /// Beyond `max_wal_size`; kept for the slots.
    Extended,
    /// Beyond `max_slot_wal_keep_size`: the next checkpoint may remove it.
    Unreserved,
    /// Removed. The slot is made anew.
    Lost,
    /// There is no such slot. It is made anew.
    Missing,
}

impl WalStatus {
    /// As Postgres spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Reserved => "reserved",
            Self::Extended => "extended",
            Self::Unreserved => "unreserved",
            Self::Lost => "lost",
            Self::Missing => "missing",
        }
    }

    fn parse(text: Option<&str>) -> Self {
        match text {
            Some("reserved") => Self::Reserved,
            Some("extended") => Self::Extended,
            Some("unreserved") => Self::Unreserved,
            // Null: no WAL is reserved at all, as after an invalidation.
            _ => Self::Lost,
        }
    }

    fn is_in_danger(self) -> bool {
        matches!(self, Self::Unreserved | Self::Lost)
    }
}

/// The slot at the last look. Sizes are bytes of WAL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotHealth {
    /// Whether its WAL is there.
    pub wal_status: WalStatus,
    /// Whether somebody streams from it.
    pub active: bool,
    /// What Postgres keeps for it (from `restart_lsn`).
    pub retained_bytes: u64,
    /// How far it could go back for us: about the ring (from `confirmed_flush_lsn`).
    pub confirmed_lag_bytes: u64,
    /// How much more can be written before it is in danger; none without `max_slot_wal_keep_size`.
    pub safe_wal_bytes: Option<u64>,
    /// Whether standbys get it too (Postgres 17 on).
    pub failover: Option<bool>,
}

/// The slot's health, shared by who looks and who tells.
#[derive(Debug)]
pub struct SlotWatch {
    slot: String,
    health: watch::Sender<Option<SlotHealth>>,
    remade: AtomicU64,
}

impl SlotWatch {
    /// Of this slot; nothing is known yet.
    pub fn new(slot: String) -> Self {
        Self { slot, health: watch::Sender::new(None), remade: AtomicU64::new(0) }
    }

    /// The slot's name.
    pub fn slot(&self) -> &str {
        &self.slot
    }

    /// As of the last look; none while Postgres does not answer.
    pub fn health(&self) -> Option<SlotHealth> {
        *self.health.borrow()
    }

    /// How often the slot had to be made anew because it could not go on: each time, clients of shapes started again.
    pub fn remade(&self) -> u64 {
        self.remade.load(Ordering::Relaxed)
    }

    pub(crate) fn count_remade(&self) {
        self.remade.fetch_add(1, Ordering::Relaxed);
    }

    /// Looks every few seconds until `shutdown`.
    pub async fn run(&self, database: Database, shutdown: CancellationToken) {
        loop {
            let seen = match self.read(&database).await {
                Ok(seen) => Some(seen),
                Err(error) => {
                    tracing::debug!(%error, "cannot look at the replication slot");
                    None
                }
            };
            let before = self.health.send_replace(seen);
            let was_in_danger = before.is_some_and(|before| before.wal_status.is_in_danger());
            if let Some(seen) = seen.filter(|seen| seen.wal_status.is_in_danger() && !was_in_danger) {
                tracing::warn!(
                    slot = self.slot,
                    wal_status = seen.wal_status.as_str(),
                    retained_bytes = seen.retained_bytes,
                    "Postgres is about to remove WAL that the slot needs; raise max_slot_wal_keep_size, or lower --ring-wal"
                );
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = sleep(INTERVAL) => {}
            }
        }
    }

    async fn read(&self, database: &Database) -> Result<SlotHealth, Error> {
        let size = |size: Option<i64>| size.and_then(|size| u64::try_from(size).ok());
        let Some(row) = database.get().await?.query_opt(READ, &[&self.slot]).await? else {
            return Ok(SlotHealth {
                wal_status: WalStatus::Missing,
                active: false,
                retained_bytes: 0,
                confirmed_lag_bytes: 0,
                safe_wal_bytes: None,
                failover: None,
            });
        };
        Ok(SlotHealth {
            wal_status: WalStatus::parse(row.try_get(0)?),
            active: row.try_get(1)?,
            retained_bytes: size(row.try_get(2)?).unwrap_or(0),
            confirmed_lag_bytes: size(row.try_get(3)?).unwrap_or(0),
            safe_wal_bytes: size(row.try_get(4)?),
            failover: row.try_get(5)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_invalidated_slot_has_no_status_or_says_lost() {
        assert_eq!(WalStatus::parse(None), WalStatus::Lost);
        for status in [WalStatus::Reserved, WalStatus::Extended, WalStatus::Unreserved, WalStatus::Lost] {
            assert_eq!(WalStatus::parse(Some(status.as_str())), status);
        }
    }
}
