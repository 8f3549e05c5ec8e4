//! Promise: the stream speaks Server-Sent Events as browsers do, says where it is even when nothing happens, and
//! goes on from any cursor that it ever gave.

use headwater_tests::deadline::eventually;
use headwater_tests::event::{order_event, position, text};
use headwater_tests::http::{self, with_query};
use headwater_tests::postgres::Postgres;
use headwater_tests::sse::Connection;
use headwater_tests::streamer::Streamer;
use serde_json::json;
use uuid::Uuid;

use crate::orders;

async fn open(streamer: &Streamer, query: &[(&str, &str)], last_event_id: Option<&str>) -> Connection {
    let url = with_query(&streamer.url("/api/v1/events/stream"), query);
    Connection::open(url, last_event_id).await.unwrap_or_else(|answer| panic!("no stream: {answer:?}"))
}

/// A stream that begins now. Its cursors name a place in the WAL, so that a resume is exact; those of a stream that
/// reads the table first may repeat what the client has already, which it recognises by the ids.
async fn live(streamer: &Streamer) -> Connection {
    let mut connection = open(streamer, &[], None).await;
    connection.next().await.expect("the first block");
    connection
}

async fn insert_order(postgres: &Postgres, table_number: i32) {
    postgres.sql(&format!("insert into orders (tenant_id, table_number) values ('cafe', {table_number})")).await;
}

/// The table numbers of the next `count` events.
async fn table_numbers(connection: &mut Connection, count: usize) -> Vec<i64> {
    let mut numbers = Vec::new();
    while numbers.len() < count {
        numbers.push(connection.next_event().await.json()["payload"]["table_number"].as_i64().unwrap());
    }
    numbers
}

#[tokio::test]
async fn plain_sql_and_clients_events_arrive_in_the_form_of_the_contract() {
    let (postgres, streamer) = orders::start(&[]).await;
    let mut connection = open(&streamer, &[], None).await;
    let first = connection.next().await.unwrap();
    assert!(first.retry.is_some(), "the first block tells when to come back: {first:?}");

    insert_order(&postgres, 7).await;
    let block = connection.next_event().await;
    assert_eq!(block.event.as_deref(), Some("order.created"));
    assert!(block.id.is_some());
    let event = block.json();
    assert_eq!(event["entity_type"], "order");
    assert_eq!(event["source"], "capture");
    assert_eq!(event["applies"], true);
    assert_eq!(event["tenant_id"], "cafe");
    assert_eq!(event["payload"]["table_number"], 7);
    assert_eq!(event["payload"]["status"], "open");
    assert_eq!(event["payload"]["items"], json!([]));
    for time in ["timestamp", "recorded_at"] {
        let written = text(&event, time);
        assert!(written.len() == 27 && written.ends_with('Z'), "six digits and Z: {written}");
    }
    for member in ["id", "position", "entity_id", "schema_version", "user_id", "client_id"] {
        assert!(event.get(member).is_some(), "no {member}: {event}");
    }

    postgres.sql("update orders set status = 'served'").await;
    let block = connection.next_event().await;
    assert_eq!(block.event.as_deref(), Some("order.updated"));
    assert_eq!(block.json()["payload"], json!({"status": "served"}), "only what changed");

    postgres.sql("delete from orders").await;
    assert_eq!(connection.next_event().await.event.as_deref(), Some("order.deleted"));

    let mine = order_event("order.created", Uuid::now_v7(), &json!({"table_number": 9}));
    let answer = streamer.batch(std::slice::from_ref(&mine)).await;
    assert_eq!(answer["accepted"], json!([mine["id"]]), "{answer}");
    let event = connection.next_event().await.json();
    assert_eq!(event["id"], mine["id"]);
    assert_eq!(event["source"], "client");
    assert_eq!(event["client_id"], "test-device");
    assert_eq!(event["payload"], json!({"table_number": 9}));

    // The same event, told by the other endpoint.
    let query = [("entity_type", "order"), ("entity_id", text(&mine, "entity_id"))];
    let since = eventually("the watermark to pass the event", || async {
        let page = streamer.since(&query).await;
        page["events"].get(0).cloned()
    })
    .await;
    assert_eq!(since, event);
}

