//! The source: follows a logical replication slot into the log, and comes back after every interruption.
//!
//! The slot's confirmed position stays one ring behind the head, so that Postgres sends after a restart exactly what
//! the ring held: that is why the streamer needs no disk.
//!
//! It has a thread of its own, which waits for the replication socket and for nothing else: on the shared runtime one
//! thread sees that the socket is ready and has to wake another one, behind whatever requests keep both busy.

mod setup;
mod slot;
mod status;
mod wire;

use crate::database::Target;
use crate::decode::{self, decode};
use crate::error::Error;
use crate::log::{Assembler, Feed, Log, Transaction};
use crate::registry::{Entities, Registry};
use crate::slot_health::SlotWatch;
use headwater_model::cursor::Lsn;
use status::Status;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use wire::Connection;

/// Back-off between attempts to connect: quick at first, for a restart of Postgres takes a second.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Of `max_slot_wal_keep_size`, the ring takes this part. The slot holds up to two rings (a new `restart_lsn` is noted
/// down only when the last one noted has been confirmed), and what the longest open transaction and the time between
/// two running-xacts records (15 s) need.
const KEPT_PART: u64 = 4;

/// How often we show a sign of life while the registry is read, when nothing is read from Postgres: well below a
/// `wal_sender_timeout` of a few seconds.
const ALIVE_INTERVAL: Duration = Duration::from_millis(500);

/// We ask for an answer every ten seconds; silence for this long means that nobody is there. Generous, because a
/// walsender that decodes a huge transaction answers late.
const SILENCE: Duration = Duration::from_mins(2);

/// In the middle of a bulk, reading pauses this long. A walsender sends row by row: whoever reads as fast as that is woken for every
/// row, and has the walsender pay for waking him. Not longer: the kernel counts two kilobytes for every message, however short, and
/// with half a millisecond a socket's usual buffer was full.
const GATHERING: Duration = Duration::from_micros(100);

/// What the source needs to know.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where Postgres is.
    pub database: Target,
    /// The slot: letters, digits and underscores only.
    pub slot: Arc<SlotWatch>,
    /// How we appear in `pg_stat_replication`.
    pub application_name: String,
}

/// Runs until `shutdown`. Ends with an error only if the set-up is wrong at the start; later it keeps trying. Call it
/// within the Tokio runtime to which `registry`'s connections belong.
pub async fn run(
    settings: Settings,
    log: Arc<Log>,
    registry: Arc<Registry>,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    let registry = Shared { runtime: Handle::current(), registry };
    let runtime = Builder::new_current_thread().enable_all().build().map_err(Error::io("start the source"))?;
    let (tell, told) = oneshot::channel();
    std::thread::Builder::new()
        .name("source".to_owned())
        .spawn(move || {
            // Nobody listens only if the process ends anyway.
            let _ = tell.send(runtime.block_on(follow(settings, log, registry, shutdown)));
        })
        .map_err(Error::io("start the source"))?;
    told.await.unwrap_or_else(|_| Err(Error::Protocol("the source panicked".to_owned())))
}

/// The registry is read on the runtime that it shares with the requests: its connections live there.
#[derive(Clone)]
struct Shared {
    runtime: Handle,
    registry: Arc<Registry>,
}

impl Shared {
    async fn refresh(&self, xid: Option<u32>) -> Result<Arc<Entities>, Error> {
        let registry = Arc::clone(&self.registry);
        let read = self.runtime.spawn(async move { registry.refresh(xid).await });
        read.await.unwrap_or_else(|error| Err(Error::Protocol(format!("reading the registry: {error}"))))
    }
}

async fn follow(settings: Settings, log: Arc<Log>, registry: Shared, shutdown: CancellationToken) -> Result<(), Error> {
    let mut follower = Follower { settings, log, registry, streamed: false, remake_slot: None, cut_to: None };
    let mut pause = FIRST_PAUSE;
    loop {
        let before = Instant::now();
        let opened = tokio::select! {
            opened = follower.open(&shutdown) => opened,
            () = shutdown.cancelled() => return Ok(()),
        };
        let ended = match opened {
            Ok(stream) => stream.follow().await,
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
        if shutdown.is_cancelled() {
            return Ok(());
        }
        if let Error::SlotLost(reason) = &error {
            follower.remake_slot = Some(reason.to_string());
        }
        let wait = jittered(pause);
        tracing::warn!(%error, retry_ms = wait.as_millis(), "no stream from Postgres; trying again");
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            () = sleep(wait) => pause = LONGEST_PAUSE.min(pause * 2),
        }
    }
}

/// Half of it to all of it: replicas that lost the same Postgres do not come back in step.
fn jittered(pause: Duration) -> Duration {
    // The standard library's source of chance: enough to spread a few processes.
    let chance = RandomState::new().build_hasher().finish() % 512;
    pause / 1024 * (512 + u32::try_from(chance).unwrap_or(0))
}

