//! Promise: history is folded and dropped while writers write, and whoever would miss something is told.
//! Oracle: the rows themselves, which must equal the folds.

use headwater_tests::deadline::eventually;
use headwater_tests::event::{order_event, text};
use headwater_tests::http::{self, with_query};
use headwater_tests::postgres::Postgres;
use headwater_tests::proxy::Proxy;
use headwater_tests::sse::Connection;
use headwater_tests::streamer::Streamer;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::orders;

const ORDERS: usize = 30;

async fn days_ago(postgres: &Postgres, days: usize) -> String {
    let sql = format!(
        "select to_char((now() - interval '{days} days') at time zone 'utc', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')"
    );
    postgres.connect().await.query_one(&sql, &[]).await.unwrap().get(0)
}

fn dated(event_type: &str, order: Uuid, payload: &Value, at: &str) -> Value {
    let mut event = order_event(event_type, order, payload);
    event["timestamp"] = json!(at);
    event
}

async fn assert_rows_equal_folds(postgres: &Postgres) {
    let wrong = "select count(*) from orders o
         where headwater.materialize('order', o.id::text, null, o.tenant_id) - 'updated_at' is distinct from to_jsonb(o) - 'updated_at'";
    assert_eq!(0, postgres.count(wrong).await);
}

async fn expired(streamer: &Streamer, cursor: &str) {
    http::get(&streamer.url("/api/v1/events/since"), &[("cursor", cursor)]).await.assert_problem(410, "cursor_expired");
    let url = with_query(&streamer.url("/api/v1/events/stream"), &[("cursor", cursor)]);
    let mut connection = Connection::open(url, None).await.unwrap();
    let reset = connection.find("a reset", |block| block.event.is_some()).await;
    assert_eq!(reset.event.as_deref(), Some("headwater.reset"), "{reset:?}");
    assert!(text(&reset.json(), "reason").contains("retention"), "{reset:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn history_is_folded_and_dropped_while_writers_write() {
    let (postgres, streamer) = orders::start(&[]).await;
    let ids: Vec<_> = (0..ORDERS).map(|_| Uuid::now_v7()).collect();
    let old = days_ago(&postgres, 120).await;
    let mut events: Vec<_> =
        ids.iter().map(|id| dated("order.created", *id, &json!({"table_number": 1}), &old)).collect();
    for (n, id) in ids.iter().enumerate() {
        events.push(dated("order.item_added", *id, &json!({"item": {"id": n}}), &days_ago(&postgres, 110).await));
    }
    assert_eq!(streamer.batch(&events).await["rejected"], json!([]));
    let early = streamer.since(&[("limit", "5")]).await["cursor"].as_str().unwrap().to_owned();
    postgres
        .sql(
            "alter table headwater.event disable trigger refuse_change;
             update headwater.event set recorded_at = now() - interval '100 days';
             alter table headwater.event enable always trigger refuse_change",
        )
        .await;

    // A writer that began before the horizon was raised brings a late event: compaction waits for it.
    let slow = postgres.connect().await;
    let late =
        json!([dated("order.item_added", ids[0], &json!({"item": {"id": "late"}}), &days_ago(&postgres, 115).await)]);
    slow.batch_execute("begin").await.unwrap();
    let taken = slow
        .query_one(&format!("select headwater.ingest('{late}', '{{\"trusted\": true}}')::text"), &[])
        .await
        .unwrap()
        .get::<_, String>(0);
    assert!(taken.contains("\"rejected\": []"), "{taken}");
    let client = postgres.connect().await;
    let compaction = tokio::spawn(async move { client.batch_execute("call headwater.compact('order')").await });
    eventually("the horizon", || async {
        (postgres.count("select count(*) from headwater.entity where horizon is not null").await == 1).then_some(())
    })
    .await;
    let refused = dated("order.item_added", ids[1], &json!({"item": {"id": "too late"}}), &old);
    let answer = streamer.batch(&[refused]).await;
    assert_eq!(answer["rejected"][0]["code"], "too_late", "{answer}");
    assert_eq!(0, postgres.count("select count(*) from headwater.snapshot").await, "nothing is folded yet");
    slow.batch_execute("commit").await.unwrap();
    compaction.await.unwrap().unwrap();
    assert_eq!(ORDERS, postgres.count("select count(*) from headwater.snapshot").await);
    assert_rows_equal_folds(&postgres).await;
    assert_eq!(0, postgres.count("select count(*) from headwater.check(true) where problem not like '%slot%'").await);

    // What is recorded today stays, also where it happened long ago.
    let now = streamer.cursor_now().await;
    postgres.sql("call headwater.apply_retention()").await;
    assert_eq!(1, postgres.count("select count(*) from headwater.event where source = 'client'").await, "the late one");
    assert_rows_equal_folds(&postgres).await;
    expired(&streamer, &early).await;
    let entity = streamer.url(&format!("/api/v1/entities/order/{}", ids[3]));
    http::get(&entity, &[("as_of", &old)]).await.assert_problem(410, "history_dropped");
    assert_eq!(http::get(&entity, &[("as_of", &days_ago(&postgres, 0).await)]).await.status, 200);
    assert_eq!(streamer.since(&[("cursor", &now)]).await["events"], json!([]));
    assert_eq!(
        streamer.batch(&[order_event("order.item_added", ids[2], &json!({"item": {"id": "new"}}))]).await["rejected"],
        json!([])
    );
    assert_eq!(streamer.since(&[("cursor", &now)]).await["events"][0]["payload"]["item"]["id"], "new");
    assert_rows_equal_folds(&postgres).await;
}

/// A poller without a cursor is told of nothing that was dropped, so its page must not pass over anything that was not. Retention runs
/// between the two statements of a page that looks at as many events as it may, and finds nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retention_in_the_middle_of_a_page_takes_nothing_else_along() {
    let postgres = Postgres::start().await;
    postgres
        .sql(
            "create table note (id int primary key); select headwater.enable('note', entity => 'note');
             create table rare (id int primary key); select headwater.enable('rare', entity => 'rare');
             insert into note select generate_series(1, 60000);
             insert into rare values (1);
             insert into note select generate_series(60001, 100000);
             alter table headwater.event disable trigger refuse_change",
        )
        .await;
    let proxy = Proxy::start(postgres.port()).await;
    let through = postgres.streamer_url().replace(&format!(":{}/", postgres.port()), &format!(":{}/", proxy.port()));
    let streamer = Streamer::start_at(through, &[]).await;
    // Statement by statement, as they are sent: the second one says where the page ends.
    proxy.hold("offset $3 - 1");
    let asked = [("entity_type", "rare")];
    let (page, ()) = tokio::join!(streamer.since(&asked), async {
        proxy.holds().await;
        // What `headwater.apply_retention` does, without having to wait for 90 days.
        postgres
            .sql(
                "with dropped as (delete from headwater.event where position <= 40000 returning position)
                 update headwater.meta set dropped_position = (select max(position) from dropped)",
            )
            .await;
        proxy.release();
    });
    let (mut page, mut events) = (page, Vec::new());
    loop {
        events.extend(page["events"].as_array().unwrap().iter().cloned());
        if page["has_more"] == false {
            break;
        }
        let cursor = text(&page, "cursor").to_owned();
        page = streamer.since(&[("entity_type", "rare"), ("cursor", &cursor)]).await;
    }
    assert_eq!(1, events.len(), "the rare event is still there, and was passed over");
}
