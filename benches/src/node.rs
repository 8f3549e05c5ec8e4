//! The server that people write themselves: `benches/node/server.mjs`, on npm's `pg-logical-replication`.

use std::process::Command;

use headwater_tests::place::{checkout, free_port};
use headwater_tests::postgres::Postgres;

use crate::process::{Server, folder};

/// Starts it; it reads the slot of that name and the publication `bench` of `database`.
pub(crate) async fn start(postgres: &Postgres, database: &str, slot: &str) -> Server {
    let port = free_port();
    let mut command = Command::new("node");
    command
        .arg(checkout().join("benches/node/server.mjs"))
        .env("NODE_SERVER_PACKAGES", folder("HEADWATER_BENCH_NODE"))
        .env("PORT", port.to_string())
        .env("SLOT", slot)
        .env("DATABASE_URL", format!("postgres://postgres@127.0.0.1:{}/{database}", postgres.port()));
    Server::start(command, port).await
}
