//! Promise: however often streamers, Postgres, Redis and connections are broken, and wherever clients are sent, each
//! client gets every event, each entity's in order, and none twice unless its cursor was older than the ring.
//! Oracles: the rows that the load counts in, the event table, each client's own list.
//!
//! `HEADWATER_TEST_KILLS=100` for the long run; `HEADWATER_TEST_SEED` for another one.

use headwater_tests::deadline::{eventually, while_it_moves};
use headwater_tests::follower::Follower;
use headwater_tests::http::with_query;
use headwater_tests::postgres::{Postgres, StopMode};
use headwater_tests::proxy::{Direction, Flow, Proxy};
use headwater_tests::random::{Random, seed};
use headwater_tests::redis::Redis;
use headwater_tests::sse::Connection;
use headwater_tests::streamer::Streamer;

use crate::load::{Load, assert_events_match_rows};

const STREAM: &str = "/api/v1/events/stream";

fn kills() -> usize {
    std::env::var("HEADWATER_TEST_KILLS").map_or(10, |kills| kills.parse().unwrap())
}

/// A cursor that names a place in the log, so that every resume from it is exact.
async fn cursor_in_the_log(streamer: &Streamer) -> String {
    let mut connection = Connection::open(with_query(&streamer.url(STREAM), &[]), None).await.unwrap();
    connection.find("a first id", |block| block.id.is_some()).await.id.unwrap()
}

/// A random moment: after this much more was committed.
async fn a_moment(load: &Load, random: &mut Random) {
    let wanted = load.acknowledged() + random.index(250);
    eventually("the load to go on", || async { (load.acknowledged() >= wanted).then_some(()) }).await;
}

/// Waits until every client has all that the table has; how many events came more than once.
async fn assert_all_have_all(postgres: &Postgres, clients: &[(&str, &Follower)], acknowledged: usize) -> usize {
    let events = assert_events_match_rows(postgres, acknowledged).await;
    let rows = postgres.connect().await.query("select id::text from headwater.event", &[]).await.unwrap();
    let mut repeats = 0;
    for (name, client) in clients {
        while_it_moves(
            "the client to have every event",
            || client.seen().arrived,
            || client.seen().distinct() >= events,
        )
        .await;
        let seen = client.seen();
        println!("{name}: {events} events, {} connections, {} repeats", seen.connections, seen.repeats());
        assert!(rows.iter().all(|row| seen.has(row.get(0))), "{name}");
        assert_eq!(events, seen.distinct(), "{name}");
        seen.assert_order_per_entity();
        repeats += seen.repeats();
    }
    repeats
}

/// What is broken besides the streamer.
async fn break_something(random: &mut Random, postgres: &mut Postgres, redis: &mut Redis, proxy: &Proxy) {
    match random.below(6) {
        0 => {
            postgres.stop(StopMode::Immediate).await;
            postgres.resume().await;
        }
        1 => {
            redis.kill().await;
            redis.resume().await;
        }
        2 => proxy.cut(),
        3 => proxy.let_flow(Direction::Down, Flow::Stalled),
        4 => proxy.let_flow(Direction::Down, Flow::Slow(1 + random.index(4000))),
        _ => {
            proxy.let_flow(Direction::Up, *random.one_of(&[Flow::Stalled, Flow::Slow(100), Flow::Free]));
            proxy.cut();
        }
    }
}

/// Kills at random moments, also while the streamer has only just begun to catch up.
async fn campaign(ring: &[&str]) -> usize {
    let mut random = Random::new(seed());
    let mut postgres = Postgres::start().await;
    let mut redis = Redis::start().await;
    let url = redis.url();
    let arguments = [&["--notification-backend", "redis", "--redis-url", &url], ring].concat();
    let mut streamer = Streamer::start(&postgres, &arguments).await;
    let proxy = Proxy::start(streamer.port()).await;
    let cursor = cursor_in_the_log(&streamer).await;
    let direct = Follower::start(&streamer.url(STREAM), &cursor);
    let proxied = Follower::start(&proxy.url(STREAM), &cursor);
    let load = Load::start(&postgres).await;

    for _ in 0..kills() {
        a_moment(&load, &mut random).await;
        break_something(&mut random, &mut postgres, &mut redis, &proxy).await;
        a_moment(&load, &mut random).await;
        streamer.kill().await;
        if random.below(3) == 0 {
            streamer.spawn();
            a_moment(&load, &mut random).await;
            streamer.kill().await;
        }
        if random.below(2) == 0 {
            for direction in [Direction::Up, Direction::Down] {
                proxy.let_flow(direction, Flow::Free);
            }
        }
        streamer.resume().await;
    }
    for direction in [Direction::Up, Direction::Down] {
        proxy.let_flow(direction, Flow::Free);
    }
    let acknowledged = load.stop().await;
    assert_all_have_all(&postgres, &[("direct", &direct), ("proxied", &proxied)], acknowledged).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_campaign_of_crashes_loses_nothing_and_repeats_nothing_within_the_ring() {
    assert_eq!(0, campaign(&[]).await);
}

/// With a ring of a few dozen events, so that nearly every resume goes through the table.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_campaign_of_crashes_loses_nothing_behind_the_ring() {
    let repeats = campaign(&["--ring-bytes", "32768"]).await;
    println!("{repeats} repeats, all of cursors older than the ring");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_move_between_two_replicas_with_no_loss_and_no_repeat() {
    let mut random = Random::new(seed());
    let mut postgres = Postgres::start().await;
    let mut replicas = [
        Streamer::start(&postgres, &["--replica", "one"]).await,
        Streamer::start(&postgres, &["--replica", "two"]).await,
    ];
    let cursor = cursor_in_the_log(&replicas[0]).await;
    let mut clients = Vec::new();
    for _ in 0..4 {
        let proxy = Proxy::start(replicas[random.index(2)].port()).await;
        let follower = Follower::start(&proxy.url(STREAM), &cursor);
        clients.push((proxy, follower));
    }
    let load = Load::start(&postgres).await;
    for round in 0..4 * kills() {
        a_moment(&load, &mut random).await;
        let (proxy, _) = &clients[random.index(clients.len())];
        proxy.move_to(replicas[random.index(2)].port());
        proxy.cut();
        if round % 4 == 3 {
            let replica = &mut replicas[random.index(2)];
            replica.kill().await;
            a_moment(&load, &mut random).await;
            replica.resume().await;
        }
        if round % 16 == 15 {
            postgres.stop(StopMode::Immediate).await;
            postgres.resume().await;
        }
    }
    let acknowledged = load.stop().await;
    let clients: Vec<_> = clients.iter().map(|(_, follower)| ("moved", follower)).collect();
    assert_eq!(0, assert_all_have_all(&postgres, &clients, acknowledged).await);
}
