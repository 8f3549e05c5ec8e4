//! Promise: `/openapi.json` says what the extension says, is the same for the same set-up, is valid `OpenAPI` 3.1, and has
//! no excluded column; and whoever asks for it keeps nobody from Postgres. Oracles: a file, the validator of `scripts/bootstrap test`,
//! Postgres' log.

use headwater_tests::deadline::eventually;
use headwater_tests::http;
use headwater_tests::place::{Scratch, checkout};
use headwater_tests::postgres::Postgres;
use headwater_tests::streamer::Streamer;
use serde_json::Value;
use std::process::Command;
use tokio::task::JoinSet;

const SCHEMA: &str = include_str!("../../examples/orders/schema.sql");

/// One of each kind of type.
const TYPES: &str = r#"
    create type mood as enum ('glad', 'sad');
    create type place as (street text, number int8);
    create domain email as text check (value like '%@%');
    create table things (
        shop int, code text, owner text, primary key (shop, code),
        b boolean not null, i2 int2, i4 int4 not null, i8 int8 not null, n numeric(10, 2), f float8, v varchar(20) not null,
        t text, u uuid, d date, ts timestamp, tz timestamptz not null, by bytea, j json, jb jsonb not null, m mood not null,
        nm mood, p place, e email, ia int[], na numeric[] not null, r int4range, iv interval,
        g int generated always as (i4 + 1) stored, secret text, "od/d na~me" int);
    select headwater.enable('things', tenant_column => 'owner', exclude => '{secret}', notification => 'noop', events => '{
        "created": {"rule": "create"}, "changed": {"rule": "set"}, "renamed": {"rule": "set", "fields": ["t", "v"]},
        "cleared": {"rule": "unset", "fields": ["t"]}, "counted": {"rule": "increment", "field": "n", "by": "amount"},
        "listed": {"rule": "append", "field": "ia", "value": "number"}, "unlisted": {"rule": "remove", "field": "ia", "value": "number"},
        "dropped": {"rule": "remove", "field": "jb", "where": {"id": "item_id"}}, "noted": {"rule": "ignore"}, "deleted": {"rule": "delete"}}');
    select headwater.upcast('thing', 1, '[{"step": "default", "field": "t", "value": "none"}]');
    select headwater.upcast('thing.renamed', 1, '{"step": "rename", "field": "title", "to": "t"}');
    create table plain (id int primary key); select headwater.enable('plain'); select headwater.disable('plain');
    create table shown (id int primary key); select headwater.publish('shown')"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_openapi_document_is_valid_and_always_the_same() {
    let postgres = Postgres::start().await;
    postgres.sql(SCHEMA).await;
    postgres.sql(TYPES).await;
    let streamer = Streamer::start(&postgres, &[]).await;

    let answer = http::get(&streamer.url("/openapi.json"), &[]).await;
    assert_eq!(answer.status, 200);
    let served = answer.json();
    let again = http::get(&streamer.url("/openapi.json"), &[]).await;
    assert_eq!(answer.body, again.body, "byte by byte");
    assert!(!answer.body.contains("secret"), "an excluded column");

    let file = checkout().join("tests/golden/openapi.json");
    if std::env::var_os("HEADWATER_WRITE_GOLDEN").is_some() {
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, serde_json::to_string_pretty(&served).unwrap() + "\n").unwrap();
    }
    let golden: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    assert!(golden == served, "differs from {}; HEADWATER_WRITE_GOLDEN=1 writes it anew", file.display());

    let validator = std::env::var("HEADWATER_TEST_OPENAPI_VALIDATOR").expect("scripts/test e2e names the validator");
    let scratch = Scratch::new("openapi");
    let document = scratch.path().join("openapi.json");
    std::fs::write(&document, &answer.body).unwrap();
    let judged = Command::new(validator).args(["--schema", "3.1"]).arg(&document).output().unwrap();
    assert!(
        judged.status.success(),
        "{}{}",
        String::from_utf8_lossy(&judged.stdout),
        String::from_utf8_lossy(&judged.stderr)
    );
}

/// Anybody may ask for it, without a token and as often as he likes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn however_many_ask_for_the_document_one_of_them_asks_postgres() {
    const ASKING: usize = 100;
    let postgres = Postgres::start_bare(&["wal_level=logical", "log_statement=all"]).await;
    postgres.install().await;
    postgres.sql(SCHEMA).await;
    let streamer = Streamer::start(&postgres, &[]).await;
    let url = streamer.url("/openapi.json");
    let read = || postgres.logged().matches("select headwater.openapi()").count();

    let locker = postgres.connect().await;
    locker.batch_execute("begin; lock table headwater.entity in access exclusive mode").await.unwrap();
    let mut asking = JoinSet::new();
    for _ in 0..ASKING {
        let request = http::client().get(&url);
        asking.spawn(async move { request.send().await.unwrap() });
    }
    eventually("the first one to ask Postgres", || async { (read() > 0).then_some(()) }).await;
    for _ in 0..20 {
        assert_eq!(200, http::get(&streamer.url("/live"), &[]).await.status);
    }
    assert_eq!(1, read(), "the others wait for its answer");
    locker.batch_execute("commit").await.unwrap();
    let mut tags = std::collections::HashSet::new();
    while let Some(answer) = asking.join_next().await {
        let answer = answer.unwrap();
        assert_eq!(200, answer.status());
        tags.insert(answer.headers()["etag"].to_str().unwrap().to_owned());
    }
    assert_eq!(1, tags.len(), "{tags:?}");
    // Who comes later asks anew.
    assert!(read() <= ASKING / 4, "{} of them asked Postgres", read());

    let tag = tags.into_iter().next().unwrap();
    let again = || http::send(http::client().get(&url).header("if-none-match", &tag));
    let answer = again().await;
    assert_eq!((304, ""), (answer.status, answer.body.as_str()));
    // Nobody gets one that is older than his request.
    postgres.sql("create table later (id int primary key); select headwater.enable('later')").await;
    assert!(again().await.body.contains("/later/"));
    postgres.sql("alter table later add column note text").await;
    assert!(http::get(&url, &[]).await.body.contains("\"note\""));
}
