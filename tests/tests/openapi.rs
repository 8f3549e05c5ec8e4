//! Promise: `/openapi.json` says what the extension says, is the same for the same set-up, is valid `OpenAPI` 3.1, and has
//! no excluded column. Oracles: a file, and the validator of `scripts/bootstrap test`.

use headwater_tests::http;
use headwater_tests::place::{Scratch, checkout};
use headwater_tests::postgres::Postgres;
use headwater_tests::streamer::Streamer;
use serde_json::Value;
use std::process::Command;

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
