//! The index from changes to shapes: by table, then by the value of a column, or by the elements of its array. A change costs a look-up per indexed column,
//! however many shapes there are; only shapes that no column tells apart are all concerned by every change of their table.

use super::definition::{Definition, Route};
use super::filter::elements;
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

/// The shapes that have one text in their route: mostly one.
#[derive(Debug)]
enum Found {
    One(Arc<Shape>),
    Many(Box<Shapes>),
}

impl Found {
    fn add(&mut self, shape: &Arc<Shape>) {
        if let Self::One(one) = self {
            *self = Self::Many(Box::new(HashMap::from([(id(one), Arc::clone(one))])));
        }
        if let Self::Many(many) = self {
            many.insert(id(shape), Arc::clone(shape));
        }
    }

    /// Whether none is left.
    fn remove(&mut self, shape: &Arc<Shape>) -> bool {
        match self {
            Self::One(one) => Arc::ptr_eq(one, shape),
            Self::Many(many) => {
                many.remove(&id(shape));
                many.is_empty()
            }
        }
    }

    fn each<'a>(&'a self, take: &mut impl FnMut(&'a Arc<Shape>)) {
        match self {
            Self::One(one) => take(one),
            Self::Many(many) => many.values().for_each(take),
        }
    }
}

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
    /// By a column, then by its value's text, or by the text of an element of its array.
    columns: HashMap<Column, Texts>,
}

type Texts = HashMap<Box<str>, Found>;

/// A column that shapes are told apart by.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Column {
    name: String,
    /// Whether by the elements of its arrays.
    elements: bool,
}

impl Routes {
    pub(super) fn add(&mut self, shape: &Arc<Shape>) {
        let definition = shape.definition();
        let route = definition.route();
        for member in &definition.layout.watched {
            let routes = self.tables.entry(*member).or_default();
            // A subquery may read the shape's own table, with another condition.
            let route = route.as_ref().filter(|_| !definition.is_inner(*member));
            routes.all.insert(id(shape), Arc::clone(shape));
            let Some(route) = route else {
                routes.unindexed.insert(id(shape), Arc::clone(shape));
                continue;
            };
            let texts = routes.columns.entry(Column::of(route, definition)).or_default();
            for text in &route.texts {
                match texts.get_mut(*text) {
                    Some(found) => found.add(shape),
                    None => drop(texts.insert((*text).into(), Found::One(Arc::clone(shape)))),
                }
            }
        }
    }

    pub(super) fn remove(&mut self, shape: &Arc<Shape>) {
        let definition = shape.definition();
        let route = definition.route();
        for member in &definition.layout.watched {
            let Some(routes) = self.tables.get_mut(member) else { continue };
            let route = route.as_ref().filter(|_| !definition.is_inner(*member));
            routes.all.remove(&id(shape));
            routes.unindexed.remove(&id(shape));
            if let Some(route) = route {
                let column = Column::of(route, definition);
                if let Some(texts) = routes.columns.get_mut(&column) {
                    for text in &route.texts {
                        if texts.get_mut(*text).is_some_and(|found| found.remove(shape)) {
                            texts.remove(*text);
                        }
                    }
                    if texts.is_empty() {
                        routes.columns.remove(&column);
                    }
                }
            }
            if routes.all.is_empty() {
                self.tables.remove(member);
            }
        }
    }

    /// Whether there is no shape.
    pub(super) fn is_empty(&self) -> bool {
        self.tables.is_empty()
    }

    /// Every shape once.
    pub(super) fn each<'a>(&'a self, mut take: impl FnMut(&'a Arc<Shape>)) {
        for (table, routes) in &self.tables {
            // It stands under all the tables that it watches.
            let is_first = |shape: &&Arc<Shape>| shape.definition().layout.watched.first() == Some(table);
            routes.all.values().filter(is_first).for_each(&mut take);
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

impl Column {
    fn of(route: &Route<'_>, definition: &Definition) -> Self {
        Self { name: definition.layout.table.columns[route.column].name.clone(), elements: route.elements }
    }
}

/// A column's index, and where the column stands in rows of the WAL; none if it is not there any more.
struct Index<'a> {
    place: Option<usize>,
    elements: bool,
    texts: &'a Texts,
}

impl TableRoutes {
    fn indexes<'a>(&'a self, table: &Table) -> Vec<Index<'a>> {
        let place = |name: &String| table.columns.iter().position(|column| column.name == *name);
        let index = |(column, texts): (&Column, &'a Texts)| Index {
            place: place(&column.name),
            elements: column.elements,
            texts,
        };
        self.columns.iter().map(|(column, texts)| index((column, texts))).collect()
    }
}

fn look_up<'a>(change: &RowChange<'_>, indexes: &[Index<'a>], take: &mut impl FnMut(&'a Arc<Shape>)) {
    if matches!(change.kind, RowKind::Truncate | RowKind::Untold) {
        return; // told to all already
    }
    for index in indexes {
        let Some(place) = index.place else {
            // The shape's own reader finds out that its column is gone.
            index.texts.values().for_each(|found| found.each(take));
            continue;
        };
        let (old, new) = (change.old.and_then(|row| text(&row, place)), change.new.and_then(|row| text(&row, place)));
        for value in [old, new.filter(|new| old != Some(*new))].into_iter().flatten() {
            if !index.elements {
                if let Some(found) = index.texts.get(value) {
                    found.each(take);
                }
                continue;
            }
            match elements(value) {
                Some(elements) => {
                    let distinct: HashSet<&str> = elements.iter().map(AsRef::as_ref).collect();
                    distinct.iter().filter_map(|text| index.texts.get(*text)).for_each(|found| found.each(take));
                }
                // Judged by whoever evaluates the condition.
                None => index.texts.values().for_each(|found| found.each(take)),
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
