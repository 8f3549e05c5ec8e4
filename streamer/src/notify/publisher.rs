//! Publishes the log to Redis. One more reader of the ring: it holds a place, not a queue, and holds nobody up.
//!
//! Whatever happens to Redis, the publisher goes on from what the relay lacks, as far as the ring reaches back. Where it
//! does not, a marker (`gap`) in the relay sends consumers to Postgres, and the gap is counted and logged.

use super::message::{Channel, Envelope};
use super::relay::{Appended, Content, Entry, Relay};
use super::{Kind, NotifyError, RedisSettings};
use crate::log::{Event, Log, Read, Transaction};
use crate::registry::Registry;
use headwater_model::cursor::{Cursor, Epoch, Offset, Position};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

/// One call of the script: enough that the round trip does not matter, small enough that Redis serves others meanwhile
/// (about a millisecond).
const BATCH_ENTRIES: usize = 256;
const BATCH_BYTES: usize = 512 * 1024;

/// How often an idle publisher looks whether the relay still has what it had.
const IDLE_LOOK: Duration = Duration::from_secs(2);

/// How long another publisher, whose ring may reach back further, has to fill a hole before it is declared one.
const GRACE: Duration = Duration::from_secs(3);

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

const BEGIN: &str = "the relay begins here: what is older is in Postgres";
const PASSED: &str = "the relay was away for longer than the ring reaches back: what is missing is in Postgres";

/// How publishing goes, for `/health` and metrics.
#[derive(Debug, Default)]
pub struct PublisherStatus {
    connected: AtomicBool,
    published: AtomicU64,
    gaps: AtomicU64,
    rewinds: AtomicU64,
    lsn: AtomicU64,
}

impl PublisherStatus {
    /// Whether Redis answered last time.
    pub fn is_connected(&self) -> bool {
        self.connected.load(Ordering::Relaxed)
    }

    /// Entries that this publisher has added to the relay; those that another one had added before do not count.
    pub fn published(&self) -> u64 {
        self.published.load(Ordering::Relaxed)
    }

    /// Holes in the relay that this publisher could not fill.
    pub fn gaps(&self) -> u64 {
        self.gaps.load(Ordering::Relaxed)
    }

    /// How often Redis had lost entries, which were sent again.
    pub fn rewinds(&self) -> u64 {
        self.rewinds.load(Ordering::Relaxed)
    }

    /// Up to where in the WAL everything has been published.
    pub fn lsn(&self) -> u64 {
        self.lsn.load(Ordering::Relaxed)
    }
}

/// The publisher.
#[derive(Debug)]
pub struct Publisher {
    log: Arc<Log>,
    registry: Arc<Registry>,
    settings: RedisSettings,
    status: Arc<PublisherStatus>,
}

impl Publisher {
    /// Publishes the entities whose backend is Redis.
    pub fn new(log: Arc<Log>, registry: Arc<Registry>, settings: RedisSettings, status: Arc<PublisherStatus>) -> Self {
        Self { log, registry, settings, status }
    }

    /// Publishes until `shutdown`.
    pub async fn run(self, shutdown: CancellationToken) {
        let mut epochs = self.log.epochs();
        let mut place = Place::default();
        let mut pause = FIRST_PAUSE;
        loop {
            let epoch = *epochs.borrow_and_update();
            let session = async {
                match epoch {
                    None => std::future::pending().await,
                    Some(epoch) => self.publish(epoch, &mut place).await,
                }
            };
            let error = tokio::select! {
                () = shutdown.cancelled() => return,
                _ = epochs.changed() => {
                    place = Place::default();
                    continue;
                }
                error = session => error,
            };
            if self.status.connected.swap(false, Ordering::Relaxed) || pause == FIRST_PAUSE {
                tracing::warn!(%error, "Redis is away; what it misses is sent when it is back");
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = sleep(pause) => pause = LONGEST_PAUSE.min(pause * 2),
            }
            if place.answered {
                (pause, place.answered) = (FIRST_PAUSE, false);
            }
        }
    }

    /// Publishes this history until something fails.
    async fn publish(&self, epoch: Epoch, place: &mut Place) -> NotifyError {
        let mut relay = match Relay::open(&self.settings, epoch).await {
            Ok(relay) => relay,
            Err(error) => return error,
        };
        let mut session = Session { publisher: self, epoch, place, arrivals: self.log.arrivals() };
        if let Err(error) = session.settle(&mut relay, &[]).await {
            return error;
        }
        // From what the relay has, not from what we think that it has.
        session.place.next = session.place.known;
        tracing::info!(from = %session.place.next, "publishing to Redis");
        loop {
            self.status.connected.store(true, Ordering::Relaxed);
            session.place.answered = true;
            if let Err(error) = session.step(&mut relay).await {
                return error;
            }
        }
    }
}

