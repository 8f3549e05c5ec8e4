//! Promise: a batch is stored once however often and by however many it is sent, and everyone gets the same answer.

use headwater_tests::event::{order_event, text};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::orders;

/// An answer without what may change between two of them.
fn outcome(mut answer: Value) -> Value {
    answer.as_object_mut().unwrap().remove("cursor");
    answer
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_sent_by_two_at_once_is_stored_once() {
    let (postgres, streamer) = orders::start(&[]).await;
    let mut sent = Vec::new();
    for round in 0..20 {
        let order = Uuid::now_v7();
        let mut events = vec![order_event("order.created", order, &json!({"table_number": round}))];
        for item in 0..5 {
            events.push(order_event("order.item_added", order, &json!({"item": {"id": item, "name": "tea"}})));
        }
        // A reject among them must be the same for both, and take nothing else with it.
        events.push(order_event("order.exploded", order, &json!({})));

        let (one, other) = tokio::join!(streamer.batch(&events), streamer.batch(&events));
        assert_eq!(outcome(one.clone()), outcome(other));
        assert_eq!(one["accepted"].as_array().unwrap().len(), 6, "{one}");
        assert_eq!(one["rejected"][0]["code"], "unknown_event_type", "{one}");
        sent.push((events, one));
    }
    for (events, first) in &sent {
        assert_eq!(outcome(streamer.batch(events).await), outcome(first.clone()), "a later retry");
    }
    let count = "select count(*) from headwater.event where source = 'client'";
    assert_eq!(20 * 6, postgres.count(count).await);
    assert_eq!(20 * 6, postgres.count("select count(distinct id) from headwater.event where source = 'client'").await);
    assert_eq!(20, postgres.count("select count(*) from orders where jsonb_array_length(items) = 5").await);
}

#[tokio::test]
async fn a_reject_of_the_database_is_repeated_as_it_was() {
    let (postgres, streamer) = orders::start(&[]).await;
    postgres.sql("alter table orders add constraint few_tables check (table_number < 100)").await;
    let good = order_event("order.created", Uuid::now_v7(), &json!({"table_number": 5}));
    let bad = order_event("order.created", Uuid::now_v7(), &json!({"table_number": 500}));
    let events = [good.clone(), bad.clone()];

    let first = streamer.batch(&events).await;
    assert_eq!(first["accepted"], json!([good["id"]]), "{first}");
    let reject = &first["rejected"][0];
    assert_eq!(reject["id"], bad["id"], "{first}");
    assert_eq!(reject["code"], "constraint_violation", "{first}");
    assert_eq!(reject["constraint"], "few_tables", "{first}");
    assert!(!text(reject, "reason").is_empty());

    // What made it a reject is gone by now; the answer stands.
    postgres.sql("alter table orders drop constraint few_tables").await;
    assert_eq!(outcome(streamer.batch(&events).await), outcome(first));
    assert_eq!(1, postgres.count("select count(*) from orders").await);
}

#[tokio::test]
async fn the_same_id_with_another_event_is_a_conflict() {
    let (postgres, streamer) = orders::start(&[]).await;
    let event = order_event("order.created", Uuid::now_v7(), &json!({"table_number": 5}));
    let mut other = event.clone();
    other["payload"]["table_number"] = json!(6);
    streamer.batch(std::slice::from_ref(&event)).await;
    let answer = streamer.batch(&[other]).await;
    assert_eq!(answer["rejected"][0]["code"], "conflict", "{answer}");
    assert_eq!(1, postgres.count("select count(*) from orders where table_number = 5").await);
}

#[tokio::test]
async fn events_change_the_row_by_their_rules() {
    let (postgres, streamer) = orders::start(&[]).await;
    let order = Uuid::now_v7();
    let events = [
        order_event("order.created", order, &json!({"table_number": 7})),
        order_event("order.item_added", order, &json!({"item": {"id": "a", "name": "tea"}})),
        order_event("order.item_added", order, &json!({"item": {"id": "b", "name": "cake"}})),
        order_event("order.item_removed", order, &json!({"item_id": "a"})),
        order_event("order.state_changed", order, &json!({"status": "served"})),
    ];
    let answer = streamer.batch(&events).await;
    assert_eq!(answer["accepted"].as_array().unwrap().len(), 5, "{answer}");
    let row = postgres
        .connect()
        .await
        .query_one("select tenant_id, table_number, status, items from orders where id = $1", &[&order])
        .await
        .unwrap();
    assert_eq!(row.get::<_, &str>(0), "cafe");
    assert_eq!(row.get::<_, i32>(1), 7);
    assert_eq!(row.get::<_, &str>(2), "served");
    assert_eq!(row.get::<_, Value>(3), json!([{"id": "b", "name": "cake"}]));
}
