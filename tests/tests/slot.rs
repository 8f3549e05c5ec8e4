//! Promise: the slot keeps what a restart needs and no more; it is never lost to our own doing, and when it is lost,
//! clients of events miss nothing. Oracles: `pg_replication_slots`, `pg_stat_replication`, the event table.

use std::collections::HashSet;

use headwater_tests::deadline::{PATIENCE, eventually, while_it_moves};
use headwater_tests::follower::Follower;
use headwater_tests::http::with_query;
use headwater_tests::postgres::{Postgres, StopMode};
use headwater_tests::sse::Connection;
use headwater_tests::streamer::Streamer;

const LOGICAL: &str = "wal_level=logical";

const NOTES: &str =
    "create table note (id int primary key, body text); select headwater.enable('note', entity => 'note')";

/// Postgres' own segment size: `pg_switch_wal` writes up to one, nearly for free.
const SEGMENT: usize = 16 << 20;

const KEPT: &str = "select pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)::bigint from pg_replication_slots";

const BEHIND: &str =
    "select pg_wal_lsn_diff(pg_current_wal_lsn(), confirmed_flush_lsn)::bigint from pg_replication_slots";

async fn start(settings: &[&str]) -> Postgres {
    let postgres = Postgres::start_bare(&[&[LOGICAL], settings].concat()).await;
    postgres.install().await;
    postgres.sql(NOTES).await;
    postgres
}

/// WAL that is no business of ours, and the checkpoint that removes what nobody needs.
async fn write_foreign_wal(postgres: &Postgres, segments: usize) {
    let elsewhere = postgres.connect_to("postgres", "postgres").await.unwrap();
    for _ in 0..segments {
        elsewhere.batch_execute("create table t (); drop table t; select pg_switch_wal()").await.unwrap();
    }
    elsewhere.batch_execute("checkpoint").await.unwrap();
}

async fn wal_status(postgres: &Postgres) -> String {
    let row =
        postgres.connect().await.query_one("select coalesce(wal_status, '') from pg_replication_slots", &[]).await;
    row.unwrap().get(0)
}

