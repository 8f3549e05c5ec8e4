//! Events for readers: a page for pollers, an endless stream for everybody else, and the exact joint between the
//! table and the log.

mod filter;
mod seam;
mod spool;
mod states;
mod stream;
mod table;
mod wait;

pub use filter::{Filter, MOST_ENTITY_TYPES};
pub use stream::{Step, Stream};
pub use table::Page;
pub use wait::Wait;

use crate::database::Database;
use crate::error::Error;
use crate::log::{EventRow, Feed, Log, Watermark};
use crate::registry::Registry;
use crate::tally::Tally;
use crate::watermark::Rounds;
use bytes::BytesMut;
use headwater_model::cursor::{Cursor, Epoch, Offset, Position};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};
use tokio_postgres::IsolationLevel;
use tokio_util::sync::CancellationToken;

/// A join takes one connection for as long as it reads, and a second one for a moment; more of them at once than this
/// would starve everything else.
pub const CONCURRENT_JOINS: usize = 4;

/// How long a request waits for the source's first connection or the first watermark after a start.
const READY_PATIENCE: Duration = Duration::from_secs(5);

/// How long a poller that is near the end waits for the watermark to take in what was just committed. Normally a few
/// milliseconds; a writer that stays open makes it come away with what is certain.
const FRESH_PATIENCE: Duration = Duration::from_millis(100);

/// What every reader shares.
#[derive(Debug)]
pub struct Events {
    log: Arc<Log>,
    database: Database,
    registry: Arc<Registry>,
    rounds: Arc<Rounds>,
    joins: Semaphore,
    snapshots: states::Turns,
    room: Arc<spool::Room>,
    tally: Arc<Tally>,
    /// How often an idle stream says that it is alive, and moves its reader's cursor.
    heartbeat: Duration,
    /// What clients are told to wait before they reconnect.
    retry: Duration,
    shutdown: CancellationToken,
}

/// Why a reader cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The cursor is of another history: the reader has to start anew.
    #[error("the cursor belongs to another history of the database")]
    Expired,
    /// Retention has dropped events that the reader has not had: it has to start anew.
    #[error("events behind the cursor have been dropped")]
    Dropped,
    /// Retention has dropped the history of that time.
    #[error("the history of that time has been dropped")]
    Forgotten,
    /// Their notification backend pushes nothing.
    #[error("nothing is pushed of these entities")]
    PollingOnly,
    /// Not yet.
    #[error("{0}")]
    NotReady(&'static str),
    /// No enabled table is that entity.
    #[error("there is no such entity")]
    UnknownEntity,
    /// The database.
    #[error(transparent)]
    Database(Error),
}

impl From<Error> for ReadError {
    fn from(error: Error) -> Self {
        match error.state() {
            // undefined_object: `headwater.open_states` and `materialize` say it of an entity.
            Some("42704") => Self::UnknownEntity,
            // no_data_found: `materialize` says it of an instant before the history that is left.
            Some("P0002") => Self::Forgotten,
            _ => Self::Database(error),
        }
    }
}

impl Events {
    /// Over the log and the table.
    pub fn new(
        log: Arc<Log>,
        database: Database,
        registry: Arc<Registry>,
        rounds: Arc<Rounds>,
        heartbeat: Duration,
        retry: Duration,
        shutdown: CancellationToken,
    ) -> Self {
        Self {
            log,
            database,
            registry,
            rounds,
            joins: Semaphore::new(CONCURRENT_JOINS),
            snapshots: states::Turns::new(),
            room: spool::Room::new(spool::SPOOL_BYTES),
            tally: Arc::default(),
            heartbeat,
            retry,
            shutdown,
        }
    }

