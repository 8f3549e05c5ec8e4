//! Promise: what an operator watches is true: health says whether and why, metrics count what happened, and only those
//! who may see them do.

use headwater_tests::deadline::eventually;
use headwater_tests::event::order_event;
use headwater_tests::http::{self, with_query};
use headwater_tests::place::free_port;
use headwater_tests::postgres::StopMode;
use headwater_tests::sse::Connection;
use headwater_tests::streamer::Streamer;
use headwater_tests::token;
use serde_json::json;
use uuid::Uuid;

use crate::orders;

/// The value of a series, as it stands in the text; zero where it has not begun yet.
async fn metric(url: &str, series: &str) -> i64 {
    let answer = http::get_as(token::ADMIN, url, &[]).await;
    assert_eq!((answer.status, answer.content_type.as_str()), (200, "text/plain"), "{answer:?}");
    let line = answer.body.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.map_or(0, |value| value.parse().unwrap())
}

/// Of the history, as cursors begin.
async fn epoch(streamer: &Streamer) -> String {
    let page = http::get_as(token::ADMIN, &streamer.url("/api/v1/events/since"), &[]).await.json();
    page["cursor"].as_str().unwrap().split('-').next().unwrap().to_owned()
}

#[tokio::test]
async fn metrics_count_what_happens_and_are_not_for_everybody() {
    let port = free_port();
    let listen = format!("127.0.0.1:{port}");
    let arguments: Vec<&str> = token::ARGUMENTS.into_iter().chain(["--metrics-listen", &listen]).collect();
    let (postgres, streamer) = orders::start(&arguments).await;
    let url = streamer.url("/metrics");
    let cafe = token::of(Some("cafe"), "ann");
    http::get(&url, &[]).await.assert_problem(401, "unauthenticated");
    http::get_as(&cafe, &url, &[]).await.assert_problem(403, "forbidden");

    let stream = with_query(&streamer.url("/api/v1/events/stream"), &[]);
    let opened = Connection::open_as(Some(&cafe), stream, None).await;
    let connection = opened.unwrap_or_else(|answer| panic!("{answer:?}"));
    assert_eq!(metric(&url, r#"headwater_clients{transport="sse"}"#).await, 1);
    drop(connection);
    eventually("the client to be gone", || async {
        (metric(&url, r#"headwater_clients{transport="sse"}"#).await == 0).then_some(())
    })
    .await;
    assert_eq!(metric(&url, r#"headwater_streams_ended_total{reason="left"}"#).await, 1);
    assert_eq!(metric(&url, r#"headwater_streams_ended_total{reason="slow"}"#).await, 0);
    let old =
        with_query(&streamer.url("/api/v1/events/stream"), &[("cursor", &format!("{}-0", epoch(&streamer).await))]);
    drop(Connection::open_as(Some(&cafe), old, None).await);
    eventually("a catch-up", || async { (metric(&url, "headwater_catch_ups_total").await > 0).then_some(()) }).await;

    let good = order_event("order.created", Uuid::now_v7(), &json!({"table_number": 1}));
    let mut foreign = order_event("order.created", Uuid::now_v7(), &json!({}));
    foreign["tenant_id"] = json!("bar");
    let batch = streamer.url("/api/v1/events/batch");
    let answer = http::post_as(&cafe, &batch, json!({"events": [good, foreign]}).to_string()).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    http::post_as(&cafe, &batch, "{}").await.assert_problem(400, "invalid_batch");
    for (series, expected) in [
        ("headwater_events_accepted_total", 1),
        (r#"headwater_events_rejected_total{code="forbidden"}"#, 1),
        (r#"headwater_batches_total{outcome="taken"}"#, 1),
        (r#"headwater_batches_total{outcome="invalid_batch"}"#, 1),
        (r#"headwater_http_requests_total{method="POST",route="/api/v1/events/batch",status="200"}"#, 1),
        (r#"headwater_streams_begun_total{transport="sse"}"#, 2),
        ("headwater_up", 1),
        ("headwater_database_up", 1),
        (r#"headwater_slot_wal_status{status="reserved"}"#, 1),
        ("headwater_slot_active", 1),
    ] {
        eventually(series, || async { (metric(&url, series).await == expected).then_some(()) }).await;
    }
    // What defaults made of the row is recorded in the same transaction.
    let before = eventually("the event to come through the log", || async {
        Some(metric(&url, "headwater_log_events_total").await).filter(|count| *count > 0)
    })
    .await;
    postgres.sql("insert into orders (tenant_id) select 'bar' from generate_series(1, 100)").await;
    // The port of its own asks nobody who he is.
    let open = format!("http://{listen}/metrics");
    eventually("the other events", || async {
        (metric(&open, "headwater_log_events_total").await == before + 100).then_some(())
    })
    .await;
    assert!(metric(&open, "headwater_head_lsn_bytes").await > 0);
    assert!(metric(&open, "process_resident_memory_bytes").await > 1_000_000);
    http::get(&format!("http://{listen}/api/v1/events/since"), &[]).await.assert_problem(404, "not_found");
}

#[tokio::test]
async fn health_says_whether_and_why() {
    let (mut postgres, mut streamer) = orders::start(&[]).await;
    let health = streamer.url("/health");
    let body = eventually("the slot to be known", || async {
        let body = http::get(&health, &[]).await.json();
        body["slot"].is_object().then_some(body)
    })
    .await;
    assert_eq!(
        (&body["status"], &body["reason"], &body["database"]),
        (&json!("active"), &json!(null), &json!("answers"))
    );
    assert_eq!(body["slot"]["name"], "headwater_default", "{body}");
    assert_eq!(body["slot"]["wal_status"], "reserved", "{body}");

    postgres.stop(StopMode::Immediate).await;
    let answer = eventually("it to be noticed", || async {
        let answer = http::get(&health, &[]).await;
        (answer.status == 503).then_some(answer)
    })
    .await;
    assert!(answer.json()["reason"].as_str().unwrap().contains("Postgres"), "{answer:?}");
    assert_eq!(http::get(&streamer.url("/live"), &[]).await.status, 200, "a restart would not help");
    postgres.resume().await;
    streamer.healthy().await;
}

#[tokio::test]
async fn every_answer_has_the_requests_id() {
    let streamer: Streamer = orders::start(&[]).await.1;
    let ask = async |id: Option<&str>| {
        let request = http::client().get(streamer.url("/nowhere"));
        let request = id.iter().fold(request, |request, id| request.header("x-request-id", *id));
        request.send().await.unwrap().headers()["x-request-id"].to_str().unwrap().to_owned()
    };
    assert_eq!(ask(Some("trace-17")).await, "trace-17");
    let (one, two) = (ask(None).await, ask(Some("no good: \u{e4}")).await);
    assert!(one.parse::<Uuid>().is_ok() && two.parse::<Uuid>().is_ok() && one != two, "{one} {two}");
}
