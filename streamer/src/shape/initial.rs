//! The rows that a shape begins with: read once for all who ask, in chunks that stay what they are, joined exactly to the
//! log (`crate::seam`).

use super::chunks::{Chunks, Room};
use super::copy::Lines;
use super::definition::LogMode;
use super::error::ShapeError;
use super::inner::Inners;
use super::inner::rows_at::Seen;
use super::inner::selection::{Side, Told};
use super::message::{Framing, Writer};
use super::pieces::Piece;
use super::reader::Renderer;
use super::table::{Column, Member, TableSchema, quote};
use super::tables::Tables;
use super::tale::{Reasons, Tale};
use super::turns::Turns;
use crate::database::Database;
use crate::error::Error;
use crate::identity::Reach;
use crate::log::{Log, Snapshot, Transaction};
use crate::seam::{self, UNSEEN_PAUSE};
use deadpool_postgres::Transaction as Session;
use futures_util::TryStreamExt;
use headwater_model::cursor::{Epoch, Lsn};
use std::fmt;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_postgres::{CancelToken, IsolationLevel};

/// A snapshot takes one connection for as long as it reads, and a second one for a moment; more of them at once than
/// this would starve everything else.
pub(super) const CONCURRENT_SNAPSHOTS: usize = 6;

/// Tries to find a table standing still between two looks at the catalog.
const ATTEMPTS: usize = 5;

/// A table that somebody has locked, or a snapshot that needs that long for its first row, is no table for shapes.
const FIRST_ROW_PATIENCE: Duration = Duration::from_secs(30);

/// `FirstNormalTransactionId` (`src/include/access/transam.h`): a snapshot up to here has seen nobody's rows.
pub(super) const FIRST_XID: u64 = 3;

/// A client that takes longer from one chunk to the next may find that the rows were let go, and begins anew.
const BETWEEN_CHUNKS: Duration = Duration::from_mins(1);

/// A client that has got nothing yet comes back within this time, if only its connection was lost; else nobody waits any more.
const BEFORE_FIRST_CHUNK: Duration = Duration::from_secs(2);

/// How far the reading is.
#[derive(Clone, Debug)]
enum Progress {
    /// The joint with the log is not known yet.
    Starting,
    /// So many chunks are there.
    Reading(usize),
    /// All of them are.
    Done(usize),
    /// It broke off.
    Failed(Arc<ShapeError>),
}

/// The rows that a shape begins with.
pub(super) struct Initial {
    chunks: Chunks,
    readers: Mutex<Readers>,
    progress: watch::Sender<Progress>,
    joint: std::sync::OnceLock<Joint>,
    /// Ends what Postgres is doing for it.
    cancel: Mutex<Option<CancelToken>>,
}

/// Who wants a part of it.
#[derive(Debug)]
struct Readers {
    waiting: usize,
    /// When somebody last began or stopped to wait.
    asked_at: Instant,
    /// Whether anybody has got a part, or was told to come for it.
    served: bool,
}

/// Somebody waits for a part.
struct Waiting<'a>(&'a Initial);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut readers = self.0.readers();
        readers.waiting -= 1;
        readers.asked_at = Instant::now();
    }
}

/// Where rows and log meet.
#[derive(Debug)]
pub(super) struct Joint {
    /// The marker: from here on the log alone is enough.
    pub(super) lsn: Lsn,
    /// Transactions before it that the rows do not have.
    pub(super) missed: Vec<Arc<Transaction>>,
}

/// A chunk, or the end.
#[derive(Debug)]
pub(super) enum Chunk {
    /// Its messages, as elements of an array.
    Rows(Piece),
    /// There are no more: the log goes on.
    End,
}

/// What taking snapshots needs.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) log: Arc<Log>,
    pub(super) database: Database,
    pub(super) tables: Arc<Tables>,
    pub(super) room: Arc<Room>,
    pub(super) turns: Arc<Turns>,
    pub(super) inners: Inners,
    pub(super) chunk_bytes: usize,
}