#[tokio::test]
async fn an_idle_stream_says_where_it_is() {
    let (postgres, streamer) = orders::start(&["--heartbeat", "100ms"]).await;
    let mut connection = open(&streamer, &[("entity_type", "order")], None).await;
    let beat = connection.find("a heartbeat", |block| block.id.is_some() && block.data.is_none()).await;
    assert_eq!(beat.event, None);

    // Changes of what was not asked for move the cursor too, so that a resume need not go through them.
    postgres.sql("create table noise (id int primary key); select headwater.enable('noise', entity => 'noise')").await;
    postgres.sql("insert into noise select generate_series(1, 100)").await;
    let moved = connection
        .find("a later heartbeat", |block| block.data.is_none() && block.id.is_some() && block.id != beat.id)
        .await;
    insert_order(&postgres, 3).await;
    let mut resumed = open(&streamer, &[("entity_type", "order")], moved.id.as_deref()).await;
    assert_eq!(table_numbers(&mut resumed, 1).await, [3]);
}

#[tokio::test]
async fn a_stream_can_be_narrowed_to_entity_types() {
    let (postgres, streamer) = orders::start(&[]).await;
    for name in ["alpha", "beta", "gamma"] {
        postgres
            .sql(&format!(
                "create table {name} (id int primary key); select headwater.enable('{name}', entity => '{name}')"
            ))
            .await;
    }
    let mut connection = open(&streamer, &[("entity_type", "alpha,gamma")], Some(&streamer.cursor_now().await)).await;
    for id in 1..=3 {
        for name in ["beta", "alpha", "gamma"] {
            postgres.sql(&format!("insert into {name} values ({id})")).await;
        }
    }
    for id in 1..=3 {
        for name in ["alpha", "gamma"] {
            let event = connection.next_event().await.json();
            assert_eq!((text(&event, "entity_type"), text(&event, "entity_id")), (name, id.to_string().as_str()));
        }
    }
}

#[tokio::test]
async fn a_cursor_resumes_as_header_and_as_parameter() {
    let (postgres, streamer) = orders::start(&[]).await;
    let start = streamer.cursor_now().await;
    let mut connection = live(&streamer).await;
    let mut third = String::new();
    for number in 1..=5 {
        insert_order(&postgres, number).await;
        let block = connection.next_event().await;
        assert_eq!(block.json()["payload"]["table_number"], number);
        if number == 3 {
            third = block.id.unwrap();
        }
    }
    let mut by_header = open(&streamer, &[], Some(&third)).await;
    assert_eq!(table_numbers(&mut by_header, 2).await, [4, 5]);
    let mut by_parameter = open(&streamer, &[("cursor", &third)], None).await;
    assert_eq!(table_numbers(&mut by_parameter, 2).await, [4, 5]);
    // A browser that reconnects sends both: the header is newer.
    let mut by_both = open(&streamer, &[("cursor", &start)], Some(&third)).await;
    assert_eq!(table_numbers(&mut by_both, 2).await, [4, 5]);
    // A poller that goes on from there has the rest too; it may see again what the watermark had not passed by then.
    let last = eventually("the watermark to pass the last event", || async {
        let page = streamer.since(&[("cursor", &third)]).await;
        page["events"]
            .as_array()
            .unwrap()
            .last()
            .map(|event| event["payload"]["table_number"].clone())
            .filter(|n| *n == 5)
    })
    .await;
    assert_eq!(last, 5);
}

#[tokio::test]
async fn every_event_of_one_transaction_can_be_resumed_behind() {
    let (postgres, streamer) = orders::start(&[]).await;
    let mut connection = live(&streamer).await;
    postgres.sql("insert into orders (table_number) select generate_series(1, 5)").await;
    let mut blocks = Vec::new();
    for _ in 0..5 {
        blocks.push(connection.next_event().await);
    }
    for (done, block) in blocks.iter().enumerate().take(4) {
        let mut resumed = open(&streamer, &[], block.id.as_deref()).await;
        for expected in &blocks[done + 1..] {
            assert_eq!(resumed.next_event().await.json(), expected.json());
        }
    }
}

