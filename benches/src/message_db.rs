//! Message DB, the event store in PL/pgSQL: installed by its own script, from the npm package that `scripts/bench` fetched.

use std::path::PathBuf;

use futures_util::future::join_all;
use futures_util::join;
use headwater_tests::postgres::Postgres;
use tokio_postgres::{Client, Statement};

use crate::server;

const DATABASE: &str = "message_db";

/// Writes a batch in one transaction: the parameters are texts, one element an event.
pub(crate) const WRITE: &str = "select count(write_message(id, stream, type, data::jsonb))
    from unnest($1::text[], $2::text[], $3::text[], $4::text[]) e (id, stream, type, data)";

/// Writes one message.
pub(crate) const CALL: &str = "select write_message($1::text, $2::text, $3::text, $4::text::jsonb)";

/// Writes a batch in one transaction by a call for each message, all of them on their way at once.
pub(crate) async fn call_each(client: &Client, call: &Statement, columns: &[Vec<String>]) {
    let calls = (0..columns[0].len()).map(async |at| {
        let [id, stream, kind, data] = std::array::from_fn(|column| &columns[column][at]);
        client.query_one(call, &[id, stream, kind, data]).await
    });
    // What is polled first is sent first, and Postgres answers in that order.
    let (begun, answers, committed) =
        join!(client.batch_execute("begin"), join_all(calls), client.batch_execute("commit"));
    begun.unwrap();
    for answer in answers {
        answer.unwrap();
    }
    committed.unwrap();
}

/// Makes its database.
pub(crate) fn install(postgres: &Postgres) {
    let package: PathBuf = std::env::var_os("HEADWATER_BENCH_MESSAGE_DB")
        .expect(
            "HEADWATER_BENCH_MESSAGE_DB names the folder of the package @eventide/message-db; scripts/bench sets it",
        )
        .into();
    let script = package.join("database/install.sh");
    let psql = postgres.program("psql");
    let programs = headwater_tests::place::postgres_programs();
    let path = std::env::var("PATH").unwrap_or_default();
    // Its script calls psql and createdb by name.
    let output = std::process::Command::new("bash")
        .arg(&script)
        .envs(psql.get_envs().filter_map(|(name, value)| Some((name, value?))))
        .env("PATH", format!("{}:{path}", programs.display()))
        .env("DATABASE_NAME", DATABASE)
        .stdin(std::process::Stdio::null())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}: {}", script.display(), String::from_utf8_lossy(&output.stderr));
}

/// A connection whose path finds its functions, as that of its role does.
pub(crate) async fn connect(postgres: &Postgres) -> Client {
    let client = server::connect(postgres, DATABASE).await;
    client.batch_execute("set search_path = message_store, public").await.unwrap();
    client
}