    /// Events behind `cursor` (or from the first one on) up to the watermark: what a poller can page through without
    /// ever missing one. At most `limit` rows; `out` gets them as the elements of a JSON array.
    pub async fn since(
        &self,
        cursor: Option<Cursor>,
        filter: &Filter,
        limit: usize,
        out: &mut BytesMut,
    ) -> Result<(Cursor, bool), ReadError> {
        let epoch = self.epoch().await?;
        if cursor.is_some_and(|cursor| cursor.epoch != epoch) {
            return Err(ReadError::Expired);
        }
        let from = cursor.map_or(Position(0), |cursor| cursor.position);
        let watermark = self.watermark().await.ok_or(ReadError::NotReady(
            "a transaction that wrote events was open when the streamer started; how far pollers may read is known when it has ended",
        ))?;
        let mut upto = watermark.position;
        if upto.0.saturating_sub(from.0) < i64::try_from(limit).unwrap_or(i64::MAX) {
            self.rounds.fresh(FRESH_PATIENCE).await;
            upto = self.log.tip().watermark.map_or(upto, |watermark| upto.max(watermark.position));
        }
        if from >= upto {
            return Ok((Cursor { epoch, position: from, offset: None }, false));
        }
        let mut client = self.database.get().await?;
        let first = out.len();
        let take = |row: &EventRow<'_>| {
            if out.len() > first {
                out.extend_from_slice(b",");
            }
            row.write_json(out);
            out.len() - first
        };
        let size = table::Size::answer(limit);
        let page = if cursor.is_some() {
            table::page(&**client, from, upto, filter, size, take).await?
        } else {
            // Who has no cursor is not told what retention drops: his page and its end have to be of one snapshot, or what
            // is dropped between the two moves the end over events that are there, and that the page has not looked at.
            let builder = client.build_transaction().isolation_level(IsolationLevel::RepeatableRead).read_only(true);
            let transaction = builder.start().await.map_err(Error::from)?;
            let page = table::page(&*transaction, from, upto, filter, size, take).await?;
            transaction.commit().await.map_err(Error::from)?;
            page
        };
        if cursor.is_some() && from < page.dropped {
            return Err(ReadError::Dropped);
        }
        let position = page.more.unwrap_or(upto);
        Ok((Cursor { epoch, position, offset: None }, page.more.is_some()))
    }

    /// A stream from `cursor`, or from now on. It ends at `until`, when its reader's token expires.
    pub async fn stream(
        self: &Arc<Self>,
        cursor: Option<Cursor>,
        filter: Filter,
        until: Option<Instant>,
    ) -> Result<Stream, ReadError> {
        let epoch = self.epoch().await?;
        if !self.registry.entities().push_any(&filter.entity_types) {
            return Err(ReadError::PollingOnly);
        }
        let filter = filter.pushed();
        let start = if let Some(cursor) = cursor {
            cursor
        } else {
            self.caught_up().await?;
            // Without a watermark a reader that loses its place would be sent all of history. If none comes soon (an
            // old transaction is open), that is still better than to wait or to lose what it writes.
            self.watermark().await;
            let head = self.log.tip().head;
            let position = self.log.watermark_at(head).map_or(Position(0), |watermark| watermark.position);
            Cursor { epoch, position, offset: Some(Offset::just_before(head)) }
        };
        Ok(Stream::new(Arc::clone(self), start, filter, until))
    }

    /// What those need who bring frames to many readers: the log, the registry, and how often an idle stream says that
    /// it is alive.
    pub fn shared(&self) -> (Arc<Log>, Arc<Registry>, Duration) {
        (Arc::clone(&self.log), Arc::clone(&self.registry), self.heartbeat)
    }

    /// A cursor at the watermark: from there on one sees everything that is not final yet.
    pub fn settled(&self) -> Option<Cursor> {
        let tip = self.log.tip();
        tip.epoch.zip(tip.watermark).map(|(epoch, watermark)| Cursor {
            epoch,
            position: watermark.position,
            offset: None,
        })
    }

    /// How long ago it was last known up to where pollers may read.
    pub fn watermark_age(&self) -> Duration {
        self.rounds.age()
    }

    /// What became of streams.
    pub fn tally(&self) -> &Arc<Tally> {
        &self.tally
    }

    /// How many readers are being joined to the log.
    pub fn joins(&self) -> usize {
        CONCURRENT_JOINS.saturating_sub(self.joins.available_permits())
    }

    async fn epoch(&self) -> Result<Epoch, ReadError> {
        let mut epochs = self.log.epochs();
        let known = timeout(READY_PATIENCE, epochs.wait_for(Option::is_some)).await;
        let epoch = known.ok().and_then(Result::ok).and_then(|epoch| *epoch);
        epoch.ok_or(ReadError::NotReady("the streamer has not reached Postgres yet"))
    }

    /// After a restart the head runs through the old ring first; a reader that asks for "now" must not be sent that.
    async fn caught_up(&self) -> Result<(), ReadError> {
        let mut feed = self.log.feed();
        let started = timeout(READY_PATIENCE, feed.wait_for(|feed| *feed != Feed::Starting)).await;
        started.is_ok().then_some(()).ok_or(ReadError::NotReady("the streamer is still catching up with Postgres"))
    }

    async fn watermark(&self) -> Option<Watermark> {
        let mut watermarks = self.log.watermarks();
        let known = timeout(READY_PATIENCE, watermarks.wait_for(Option::is_some)).await;
        known.ok().and_then(Result::ok).and_then(|watermark| *watermark)
    }
}
