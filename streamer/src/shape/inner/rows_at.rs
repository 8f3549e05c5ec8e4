//! The rows that a table had at a place of the log, however long ago that is as long as the ring reaches back: those that
//! Postgres has now, with what the ring knows to have changed since taken back.
//!
//! A snapshot is joined to the log as in [`crate::seam`]. Then, of the transactions of the ring: those behind the place that
//! the snapshot sees are undone, newest first, and those before it that the snapshot does not see are done. (Two of both
//! kinds never touch the same row: who changes a row after another has waited until that one was visible.) The WAL has
//! whole old rows, so both are exact. Hence every replica finds the same rows at the same place.

use super::Go;
use crate::identity::Reach;
use crate::log::{Log, RowKind, RowsRead, Snapshot, Transaction};
use crate::seam::{self, UNSEEN_PAUSE};
use crate::shape::copy::Lines;
use crate::shape::error::ShapeError;
use crate::shape::mapping::Mappings;
use crate::shape::message::Row;
use crate::shape::session::{begin, condition_error, is_same};
use crate::shape::source::Source;
use crate::shape::table::{TableSchema, TenantRows, quote};
use futures_util::TryStreamExt;
use headwater_model::cursor::{Epoch, Lsn, Offset};
use std::collections::HashMap;
use std::pin::pin;
use std::sync::Arc;
use tokio::task::yield_now;
use tokio::time::sleep;
use tokio_postgres::IsolationLevel;

/// Tries to find everything that a snapshot does not see in the ring.
const ATTEMPTS: usize = 5;

/// Row changes fetched from the ring in one go, in bytes, before others get their turn.
const BYTES_PER_READ: usize = 4 << 20;

/// A table as the log tells of it.
#[derive(Debug)]
pub(in crate::shape) struct Relation {
    pub(in crate::shape) table: Arc<TableSchema>,
    /// The OIDs whose changes are its own, ascending.
    pub(in crate::shape) members: Vec<u32>,
    /// The columns of a row's key.
    pub(in crate::shape) key: Vec<usize>,
    pub(in crate::shape) mappings: Mappings,
}

impl Relation {
    pub(in crate::shape) fn new(table: Arc<TableSchema>) -> Self {
        Self { members: table.member_oids(), key: table.row_key(), mappings: Mappings::default(), table }
    }

    /// The key of a row.
    pub(in crate::shape) fn key_of<'a>(&self, row: &[Option<&'a str>]) -> Vec<Option<&'a str>> {
        self.key.iter().map(|at| row[*at]).collect()
    }
}

