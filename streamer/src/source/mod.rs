//! The source: follows a logical replication slot into the log, and comes back after every interruption.
//!
//! The slot's confirmed position stays one ring behind the head, so that Postgres sends after a restart exactly what
//! the ring held: that is why the streamer needs no disk.

mod setup;
mod slot;
mod status;
mod wire;

use crate::database::Target;
use crate::decode::{self, decode};
use crate::error::Error;
use crate::log::{Assembler, Feed, Log, Transaction};
use crate::registry::Registry;
use headwater_model::cursor::Lsn;
use status::Status;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use wire::Connection;

/// Back-off between attempts to connect: quick at first, for a restart of Postgres takes a second.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// We ask for an answer every ten seconds; silence for this long means that nobody is there. Generous, because a
/// walsender that decodes a huge transaction answers late.
const SILENCE: Duration = Duration::from_mins(2);

/// What the source needs to know.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where Postgres is.
    pub database: Target,
    /// Name of the slot; letters, digits and underscores only.
    pub slot: String,
    /// How we appear in `pg_stat_replication`.
    pub application_name: String,
}

/// Runs until `shutdown`. Ends with an error only if the set-up is wrong at the start; later it keeps trying.
pub async fn run(
    settings: Settings,
    log: Arc<Log>,
    registry: Arc<Registry>,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    let mut follower = Follower { settings, log, registry, streamed: false, remake_slot: false };
    let mut pause = FIRST_PAUSE;
    loop {
        let before = Instant::now();
        let opened = tokio::select! {
            opened = follower.open() => opened,
            () = shutdown.cancelled() => return Ok(()),
        };
        let ended = match opened {
            Ok(stream) => stream.follow(&shutdown).await,
            Err(error) => Err(error),
        };
        let error = match ended {
            Ok(()) => return Ok(()),
            Err(error) if error.is_setup() && !follower.streamed => return Err(error),
            Err(error) => error,
        };
        let streaming = *follower.log.feed().borrow() == Feed::Streaming;
        if streaming {
            follower.log.set_feed(Feed::Interrupted);
        }
        if streaming || before.elapsed() > LONGEST_PAUSE {
            pause = FIRST_PAUSE;
        }
        follower.remake_slot |= matches!(error, Error::SlotLost(_));
        tracing::warn!(%error, retry_ms = pause.as_millis(), "no stream from Postgres; trying again");
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            () = sleep(pause) => pause = LONGEST_PAUSE.min(pause * 2),
        }
    }
}

struct Follower {
    settings: Settings,
    log: Arc<Log>,
    registry: Arc<Registry>,
    /// Whether it ever worked: then what is wrong now may be mended while we run.
    streamed: bool,
    remake_slot: bool,
}

impl Follower {
    async fn open(&mut self) -> Result<Stream, Error> {
        let Settings { database, slot, application_name } = &self.settings;
        let user = database.config.get_user().unwrap_or_default();
        let mut connection =
            Connection::open(database, application_name).await.map_err(|error| setup::explain_login(error, user))?;
        let found = setup::prepare(&mut connection).await?;
        if self.remake_slot {
            tracing::warn!(slot, "making the slot anew; clients of events go on from the table");
            slot::drop_slot(&mut connection, slot).await?;
            self.remake_slot = false;
        }
        // Before the first event: nothing may be judged by an empty registry.
        self.registry.refresh(None).await?;
        let confirmed = slot::prepare(&mut connection, &found, slot).await?;
        let head = self.log.open(found.epoch, confirmed);
        slot::start(&mut connection, slot, head).await?;
        tracing::info!(slot, %confirmed, from = %head, epoch = %found.epoch, "streaming");
        self.streamed = true;
        let assembler = Assembler::new(found.epoch, self.log.limits().bytes);
        Ok(Stream {
            connection,
            assembler,
            log: Arc::clone(&self.log),
            registry: Arc::clone(&self.registry),
            restored: found.restored,
            status: Status::new(confirmed),
            catching_up_to: Some(found.wal_end),
        })
    }
}

struct Stream {
    connection: Connection,
    assembler: Assembler,
    log: Arc<Log>,
    registry: Arc<Registry>,
    /// `headwater.meta.epoch` when the stream was opened.
    restored: i64,
    status: Status,
    /// Where the WAL ended when the stream was opened, until we are there: before, the head is not yet "now".
    catching_up_to: Option<Lsn>,
}

