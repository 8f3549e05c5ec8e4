//! From a row of the WAL to a row of the shape's table. Pure.

use super::definition::Definition;
use crate::decode::{Cell, Tuple};
use crate::log::Table;
use std::str;

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
    /// None if the table, as the WAL describes it, is not the one that the shape was made for: a column that the shape
    /// uses went, came, or has another type.
    pub(super) fn new(table: &Table, definition: &Definition) -> Option<Self> {
        let known = &definition.table;
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
