//! Shapes: rows of a table, kept up to date on every client that speaks ElectricSQL's HTTP protocol.
//!
//! A shape is a definition; its log is the ring, seen through that definition. A handle names the definition, the table's
//! schema and the snapshot that a client began with, so every replica can go on from a client's offset, and nothing is
//! kept but the first rows, for those who are fetching them.

mod admission;
mod answer;
pub mod catalog;
mod chunks;
mod copy;
mod definition;
mod error;
pub mod filter;
mod group;
mod initial;
mod inner;
mod json;
mod known;
mod layout;
mod live;
mod mapping;
mod memory;
mod message;
mod name;
mod offset;
mod pieces;
mod publish;
mod reader;
mod request;
mod router;
mod routes;
mod session;
mod shared;
mod source;
mod spill;
mod stream;
mod subset;
pub mod table;
mod tables;
mod tale;
mod turns;
mod wake;

pub use answer::{Answer, Body, Page};
pub use definition::{LogMode, Replica, Wanted};
pub use error::ShapeError;
pub use message::MUST_REFETCH;
pub use offset::ShapeOffset;
pub use pieces::Pieces;
pub use request::{Asked, Deletion, Parameters};
pub use stream::Stream;
pub use subset::Subset;

use crate::database::Database;
use crate::identity::Reach;
use crate::log::{Feed, Log, Transaction};
use crate::seam;
use admission::{Admission, Admitted};
use answer::Asking;
use definition::Definition;
use headwater_model::cursor::{Epoch, Lsn, Offset};
use initial::{Chunk, Initial};
use known::Known;
use layout::Layouts;
use live::Shape;
use memory::Memory;
use message::Framing;
use pieces::Piece;
use prometheus_client::metrics::gauge::Gauge;
use reader::Messages;
use router::Router;
use source::Source;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use table::TableSchema;
use tables::Tables;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

/// How often a table may turn out to be another one while its new handle is made.
const SUCCESSOR_ATTEMPTS: usize = 3;

/// How long a request waits for the source's first connection after a start.
const READY_PATIENCE: Duration = Duration::from_secs(5);

/// Memory for answers that are on their way, those of slow readers too, and for those that are kept for who asks for the same.
const ANSWERS_BYTES: u64 = 512 << 20;

/// An answer below this size is not counted: what its request takes is more.
const COUNTED_FROM_BYTES: usize = 16 << 10;

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
    layouts: Layouts,
    initial: Arc<Admission>,
    existing: Arc<Admission>,
    answers: Arc<Memory>,
    shutdown: CancellationToken,
}

/// How a request goes on.
#[derive(Debug)]
enum Begun {
    /// It does not.
    Whole(Box<Answer>),
    /// From here.
    At(Standing, Asking, Admitted),
}

