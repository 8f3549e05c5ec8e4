//! Shapes: rows of a table, kept up to date on every client that speaks ElectricSQL's HTTP protocol.
//!
//! A shape is a definition; its log is the ring, seen through that definition. A handle names the definition, the table's
//! schema and the snapshot that a client began with, so every replica can go on from a client's offset, and nothing is
//! kept but the first rows, for those who are fetching them.

mod chunks;
mod copy;
mod definition;
mod error;
pub mod filter;
mod initial;
mod inner;
mod json;
mod live;
mod mapping;
mod message;
mod name;
mod offset;
mod publish;
mod reader;
mod request;
mod router;
mod routes;
mod stream;
mod subset;
pub mod table;
mod tables;
mod tale;

pub use definition::{LogMode, Replica, Wanted};
pub use error::ShapeError;
pub use message::MUST_REFETCH;
pub use offset::ShapeOffset;
pub use request::{Asked, Deletion, Parameters};
pub use stream::Stream;
pub use subset::Subset;

use crate::database::Database;
use crate::error::Error;
use crate::identity::Reach;
use crate::log::{Feed, Log, Transaction};
use crate::seam;
use bytes::Bytes;
use chunks::Room;
use definition::Definition;
use headwater_model::cursor::{Epoch, Lsn, Offset};
use initial::{CONCURRENT_SNAPSHOTS, Chunk, Initial, Source};
use live::{Shape, array};
use message::{Framing, up_to_date};
use reader::Messages;
use router::Router;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use table::TableSchema;
use tables::Tables;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

/// How long a request waits for the source's first connection after a start.
const READY_PATIENCE: Duration = Duration::from_secs(5);

/// Definitions that are remembered; the oldest go first. Forgetting one costs its next client a snapshot at most.
const REMEMBERED_SHAPES: usize = 200_000;

/// How shapes are served.
#[derive(Clone, Debug)]
pub struct Settings {
    /// A chunk is closed when it has so many bytes.
    pub chunk_bytes: usize,
    /// How long a live request waits for a change.
    pub long_poll_timeout: Duration,
    /// How long a stream of changes lasts.
    pub sse_timeout: Duration,
    /// Whether tables that are not published yet are, when a client asks for them.
    pub auto_publish: bool,
    /// Whether clients may delete shapes.
    pub allow_deletion: bool,
    /// Disk for first rows that do not fit into memory.
    pub snapshot_bytes: u64,
    /// Requests at the same time that begin a shape.
    pub initial_requests: usize,
    /// Requests at the same time that go on with one.
    pub existing_requests: usize,
}

/// All shapes.
#[derive(Debug)]
pub struct Shapes {
    log: Arc<Log>,
    tables: Arc<Tables>,
    source: Arc<Source>,
    router: Router,
    settings: Settings,
    known: Mutex<Known>,
    initial: Arc<Semaphore>,
    existing: Arc<Semaphore>,
    shutdown: CancellationToken,
}

#[derive(Debug, Default)]
struct Known {
    /// By identity.
    shapes: HashMap<Arc<str>, Arc<Shape>>,
    /// By what requests say, so that each need not be read anew.
    wanted: HashMap<(Wanted, Reach), Arc<Shape>>,
}

/// An answer with a part of a shape's log.
#[derive(Debug)]
pub struct Answer {
    /// The incarnation.
    pub handle: String,
    /// Where the client goes on.
    pub offset: ShapeOffset,
    /// Whether it has everything by then.
    pub up_to_date: bool,
    /// Whether it is worth keeping: false if a client that waited, or that wanted no rows, has got none.
    pub has_data: bool,
    /// The types of the columns.
    pub schema: String,
    /// The messages.
    pub body: Body,
}

/// An answer with a subset's rows.
#[derive(Debug)]
pub struct Page {
    /// The incarnation.
    pub handle: String,
    /// Where a client goes on that has no place in the log yet: before the snapshot of these rows.
    pub offset: ShapeOffset,
    /// The types of the columns.
    pub schema: String,
    /// A JSON object.
    pub body: Bytes,
}

