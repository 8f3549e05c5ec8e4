//! Promise: the rows that a shape begins with and the changes that follow make up the table exactly, however many writers
//! commit while they are read. Oracle: the client, which fails on a row that comes twice and on a change of a row that it
//! does not have; and in the end the same SELECT in Postgres.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use headwater_tests::http::{self, with_query};
use headwater_tests::postgres::{Postgres, connect};
use headwater_tests::proxy::Proxy;
use headwater_tests::random::{Random, seed};
use headwater_tests::shape::{Answer, ShapeClient, active, mark, select, send};
use headwater_tests::streamer::Streamer;
use tokio::time::sleep;

use crate::shape::start;

const WRITERS: u64 = 4;
const CLIENTS_PER_ROUND: usize = 20;

/// Rows come, change and go, some in transactions that stay open for a while; keys are drawn from a small range, so that
/// the same ones come back.
async fn write(port: u16, seed: u64, stop: Arc<AtomicBool>) {
    let client = connect(port).await;
    let mut random = Random::new(seed);
    while !stop.load(Ordering::Relaxed) {
        let mut script = String::from("begin;");
        for _ in 0..=random.below(3) {
            let (id, value) = (random.below(300), random.any());
            let statement = match random.below(4) {
                0 => format!("delete from seam where id = {id};"),
                1 => format!("update seam set v = '{value}' where id = {id};"),
                _ => {
                    format!("insert into seam values ({id}, '{value}') on conflict (id) do update set v = excluded.v;")
                }
            };
            script.push_str(&statement);
        }
        script += match random.below(10) {
            0 => "rollback",
            1 => "select pg_sleep(0.01); commit",
            _ => "commit",
        };
        // Deadlocks are part of the game; the client's transaction is over then.
        if client.batch_execute(&script).await.is_err() {
            client.batch_execute("rollback").await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_seam_is_exact_under_heavy_writes() {
    let snapshots: usize = std::env::var("HEADWATER_TEST_SEAMS").map_or(200, |count| count.parse().unwrap());
    let seed = seed();
    let (postgres, streamer) = start(&[]).await;
    // A shape per client, so that each has a snapshot of its own.
    let extra: Vec<_> = (0..CLIENTS_PER_ROUND).map(|n| format!("c{n} int")).collect();
    postgres.sql(&format!("create table seam (id int primary key, v text, {})", extra.join(", "))).await;
    let observer = postgres.connect().await;
    let (mut taken, mut changes, mut round) = (0, 0, 0);
    while taken < snapshots {
        round += 1;
        let stop = Arc::new(AtomicBool::new(false));
        let writer = |n: u64| tokio::spawn(write(postgres.port(), seed ^ (round * WRITERS + n), Arc::clone(&stop)));
        let writers: Vec<_> = (0..WRITERS).map(writer).collect();
        let mut clients = Vec::new();
        for n in 0..CLIENTS_PER_ROUND {
            let columns = format!("id,v,c{n}");
            let mut client = ShapeClient::new(&streamer.url(""), &[("table", "seam"), ("columns", &columns)]);
            client.catch_up(0).await;
            clients.push((columns, client));
        }
        stop.store(true, Ordering::Relaxed);
        for writer in writers {
            writer.await.unwrap();
        }
        let end = mark(&observer).await;
        for (columns, client) in &mut clients {
            client.catch_up(end).await;
            assert_eq!(client.table(), select(&observer, &format!("select {columns} from seam")).await);
            assert_eq!(client.refetches, 0);
            changes += client.changes;
            // The next round's client gets a snapshot of its own.
            let deletion = with_query(&streamer.url("/v1/shape"), &[("table", "seam"), ("columns", columns)]);
            assert_eq!(send(http::client().delete(deletion)).await.status, 202);
        }
        taken += clients.len();
    }
    println!("{taken} snapshots, {changes} changes behind them");
    assert!(changes > 0);
}

/// As many transactions follow as a shape remembers: the one that a client is in the middle of is forgotten last.
#[tokio::test]
async fn a_transaction_that_was_read_in_part_is_read_to_its_end() {
    let (postgres, streamer) = start(&[]).await;
    postgres.sql("create table hot (id int primary key, v text)").await;
    let observer = postgres.connect().await;
    let shape = [("table", "hot")];
    let mut others = ShapeClient::new(&streamer.url(""), &shape);
    others.catch_up(0).await;
    for (round, following) in [1022, 1023, 1024, 1025].into_iter().enumerate() {
        let from = 10_000 * round;
        let mut client = others.clone();
        postgres
            .sql(&format!("insert into hot select {from} + n, repeat('x', 200) from generate_series(1, 200) n"))
            .await;
        others.catch_up(mark(&observer).await).await;
        assert_eq!(client.step(false).await, Some(false), "it has a part only");
        postgres
            .sql(&format!(
                "do $$ begin for n in 1..{following} loop insert into hot values ({from} + 1000 + n, 'x'); commit; end loop; end $$"
            ))
            .await;
        let end = mark(&observer).await;
        client.catch_up(end).await;
        assert_eq!(client.table(), select(&observer, "select id, v from hot").await, "{following} transactions later");
        others.catch_up(end).await;
    }
}

/// Found by the oracle: rows were given out again from which the log could not go on, and clients began anew for ever.
#[tokio::test]
async fn rows_from_which_the_log_does_not_go_on_are_not_given_out_again() {
    let (postgres, streamer) = start(&[]).await;
    postgres.sql("create table t (id int primary key, v text); insert into t values (1, 'a')").await;
    let observer = postgres.connect().await;
    let mut client = ShapeClient::new(&streamer.url(""), &[("table", "t"), ("where", "v > 'A'")]);
    client.catch_up(0).await;
    // One transaction, behind which the table is as before it.
    postgres.sql("alter table t rename v to w; update t set w = 'b'; alter table t rename w to v").await;
    client.catch_up(mark(&observer).await).await;
    assert_eq!((client.table(), client.refetches), (select(&observer, "select * from t").await, 1));
}

/// Who is told to begin anew may come later than who only lost a connection would: the rows wait for him, under the handle
/// that he was told.
#[tokio::test]
async fn rows_wait_for_who_was_sent_to_them() {
    const LATER: Duration = Duration::from_secs(4);
    let postgres = Postgres::start().await;
    postgres
        .sql("grant postgres to headwater_streamer; create table t (id int primary key); insert into t values (1)")
        .await;
    let proxy = Proxy::start(postgres.port()).await;
    let through = postgres.streamer_url().replace(&format!(":{}/", postgres.port()), &format!(":{}/", proxy.port()));
    let streamer = Streamer::start_at(through, &["--auto-publish", "--allow-shape-deletion"]).await;
    active(&streamer.url("")).await;
    let ask = async |query: &[(&str, &str)]| {
        let query: Vec<_> = [("table", "t")].iter().chain(query).copied().collect();
        send(http::client().get(with_query(&streamer.url("/v1/shape"), &query))).await
    };
    let handle = |answer: &Answer| answer.header("electric-handle").unwrap().to_owned();
    let first = handle(&ask(&[("offset", "-1")]).await);
    let deletion = with_query(&streamer.url("/v1/shape"), &[("table", "t")]);
    assert_eq!(send(http::client().delete(deletion)).await.status, 202);
    // Where rows and log meet is known; the rows are on their way for as long as we want.
    proxy.hold("copy (");
    let sent_away = ask(&[("offset", "0_inf"), ("handle", &first)]).await;
    assert_eq!(sent_away.status, 409, "{}", sent_away.body);
    let told = handle(&sent_away);
    assert_ne!(told, first);
    proxy.holds().await;
    sleep(LATER).await;
    proxy.release();
    let anew = ask(&[("offset", "-1"), ("handle", &told)]).await;
    assert_eq!((anew.status, handle(&anew)), (200, told), "{}", anew.body);
}

/// Shapes that are asked for at the same time share a snapshot: each gets its own rows all the same, whatever the others are.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shapes_that_begin_together_have_their_own_rows() {
    const SHAPES: usize = 150;
    let (postgres, streamer) = start(&["--chunk-bytes=20000"]).await;
    postgres
        .sql("create table t (id int primary key, n int, v text); insert into t select i, i % 50, 'v' from generate_series(1, 5000) i")
        .await;
    let condition = |n: usize| match n % 10 {
        // One that is large, and one that fails for a row.
        8 => format!("id > {n}"),
        9 => format!("{n} / (id * 0) >= 0"),
        _ => format!("n = {n} % 50"),
    };
    let follow = |n: usize| {
        let (base, condition) = (streamer.url(""), condition(n));
        tokio::spawn(async move {
            let shape = [("table", "t"), ("where", condition.as_str())];
            if n % 10 == 9 {
                let query = [shape[0], shape[1], ("offset", "-1")];
                let answer = send(http::client().get(with_query(&format!("{base}/v1/shape"), &query))).await;
                assert_eq!(answer.status, 400, "{condition}: {}", answer.body);
                return None;
            }
            let mut client = ShapeClient::new(&base, &shape);
            client.catch_up(0).await;
            Some((condition, client))
        })
    };
    let followed: Vec<_> = (0..SHAPES).map(follow).collect();
    let stop = Arc::new(AtomicBool::new(false));
    let writer = {
        let (port, stop) = (postgres.port(), Arc::clone(&stop));
        tokio::spawn(async move {
            let client = connect(port).await;
            let mut n = 0;
            while !stop.load(Ordering::Relaxed) {
                n += 1;
                let script =
                    format!("update t set v = '{n}' where id % 100 = {n} % 100; delete from t where id = {n} * 7");
                client.batch_execute(&script).await.unwrap();
            }
        })
    };
    let mut clients = Vec::new();
    for one in followed {
        clients.extend(one.await.unwrap());
    }
    stop.store(true, Ordering::Relaxed);
    writer.await.unwrap();
    let observer = postgres.connect().await;
    let end = mark(&observer).await;
    for (condition, mut client) in clients {
        client.catch_up(end).await;
        let expected = select(&observer, &format!("select * from t where {condition}")).await;
        assert_eq!(client.table(), expected, "{condition}");
        assert_eq!(client.refetches, 0, "{condition}");
    }
}