/// Waits until the client has every event of the table.
async fn assert_has_all(postgres: &Postgres, follower: &Follower) {
    let events = postgres.count("select count(*) from headwater.event").await;
    while_it_moves("all events", || follower.seen().arrived, || follower.seen().distinct() >= events).await;
    assert_eq!(events, follower.seen().distinct());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_that_postgres_gave_up_is_made_anew_and_clients_miss_nothing() {
    let postgres = start(&["max_slot_wal_keep_size=32MB"]).await;
    let mut streamer = Streamer::start(&postgres, &[]).await;
    let cursor = streamer.cursor_now().await;
    let follower = Follower::start(&streamer.url("/api/v1/events/stream"), &cursor);
    postgres.sql("insert into note select generate_series(1, 100)").await;
    assert_has_all(&postgres, &follower).await;

    streamer.kill().await;
    postgres.sql("insert into note select generate_series(101, 200)").await;
    write_foreign_wal(&postgres, 6).await;
    assert_eq!("lost", wal_status(&postgres).await);
    postgres.sql("insert into note select generate_series(201, 300)").await;
    streamer.resume().await;

    postgres.sql("insert into note select generate_series(301, 400)").await;
    assert_has_all(&postgres, &follower).await;
    assert_eq!(400, follower.seen().distinct());
    assert_ne!("lost", wal_status(&postgres).await);
    assert!(streamer.logged().contains("clients of shapes get 409"), "{}", streamer.logged());
}

/// With a ring much longer than the WAL that Postgres would keep for us, beside a database that writes without
/// end while nothing changes in ours.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_table_beside_a_busy_database_keeps_its_slot_and_pins_no_wal() {
    let postgres = start(&["max_slot_wal_keep_size=256MB"]).await;
    let streamer = Streamer::start(&postgres, &[]).await;
    let cursor = streamer.cursor_now().await;
    let follower = Follower::start(&streamer.url("/api/v1/events/stream"), &cursor);
    postgres.sql("insert into note values (1)").await;
    assert_has_all(&postgres, &follower).await;

    // The ring is a quarter of what may be kept, and the slot needs up to two rings.
    let ring = 64 << 20;
    for _ in 0..12 {
        write_foreign_wal(&postgres, 2).await;
        eventually("the slot to follow", || async { (postgres.count(BEHIND).await < ring + SEGMENT).then_some(()) })
            .await;
    }
    let kept = postgres.count(KEPT).await;
    assert!(kept < 2 * ring + 3 * SEGMENT, "{kept}");
    assert!(["reserved", "extended"].contains(&wal_status(&postgres).await.as_str()));
    assert!(!streamer.logged().contains("making the slot anew"), "{}", streamer.logged());

    postgres.sql("insert into note values (2)").await;
    assert_has_all(&postgres, &follower).await;
    assert_eq!(0, follower.seen().repeats());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_walsender_hears_of_us_while_the_registry_cannot_be_read() {
    let postgres = start(&["wal_sender_timeout=2s"]).await;
    let streamer = Streamer::start(&postgres, &[]).await;
    let cursor = streamer.cursor_now().await;
    let follower = Follower::start(&streamer.url("/api/v1/events/stream"), &cursor);
    let walsender = "select pid::bigint from pg_stat_replication";
    let before = postgres.count(walsender).await;

    // The change is in the WAL, and while its table is locked nobody can read what it was.
    postgres.sql("select headwater.enable('note', entity => 'note', notification => 'memory')").await;
    let locker = postgres.connect().await;
    locker.batch_execute("begin; lock table headwater.entity in access exclusive mode").await.unwrap();
    postgres.sql("select pg_logical_emit_message(true, 'headwater.registry', ''); select pg_switch_wal()").await;
    let writer = postgres.connect().await;
    let waiting =
        "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and query like '%headwater.entity%'";
    eventually("the registry to be waited for", || async { (postgres.count(waiting).await > 0).then_some(()) }).await;
    // Longer than the walsender's patience: WAL must flow meanwhile, or it would not send anything that needs an answer.
    let began = std::time::Instant::now();
    eventually("three times the walsender's patience", || async {
        writer.batch_execute("select pg_logical_emit_message(true, 'noise', '')").await.unwrap();
        (began.elapsed().as_secs() >= 6).then_some(())
    })
    .await;
    assert_eq!(before, postgres.count(walsender).await, "the walsender took us for dead");
    locker.batch_execute("commit").await.unwrap();

    postgres.sql("insert into note values (1)").await;
    assert_has_all(&postgres, &follower).await;
    assert_eq!(before, postgres.count(walsender).await);
}

/// `HEADWATER_TEST_HUGE_ROWS=10000000` for the long run.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_much_larger_than_the_ring_passes_in_bounded_memory() {
    let rows: usize = std::env::var("HEADWATER_TEST_HUGE_ROWS").map_or(300_000, |rows| rows.parse().unwrap());
    let postgres = start(&["max_wal_size=4GB"]).await;
    let streamer = Streamer::start(&postgres, &["--ring-bytes", "8MiB"]).await;
    let cursor = streamer.cursor_now().await;
    let url = with_query(&streamer.url("/api/v1/events/stream"), &[]);
    let mut connection = Connection::open(url, Some(&cursor)).await.unwrap();
    let writer = postgres.connect().await;
    writer.execute("insert into note values (0)", &[]).await.unwrap();
    connection.next_event().await;
    let before = streamer.peak_memory();

    let began = std::time::Instant::now();
    // Each takes about ten times as much disk for WAL, indexes and what the walsender spools.
    let letters = if rows > 1_000_000 { 20 } else { 200 };
    let insert = format!("insert into note select id, repeat('x', {letters}) from generate_series(1, {rows}) id");
    let (inserted, ()) = tokio::join!(writer.execute(&insert, &[]), async {
        // What came before may come again from the table: it is recognised by its id.
        let mut ids = HashSet::new();
        let mut beats = 0;
        while ids.len() < rows {
            // Ten million rows are written, and decoded, for minutes before the first one comes; heartbeats come meanwhile.
            let block = tokio::time::timeout(PATIENCE, connection.next()).await.expect("a heartbeat").unwrap();
            let Some(data) = block.data else {
                beats += 1;
                assert!(beats <= 12 + rows / 100_000, "nothing but heartbeats");
                continue;
            };
            beats = 0;
            if !data.contains("\"entity_id\":\"0\"") {
                assert!(
                    ids.insert(data[..r#"{"id":"00000000-0000-0000-0000-000000000000"#.len()].to_owned()),
                    "twice: {data}"
                );
            }
        }
    });
    inserted.unwrap();
    let grown = streamer.peak_memory().saturating_sub(before);
    println!("{rows} rows in {:?}; memory grew from {before} by {grown} bytes", began.elapsed());
    // The ring, a few pages of a thousand rows on their way from the table, and the allocator's slack; the transaction
    // itself would be 150 MiB and more.
    assert!(grown < 64 << 20, "{grown} bytes");
    writer.execute("insert into note values (-1)", &[]).await.unwrap();
    let last = |data: &str| data.contains("\"entity_id\":\"-1\"");
    connection.find("what comes behind", |block| block.data.as_deref().is_some_and(last)).await;
}

/// A prepared transaction and an open one hold WAL back; neither makes us lose events, nor hold a stop of Postgres up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_confirmed_lies_behind_every_event_that_a_restart_needs() {
    let mut postgres = start(&["max_prepared_transactions=2"]).await;
    let mut streamer = Streamer::start(&postgres, &["--ring-wal", "1MiB"]).await;
    let cursor = streamer.cursor_now().await;
    let follower = Follower::start(&streamer.url("/api/v1/events/stream"), &cursor);
    postgres.sql("begin; insert into note values (1); prepare transaction 'late'").await;
    let open = postgres.connect().await;
    open.batch_execute("begin; insert into note values (2)").await.unwrap();
    write_foreign_wal(&postgres, 3).await;
    streamer.kill().await;
    streamer.resume().await;
    open.batch_execute("commit").await.unwrap();
    write_foreign_wal(&postgres, 1).await;
    streamer.kill().await;
    postgres.stop(StopMode::Immediate).await;
    postgres.resume().await;
    postgres.sql("commit prepared 'late'").await;
    streamer.resume().await;
    assert_has_all(&postgres, &follower).await;
    assert_eq!(2, follower.seen().distinct());
    postgres.stop(StopMode::Fast).await;
}