/// A shape, and where in its log a client stands.
#[derive(Clone, Debug)]
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
    /// Over the log and the tables; counts the requests that it serves.
    pub fn new(
        log: Arc<Log>,
        database: Database,
        registry: bool,
        settings: Settings,
        open: &Gauge,
        shutdown: CancellationToken,
    ) -> Self {
        let tables = Arc::new(Tables::new(database.clone(), registry, settings.auto_publish));
        let (snapshot_bytes, chunk_bytes) = (settings.snapshot_bytes, settings.chunk_bytes);
        let source = Source::new(Arc::clone(&log), database, Arc::clone(&tables), snapshot_bytes, chunk_bytes);
        Self {
            log,
            tables,
            source: Arc::new(source),
            router: Router::new(),
            known: Mutex::default(),
            layouts: Layouts::default(),
            initial: Admission::new("initial", settings.initial_requests, open),
            existing: Admission::new("existing", settings.existing_requests, open),
            answers: Memory::new(ANSWERS_BYTES),
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
        asked: &Asked,
        reach: &Reach,
        until: Option<Instant>,
    ) -> Result<Answer, ShapeError> {
        match self.log_of(asked, reach, until).await {
            Err(ShapeError::Refetch(None)) => Err(self.successor(&asked.wanted, reach).await),
            other => other,
        }
    }

    async fn log_of(
        self: &Arc<Self>,
        asked: &Asked,
        reach: &Reach,
        until: Option<Instant>,
    ) -> Result<Answer, ShapeError> {
        // What waits for changes ends by itself when the service stops, with an answer.
        let (standing, asking, admitted) = match self.until_stop(self.begin(asked, reach)).await? {
            Begun::Whole(answer) => return Ok(*answer),
            Begun::At(standing, asking, admitted) => (standing, asking, admitted),
        };
        if asked.sse {
            let stream = Stream::new(Arc::clone(self), standing.clone(), until, admitted);
            return Ok(asking.stream(&standing, stream));
        }
        Ok(self.log_part(standing, asking, until).await?.holding(admitted))
    }

    /// Whatever comes before the shape's log; or where in it the client stands.
    async fn begin(&self, asked: &Asked, reach: &Reach) -> Result<Begun, ShapeError> {
        let epoch = self.ready().await?;
        let fresh = asked.handle.is_none();
        let (shape, table) = self.find(&asked.wanted, reach, epoch, fresh).await?;
        let admitted = self.admit(fresh, reach)?;
        let schema = shape.definition().schema(&table);
        self.router.watch(&shape);
        let whole = |answer: Answer, admitted| Ok(Begun::Whole(Box::new(answer.holding(admitted))));
        let Some(handle) = &asked.handle else {
            let answer = match asked.offset {
                ShapeOffset::Start => self.first_chunk(&shape, schema, reach).await?,
                ShapeOffset::Now => self.now(&shape, schema).await?,
                _ => return Err(ShapeError::invalid("handle", "can't be blank when offset != -1")),
            };
            return whole(answer, admitted);
        };
        let (shape, lsn) = self.check_handle(shape, handle, &asked.wanted, reach, epoch).await?;
        let asking = Asking { handle: handle.clone(), schema, live: asked.live };
        match self.stand(shape, lsn, asked.offset).await? {
            Ok(standing) => Ok(Begun::At(standing, asking, admitted)),
            Err((rows, next)) => whole(asking.chunk(rows, next), admitted),
        }
    }

    /// Whoever asks while the service stops asks another, or comes back.
    async fn until_stop<T>(&self, work: impl Future<Output = Result<T, ShapeError>>) -> Result<T, ShapeError> {
        tokio::select! {
            biased;
            outcome = work => outcome,
            () = self.shutdown.cancelled() => Err(ShapeError::busy("The service is stopping, please retry", 1)),
        }
    }

    /// A part of a shape's rows, as they are now.
    pub async fn subset(&self, asked: &Asked, subset: &Subset, reach: &Reach) -> Result<Page, ShapeError> {
        match self.until_stop(self.page_of(asked, subset, reach)).await {
            Err(ShapeError::Refetch(None)) => Err(self.successor(&asked.wanted, reach).await),
            other => other,
        }
    }

    async fn page_of(&self, asked: &Asked, subset: &Subset, reach: &Reach) -> Result<Page, ShapeError> {
        let epoch = self.ready().await?;
        let fresh = asked.handle.is_none();
        let (shape, table) = self.find(&asked.wanted, reach, epoch, fresh).await?;
        let admitted = self.admit(fresh, reach)?;
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
        let _turn = self.source.turns.turn(reach).await;
        let mark = shape.next_mark().into();
        let body = subset.read(&self.source.database, &shape.renderer, mark, &self.answers).await?;
        Ok(Page { handle, offset, schema, body: Pieces::of([Piece::Memory(body)]).holding(admitted) })
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
                known.shapes().find(given).map(Arc::clone)
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

    fn admit(&self, fresh: bool, reach: &Reach) -> Result<Admitted, ShapeError> {
        if fresh { self.initial.enter(reach) } else { self.existing.enter(reach) }
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
            let looked =
                if current { self.tables.current(schema, name).await } else { self.tables.recent(schema, name).await };
            looked.map_err(|error| tables::hidden(error, reach, schema, name))
        };
        let table = look(&schema, &name).await?;
        let request = wanted.identity(reach);
        let known = self.known().wanted(&request);
        let names = match &known {
            Some(shape) => shape.definition().inner_names(),
            None => wanted.inner_tables()?,
        };
        let mut inner = Vec::with_capacity(names.len());
        for (schema, name) in &names {
            inner.push(look(schema, name).await.map_err(of_subquery)?);
        }
        if let Some(shape) = known
            && Arc::ptr_eq(&shape.definition().layout.table, &table)
            && (shape.definition().layout.inner.iter().zip(&inner)).all(|(known, now)| Arc::ptr_eq(known, now))
            && shape.epoch == epoch
            && !shape.is_stale()
        {
            return Ok((shape, table));
        }
        let definition = Definition::new(wanted, &table, &inner, reach, epoch, &self.layouts);
        let definition = definition.map_err(|error| match error {
            ShapeError::Unreadable => tables::hidden(error, reach, &schema, &name),
            other => other,
        })?;
        let mut known = self.known();
        let shape = known.remember(request, definition, epoch);
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
        match self.until_stop(self.newest_handle(wanted, reach)).await {
            Ok(handle) => ShapeError::Refetch(Some(handle)),
            // Its next request is told what is wrong.
            Err(ShapeError::Invalid(_) | ShapeError::Refetch(_)) => ShapeError::Refetch(None),
            Err(error) => error,
        }
    }

    async fn newest_handle(&self, wanted: &Wanted, reach: &Reach) -> Result<String, ShapeError> {
        let epoch = self.ready().await?;
        let _admitted = self.admit(true, reach)?;
        let mut attempts = 1;
        loop {
            let (shape, _) = self.find(wanted, reach, epoch, true).await?;
            let initial = shape.initial(&self.source, reach);
            match initial.promise().await {
                Ok(joint) => return Ok(shape.definition().handle(joint.lsn)),
                // A commit is in the WAL, and with it in the log, a moment before the catalog shows it.
                Err(ShapeError::Refetch(_)) if attempts < SUCCESSOR_ATTEMPTS => attempts += 1,
                Err(error) => return Err(error),
            }
        }
    }

    async fn first_chunk(&self, shape: &Arc<Shape>, schema: String, reach: &Reach) -> Result<Answer, ShapeError> {
        let initial = shape.initial(&self.source, reach);
        let joint = initial.joint().await?;
        let Chunk::Rows(rows) = initial.chunk(0).await? else {
            return Err(ShapeError::busy("Failed to create shape, please retry", 1));
        };
        let handle = shape.definition().handle(joint.lsn);
        Ok(Asking { handle, schema, live: false }.chunk(rows, 0))
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
        // Who has seen a commit, and then asks, is not told of it as of something new.
        let marker = seam::mark(&self.source.database).await?;
        self.await_head(Offset::just_before(marker)).await?;
        let lsn = self.mint(shape).await?;
        let handle = shape.definition().handle(lsn);
        Ok(Asking { handle, schema, live: false }.now(self.log.tip().head))
    }

    /// Where the client stands in the log; or the next chunk of its first rows.
    async fn stand(
        &self,
        shape: Arc<Shape>,
        lsn: Lsn,
        offset: ShapeOffset,
    ) -> Result<Result<Standing, (Piece, usize)>, ShapeError> {
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
            // `0_inf` is told only where nothing was missed that is the shape's: it is good on every replica.
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
        let outcome = self.read_from(standing, after, framing).await;
        if matches!(outcome, Err(ShapeError::Refetch(_))) {
            // Whoever begins anew does not begin with rows from which the log does not go on.
            standing.shape.breaks(standing.lsn.max(Lsn(after.lsn.0 + 1)));
        }
        outcome
    }

    async fn read_from(&self, standing: &Standing, after: Offset, framing: Framing) -> Result<Messages, ShapeError> {
        let shape = &standing.shape;
        let limit = self.settings.chunk_bytes;
        let hold = |messages| self.hold(messages);
        if let Some(tale) = shape.tale(&self.source) {
            return hold(tale.read(&self.source, &shape.renderer, shape.epoch, after, limit, framing).await?);
        }
        let missed = if standing.is_at_start(after) { standing.missed() } else { &[] };
        let messages = shape.read(&self.log, &self.router, missed, after, limit, framing, hold).await?;
        messages.ok_or(ShapeError::Refetch(None))
    }

    /// Counts an answer's memory, until the last who reads it is done.
    fn hold(&self, mut messages: Messages) -> Result<Messages, ShapeError> {
        if messages.body.len() < COUNTED_FROM_BYTES {
            return Ok(messages);
        }
        let held = self.answers.hold(messages.body.into()).or_else(|body| {
            self.known().shapes().for_each(|shape| shape.forget_answers());
            self.answers.hold(body)
        });
        messages.body =
            held.map_err(|_| ShapeError::busy("Answers take as much memory as they may, please retry", 5))?;
        Ok(messages)
    }

    async fn log_part(&self, standing: Standing, asking: Asking, until: Option<Instant>) -> Result<Answer, ShapeError> {
        let shape = Arc::clone(&standing.shape);
        let mut wakes = shape.wakes();
        let deadline = Instant::now() + self.settings.long_poll_timeout;
        let deadline = until.map_or(deadline, |until| until.min(deadline));
        let mut after = standing.after;
        let mut ended = !asking.live;
        loop {
            // Marked before the look: what arrives in between wakes us.
            wakes.mark_unchanged();
            if shape.is_stale() || !shape.honours(standing.lsn) {
                return Err(ShapeError::Refetch(None));
            }
            let messages = self.read(&standing, after, Framing::Array).await?;
            if let Some(last) = messages.last {
                return Ok(asking.part(&standing, messages, last));
            }
            if !messages.complete {
                after = messages.next;
                continue;
            }
            if ended {
                return Ok(asking.nothing(&standing, &messages, &self.log.tip()));
            }
            after = messages.next;
            tokio::select! {
                biased;
                () = self.shutdown.cancelled() => ended = true,
                () = wakes.changed() => {}
                () = sleep_until(deadline) => ended = true,
            }
        }
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

impl Standing {
    /// Transactions that the client's rows do not have, though they lie before the place where the log goes on.
    fn missed(&self) -> &[Arc<Transaction>] {
        self.initial.as_ref().and_then(|initial| initial.known_joint()).map_or(&[], |joint| &joint.missed)
    }

    fn has_missed(&self) -> bool {
        !self.missed().is_empty()
    }

    /// Whether nothing of the log was told yet.
    fn is_at_start(&self, after: Offset) -> bool {
        after < Offset { op: 1, ..Offset::just_before(self.lsn) }
    }
}
