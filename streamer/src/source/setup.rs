//! What must be true before we stream, each with the way to mend it; and which history this is.

use super::wire::{Connection, Row};
use crate::error::Error;
use headwater_model::cursor::{Epoch, EpochParts, Lsn};

/// The database that we are connected to.
#[derive(Debug)]
pub(super) struct Database {
    pub(super) epoch: Epoch,
    /// `headwater.meta.epoch`, part of it.
    pub(super) restored: i64,
    pub(super) name: String,
    /// Where the WAL ended when we looked: from there on we are up to date.
    pub(super) wal_end: Lsn,
    /// `server_version_num`
    pub(super) version: u32,
    /// `max_slot_wal_keep_size` in bytes; none without a limit.
    pub(super) wal_kept: Option<u64>,
}

/// It adds tables to publications, if they are not there; whoever holds a lock on one must not hold us up for ever, nor, behind us,
/// everybody else who wants that table.
const ENSURE_PUBLICATIONS: &str =
    "set lock_timeout = '10s'; select headwater.ensure_publications(); reset lock_timeout";

/// A table that somebody holds is no mistake of the set-up: we come back, and say meanwhile what it waits for.
fn explain_lock(error: Error) -> Error {
    match error {
        Error::Server(mut server) if server.code == "55P03" => {
            server.message = format!(
                "headwater.ensure_publications() waits for a lock that somebody holds on a table (select * from pg_locks where not granted): {}",
                server.message
            );
            Error::Server(server)
        }
        other => other,
    }
}

/// Explains why a log-in failed, where it is the set-up's fault.
pub(super) fn explain_login(error: Error, user: &str) -> Error {
    let Error::Server(server) = &error else { return error };
    let remedy = match (server.code.as_str(), server.message.as_str()) {
        // 15: "must be superuser or replication role to start walsender"; 16: "permission denied to start WAL sender".
        ("42501", _) => format!("alter role \"{user}\" replication;"),
        ("28P01", _) => "check the password in the database URL".to_owned(),
        ("28000", message) if message.contains("does not exist") => {
            format!("create role \"{user}\" login replication in role headwater_writer;")
        }
        ("28000", _) => "allow this role and host in pg_hba.conf, then select pg_reload_conf();".to_owned(),
        ("3D000", _) => "create the database, or correct its name in the database URL".to_owned(),
        _ => return error,
    };
    Error::setup(format!("Postgres refuses the log-in of role `{user}`: {server}"), remedy)
}

/// Checks the server, the extension and our privileges; makes the publications.
pub(super) async fn prepare(connection: &mut Connection) -> Result<Database, Error> {
    let system = one(connection, "IDENTIFY_SYSTEM").await?;
    let wal_level = one(connection, "show wal_level").await?;
    if text(&wal_level, 0)? != "logical" {
        return Err(Error::setup(
            format!(
                "Postgres runs with wal_level={}, and logical decoding needs wal_level=logical",
                text(&wal_level, 0)?
            ),
            "alter system set wal_level = 'logical'; then restart Postgres",
        ));
    }
    if text(&one(connection, "select pg_is_in_recovery()").await?, 0)? == "t" {
        return Err(Error::setup(
            "this server is a standby; slot and watermark need the primary",
            "point the database URL at the primary",
        ));
    }
    let name = text(&one(connection, "select current_database()").await?, 0)?.to_owned();
    check_extension(connection, &name).await?;
    check_privileges(connection).await?;
    connection.query(ENSURE_PUBLICATIONS).await.map_err(explain_lock)?;
    let parts = one(
        connection,
        "select d.oid, 'headwater.event'::regclass::oid, (select max(m.epoch) from headwater.meta m) \
         from pg_catalog.pg_database d where d.datname = current_database()",
    )
    .await?;
    let epoch = EpochParts {
        system: number(&system, 0)?,
        timeline: number(&system, 1)?,
        database: number(&parts, 0)?,
        event_table: number(&parts, 1)?,
        restored: number(&parts, 2)?,
    };
    let version = number(&one(connection, "show server_version_num").await?, 0)?;
    // Its unit is MB whatever was written; -1 is no limit.
    let kept = "select setting from pg_catalog.pg_settings where name = 'max_slot_wal_keep_size'";
    let kept: i64 = number(&one(connection, kept).await?, 0)?;
    let wal_kept = u64::try_from(kept).ok().map(|megabytes| megabytes << 20);
    let wal_end = number(&system, 2)?;
    Ok(Database { epoch: epoch.into(), restored: epoch.restored, name, wal_end, version, wal_kept })
}

async fn check_extension(connection: &mut Connection, database: &str) -> Result<(), Error> {
    // Not `to_regclass`: it fails where the role may not use the schema, which is the next check's finding.
    let installed = "select count(*) from pg_catalog.pg_extension where extname = 'headwater'";
    let row = one(connection, installed).await?;
    if text(&row, 0)? != "0" {
        return Ok(());
    }
    let available = "select count(*) from pg_catalog.pg_available_extensions where name = 'headwater'";
    let available = text(&one(connection, available).await?, 0)? != "0";
    let install = if available { "" } else { "install it on the server first (the files are not there), then " };
    Err(Error::setup(
        format!("the database `{database}` does not have the extension headwater"),
        format!("{install}connect to `{database}` as a superuser and: create extension headwater;"),
    ))
}

async fn check_privileges(connection: &mut Connection) -> Result<(), Error> {
    // The names are not resolved where the schema may not be used, hence the steps.
    let missing = one(
        connection,
        "select current_user, case \
           when not has_schema_privilege('headwater', 'usage') then 'USAGE on schema headwater' \
           when not has_table_privilege('headwater.event', 'select') then 'SELECT on headwater.event' \
           when not has_table_privilege('headwater.meta', 'select') then 'SELECT on headwater.meta' \
           when not has_sequence_privilege('headwater.event_position_seq', 'select') then 'SELECT on headwater.event_position_seq' \
           when not has_function_privilege('headwater.ingest(jsonb, jsonb)', 'execute') then 'EXECUTE on headwater.ingest' \
           when not has_function_privilege('headwater.ensure_publications()', 'execute') then 'EXECUTE on headwater.ensure_publications' \
           when not has_function_privilege('headwater.gather_changes()', 'execute') then 'EXECUTE on headwater.gather_changes' \
         end",
    )
    .await?;
    match missing.get(1).and_then(Option::as_deref) {
        None => Ok(()),
        Some(privilege) => {
            let user = text(&missing, 0)?;
            Err(Error::setup(
                format!("role `{user}` lacks {privilege}"),
                format!("grant headwater_writer to \"{user}\";"),
            ))
        }
    }
}

/// The only row of a query that always has one.
pub(super) async fn one(connection: &mut Connection, sql: &str) -> Result<Row, Error> {
    let rows = connection.query(sql).await?;
    rows.into_iter().next().ok_or_else(|| Error::Protocol(format!("no row from `{sql}`")))
}

/// A value that is never null.
pub(super) fn text(row: &Row, column: usize) -> Result<&str, Error> {
    row.get(column).and_then(Option::as_deref).ok_or_else(|| Error::Protocol(format!("column {column} is null")))
}

fn number<T: std::str::FromStr>(row: &Row, column: usize) -> Result<T, Error> {
    let text = text(row, column)?;
    text.parse().map_err(|_| Error::Protocol(format!("`{text}` is not the number that belongs there")))
}
