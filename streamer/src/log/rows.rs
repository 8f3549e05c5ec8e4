//! The row changes of one transaction, kept as they came over the wire: for shapes, each of which selects and renders
//! what it needs.

use super::transaction::Touched;
use crate::decode::{OldRow, Relation, Tuple};
use std::collections::HashMap;
use std::sync::Arc;

/// A scratch buffer that a large transaction blew up is given back when it is over.
const SCRATCH_BYTES: usize = 1 << 20;

/// A table as the WAL described it at one time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// OID. A partition's own, not its root's.
    pub oid: u32,
    /// The columns, in the order of a row's cells.
    pub columns: Vec<TableColumn>,
}

/// A column of a [`Table`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableColumn {
    /// Name.
    pub name: String,
    /// OID of its type.
    pub type_oid: u32,
    /// Type modifier, -1 for none.
    pub type_mod: i32,
}

/// What happened to a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowKind {
    /// It is new.
    Insert,
    /// It is different.
    Update,
    /// It is gone.
    Delete,
    /// All rows of the table are gone.
    Truncate,
    /// It is different or gone, but the WAL does not tell from what: the table lacks REPLICA IDENTITY FULL.
    Untold,
}

/// One change.
#[derive(Clone, Copy, Debug)]
pub struct RowChange<'a> {
    /// Second part of its offset.
    pub op: u64,
    /// What happened.
    pub kind: RowKind,
    /// To a row of this table.
    pub table: &'a Arc<Table>,
    /// The row before, of an update or a delete.
    pub old: Option<Tuple<'a>>,
    /// The row after, of an insert or an update.
    pub new: Option<Tuple<'a>>,
}

/// The row changes of one transaction, in the order in which they were made.
#[derive(Debug, Default)]
pub struct Rows {
    tables: Box<[Arc<Table>]>,
    changes: Box<[Kept]>,
    cells: Box<[u8]>,
}

/// The old row's cells end where the new row's begin.
#[derive(Clone, Copy, Debug)]
struct Kept {
    op: u64,
    table: u32,
    kind: RowKind,
    start: usize,
    split: usize,
    end: usize,
}

impl Rows {
    /// Roughly how much memory they take.
    pub fn bytes(&self) -> usize {
        self.cells.len() + size_of_val(&*self.changes) + size_of_val(&*self.tables)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// Those behind `op`, or all of them.
    pub fn after(&self, op: Option<u64>) -> impl Iterator<Item = RowChange<'_>> {
        let from = op.map_or(0, |op| self.changes.partition_point(|change| change.op <= op));
        self.changes[from..].iter().map(|change| {
            let table = &self.tables[change.table as usize];
            let tuple = |from: usize, to: usize| Tuple::kept(table.columns.len(), &self.cells[from..to]);
            let has_old = matches!(change.kind, RowKind::Update | RowKind::Delete);
            let has_new = matches!(change.kind, RowKind::Update | RowKind::Insert);
            RowChange {
                op: change.op,
                kind: change.kind,
                table,
                old: has_old.then(|| tuple(change.start, change.split)),
                new: has_new.then(|| tuple(change.split, change.end)),
            }
        })
    }
}

/// Collects the row changes of the transaction that is being read.
#[derive(Debug, Default)]
pub(super) struct Collector {
    /// By OID.
    known: HashMap<u32, Arc<Table>>,
    tables: Vec<Arc<Table>>,
    changes: Vec<Kept>,
    cells: Vec<u8>,
    touched: Vec<Touched>,
    described: bool,
}