impl Stream {
    async fn follow(mut self, shutdown: &CancellationToken) -> Result<(), Error> {
        let mut heard = Instant::now();
        loop {
            self.take_buffered().await?;
            self.status.queue(&mut self.connection, &self.log)?;
            self.connection.flush().await?;
            tokio::select! {
                biased;
                () = shutdown.cancelled() => {
                    self.connection.close().await;
                    return Ok(());
                }
                filled = self.connection.fill() => {
                    filled?;
                    heard = Instant::now();
                }
                () = sleep_until(self.status.next()) => {}
                () = sleep_until(heard + SILENCE) => return Err(Error::Timeout("Postgres has been silent for two minutes")),
            }
        }
    }

    /// Everything whole in the buffer becomes visible to readers at once: under load they get many changes per wake-up.
    async fn take_buffered(&mut self) -> Result<(), Error> {
        let mut transactions = Vec::new();
        let mut head = Lsn(0);
        let ended = loop {
            let frame = match self.connection.frame() {
                Ok(Some(frame)) => frame,
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            };
            let bytes = frame.bytes;
            let taken = match frame.tag {
                b'd' => take(frame.body, &mut self.assembler, &self.log),
                b'E' => Err(slot::lost(wire::server_error_of(&frame).into())),
                b'c' | b'C' => Err(Error::Protocol("Postgres ended the stream: it is shutting down".to_owned())),
                _ => Ok(Taken::Nothing),
            };
            self.connection.consume(bytes);
            match taken {
                Ok(Taken::Nothing) => {}
                Ok(Taken::Transaction(transaction)) => transactions.push(transaction),
                Ok(Taken::Keepalive { end, reply }) => {
                    head = head.max(end);
                    self.status.heard(end, reply);
                }
                Err(error) => break Err(error),
            }
        };
        // What came before an error came whole.
        self.follow_registry(&transactions).await?;
        let last = transactions.last().map_or(head, |transaction| head.max(transaction.end));
        if last > Lsn(0) {
            self.log.append(transactions, last);
        }
        if self.catching_up_to.is_some_and(|end| self.log.tip().head >= end) {
            self.catching_up_to = None;
            self.log.set_feed(Feed::Streaming);
        }
        ended
    }
}

impl Stream {
    /// If one of these changed the registry or the epoch, readers see none of them before we know how.
    async fn follow_registry(&self, transactions: &[Transaction]) -> Result<(), Error> {
        let Some(last) = transactions.iter().rfind(|transaction| transaction.registry) else { return Ok(()) };
        let entities = self.registry.refresh(Some(last.xid)).await?;
        if entities.epoch == self.restored {
            return Ok(());
        }
        Err(Error::Protocol(format!(
            "the epoch was raised from {} to {}: starting anew",
            self.restored, entities.epoch
        )))
    }
}

enum Taken {
    Nothing,
    Transaction(Transaction),
    Keepalive { end: Lsn, reply: bool },
}

/// One `CopyData`: "Streaming Replication Protocol" in the Postgres manual.
fn take(body: &[u8], assembler: &mut Assembler, log: &Log) -> Result<Taken, Error> {
    match body {
        // XLogData: start, end, send time (24 bytes), then one pgoutput message.
        [b'w', rest @ ..] if rest.len() > 24 => {
            let message =
                decode(&rest[24..]).map_err(|error: decode::DecodeError| Error::Protocol(error.to_string()))?;
            let transaction = assembler.push(&message, |lsn| log.watermark_at(lsn));
            let transaction = transaction.map_err(|error| Error::Protocol(error.to_string()))?;
            Ok(transaction.map_or(Taken::Nothing, Taken::Transaction))
        }
        // Keepalive: end of WAL (8), send time (8), reply requested.
        [b'k', e0, e1, e2, e3, e4, e5, e6, e7, rest @ ..] if rest.len() == 9 => {
            let end = Lsn(u64::from_be_bytes([*e0, *e1, *e2, *e3, *e4, *e5, *e6, *e7]));
            Ok(Taken::Keepalive { end, reply: rest[8] != 0 })
        }
        _ => Err(Error::Protocol("a copy message that is neither data nor keepalive".to_owned())),
    }
}