impl fmt::Debug for Initial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Initial").field("progress", &self.progress).finish_non_exhaustive()
    }
}

impl Initial {
    /// Begins to read, at the turn of who asks. `tale` is the log of a shape with subqueries. It ends when nobody wants it any more.
    pub(super) fn begin(
        source: Arc<Source>,
        renderer: Arc<Renderer>,
        tale: Option<Arc<Tale>>,
        epoch: Epoch,
        reach: &Reach,
    ) -> Arc<Self> {
        let initial = Arc::new(Self {
            chunks: Chunks::new(Arc::clone(&source.room)),
            readers: Mutex::new(Readers { waiting: 0, asked_at: Instant::now(), served: false }),
            progress: watch::Sender::new(Progress::Starting),
            joint: std::sync::OnceLock::new(),
            cancel: Mutex::default(),
        });
        let (own, reach) = (Arc::clone(&initial), reach.clone());
        tokio::spawn(async move {
            let reading = async {
                let _turn = source.turns.turn(&reach).await;
                match tale {
                    Some(tale) => own.read_at(&source, &renderer, &tale, epoch).await,
                    None => own.read(&source, &renderer).await,
                }
            };
            let last = match own.while_wanted(&source.database, reading).await {
                Ok(chunks) => Progress::Done(chunks),
                Err(error) => Progress::Failed(Arc::new(error)),
            };
            own.progress.send_replace(last);
        });
        initial
    }

    /// Reads to the end, unless everybody has gone.
    async fn while_wanted(
        &self,
        database: &Database,
        reading: impl Future<Output = Result<usize, ShapeError>>,
    ) -> Result<usize, ShapeError> {
        let mut reading = pin!(reading);
        tokio::select! {
            biased;
            outcome = &mut reading => return outcome,
            () = self.is_forsaken() => {}
        }
        tracing::debug!("nobody waits for a shape's rows any more");
        let cancel = self.cancel.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(cancel) = cancel {
            // The statement ends with an error, and so does the reading: its connection is clean.
            database.cancel(cancel).await;
            let _ = timeout(FIRST_ROW_PATIENCE, reading).await;
        }
        Err(ShapeError::busy("Failed to create shape, please retry", 1))
    }

    /// Waits until nobody has wanted a part of it for a while.
    async fn is_forsaken(&self) {
        loop {
            let left = {
                let readers = self.readers();
                let patience = if readers.served { BETWEEN_CHUNKS } else { BEFORE_FIRST_CHUNK };
                if readers.waiting > 0 { patience } else { patience.saturating_sub(readers.asked_at.elapsed()) }
            };
            if left.is_zero() {
                return;
            }
            sleep(left).await;
        }
    }

