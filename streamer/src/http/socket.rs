//! `GET /api/v1/events/ws`: the stream over a WebSocket, for those who also want to send over it.
//!
//! The first message says who calls and what is wanted; what the server sends are the blocks of Server-Sent Events, one
//! or more a message, so that one reader understands both transports.

use super::access::{filter, until};
use super::batch::count;
use super::problem::Problem;
use super::server::Held;
use super::stream::parse_cursor;
use super::streams::Place;
use super::{App, Origins};
use crate::events::Stream;
use crate::identity::Identity;
use crate::metrics::Transport;
use axum::Extension;
use axum::extract::State;
use axum::extract::ws::{
    CloseFrame, Message, Utf8Bytes, WebSocket, WebSocketUpgrade, rejection::WebSocketUpgradeRejection,
};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Response;
use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::future::pending;
use std::time::{Duration, SystemTime};
use tokio::time::{Instant, sleep_until, timeout};

/// Who connects has this long to say who he is.
const FIRST_MESSAGE_PATIENCE: Duration = Duration::from_secs(10);

/// What is set aside for each connection; a larger message grows into its own. The default is 128 KiB.
const READ_BYTES: usize = 4 * 1024;

/// The largest message: a token and the other fields of the first one, and batches of a hundred events. It is set before
/// anybody has said who he is, so it bounds what each of `--max-connections` strangers can make us hold; larger batches
/// go by POST, whose bodies share a budget.
const LARGEST_MESSAGE_BYTES: usize = 64 * 1024;

/// How long a message may wait for a reader that does not read. Its cursor stays good.
const READER_PATIENCE: Duration = Duration::from_secs(30);

/// A client that answers none of so many pings in a row is gone.
const MISSED_PINGS: u32 = 3;

/// Close codes from 4000 on are the application's; these are the HTTP status behind them, or nearly.
const CLOSE_REFUSED: u16 = 4400;
const CLOSE_UNAUTHENTICATED: u16 = 4401;
const CLOSE_SILENT: u16 = 4408;
/// RFC 6455 and IANA: try again later.
const CLOSE_LATER: u16 = 1013;
/// RFC 6455 7.4.1: normal.
const CLOSE_DONE: u16 = 1000;

/// What a client sends.
#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum First {
    Subscribe {
        token: Option<String>,
        entity_type: Option<String>,
        entity_id: Option<String>,
        tenant_id: Option<String>,
        cursor: Option<String>,
    },
}

#[derive(Deserialize)]
struct Later<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    /// Comes back in the answer.
    #[serde(rename = "ref")]
    reference: Option<Value>,
    #[serde(borrow)]
    events: Option<&'a RawValue>,
}

