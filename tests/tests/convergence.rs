//! Promise: whoever writes, plain SQL and clients' events, on the same entities, at the same time, in time or late, with
//! rollbacks, savepoints, two-phase commit, deadlocks, at every isolation level: after every commit each row equals the
//! fold of its entity's events; every change of a row by SQL is one event (a move is two) that says what changed; and the
//! positions of an entity's events rise in commit order.
//!
//! Oracle: Postgres' own `test_decoding`, which sees the changes of the tables and those of `headwater.event`, transaction
//! by transaction in commit order; and the fold of `headwater_model` in this process. Nothing of the extension is asked.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use headwater_model::clock::Micros;
use headwater_model::event::{StoredEvent, name_of};
use headwater_model::rules::Rules;
use headwater_model::{fold, json};
use headwater_tests::deadline::eventually;
use headwater_tests::decoded::{Change, Decoded, Row, Transaction};
use headwater_tests::postgres::{self, Postgres};
use headwater_tests::random::{Random, seed};
use serde_json::{Map, Value, json};
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

const WRITERS: u64 = 32;
/// `HEADWATER_TEST_CONVERGENCE_SECONDS=180` for the long campaign.
const SECONDS: u64 = 6;
/// Few, so that writers meet.
const ACCOUNTS: u64 = 24;
const LINES: u64 = 32;

const SCHEMA: &str = "
    create table account (id int primary key, tenant_id text, name text, n int default 1, items jsonb default '[]');
    create table line (
      id text, part int, tenant_id text, qty numeric default 1, note text,
      account_id int references account on update cascade on delete cascade,
      helper_id int references account on update cascade on delete set null,
      primary key (id, part)
    );";

