//! Promise: a history outlives its server. A dump restores in a new cluster, whatever its format, with history, rules,
//! baselines, receipts, dead letters and epoch; new positions go on above the old; capture, ingest and the streamer go on.
//! After a promotion nothing that the standby had is lost, and cursors of the old primary are refused.
//!
//! Oracle: the same questions put to the old server and to the new one.

use headwater_tests::deadline::eventually;
use headwater_tests::event::position;
use headwater_tests::http;
use headwater_tests::place::{Scratch, postgres_programs_of};
use headwater_tests::postgres::{Postgres, StopMode};
use headwater_tests::streamer::Streamer;
use serde_json::{Value, json};

const SCHEMA: &str = include_str!("../../examples/orders/schema.sql");

/// One event of each fate; sent again, they get the same answer.
fn batch() -> Value {
    let event = |n: u8, name: &str, entity_id: &str, payload: Value| {
        json!({
            "id": format!("0190a0a0-0000-7000-8000-{n:012}"), "event_type": format!("order.{name}"), "entity_type": "order",
            "entity_id": entity_id, "tenant_id": "a", "payload": payload, "timestamp": "2026-01-01T00:00:00Z",
        })
    };
    let id = "11111111-1111-4111-8111-111111111111";
    json!([
        event(1, "created", id, json!({"table_number": 7})),
        event(2, "item_added", id, json!({"item": {"id": "é'\"\\ \t"}})),
        event(3, "eaten", id, json!({})),
        event(
            4,
            "created",
            "22222222-2222-4222-8222-222222222222",
            json!({"status": 5, "items": null, "table_number": "many"})
        ),
    ])
}

/// What must be the same in both.
const STATES: &[&str] = &[
    "select jsonb_agg(to_jsonb(e) order by position) from headwater.event e",
    "select jsonb_agg(to_jsonb(e) order by entity_type) from headwater.entity e",
    "select jsonb_agg(to_jsonb(r) order by event_id) from headwater.receipt r",
    "select jsonb_agg(to_jsonb(r) order by id) from headwater.rejected_event r",
    "select jsonb_agg(to_jsonb(s) order by entity_type, entity_id) from headwater.snapshot s",
    "select jsonb_agg(to_jsonb(x) order by entity_type, entity_id) from headwater.erased x",
    "select jsonb_agg(to_jsonb(m) - 'created_at') from headwater.meta m",
    "select jsonb_agg(to_jsonb(o) order by id) from orders o",
    "select jsonb_agg(headwater.materialize('order', id::text) order by id) from orders",
    "select jsonb_agg(headwater.materialize('old', id::text) order by id) from old",
    "select jsonb_agg(to_jsonb(t) order by tablename) from pg_publication_tables t where pubname = 'headwater_tables'",
    "select jsonb_agg(tgrelid::regclass::text || tgname order by tgrelid::regclass::text, tgname) from pg_trigger where not tgisinternal",
    r#"select headwater.ingest($batch, '{"trusted": true}')"#,
];

async fn states(postgres: &Postgres) -> Vec<Value> {
    let client = postgres.connect().await;
    let mut states = Vec::new();
    for query in STATES {
        let query = query.replace("$batch", &format!("$batch${}$batch$::jsonb", batch()));
        let row = client.query_one(&query, &[]).await.unwrap_or_else(|error| panic!("{query}: {error:?}"));
        states.push(row.get::<_, Option<Value>>(0).unwrap_or_default());
    }
    states
}

async fn with_a_history() -> Postgres {
    written(Postgres::start().await).await
}