    fn readers(&self) -> MutexGuard<'_, Readers> {
        self.readers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn waiting(&self) -> Waiting<'_> {
        let mut readers = self.readers();
        readers.waiting += 1;
        readers.asked_at = Instant::now();
        Waiting(self)
    }

    /// Somebody has got a part of it, or is about to come for it.
    pub(super) fn serves(&self) {
        self.readers().served = true;
    }

    /// Where rows and log meet; waits until it is known.
    pub(super) async fn joint(&self) -> Result<&Joint, ShapeError> {
        let _waiting = self.waiting();
        let mut progress = self.progress.subscribe();
        let known = progress.wait_for(|progress| !matches!(progress, Progress::Starting)).await;
        match known.as_deref() {
            Ok(Progress::Failed(error)) if self.joint.get().is_none() => Err(again(error)),
            _ => self.joint.get().ok_or_else(|| ShapeError::busy("Failed to create shape, please retry", 1)),
        }
    }

    /// The joint, if it is known already.
    pub(super) fn known_joint(&self) -> Option<&Joint> {
        self.joint.get()
    }

    /// Whether it broke off.
    pub(super) fn has_failed(&self) -> bool {
        matches!(*self.progress.borrow(), Progress::Failed(_))
    }

    /// How large it is, if it is complete.
    pub(super) fn bytes(&self) -> Option<u64> {
        matches!(*self.progress.borrow(), Progress::Done(_)).then(|| self.chunks.bytes())
    }

    /// Whether somebody may be in the middle of fetching it.
    pub(super) fn is_being_read(&self) -> bool {
        let readers = self.readers();
        readers.waiting > 0 || readers.asked_at.elapsed() < BETWEEN_CHUNKS
    }

    /// A chunk; waits until it is there, or known not to be.
    pub(super) async fn chunk(&self, index: usize) -> Result<Chunk, ShapeError> {
        let _waiting = self.waiting();
        let mut progress = self.progress.subscribe();
        let known = progress.wait_for(|progress| match progress {
            Progress::Starting => false,
            Progress::Reading(chunks) => *chunks > index,
            Progress::Done(_) | Progress::Failed(_) => true,
        });
        // An owned value: no lock is held while the chunk is read.
        let known = known.await.map(|progress| progress.clone());
        match known {
            Ok(Progress::Done(chunks)) if index >= chunks => Ok(Chunk::End),
            Ok(Progress::Failed(error)) => Err(again(&error)),
            _ => match self.chunks.get(index) {
                Some(rows) => {
                    self.serves();
                    Ok(Chunk::Rows(rows))
                }
                None => Err(ShapeError::busy("Failed to create shape, please retry", 1)),
            },
        }
    }

    async fn read(&self, source: &Source, renderer: &Renderer) -> Result<usize, ShapeError> {
        let mut reader = source.database.get().await?;
        *self.cancel.lock().unwrap_or_else(PoisonError::into_inner) = Some(reader.cancel_token());
        for _ in 0..ATTEMPTS {
            let expected =
                source.tables.look(&renderer.definition.table.schema, &renderer.definition.table.name).await?;
            let Some(expected) = expected.filter(|table| is_same(table, &renderer.definition.table)) else {
                return Err(ShapeError::Refetch(None));
            };
            let pin = source.log.pin();
            let session = reader.build_transaction().isolation_level(IsolationLevel::RepeatableRead).read_only(true);
            let session = session.start().await?;
            let snapshot = seam::snapshot(&*session).await?;
            begin(&session, &expected).await?;
            // Now nobody can truncate or rewrite the table. Was somebody quicker, between the snapshot and the lock?
            let standing = source.tables.look(&expected.schema, &expected.name).await?.as_ref() == Some(&expected);
            let marker = seam::mark(&source.database).await?;
            let missed = seam::missed(&source.log, pin, &snapshot, marker).await?;
            let (true, Some(mut missed)) = (standing, missed) else {
                session.rollback().await?;
                sleep(UNSEEN_PAUSE).await;
                continue;
            };
            missed.retain(|transaction| transaction.touches(&renderer.definition.members));
            let _ = self.joint.set(Joint { lsn: marker, missed }); // the only place
            self.progress.send_replace(Progress::Reading(0));
            let chunks = self.rows(&session, renderer, &snapshot, source.chunk_bytes).await?;
            session.commit().await?;
            return Ok(chunks);
        }
        Err(ShapeError::busy("Failed to create shape, please retry", 1))
    }

    /// With subqueries: the rows as of the log's head, so that they and what subqueries have are of the same place.
    async fn read_at(
        &self,
        source: &Source,
        renderer: &Renderer,
        tale: &Tale,
        epoch: Epoch,
    ) -> Result<usize, ShapeError> {
        let place = source.log.tip().head;
        let whole = renderer.definition.log == LogMode::Full;
        if whole {
            tale.selection.reach(source, epoch, place, place).await?;
        }
        let _ = self.joint.set(Joint { lsn: place, missed: Vec::new() }); // the only place
        self.progress.send_replace(Progress::Reading(0));
        let writer = renderer.writer(Framing::Array);
        let mut reading =
            Reading { initial: self, renderer, writer, chunk_bytes: source.chunk_bytes, full: false, chunks: 0 };
        let end = if whole {
            let seen = tale.selection.rows(source, epoch, place, &mut reading).await?;
            let Seen { xmin, xmax, running } = seen;
            snapshot_end(xmin, xmax, &running)
        } else {
            // Nobody has seen anything.
            snapshot_end(FIRST_XID, FIRST_XID, &[])
        };
        let Reading { mut writer, chunks, .. } = reading;
        writer.control(&end);
        self.chunks.push(writer.finish()).await?;
        Ok(chunks + 1)
    }

    async fn rows(
        &self,
        session: &Session<'_>,
        renderer: &Renderer,
        snapshot: &Snapshot,
        chunk_bytes: usize,
    ) -> Result<usize, ShapeError> {
        let definition = &renderer.definition;
        let mut writer = renderer.writer(Framing::Array);
        let mut chunks = 0;
        if definition.log == LogMode::Full {
            let read = definition.read();
            let names: Vec<String> = read.iter().map(|at| quote(&definition.table.columns[*at].name)).collect();
            let sql = format!(
                "copy (select {} from {} where {}) to stdout",
                names.join(", "),
                definition.from(),
                definition.condition()
            );
            let rows = session.copy_out(&sql).await.map_err(|error| condition_error(error.into()))?;
            let mut rows = pin!(rows);
            let mut lines = Lines::new(definition.table.columns.len(), read);
            let mut first = true;
            loop {
                let next = rows.try_next();
                let next = if first {
                    timeout(FIRST_ROW_PATIENCE, next)
                        .await
                        .map_err(|_| Error::Timeout("a snapshot's first row did not come"))?
                } else {
                    next.await
                };
                first = false;
                let Some(line) = next.map_err(|error| condition_error(error.into()))? else { break };
                lines.read(&line, |row| writer.row(row, ""));
                if writer.len() >= chunk_bytes {
                    self.chunks.push(writer.take()).await?;
                    chunks += 1;
                    self.progress.send_replace(Progress::Reading(chunks));
                }
            }
        }
        writer.control(&snapshot_end(snapshot.xmin(), snapshot.xmax(), snapshot.running()));
        self.chunks.push(writer.finish()).await?;
        Ok(chunks + 1)
    }
}

