//! From the start of the process to the first event for a client that comes back with its cursor. Every turn has a slot
//! of its own, so that every turn's ring holds the same: what the client has not had.

use std::time::Instant;

use headwater_tests::deadline::eventually;
use headwater_tests::http::with_query;
use headwater_tests::sse::Connection;
use headwater_tests::streamer::Streamer;

use crate::measured::{Bound, Measured};
use crate::{Options, server};

const KILLED: &str = "killed";
const STOPPED: &str = "stopped";
/// A second, and what the ring takes to read again (256 MiB of WAL at most).
const MUST_MS: f64 = 1_000.0;

pub(crate) async fn run(options: &Options) -> Vec<Measured> {
    let postgres = server::start(options).await;
    postgres.install().await;
    postgres.sql("create table message (id bigint primary key, body text); select headwater.enable('message')").await;
    let mut measured = Measured::new("restart to the first event of a resumed client", "ms")
        .fixed(STOPPED, Some(Bound::AtMost(MUST_MS)), None)
        .fixed(KILLED, Some(Bound::AtMost(MUST_MS)), None);
    let client = postgres.connect().await;
    let insert = "insert into message select n, repeat('x', 80) from generate_series($1::bigint, $1::bigint + 999) n";
    let mut next = 1_i64;
    for round in 0..options.rounds {
        for how in [STOPPED, KILLED] {
            let replica = format!("restart_{round}_{how}");
            let mut streamer = Streamer::start(&postgres, &["--replica", &replica]).await;
            let cursor = streamer.cursor_now().await;
            // What the client has not had when the streamer ends.
            for _ in 0..20 {
                client.execute(insert, &[&next]).await.unwrap();
                next += 1_000;
            }
            if how == KILLED {
                streamer.kill().await;
            } else {
                assert!(streamer.terminate().await.success());
            }
            let start = Instant::now();
            streamer.spawn();
            let url = with_query(&streamer.url("/api/v1/events/stream"), &[("cursor", &cursor)]);
            let mut connection =
                eventually("the streamer to answer", || async { Connection::open(url.clone(), None).await.ok() }).await;
            connection.next_event().await;
            let ms = start.elapsed().as_secs_f64() * 1e3;
            eprintln!("    round {round}, {how}: {ms:.0} ms");
            measured.add(how, ms);
            drop(connection);
            assert!(streamer.terminate().await.success());
            client
                .execute("select pg_drop_replication_slot(slot_name) from pg_replication_slots where not active", &[])
                .await
                .unwrap();
        }
    }
    vec![measured]
}
