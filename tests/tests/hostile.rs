//! Promise: whatever is sent, the answer is a clear 4xx problem document or a reject with its code, nothing else of
//! the batch is lost, and the server goes on.

use headwater_tests::event::order_event;
use headwater_tests::http::{self, Answer};
use headwater_tests::streamer::Streamer;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::orders;

fn created() -> Value {
    order_event("order.created", Uuid::now_v7(), &json!({"table_number": 1}))
}

async fn post(streamer: &Streamer, body: impl Into<reqwest::Body>) -> Answer {
    http::post(&streamer.url("/api/v1/events/batch"), body).await
}

#[tokio::test]
async fn a_body_that_is_no_batch_is_a_problem() {
    let (postgres, streamer) = orders::start(&["--max-body-bytes", "65536", "--max-batch-events", "50"]).await;
    let truncated = json!({"events": [created()]}).to_string();
    let cases: Vec<(&str, Vec<u8>, u16, &str)> = vec![
        ("empty", b"".to_vec(), 400, "malformed_json"),
        ("malformed", b"{\"events\": [".to_vec(), 400, "malformed_json"),
        ("cut off", truncated[..truncated.len() - 2].into(), 400, "malformed_json"),
        ("not UTF-8", b"{\"events\": [\"\xff\xfe\"]}".to_vec(), 400, "not_utf8"),
        ("no object", b"[]".to_vec(), 400, "invalid_batch"),
        ("no events", b"{}".to_vec(), 400, "invalid_batch"),
        ("events no array", b"{\"events\": {}}".to_vec(), 400, "invalid_batch"),
        ("too large", vec![b' '; 65_537], 413, "too_large"),
        ("too many", json!({"events": vec![json!({}); 51]}).to_string().into(), 413, "too_large"),
    ];
    for (name, body, status, code) in cases {
        println!("{name}");
        post(&streamer, body).await.assert_problem(status, code);
    }
    let no_json =
        http::client().post(streamer.url("/api/v1/events/batch")).header("content-type", "text/plain").body("{}");
    http::send(no_json).await.assert_problem(415, "unsupported_media_type");
    assert_eq!(0, postgres.count("select count(*) from headwater.event").await);

    let answer = streamer.batch(&[created()]).await;
    assert_eq!(answer["accepted"].as_array().unwrap().len(), 1, "{answer}");
}