fn rules(entity: &str) -> Value {
    match entity {
        "account" => json!({
            "created": {"rule": "create"}, "named": {"rule": "set", "fields": ["name"]}, "deleted": {"rule": "delete"},
            "item_added": {"rule": "append", "field": "items", "value": "item"}, "counted": {"rule": "increment", "field": "n", "by": "by"}
        }),
        _ => json!({
            "created": {"rule": "create"}, "changed": {"rule": "set"}, "deleted": {"rule": "delete"},
            "added": {"rule": "increment", "field": "qty", "by": "by"}
        }),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_equal_folds_and_changes_equal_events_under_concurrent_writers() {
    // Deadlocks are part of it: let Postgres find them soon.
    let settings = [
        "wal_level=logical",
        "max_prepared_transactions=64",
        "deadlock_timeout=20ms",
        "fsync=off",
        "max_connections=60",
    ];
    let postgres = Postgres::start_bare(&settings).await;
    postgres.sql("create extension headwater").await;
    postgres.sql(SCHEMA).await;
    let client = postgres.connect().await;
    for entity in ["account", "line"] {
        let enable = "select headwater.enable($1::text::regclass, entity => $1::text, events => $2::jsonb, tenant_column => 'tenant_id')";
        client.query(enable, &[&entity, &rules(entity)]).await.unwrap();
    }
    Decoded::begin(&client).await;

    let seed = seed();
    let seconds =
        std::env::var("HEADWATER_TEST_CONVERGENCE_SECONDS").map_or(SECONDS, |seconds| seconds.parse().unwrap());
    let until = Instant::now() + Duration::from_secs(seconds);
    let mut writers = Vec::new();
    for number in 1..=WRITERS {
        let client = postgres.connect().await;
        let writer = Writer { client, random: Random::new(seed ^ (number << 32)), number, outcomes: BTreeMap::new() };
        writers.push(tokio::spawn(writer.write(until)));
    }
    let mut outcomes: BTreeMap<String, u64> = BTreeMap::new();
    for writer in writers {
        for (outcome, count) in writer.await.unwrap() {
            *outcomes.entry(outcome).or_default() += count;
        }
    }
    let mut oracle = Oracle::default();
    while let Some(transactions) = Decoded::next(&client).await {
        for transaction in &transactions {
            oracle.take(transaction);
        }
    }
    println!("{outcomes:?}\n{:?}", oracle.seen);
    for what in ["committed", "deadlock", "prepared", "serialization", "rolled back"] {
        assert!(outcomes.contains_key(what), "no transaction was {what}: the seed shows nothing");
    }
    for what in ["created by sql", "updated by sql", "deleted by sql", "moved by sql", "events of clients"] {
        assert!(oracle.seen.contains_key(what), "nothing was {what}: the seed shows nothing");
    }
    oracle.check_end(&client).await;
}

type Key = (String, Option<String>, String);

/// Follows rows and events of the decoded transactions, each apart from the other, and compares them at every commit.
#[derive(Default)]
struct Oracle {
    rows: BTreeMap<Key, Row>,
    events: BTreeMap<Key, Vec<StoredEvent>>,
    positions: BTreeMap<Key, i64>,
    seen: BTreeMap<&'static str, u64>,
}

impl Oracle {
    fn take(&mut self, transaction: &Transaction) {
        let mut touched = BTreeSet::new();
        let mut expected: BTreeMap<Key, Vec<(&str, Value)>> = BTreeMap::new();
        let mut captured: BTreeMap<Key, Vec<(String, Value)>> = BTreeMap::new();
        let mut by_sql_alone = true;
        for change in &transaction.changes {
            if change.table == "headwater.event" {
                let event = change.new.as_ref().expect("events are only inserted");
                let key = key_of_event(event);
                touched.insert(key.clone());
                by_sql_alone &= event["source"] == "capture";
                let stored = stored(event);
                captured
                    .entry(key.clone())
                    .or_default()
                    .push((stored.name.clone(), Value::Object(stored.payload.clone())));
                self.take_position(&key, &stored, event["position"].as_str().unwrap().parse().unwrap());
                self.events.entry(key).or_default().push(stored);
            } else if let Some(table) = change.table.strip_prefix("public.") {
                for (key, event) in self.take_change(table, change) {
                    touched.insert(key.clone());
                    expected.entry(key).or_default().extend(event);
                }
            }
        }
        if by_sql_alone {
            for events in captured.values_mut() {
                updates_before_deletes(events);
            }
            // What happens to an entity more than once in a transaction happens in this order.
            let expected: BTreeMap<_, Vec<_>> = expected
                .into_iter()
                .map(|(key, events)| {
                    (key, events.into_iter().map(|(name, payload)| (name.to_owned(), payload)).collect())
                })
                .collect();
            assert_eq!(expected, captured, "transaction {}: changes of rows, and the events of them", transaction.xid);
        } else {
            *self.seen.entry("events of clients").or_default() += 1;
        }
        for key in touched {
            let mut events = self.events.get(&key).cloned().unwrap_or_default();
            let rules = Rules::parse(&rules(&key.0)).unwrap();
            let state = fold::fold(None, &mut events, &rules, &mut |_, _, _| None).map_or(Value::Null, Value::Object);
            let row = self.rows.get(&key).cloned().map_or(Value::Null, Value::Object);
            let last: Vec<_> = events.iter().rev().take(12).collect();
            assert!(
                json::equal(&state, &row),
                "after transaction {}, {key:?}: fold {state}, row {row}\n{last:#?}",
                transaction.xid
            );
        }
    }

    /// Changes the row; returns the events that capture would record for it.
    fn take_change(&mut self, table: &str, change: &Change) -> Vec<(Key, Option<(&'static str, Value)>)> {
        let key = |row: &Row| key_of_row(table, row);
        let object = |row: &Row| Value::Object(row.clone());
        match (&change.old, &change.new) {
            (None, Some(new)) => {
                assert_eq!(None, self.rows.insert(key(new), new.clone()), "inserted twice");
                *self.seen.entry("created by sql").or_default() += 1;
                vec![(key(new), Some(("created", object(new))))]
            }
            (Some(old), None) => {
                let known = self.rows.remove(&key(old)).map(without_nulls);
                assert_eq!(Some(old), known.as_ref(), "deleted another row");
                *self.seen.entry("deleted by sql").or_default() += 1;
                vec![(key(old), Some(("deleted", deleted(table, old))))]
            }
            (Some(old), Some(new)) if key(old) == key(new) => {
                assert_eq!(Some(old), self.rows.insert(key(new), new.clone()).as_ref(), "updated another row");
                let changed = new.iter().filter(|(name, value)| old.get(*name) != Some(*value));
                let changed: Map<_, _> = changed.map(|(name, value)| (name.clone(), value.clone())).collect();
                *self.seen.entry("updated by sql").or_default() += 1;
                vec![(key(new), Some(("updated", Value::Object(changed))))]
            }
            (Some(old), Some(new)) => {
                assert_eq!(Some(old), self.rows.remove(&key(old)).as_ref(), "moved another row");
                assert_eq!(None, self.rows.insert(key(new), new.clone()), "moved onto another row");
                *self.seen.entry("moved by sql").or_default() += 1;
                vec![(key(old), Some(("deleted", deleted(table, old)))), (key(new), Some(("created", object(new))))]
            }
            (None, None) => panic!("a change without rows: {change:?}"),
        }
    }

    /// Changes of a row are recorded under its lock. (An event that finds no row has no effect, and no lock against one
    /// that is just being inserted.)
    fn take_position(&mut self, key: &Key, event: &StoredEvent, position: i64) {
        if !event.captured {
            return;
        }
        let before = self.positions.insert(key.clone(), position);
        assert!(before < Some(position), "{key:?}: position {position} came behind {before:?}");
    }

    /// The tables and `materialize` say the same.
    async fn check_end(&self, client: &Client) {
        for table in ["account", "line"] {
            let count: i64 = client.query_one(&format!("select count(*) from {table}"), &[]).await.unwrap().get(0);
            let followed = self.rows.keys().filter(|key| key.0 == table).count();
            assert_eq!(i64::try_from(followed).unwrap(), count, "rows of {table}");
        }
        for key in self.events.keys() {
            let (entity, tenant, id) = key;
            let sql = "select headwater.materialize($1, $2, null, $3)";
            let state: Option<Value> = client.query_one(sql, &[entity, id, tenant]).await.unwrap().get(0);
            let row = self.rows.get(key).cloned().map(Value::Object);
            let equal =
                state.as_ref().zip(row.as_ref()).map_or(state.is_none() && row.is_none(), |(a, b)| json::equal(a, b));
            assert!(equal, "{key:?}: materialize {state:?}, row {row:?}");
        }
        let changes: i64 = client.query_one("select count(*) from headwater.event", &[]).await.unwrap().get(0);
        let events: usize = self.events.values().map(Vec::len).sum();
        assert_eq!(i64::try_from(events).unwrap(), changes, "events");
    }
}

/// Cascades of one statement may update a row and then delete it; the two are recorded when the statement ends, each kind
/// by itself. A row that is deleted cannot be updated: which came first is plain.
fn updates_before_deletes(events: &mut [(String, Value)]) {
    for i in 1..events.len() {
        if events[i].0 == "updated" && events[i - 1].0 == "deleted" {
            events.swap(i - 1, i);
        }
    }
}

fn key_of_row(table: &str, row: &Row) -> Key {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let id = match table {
        "account" => text(&row["id"]),
        _ => headwater_model::key::join(&[&text(&row["id"]), &text(&row["part"])]),
    };
    (table.to_owned(), row.get("tenant_id").and_then(Value::as_str).map(str::to_owned), id)
}

fn without_nulls(mut row: Row) -> Row {
    row.retain(|_, value| !value.is_null());
    row
}

fn deleted(table: &str, row: &Row) -> Value {
    let key: &[&str] = if table == "account" { &["id"] } else { &["id", "part"] };
    Value::Object(
        row.iter()
            .filter(|(name, _)| key.contains(&name.as_str()))
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect(),
    )
}

fn key_of_event(event: &Row) -> Key {
    let text = |name: &str| event[name].as_str().map(str::to_owned);
    (text("entity_type").unwrap(), text("tenant_id"), text("entity_id").unwrap())
}

fn stored(event: &Row) -> StoredEvent {
    let text = |name: &str| event[name].as_str().unwrap();
    StoredEvent {
        // As Postgres prints it in UTC.
        occurred_at: Micros::parse(&text("occurred_at").replace(' ', "T").replace("+00", "Z")).unwrap(),
        id: text("id").parse().unwrap(),
        name: name_of(text("event_type"), text("entity_type")).unwrap().to_owned(),
        captured: text("source") == "capture",
        payload: event["payload"].as_object().unwrap().clone(),
    }
}

struct Writer {
    client: Client,
    random: Random,
    number: u64,
    outcomes: BTreeMap<String, u64>,
}

impl Writer {
    async fn write(mut self, until: Instant) -> BTreeMap<String, u64> {
        let mut round = 0;
        while Instant::now() < until {
            round += 1;
            let outcome = match self.transaction(round).await {
                Ok(outcome) => outcome.to_owned(),
                Err(error) => {
                    let _ = self.client.batch_execute("rollback").await;
                    let code = error.code().unwrap_or_else(|| panic!("{error:?}"));
                    match code {
                        // Two met in opposite order: one is told to try again.
                        &SqlState::T_R_DEADLOCK_DETECTED => "deadlock".to_owned(),
                        &SqlState::T_R_SERIALIZATION_FAILURE => "serialization".to_owned(),
                        &SqlState::UNIQUE_VIOLATION | &SqlState::FOREIGN_KEY_VIOLATION => "constraint".to_owned(),
                        _ => panic!("{error:?}"),
                    }
                }
            };
            *self.outcomes.entry(outcome).or_default() += 1;
        }
        self.outcomes
    }

    async fn transaction(&mut self, round: u64) -> Result<&'static str, tokio_postgres::Error> {
        let level = self.random.below(5);
        let level = ["repeatable read", "serializable"].get(usize::try_from(level).unwrap()).copied();
        self.client.batch_execute(&format!("begin isolation level {}", level.unwrap_or("read committed"))).await?;
        for _ in 0..=self.random.below(3) {
            if self.random.below(2) == 0 && level.is_none() {
                self.ingest().await?;
                continue;
            }
            let savepoint = self.random.below(3) == 0;
            if savepoint {
                self.client.batch_execute("savepoint s").await?;
            }
            let sql = self.statement();
            match self.client.batch_execute(&sql).await {
                Err(error) if savepoint && error.code().is_some_and(|code| code.code().starts_with("23")) => {
                    self.client.batch_execute("rollback to s").await?;
                }
                outcome => outcome?,
            }
            if savepoint {
                let end = ["rollback to s", "release s"][self.random.index(2)];
                self.client.batch_execute(end).await?;
            }
        }
        let name = format!("w{}r{round}", self.number);
        let (end, outcome) = match self.random.below(8) {
            0 => (vec!["rollback".to_owned()], "rolled back"),
            1 => (vec![format!("prepare transaction '{name}'"), format!("commit prepared '{name}'")], "prepared"),
            2 => (vec![format!("prepare transaction '{name}'"), format!("rollback prepared '{name}'")], "rolled back"),
            _ => (vec!["commit".to_owned()], "committed"),
        };
        // One at a time: a transaction cannot be prepared within a multi-statement query.
        for statement in end {
            self.client.batch_execute(&statement).await?;
        }
        Ok(outcome)
    }

    fn statement(&mut self) -> String {
        let (a, b, n, tenant) = (self.account(), self.account(), self.random.below(9), self.tenant());
        let line = self.line();
        match self.random.below(14) {
            0 => format!("delete from account where id = {a}"),
            1 => format!("update account set items = items || '[{{\"n\": {n}}}]' where id = {a}"),
            2 => format!("update account set n = n + 1, name = 'sql {n}' where id in ({a}, {b})"),
            // The key, for cascades, and the tenant.
            3 => format!("update account set id = {b} where id = {a}"),
            4 => format!("update account set tenant_id = '{tenant}', n = {n} where id = {a}"),
            5 => format!(
                "update line set note = 'sql {n}' where account_id = {a}; update account set n = {n} where id = {b}"
            ),
            6 => format!("delete from line where id = '{}'", line.0),
            7 => format!(
                "update line set part = part % 3 + 1, qty = qty + 0.5 where id = '{}' and part = {}",
                line.0, line.1
            ),
            8 => format!(
                "delete from account where id in ({a}, {b}); insert into account (id, tenant_id, name) values ({a}, '{tenant}', 'again')"
            ),
            9 => format!(
                "merge into account using (select distinct * from (values ({a}), ({b})) v) v (id) on account.id = v.id
                          when matched and n > 5 then delete when matched then update set n = account.n + 1
                          when not matched and v.id <> {b} then insert (id, tenant_id) values (v.id, '{tenant}')"
            ),
            10 | 11 => format!(
                "insert into line (id, part, tenant_id, account_id, helper_id) values ('{}', {}, '{tenant}', {a}, {b})
                 on conflict (id, part) do update set qty = line.qty + 1, account_id = excluded.account_id",
                line.0, line.1
            ),
            _ => format!(
                "insert into account (id, tenant_id, name) values ({a}, '{tenant}', 'new {n}')
                 on conflict (id) do update set n = excluded.n, name = 'upsert'"
            ),
        }
    }

    async fn ingest(&mut self) -> Result<(), tokio_postgres::Error> {
        let now = now(&self.client).await;
        let events = (0..=self.random.below(4)).map(|_| self.event(now)).collect();
        let answer = ingest(&self.client, events).await?;
        for reject in answer["rejected"].as_array().unwrap() {
            // The row may be the other tenant's, the account of a line may be missing.
            assert!(["23505", "23503"].iter().any(|code| reject["sqlstate"] == *code), "{reject:#}");
        }
        Ok(())
    }

    /// In time, or up to two seconds late.
    fn event(&mut self, now: i64) -> Value {
        let n = self.random.below(9);
        let line = self.line();
        let (entity, id) = if self.random.below(3) == 0 {
            ("line", headwater_model::key::join(&[&line.0, &line.1.to_string()]))
        } else {
            ("account", self.account().to_string())
        };
        let (name, payload) = match (entity, self.random.below(6)) {
            ("account", 0 | 1) => ("created", json!({"name": format!("event {n}")})),
            ("account", 2) => ("item_added", json!({"item": {"n": n}})),
            ("account", 3) => ("counted", json!({"by": n})),
            ("account", 4) => ("named", json!({"name": format!("event {n}")})),
            ("line", 0 | 1) => ("created", json!({"account_id": self.account(), "qty": n.to_string()})),
            ("line", 2 | 3) => ("added", json!({"by": "0.25"})),
            ("line", 4) => ("changed", json!({"note": format!("event {n}"), "helper_id": null})),
            _ => ("deleted", json!({})),
        };
        let late = if self.random.below(3) == 0 { i64::try_from(self.random.below(2_000_000)).unwrap() } else { 0 };
        json!({
            "id": uuid::Builder::from_u128(u128::from(self.random.any()) << 64 | u128::from(self.random.any()))
                .with_version(uuid::Version::Random).with_variant(uuid::Variant::RFC4122).into_uuid(),
            "entity_type": entity, "event_type": format!("{entity}.{name}"), "entity_id": id, "tenant_id": self.tenant(),
            "timestamp": Micros(now - late).to_string(), "payload": payload,
        })
    }

    fn account(&mut self) -> u64 {
        self.random.below(ACCOUNTS)
    }

    fn line(&mut self) -> (String, u64) {
        let n = self.random.below(LINES);
        (format!("~l/{}", n / 2), n % 2 + 1)
    }

    /// Mostly one, so that rows are found.
    fn tenant(&mut self) -> &'static str {
        ["a", "a", "a", "b"][self.random.index(4)]
    }
}

async fn ingest(client: &Client, events: Vec<Value>) -> Result<Value, tokio_postgres::Error> {
    let sql = r#"select headwater.ingest($1, '{"trusted": true}')"#;
    Ok(client.query_one(sql, &[&Value::Array(events)]).await?.get(0))
}

/// Microseconds since 1970, by Postgres' clock.
async fn now(client: &Client) -> i64 {
    let row = client.query_one("select (extract(epoch from clock_timestamp()) * 1e6)::bigint", &[]).await.unwrap();
    row.get(0)
}

/// An event for a row that another transaction has inserted but not committed: no query sees the row, and yet the event
/// comes after it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_waits_for_the_insert_of_its_row() {
    let postgres = Postgres::start_bare(&["fsync=off"]).await;
    postgres.sql("create extension headwater").await;
    // The key is the primary key; a unique index in another order of columns; one of a partition.
    for (table, key) in [
        ("create table t (id int, part text, status text, primary key (id, part))", "array['id', 'part']"),
        (
            "create table t (junk int default 1, status text, part text not null, id int not null, unique (part, id) include (status))",
            "array['id', 'part']",
        ),
        (
            "create table t (id int, part text, status text, primary key (id, part)) partition by list (part);
          create table t1 partition of t for values in ('a'); create table t2 partition of t default",
            "array['id', 'part']",
        ),
    ] {
        postgres.sql(&format!("{table}; select headwater.enable('t', entity => 't', key => {key}, events => array['created', 'changed'])")).await;
        for (insert, ending, status) in [
            ("delete from t; insert into t (id, part) values (5, 'a')", "commit", Some("event")),
            ("delete from t; insert into t (id, part) values (5, 'a')", "rollback", None),
            ("update t set id = 5, part = 'a'", "commit", Some("event")),
        ] {
            postgres.sql("delete from t; insert into t (id, part) values (1, 'b')").await;
            let inserter = postgres.connect().await;
            inserter.batch_execute(&format!("begin; {insert}")).await.unwrap();
            let port = postgres.port();
            let sending = tokio::spawn(async move {
                let client = postgres::connect(port).await;
                let event = json!({
                    "id": uuid::Uuid::now_v7(), "entity_type": "t", "event_type": "t.changed", "entity_id": "5/a",
                    "timestamp": Micros(now(&client).await).to_string(), "payload": {"status": "event"},
                });
                assert_eq!(json!([]), ingest(&client, vec![event]).await.unwrap()["rejected"]);
            });
            let waiting =
                "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and query like '%ingest%'";
            eventually("ingest to wait, or to be done", || async {
                (sending.is_finished() || postgres.count(waiting).await == 1).then_some(())
            })
            .await;
            inserter.batch_execute(ending).await.unwrap();
            sending.await.unwrap();
            let found = inserter
                .query("select t.status, headwater.materialize('t', '5/a') ->> 'status' from t where id = 5", &[])
                .await
                .unwrap();
            assert_eq!(status, found.first().map(|row| row.get(0)), "{table}: {insert}; {ending}");
            assert_eq!(status, found.first().map(|row| row.get(1)), "{table}: {insert}; {ending}: the fold");
        }
        postgres.sql("select headwater.disable('t'); drop table t; delete from headwater.entity").await;
    }
}
