//! Promise: an operator may do anything at any time. While plain SQL and clients' events write, the table is enabled,
//! disabled and altered, its history compacted, dropped, erased, its rows backfilled and reconciled, all at once and in
//! whatever order. Every call ends, with an answer or an error that says what to do; none is an internal one. When all is
//! quiet and the table enabled, each row equals the fold of its events, and what clients were told of as accepted stands
//! in the log exactly once.
//!
//! Oracle: the table itself, its `materialize`, and what the writers were answered.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use headwater_model::clock::Micros;
use headwater_tests::deadline::PATIENCE;
use headwater_tests::postgres::{self, Postgres};
use headwater_tests::random::{Random, seed};
use serde_json::{Value, json};
use tokio_postgres::Client;

const WRITERS: u64 = 6;
const OPERATORS: u64 = 3;
/// `HEADWATER_TEST_MISUSE_SECONDS=180` for the long campaign.
const SECONDS: u64 = 5;
/// Few, so that all of them meet.
const ACCOUNTS: u64 = 20;

/// What an operator does. `N` is some account.
const OPERATIONS: &[(&str, &str)] = &[
    ("enable", "select headwater.enable('account', events => 'RULES')"),
    ("enable", "select headwater.enable('account')"),
    ("alter", "select headwater.enable('account', exclude => array['secret'])"),
    ("alter", "select headwater.enable('account', exclude => '{}')"),
    ("disable", "select headwater.disable('account')"),
    ("add", "alter table account add column extra text default 'x'"),
    ("rename", "alter table account rename column extra to other"),
    ("rename", "alter table account rename column other to extra"),
    ("retype", "alter table account alter column extra type varchar(20)"),
    ("drop", "alter table account drop column extra"),
    ("drop", "alter table account drop column other"),
    ("compact", "call headwater.compact('account', interval '90 days')"),
    ("compact", "call headwater.compact('account', interval '120 days')"),
    ("retain", "call headwater.apply_retention(interval '150 days')"),
    ("erase", "select headwater.erase('account', 'N')"),
    ("backfill", "call headwater.backfill('account')"),
    ("reconcile", "select headwater.reconcile('account')"),
    ("check", "select count(*) from headwater.check()"),
    ("openapi", "select headwater.openapi()"),
    ("truncate", "truncate account"),
    ("rewrite", "vacuum full account"),
    ("analyze", "analyze account"),
];

/// Errors that say what they should: busy, in conflict, not now, not there, there already.
const ANSWERS: &[&str] = &["40P01", "40001", "55P03", "55000", "42704", "42703", "42701", "22023", "23505"];

fn rules() -> Value {
    json!({
        "created": {"rule": "create"}, "named": {"rule": "set", "fields": ["name"]}, "deleted": {"rule": "delete"},
        "item_added": {"rule": "append", "field": "items", "value": "item"},
        "counted": {"rule": "increment", "field": "n", "by": "by"}
    })
}

/// What became of what was done, by its SQLSTATE or code.
type Outcomes = BTreeMap<String, u64>;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_may_do_anything_while_others_write() {
    let settings = ["wal_level=logical", "deadlock_timeout=20ms", "fsync=off", "max_connections=40"];
    let postgres = Postgres::start_bare(&settings).await;
    postgres.sql("create extension headwater").await;
    postgres
        .sql(&format!(
            "create table account (id int primary key, name text, n int default 1, items jsonb default '[]', secret text);
             insert into account select n, 'before' from generate_series(1, {ACCOUNTS}) n;
             select headwater.enable('account', events => '{}', backfill => false)",
            rules()
        ))
        .await;

    let seed = seed();
    let seconds = std::env::var("HEADWATER_TEST_MISUSE_SECONDS").map_or(SECONDS, |seconds| seconds.parse().unwrap());
    let until = Instant::now() + Duration::from_secs(seconds);
    let port = postgres.port();
    let writers: Vec<_> =
        (0..WRITERS).map(|n| tokio::spawn(write(port, Random::new(seed ^ (n << 32)), until))).collect();
    let operators: Vec<_> =
        (0..OPERATORS).map(|n| tokio::spawn(operate(port, Random::new(seed ^ ((n + 100) << 32)), until))).collect();

    let mut outcomes = Outcomes::new();
    let mut accepted = BTreeSet::new();
    for writer in writers {
        let (done, taken) = writer.await.unwrap();
        accepted.extend(taken);
        for (what, count) in done {
            *outcomes.entry(what).or_default() += count;
        }
    }
    for operator in operators {
        for (what, count) in operator.await.unwrap() {
            *outcomes.entry(what).or_default() += count;
        }
    }
    println!("{outcomes:?}");
    for (what, _) in OPERATIONS {
        assert!(outcomes.contains_key(&format!("{what}: done")), "{what} never succeeded: the seed shows nothing");
    }
    for what in ["sql: done", "ingest: accepted", "ingest: too_late", "ingest: erased"] {
        assert!(outcomes.contains_key(what), "nothing was {what}: the seed shows nothing");
    }
    check_end(&postgres, &accepted).await;
}