/// Keeps TRUNCATE and rewriting ALTERs out for as long as the transaction lasts: the planner locks the table and every
/// partition. (`lock table` would need more than the right to read some columns.)
pub(super) async fn begin(session: &Session<'_>, table: &TableSchema) -> Result<(), ShapeError> {
    session.batch_execute(&format!("set local lock_timeout = '{}s'", FIRST_ROW_PATIENCE.as_secs())).await?;
    // Row by row at the reader's pace, however large the table is.
    session.batch_execute("set local row_security = off; set local statement_timeout = 0").await?;
    match session.batch_execute(&format!("select from {} limit 0", table.quoted())).await {
        Ok(()) => Ok(()),
        Err(error) => Err(readable_error(error.into(), table)),
    }
}

/// The role may not read a table, or a part of it.
pub(super) fn unreadable(table: &TableSchema, what: &str) -> ShapeError {
    let name = table.quoted();
    tracing::error!(
        what,
        "the streamer's role may not read {name} whole: grant it select on the table and usage on the schema; with row security, alter role … bypassrls"
    );
    ShapeError::Unreadable
}

/// What the role may not do stands in our log, with what mends it; clients come back later.
pub(super) fn readable_error(error: Error, table: &TableSchema) -> ShapeError {
    match error.state() {
        Some("42501") => unreadable(table, &error.to_string()),
        Some("42P01" | "3F000") => ShapeError::Refetch(None),
        _ => error.into(),
    }
}