impl Collector {
    /// A table is described: before its first change, and whenever it is different.
    pub(super) fn learn(&mut self, relation: &Relation<'_>) {
        let column = |column: &crate::decode::RelationColumn<'_>| TableColumn {
            name: column.name.to_owned(),
            type_oid: column.type_oid,
            type_mod: column.type_mod,
        };
        let table = Table { oid: relation.oid, columns: relation.columns.iter().map(column).collect() };
        self.described = true;
        // The same value for the same description: what shapes have worked out for it stays good.
        if self.known.get(&relation.oid).is_none_or(|known| **known != table) {
            self.known.insert(relation.oid, Arc::new(table));
        }
    }

    pub(super) fn forget(&mut self, relation: u32) {
        self.known.remove(&relation);
    }

    /// Whether changes of this table are kept.
    pub(super) fn knows(&self, relation: u32) -> bool {
        self.known.contains_key(&relation)
    }

    pub(super) fn bytes(&self) -> usize {
        self.cells.len() + size_of_val(self.changes.as_slice())
    }

    /// From here on only which tables are touched is remembered.
    pub(super) fn give_up(&mut self) {
        self.tables.clear();
        self.changes.clear();
        self.cells = Vec::new();
    }

    pub(super) fn insert(&mut self, relation: u32, op: u64, new: &Tuple<'_>) {
        let start = self.cells.len();
        self.cells.extend_from_slice(new.bytes());
        self.keep(relation, op, RowKind::Insert, start, start);
    }

    pub(super) fn update(&mut self, relation: u32, op: u64, old: Option<&OldRow<'_>>, new: &Tuple<'_>) {
        let start = self.cells.len();
        let Some(OldRow::Full(old)) = old else { return self.keep(relation, op, RowKind::Untold, start, start) };
        self.cells.extend_from_slice(old.bytes());
        let split = self.cells.len();
        if new.is_partial() {
            new.write_whole(old, &mut self.cells);
        } else {
            self.cells.extend_from_slice(new.bytes());
        }
        self.keep(relation, op, RowKind::Update, start, split);
    }

    pub(super) fn delete(&mut self, relation: u32, op: u64, old: &OldRow<'_>) {
        let start = self.cells.len();
        let OldRow::Full(old) = old else { return self.keep(relation, op, RowKind::Untold, start, start) };
        self.cells.extend_from_slice(old.bytes());
        self.keep(relation, op, RowKind::Delete, start, self.cells.len());
    }

    pub(super) fn truncate(&mut self, relation: u32, op: u64) {
        let at = self.cells.len();
        self.keep(relation, op, RowKind::Truncate, at, at);
    }

    /// Only that something happened to the table, for a transaction that is too large to be kept.
    pub(super) fn touch(&mut self, table: u32, last: u64, broken: bool) {
        let known = match self.touched.last_mut() {
            Some(newest) if newest.table == table => Some(newest),
            _ => self.touched.iter_mut().find(|known| known.table == table),
        };
        match known {
            Some(known) => *known = Touched { table, last, broken: known.broken || broken },
            None => self.touched.push(Touched { table, last, broken }),
        }
    }

    fn keep(&mut self, relation: u32, op: u64, kind: RowKind, start: usize, split: usize) {
        let Some(table) = self.known.get(&relation) else { return };
        let last = self.tables.last().is_some_and(|last| Arc::ptr_eq(last, table));
        let place = if last {
            Some(self.tables.len() - 1)
        } else {
            self.tables.iter().position(|known| Arc::ptr_eq(known, table))
        };
        let place = place.unwrap_or_else(|| {
            self.tables.push(Arc::clone(table));
            self.tables.len() - 1
        });
        // There are no more tables than OIDs.
        let table = u32::try_from(place).unwrap_or(u32::MAX);
        self.changes.push(Kept { op, table, kind, start, split, end: self.cells.len() });
        self.touch(relation, op, matches!(kind, RowKind::Truncate | RowKind::Untold));
    }

    /// The transaction begins.
    pub(super) fn clear(&mut self) {
        self.give_up_scratch();
        self.tables.clear();
        self.changes.clear();
        self.cells.clear();
        self.touched.clear();
    }

    fn give_up_scratch(&mut self) {
        if self.cells.capacity() > SCRATCH_BYTES {
            self.cells = Vec::new();
        }
        if self.changes.capacity() * size_of::<Kept>() > SCRATCH_BYTES {
            self.changes = Vec::new();
        }
    }

    /// What was collected: the rows, the tables touched, and whether a table was described since the last call.
    pub(super) fn take(&mut self) -> (Rows, Box<[Touched]>, bool) {
        let rows = Rows {
            tables: self.tables.as_slice().into(),
            changes: self.changes.as_slice().into(),
            cells: self.cells.as_slice().into(),
        };
        let touched = self.touched.as_slice().into();
        let described = std::mem::take(&mut self.described);
        self.clear();
        (rows, touched, described)
    }
}