/// Takes rows.
pub(in crate::shape) trait Sink: Send {
    /// One row; values by their columns' place in the table.
    fn row(&mut self, row: &Row<'_>) -> Result<(), ShapeError>;

    /// Called between rows, where it may wait.
    fn settle(&mut self) -> impl Future<Output = Result<(), ShapeError>> + Send;
}

/// What the rows of a place are, as a snapshot of Postgres.
#[derive(Debug)]
pub(in crate::shape) struct Seen {
    pub(in crate::shape) xmin: u64,
    pub(in crate::shape) xmax: u64,
    pub(in crate::shape) running: Vec<u64>,
}

/// Passes the rows for which `condition` holds at `place` on, `read` of their columns, and no others than are `whose`. `takes` says the same as the
/// condition, of rows that are not in Postgres any more.
pub(in crate::shape) async fn rows_at(
    source: &Source,
    epoch: Epoch,
    relation: &Relation,
    (read, whose, condition): (&[usize], Option<&TenantRows>, &str),
    place: Lsn,
    takes: impl Fn(&Row<'_>) -> bool + Send,
    sink: &mut impl Sink,
) -> Result<Seen, ShapeError> {
    let reach = whose.map_or(Reach::Everything, |rows| Reach::Tenant(rows.tenant().map(Into::into)));
    let _turn = source.turns.turn(&reach).await;
    let mut reader = source.database.get().await?;
    let table = &relation.table;
    for _ in 0..ATTEMPTS {
        let pin = source.log.pin();
        let session = reader.build_transaction().isolation_level(IsolationLevel::RepeatableRead).read_only(true);
        let session = session.start().await?;
        let snapshot = seam::snapshot(&*session).await?;
        begin(&session, table).await?;
        // Now nobody can truncate or rewrite it. It has been the same since the shape was made, hence in the snapshot too.
        let now = source.tables.look(table).await?;
        if !now.is_some_and(|now| is_same(&now, table)) {
            return Err(ShapeError::Refetch(None));
        }
        let marker = source.marker().await?;
        let Some(missed) = seam::missed(&source.log, pin, &snapshot, marker).await? else {
            session.rollback().await?;
            sleep(UNSEEN_PAUSE).await;
            continue;
        };
        let mut undone = since(&source.log, epoch, &relation.members, place, marker).await?;
        undone.retain(|transaction| snapshot.sees(transaction.xid));
        let done: Vec<Arc<Transaction>> = missed.into_iter().filter(|one| one.commit < place).collect();
        let overlay = overlay(relation, &undone, &done).await?;
        let names: Vec<String> = read.iter().map(|at| quote(&table.columns[*at].name)).collect();
        let sql = format!("copy (select {} from {} where {condition}) to stdout", names.join(", "), table.from(whose));
        let rows = session.copy_out(&sql).await.map_err(|error| condition_error(error.into()))?;
        let mut rows = pin!(rows);
        let mut lines = Lines::new(table.columns.len(), read.to_vec());
        while let Some(line) = rows.try_next().await.map_err(|error| condition_error(error.into()))? {
            let mut outcome = Ok(());
            lines.read(&line, |row| {
                if overlay.is_empty() || !overlay.contains_key(&relation.key_of(row)) {
                    outcome = sink.row(row);
                }
            });
            outcome?;
            sink.settle().await?;
        }
        let mut go = Go::begin();
        for row in overlay.values().flatten() {
            if takes(row) {
                sink.row(row)?;
                sink.settle().await?;
            }
            go.pause().await;
        }
        session.commit().await?;
        return Ok(seen(&snapshot, &undone, &done));
    }
    Err(ShapeError::not_begun(1))
}

/// The transactions between two places that changed one of the tables.
async fn since(
    log: &Log,
    epoch: Epoch,
    tables: &[u32],
    from: Lsn,
    to: Lsn,
) -> Result<Vec<Arc<Transaction>>, ShapeError> {
    let (mut all, mut next) = (Vec::new(), from);
    while next < to {
        let (transactions, upto) = part_since(log, epoch, tables, next, to)?;
        all.extend(transactions);
        next = upto;
        yield_now().await;
    }
    Ok(all)
}

/// As many of them as are read in one go, and the place up to which these are all.
pub(in crate::shape) fn part_since(
    log: &Log,
    epoch: Epoch,
    tables: &[u32],
    from: Lsn,
    to: Lsn,
) -> Result<(Vec<Arc<Transaction>>, Lsn), ShapeError> {
    let read = log.rows(epoch, tables, Offset::just_before(from), BYTES_PER_READ);
    let RowsRead::Found { mut transactions, upto, .. } = read else { return Err(ShapeError::Refetch(None)) };
    transactions.retain(|transaction| transaction.commit >= from && transaction.commit < to);
    Ok((transactions, upto.min(to).max(from)))
}

/// By key, what rows are at the place that the snapshot has otherwise: none if there is no such row.
pub(super) type Overlay<'a> = HashMap<Vec<Option<&'a str>>, Option<Vec<Option<&'a str>>>>;

pub(super) async fn overlay<'a>(
    relation: &Relation,
    undone: &'a [Arc<Transaction>],
    done: &'a [Arc<Transaction>],
) -> Result<Overlay<'a>, ShapeError> {
    let (mut overlay, mut go) = (Overlay::new(), Go::begin());
    let undone = undone.iter().rev().map(|transaction| (transaction, true));
    for (transaction, undo) in undone.chain(done.iter().map(|transaction| (transaction, false))) {
        let ours = |table: u32| relation.members.binary_search(&table).is_ok();
        let mut changes: Vec<_> = transaction.rows.after(None).filter(|change| ours(change.table.oid)).collect();
        if undo {
            changes.reverse();
        }
        for change in changes {
            let mapping = relation.mappings.of(change.table, &relation.table);
            let (Some(mapping), false) = (mapping, matches!(change.kind, RowKind::Truncate | RowKind::Untold)) else {
                return Err(ShapeError::Refetch(None));
            };
            let (before, after) = if undo { (change.new, change.old) } else { (change.old, change.new) };
            let mut row = Vec::new();
            if let Some(gone) = before {
                mapping.read(&gone, &mut row);
                overlay.insert(relation.key_of(&row), None);
            }
            if let Some(there) = after {
                mapping.read(&there, &mut row);
                overlay.insert(relation.key_of(&row), Some(row));
            }
            go.pause().await;
        }
    }
    Ok(overlay)
}

fn seen(snapshot: &Snapshot, undone: &[Arc<Transaction>], done: &[Arc<Transaction>]) -> Seen {
    let mut running: Vec<u64> = (snapshot.running().iter().copied())
        .filter(|xid| !done.iter().any(|transaction| snapshot.widen(transaction.xid) == *xid))
        .chain(undone.iter().map(|transaction| snapshot.widen(transaction.xid)))
        .collect();
    running.sort_unstable();
    Seen {
        xmin: running.first().map_or(snapshot.xmin(), |first| snapshot.xmin().min(*first)),
        xmax: snapshot.xmax(),
        running,
    }
}