/// A ring of a few events, so that everything older must come from the table, joined to what is live.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cursor_older_than_the_ring_goes_on_from_the_table() {
    let (postgres, mut streamer) = orders::start(&["--ring-bytes", "16384"]).await;
    let start = streamer.cursor_now().await;
    for number in 1..=300 {
        insert_order(&postgres, number).await;
    }
    for restarted in [false, true] {
        if restarted {
            streamer.kill().await;
            streamer.resume().await;
        }
        let mut connection = open(&streamer, &[], Some(&start)).await;
        let first = table_numbers(&mut connection, 100).await;
        assert_eq!(first, (1..=100).collect::<Vec<_>>());
        // Live events while the catch-up is under way.
        insert_order(&postgres, 301).await;
        let rest = table_numbers(&mut connection, if restarted { 202 } else { 201 }).await;
        let expected: Vec<i64> = (101..=301).chain(restarted.then_some(301)).collect();
        assert_eq!(rest, expected);
    }
}

/// A transaction that was open when the client left, and whose events the ring has forgotten since, is behind the
/// watermark of the client's cursor and must come.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_transaction_does_not_fall_between_table_and_ring() {
    let (postgres, streamer) = orders::start(&["--ring-bytes", "16384"]).await;
    let start = streamer.cursor_now().await;
    let slow = postgres.connect().await;
    slow.batch_execute("begin; insert into orders (table_number) values (0)").await.unwrap();
    let mut connection = open(&streamer, &[], Some(&start)).await;
    insert_order(&postgres, 1).await;
    let cursor = connection.next_event().await.id.unwrap();
    drop(connection);
    for number in 2..=200 {
        insert_order(&postgres, number).await;
    }
    slow.batch_execute("commit").await.unwrap();
    for number in 201..=400 {
        insert_order(&postgres, number).await;
    }
    let mut resumed = open(&streamer, &[], Some(&cursor)).await;
    let mut seen = std::collections::BTreeSet::new();
    while seen.len() < 400 {
        let event = resumed.next_event().await.json();
        let number = event["payload"]["table_number"].as_i64().unwrap();
        // The one event that the client has already may come again: it recognises it by its id.
        if number != 1 {
            assert!(seen.insert(number), "{number} came twice, at position {}", position(&event));
        }
        if seen.len() == 399 + usize::from(seen.contains(&0)) && seen.contains(&0) {
            break;
        }
    }
    assert!(seen.contains(&0), "the slow transaction's event is lost");
    assert_eq!(seen.iter().filter(|number| **number > 1).count(), 399);
}

#[tokio::test]
async fn a_cursor_of_another_epoch_is_refused_with_a_reset() {
    let (postgres, mut streamer) = orders::start(&[]).await;
    insert_order(&postgres, 1).await;
    let cursor = streamer.cursor_now().await;
    // What an operator does after restoring a backup.
    postgres.sql("update headwater.meta set epoch = epoch + 1").await;
    streamer.terminate().await;
    streamer.resume().await;

    http::get(&streamer.url("/api/v1/events/since"), &[("cursor", &cursor)])
        .await
        .assert_problem(410, "cursor_expired");
    let mut connection = open(&streamer, &[], Some(&cursor)).await;
    let block = connection.find("a reset", |block| block.event.is_some()).await;
    assert_eq!(block.event.as_deref(), Some("headwater.reset"));
    assert!(block.json()["reason"].is_string(), "{block:?}");
    while let Some(block) = connection.next().await {
        assert_eq!(block.data, None, "after a reset the stream closes");
    }
}

/// What an operator does after restoring a backup, while streamer and clients are there.
#[tokio::test]
async fn a_raised_epoch_resets_live_streams() {
    let (postgres, streamer) = orders::start(&[]).await;
    insert_order(&postgres, 1).await;
    let cursor = streamer.cursor_now().await;
    let mut connection = live(&streamer).await;
    postgres.sql("update headwater.meta set epoch = epoch + 1").await;
    let block = connection.find("a reset", |block| block.event.is_some()).await;
    assert_eq!(block.event.as_deref(), Some("headwater.reset"));
    assert_eq!(block.id.as_deref(), Some(""), "the browser forgets the cursor");
    eventually("the streamer to be back", || async {
        (http::get(&streamer.url("/health"), &[]).await.status == 200).then_some(())
    })
    .await;
    http::get(&streamer.url("/api/v1/events/since"), &[("cursor", &cursor)])
        .await
        .assert_problem(410, "cursor_expired");
    // And not over and over again, although the slot sends the transaction that raised it once more.
    let mut connection = live(&streamer).await;
    insert_order(&postgres, 2).await;
    assert_eq!(table_numbers(&mut connection, 1).await, [2]);
}