struct Follower {
    settings: Settings,
    log: Arc<Log>,
    registry: Shared,
    /// Whether it ever worked: then what is wrong now may be mended while we run.
    streamed: bool,
    /// Why the slot cannot go on.
    remake_slot: Option<String>,
    /// How far the ring was cut to what Postgres keeps: told once.
    cut_to: Option<u64>,
}

impl Follower {
    /// A ring longer than the WAL that Postgres keeps would cost us the slot sooner or later.
    fn limit_ring(&mut self, wal_kept: Option<u64>) {
        let allowed = wal_kept.map_or(u64::MAX, |kept| kept / KEPT_PART);
        self.log.limit_wal(allowed);
        let cut_to = (allowed < self.log.limits().wal_bytes).then_some(allowed);
        if let Some(bytes) = cut_to.filter(|_| self.cut_to != cut_to) {
            tracing::warn!(
                ring_wal_bytes = bytes,
                "max_slot_wal_keep_size is less than four times --ring-wal: the ring is cut, so that the slot is not lost"
            );
        }
        self.cut_to = cut_to;
    }

    async fn open(&mut self, shutdown: &CancellationToken) -> Result<Stream, Error> {
        let Settings { database, slot, application_name } = &self.settings.clone();
        let user = database.config.get_user().unwrap_or_default();
        let mut connection =
            Connection::open(database, application_name).await.map_err(|error| setup::explain_login(error, user))?;
        let found = setup::prepare(&mut connection).await?;
        if let Some(reason) = &self.remake_slot {
            slot::remake(&mut connection, slot, reason).await?;
            self.remake_slot = None;
        }
        // Before the first event: nothing may be judged by an empty registry.
        self.registry.refresh(None).await?;
        self.limit_ring(found.wal_kept);
        let confirmed = slot::prepare(&mut connection, &found, slot).await?;
        let head = self.log.open(found.epoch, confirmed);
        let slot = slot.slot();
        slot::start(&mut connection, slot, head).await?;
        tracing::info!(slot, %confirmed, from = %head, epoch = %found.epoch, "streaming");
        self.streamed = true;
        let assembler = Assembler::new(found.epoch, self.log.limits().bytes);
        Ok(Stream {
            connection,
            assembler,
            log: Arc::clone(&self.log),
            registry: self.registry.clone(),
            restored: found.restored,
            status: Status::new(confirmed),
            shutdown: shutdown.clone(),
            catching_up_to: Some(found.wal_end),
        })
    }
}

struct Stream {
    connection: Connection,
    assembler: Assembler,
    log: Arc<Log>,
    registry: Shared,
    /// `headwater.meta.epoch` when the stream was opened.
    restored: i64,
    status: Status,
    shutdown: CancellationToken,
    /// Where the WAL ended when the stream was opened, until we are there: before, the head is not yet "now".
    catching_up_to: Option<Lsn>,
}

impl Stream {
    async fn follow(mut self) -> Result<(), Error> {
        let mut heard = Instant::now();
        let mut gather = false;
        loop {
            self.take_buffered().await?;
            self.status.queue(&mut self.connection, &self.log)?;
            self.connection.flush().await?;
            if std::mem::take(&mut gather) && self.is_in_bulk() {
                // The thread itself sleeps: with a timer of the runtime the socket would wake it all the same.
                std::thread::sleep(GATHERING);
            }
            tokio::select! {
                biased;
                () = self.shutdown.cancelled() => {
                    self.connection.close().await;
                    return Ok(());
                }
                filled = self.connection.fill() => {
                    gather = filled?;
                    heard = Instant::now();
                }
                () = sleep_until(self.status.next(&self.log)) => {}
                () = sleep_until(heard + SILENCE) => return Err(Error::Timeout("Postgres has been silent for two minutes")),
            }
        }
    }

    /// Whether more is certain to come, and nobody waits for the next row: it belongs to a transaction of many changes, whose
    /// commit is yet to come, or to what the log held before a restart.
    fn is_in_bulk(&self) -> bool {
        self.catching_up_to.is_some() || self.assembler.is_in_bulk()
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
    async fn follow_registry(&mut self, transactions: &[Transaction]) -> Result<(), Error> {
        let Some(last) = transactions.iter().rfind(|transaction| transaction.registry) else { return Ok(()) };
        let registry = self.registry.clone();
        let mut refresh = pin!(registry.refresh(Some(last.xid)));
        // The table may be locked, the pool exhausted, the commit not visible yet: the walsender must not take us for
        // dead meanwhile.
        let entities = loop {
            tokio::select! {
                read = &mut refresh => break read?,
                () = self.shutdown.cancelled() => return Err(Error::Timeout("shutting down")),
                () = sleep(ALIVE_INTERVAL) => {
                    self.status.queue_sign_of_life(&mut self.connection, &self.log)?;
                    self.connection.flush().await?;
                }
            }
        };
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
