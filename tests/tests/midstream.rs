//! Promise: what happens to tables and settings while the WAL streams is followed: columns that come, go and change their
//! type, values that are too long to stand in the row and do not change (TOAST), a server that waits for standbys.
//! Oracles: the table, what SELECT gives.

use headwater_tests::deadline::eventually;
use headwater_tests::http::with_query;
use headwater_tests::postgres::Postgres;
use headwater_tests::shape::{self, ShapeClient};
use headwater_tests::sse::Connection;
use headwater_tests::streamer::Streamer;
use serde_json::json;

/// Random text of 20,000 characters: it does not compress, so that it is stored apart.
const LONG: &str = "(select string_agg(md5(n::text || random()), '') from generate_series(1, 625) n)";

const DOCUMENTS: &str = "create table document (id int primary key, body text, n int);
    alter table document alter column body set storage external;
    select headwater.enable('document')";

async fn start() -> (Postgres, Streamer, Connection) {
    let postgres = Postgres::start().await;
    postgres.sql(DOCUMENTS).await;
    let streamer = Streamer::start(&postgres, &[]).await;
    let url = with_query(&streamer.url("/api/v1/events/stream"), &[]);
    let connection = Connection::open(url, None).await.unwrap_or_else(|answer| panic!("{answer:?}"));
    (postgres, streamer, connection)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn columns_and_types_change_while_it_streams() {
    let (postgres, streamer, mut connection) = start().await;
    let mut client = ShapeClient::new(&streamer.url(""), &[("table", "document")]);
    let changer = postgres.connect().await;
    for (change, write, payload) in [
        ("select 1", "insert into document values (1, 'a', 1)", json!({"id": 1, "body": "a", "n": 1})),
        (
            "alter table document alter column n type bigint",
            "update document set n = 9007199254740993",
            json!({"n": "9007199254740993"}),
        ),
        ("alter table document add column extra text", "update document set extra = 'x'", json!({"extra": "x"})),
        ("alter table document rename column extra to other", "update document set other = 'y'", json!({"other": "y"})),
        ("alter table document alter column n type text", "update document set n = 'two'", json!({"n": "two"})),
        ("alter table document drop column other", "update document set body = 'b'", json!({"body": "b"})),
    ] {
        // In one transaction, so that the stream has the new relation and the row in one go; then on their own.
        changer.batch_execute(&format!("begin; {change}; {write}; commit")).await.unwrap();
        let found = connection.find(change, |block| block.data.is_some() && block.json()["payload"] == payload).await;
        assert_eq!(found.json()["entity_id"], "1", "{change}");
        client.catch_up(shape::mark(&changer).await).await;
        assert_eq!(client.table(), shape::select(&changer, "select * from document").await, "{change}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn long_values_that_do_not_change_are_neither_lost_nor_sent_in_vain() {
    let (postgres, streamer, mut connection) = start().await;
    let mut full = ShapeClient::new(&streamer.url(""), &[("table", "document"), ("replica", "full")]);
    let mut filtered =
        ShapeClient::new(&streamer.url(""), &[("table", "document"), ("where", "body like '%f%' and n > 1")]);
    let writer = postgres.connect().await;
    writer
        .batch_execute(&format!("insert into document select id, {LONG}, 1 from generate_series(1, 3) id"))
        .await
        .unwrap();
    for client in [&mut full, &mut filtered] {
        client.catch_up(shape::mark(&writer).await).await;
    }
    // The value stays where it is: the WAL says "unchanged" instead of it. The row comes into one shape, whole.
    writer.batch_execute("update document set n = 2 where id < 3").await.unwrap();
    let update = connection.find("the update", |block| block.event.as_deref() == Some("document.updated")).await;
    assert_eq!(update.json()["payload"], json!({"n": 2}));
    let mark = shape::mark(&writer).await;
    full.catch_up(mark).await;
    filtered.catch_up(mark).await;
    assert_eq!(full.table(), shape::select(&writer, "select * from document").await);
    assert_eq!(filtered.table(), shape::select(&writer, "select * from document where n > 1").await);
    assert_eq!(filtered.table().len(), 2);

    writer.batch_execute("update document set id = 10 where id = 1; delete from document where id = 2").await.unwrap();
    let mark = shape::mark(&writer).await;
    full.catch_up(mark).await;
    filtered.catch_up(mark).await;
    assert_eq!(full.table(), shape::select(&writer, "select * from document").await);
    assert_eq!(filtered.table(), shape::select(&writer, "select * from document where n > 1").await);
}

/// Whoever names every standby (`*`) names our walsender, too: it must not answer for one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_walsender_answers_for_no_synchronous_standby() {
    let (postgres, _streamer, mut connection) = start().await;
    // Once it was confirmed, a position has been told that could stand for a flush.
    postgres.sql("alter system set synchronous_standby_names = '*'").await;
    let administrator = postgres.connect().await;
    administrator.batch_execute("set synchronous_commit = local").await.unwrap();
    administrator.batch_execute("select pg_reload_conf()").await.unwrap();
    eventually("the setting", || async {
        (postgres
            .count("select count(*) from pg_settings where name = 'synchronous_standby_names' and setting = '*'")
            .await
            == 1)
            .then_some(())
    })
    .await;
    let writer = postgres.connect().await;
    let waiting =
        tokio::spawn(async move { writer.batch_execute("insert into document values (1, 'waits', 1)").await });
    let wait = "select count(*) from pg_stat_activity where wait_event = 'SyncRep' and query like 'insert%'";
    eventually("the commit to wait", || async { (postgres.count(wait).await == 1).then_some(()) }).await;
    // What stands in the WAL comes, and is answered for; others write on.
    for n in 2..50 {
        administrator.batch_execute(&format!("insert into document values ({n}, 'local', 1)")).await.unwrap();
    }
    let last = |data: &str| data.contains(r#""entity_id":"49""#);
    connection.find("what was written since", |block| block.data.as_deref().is_some_and(last)).await;
    assert_eq!(1, postgres.count(wait).await, "the streamer has answered for a standby");
    let state = "select count(*) from pg_stat_replication where sync_state <> 'async'";
    assert_eq!(0, postgres.count(state).await, "the walsender counts as a standby");

    administrator.batch_execute("alter system reset synchronous_standby_names").await.unwrap();
    administrator.batch_execute("select pg_reload_conf()").await.unwrap();
    waiting.await.unwrap().unwrap();
}
