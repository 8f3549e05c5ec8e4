//! Promise: the row in the user's table equals the fold of its events after every commit, whoever wrote: plain SQL and
//! clients' events, on the same entities, at the same time, in time or late, with rollbacks, savepoints and two-phase
//! commit. Oracle: `headwater.materialize`, which reads events only, against the table.

use headwater_model::clock::Micros;
use headwater_tests::deadline::eventually;
use headwater_tests::postgres::Postgres;
use serde_json::{Value, json};
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

const SCHEMA: &str = include_str!("../../examples/orders/schema.sql");
const WRITERS: u64 = 12;
const ROUNDS: u64 = 120;
/// Few, so that writers meet.
const ENTITIES: u64 = 6;

/// Rows and folds that differ, in either direction.
const DIFFERENCES: &str = "
    select o.id::text || ': row ' || to_jsonb(o)::text || ', fold ' || coalesce(fold::text, 'absent')
    from orders o cross join headwater.materialize('order', o.id::text, null, o.tenant_id) fold
    where (to_jsonb(o) - 'updated_at') is distinct from (fold - 'updated_at')
    union all
    select e.entity_id || ': no row, fold ' || fold::text
    from (select distinct entity_id, tenant_id from headwater.event) e
    cross join headwater.materialize('order', e.entity_id, null, e.tenant_id) fold
    where fold is not null
      and not exists (select from orders o where o.id::text = e.entity_id and o.tenant_id is not distinct from e.tenant_id)";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_equal_folds_under_writers_of_both_kinds() {
    // Deadlocks are part of it: let Postgres find them soon.
    let settings = ["wal_level=logical", "max_prepared_transactions=20", "deadlock_timeout=20ms"];
    let postgres = Postgres::start_bare(&settings).await;
    postgres.install().await;
    postgres.sql(SCHEMA).await;
    let seed = std::env::var("HEADWATER_TEST_SEED").map_or(0x5EED, |seed| seed.parse().unwrap());
    println!("HEADWATER_TEST_SEED={seed}");
    let mut writers = Vec::new();
    for number in 0..WRITERS {
        let writer = Writer { client: postgres.connect().await, random: Random(seed ^ ((number + 1) << 32)), number };
        writers.push(tokio::spawn(writer.write()));
    }
    let mut committed = 0;
    for writer in writers {
        committed += writer.await.unwrap();
    }
    println!("{committed} transactions committed");
    assert!(committed > WRITERS * ROUNDS / 2, "hardly anything was committed");

    let differences = differences(&postgres).await;
    assert!(differences.is_empty(), "{differences:#?}");
    assert!(0 < postgres.count("select count(*) from headwater.event where source = 'client'").await);
    assert!(0 < postgres.count("select count(*) from headwater.event where source = 'capture'").await);
    // Changes of a row are recorded under its lock. (An event that finds no row has no effect, and no lock against one
    // that is just being inserted.)
    let backwards = "select count(*) from (
        select recorded_at < lag(recorded_at) over (partition by entity_id order by position) as backwards
        from headwater.event where source = 'capture') e where backwards";
    assert_eq!(0, postgres.count(backwards).await, "positions of an entity do not rise in commit order");
}

/// An event for a row that another transaction has inserted but not committed: no query sees the row, and yet the event
/// comes after it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_waits_for_the_insert_of_its_row() {
    let postgres = Postgres::start().await;
    postgres.sql(SCHEMA).await;
    let id = "11111111-1111-4111-8111-111111111111";
    for (insert, ending, status) in [
        (format!("insert into orders (id, tenant_id) values ('{id}', 'a')"), "commit", Some("event 1")),
        (format!("insert into orders (id, tenant_id) values ('{id}', 'a')"), "rollback", None),
        (format!("update orders set id = '{id}'"), "commit", Some("event 1")),
    ] {
        postgres.sql("delete from orders; insert into orders (tenant_id) select 'a'").await;
        let inserter = postgres.connect().await;
        inserter
            .batch_execute(&format!(
                "begin; {}{insert}",
                if insert.starts_with("update") { "" } else { "delete from orders; " }
            ))
            .await
            .unwrap();
        let mut writer = Writer { client: postgres.connect().await, random: Random(7), number: 0 };
        let ingest = tokio::spawn(async move {
            let now = now(&writer.client).await;
            let mut event = writer.event(now);
            event["timestamp"] = json!(Micros(now).to_string());
            event["entity_id"] = json!(id);
            event["event_type"] = json!("order.state_changed");
            event["payload"] = json!({"status": "event 1"});
            event["id"] = json!(uuid::Uuid::now_v7());
            writer.ingest(vec![event]).await.unwrap();
        });
        let waiting = "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and query like '%ingest%'";
        eventually("ingest to wait, or to be done", || async {
            (ingest.is_finished() || postgres.count(waiting).await == 1).then_some(())
        })
        .await;
        inserter.batch_execute(ending).await.unwrap();
        ingest.await.unwrap();
        let found =
            postgres.connect().await.query(&format!("select status from orders where id = '{id}'"), &[]).await.unwrap();
        assert_eq!(status, found.first().map(|row| row.get(0)), "{insert}; {ending}");
        assert_eq!(Vec::<String>::new(), differences(&postgres).await, "{insert}; {ending}");
    }
}

