//! The `where` of a shape: parsed, typed, evaluated over rows of the WAL exactly as Postgres would, and rendered to SQL of
//! our own. Pure.
//!
//! What cannot be computed exactly is refused, never approximated; `docs/where.md` lists what is understood. A row for
//! which Postgres would raise an error (a division by zero, an overflow) is not in the shape; a snapshot that comes upon
//! such a row fails.
//!
//! `lexer → parser → syntax → analyze (types, operators, calls, collate, subquery) → expr → eval | render | conditions | dnf`

mod among;
mod analyze;
mod array;
mod calls;
mod cast;
mod collate;
mod compute;
mod conditions;
mod datetime;
mod dnf;
mod error;
mod eval;
mod expr;
mod interval;
mod json;
mod lexer;
mod like;
mod numeric;
mod operators;
mod order_by;
mod parser;
mod render;
mod subquery;
mod syntax;
#[cfg(test)]
mod tests;
mod text;
mod types;
mod value;

pub use conditions::Condition;
pub use dnf::{Dnf, Position, Slot};
pub use error::WhereError;
pub use order_by::{OrderBy, parse_order_by};
pub use subquery::{Catalog, Members, Subquery};

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use self::analyze::Analyzer;
use self::expr::Expr;
use super::table::TableSchema;

/// Longest text of a filter, in bytes: an IN list of a thousand UUIDs has room; the text stands in a URL.
pub const MAX_TEXT_BYTES: usize = 65_536;
/// Most words and signs: a list of ten thousand values has room.
pub const MAX_TOKENS: usize = 25_000;
/// Most parts of the tree as written.
const MAX_NODES: usize = 25_000;
/// Most levels of the tree: recursion over it stays within a worker thread's stack, also in debug builds.
const MAX_DEPTH: usize = 100;
/// Most parts after BETWEEN and IN were spelled out, which repeat their left sides.
const MAX_ANALYZED: usize = 200_000;
/// Most parameters: each has a URL parameter of its own.
const MAX_PARAMS: u32 = 10_000;

/// Most subqueries on one level: each is a set of values that is kept up to date.
const MAX_SUBQUERIES: usize = 16;

/// What a filter is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    /// It must be evaluated over the log.
    Shape,
    /// It is only run by Postgres.
    Subset,
}

/// A filter over the rows of one table.
#[derive(Clone, Debug)]
pub struct Filter {
    expr: Expr,
    sql: Box<str>,
    conditions: Box<[Condition]>,
    subqueries: Box<[Subquery]>,
    dnf: Option<Dnf>,
}

/// Reads the `where` of a shape without subqueries; `params` are its `$1`, `$2` …
pub fn parse(text: &str, params: &BTreeMap<u32, String>, table: &TableSchema) -> Result<Filter, WhereError> {
    filter(text, params, table, Purpose::Shape, None)
}

/// The same with subqueries over the tables of a catalog; [`inner_tables`] says which it will be asked for.
pub fn parse_with(
    text: &str,
    params: &BTreeMap<u32, String>,
    table: &TableSchema,
    catalog: &dyn Catalog,
) -> Result<Filter, WhereError> {
    filter(text, params, table, Purpose::Shape, Some(catalog))
}

/// Reads the `where` of a subset, which Postgres alone evaluates: text may be ordered under any collation.
pub fn parse_subset(text: &str, params: &BTreeMap<u32, String>, table: &TableSchema) -> Result<Filter, WhereError> {
    filter(text, params, table, Purpose::Subset, None)
}

/// The texts of an array's elements that are not null, as the WAL has the array; none if it cannot be read.
pub fn elements(array: &str) -> Option<Vec<Cow<'_, str>>> {
    let read = array::Array::read(array, &|text| Some(value::Value::Text(text)))?;
    let text = |value| if let value::Value::Text(text) = value { Some(text) } else { None };
    Some(read.elements.into_iter().flatten().filter_map(text).collect())
}

/// Schema and name of each table that subqueries read.
pub fn inner_tables(text: &str) -> Result<BTreeSet<(String, String)>, WhereError> {
    let node = tree(text)?;
    let (mut found, mut left) = (BTreeSet::new(), vec![&node]);
    while let Some(node) = left.pop() {
        if let syntax::Kind::InSelect { select, .. } = &node.kind {
            match select.table.as_slice() {
                [name] => found.insert(("public".to_owned(), name.clone())),
                [schema, name] => found.insert((schema.clone(), name.clone())),
                _ => false,
            };
        }
        left.extend(node.children());
    }
    Ok(found)
}

fn tree(text: &str) -> Result<syntax::Node, WhereError> {
    if text.len() > MAX_TEXT_BYTES {
        return Err(WhereError::whole(format!("the expression is longer than {MAX_TEXT_BYTES} bytes")));
    }
    parser::parse(text)
}

