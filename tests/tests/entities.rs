//! Promise: a device that starts from a snapshot and goes on from its cursor has every change exactly once, whatever is
//! written meanwhile. Oracle: each change of a row of the load's table adds one to a number, so the first event that is
//! not in a state must bring that state's number plus one.

use std::collections::HashMap;

use headwater_tests::deadline::{PATIENCE, eventually};
use headwater_tests::event::{position, text};
use headwater_tests::http::{self, with_query};
use headwater_tests::postgres::Postgres;
use headwater_tests::sse::Connection;
use headwater_tests::streamer::Streamer;
use headwater_tests::token;
use serde_json::{Value, json};

use crate::load::Load;
use crate::orders;

/// The states by entity, and the cursor.
async fn snapshot(streamer: &Streamer, entity_type: &str) -> (HashMap<String, Value>, String) {
    let answer = http::get(&streamer.url(&format!("/api/v1/entities/{entity_type}/snapshot")), &[]).await;
    assert_eq!((answer.status, answer.content_type.as_str()), (200, "application/x-ndjson"), "{answer:?}");
    let mut lines: Vec<Value> = answer.body.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let last = lines.pop().unwrap();
    assert_eq!(last["count"], lines.len(), "{last}");
    let states = lines.into_iter().map(|line| (text(&line, "entity_id").to_owned(), line)).collect();
    (states, text(&last, "cursor").to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_and_its_cursor_join_exactly_under_writers() {
    let postgres = Postgres::start().await;
    let streamer = Streamer::start(&postgres, &["--ring-bytes", "65536"]).await;
    let load = Load::start(&postgres).await;
    let mut contained = 0;
    for _ in 0..15 {
        let (states, cursor) = snapshot(&streamer, "counter").await;
        assert_eq!(states.len(), 20);
        let url = with_query(&streamer.url("/api/v1/events/stream"), &[("entity_type", "counter")]);
        let connection = Connection::open(url, Some(&cursor)).await;
        let mut connection = connection.unwrap_or_else(|answer| panic!("{answer:?}"));
        let mut last: HashMap<String, (i64, i64)> = HashMap::new();
        for (id, state) in &states {
            last.insert(id.clone(), (position(state), state["state"]["n"].as_i64().unwrap()));
        }
        for _ in 0..200 {
            let event = connection.next_event().await.json();
            let (at, n) = last.get_mut(text(&event, "entity_id")).unwrap();
            if position(&event) <= *at {
                contained += 1;
                continue;
            }
            let now = event["payload"]["n"].as_i64().unwrap();
            assert_eq!(*n + 1, now, "a change is missing or comes twice: {event}");
            (*at, *n) = (position(&event), now);
        }
    }
    println!("{contained} events were in states already");
    tokio::time::timeout(PATIENCE, load.stop()).await.unwrap();
}

#[tokio::test]
async fn an_entity_has_a_state_a_past_and_a_history() {
    let (postgres, streamer) = orders::start(&[]).await;
    postgres
        .sql(
            "create table pair (a text, b int, note text, primary key (a, b)); insert into pair values ('before', 1, 'x');
             select headwater.enable('pair', entity => 'pair');
             insert into pair values ('x/y~', 2, 'first');",
        )
        .await;
    postgres.sql("update pair set note = 'second' where b = 2").await;
    postgres.sql("update pair set note = 'third' where b = 2").await;
    let url = |id: &str| streamer.url(&format!("/api/v1/entities/pair/{id}"));

    let found = http::get(&url("x~1y~0%2F2"), &[]).await.json();
    assert_eq!(found["state"], json!({"a": "x/y~", "b": 2, "note": "third"}), "{found}");
    assert_eq!(found["entity_id"], "x~1y~0/2");
    let (states, _) = snapshot(&streamer, "pair").await;
    assert_eq!(states.len(), 2);
    assert_eq!(states["before/1"]["last"], Value::Null, "a baseline has no last event");
    assert_eq!(states["x~1y~0/2"]["last"], found["last"]);

    let mut events = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = http::get(&url("x~1y~0%2F2/history"), &[("limit", "2"), ("cursor", &cursor)]).await.json();
        events.extend(page["events"].as_array().unwrap().iter().cloned());
        if page["has_more"] == false {
            break;
        }
        text(&page, "cursor").clone_into(&mut cursor);
    }
    assert_eq!(events.len(), 3);
    assert_eq!(found["last"], json!({"timestamp": events[2]["timestamp"], "id": events[2]["id"]}));
    for (event, note) in events.iter().zip(["first", "second", "third"]) {
        let then = http::get(&url("x~1y~0%2F2"), &[("as_of", text(event, "timestamp"))]).await.json();
        assert_eq!(then["state"]["note"], note, "{then}");
    }
    http::get(&url("x~1y~0%2F2"), &[("as_of", "2000-01-01T00:00:00Z")]).await.assert_problem(404, "not_found");
    http::get(&url("x~1y~0%2F2"), &[("as_of", "yesterday")]).await.assert_problem(400, "invalid_parameter");
    for nobody in ["x%2F3", "x", "x%2Fseven", "x%2F02", "x%2F2%2F2", "%2F", "a%00b%2F1"] {
        let answer = http::get(&url(nobody), &[]).await;
        assert!(matches!(answer.status, 400 | 404), "{nobody}: {answer:?}");
    }
    for path in ["ghost/snapshot", "ghost/1", "ghost/1?as_of=2026-01-01T00:00:00Z"] {
        http::get(&streamer.url(&format!("/api/v1/entities/{path}")), &[]).await.assert_problem(404, "unknown_entity");
    }
    http::get(&url("x/history"), &[("cursor", "garbage")]).await.assert_problem(400, "invalid_cursor");
}

/// More than what waits in memory, the kernel's buffers included.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn devices_that_do_not_read_their_snapshots_stop_nobody_elses() {
    let (postgres, streamer) = orders::start(&token::ARGUMENTS).await;
    postgres
        .sql(
            "insert into orders (tenant_id, status) select 'slow', repeat('x', 8000) from generate_series(1, 4000);
             insert into orders (tenant_id) values ('quick')",
        )
        .await;
    let path = "/api/v1/entities/order/snapshot";
    let slow = token::of(Some("slow"), "ann");
    let mut held = Vec::new();
    for number in 0..6 {
        // Its head is read and nothing of its body: each of them was let in.
        let mut answer = http::client().get(streamer.url(path)).bearer_auth(&slow).send().await.unwrap();
        assert_eq!(200, answer.status(), "{number}");
        assert!(answer.chunk().await.unwrap().is_some());
        held.push(answer);
    }
    let quick = http::get_as(&token::of(Some("quick"), "bob"), &streamer.url(path), &[]).await;
    assert_eq!((200, 2), (quick.status, quick.body.lines().count()), "{quick:?}");
    let transactions = "select count(*) from pg_stat_activity where state like 'idle in transaction%' and query like '%headwater_states%'";
    eventually("their snapshots to be read, and closed", || async {
        (postgres.count(transactions).await == 0).then_some(())
    })
    .await;
    // And what waited for them comes, whole and in order.
    let mut answer = held.pop().unwrap();
    let mut lines = 0;
    let mut last = Vec::new();
    while let Some(chunk) = answer.chunk().await.unwrap() {
        lines += String::from_utf8_lossy(&chunk).matches('\n').count();
        last.extend_from_slice(&chunk);
        let tail = last.len().saturating_sub(1000);
        last.drain(..tail);
    }
    assert!((3000..=4001).contains(&lines), "{lines} and the first chunk");
    let last = String::from_utf8_lossy(&last);
    assert!(last.lines().last().unwrap().contains("\"count\":4000"), "{last}");
}