#[tokio::test]
async fn a_stream_can_be_narrowed_to_one_entity() {
    let (postgres, streamer) = orders::start(&["--ring-bytes", "16384"]).await;
    let start = streamer.cursor_now().await;
    let mut connection = live(&streamer).await;
    drop(connection);
    postgres
        .sql("create table pair (a text, b int, primary key (a, b)); select headwater.enable('pair', entity => 'pair')")
        .await;
    let query = [("entity_type", "pair"), ("entity_id", "x\"y~1/1")];
    let mut early = open(&streamer, &query, Some(&start)).await;
    for round in 0..200 {
        postgres.sql(&format!("insert into pair values ('x\"y/', {round}), ('x', {round})")).await;
    }
    postgres.sql("delete from pair").await;
    connection = open(&streamer, &query, Some(&start)).await;
    for stream in [&mut early, &mut connection] {
        for event_type in ["pair.created", "pair.deleted"] {
            let event = stream.next_event().await.json();
            assert_eq!((text(&event, "event_type"), text(&event, "entity_id")), (event_type, "x\"y~1/1"));
        }
    }
}

#[tokio::test]
async fn pages_are_cut_and_narrowed() {
    let (postgres, streamer) = orders::start(&[]).await;
    postgres.sql("create table noise (id int primary key); select headwater.enable('noise', entity => 'noise')").await;
    for number in 1..=9 {
        insert_order(&postgres, number).await;
        postgres.sql(&format!("insert into noise values ({number})")).await;
    }
    let total = eventually("the watermark to pass the last event", || async {
        let page = streamer.since(&[]).await;
        let count = page["events"].as_array().unwrap().len();
        (count == 18).then_some(count)
    })
    .await;
    assert_eq!(total, 18);
    let page = streamer.since(&[("limit", "4"), ("entity_type", "order")]).await;
    assert_eq!(page["events"].as_array().unwrap().len(), 4);
    assert_eq!(page["has_more"], true);
    let rest = streamer.since(&[("cursor", text(&page, "cursor")), ("entity_type", "order")]).await;
    assert_eq!(rest["events"].as_array().unwrap().len(), 5);
    assert_eq!(rest["has_more"], false);
    let one = streamer.since(&[("entity_type", "noise"), ("entity_id", "5")]).await;
    assert_eq!(one["events"].as_array().unwrap().len(), 1);
    let time = text(&page["events"][3], "recorded_at");
    let later = streamer.since(&[("since", time), ("entity_type", "order")]).await;
    assert!((5..=6).contains(&later["events"].as_array().unwrap().len()), "{later}");
}

#[tokio::test]
async fn a_page_looks_at_so_many_events_and_then_says_where_to_go_on() {
    let (postgres, streamer) = orders::start(&[]).await;
    postgres.sql("create table noise (id int primary key); select headwater.enable('noise', entity => 'noise')").await;
    insert_order(&postgres, 1).await;
    // More than a page looks at.
    postgres.sql("insert into noise select n from generate_series(1, 60000) n").await;
    insert_order(&postgres, 2).await;
    streamer.cursor_now().await;
    let (mut pages, mut found, mut cursor) = (0, 0, String::new());
    loop {
        let query = [("entity_type", "order"), ("cursor", cursor.as_str())];
        let page = streamer.since(if cursor.is_empty() { &query[..1] } else { &query }).await;
        pages += 1;
        found += page["events"].as_array().unwrap().len();
        text(&page, "cursor").clone_into(&mut cursor);
        if page["has_more"] == false {
            break;
        }
    }
    assert_eq!((pages, found), (2, 2));
}

#[tokio::test]
async fn a_terminated_streamer_ends_its_streams_and_itself() {
    let (postgres, mut streamer) = orders::start(&[]).await;
    let mut connection = open(&streamer, &[], None).await;
    connection.next().await.unwrap();
    insert_order(&postgres, 1).await;
    let block = connection.next_event().await;
    let status = streamer.terminate().await;
    assert_eq!(status.code(), Some(0));
    while let Some(block) = connection.next().await {
        assert_eq!(block.data, None);
    }
    streamer.resume().await;
    insert_order(&postgres, 2).await;
    let mut resumed = open(&streamer, &[], block.id.as_deref()).await;
    assert_eq!(table_numbers(&mut resumed, 1).await, [2]);
}
