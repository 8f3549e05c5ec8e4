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
mod find;
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
mod reasons;
mod request;
mod router;
mod routes;
mod session;
mod shared;
mod source;
mod spill;
mod standing;
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
use crate::log::{Feed, Log};
use crate::seam;
use admission::{Admission, Admitted};
use answer::Asking;
use headwater_model::cursor::{Epoch, Offset};
use initial::Chunk;
use known::Known;
use layout::Layouts;
use live::Shape;
use memory::Memory;
use pieces::Piece;
use prometheus_client::metrics::gauge::Gauge;
use router::Router;
use source::Source;
use standing::Standing;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tables::Tables;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

/// How long a request waits for the source's first connection after a start.
const READY_PATIENCE: Duration = Duration::from_secs(5);

/// Memory for answers that are on their way, those of slow readers too, and for those that are kept for who asks for the same.
const ANSWERS_BYTES: u64 = 512 << 20;

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

    async fn first_chunk(&self, shape: &Arc<Shape>, schema: String, reach: &Reach) -> Result<Answer, ShapeError> {
        let initial = shape.initial(&self.source, reach);
        let joint = initial.joint().await?;
        let Chunk::Rows(rows) = initial.chunk(0).await? else {
            return Err(ShapeError::not_begun(1));
        };
        let handle = shape.definition().handle(joint.lsn);
        Ok(Asking { handle, schema, live: false }.chunk(rows, 0))
    }

    async fn now(&self, shape: &Arc<Shape>, schema: String) -> Result<Answer, ShapeError> {
        // Who has seen a commit, and then asks, is not told of it as of something new.
        let marker = seam::mark(&self.source.database).await?;
        self.await_head(Offset::just_before(marker)).await?;
        let lsn = self.mint(shape).await?;
        let handle = shape.definition().handle(lsn);
        Ok(Asking { handle, schema, live: false }.now(self.log.tip().head))
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