async fn check_end(postgres: &Postgres, accepted: &BTreeSet<String>) {
    let client = postgres.connect().await;
    client.batch_execute("select headwater.enable('account')").await.unwrap();
    client.batch_execute("call headwater.backfill('account')").await.unwrap();
    let wrong: Value = client
        .query_one(
            "select coalesce(jsonb_agg(to_jsonb(w)), '[]') from (
               select coalesce(a.id::text, e.entity_id) as id, headwater.to_json(a) as row,
                      headwater.materialize('account', coalesce(a.id::text, e.entity_id)) as fold
               from account a full join (select distinct entity_id from headwater.event where entity_type = 'account') e
                 on e.entity_id = a.id::text
             ) w where jsonb_strip_nulls(row - 'secret') is distinct from jsonb_strip_nulls(fold - 'secret')",
            &[],
        )
        .await
        .unwrap()
        .get(0);
    if let Some(id) = wrong[0]["id"].as_str() {
        explain(&client, id).await;
    }
    assert_eq!(wrong, json!([]), "rows that are not their folds: {wrong:#}");
    let rows = client
        .query("select id::text, count(*) from headwater.event where source = 'client' group by 1", &[])
        .await
        .unwrap();
    let stored: BTreeMap<String, i64> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    assert!(stored.values().all(|count| *count == 1), "an event stands twice");
    let foreign: Vec<_> = stored.keys().filter(|id| !accepted.contains(*id)).collect();
    assert!(foreign.is_empty(), "stored, but nobody was told: {foreign:?}");
    // What retention dropped is the only thing that may be gone.
    let dropped: i64 = client.query_one("select dropped_position from headwater.meta", &[]).await.unwrap().get(0);
    let missing = accepted.iter().filter(|id| !stored.contains_key(*id)).count();
    assert!(missing == 0 || dropped > 0, "{missing} accepted events are not there, and nothing was dropped");
    let problems: Value = client
        .query_one(
            "select coalesce(jsonb_agg(to_jsonb(c)), '[]') from headwater.check() c where problem not like '%slot%'",
            &[],
        )
        .await
        .unwrap()
        .get(0);
    assert_eq!(problems, json!([]), "{problems:#}");
}

/// Prints what is needed to understand why an entity's fold is not its row.
async fn explain(client: &Client, id: &str) {
    let story = client
        .query_one(
            "select coalesce(jsonb_agg(to_jsonb(e) order by e.occurred_at, e.id), '[]') from (
               select occurred_at, id, position, event_type, schema_version, source, payload from headwater.event where entity_id = $1
               union all
               select occurred_at, null, position, 'snapshot', schema_version, null, state from headwater.snapshot where entity_id = $1) e",
            &[&id],
        )
        .await
        .unwrap();
    for event in story.get::<_, Value>(0).as_array().unwrap() {
        println!("{event}");
    }
    let upcasts: Value = client
        .query_one("select upcasts from headwater.entity where entity_type = 'account'", &[])
        .await
        .unwrap()
        .get(0);
    println!("{upcasts}");
}

/// Does one thing after the other until the time is up.
async fn operate(port: u16, mut random: Random, until: Instant) -> Outcomes {
    let client = postgres::connect(port).await;
    let mut outcomes = Outcomes::new();
    while Instant::now() < until {
        let (what, statement) = random.one_of(OPERATIONS);
        let account = 1 + random.below(ACCOUNTS);
        let statement = statement.replace("RULES", &rules().to_string()).replace("'N'", &format!("'{account}'"));
        let outcome = answered(what, &statement, client.batch_execute(&statement))
            .await
            .map_or_else(|code| code, |()| "done".to_owned());
        *outcomes.entry(format!("{what}: {outcome}")).or_default() += 1;
    }
    outcomes
}