/// Each of these stands between two good events, written as text: much of it cannot be a JSON value.
#[tokio::test]
async fn a_hostile_event_is_rejected_alone() {
    let (postgres, streamer) = orders::start(&[]).await;
    let with = |member: &str, value: Value| {
        let mut event = created();
        event[member] = value;
        event.to_string()
    };
    let without = |member: &str| {
        let mut event = created();
        event.as_object_mut().unwrap().remove(member);
        event.to_string()
    };
    let payload = |text: &str| with("payload", json!("PAYLOAD")).replace("\"PAYLOAD\"", text);
    let cases: Vec<(&str, String, &str)> = vec![
        ("unknown type", with("event_type", json!("order.exploded")), "unknown_event_type"),
        (
            "unknown entity",
            with("entity_type", json!("ghost")).replace("order.created", "ghost.created"),
            "unknown_event_type",
        ),
        ("no object", "7".to_owned(), "invalid_payload"),
        ("null", "null".to_owned(), "invalid_payload"),
        ("no id", without("id"), "invalid_payload"),
        ("no event_type", without("event_type"), "invalid_payload"),
        ("no entity_id", without("entity_id"), "invalid_payload"),
        ("no payload", without("payload"), "invalid_payload"),
        ("no timestamp", without("timestamp"), "invalid_payload"),
        ("id no uuid", with("id", json!("seven")), "invalid_payload"),
        ("id a number", with("id", json!(7)), "invalid_payload"),
        ("timestamp no time", with("timestamp", json!("yesterday")), "invalid_payload"),
        ("timestamp far ahead", with("timestamp", json!("2999-01-01T00:00:00Z")), "clock_skew"),
        ("payload no object", payload("[]"), "invalid_payload"),
        ("NUL character", payload(r#"{"status": "a\u0000b"}"#), "invalid_payload"),
        ("NUL in a name", payload(r#"{"a\u0000b": 1}"#), "invalid_payload"),
        (
            "too deep",
            payload(&format!("{{\"items\": {}{}}}", "[".repeat(20_000), "]".repeat(20_000))),
            "invalid_payload",
        ),
        ("lone surrogate", payload(r#"{"status": "\ud800"}"#), "invalid_payload"),
        ("surrogates the wrong way", payload(r#"{"status": "\udc00\ud800"}"#), "invalid_payload"),
        ("huge number", payload(r#"{"table_number": 1e400}"#), "invalid_payload"),
        ("number beyond a double", payload(r#"{"table_number": 9007199254740993}"#), "invalid_payload"),
        ("out of the column's range", payload(r#"{"table_number": 3000000000}"#), "invalid_payload"),
        ("unknown column", payload(r#"{"price": 1}"#), "invalid_payload"),
        ("the key", payload(r#"{"id": "0190b5a0-0000-7000-8000-000000000000"}"#), "invalid_payload"),
    ];
    let mut events = Vec::new();
    let mut good = Vec::new();
    for (_, event, _) in &cases {
        let before = created();
        good.push(before["id"].clone());
        events.extend([before.to_string(), event.clone()]);
    }
    let last = created();
    good.push(last["id"].clone());
    events.push(last.to_string());
    let body = format!("{{\"events\": [{}]}}", events.join(", "));

    let answer = post(&streamer, body).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let answer = answer.json();
    let rejected = answer["rejected"].as_array().unwrap();
    let mut wrong = Vec::new();
    for (ordinal, (name, _, code)) in cases.iter().enumerate() {
        let index = 2 * ordinal + 1;
        match rejected.iter().find(|reject| reject["index"] == index) {
            Some(reject)
                if reject["code"] == *code && reject["reason"].as_str().is_some_and(|text| !text.is_empty()) => {}
            other => wrong.push(format!("{name}: wanted {code}, got {other:?}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(rejected.len(), cases.len());
    assert_eq!(answer["accepted"], Value::from(good.clone()));
    assert_eq!(good.len(), postgres.count("select count(*) from orders").await);
}

#[tokio::test]
async fn what_is_not_there_is_a_problem_too() {
    let (_postgres, streamer) = orders::start(&[]).await;
    http::get(&streamer.url("/api/v1/nothing"), &[]).await.assert_problem(404, "not_found");
    http::get(&streamer.url("/api/v1/events/batch"), &[]).await.assert_problem(405, "method_not_allowed");
    http::get(&streamer.url("/api/v1/events/since"), &[("cursor", "garbage")])
        .await
        .assert_problem(400, "invalid_cursor");
    http::get(&streamer.url("/api/v1/events/stream"), &[("cursor", "garbage")])
        .await
        .assert_problem(400, "invalid_cursor");
    http::get(&streamer.url("/api/v1/events/since"), &[("limit", "-1")]).await.assert_problem(400, "invalid_parameter");
}

#[tokio::test]
async fn a_compressed_batch_is_taken() {
    let (postgres, streamer) = orders::start(&["--max-body-bytes", "65536"]).await;
    let send = |body: Vec<u8>| {
        let request = http::client()
            .post(streamer.url("/api/v1/events/batch"))
            .header("content-type", "application/json")
            .header("content-encoding", "gzip");
        http::send(request.body(body))
    };
    let answer = send(gzip(json!({"events": [created()]}).to_string().as_bytes())).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(1, postgres.count("select count(*) from orders").await);

    send(b"no gzip".to_vec()).await.assert_problem(400, "invalid_gzip");
    // A bomb: small on the wire, over the limit when unpacked.
    send(gzip(&vec![b' '; 10_000_000])).await.assert_problem(413, "too_large");
}

/// gzip in its stored form (RFC 1952, RFC 1951 3.2.4) cannot make a bomb, so the program does it.
fn gzip(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write as _;
    use std::process::{Command, Stdio};
    let mut child = Command::new("gzip").arg("-c").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    let bytes = bytes.to_vec();
    let writing = std::thread::spawn(move || input.write_all(&bytes).unwrap());
    let output = child.wait_with_output().unwrap();
    writing.join().unwrap();
    output.stdout
}
