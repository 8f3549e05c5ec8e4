//! Promise: whatever is killed, a client that resumes with its last id has every event, and those of one entity in
//! order. Oracle: the rows that the load counts in, the event table, and the client's own list.

use headwater_tests::deadline::{eventually, while_it_moves};
use headwater_tests::follower::Follower;
use headwater_tests::postgres::{Postgres, StopMode};
use headwater_tests::streamer::Streamer;

use crate::load::{Load, assert_events_match_rows};

async fn more_events(follower: &Follower, count: usize) {
    let wanted = follower.seen().distinct() + count;
    eventually("the client to have more events", || async { (follower.seen().distinct() >= wanted).then_some(()) })
        .await;
}

/// Waits until the client has all that the table has, and holds them against each other.
async fn assert_client_has_all(postgres: &Postgres, follower: &Follower, acknowledged: usize) {
    let events = assert_events_match_rows(postgres, acknowledged).await;
    while_it_moves(
        "the client to have every event",
        || follower.seen().arrived,
        || follower.seen().distinct() >= events,
    )
    .await;
    let rows = postgres.connect().await.query("select id::text from headwater.event", &[]).await.unwrap();
    let seen = follower.seen();
    println!("{events} events, {} connections, {} repeats", seen.connections, seen.repeats());
    assert!(rows.iter().all(|row| seen.has(row.get(0))));
    assert_eq!(events, seen.distinct());
    seen.assert_order_per_entity();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_has_every_event_after_five_kills_and_a_crash_of_postgres() {
    let mut postgres = Postgres::start().await;
    let mut streamer = Streamer::start(&postgres, &[]).await;
    let cursor = streamer.cursor_now().await;
    let follower = Follower::start(&streamer.url("/api/v1/events/stream"), &cursor);
    let load = Load::start(&postgres).await;

    for _ in 0..5 {
        more_events(&follower, 500).await;
        streamer.kill().await;
        streamer.resume().await;
    }
    more_events(&follower, 500).await;
    postgres.stop(StopMode::Immediate).await;
    postgres.resume().await;
    more_events(&follower, 500).await;

    let acknowledged = load.stop().await;
    assert_client_has_all(&postgres, &follower, acknowledged).await;
    assert!(follower.seen().connections >= 6);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_streamer_killed_with_postgres_comes_back_with_it() {
    let mut postgres = Postgres::start().await;
    let mut streamer = Streamer::start(&postgres, &[]).await;
    let cursor = streamer.cursor_now().await;
    let follower = Follower::start(&streamer.url("/api/v1/events/stream"), &cursor);
    let load = Load::start(&postgres).await;
    more_events(&follower, 300).await;

    postgres.stop(StopMode::Immediate).await;
    streamer.kill().await;
    // A database that is down is awaited, not fatal.
    streamer.spawn();
    postgres.resume().await;
    streamer.healthy().await;
    more_events(&follower, 300).await;

    let acknowledged = load.stop().await;
    assert_client_has_all(&postgres, &follower, acknowledged).await;
}

/// A clean shutdown waits until WAL senders have everything confirmed: one that keeps its slot behind must not make
/// it wait for ever. `stop` fails the test when it does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fast_stop_is_not_held_up_by_a_full_ring() {
    let mut postgres = Postgres::start().await;
    let streamer = Streamer::start(&postgres, &["--ring-bytes", "65536"]).await;
    let cursor = streamer.cursor_now().await;
    let follower = Follower::start(&streamer.url("/api/v1/events/stream"), &cursor);
    let load = Load::start(&postgres).await;
    // Some 400 bytes an event: the ring has turned over several times.
    more_events(&follower, 2000).await;
    let acknowledged = load.stop().await;
    assert_client_has_all(&postgres, &follower, acknowledged).await;

    postgres.stop(StopMode::Fast).await;
    postgres.resume().await;
    postgres.sql("update counter set n = n + 1 where id = 0").await;
    assert_client_has_all(&postgres, &follower, acknowledged + 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fast_stop_is_not_held_up_under_load() {
    let mut postgres = Postgres::start().await;
    let streamer = Streamer::start(&postgres, &[]).await;
    let cursor = streamer.cursor_now().await;
    let follower = Follower::start(&streamer.url("/api/v1/events/stream"), &cursor);
    let load = Load::start(&postgres).await;
    more_events(&follower, 500).await;

    postgres.stop(StopMode::Fast).await;
    postgres.resume().await;
    let before = load.acknowledged();
    eventually("the load to go on", || async { (load.acknowledged() > before + 100).then_some(()) }).await;

    let acknowledged = load.stop().await;
    assert_client_has_all(&postgres, &follower, acknowledged).await;
}
