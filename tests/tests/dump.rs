//! Promise: a dump restores in one transaction, with history, rules, receipts and epoch; new positions go on above the
//! old, and the streamer follows the new database.

use headwater_tests::event::position;
use headwater_tests::postgres::Postgres;
use headwater_tests::streamer::Streamer;

const SCHEMA: &str = include_str!("../../examples/orders/schema.sql");

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dump_restores_and_goes_on() {
    let old = Postgres::start().await;
    old.sql(SCHEMA).await;
    old.sql(
        r#"insert into orders (tenant_id, table_number) select 'a', i from generate_series(1, 5) i;
           update headwater.meta set epoch = 3;
           select headwater.ingest('[{"id": "0190a0a0-0000-7000-8000-000000000001", "event_type": "order.eaten",
             "entity_type": "order", "entity_id": "1", "payload": {}, "timestamp": "2026-01-01T00:00:00Z"}]', '{"trusted": true}')"#,
    )
    .await;
    let dump = old.run("pg_dump", &[]).await.stdout;

    let new = Postgres::start_bare(&["wal_level=logical"]).await;
    let file = std::env::temp_dir().join(format!("headwater-dump-{}.sql", std::process::id()));
    std::fs::write(&file, dump).unwrap();
    let restored = new.run("psql", &["-q", "-1", "-v", "ON_ERROR_STOP=1", "-f", file.to_str().unwrap()]).await;
    std::fs::remove_file(&file).unwrap();
    println!("{}", String::from_utf8_lossy(&restored.stderr));

    for table in ["event", "entity", "receipt", "rejected_event", "meta"] {
        let rows = format!("select count(*) from headwater.{table}");
        assert_eq!(old.count(&rows).await, new.count(&rows).await, "{table}");
    }
    assert_eq!(3, new.count("select epoch from headwater.meta").await);
    new.make_streamer_role().await;
    let streamer = Streamer::start(&new, &[]).await;
    new.sql("insert into orders (tenant_id) values ('b')").await;
    let page = streamer.since(&[]).await;
    let positions: Vec<i64> = page["events"].as_array().unwrap().iter().map(position).collect();
    assert_eq!(6, positions.len());
    assert!(positions.is_sorted(), "{positions:?}");
    assert_eq!(0, new.count("select count(*) from headwater.check() where problem not like '%slot%'").await);
}
