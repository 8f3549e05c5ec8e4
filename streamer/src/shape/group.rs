//! Shapes of one table that are wanted at the same time begin with one snapshot: one look at the catalog and one marker in the
//! WAL for all, then the rows of each. Who asks while others are reading is in the next group. Their seams are the same, and
//! exact for each of them (`crate::seam`).

use super::copy::Lines;
use super::definition::LogMode;
use super::error::ShapeError;
use super::initial::{Initial, Joint};
use super::message::{Framing, snapshot_end};
use super::reader::Renderer;
use super::session::{FIRST_ROW_PATIENCE, begin, condition_error, is_same};
use super::source::{Cancel, Source};
use super::table::quote;
use crate::error::Error;
use crate::identity::Reach;
use crate::log::{Snapshot, Transaction};
use crate::seam::{self, UNSEEN_PAUSE};
use deadpool_postgres::{Object, Transaction as Session};
use futures_util::TryStreamExt;
use headwater_model::cursor::Lsn;
use std::collections::{HashMap, VecDeque};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::{sleep, timeout};
use tokio_postgres::IsolationLevel;

/// Tries to find everything that a snapshot does not see in the ring.
const ATTEMPTS: usize = 5;

/// Shapes of one group: so many small ones are read within a tenth of a second.
const MOST: usize = 64;

/// The others of a group do not wait longer than this for one whose rows are many: they begin with another snapshot.
const TOGETHER: Duration = Duration::from_millis(20);

/// A shape whose rows are wanted.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) initial: Arc<Initial>,
    pub(super) renderer: Arc<Renderer>,
}

type Members = VecDeque<Member>;

/// Who asks for shapes of which table, by its address: whoever waits keeps it where it is.
type Name = (Reach, usize);

/// Those who wait. For every [`MOST`] of them at least one task waits for its turn to read them.
#[derive(Debug, Default)]
pub(super) struct Groups(Mutex<HashMap<Name, Members>>);

impl Groups {
    fn add(&self, name: &Name, members: impl IntoIterator<Item = Member>) {
        self.lock().entry(name.clone()).or_default().extend(members);
    }

    /// The next group; empty if others were quicker.
    fn next(&self, name: &Name) -> Members {
        let mut waiting = self.lock();
        let Some(row) = waiting.get_mut(name) else { return Members::new() };
        let group = row.drain(..row.len().min(MOST)).collect();
        if row.is_empty() {
            waiting.remove(name);
        }
        group
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Name, Members>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A snapshot, and where it meets the log.
struct Seam<'a> {
    session: Session<'a>,
    snapshot: Snapshot,
    marker: Lsn,
    /// Transactions before the marker that the snapshot does not see.
    missed: Vec<Arc<Transaction>>,
}

impl Source {
    /// Members, [`MOST`] at most, of one table. Their rows are read at the turn of who asks.
    pub(super) fn join(self: &Arc<Self>, reach: Reach, members: impl IntoIterator<Item = Member>) {
        let mut members = members.into_iter().peekable();
        let Some(first) = members.peek() else { return };
        let name = (reach, Arc::as_ptr(&first.renderer.definition.layout.table) as usize);
        self.groups.add(&name, members);
        let source = Arc::clone(self);
        tokio::spawn(async move {
            let _turn = source.turns.turn(&name.0).await;
            let mut group = source.groups.next(&name);
            group.retain(|member| !member.initial.ends_if_forsaken());
            if group.is_empty() {
                return;
            }
            if let Err(error) = source.read(&name.0, &mut group).await {
                let error = Arc::new(error);
                for member in &group {
                    member.initial.fails(&error);
                }
            }
        });
    }

    /// Reads the rows of all; those who are left in the group when it fails share the error.
    async fn read(self: &Arc<Self>, reach: &Reach, group: &mut Members) -> Result<(), ShapeError> {
        let mut reader = self.database.get().await?;
        let cancel = Cancel::new(Some(reader.cancel_token()));
        let mut attempts = 1;
        let seam = loop {
            let everybody = async {
                for member in &*group {
                    member.initial.is_forsaken().await;
                }
            };
            let seam = self.seam(&mut reader, &group[0].renderer);
            match self.unless(everybody, seam, &cancel).await? {
                Some(seam) => break seam,
                None if attempts < ATTEMPTS => attempts += 1,
                None => return Err(ShapeError::not_begun(1)),
            }
            sleep(UNSEEN_PAUSE).await;
        };
        while let Some(member) = group.pop_front() {
            if !member.renderer.is_new(seam.marker) {
                // It makes the handle, and another snapshot of this shape has it already.
                self.join(reach.clone(), [member]);
                continue;
            }
            let Member { initial, renderer } = &member;
            let rows = rows(&seam, initial, renderer, self.chunk_bytes);
            let mut reading = pin!(self.unless(initial.is_forsaken(), rows, &cancel));
            let outcome = if let Ok(outcome) = timeout(TOGETHER, &mut reading).await {
                outcome
            } else {
                self.join(reach.clone(), group.drain(..));
                reading.await
            };
            let failed = outcome.is_err();
            initial.ends(outcome);
            if failed {
                // So has the transaction.
                self.join(reach.clone(), group.drain(..));
                return Ok(());
            }
        }
        Ok(seam.session.commit().await?)
    }

    /// A snapshot of a shape's table, and where it meets the log; none if it has to be taken again.
    async fn seam<'a>(&self, reader: &'a mut Object, renderer: &Renderer) -> Result<Option<Seam<'a>>, ShapeError> {
        let table = &renderer.definition.layout.table;
        let pin = self.log.pin();
        let session = reader.build_transaction().isolation_level(IsolationLevel::RepeatableRead).read_only(true);
        let session = session.start().await?;
        let snapshot = seam::snapshot(&*session).await?;
        begin(&session, table).await?;
        // Now nobody can truncate or rewrite the table. It is what it was when the shape was made, hence in the snapshot too.
        let now = self.tables.look(table).await?;
        if !now.is_some_and(|now| is_same(&now, table)) {
            return Err(ShapeError::Refetch(None));
        }
        let marker = self.marker().await?;
        let missed = seam::missed(&self.log, pin, &snapshot, marker).await?;
        Ok(missed.map(|missed| Seam { session, snapshot, marker, missed }))
    }
}

/// The rows of one shape, behind what its waiters are told of the joint.
async fn rows(seam: &Seam<'_>, initial: &Initial, renderer: &Renderer, chunk_bytes: usize) -> Result<(), ShapeError> {
    let definition = &renderer.definition;
    let missed = seam.missed.iter().filter(|transaction| transaction.touches(&definition.layout.members));
    initial.joins(Joint { lsn: seam.marker, missed: missed.map(Arc::clone).collect() });
    let mut writer = renderer.writer(Framing::Array);
    if definition.log == LogMode::Full {
        let read = definition.read();
        let columns = &definition.layout.table.columns;
        let names: Vec<String> = read.iter().map(|at| quote(&columns[*at].name)).collect();
        let sql = format!(
            "copy (select {} from {} where {}) to stdout",
            names.join(", "),
            definition.from(),
            definition.condition()
        );
        let rows = seam.session.copy_out(&sql).await.map_err(|error| condition_error(error.into()))?;
        let mut rows = pin!(rows);
        let mut lines = Lines::new(columns.len(), read);
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
                initial.add(writer.take()).await?;
            }
        }
    }
    let Seam { snapshot, .. } = seam;
    writer.control(&snapshot_end(snapshot.xmin(), snapshot.xmax(), snapshot.running()));
    initial.add(writer.finish()).await
}