/// Messages.
#[derive(Debug)]
pub enum Body {
    /// A JSON array.
    Array(Bytes),
    /// SSE blocks, as they come.
    Stream(Box<Stream>),
}

/// A place among the requests that are served at a time.
#[derive(Debug)]
pub(crate) struct Admitted(#[expect(dead_code, reason = "held, not read")] OwnedSemaphorePermit);

/// A shape, and where in its log a client stands.
#[derive(Debug)]
struct Standing {
    shape: Arc<Shape>,
    /// Of its handle.
    lsn: Lsn,
    initial: Option<Arc<Initial>>,
    after: Offset,
    /// As the client has it.
    offset: ShapeOffset,
}

impl Shapes {
    /// Over the log and the tables.
    pub fn new(
        log: Arc<Log>,
        database: Database,
        registry: bool,
        settings: Settings,
        shutdown: CancellationToken,
    ) -> Self {
        let tables = Arc::new(Tables::new(database.clone(), registry, settings.auto_publish));
        let source = Source {
            log: Arc::clone(&log),
            database,
            tables: Arc::clone(&tables),
            room: Arc::new(Room::new(chunks::MEMORY_BYTES, settings.snapshot_bytes)),
            permits: Semaphore::new(CONCURRENT_SNAPSHOTS),
            inners: inner::Inners::default(),
            chunk_bytes: settings.chunk_bytes,
        };
        Self {
            log,
            tables,
            source: Arc::new(source),
            router: Router::new(),
            known: Mutex::default(),
            initial: Arc::new(Semaphore::new(settings.initial_requests)),
            existing: Arc::new(Semaphore::new(settings.existing_requests)),
            settings,
            shutdown,
        }
    }

    /// Wakes readers until the service stops.
    pub async fn run(&self) {
        self.router.run(&self.log, &self.tables, &self.shutdown).await;
    }

    /// The settings.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// A part of a shape's log. It ends early at `until`, when the caller's token expires.
    pub async fn answer(
        self: &Arc<Self>,
        asked: Asked,
        reach: &Reach,
        until: Option<Instant>,
    ) -> Result<Answer, ShapeError> {
        let wanted = asked.wanted.clone();
        match self.log_of(asked, reach, until).await {
            Err(ShapeError::Refetch(None)) => Err(self.successor(&wanted, reach).await),
            other => other,
        }
    }

    async fn log_of(
        self: &Arc<Self>,
        asked: Asked,
        reach: &Reach,
        until: Option<Instant>,
    ) -> Result<Answer, ShapeError> {
        let epoch = self.ready().await?;
        let fresh = asked.handle.is_none();
        let (shape, table) = self.find(&asked.wanted, reach, epoch, fresh).await?;
        let admitted = self.admit(fresh)?;
        let schema = shape.definition().schema(&table);
        self.router.watch(&shape);
        match (asked.offset, &asked.handle) {
            (ShapeOffset::Start, _) => self.first_chunk(&shape, schema).await,
            (ShapeOffset::Now, _) => self.now(&shape, schema).await,
            (offset, Some(handle)) => {
                let (shape, lsn) = self.check_handle(shape, handle, &asked.wanted, reach, epoch).await?;
                let standing = match self.stand(shape, lsn, offset).await? {
                    Ok(standing) => standing,
                    Err((chunk, next)) => {
                        let body = Body::Array(array(&chunk, None));
                        let offset = ShapeOffset::Chunk(next);
                        let handle = handle.clone();
                        return Ok(Answer { handle, offset, up_to_date: false, has_data: true, schema, body });
                    }
                };
                if asked.sse {
                    return Ok(self.stream(standing, handle.clone(), schema, until, admitted));
                }
                self.log_part(standing, handle.clone(), schema, asked.live, until).await
            }
            (_, None) => Err(ShapeError::invalid("handle", "can't be blank when offset != -1")),
        }
    }

    /// A part of a shape's rows, as they are now.
    pub async fn subset(&self, asked: &Asked, subset: &Subset, reach: &Reach) -> Result<Page, ShapeError> {
        match self.page_of(asked, subset, reach).await {
            Err(ShapeError::Refetch(None)) => Err(self.successor(&asked.wanted, reach).await),
            other => other,
        }
    }

    async fn page_of(&self, asked: &Asked, subset: &Subset, reach: &Reach) -> Result<Page, ShapeError> {
        let epoch = self.ready().await?;
        let fresh = asked.handle.is_none();
        let (shape, table) = self.find(&asked.wanted, reach, epoch, fresh).await?;
        let _admitted = self.admit(fresh)?;
        let schema = shape.definition().schema(&table);
        let (shape, handle, offset) = if let Some(handle) = &asked.handle {
            // The client's own place: it has everything up to there, and nothing is passed over.
            let (shape, _) = self.check_handle(shape, handle, &asked.wanted, reach, epoch).await?;
            (shape, handle.clone(), asked.offset)
        } else {
            let lsn = self.mint(&shape).await?;
            let head = Offset::just_before(self.log.tip().head);
            let handle = shape.definition().handle(lsn);
            (shape, handle, ShapeOffset::Change(head))
        };
        self.router.watch(&shape);
        let _permit = self.source.permits.acquire().await?;
        let body = subset.read(&self.source.database, &shape.renderer, shape.next_mark().into()).await?;
        Ok(Page { handle, offset, schema, body })
    }

    /// Forgets a shape: its next client gets a new handle, and those of the old one start anew.
    pub async fn delete(&self, deletion: Deletion, reach: &Reach) -> Result<(), ShapeError> {
        if !self.settings.allow_deletion {
            return Err(ShapeError::NotAllowed);
        }
        let epoch = self.ready().await?;
        let shape = match (&deletion.wanted, &deletion.handle) {
            (Some(wanted), handle) => {
                let (shape, _) = self.find(wanted, reach, epoch, true).await?;
                let given = |handle: &String| shape.definition().snapshot_of(handle).is_some_and(|lsn| shape.gave(lsn));
                if handle.as_ref().is_some_and(|handle| !given(handle)) {
                    return Err(ShapeError::invalid("handle", "does not match the shape definition"));
                }
                Some(shape).filter(|shape| shape.exists())
            }
            (None, Some(handle)) => {
                let known = self.known();
                let given = |shape: &&Arc<Shape>| {
                    let lsn = shape.definition().snapshot_of(handle);
                    lsn.is_some_and(|lsn| shape.gave(lsn)) && shape.definition().is_within(reach)
                };
                known.shapes.values().find(given).map(Arc::clone)
            }
            (None, None) => None,
        };
        let shape = shape.ok_or(ShapeError::NotFound)?;
        shape.delete(self.log.tip().head);
        Ok(())
    }

    /// Waits for the log to stand where it stood before a restart.
    async fn ready(&self) -> Result<Epoch, ShapeError> {
        let mut feed = self.log.feed();
        let started = timeout(READY_PATIENCE, feed.wait_for(|feed| *feed != Feed::Starting)).await;
        let epoch = self.log.tip().epoch.filter(|_| matches!(started, Ok(Ok(_))));
        epoch.ok_or_else(|| ShapeError::busy("Stack not ready", 5))
    }

    fn admit(&self, fresh: bool) -> Result<Admitted, ShapeError> {
        let (counter, kind, limit) = if fresh {
            (&self.initial, "initial", self.settings.initial_requests)
        } else {
            (&self.existing, "existing", self.settings.existing_requests)
        };
        Arc::clone(counter).try_acquire_owned().map(Admitted).map_err(|_| ShapeError::overloaded(kind, limit))
    }

    /// The shape that is wanted, and its table as it is now (or was a moment ago).
    async fn find(
        &self,
        wanted: &Wanted,
        reach: &Reach,
        epoch: Epoch,
        current: bool,
    ) -> Result<(Arc<Shape>, Arc<TableSchema>), ShapeError> {
        let (schema, name) = name::table(&wanted.table).map_err(|message| ShapeError::invalid("table", message))?;
        let look = async |schema: &str, name: &str| {
            if current { self.tables.current(schema, name).await } else { self.tables.recent(schema, name).await }
        };
        let table = look(&schema, &name).await?;
        let key = (wanted.clone(), reach.clone());
        let known = self.known().wanted.get(&key).map(Arc::clone);
        let names = match &known {
            Some(shape) => shape.definition().inner_names(),
            None => wanted.inner_tables()?,
        };
        let mut inner = Vec::with_capacity(names.len());
        for (schema, name) in &names {
            inner.push(look(schema, name).await.map_err(of_subquery)?);
        }
        if let Some(shape) = known
            && Arc::ptr_eq(&shape.definition().table, &table)
            && (shape.definition().inner.iter().zip(&inner)).all(|(known, now)| Arc::ptr_eq(known, now))
            && shape.epoch == epoch
            && !shape.is_stale()
        {
            return Ok((shape, table));
        }
        let definition = Definition::new(wanted, Arc::clone(&table), &inner, reach, epoch)?;
        let identity = Arc::clone(&definition.identity);
        let mut known = self.known();
        let shape = if let Some(shape) = known.shapes.get(&identity).filter(|shape| !shape.is_stale()) {
            Arc::clone(shape)
        } else {
            if known.shapes.len() >= REMEMBERED_SHAPES {
                known.forget_some();
            }
            let shape = Arc::new(Shape::new(definition, epoch));
            known.shapes.insert(identity, Arc::clone(&shape));
            shape
        };
        if known.wanted.len() >= REMEMBERED_SHAPES {
            known.wanted.clear();
        }
        known.wanted.insert(key, Arc::clone(&shape));
        if self.source.room.is_tight() {
            known.shed(&shape);
        }
        Ok((shape, table))
    }

    /// The handle must be of this very shape; else the client starts anew, with the handle that there is.
    async fn check_handle(
        &self,
        shape: Arc<Shape>,
        handle: &str,
        wanted: &Wanted,
        reach: &Reach,
        epoch: Epoch,
    ) -> Result<(Arc<Shape>, Lsn), ShapeError> {
        let good = |shape: &Shape| shape.definition().snapshot_of(handle).filter(|lsn| shape.honours(*lsn));
        if let Some(lsn) = good(&shape) {
            return Ok((shape, lsn));
        }
        // Another replica may know more of the table than we did a moment ago.
        let (shape, _) = self.find(wanted, reach, epoch, true).await?;
        match good(&shape) {
            Some(lsn) => Ok((shape, lsn)),
            None => Err(ShapeError::Refetch(None)),
        }
    }

    /// 409, with the handle to start with if there is one.
    async fn successor(&self, wanted: &Wanted, reach: &Reach) -> ShapeError {
        match self.newest_handle(wanted, reach).await {
            Ok(handle) => ShapeError::Refetch(Some(handle)),
            // Its next request is told what is wrong.
            Err(ShapeError::Invalid(_) | ShapeError::Refetch(_)) => ShapeError::Refetch(None),
            Err(error) => error,
        }
    }

    async fn newest_handle(&self, wanted: &Wanted, reach: &Reach) -> Result<String, ShapeError> {
        let epoch = self.ready().await?;
        let (shape, _) = self.find(wanted, reach, epoch, true).await?;
        let _admitted = self.admit(true)?;
        let initial = shape.initial(&self.source);
        let joint = initial.joint().await?;
        Ok(shape.definition().handle(joint.lsn))
    }

    async fn first_chunk(&self, shape: &Arc<Shape>, schema: String) -> Result<Answer, ShapeError> {
        let initial = shape.initial(&self.source);
        let joint = initial.joint().await?;
        let Chunk::Rows(rows) = initial.chunk(0).await? else {
            return Err(ShapeError::busy("Failed to create shape, please retry", 1));
        };
        Ok(Answer {
            handle: shape.definition().handle(joint.lsn),
            offset: ShapeOffset::Chunk(0),
            up_to_date: false,
            has_data: true,
            schema,
            body: Body::Array(array(&rows, None)),
        })
    }

    /// An LSN for handles that come without rows.
    async fn mint(&self, shape: &Shape) -> Result<Lsn, ShapeError> {
        if let Some(lsn) = shape.mint(&self.log) {
            return Ok(lsn);
        }
        // It was deleted just now, and nothing was written since: a new handle needs a place of its own.
        let marker = seam::mark(&self.source.database).await?;
        self.await_head(Offset::just_before(marker)).await?;
        shape.mint(&self.log).ok_or_else(|| ShapeError::busy("Failed to create shape, please retry", 1))
    }

    async fn now(&self, shape: &Arc<Shape>, schema: String) -> Result<Answer, ShapeError> {
        let lsn = self.mint(shape).await?;
        let head = self.log.tip().head;
        Ok(Answer {
            handle: shape.definition().handle(lsn),
            offset: ShapeOffset::Change(Offset::just_before(head)),
            up_to_date: true,
            has_data: false,
            schema,
            body: Body::Array(array(&[], Some(&up_to_date(head)))),
        })
    }

    /// Where the client stands in the log; or the next chunk of its first rows.
    async fn stand(
        &self,
        shape: Arc<Shape>,
        lsn: Lsn,
        offset: ShapeOffset,
    ) -> Result<Result<Standing, (Bytes, usize)>, ShapeError> {
        let initial = shape.initial_at(lsn);
        let start = Offset::just_before(lsn);
        let (initial, after) = match offset {
            ShapeOffset::Chunk(chunk) => {
                // Only who took them has them.
                let Some(initial) = initial else { return Err(ShapeError::Refetch(None)) };
                match initial.chunk(chunk + 1).await {
                    Ok(Chunk::Rows(rows)) => return Ok(Err((rows, chunk + 1))),
                    Ok(Chunk::End) => {}
                    Err(_) => return Err(ShapeError::Refetch(None)),
                }
                (Some(initial), start)
            }
            ShapeOffset::Change(after) if after >= start => (None, after),
            _ => (initial, start),
        };
        self.await_head(after).await?;
        Ok(Ok(Standing { shape, lsn, initial, after, offset }))
    }

    /// A place beyond the log's end is another replica's, or from before a restart: the log gets there, or never does.
    async fn await_head(&self, after: Offset) -> Result<(), ShapeError> {
        let mut head = self.log.head();
        let patience = self.settings.long_poll_timeout / 2;
        let reached = timeout(patience, head.wait_for(|head| Offset::just_before(*head).lsn >= after.lsn)).await;
        match reached {
            Ok(Ok(_)) => Ok(()),
            _ => Err(ShapeError::invalid("offset", "out of bounds for this shape")),
        }
    }

    async fn read(&self, standing: &Standing, after: Offset, framing: Framing) -> Result<Messages, ShapeError> {
        let shape = &standing.shape;
        let limit = self.settings.chunk_bytes;
        if let Some(tale) = shape.tale(&self.source) {
            return tale.read(&self.source, &shape.renderer, shape.epoch, after, limit, framing).await;
        }
        let missed: &[Arc<Transaction>] = match &standing.initial {
            Some(initial) if after < Offset { op: 1, ..Offset::just_before(standing.lsn) } => {
                initial.known_joint().map_or(&[], |joint| &joint.missed)
            }
            _ => &[],
        };
        let messages = shape.read(&self.log, &self.router, missed, after, limit, framing);
        messages.ok_or(ShapeError::Refetch(None))
    }

    async fn log_part(
        &self,
        standing: Standing,
        handle: String,
        schema: String,
        live: bool,
        until: Option<Instant>,
    ) -> Result<Answer, ShapeError> {
        let shape = Arc::clone(&standing.shape);
        let mut wakes = shape.wakes();
        let deadline = Instant::now() + self.settings.long_poll_timeout;
        let deadline = until.map_or(deadline, |until| until.min(deadline));
        let mut after = standing.after;
        let mut ended = !live;
        loop {
            // Marked before the look: what arrives in between wakes us.
            wakes.mark_unchanged();
            if shape.is_stale() || !shape.honours(standing.lsn) {
                return Err(ShapeError::Refetch(None));
            }
            let messages = self.read(&standing, after, Framing::Array).await?;
            if let Some(last) = messages.last {
                return Ok(part(&standing, &messages, last, handle, schema, live));
            }
            if !messages.complete {
                after = messages.next;
                continue;
            }
            if ended {
                return Ok(self.nothing(&standing, &messages, handle, schema, live));
            }
            after = messages.next;
            tokio::select! {
                biased;
                () = self.shutdown.cancelled() => ended = true,
                _ = wakes.changed() => {}
                () = sleep_until(deadline) => ended = true,
            }
        }
    }

    /// Nothing has happened. The offset stays, so that equal requests look equal; but before the ring forgets it, it moves.
    fn nothing(&self, standing: &Standing, messages: &Messages, handle: String, schema: String, live: bool) -> Answer {
        let tip = self.log.tip();
        let middle = Lsn(tip.start.0 + (tip.head.0.saturating_sub(tip.start.0)) / 2);
        let offset = match standing.offset {
            _ if standing.after.lsn < middle => ShapeOffset::Change(messages.next),
            ShapeOffset::Change(_) => standing.offset,
            _ => ShapeOffset::Snapshot,
        };
        Answer {
            handle,
            offset,
            up_to_date: true,
            has_data: !live,
            schema,
            body: Body::Array(array(&[], Some(&up_to_date(messages.head)))),
        }
    }

    fn stream(
        self: &Arc<Self>,
        standing: Standing,
        handle: String,
        schema: String,
        until: Option<Instant>,
        admitted: Admitted,
    ) -> Answer {
        let offset = match standing.offset {
            ShapeOffset::Change(_) => standing.offset,
            _ => ShapeOffset::Snapshot,
        };
        let stream = Stream::new(Arc::clone(self), standing, until, admitted);
        Answer { handle, offset, up_to_date: false, has_data: true, schema, body: Body::Stream(Box::new(stream)) }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is wrong with a table that a subquery names is wrong with the condition.
fn of_subquery(error: ShapeError) -> ShapeError {
    match error {
        ShapeError::Invalid(mut errors) => {
            let message = errors["table"][0].take();
            ShapeError::invalid("where", message.as_str().unwrap_or("a subquery's table cannot be read"))
        }
        other => other,
    }
}

/// What has happened, up to the chunk's end.
fn part(standing: &Standing, messages: &Messages, last: Offset, handle: String, schema: String, live: bool) -> Answer {
    // Missed transactions lie before the marker; everything up to it has been told with them.
    let last = last.max(Offset::just_before(standing.lsn));
    let seen = if live { last.lsn } else { messages.head };
    let control = messages.complete.then(|| up_to_date(seen));
    Answer {
        handle,
        offset: ShapeOffset::Change(last),
        up_to_date: messages.complete,
        has_data: true,
        schema,
        body: Body::Array(array(&messages.body, control.as_deref())),
    }
}

impl Known {
    /// Makes room: shapes that nobody waits for.
    fn forget_some(&mut self) {
        let mut left = self.shapes.len() / 10;
        self.shapes.retain(|_, shape| {
            let idle = left > 0 && !shape.has_readers();
            left -= usize::from(idle);
            !idle
        });
        self.wanted.clear();
    }

    /// First rows take much room: those that nobody is fetching could be read again.
    fn shed(&self, but: &Arc<Shape>) {
        for shape in self.shapes.values().filter(|shape| !Arc::ptr_eq(shape, but)) {
            shape.shed();
        }
    }
}

impl From<tokio::sync::AcquireError> for ShapeError {
    fn from(_: tokio::sync::AcquireError) -> Self {
        Error::Timeout("shutting down").into()
    }
}
