//! What shapes of one table have in common, whatever rows they want: the table, the columns, and how messages name them. Shapes
//! that say the same of them share one, so that very many small shapes of a table cost little more than their conditions.

use super::mapping::Mappings;
use super::message::Template;
use super::table::TableSchema;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// Layouts that are gone are swept out when there are this many more entries than the last sweep left.
const SWEEP: usize = 64;

/// A table, and which of its columns.
#[derive(Debug)]
pub(super) struct Layout {
    pub(super) table: Arc<TableSchema>,
    /// The OIDs whose changes count, ascending.
    pub(super) members: Box<[u32]>,
    /// The tables that subqueries read, each once.
    pub(super) inner: Box<[Arc<TableSchema>]>,
    /// `members`, and those of `inner`, ascending.
    pub(super) watched: Box<[u32]>,
    /// The columns that clients get, by their place in the table.
    pub(super) selected: Box<[usize]>,
    /// The columns that make up a row's key: the primary key, or all.
    pub(super) key: Box<[usize]>,
    /// Whether `key` is the primary key.
    pub(super) has_primary_key: bool,
    /// Columns that subsets may be chosen and ordered by; all, if none.
    pub(super) queryable: Option<Box<[usize]>>,
    /// What is the same in all messages.
    pub(super) template: Template,
    pub(super) mappings: Mappings,
}

impl Layout {
    fn new(
        table: Arc<TableSchema>,
        inner: &[Arc<TableSchema>],
        selected: Vec<usize>,
        queryable: Option<Vec<usize>>,
    ) -> Self {
        let members = table.member_oids();
        let mut watched: Vec<u32> = inner.iter().flat_map(|table| table.member_oids()).chain(members.clone()).collect();
        watched.sort_unstable();
        watched.dedup();
        Self {
            members: members.into(),
            inner: inner.into(),
            watched: watched.into(),
            selected: selected.into(),
            key: table.row_key().into(),
            has_primary_key: !table.primary_key().is_empty(),
            queryable: queryable.map(Into::into),
            template: Template::new(&table),
            mappings: Mappings::default(),
            table,
        }
    }

    /// Its table, and those of subqueries.
    pub(super) fn tables(&self) -> impl Iterator<Item = &Arc<TableSchema>> {
        std::iter::once(&self.table).chain(&self.inner)
    }
}

/// Those that some shape has.
#[derive(Debug, Default)]
pub(super) struct Layouts(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    layouts: HashMap<Key, Weak<Layout>>,
    /// How many the last sweep left.
    swept: usize,
}

/// Tables by their addresses: a layout that is still there keeps its tables where they are.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Key {
    table: usize,
    inner: Vec<usize>,
    selected: Vec<usize>,
    queryable: Option<Vec<usize>>,
}

fn address(table: &Arc<TableSchema>) -> usize {
    Arc::as_ptr(table) as usize
}

impl Layouts {
    /// The layout of these columns of a table; `inner` are the tables that subqueries read.
    pub(super) fn of(
        &self,
        table: &Arc<TableSchema>,
        inner: &[Arc<TableSchema>],
        selected: Vec<usize>,
        queryable: Option<Vec<usize>>,
    ) -> Arc<Layout> {
        let inners = inner.iter().map(address).collect();
        let key =
            Key { table: address(table), inner: inners, selected: selected.clone(), queryable: queryable.clone() };
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(layout) = known.layouts.get(&key).and_then(Weak::upgrade) {
            return layout;
        }
        let layout = Arc::new(Layout::new(Arc::clone(table), inner, selected, queryable));
        known.layouts.insert(key, Arc::downgrade(&layout));
        if known.layouts.len() > known.swept + SWEEP {
            known.layouts.retain(|_, layout| layout.strong_count() > 0);
            known.swept = known.layouts.len();
        }
        layout
    }
}