pub(super) async fn get(
    State(app): State<App>,
    Extension(origins): Extension<Origins>,
    Extension(held): Extension<Held>,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, Problem> {
    let upgrade = upgrade.map_err(|error| Problem::bad_request("no_websocket", error.body_text()))?;
    // Browsers open WebSockets to anywhere without asking first (no CORS): the server has to look.
    let origin = headers.get(header::ORIGIN).map(|origin| origin.to_str().unwrap_or("?"));
    if origin.is_some_and(|origin| !origins.allow(origin) && !is_own(origin, &headers)) {
        let detail = "pages of this origin may not connect: --cors-origin lists those that may";
        return Err(Problem::new(StatusCode::FORBIDDEN, "forbidden_origin", detail));
    }
    let upgrade = upgrade.max_message_size(LARGEST_MESSAGE_BYTES).max_frame_size(LARGEST_MESSAGE_BYTES);
    let upgrade = upgrade.read_buffer_size(READ_BYTES);
    Ok(upgrade.on_upgrade(async move |socket| {
        serve(socket, &app).await;
        drop(held);
    }))
}

/// Whether a page is of this very server, under the name by which it was called: browsers let such a page read everything else here too.
fn is_own(origin: &str, headers: &HeaderMap) -> bool {
    let own = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let page = origin.strip_prefix("https://").or_else(|| origin.strip_prefix("http://"));
    page.zip(own).is_some_and(|(page, own)| page.eq_ignore_ascii_case(own))
}

async fn serve(mut socket: WebSocket, app: &App) {
    let (caller, _place, mut stream) = match begin(&mut socket, app).await {
        Ok(begun) => begun,
        Err(Some((code, problem))) => {
            let block = format!("event: headwater.error\ndata: {}\n\n", problem.body());
            let _ = send(&mut socket, Message::text(block)).await;
            return close(&mut socket, code, problem.code()).await;
        }
        Err(None) => return, // it left
    };
    let beat = app.heartbeat;
    let mut heard = Instant::now();
    let mut ping_at = heard + beat;
    let mut batch: Option<BoxFuture<'_, String>> = None;
    loop {
        let sent = tokio::select! {
            blocks = stream.next() => match blocks {
                Some(blocks) => send(&mut socket, Message::Text(text(blocks))).await,
                None => return close(&mut socket, CLOSE_DONE, "the stream has ended").await,
            },
            answer = finish(&mut batch) => {
                batch = None;
                send(&mut socket, Message::text(answer)).await
            }
            // One batch at a time: the next one waits in the network.
            message = socket.recv(), if batch.is_none() => {
                heard = Instant::now();
                match message {
                    Some(Ok(Message::Text(message))) => {
                        batch = Some(take(app, &caller, message).boxed());
                        true
                    }
                    Some(Ok(Message::Ping(_) | Message::Pong(_))) => true,
                    Some(Ok(Message::Binary(_))) => {
                        return close(&mut socket, CLOSE_REFUSED, "messages are text").await;
                    }
                    Some(Ok(Message::Close(_)) | Err(_)) | None => return,
                }
            }
            () = sleep_until(ping_at) => {
                ping_at = Instant::now() + beat;
                if batch.is_none() && heard.elapsed() > beat * MISSED_PINGS {
                    return close(&mut socket, CLOSE_SILENT, "no answer to pings").await;
                }
                send(&mut socket, Message::Ping(Bytes::new())).await
            }
        };
        if !sent {
            return;
        }
    }
}

/// The answer to the batch that is under way; never, if there is none.
async fn finish(batch: &mut Option<BoxFuture<'_, String>>) -> String {
    match batch {
        Some(batch) => batch.await,
        None => pending().await,
    }
}

type Refused = Option<(u16, Problem)>;

async fn begin(socket: &mut WebSocket, app: &App) -> Result<(Identity, Place, Stream), Refused> {
    let refuse = |problem: Problem| {
        let code = match &problem {
            problem if problem.is_unauthenticated() => CLOSE_UNAUTHENTICATED,
            problem if problem.may_pass() => CLOSE_LATER,
            _ => CLOSE_REFUSED,
        };
        Some((code, problem))
    };
    let Ok(first) = timeout(FIRST_MESSAGE_PATIENCE, socket.recv()).await else {
        let detail = format!("the first message must come within {} seconds", FIRST_MESSAGE_PATIENCE.as_secs());
        return Err(Some((CLOSE_SILENT, Problem::new(StatusCode::REQUEST_TIMEOUT, "no_first_message", detail))));
    };
    let Some(Ok(Message::Text(first))) = first else { return Err(None) };
    let First::Subscribe { token, entity_type, entity_id, tenant_id, cursor } =
        serde_json::from_str(&first).map_err(|error| {
            let detail = format!(r#"the first message must be {{"type":"subscribe","token":"…",…}}: {error}"#);
            refuse(Problem::bad_request("invalid_message", detail))
        })?;
    let caller = app.guard.identify(token.as_deref()).await.map_err(|refusal| refuse(refusal.into()))?;
    let cursor = parse_cursor(cursor.as_deref()).map_err(refuse)?;
    let filter = filter(&caller, tenant_id, entity_type.as_deref(), entity_id).map_err(refuse)?;
    let place = app.streams.enter(Transport::WebSocket, &caller.reach).map_err(refuse)?;
    let stream = app.events.stream(cursor, filter, until(&caller)).await.map_err(|error| refuse(error.into()))?;
    Ok((caller, place, stream))
}

/// Takes a later message; the block to answer with.
async fn take(app: &App, caller: &Identity, message: Utf8Bytes) -> String {
    let later: Option<Later<'_>> = serde_json::from_str(&message).ok();
    let reference = later.as_ref().and_then(|later| later.reference.clone()).unwrap_or(Value::Null);
    let events = later.as_ref().filter(|later| later.kind == "batch").and_then(|later| later.events);
    let outcome = match events {
        _ if caller.expires.is_some_and(|expires| expires <= SystemTime::now()) => {
            Err(Problem::from(crate::identity::Refusal::Expired))
        }
        Some(events) => {
            let body = format!(r#"{{"events":{}}}"#, events.get());
            app.ingest.batch(&body, &caller.ingest_claims(&app.apply_role)).await.map_err(Problem::from)
        }
        None => {
            Err(Problem::bad_request("invalid_message", r#"a message must be {"type":"batch","ref":1,"events":[…]}"#))
        }
    };
    match outcome {
        Ok(outcome) => {
            count(app, &outcome);
            let cursor = app.events.settled().map(|cursor| cursor.to_string());
            let data =
                json!({"ref": reference, "accepted": outcome.accepted, "rejected": outcome.rejected, "cursor": cursor});
            format!("event: headwater.batch\ndata: {data}\n\n")
        }
        Err(problem) => {
            app.metrics.refused(problem.code());
            let mut data = problem.body();
            data["ref"] = reference;
            format!("event: headwater.error\ndata: {data}\n\n")
        }
    }
}

/// Whether it went out.
async fn send(socket: &mut WebSocket, message: Message) -> bool {
    matches!(timeout(READER_PATIENCE, socket.send(message)).await, Ok(Ok(())))
}

async fn close(socket: &mut WebSocket, code: u16, reason: &'static str) {
    send(socket, Message::Close(Some(CloseFrame { code, reason: Utf8Bytes::from_static(reason) }))).await;
}

/// Blocks are made of JSON and names: always UTF-8.
fn text(blocks: Bytes) -> Utf8Bytes {
    Utf8Bytes::try_from(blocks).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_of_this_server_are_its_own() {
        let check = |origin: &str, host: Option<&str>, expected: bool| {
            let headers = host.map(|host| (header::HOST, host.parse().expect("a header value"))).into_iter().collect();
            assert_eq!(is_own(origin, &headers), expected, "{origin} {host:?}");
        };
        check("https://app.example", Some("app.example"), true);
        check("http://App.example:4000", Some("app.example:4000"), true);
        check("https://app.example", Some("app.example:4000"), false);
        check("https://app.example.evil.example", Some("app.example"), false);
        check("https://evil.example", Some("app.example"), false);
        check("app.example", Some("app.example"), false);
        check("null", Some("null"), false);
        check("https://app.example", None, false);
    }
}
