//! What we tell the walsender: that we have everything, and how far the slot may forget.
//!
//! Two things must not happen. A `flush` short of the end would make a clean shutdown of Postgres wait for us for ever
//! (`WalSndDone` wants flush, or write where flush is 0, to equal what was sent). And a standing `flush` could make us
//! a synchronous standby that blocks commits (`SyncRepReleaseWaiters` passes over those with flush 0). So `flush` is
//! told once when it advances, and 0 follows in the same write.

use super::wire::Connection;
use crate::error::Error;
use crate::log::Log;
use headwater_model::cursor::Lsn;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::time::Instant;

/// `wal_sender_timeout` is 60 s unless set otherwise; Postgres asks for an answer at half of it in any case.
const INTERVAL: Duration = Duration::from_secs(10);

/// An advance of the confirmed position makes Postgres write the slot to disk.
const CONFIRM_INTERVAL: Duration = Duration::from_secs(1);

/// 2000-01-01 in the Unix era.
const POSTGRES_EPOCH: Duration = Duration::from_hours(10_957 * 24);

#[derive(Debug)]
pub(super) struct Status {
    confirmed: Lsn,
    confirmed_at: Instant,
    sent_at: Option<Instant>,
    /// The walsender wants to hear at once that we have everything up to here.
    asked: Option<Lsn>,
}

impl Status {
    pub(super) fn new(confirmed: Lsn) -> Self {
        let now = Instant::now();
        // Due at once: the answer tells where the WAL ends, even if nothing comes for us.
        Self { confirmed, confirmed_at: now, sent_at: None, asked: None }
    }

    pub(super) fn heard(&mut self, end: Lsn, reply: bool) {
        if reply {
            self.asked = Some(end);
        }
    }

    /// When to come back without being asked.
    pub(super) fn next(&self, log: &Log) -> Instant {
        let due = self.sent_at.map_or_else(Instant::now, |sent| sent + INTERVAL);
        // What may be let go is let go soon, also when nothing more comes that would wake us.
        if log.confirmed() > self.confirmed { due.min(self.confirmed_at + CONFIRM_INTERVAL) } else { due }
    }

    /// Queues a message that says nothing new, so that the walsender hears of us.
    pub(super) fn queue_sign_of_life(&mut self, connection: &mut Connection, log: &Log) -> Result<(), Error> {
        self.sent_at = Some(Instant::now());
        connection.put_copy(&message(log.tip().head, Lsn(0), false))
    }

    /// Queues what is due.
    pub(super) fn queue(&mut self, connection: &mut Connection, log: &Log) -> Result<(), Error> {
        let now = Instant::now();
        let due = self.sent_at.is_none_or(|sent| now >= sent + INTERVAL);
        let confirm = if now >= self.confirmed_at + CONFIRM_INTERVAL { log.confirmed() } else { self.confirmed };
        if self.asked.is_none() && !due && confirm <= self.confirmed {
            return Ok(());
        }
        let head = log.tip().head;
        let write = self.asked.take().map_or(head, |asked| asked.max(head));
        if confirm > self.confirmed {
            connection.put_copy(&message(write, confirm, false))?;
            (self.confirmed, self.confirmed_at) = (confirm, now);
        }
        // Asking for an answer brings the end of the WAL, also when nothing that we follow changes.
        connection.put_copy(&message(write, Lsn(0), due))?;
        self.sent_at = Some(now);
        Ok(())
    }
}

/// Standby status update: "Streaming Replication Protocol" in the Postgres manual.
fn message(write: Lsn, flush: Lsn, reply: bool) -> [u8; 34] {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH + POSTGRES_EPOCH).unwrap_or_default();
    let micros = u64::try_from(since_epoch.as_micros()).unwrap_or(u64::MAX);
    let mut bytes = [0; 34];
    bytes[0] = b'r';
    for (field, value) in [write.0, flush.0, 0, micros].into_iter().enumerate() {
        bytes[1 + field * 8..9 + field * 8].copy_from_slice(&value.to_be_bytes());
    }
    bytes[33] = u8::from(reply);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_update_has_the_manuals_layout() {
        let bytes = message(Lsn(0x0102), Lsn(3), true);
        assert_eq!(bytes[..25], [b'r', 0, 0, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(bytes[33], 1);
    }
}
