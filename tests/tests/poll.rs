//! Promise: a poller that waits is answered as soon as there is something for it, misses nothing of a transaction that
//! stays open, and is not answered for the sake of others; pages are compressed for those who can read them, streams are not.

use headwater_tests::deadline::{PATIENCE, eventually};
use headwater_tests::http::{self, Answer, with_query};
use headwater_tests::streamer::Streamer;
use headwater_tests::token;
use serde_json::Value;
use std::io::Read as _;
use tokio::task::JoinHandle;

use crate::orders;

fn poll(streamer: &Streamer, token: Option<&str>, query: &[(&str, &str)]) -> JoinHandle<Answer> {
    let request = http::client().get(with_query(&streamer.url("/api/v1/events/since"), query));
    tokio::spawn(http::send(token.iter().fold(request, reqwest::RequestBuilder::bearer_auth)))
}

async fn page(poll: JoinHandle<Answer>) -> (Vec<String>, String) {
    let answer = tokio::time::timeout(PATIENCE, poll).await.expect("an answer").unwrap();
    assert_eq!(answer.status, 200, "{answer:?}");
    let page = answer.json();
    let orders = page["events"].as_array().unwrap().iter().map(|event| event["payload"]["status"].to_string());
    (orders.collect(), page["cursor"].as_str().unwrap().to_owned())
}

#[tokio::test]
async fn a_poller_that_waits_is_answered_when_there_is_something_for_it() {
    let (postgres, streamer) = orders::start(&token::ARGUMENTS).await;
    let insert = async |tenant: &str, status: &str| {
        postgres.sql(&format!("insert into orders (tenant_id, status) values ('{tenant}', '{status}')")).await;
    };
    let cafe = token::of(Some("cafe"), "ann");
    let (nothing, mut cursor) = page(poll(&streamer, Some(&cafe), &[("wait", "200ms")])).await;
    assert!(nothing.is_empty(), "the time was over");

    // Others' events go by. It is answered by the first one of its own, and by that alone.
    for round in 0..5 {
        let waiting = poll(&streamer, Some(&cafe), &[("wait", "55"), ("cursor", &cursor)]);
        for _ in 0..5 {
            insert("bar", "theirs").await;
        }
        assert!(!waiting.is_finished(), "there was nothing for it");
        insert("cafe", &round.to_string()).await;
        let (orders, next) = page(waiting).await;
        assert_eq!(orders, [format!("\"{round}\"")]);
        cursor = next;
    }

    // What was there before is answered at once; more than the limit is told.
    insert("cafe", "first").await;
    insert("cafe", "second").await;
    let (orders, next) =
        page(poll(&streamer, Some(&cafe), &[("wait", "55"), ("cursor", &cursor), ("limit", "1")])).await;
    assert_eq!(orders, ["\"first\""]);
    let (orders, cursor) = page(poll(&streamer, Some(&cafe), &[("wait", "55"), ("cursor", &next)])).await;
    assert_eq!(orders, ["\"second\""]);

    // A page cannot go past a writer that stays open, however much others commit.
    let slow = postgres.connect().await;
    slow.batch_execute("begin; insert into orders (tenant_id, status) values ('cafe', 'slow')").await.unwrap();
    let waiting = poll(&streamer, Some(&cafe), &[("wait", "55"), ("cursor", &cursor)]);
    insert("cafe", "quick").await;
    eventually("the poll to have looked", || async {
        let asked = "select count(*) from pg_stat_activity where query like '%pg_locks%' and pid <> pg_backend_pid()";
        (postgres.count(asked).await > 0).then_some(())
    })
    .await;
    slow.batch_execute("commit").await.unwrap();
    let (mut orders, mut cursor) = page(waiting).await;
    while orders.len() < 2 {
        let (more, next) = page(poll(&streamer, Some(&cafe), &[("wait", "55"), ("cursor", &cursor)])).await;
        orders.extend(more);
        cursor = next;
    }
    assert_eq!(orders, ["\"slow\"", "\"quick\""]);

    http::get_as(&cafe, &streamer.url("/api/v1/events/since"), &[("wait", "soon")])
        .await
        .assert_problem(400, "invalid_parameter");
}

#[tokio::test]
async fn a_stop_answers_polls_that_wait() {
    let (_postgres, mut streamer) = orders::start(&[]).await;
    let waiting = poll(&streamer, None, &[("wait", "55"), ("cursor", &streamer.cursor_now().await)]);
    // Its own request was taken once a later one is answered, for connections are accepted in turn.
    http::get(&streamer.url("/health"), &[]).await;
    assert!(streamer.terminate().await.success());
    // Taken or not before the stop: it does not hang.
    let _ = tokio::time::timeout(PATIENCE, waiting).await.expect("an answer");
}

#[tokio::test]
async fn pages_are_compressed_and_streams_are_not() {
    let (postgres, streamer) = orders::start(&[]).await;
    postgres.sql("insert into orders (table_number) select n from generate_series(1, 500) n").await;
    eventually("the page to be full", || async {
        (streamer.since(&[("limit", "500")]).await["events"].as_array().unwrap().len() == 500).then_some(())
    })
    .await;
    let get = async |path: &str, accepts: &str| {
        let request = http::client().get(streamer.url(path)).header("accept-encoding", accepts);
        request.send().await.unwrap()
    };
    let shape = "/v1/shape?table=orders&offset=-1";
    for path in ["/api/v1/events/since?limit=500", "/api/v1/entities/order/snapshot", "/openapi.json", shape] {
        let plain = get(path, "identity").await;
        assert!(plain.headers().get("content-encoding").is_none(), "{path}");
        let plain = plain.bytes().await.unwrap();
        let packed = get(path, "br, gzip").await;
        assert_eq!(packed.headers()["content-encoding"], "gzip", "{path}");
        let mut varies = packed.headers().get_all("vary").iter().map(|value| value.to_str().unwrap());
        assert!(varies.any(|value| value.contains("accept-encoding")), "{path}: {:?}", packed.headers());
        let packed = packed.bytes().await.unwrap();
        assert!(packed.len() * 3 < plain.len(), "{path}: {} of {}", packed.len(), plain.len());
        let mut unpacked = String::new();
        flate2::read::GzDecoder::new(packed.as_ref()).read_to_string(&mut unpacked).unwrap();
        if path == "/openapi.json" || path == shape {
            assert_eq!(unpacked.as_bytes(), plain, "{path}");
        } else {
            let first = unpacked.lines().next().unwrap();
            assert!(serde_json::from_str::<Value>(first).is_ok(), "{path}: {first}");
        }
    }
    let stream = get("/api/v1/events/stream", "gzip").await;
    assert!(stream.headers().get("content-encoding").is_none(), "events would wait in the compressor");
}
