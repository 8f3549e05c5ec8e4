//! `columns IN (SELECT columns FROM table WHERE …)`: what the subquery is, and what a set of values says of a row.

use std::sync::Arc;

use super::analyze::{Analyzer, Typed};
use super::conditions::has_one_text;
use super::error::WhereError;
use super::expr::{Expr, Kind};
use super::render::literal;
use super::syntax::{Node, Select};
use super::types::Type;
use super::{Filter, MAX_SUBQUERIES};
use crate::shape::table::{Collation, Column, TableSchema, TenantRows, quote};

/// Where subqueries find their tables.
pub trait Catalog {
    /// A table, if there is such a one and clients may know it.
    fn table(&self, schema: &str, name: &str) -> Option<&Arc<TableSchema>>;

    /// Whose rows of it are read; all, if none.
    fn tenant(&self, table: &TableSchema) -> Option<TenantRows>;
}

/// A subquery of a filter.
#[derive(Clone, Debug)]
pub struct Subquery {
    /// The columns on the left, of the table around it.
    pub columns: Vec<usize>,
    /// The table that it reads.
    pub table: Arc<TableSchema>,
    /// The columns that it gives, of its table.
    pub selected: Vec<usize>,
    /// Which rows it reads; all, if none. May have subqueries of its own.
    pub filter: Option<Filter>,
    /// Whose rows it reads, by the caller's token; all, if none.
    pub tenant: Option<TenantRows>,
    sql: String,
}

impl Subquery {
    /// `SELECT … FROM … WHERE …`, our own text.
    pub fn to_sql(&self) -> &str {
        &self.sql
    }

    /// Whether the columns on the left, of table `outer`, have one of these values: SQL that does not read the
    /// subquery's table.
    pub fn among<'v>(&self, outer: &TableSchema, values: impl Iterator<Item = &'v [Option<String>]>) -> String {
        let mut arrays = vec![String::new(); self.columns.len()];
        for value in values {
            for (array, part) in arrays.iter_mut().zip(value) {
                if !array.is_empty() {
                    array.push(',');
                }
                push_element(part.as_deref(), array);
            }
        }
        let columns: Vec<&Column> = self.columns.iter().map(|at| &outer.columns[*at]).collect();
        let left: Vec<String> =
            columns.iter().map(|column| format!("({}::{})", quote(&column.name), sql_type(column))).collect();
        let right: Vec<String> = (columns.iter().zip(&arrays))
            .map(|(column, array)| {
                format!("pg_catalog.unnest({}::{}[])", literal(&format!("{{{array}}}")), sql_type(column))
            })
            .collect();
        format!("(({}) IN (SELECT * FROM ROWS FROM ({})))", left.join(", "), right.join(", "))
    }
}

/// Types of users' have no name that is safe to write; their texts tell them apart.
fn sql_type(column: &Column) -> String {
    Type::of_column(column).sql().unwrap_or_else(|| "pg_catalog.text".to_owned())
}

/// An element of an array's text ("Array Input and Output Syntax" in the Postgres manual).
fn push_element(part: Option<&str>, array: &mut String) {
    let Some(text) = part else { return array.push_str("NULL") };
    array.push('"');
    for letter in text.chars() {
        if matches!(letter, '"' | '\\') {
            array.push('\\');
        }
        array.push(letter);
    }
    array.push('"');
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
    let tenant = catalog.tenant(table);
    let mut sql = format!("SELECT {} FROM {}", names.join(", "), table.from(tenant.as_ref()));
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
        analyzer.subqueries.push(Subquery { columns, table: Arc::clone(table), selected, filter, tenant, sql });
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
