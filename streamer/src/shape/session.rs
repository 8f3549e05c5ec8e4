//! What stands around every reading of a shape's rows: the locks and settings of its transaction, and what errors mean to clients.

use super::error::ShapeError;
use super::table::{Column, Member, TableSchema};
use crate::error::Error;
use deadpool_postgres::Transaction as Session;
use std::time::Duration;

/// A table that somebody has locked, or a snapshot that needs that long for its first row, is no table for shapes.
pub(super) const FIRST_ROW_PATIENCE: Duration = Duration::from_secs(30);

/// Keeps TRUNCATE and rewriting ALTERs out for as long as the transaction lasts: the planner locks the table and every
/// partition. (`lock table` would need more than the right to read some columns.)
pub(super) async fn begin(session: &Session<'_>, table: &TableSchema) -> Result<(), ShapeError> {
    session.batch_execute(&format!("set local lock_timeout = '{}s'", FIRST_ROW_PATIENCE.as_secs())).await?;
    // Row by row at the reader's pace, however large the table is.
    session.batch_execute("set local row_security = off; set local statement_timeout = 0").await?;
    match session.batch_execute(&format!("select from {} limit 0", table.quoted())).await {
        Ok(()) => Ok(()),
        Err(error) => Err(readable_error(error.into(), table)),
    }
}

/// The role may not read a table, or a part of it.
pub(super) fn unreadable(table: &TableSchema, what: &str) -> ShapeError {
    let name = table.quoted();
    tracing::error!(
        what,
        "the streamer's role may not read {name} whole: grant it select on the table and usage on the schema; with row security, alter role … bypassrls"
    );
    ShapeError::Unreadable
}

/// What the role may not do stands in our log, with what mends it; clients come back later.
pub(super) fn readable_error(error: Error, table: &TableSchema) -> ShapeError {
    match error.state() {
        Some("42501") => unreadable(table, &error.to_string()),
        Some("42P01" | "3F000") => ShapeError::Refetch(None),
        _ => error.into(),
    }
}

/// A condition that fails for a row (a division by zero, a value that is none of the type), or that Postgres does not take
/// at all, is the client's affair. Postgres' own words may tell what a row has: they go into our log.
pub(super) fn condition_error(error: Error) -> ShapeError {
    let Some(what) = error.state().and_then(condition_fault) else { return error.into() };
    tracing::debug!(%error, "a client's condition failed");
    ShapeError::invalid("where", what)
}

/// By SQLSTATE ("Appendix A" in the Postgres manual).
fn condition_fault(state: &str) -> Option<&'static str> {
    Some(match state {
        "22012" => "the condition fails for a row: division by zero",
        "22003" | "22008" => "the condition fails for a row: a value is out of range",
        "22P02" | "22007" | "22023" => "the condition fails for a row: a value is not of the type that it is cast to",
        "22025" | "22019" => "the condition fails for a row: a pattern ends with its escape character",
        state if state.starts_with("22") => "the condition fails for a row",
        "42P22" | "42P21" => "the condition compares texts of different collations: say which with COLLATE",
        state if state.starts_with("54") => "the condition is larger than Postgres takes",
        _ => return None,
    })
}

/// Whether a shape of `known` can begin with the rows of `now`: nothing that its clients see is different.
pub(super) fn is_same(now: &TableSchema, known: &TableSchema) -> bool {
    let member = |(now, known): (&Member, &Member)| (now.oid, now.storage) == (known.oid, known.storage);
    let column = |(now, known): (&Column, &Column)| {
        now.name == known.name
            && (now.type_oid, now.type_mod, now.pk_index) == (known.type_oid, known.type_mod, known.pk_index)
            && (now.collation, now.letters) == (known.collation, known.letters)
            && now.enum_labels == known.enum_labels
    };
    now.oid == known.oid
        && now.members.len() == known.members.len()
        && now.members.iter().zip(&known.members).all(member)
        && now.columns.len() == known.columns.len()
        && now.columns.iter().zip(&known.columns).all(column)
        && (&now.excluded, &now.unreadable, &now.tenant_column)
            == (&known.excluded, &known.unreadable, &known.tenant_column)
}