async fn differences(postgres: &Postgres) -> Vec<String> {
    postgres.connect().await.query(DIFFERENCES, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

/// Microseconds since 1970, by Postgres' clock.
async fn now(client: &Client) -> i64 {
    let row = client.query_one("select (extract(epoch from clock_timestamp()) * 1e6)::bigint", &[]).await.unwrap();
    row.get(0)
}

struct Writer {
    client: Client,
    random: Random,
    number: u64,
}

impl Writer {
    /// Returns how many transactions committed.
    async fn write(mut self) -> u64 {
        let mut committed = 0;
        for round in 0..ROUNDS {
            let outcome = if self.random.below(2) == 0 { self.by_sql(round).await } else { self.by_events().await };
            match outcome {
                Ok(done) => committed += u64::from(done),
                // Two batches, or a batch and SQL, met in opposite order: one is told to try again.
                Err(error) if error.code() == Some(&SqlState::T_R_DEADLOCK_DETECTED) => {
                    let _ = self.client.batch_execute("rollback").await;
                }
                Err(error) => panic!("{error:?}"),
            }
        }
        committed
    }

    async fn by_sql(&mut self, round: u64) -> Result<bool, tokio_postgres::Error> {
        self.client.batch_execute("begin").await?;
        for _ in 0..=self.random.below(2) {
            let savepoint = self.random.below(4) == 0;
            if savepoint {
                self.client.batch_execute("savepoint s").await?;
            }
            let sql = self.statement();
            self.client.batch_execute(&sql).await?;
            if savepoint {
                let end = ["rollback to s", "release s"][self.random.index(2)];
                self.client.batch_execute(end).await?;
            }
        }
        let name = format!("w{}r{round}", self.number);
        let (end, done) = match self.random.below(6) {
            0 => ("rollback".to_owned(), false),
            1 => (format!("prepare transaction '{name}'; commit prepared '{name}'"), true),
            2 => (format!("prepare transaction '{name}'; rollback prepared '{name}'"), false),
            _ => ("commit".to_owned(), true),
        };
        // One at a time: a transaction cannot be prepared within a multi-statement query.
        for statement in end.split("; ") {
            self.client.batch_execute(statement).await?;
        }
        Ok(done)
    }

    fn statement(&mut self) -> String {
        let (id, n) = (self.entity(), self.random.below(9));
        match self.random.below(7) {
            0 => format!("delete from orders where id = '{id}'"),
            1 => format!("update orders set items = items || '[{{\"id\": {n}}}]' where id = '{id}'"),
            2 => format!("update orders set status = 'sql {n}' where id in ('{id}', '{}')", self.entity()),
            _ => format!(
                "insert into orders (id, tenant_id, table_number) values ('{id}', 'a', {n})
                 on conflict (id) do update set table_number = excluded.table_number, status = 'upsert'"
            ),
        }
    }

    async fn by_events(&mut self) -> Result<bool, tokio_postgres::Error> {
        let now = now(&self.client).await;
        let events = (0..=self.random.below(3)).map(|_| self.event(now)).collect();
        self.ingest(events).await
    }

    async fn ingest(&mut self, events: Vec<Value>) -> Result<bool, tokio_postgres::Error> {
        let batch = Value::Array(events);
        let sql = r#"select headwater.ingest($1, '{"trusted": true}')"#;
        let answer: Value = self.client.query_one(sql, &[&batch]).await?.get(0);
        assert_eq!(answer["rejected"], json!([]), "{batch:#}");
        Ok(true)
    }

    /// In time, or up to two seconds late.
    fn event(&mut self, now: i64) -> Value {
        let n = self.random.below(9);
        let (name, payload) = match self.random.below(5) {
            0 => ("created", json!({"table_number": n})),
            1 => ("item_added", json!({"item": {"id": n}})),
            2 => ("item_removed", json!({"item_id": n})),
            3 => ("state_changed", json!({"status": format!("event {n}")})),
            _ => ("deleted", json!({})),
        };
        let late = if self.random.below(3) == 0 { i64::try_from(self.random.below(2_000_000)).unwrap() } else { 0 };
        json!({
            "id": uuid::Uuid::from_u128(u128::from(self.random.next()) << 64 | u128::from(self.random.next())),
            "entity_type": "order", "event_type": format!("order.{name}"), "entity_id": self.entity(), "tenant_id": "a",
            "timestamp": Micros(now - late).to_string(),
            "payload": payload,
        })
    }

    fn entity(&mut self) -> String {
        format!("00000000-0000-4000-8000-{:012}", self.random.below(ENTITIES))
    }
}

/// Xorshift: the same seed gives the same run of choices.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn index(&mut self, bound: usize) -> usize {
        usize::try_from(self.below(bound as u64)).unwrap()
    }
}