/// What is known of the relay of one history. Outlives connections.
#[derive(Debug, Default)]
struct Place {
    /// Everything up to here has been published, or was not for Redis.
    next: Offset,
    /// The last entry known to be in the relay.
    known: Offset,
    /// The last entry that subscribers were told of.
    published: Offset,
    /// Since when the ring does not reach back to what the relay has.
    behind_since: Option<Instant>,
    /// Redis has answered since the last failure.
    answered: bool,
}

struct Session<'a> {
    publisher: &'a Publisher,
    epoch: Epoch,
    place: &'a mut Place,
    arrivals: watch::Receiver<u64>,
}

/// What the ring has behind our place.
#[derive(Default)]
struct Batch {
    entries: Vec<Entry>,
    bytes: usize,
    /// Entities that were erased.
    erased: Vec<(String, String)>,
}

impl Session<'_> {
    async fn step(&mut self, relay: &mut Relay) -> Result<(), NotifyError> {
        // Marked before the read: what arrives in between wakes us.
        self.arrivals.mark_unchanged();
        let mut batch = Batch::default();
        let entities = self.publisher.registry.entities();
        let read = self.publisher.log.read(self.epoch, self.place.next, |transaction, event| {
            if batch.entries.len() >= BATCH_ENTRIES || batch.bytes >= BATCH_BYTES {
                return false;
            }
            if entities.backend_of(&event.entity_type) == Kind::Redis {
                batch.take(transaction, event);
            }
            true
        });
        let (next, all) = match read {
            Read::Foreign => return std::future::pending().await, // the new history ends this session
            Read::Behind => return self.mark_gap(relay).await,
            Read::More { next } => (next, false),
            Read::CaughtUp { next, .. } => (next, true),
        };
        self.place.behind_since = None;
        for (entity_type, entity_id) in &batch.erased {
            // Before its tombstone is there: whoever is killed in between does it again.
            let removed = relay.purge(entity_type, entity_id).await?;
            tracing::info!(entity_type, removed, "an erased entity's entries were removed from the relay");
        }
        if !batch.entries.is_empty() {
            if !self.settle(relay, &batch.entries).await? {
                return Ok(());
            }
        } else if all {
            let kept = tokio::select! {
                changed = self.arrivals.changed() => match changed {
                    Ok(()) => true,
                    Err(_) => std::future::pending().await, // the log outlives us
                },
                () = sleep(IDLE_LOOK) => self.settle(relay, &[]).await?,
            };
            if !kept {
                return Ok(());
            }
        }
        self.place.next = self.place.next.max(next);
        self.publisher.status.lsn.store(self.place.next.lsn.0, Ordering::Relaxed);
        Ok(())
    }

    /// Appends; answers whether the relay had what we know of. If not, our place has gone back to what it has.
    async fn settle(&mut self, relay: &mut Relay, entries: &[Entry]) -> Result<bool, NotifyError> {
        let place = &mut *self.place;
        match relay.append(place.known, place.published, entries).await? {
            Appended::All { added, last } => {
                let added = u64::try_from(added).unwrap_or(u64::MAX);
                self.publisher.status.published.fetch_add(added, Ordering::Relaxed);
                place.known = place.known.max(last);
                place.published = place.published.max(last);
                Ok(true)
            }
            Appended::Lost { last } => {
                tracing::warn!(had = %place.known, has = %last, "Redis has lost entries of the relay; sending them again");
                self.publisher.status.rewinds.fetch_add(1, Ordering::Relaxed);
                (place.known, place.next, place.behind_since) = (last, last, None);
                // Perhaps not only the stream is gone.
                relay.announce().await?;
                Ok(false)
            }
        }
    }

    /// The ring does not reach back to what the relay has: says so there, and goes on from the ring's start.
    async fn mark_gap(&mut self, relay: &mut Relay) -> Result<(), NotifyError> {
        let offset = Offset::just_before(self.publisher.log.tip().start);
        if self.place.known == Offset::default() {
            // Unless another publisher has begun meanwhile.
            if self.settle(relay, &[]).await? && self.place.known == Offset::default() {
                return self.write_gap(relay, offset, BEGIN).await;
            }
            self.place.next = self.place.known;
            return Ok(());
        }
        // Nothing is missing as long as there is nothing behind the hole; and another publisher may fill it.
        if !self.anything_behind(offset) {
            self.place.behind_since = None;
        } else if self.place.behind_since.get_or_insert_with(Instant::now).elapsed() >= GRACE {
            return self.write_gap(relay, offset, PASSED).await;
        }
        sleep(GRACE / 10).await;
        if self.settle(relay, &[]).await? {
            self.place.next = self.place.known;
        }
        Ok(())
    }

    /// Whether there is anything for Redis behind `offset`.
    fn anything_behind(&self, offset: Offset) -> bool {
        let entities = self.publisher.registry.entities();
        let mut found = false;
        self.publisher.log.read(self.epoch, offset, |_, event| {
            found |= entities.backend_of(&event.entity_type) == Kind::Redis;
            !found
        });
        found
    }

    async fn write_gap(&mut self, relay: &mut Relay, offset: Offset, reason: &'static str) -> Result<(), NotifyError> {
        self.place.behind_since = None;
        let before = self.place.known;
        // Everything in Postgres: there is no position up to which the relay's readers surely have it.
        let cursor = Cursor { epoch: self.epoch, position: Position(0), offset: None }.to_string();
        let marker = Entry { offset, cursor, content: Content::Gap { reason } };
        if self.settle(relay, &[marker]).await? {
            // Another publisher may be further already, and have what we lack.
            self.place.next = self.place.known.max(offset);
            if self.place.known == offset && reason == PASSED {
                self.publisher.status.gaps.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(%before, behind = %offset, "a hole in the relay: {reason}");
            }
        }
        Ok(())
    }
}

