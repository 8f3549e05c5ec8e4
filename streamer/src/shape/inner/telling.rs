//! A transaction, told row by row: which rows it brings into a selection or takes out, by changing them or by changing what
//! subqueries have.

use super::Go;
use super::moving::{Changed, Moving, borrowed, owned};
use super::selection::{Selection, Step};
use super::values::Value;
use crate::log::{RowChange, RowKind, Transaction};
use crate::shape::error::ShapeError;
use headwater_model::cursor::Lsn;
use std::collections::HashSet;

/// Rows that are judged, some milliseconds at most, before it is looked whether others should get their turn.
const ROWS_PER_GO: usize = 256;

impl Selection {
    /// Tells a transaction step by step. `moving` is of a batch that it is part of, and of the place before it. Others get
    /// their turn in between, however many rows it changes.
    pub(in crate::shape) async fn tell(
        &self,
        transaction: &Transaction,
        moving: &mut Moving,
        go: &mut Go,
        mut take: impl FnMut(Step<'_>),
    ) -> Result<(), ShapeError> {
        let mut telling = Telling::new(self, transaction.commit)?;
        let mut changes = transaction.rows.after(None).peekable();
        while changes.peek().is_some() {
            telling.changes(changes.by_ref().take(ROWS_PER_GO), moving, &mut take)?;
            go.pause().await;
        }
        if telling.still {
            return Ok(());
        }
        let mut rows = moving.rows.iter().peekable();
        while rows.peek().is_some() {
            telling.moves(rows.by_ref().take(ROWS_PER_GO), &mut take)?;
            go.pause().await;
        }
        Ok(())
    }
}

/// A transaction that is being told.
struct Telling<'a> {
    selection: &'a Selection,
    /// Its places.
    before: Lsn,
    after: Lsn,
    /// By subquery.
    changed: Vec<Changed>,
    /// Whether no subquery answers otherwise behind it.
    still: bool,
    /// Rows that it has changed already: they are judged by what subqueries have behind it.
    touched: HashSet<Value>,
}

impl<'a> Telling<'a> {
    fn new(selection: &'a Selection, commit: Lsn) -> Result<Self, ShapeError> {
        let (before, after) = (commit, Lsn(commit.0 + 1));
        let sets = selection.sets(before, after)?;
        let changed: Vec<Changed> = match &selection.filter {
            Some(filter) => (0..selection.inners.len()).map(|at| sets.changed(filter, at, before)).collect(),
            None => Vec::new(),
        };
        let still = changed.iter().all(Changed::is_empty);
        Ok(Self { selection, before, after, changed, still, touched: HashSet::new() })
    }

    /// Some of its changes.
    fn changes<'t>(
        &mut self,
        changes: impl Iterator<Item = RowChange<'t>>,
        moving: &mut Moving,
        take: &mut impl FnMut(Step<'_>),
    ) -> Result<(), ShapeError> {
        let relation = &self.selection.relation;
        let sets = self.selection.sets(self.before, self.after)?;
        let (mut old_row, mut new_row) = (Vec::new(), Vec::new());
        for change in changes {
            if relation.members.binary_search(&change.table.oid).is_err() {
                continue;
            }
            let mapping = relation.mappings.of(change.table, &relation.table);
            let (Some(mapping), false) = (mapping, matches!(change.kind, RowKind::Truncate | RowKind::Untold)) else {
                return Err(ShapeError::Refetch(None));
            };
            let (mut old, mut new) = (None, None);
            if let Some(tuple) = change.old {
                mapping.read(&tuple, &mut old_row);
                let key = owned(&relation.key_of(&old_row));
                let place = if self.still || self.touched.contains(&key) { self.after } else { self.before };
                old = Some(self.selection.side(&old_row, &sets, place));
                moving.rows.remove(&key);
                if !self.still {
                    self.touched.insert(key);
                }
            }
            if let Some(tuple) = change.new {
                mapping.read(&tuple, &mut new_row);
                new = Some(self.selection.side(&new_row, &sets, self.after));
                if !moving.is_idle() {
                    let key = owned(&relation.key_of(&new_row));
                    if self.selection.concerns(&moving.changed, &new_row) {
                        moving.keep(key.clone(), owned(&new_row))?;
                    }
                    self.touched.insert(key);
                }
            }
            take(Step::Changed { op: change.op, before: old, after: new });
        }
        Ok(())
    }

    /// Some of the rows that it did not change, but that may come or go with it.
    fn moves<'t>(
        &self,
        rows: impl Iterator<Item = (&'t Value, &'t Value)>,
        take: &mut impl FnMut(Step<'_>),
    ) -> Result<(), ShapeError> {
        let sets = self.selection.sets(self.before, self.after)?;
        for (key, row) in rows {
            let row = borrowed(row);
            if self.touched.contains(key) || !self.selection.concerns(&self.changed, &row) {
                continue;
            }
            let side = |place| self.selection.side(&row, &sets, place);
            take(Step::Moved { before: side(self.before), after: side(self.after) });
        }
        Ok(())
    }
}
