//! From a row of the WAL to a row of the shape's table. Pure.

use super::table::TableSchema;
use crate::decode::{Cell, Tuple};
use crate::log::Table;
use std::str;
use std::sync::{Arc, Mutex, PoisonError};

/// Descriptions of a table that are remembered: one per partition, and a few for tables that change.
const REMEMBERED: usize = 64;

/// What a value is replaced with that is no UTF-8, which only a database with another encoding can have.
const UNREADABLE: &str = "\u{fffd}";

/// Where the cells of a table's rows belong.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Mapping {
    /// For each cell, the place in the shape's table.
    places: Vec<Option<usize>>,
    width: usize,
}

impl Mapping {
    /// None if the table, as the WAL describes it, is not the one that the shape was made for: a column went, came, or
    /// has another type.
    pub(super) fn new(table: &Table, known: &TableSchema) -> Option<Self> {
        let mut found = vec![false; known.columns.len()];
        let mut places = Vec::with_capacity(table.columns.len());
        for column in &table.columns {
            let place = known.column(&column.name);
            match place {
                Some(at) => {
                    let expected = &known.columns[at];
                    if (expected.type_oid, expected.type_mod) != (column.type_oid, column.type_mod) {
                        return None;
                    }
                    found[at] = true;
                }
                // An excluded one does not exist for clients. Any other is new.
                None if known.excluded.contains(&column.name) => {}
                None => return None,
            }
            places.push(place);
        }
        let complete = known.columns.iter().zip(&found).all(|(column, found)| *found || column.generated);
        complete.then_some(Self { places, width: known.columns.len() })
    }

    /// The values of a row, by their columns' place in the shape's table.
    pub(super) fn read<'a>(&self, tuple: &Tuple<'a>, row: &mut Vec<Option<&'a str>>) {
        row.clear();
        row.resize(self.width, None);
        for (cell, place) in tuple.cells().zip(&self.places) {
            if let (Cell::Text(text), Some(place)) = (cell, *place) {
                row[place] = Some(str::from_utf8(text).unwrap_or(UNREADABLE));
            }
        }
    }
}

/// Those of one table that were worked out already.
#[derive(Debug, Default)]
pub(super) struct Mappings(Mutex<Vec<(Arc<Table>, Arc<Mapping>)>>);

impl Mappings {
    /// The mapping from rows of `table`, as the WAL describes it, to those of `known`.
    pub(super) fn of(&self, table: &Arc<Table>, known: &TableSchema) -> Option<Arc<Mapping>> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, mapping)) = all.iter().find(|(remembered, _)| Arc::ptr_eq(remembered, table)) {
            return Some(Arc::clone(mapping));
        }
        let mapping = Arc::new(Mapping::new(table, known)?);
        if all.len() >= REMEMBERED {
            all.remove(0);
        }
        all.push((Arc::clone(table), Arc::clone(&mapping)));
        Some(mapping)
    }
}
