//! Which rows may come or go because values of subqueries do: by what changed, and as many as memory may hold.

use super::rows_at::{Relation, Sink};
use super::values::{Value, Values};
use crate::shape::error::ShapeError;
use crate::shape::filter::{Filter, Subquery};
use crate::shape::message::Row;
use crate::shape::table::quote;
use headwater_model::cursor::Lsn;
use std::collections::{BTreeMap, HashSet};

/// Rows that may come or go with values of subqueries are held in memory for as long as a batch of transactions is told;
/// with more than this, clients are better off to start anew.
const MOVING_BYTES: usize = 64 << 20;

/// For which values a subquery may answer otherwise.
#[derive(Debug, Default)]
pub(in crate::shape) struct Changed {
    pub(in crate::shape) values: HashSet<Value>,
    /// For all: NOT IN beside a null is never true.
    everything: bool,
    /// For all values with a null, which may be equal to what came or went.
    with_null: bool,
}

impl Changed {
    pub(super) fn add(&mut self, filter: &Filter, subquery: usize, values: Option<&Values>, from: Lsn, to: Lsn) {
        let negated = filter.dnf().is_some_and(|dnf| dnf.positions_of(subquery).any(|(_, negated)| negated));
        for change in values.into_iter().flat_map(|values| values.changes(from, to)) {
            let width = change.values.first().map_or(0, |(value, _)| value.len());
            self.everything |= negated && change.has_null();
            self.values.extend(change.values.iter().map(|(value, _)| value.clone()));
            // NULL NOT IN () is true; beside a value it is not, nor is (1, NULL) beside (1, 2).
            self.with_null |= negated && (change.emptiness || width > 1);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.values.is_empty() && !self.everything && !self.with_null
    }

    pub(super) fn concerns(&self, subquery: &Subquery, row: &[Option<&str>]) -> bool {
        let value = || -> Value { subquery.columns.iter().map(|at| row[*at].map(str::to_owned)).collect() };
        self.everything
            || (self.with_null && subquery.columns.iter().any(|at| row[*at].is_none()))
            || (!self.values.is_empty() && self.values.contains(&value()))
    }

    /// Rows that it may concern.
    pub(super) fn to_sql(&self, subquery: &Subquery, relation: &Relation) -> Option<String> {
        if self.everything {
            return Some("true".to_owned());
        }
        let mut parts = Vec::new();
        let mut whole = self.values.iter().filter(|value| !value.contains(&None)).map(Vec::as_slice).peekable();
        if whole.peek().is_some() {
            parts.push(subquery.among(&relation.table, whole));
        }
        if self.with_null {
            let columns = subquery.columns.iter().map(|at| &relation.table.columns[*at].name);
            parts.extend(columns.map(|name| format!("{} is null", quote(name))));
        }
        (!parts.is_empty()).then(|| parts.join(" or "))
    }
}

/// Rows that may come or go in a batch of transactions, as they are at the place that was told last.
#[derive(Debug, Default)]
pub(in crate::shape) struct Moving {
    pub(super) changed: Vec<Changed>,
    pub(super) rows: BTreeMap<Value, Value>,
    bytes: usize,
}

impl Moving {
    pub(super) fn is_idle(&self) -> bool {
        self.changed.iter().all(Changed::is_empty)
    }

    pub(super) fn keep(&mut self, key: Value, row: Value) -> Result<(), ShapeError> {
        self.bytes += row.iter().flatten().map(String::len).sum::<usize>() + size_of::<Option<String>>() * row.len();
        if self.bytes > MOVING_BYTES {
            tracing::warn!("more rows than fit into memory come or go with a subquery's values; clients start anew");
            return Err(ShapeError::Refetch(None));
        }
        self.rows.insert(key, row);
        Ok(())
    }
}

/// Keeps rows.
pub(super) struct Keep<'a> {
    pub(super) relation: &'a Relation,
    pub(super) moving: &'a mut Moving,
}

impl Sink for Keep<'_> {
    fn row(&mut self, row: &Row<'_>) -> Result<(), ShapeError> {
        self.moving.keep(owned(&self.relation.key_of(row)), owned(row))
    }

    async fn settle(&mut self) -> Result<(), ShapeError> {
        Ok(())
    }
}

pub(in crate::shape) fn owned(row: &[Option<&str>]) -> Value {
    row.iter().map(|cell| cell.map(str::to_owned)).collect()
}

pub(super) fn borrowed(row: &[Option<String>]) -> Vec<Option<&str>> {
    row.iter().map(Option::as_deref).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_that_move_are_bounded() {
        let mut moving = Moving::default();
        let mut keep = |n: usize| moving.keep(vec![Some(n.to_string())], vec![Some("x".repeat(1 << 20))]);
        let kept = (0..100).take_while(|n| keep(*n).is_ok()).count();
        assert_eq!(kept, 63, "64 MiB with what holds them");
    }
}
