//! The index from changes to shapes: by table, then by the value of a column. A change costs a look-up per indexed column,
//! however many shapes there are; only shapes that no column tells apart are all concerned by every change of their table.

use super::live::Shape;
use crate::decode::{Cell, Tuple};
use crate::log::{RowChange, RowKind, Table, Transaction};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// A shape's address: the same shape is the same allocation.
type Id = usize;

fn id(shape: &Arc<Shape>) -> Id {
    Arc::as_ptr(shape) as Id
}

type Shapes = HashMap<Id, Arc<Shape>>;

/// All routes.
#[derive(Debug, Default)]
pub(super) struct Routes {
    /// By OID, of partitions too.
    tables: HashMap<u32, TableRoutes>,
}

#[derive(Debug, Default)]
struct TableRoutes {
    all: Shapes,
    /// Those that every change concerns, as far as can be told.
    unindexed: Shapes,
    /// By the name of a column, then by its value's text.
    columns: HashMap<String, HashMap<String, Shapes>>,
}

impl Routes {
    pub(super) fn add(&mut self, shape: &Arc<Shape>) {
        let definition = shape.definition();
        let route = definition.route();
        for member in &definition.watched {
            let routes = self.tables.entry(*member).or_default();
            // A subquery may read the shape's own table, with another condition.
            let route = route.as_ref().filter(|_| !definition.is_inner(*member));
            routes.all.insert(id(shape), Arc::clone(shape));
            let Some((column, values)) = route else {
                routes.unindexed.insert(id(shape), Arc::clone(shape));
                continue;
            };
            let column = routes.columns.entry(definition.table.columns[*column].name.clone()).or_default();
            for value in values {
                column.entry((*value).to_owned()).or_default().insert(id(shape), Arc::clone(shape));
            }
        }
    }

    pub(super) fn remove(&mut self, shape: &Arc<Shape>) {
        let definition = shape.definition();
        let route = definition.route();
        for member in &definition.watched {
            let Some(routes) = self.tables.get_mut(member) else { continue };
            let route = route.as_ref().filter(|_| !definition.is_inner(*member));
            routes.all.remove(&id(shape));
            routes.unindexed.remove(&id(shape));
            if let Some((column, values)) = route {
                let name = &definition.table.columns[*column].name;
                if let Some(column) = routes.columns.get_mut(name) {
                    for value in values {
                        if let Some(shapes) = column.get_mut(*value) {
                            shapes.remove(&id(shape));
                            if shapes.is_empty() {
                                column.remove(*value);
                            }
                        }
                    }
                    if column.is_empty() {
                        routes.columns.remove(name);
                    }
                }
            }
            if routes.all.is_empty() {
                self.tables.remove(member);
            }
        }
    }

    /// Every shape once.
    pub(super) fn each(&self, mut take: impl FnMut(&Arc<Shape>)) {
        let mut seen = HashSet::new();
        for (id, shape) in self.tables.values().flat_map(|routes| &routes.all) {
            if seen.insert(*id) {
                take(shape);
            }
        }
    }

    /// The shapes that a transaction may concern; some of them more than once.
    pub(super) fn concerned<'a>(&'a self, transaction: &Transaction, take: &mut impl FnMut(&'a Arc<Shape>)) {
        let mut indexed = false;
        for touched in &transaction.touched {
            let Some(routes) = self.tables.get(&touched.table) else { continue };
            // What is not told by rows is told to all.
            if touched.broken || transaction.oversize {
                routes.all.values().for_each(&mut *take);
            } else {
                routes.unindexed.values().for_each(&mut *take);
                indexed |= !routes.columns.is_empty();
            }
        }
        if !indexed {
            return;
        }
        let mut last: Option<(&Arc<Table>, Option<Vec<Index<'a>>>)> = None;
        for change in transaction.rows.after(None) {
            if !last.as_ref().is_some_and(|(table, _)| Arc::ptr_eq(table, change.table)) {
                let found = self.tables.get(&change.table.oid).map(|routes| routes.indexes(change.table));
                last = Some((change.table, found));
            }
            if let Some((_, Some(indexes))) = &last {
                look_up(&change, indexes, take);
            }
        }
    }
}

/// A column's index, and where the column stands in rows of the WAL; none if it is not there any more.
type Index<'a> = (Option<usize>, &'a HashMap<String, Shapes>);

impl TableRoutes {
    fn indexes<'a>(&'a self, table: &Table) -> Vec<Index<'a>> {
        let place = |name: &String| table.columns.iter().position(|column| column.name == *name);
        self.columns.iter().map(|(name, values)| (place(name), values)).collect()
    }
}

fn look_up<'a>(change: &RowChange<'_>, indexes: &[Index<'a>], take: &mut impl FnMut(&'a Arc<Shape>)) {
    if matches!(change.kind, RowKind::Truncate | RowKind::Untold) {
        return; // told to all already
    }
    for (place, values) in indexes {
        let Some(place) = place else {
            // The shape's own reader finds out that its column is gone.
            values.values().flat_map(HashMap::values).for_each(&mut *take);
            continue;
        };
        let (old, new) = (change.old.and_then(|row| text(&row, *place)), change.new.and_then(|row| text(&row, *place)));
        for value in [old, new.filter(|new| old != Some(*new))].into_iter().flatten() {
            if let Some(shapes) = values.get(value) {
                shapes.values().for_each(&mut *take);
            }
        }
    }
}

fn text<'a>(row: &Tuple<'a>, place: usize) -> Option<&'a str> {
    match row.cells().nth(place)? {
        Cell::Text(text) => std::str::from_utf8(text).ok(),
        _ => None,
    }
}
