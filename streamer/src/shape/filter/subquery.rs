//! `columns IN (SELECT columns FROM table WHERE …)`: what the subquery is, and what a set of values says of a row.

use std::collections::HashMap;

use super::analyze::{Analyzer, Typed};
use super::conditions::has_one_text;
use super::error::WhereError;
use super::expr::{Expr, Kind};
use super::syntax::{Node, Select};
use super::types::Type;
use super::{Filter, MAX_SUBQUERIES};
use crate::shape::table::{Collation, TableSchema, quote};

/// Where subqueries find their tables.
pub trait Catalog {
    /// A table, if there is such a one and clients may know it.
    fn table(&self, schema: &str, name: &str) -> Option<&TableSchema>;
}

/// A subquery of a filter.
#[derive(Clone, Debug)]
pub struct Subquery {
    /// The columns on the left, of the table around it.
    pub columns: Vec<usize>,
    /// The table that it reads.
    pub table: TableSchema,
    /// The columns that it gives, of its table.
    pub selected: Vec<usize>,
    /// Which rows it reads; all, if none. May have subqueries of its own.
    pub filter: Option<Filter>,
    sql: String,
}

impl Subquery {
    /// `SELECT … FROM … WHERE …`, our own text.
    pub fn to_sql(&self) -> &str {
        &self.sql
    }
}

/// The atom that an IN stands for.
pub(super) fn atom(analyzer: &mut Analyzer<'_>, at: usize, left: &[Node], select: &Select) -> Result<Expr, WhereError> {
    let mut columns = Vec::new();
    for node in left {
        match analyzer.typed(node)? {
            Typed::Known(Expr { kind: Kind::Column(index), .. }) => columns.push(index),
            _ => return Err(analyzer.error(node.at, "left of IN (SELECT …) only columns are supported")),
        }
    }
    let (schema, name) = match select.table.as_slice() {
        [name] => ("public", name),
        [schema, name] => (schema.as_str(), name),
        _ => return Err(analyzer.error(select.table_at, "a table has at most a schema before its name")),
    };
    let Some(catalog) = analyzer.catalog else {
        return Err(analyzer.error(at, "subqueries are not supported here"));
    };
    let Some(table) = catalog.table(schema, name) else {
        return Err(analyzer.error(
            select.table_at,
            format!("the table {}.{} does not exist or cannot be used in a subquery", quote(schema), quote(name)),
        ));
    };
    let mut selected = Vec::new();
    for (at, names) in &select.columns {
        let index = match names.as_slice() {
            [column] => table.column(column),
            _ => None,
        };
        selected.push(index.ok_or_else(|| analyzer.error(*at, format!("unknown reference {}", names.join("."))))?);
    }
    if selected.len() != columns.len() {
        return Err(analyzer.error(at, "a subquery gives as many columns as stand left of IN"));
    }
    for (outer, inner) in columns.iter().zip(&selected) {
        let (outer, inner) = (&analyzer.table.columns[*outer], &table.columns[*inner]);
        let (ours, theirs) = (Type::of_column(outer), Type::of_column(inner));
        if ours != theirs {
            return Err(analyzer.error(
                at,
                format!("{} is of type {ours} and {} of type {theirs}: they must be the same", outer.name, inner.name),
            ));
        }
        let loose = [outer, inner].iter().any(|column| column.collation == Collation::Nondeterministic);
        if loose || !has_one_text(&ours) {
            return Err(analyzer.error(at, format!("IN (SELECT …) of {ours} is not supported")));
        }
    }
    let filter = match &select.filter {
        None => None,
        Some(node) => Some(inner(analyzer, table, node)?),
    };
    let names: Vec<String> = selected.iter().map(|at| quote(&table.columns[*at].name)).collect();
    let mut sql = format!("SELECT {} FROM {}", names.join(", "), table.quoted());
    if let Some(filter) = &filter {
        sql.push_str(" WHERE ");
        sql.push_str(filter.to_sql());
    }
    let known = analyzer.subqueries.iter().position(|known| known.columns == columns && known.sql == sql);
    let place = known.unwrap_or(analyzer.subqueries.len());
    if known.is_none() {
        if place >= MAX_SUBQUERIES {
            return Err(WhereError::whole(format!("there are more than {MAX_SUBQUERIES} subqueries")));
        }
        analyzer.subqueries.push(Subquery { columns, table: table.clone(), selected, filter, sql });
    }
    Ok(Expr::bool(Kind::Atom(place)))
}

/// The filter of a subquery: its names are its own table's, its parameters those of the whole.
fn inner(analyzer: &mut Analyzer<'_>, table: &TableSchema, node: &Node) -> Result<Filter, WhereError> {
    let mut inner = Analyzer {
        text: analyzer.text,
        table,
        params: analyzer.params,
        purpose: analyzer.purpose,
        param_types: std::mem::take(&mut analyzer.param_types),
        catalog: analyzer.catalog,
        subqueries: Vec::new(),
        spent: analyzer.spent,
    };
    let expr = inner.boolean(node);
    analyzer.param_types = std::mem::take(&mut inner.param_types);
    analyzer.spent = inner.spent;
    Filter::made(expr?, inner.subqueries, table)
}

/// What subqueries have at the moment.
pub trait Members {
    /// Whether the subquery at this place of the filter's has the value: none where IN would be null.
    fn contains(&self, subquery: usize, value: &[Option<&str>]) -> Option<bool>;
}

/// The values that a subquery gives, each as often as rows give it. Values are texts as the WAL has them.
#[derive(Clone, Debug, Default)]
pub struct ValueSet {
    rows: HashMap<Vec<Option<String>>, usize>,
    /// How many different values have a null.
    with_null: usize,
}

impl ValueSet {
    /// A row gives this value; whether it was not there before.
    pub fn insert(&mut self, value: Vec<Option<String>>) -> bool {
        let null = value.contains(&None);
        let count = self.rows.entry(value).or_default();
        *count += 1;
        let new = *count == 1;
        self.with_null += usize::from(new && null);
        new
    }

    /// A row gives this value no longer; whether it is gone.
    pub fn remove(&mut self, value: &[Option<String>]) -> bool {
        let Some(count) = self.rows.get_mut(value) else { return false };
        *count -= 1;
        let gone = *count == 0;
        if gone {
            self.rows.remove(value);
            self.with_null -= usize::from(value.contains(&None));
        }
        gone
    }

    /// `value IN (…)`, three-valued: null beside anything may be equal.
    pub fn contains(&self, value: &[Option<&str>]) -> Option<bool> {
        let owned: Vec<Option<String>> = value.iter().map(|part| part.map(str::to_owned)).collect();
        let null = value.contains(&None);
        if !null && self.rows.contains_key(&owned) {
            return Some(true);
        }
        if !null && self.with_null == 0 {
            return Some(false);
        }
        let maybe = |row: &Vec<Option<String>>| {
            row.iter().zip(&owned).all(|(theirs, ours)| theirs.is_none() || ours.is_none() || theirs == ours)
        };
        if self.rows.keys().any(maybe) { None } else { Some(false) }
    }
}
