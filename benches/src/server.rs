//! A private Postgres for a section, and databases made from templates: every turn starts from the same files.

use headwater_tests::postgres::Postgres;
use tokio_postgres::Client;

use crate::Options;

/// Settings under which all contenders are measured. Autovacuum is off and checkpoints come between turns, so that
/// neither falls into one contender's turn; full-page images are the same for all, for every turn follows a checkpoint.
const SETTINGS: [&str; 9] = [
    "wal_level=logical",
    "shared_buffers=1GB",
    "max_wal_size=16GB",
    "checkpoint_timeout=1h",
    "autovacuum=off",
    "max_connections=64",
    "max_prepared_transactions=10",
    "synchronous_commit=on",
    "jit=off",
];

/// Starts it.
pub(crate) async fn start(options: &Options) -> Postgres {
    start_with(options, &[]).await
}

/// Starts it with more settings.
pub(crate) async fn start_with(options: &Options, more: &[&str]) -> Postgres {
    let fsync = format!("fsync={}", if options.fsync { "on" } else { "off" });
    let settings: Vec<&str> = SETTINGS.into_iter().chain([fsync.as_str()]).chain(more.iter().copied()).collect();
    Postgres::start_bare(&settings).await
}

/// Makes a database and runs `setup` in it.
pub(crate) async fn make(postgres: &Postgres, name: &str, setup: &[&str]) {
    let administrator = connect(postgres, "postgres").await;
    administrator.batch_execute(&format!("create database {name}")).await.unwrap();
    let client = connect(postgres, name).await;
    for statements in setup {
        client.batch_execute(statements).await.unwrap_or_else(|error| panic!("{name}: {statements}: {error:?}"));
    }
}

/// A fresh copy of a database; `drop` ends it.
pub(crate) async fn copy(postgres: &Postgres, template: &str, name: &str) {
    let administrator = connect(postgres, "postgres").await;
    administrator
        .batch_execute(&format!("create database {name} template {template} strategy file_copy"))
        .await
        .unwrap_or_else(|error| panic!("copy of {template}: {error:?}"));
}

/// Drops a database, whoever is connected.
pub(crate) async fn drop(postgres: &Postgres, name: &str) {
    let administrator = connect(postgres, "postgres").await;
    administrator.batch_execute(&format!("drop database {name} with (force)")).await.unwrap();
}

/// A connection as the superuser.
pub(crate) async fn connect(postgres: &Postgres, database: &str) -> Client {
    postgres.connect_to("postgres", database).await.unwrap()
}
