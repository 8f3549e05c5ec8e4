//! The orders example, as the tests use it.

use headwater_tests::postgres::Postgres;
use headwater_tests::streamer::Streamer;

/// The very file that `make demo` loads.
pub(crate) const SCHEMA: &str = include_str!("../../examples/orders/schema.sql");

/// A server with the example, and a streamer on it.
pub(crate) async fn start(arguments: &[&str]) -> (Postgres, Streamer) {
    let postgres = Postgres::start().await;
    postgres.sql(SCHEMA).await;
    let streamer = Streamer::start(&postgres, arguments).await;
    (postgres, streamer)
}