/// The parts of an event that subscribers are told, each as it stands in the event's JSON.
#[derive(Deserialize)]
struct Told<'a> {
    #[serde(borrow)]
    entity_id: &'a RawValue,
    #[serde(borrow)]
    event_type: &'a RawValue,
    #[serde(borrow)]
    payload: &'a RawValue,
    #[serde(borrow)]
    user_id: &'a RawValue,
    #[serde(borrow)]
    timestamp: &'a RawValue,
}

impl Batch {
    fn take(&mut self, transaction: &Transaction, event: &Event) {
        let Some((entry, erased)) = entry(transaction, event) else {
            // Our own frames are what the assembler made; a message that cannot be read must not stop the others.
            return tracing::error!(offset = %transaction.offset(event), "an event cannot be told to Redis");
        };
        self.bytes += event.block.len() * 2;
        if let Some(entity) = erased {
            // What came before it in this batch has no business there either.
            self.entries.retain(|earlier| !earlier.is_of(&entity.0, &entity.1));
            self.erased.push(entity);
        }
        self.entries.push(entry);
    }
}

impl Entry {
    fn is_of(&self, wanted_type: &str, wanted_id: &str) -> bool {
        matches!(&self.content, Content::Event { entity_type, entity_id, .. } if entity_type == wanted_type && entity_id == wanted_id)
    }
}

/// The entry of an event, and the entity that it says was erased.
fn entry(transaction: &Transaction, event: &Event) -> Option<(Entry, Option<(String, String)>)> {
    let block = std::str::from_utf8(&event.block).ok()?;
    let cursor = block.get(..event.id_length)?.strip_prefix("id: ")?.trim_end();
    let (_, json) = block.split_once("\ndata: ")?;
    let json = json.trim_end();
    let told: Told<'_> = serde_json::from_str(json).ok()?;
    let entity_id: String = serde_json::from_str(told.entity_id.get()).ok()?;
    let event_type: String = serde_json::from_str(told.event_type.get()).ok()?;
    let payload = format!(
        r#"{{"entity_id":{},"event_type":{},"payload":{},"user_id":{},"timestamp":{}}}"#,
        told.entity_id, told.event_type, told.payload, told.user_id, told.timestamp
    );
    let payload: &RawValue = serde_json::from_str(&payload).ok()?;
    let message = serde_json::to_string(&Envelope { event_type: event_type.as_str().into(), payload }).ok()?;
    let erased = event_type.strip_suffix(".erased") == Some(&*event.entity_type);
    let erased = erased.then(|| (event.entity_type.to_string(), entity_id.clone()));
    let content = Content::Event {
        channel: Channel::new(&event.entity_type, event.tenant.as_deref()),
        message,
        entity_type: event.entity_type.to_string(),
        entity_id,
        event: json.to_owned(),
    };
    Some((Entry { offset: transaction.offset(event), cursor: cursor.to_owned(), content }, erased))
}
