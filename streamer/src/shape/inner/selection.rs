//! Which rows of a table: those for which a filter holds, whatever its subqueries have at the time.

use super::Inner;
use super::moving::{Changed, Keep, Moving};
use super::rows_at::{Relation, Sink, rows_at};
use super::values::Values;
use crate::shape::error::ShapeError;
use crate::shape::filter::{Filter, Members, Subquery};
use crate::shape::message::Row;
use crate::shape::source::Source;
use crate::shape::table::TenantRows;
use headwater_model::cursor::{Epoch, Lsn};
use std::sync::{Arc, PoisonError, RwLockReadGuard};

/// A table, and which of its rows.
#[derive(Debug)]
pub(in crate::shape) struct Selection {
    pub(in crate::shape) relation: Relation,
    pub(in crate::shape) filter: Option<Filter>,
    pub(in crate::shape) tenant: Option<TenantRows>,
    /// What its subqueries have, in the filter's order.
    pub(super) inners: Vec<Arc<Inner>>,
    /// The OIDs of all tables that it depends on, ascending.
    pub(in crate::shape) watched: Vec<u32>,
    /// The columns of rows that are passed on.
    pub(in crate::shape) read: Vec<usize>,
}

/// A row on one side of a transaction.
#[derive(Debug)]
pub(in crate::shape) struct Side<'a> {
    pub(in crate::shape) row: &'a Row<'a>,
    /// Whether each subquery has its value.
    pub(in crate::shape) atoms: Vec<Option<bool>>,
    /// Whether it is in.
    pub(in crate::shape) is_in: bool,
}

/// What a transaction does to a row.
#[derive(Debug)]
pub(in crate::shape) enum Step<'a> {
    /// The row was changed.
    Changed { op: u64, before: Option<Side<'a>>, after: Option<Side<'a>> },
    /// The row is what it was, but the values of subqueries are not.
    Moved { before: Side<'a>, after: Side<'a> },
}

/// What subqueries have; nobody changes it meanwhile.
pub(in crate::shape) struct Sets<'s> {
    locked: Vec<RwLockReadGuard<'s, Option<Values>>>,
    /// For each subquery of a filter, which of `locked` has its values.
    places: Vec<usize>,
}

/// What they have at a place.
struct At<'s> {
    sets: &'s Sets<'s>,
    place: Lsn,
}

impl Members for At<'_> {
    fn contains(&self, subquery: usize, value: &[Option<&str>]) -> Option<bool> {
        self.sets.contains(subquery, value, self.place)
    }
}

impl Sets<'_> {
    pub(in crate::shape) fn contains(&self, subquery: usize, value: &[Option<&str>], place: Lsn) -> Option<bool> {
        self.of(subquery)?.contains(value, place)
    }

    fn of(&self, subquery: usize) -> Option<&Values> {
        self.locked.get(*self.places.get(subquery)?)?.as_ref()
    }

    /// The values of a subquery for which it may answer otherwise behind the transaction with this commit.
    pub(in crate::shape) fn changed(&self, filter: &Filter, subquery: usize, commit: Lsn) -> Changed {
        let mut changed = Changed::default();
        changed.add(filter, subquery, self.of(subquery), commit, Lsn(commit.0 + 1));
        changed
    }
}

impl Selection {
    /// `read`: the columns that whoever asks wants besides those that are needed anyway.
    pub(in crate::shape) fn new(
        relation: Relation,
        filter: Option<Filter>,
        tenant: Option<TenantRows>,
        inners: Vec<Arc<Inner>>,
        read: &[usize],
    ) -> Self {
        let mut watched: Vec<u32> =
            inners.iter().flat_map(|inner| inner.watched().to_vec()).chain(relation.members.clone()).collect();
        watched.sort_unstable();
        watched.dedup();
        let mut read: Vec<usize> = (read.iter().copied())
            .chain(relation.key.iter().copied())
            .chain(filter.iter().flat_map(Filter::columns))
            .chain(tenant.iter().map(TenantRows::column))
            .filter(|at| !relation.table.columns[*at].generated)
            .collect();
        read.sort_unstable();
        read.dedup();
        Self { relation, filter, tenant, inners, watched, read }
    }

    /// Has what subqueries have ready between two places.
    pub(in crate::shape) async fn reach(
        &self,
        source: &Source,
        epoch: Epoch,
        from: Lsn,
        to: Lsn,
    ) -> Result<(), ShapeError> {
        for inner in &self.inners {
            inner.reach(source, epoch, from, to).await?;
        }
        Ok(())
    }