/// The answer, or the SQLSTATE of an error that is one.
async fn answered<T>(
    what: &str,
    statement: &str,
    call: impl Future<Output = Result<T, tokio_postgres::Error>>,
) -> Result<T, String> {
    let answer = tokio::time::timeout(PATIENCE, call).await;
    let answer = answer.unwrap_or_else(|_| panic!("{what}: no answer in {PATIENCE:?}: {statement}"));
    answer.map_err(|error| {
        let code = error.code().map_or_else(String::new, |code| code.code().to_owned());
        assert!(ANSWERS.contains(&code.as_str()), "{what}: {error:?}\n{statement}");
        code
    })
}

/// Writes by SQL and by ingest until the time is up; returns the ids of the events that were accepted.
async fn write(port: u16, mut random: Random, until: Instant) -> (Outcomes, BTreeSet<String>) {
    let client = postgres::connect(port).await;
    let (mut outcomes, mut accepted) = (Outcomes::new(), BTreeSet::new());
    while Instant::now() < until {
        if random.below(2) == 0 {
            let statement = sql(&mut random);
            let answer = answered("sql", &statement, client.batch_execute(&statement)).await;
            if answer.is_err() {
                client.batch_execute("rollback").await.unwrap();
            }
            let outcome = answer.map_or_else(|code| code, |()| "done".to_owned());
            *outcomes.entry(format!("sql: {outcome}")).or_default() += 1;
        } else {
            ingest(&client, &mut random, &mut outcomes, &mut accepted).await;
        }
    }
    (outcomes, accepted)
}

fn sql(random: &mut Random) -> String {
    let (a, b) = (1 + random.below(ACCOUNTS), 1 + random.below(ACCOUNTS));
    match random.below(7) {
        0..=1 => format!(
            "insert into account (id, name) values ({a}, 'sql') on conflict (id) do update set n = account.n + 1"
        ),
        2 => format!("update account set name = 'sql {b}', secret = 's' where id = {a}"),
        3 => format!(
            "begin; update account set n = n + 1 where id = {a}; update account set n = n + 1 where id = {b}; commit"
        ),
        4 => format!("delete from account where id = {a}"),
        5 => format!(
            "begin; savepoint s; update account set n = 0 where id = {a}; rollback to s; delete from account where id = {b}; rollback"
        ),
        _ => format!("update account set items = items || '{{\"by\": \"sql\"}}' where id between {a} and {a} + 3"),
    }
}

async fn ingest(client: &Client, random: &mut Random, outcomes: &mut Outcomes, accepted: &mut BTreeSet<String>) {
    let events: Vec<Value> = (0..=random.below(8))
        .map(|_| {
            let (name, payload) = match random.below(6) {
                0..=1 => ("created", json!({"name": "client"})),
                2 => ("named", json!({"name": random.one_of(&["x", "y"])})),
                3 => ("item_added", json!({"item": random.below(9)})),
                4 => ("counted", json!({"by": 2})),
                _ => ("deleted", json!({})),
            };
            let days = *random.one_of(&[0, 0, 1, 100, 130, 200]);
            let at = Micros::parse(&headwater_tests::event::now()).unwrap().0 - days * 86_400_000_000;
            json!({
                "id": uuid::Uuid::now_v7(), "entity_type": "account", "event_type": format!("account.{name}"), "payload": payload,
                "entity_id": (1 + random.below(ACCOUNTS)).to_string(), "timestamp": Micros(at).to_string(),
            })
        })
        .collect();
    let batch = Value::Array(events);
    let call = async { client.query_one("select headwater.ingest($1, '{\"trusted\": true}')", &[&batch]).await };
    match answered("ingest", &batch.to_string(), call).await {
        Err(code) => *outcomes.entry(format!("ingest: {code}")).or_default() += 1,
        Ok(row) => {
            let answer: Value = row.get(0);
            for id in answer["accepted"].as_array().unwrap() {
                accepted.insert(id.as_str().unwrap().to_owned());
                *outcomes.entry("ingest: accepted".to_owned()).or_default() += 1;
            }
            for rejected in answer["rejected"].as_array().unwrap() {
                let code = rejected["code"].as_str().unwrap();
                let known = [
                    "unknown_event_type",
                    "too_late",
                    "erased",
                    "invalid_payload",
                    "constraint_violation",
                    "forbidden",
                ];
                assert!(known.contains(&code), "{rejected}");
                *outcomes.entry(format!("ingest: {code}")).or_default() += 1;
            }
        }
    }
}