async fn written(postgres: Postgres) -> Postgres {
    postgres.sql(SCHEMA).await;
    postgres
        .sql(
            "insert into orders (tenant_id, table_number) select 'a', i from generate_series(1, 5) i;
             create table old (id int primary key, name text);
             insert into old values (1, 'there before'), (2, 'too');
             select headwater.enable('old', entity => 'old');
             update old set name = 'changed' where id = 2;
             update headwater.meta set epoch = 3;",
        )
        .await;
    let answer: Value = states(&postgres).await.pop().unwrap();
    assert_eq!(2, answer["accepted"].as_array().unwrap().len(), "{answer:#}");
    assert_eq!(2, answer["rejected"].as_array().unwrap().len(), "{answer:#}");
    postgres
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dump_restores_and_goes_on() {
    let old = with_a_history().await;
    let before = states(&old).await;
    let last = old.count("select max(position) from headwater.event").await;
    let scratch = Scratch::new("dump");
    let path = |name: &str| scratch.path().join(name).to_str().unwrap().to_owned();
    let (plain, custom, directory) = (path("plain.sql"), path("custom"), path("directory"));
    for (dump, program, restore) in [
        (vec!["-f", &plain], "psql", vec!["-q", "-1", "-v", "ON_ERROR_STOP=1", "-f", &plain]),
        (vec!["-Fc", "-f", &custom], "pg_restore", vec!["-1", "-d", "headwater", &custom]),
        (vec!["-Fd", "-j2", "-f", &directory], "pg_restore", vec!["-e", "-j3", "-d", "headwater", &directory]),
    ] {
        old.run("pg_dump", &dump).await;
        let new = Postgres::start_bare(&["wal_level=logical"]).await;
        new.run(program, &restore).await;
        for (query, (before, after)) in STATES.iter().zip(before.iter().zip(states(&new).await)) {
            assert_eq!(before, &after, "{dump:?}: {query}");
        }
        new.make_streamer_role().await;
        goes_on(&new, last).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_is_upgraded_in_place_and_goes_on() {
    // From Debian's 15 pg_upgrade itself refuses: its build has a column of its own in a catalog.
    let Some((from, to)) = postgres_programs_of(16).zip(postgres_programs_of(18)) else {
        eprintln!(
            "passed over: Postgres 16 and 18 with the extension are not there (scripts/test pg16, pg18 install it)"
        );
        return;
    };
    let old = Postgres::start_of(from, &["wal_level=logical"]).await;
    old.install().await;
    let mut old = written(old).await;
    let before = states(&old).await;
    let last = old.count("select max(position) from headwater.event").await;
    old.stop(StopMode::Fast).await;
    let new = old.upgraded(to, &["wal_level=logical"]).await;
    for (query, (before, after)) in STATES.iter().zip(before.iter().zip(states(&new).await)) {
        assert_eq!(before, &after, "{query}");
    }
    goes_on(&new, last).await;
}

/// Capture, ingest, dead letters and the streamer work, on top of what is there.
async fn goes_on(new: &Postgres, last: usize) {
    let streamer = Streamer::start(new, &[]).await;
    let id = "33333333-3333-4333-8333-333333333333";
    new.sql(&format!("insert into orders (id, tenant_id) values ('{id}', 'b')")).await;
    let event = json!({
        "id": uuid::Uuid::now_v7(), "event_type": "order.item_added", "entity_type": "order", "entity_id": id,
        "tenant_id": "b", "payload": {"item": 1}, "timestamp": headwater_tests::event::now(),
    });
    assert_eq!(json!([]), streamer.batch(&[event]).await["rejected"]);
    let above = format!("select count(*) from headwater.event where position > {last}");
    assert_eq!(2, new.count(&above).await, "new positions go on above the old");
    assert_eq!(1, new.count(&format!("select count(*) from orders where id = '{id}' and items = '[1]'")).await);
    let all = new.count("select count(*) from headwater.event").await;
    let page = streamer.since(&[]).await;
    let positions: Vec<i64> = page["events"].as_array().unwrap().iter().map(position).collect();
    assert_eq!(all, positions.len());
    assert!(positions.is_sorted(), "{positions:?}");
    let letters = "select count(*) from headwater.rejected_event";
    assert_eq!(2, new.count(letters).await);
    new.sql("select headwater.discard_rejected(id, tenant_id) from headwater.rejected_event").await;
    assert_eq!(0, new.count("select count(*) from headwater.check() where problem not like '%slot%'").await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_promoted_standby_goes_on_and_refuses_the_old_cursors() {
    let primary = with_a_history().await;
    let mut streamer = Streamer::start(&primary, &[]).await;
    let cursor = streamer.cursor_now().await;
    let standby = primary.standby().await;
    primary.sql("insert into orders (tenant_id, table_number) values ('a', 99)").await;
    eventually("the standby to follow", || async {
        (standby.count("select count(*) from orders where table_number = 99").await == 1).then_some(())
    })
    .await;
    let last = primary.count("select max(position) from headwater.event").await;
    streamer.terminate().await;
    drop(primary);
    standby.promote().await;

    let streamer = Streamer::start(&standby, &[]).await;
    http::get(&streamer.url("/api/v1/events/since"), &[("cursor", &cursor)])
        .await
        .assert_problem(410, "cursor_expired");
    // A client that is not sure sends again what it sent to the old primary.
    let answer = states(&standby).await.pop().unwrap();
    assert_eq!(2, answer["accepted"].as_array().unwrap().len(), "{answer:#}");
    standby.sql("insert into orders (tenant_id, table_number) values ('a', 100)").await;
    let page = streamer.since(&[]).await;
    let positions: Vec<i64> = page["events"].as_array().unwrap().iter().map(position).collect();
    assert_eq!(standby.count("select count(*) from headwater.event").await, positions.len());
    assert!(i64::try_from(last).unwrap() < *positions.last().unwrap(), "{positions:?}");
}