    /// What subqueries have between two places that were reached.
    pub(in crate::shape) fn sets(&self, from: Lsn, to: Lsn) -> Result<Sets<'_>, ShapeError> {
        // In one order everywhere, and each once: a writer that waits holds up readers that come after it.
        let mut order: Vec<&Arc<Inner>> = self.inners.iter().collect();
        order.sort_unstable_by_key(|inner| Arc::as_ptr(inner));
        order.dedup_by_key(|inner| Arc::as_ptr(inner));
        let places = self.inners.iter().map(|inner| order.partition_point(|one| Arc::as_ptr(one) < Arc::as_ptr(inner)));
        let places: Vec<usize> = places.collect();
        let locked: Vec<_> =
            order.into_iter().map(|inner| inner.values().read().unwrap_or_else(PoisonError::into_inner)).collect();
        let covers = |values: &Values| values.from() <= from && values.upto() >= to;
        if locked.iter().all(|values| values.as_ref().is_some_and(covers)) {
            Ok(Sets { locked, places })
        } else {
            // Somebody else needed an earlier place meanwhile, or memory ran out.
            Err(ShapeError::not_begun(1))
        }
    }

    pub(super) fn side<'a>(&self, row: &'a Row<'a>, sets: &Sets<'_>, place: Lsn) -> Side<'a> {
        let Some(filter) = &self.filter else {
            return Side { row, atoms: Vec::new(), is_in: self.is_own(row) };
        };
        let atoms = filter.atoms(row, &At { sets, place });
        let is_in = self.is_own(row) && filter.matches_atoms(row, &atoms) == Some(true);
        Side { row, atoms, is_in }
    }

    fn is_own(&self, row: &Row<'_>) -> bool {
        self.tenant.as_ref().is_none_or(|rows| rows.takes(row))
    }

    fn subqueries(&self) -> impl Iterator<Item = &Subquery> {
        self.filter.iter().flat_map(Filter::subqueries)
    }

    /// The rows at a place that was reached.
    pub(in crate::shape) async fn rows(
        &self,
        source: &Source,
        epoch: Epoch,
        place: Lsn,
        sink: &mut impl Told,
    ) -> Result<super::rows_at::Seen, ShapeError> {
        let table = &self.relation.table;
        let condition = match &self.filter {
            None => "true".to_owned(),
            Some(filter) => {
                let sets = self.sets(place, place)?;
                let atoms: Vec<String> = (filter.subqueries().iter().enumerate())
                    .map(|(at, subquery)| {
                        let values = sets.of(at).into_iter().flat_map(|values| values.at(place));
                        subquery.among(table, values.map(Vec::as_slice))
                    })
                    .collect();
                filter.to_sql_with(table, &atoms)
            }
        };
        let whose = self.tenant.as_ref();
        let takes = |row: &Row<'_>| self.sets(place, place).is_ok_and(|sets| self.side(row, &sets, place).is_in);
        let mut judge = Judge { selection: self, place, sink };
        rows_at(source, epoch, &self.relation, (&self.read, whose, &condition), place, takes, &mut judge).await
    }

    /// The rows that may come or go between two places that were reached, because values of subqueries do.
    pub(in crate::shape) async fn moving(
        &self,
        source: &Source,
        epoch: Epoch,
        from: Lsn,
        to: Lsn,
    ) -> Result<Moving, ShapeError> {
        let mut moving = Moving::default();
        let Some(filter) = self.filter.as_ref().filter(|_| !self.inners.is_empty()) else { return Ok(moving) };
        {
            let sets = self.sets(from, to)?;
            for at in 0..self.inners.len() {
                let mut changed = Changed::default();
                changed.add(filter, at, sets.of(at), from, to);
                moving.changed.push(changed);
            }
        }
        let parts: Vec<String> = (self.subqueries().zip(&moving.changed))
            .filter_map(|(subquery, changed)| changed.to_sql(subquery, &self.relation))
            .collect();
        if parts.is_empty() {
            return Ok(moving);
        }
        let possible = filter.to_sql_without_subqueries(&self.relation.table);
        let condition = format!("({}) and ({possible})", parts.join(" or "));
        let changed = std::mem::take(&mut moving.changed);
        let concerned = |row: &Row<'_>| self.is_own(row) && self.concerns(&changed, row);
        let whose = self.tenant.as_ref();
        let mut keep = Keep { relation: &self.relation, moving: &mut moving };
        rows_at(source, epoch, &self.relation, (&self.read, whose, &condition), from, concerned, &mut keep).await?;
        moving.changed = changed;
        Ok(moving)
    }

    pub(super) fn concerns(&self, changed: &[Changed], row: &Row<'_>) -> bool {
        self.subqueries().zip(changed).any(|(subquery, changed)| changed.concerns(subquery, row))
    }
}

/// Takes rows that were judged.
pub(in crate::shape) trait Told: Send {
    /// One row.
    fn told(&mut self, side: &Side<'_>) -> Result<(), ShapeError>;

    /// Called between rows, where it may wait.
    fn settle(&mut self) -> impl Future<Output = Result<(), ShapeError>> + Send;
}

struct Judge<'a, T> {
    selection: &'a Selection,
    place: Lsn,
    sink: &'a mut T,
}

impl<T: Told> Sink for Judge<'_, T> {
    fn row(&mut self, row: &Row<'_>) -> Result<(), ShapeError> {
        let sets = self.selection.sets(self.place, self.place)?;
        self.sink.told(&self.selection.side(row, &sets, self.place))
    }

    fn settle(&mut self) -> impl Future<Output = Result<(), ShapeError>> + Send {
        self.sink.settle()
    }
}