fn filter(
    text: &str,
    params: &BTreeMap<u32, String>,
    table: &TableSchema,
    purpose: Purpose,
    catalog: Option<&dyn Catalog>,
) -> Result<Filter, WhereError> {
    check_params(params)?;
    let node = tree(text)?;
    let (param_types, subqueries) = (BTreeMap::new(), Vec::new());
    let mut analyzer = Analyzer { text, table, params, purpose, param_types, catalog, subqueries, spent: 0 };
    let expr = analyzer.boolean(&node)?;
    let subqueries = std::mem::take(&mut analyzer.subqueries);
    Filter::made(expr, subqueries, table)
}

/// Numbered from 1 without gaps.
fn check_params(params: &BTreeMap<u32, String>) -> Result<(), WhereError> {
    if params.keys().next_back().is_some_and(|last| *last > MAX_PARAMS) {
        return Err(WhereError::whole(format!("there are more than {MAX_PARAMS} parameters")));
    }
    for (number, expected) in params.keys().zip(1..) {
        if *number != expected {
            return Err(WhereError::whole(format!(
                "parameters must be numbered from 1 without gaps: ${expected} is missing"
            )));
        }
    }
    match params.iter().find(|(_, text)| text.contains('\0')) {
        Some((number, _)) => Err(WhereError::whole(format!("parameter ${number} has the character NUL"))),
        None => Ok(()),
    }
}

impl Filter {
    fn made(expr: Expr, subqueries: Vec<Subquery>, table: &TableSchema) -> Result<Self, WhereError> {
        let dnf = if subqueries.is_empty() { None } else { Some(Dnf::of(&expr, table, &subqueries)?) };
        // Very many filters are kept: nothing has room to grow.
        let sql = render::sql(&expr, table, &subqueries).into();
        let conditions = conditions::of(&expr, table).into();
        let subqueries = subqueries.into();
        // With subqueries it is rendered again, with what they have.
        let expr = if dnf.is_none() { among::with_sets(&expr) } else { expr };
        Ok(Self { expr, sql, conditions, subqueries, dnf })
    }

    /// Whether a row is in: `Some(true)` if so, none if the filter is null for it or Postgres would raise an error.
    /// `row` has a text, or none for NULL, for each column of the table's schema, as pgoutput gives it under the
    /// settings of the replication connection. Subqueries are null: see [`Filter::matches_with`].
    pub fn matches(&self, row: &[Option<&str>]) -> Option<bool> {
        self.matches_for(row, &mut 0)
    }

    /// The same; adds the steps that it took.
    pub fn matches_for(&self, row: &[Option<&str>], steps: &mut u64) -> Option<bool> {
        let row = eval::Row::new(row, &[]);
        let truth = eval::truth(&self.expr, &row).unwrap_or(None);
        *steps += row.spent();
        truth
    }

    /// The same where subqueries have these members.
    pub fn matches_with(&self, row: &[Option<&str>], members: &dyn Members) -> Option<bool> {
        self.matches_atoms(row, &self.atoms(row, members))
    }

    /// The same, by the answers of [`Filter::atoms`].
    pub fn matches_atoms(&self, row: &[Option<&str>], atoms: &[Option<bool>]) -> Option<bool> {
        eval::truth(&self.expr, &eval::Row::new(row, atoms)).unwrap_or(None)
    }

    /// Whether each subquery has the row's value.
    pub fn atoms(&self, row: &[Option<&str>], members: &dyn Members) -> Vec<Option<bool>> {
        let value = |subquery: &Subquery| -> Vec<Option<&str>> {
            subquery.columns.iter().map(|at| row.get(*at).copied().flatten()).collect()
        };
        (self.subqueries.iter().enumerate())
            .map(|(place, subquery)| members.contains(place, &value(subquery)))
            .collect()
    }

    /// The subqueries, each once.
    pub fn subqueries(&self) -> &[Subquery] {
        &self.subqueries
    }

    /// The normal form of a filter with subqueries.
    pub fn dnf(&self) -> Option<&Dnf> {
        self.dnf.as_ref()
    }

    /// A boolean SQL expression over the table's columns. The same filter gives the same SQL.
    pub fn to_sql(&self) -> &str {
        &self.sql
    }

    /// The same with an SQL text of one's own for each subquery's `columns IN (…)`; `table` is the filter's.
    pub fn to_sql_with(&self, table: &TableSchema, atoms: &[String]) -> String {
        render::sql_with(&self.expr, table, atoms)
    }

    /// What holds for every row that matches, whatever the subqueries have.
    pub fn to_sql_without_subqueries(&self, table: &TableSchema) -> String {
        render::sql(&self.expr.with_atoms_possible(false), table, &[])
    }

    /// The columns that it looks at.
    pub fn columns(&self) -> BTreeSet<usize> {
        let mut found: BTreeSet<usize> = self.subqueries.iter().flat_map(|subquery| subquery.columns.clone()).collect();
        let mut left = vec![&self.expr];
        while let Some(expr) = left.pop() {
            if let expr::Kind::Column(at) | expr::Kind::Fields { column: at, .. } = expr.kind {
                found.insert(at);
            }
            left.extend(expr.parts());
        }
        found
    }

    /// What every row that matches has; all of them hold. Empty if nothing can be said.
    pub fn conditions(&self) -> &[Condition] {
        &self.conditions
    }
}