/// A condition that fails for a row (a division by zero, a value that is none of the type), or that Postgres does not take
/// at all, is the client's affair. Postgres' own words may tell what a row has: they go into our log.
pub(super) fn condition_error(error: Error) -> ShapeError {
    let Some(what) = error.state().and_then(condition_fault) else { return error.into() };
    tracing::debug!(%error, "a client's condition failed");
    ShapeError::invalid("where", what)
}

/// By SQLSTATE ("Appendix A" in the Postgres manual).
fn condition_fault(state: &str) -> Option<&'static str> {
    Some(match state {
        "22012" => "the condition fails for a row: division by zero",
        "22003" | "22008" => "the condition fails for a row: a value is out of range",
        "22P02" | "22007" | "22023" => "the condition fails for a row: a value is not of the type that it is cast to",
        "22025" | "22019" => "the condition fails for a row: a pattern ends with its escape character",
        state if state.starts_with("22") => "the condition fails for a row",
        "42P22" | "42P21" => "the condition compares texts of different collations: say which with COLLATE",
        state if state.starts_with("54") => "the condition is larger than Postgres takes",
        _ => return None,
    })
}

/// Whether a shape of `known` can begin with the rows of `now`: nothing that its clients see is different.
pub(super) fn is_same(now: &TableSchema, known: &TableSchema) -> bool {
    let member = |(now, known): (&Member, &Member)| (now.oid, now.storage) == (known.oid, known.storage);
    let column = |(now, known): (&Column, &Column)| {
        now.name == known.name
            && (now.type_oid, now.type_mod, now.pk_index) == (known.type_oid, known.type_mod, known.pk_index)
            && (now.collation, now.letters) == (known.collation, known.letters)
            && now.enum_labels == known.enum_labels
    };
    now.oid == known.oid
        && now.members.len() == known.members.len()
        && now.members.iter().zip(&known.members).all(member)
        && now.columns.len() == known.columns.len()
        && now.columns.iter().zip(&known.columns).all(column)
        && (&now.excluded, &now.unreadable, &now.tenant_column)
            == (&known.excluded, &known.unreadable, &known.tenant_column)
}

/// A control message: these transactions are in the rows.
pub(super) fn snapshot_end(xmin: u64, xmax: u64, running: &[u64]) -> String {
    let running: Vec<String> = running.iter().map(|xid| format!("\"{xid}\"")).collect();
    format!(
        "{{\"headers\":{{\"control\":\"snapshot-end\",\"xmin\":\"{xmin}\",\"xmax\":\"{xmax}\",\"xip_list\":[{}]}}}}",
        running.join(",")
    )
}

/// Writes rows into chunks.
struct Reading<'a> {
    initial: &'a Initial,
    renderer: &'a Renderer,
    writer: Writer<'a>,
    chunk_bytes: usize,
    full: bool,
    chunks: usize,
}

impl Told for Reading<'_> {
    fn told(&mut self, side: &Side<'_>) -> Result<(), ShapeError> {
        self.writer.row(side.row, &Reasons::of(&self.renderer.definition, side).to_string());
        self.full = self.writer.len() >= self.chunk_bytes;
        Ok(())
    }

    async fn settle(&mut self) -> Result<(), ShapeError> {
        if std::mem::take(&mut self.full) {
            self.initial.chunks.push(self.writer.take()).await?;
            self.chunks += 1;
            self.initial.progress.send_replace(Progress::Reading(self.chunks));
        }
        Ok(())
    }
}

/// The same failure for everybody who waits.
fn again(error: &ShapeError) -> ShapeError {
    match error {
        ShapeError::Invalid(errors) => ShapeError::Invalid(errors.clone()),
        ShapeError::Refetch(_) => ShapeError::Refetch(None),
        ShapeError::Unreadable => ShapeError::Unreadable,
        ShapeError::Unavailable { body, retry_after } => {
            ShapeError::Unavailable { body: body.clone(), retry_after: *retry_after }
        }
        other => {
            tracing::error!(error = %other, "a shape's rows could not be read");
            ShapeError::busy("Failed to create shape, please retry", 10)
        }
    }
}
