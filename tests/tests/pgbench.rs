//! Promise: every committed row change is exactly one event and reaches a client exactly once.
//! Input: pgbench's own tables and load. Oracle: `pgbench_history`, which pgbench writes in the same transactions.

use std::collections::HashSet;

use headwater_tests::deadline::while_it_moves;
use headwater_tests::event::text;
use headwater_tests::follower::Follower;
use headwater_tests::postgres::Postgres;
use headwater_tests::streamer::Streamer;
use serde_json::{Value, json};

/// Of each table: its name, its key's column in `pgbench_history` and itself, the column that a transaction changes,
/// and the name of the entity.
const TABLES: [(&str, &str, &str, &str); 3] = [
    ("pgbench_accounts", "aid", "abalance", "account"),
    ("pgbench_branches", "bid", "bbalance", "branch"),
    ("pgbench_tellers", "tid", "tbalance", "teller"),
];

async fn start() -> Postgres {
    let postgres = Postgres::start().await;
    postgres.run("pgbench", &["--initialize", "--quiet"]).await;
    for (table, _, _, entity) in TABLES {
        postgres.sql(&format!("select headwater.enable('{table}', entity => '{entity}')")).await;
    }
    postgres
}

/// `HEADWATER_TEST_PGBENCH_SECONDS` shortens the run during development.
fn seconds() -> String {
    std::env::var("HEADWATER_TEST_PGBENCH_SECONDS").unwrap_or_else(|_| "30".to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_change_is_one_event_and_arrives_once() {
    let postgres = start().await;
    let streamer = Streamer::start(&postgres, &[]).await;
    let url = streamer.url("/api/v1/events/stream?entity_type=account,branch,teller");
    let follower = Follower::start(&url, &streamer.cursor_now().await);

    postgres.run("pgbench", &["--client=4", "--time", &seconds()]).await;

    let transactions = postgres.count("select count(*) from pgbench_history").await;
    assert!(transactions > 0);
    for (table, key, column, entity) in TABLES {
        let row = postgres.connect().await.query_one(&differences(key, column, entity), &[]).await.unwrap();
        assert_eq!(json!([]), row.get::<_, Value>(0), "events of {table} and pgbench_history");
    }
    assert_eq!(3 * transactions, postgres.count("select count(*) from headwater.event").await);

    while_it_moves(
        "the client to have every event",
        || follower.seen().arrived,
        || follower.seen().distinct() >= 3 * transactions,
    )
    .await;
    let rows = postgres.connect().await.query("select id::text from headwater.event", &[]).await.unwrap();
    let seen = follower.seen();
    println!("{transactions} transactions, {} events, {} repeats", seen.arrived, seen.repeats());
    assert_eq!(3 * transactions, seen.arrived);
    assert_eq!(0, seen.repeats());
    assert!(rows.iter().all(|row| seen.has(row.get(0))));
    seen.assert_order_per_entity();
    let sources: HashSet<&str> = seen.events().iter().map(|event| text(event, "source")).collect();
    assert_eq!(sources, HashSet::from(["capture"]));
}

/// Lists what does not pair off between the steps that the events of one entity make, in the order of their
/// positions, and the deltas that pgbench wrote down for it. Balances begin at 0. An update that adds 0 is an event
/// that changes nothing.
fn differences(key: &str, column: &str, entity: &str) -> String {
    format!(
        "with events as (
           select entity_id, event_type, payload ->> '{column}' as balance, position
           from headwater.event where entity_type = '{entity}'
         ), steps as (
           select entity_id, balance::int - lag(balance::int, 1, 0) over (partition by entity_id order by position) as delta
           from events where balance is not null
           union all
           select entity_id, 0 from events where balance is null
         ), wanted as (
           select {key}::text as entity_id, delta from pgbench_history
         ), unpaired as (
           select 'event without transaction' as what, * from (select * from steps except all select * from wanted) e
           union all
           select 'transaction without event', * from (select * from wanted except all select * from steps) h
           union all
           select event_type, entity_id, position from events where event_type <> '{entity}.updated'
         )
         select coalesce(jsonb_agg(unpaired), '[]') from unpaired"
    )
}

#[tokio::test]
async fn a_table_without_a_key_is_refused_with_a_remedy() {
    let postgres = start().await;
    let error = postgres
        .connect()
        .await
        .batch_execute("select headwater.enable('pgbench_history')")
        .await
        .expect_err("pgbench_history has no key");
    let error = error.as_db_error().expect("an error of Postgres");
    let whole = format!("{} {} {}", error.message(), error.detail().unwrap_or(""), error.hint().unwrap_or(""));
    assert!(whole.contains("pgbench_history"), "{whole}");
    assert!(whole.contains("primary key"), "{whole}");
    assert!(
        error.hint().is_some_and(|hint| hint.to_lowercase().contains("alter table") || hint.contains("key")),
        "{whole}"
    );
}
