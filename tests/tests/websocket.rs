//! Promise: the WebSocket brings the same blocks as the stream, resumes by the same cursors, takes batches, and lets in
//! nobody whom the other endpoints would not.

use futures_util::{SinkExt as _, StreamExt as _};
use headwater_tests::deadline::PATIENCE;
use headwater_tests::event::{order_event, text};
use headwater_tests::postgres::Postgres;
use headwater_tests::sse::{Block, parse};
use headwater_tests::streamer::Streamer;
use headwater_tests::token;
use serde_json::{Value, json};
use std::collections::VecDeque;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use uuid::Uuid;

use crate::orders;

pub(crate) struct Socket {
    stream: tokio_tungstenite::WebSocketStream<tokio_tungstenite::MaybeTlsStream<tokio::net::TcpStream>>,
    blocks: VecDeque<Block>,
    /// The code of the close frame.
    closed: Option<u16>,
}

impl Socket {
    pub(crate) async fn open(streamer: &Streamer, first: &Value) -> Self {
        let url = streamer.url("/api/v1/events/ws").replace("http", "ws");
        let (stream, _) = tokio_tungstenite::connect_async(url).await.unwrap();
        let mut socket = Self { stream, blocks: VecDeque::new(), closed: None };
        socket.send(first).await;
        socket
    }

    async fn send(&mut self, message: &Value) {
        self.stream.send(Message::text(message.to_string())).await.unwrap();
    }

    /// The next block; none after the close frame.
    pub(crate) async fn next(&mut self) -> Option<Block> {
        loop {
            if let Some(block) = self.blocks.pop_front() {
                return Some(block);
            }
            match tokio::time::timeout(PATIENCE, self.stream.next()).await.expect("a message") {
                Some(Ok(Message::Text(text))) => {
                    self.blocks.extend(text.split_terminator("\n\n").map(parse));
                }
                Some(Ok(Message::Close(frame))) => self.closed = frame.map(|frame| frame.code.into()),
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return None,
            }
        }
    }

    async fn event(&mut self, wanted: &str) -> Block {
        loop {
            let block = self.next().await.unwrap_or_else(|| panic!("closed ({:?}) before {wanted}", self.closed));
            if block.event.as_deref() == Some(wanted) {
                return block;
            }
        }
    }
}

async fn insert(postgres: &Postgres, tenant: &str, table_number: i32) {
    postgres.sql(&format!("insert into orders (tenant_id, table_number) values ('{tenant}', {table_number})")).await;
}

#[tokio::test]
async fn a_websocket_streams_resumes_and_takes_batches() {
    let (postgres, streamer) = orders::start(&token::ARGUMENTS).await;
    let subscribe = json!({"type": "subscribe", "token": token::of(Some("cafe"), "ann"), "entity_type": "order"});
    let mut socket = Socket::open(&streamer, &subscribe).await;
    assert!(socket.next().await.unwrap().retry.is_some(), "the same first block as the stream's");
    insert(&postgres, "bar", 1).await;
    insert(&postgres, "cafe", 2).await;
    let block = socket.event("order.created").await;
    assert_eq!(block.json()["payload"]["table_number"], 2, "another tenant's event is passed over");

    let mut mine = order_event("order.created", Uuid::now_v7(), &json!({"table_number": 3}));
    mine["tenant_id"] = json!("cafe");
    socket.send(&json!({"type": "batch", "ref": "b1", "events": [mine]})).await;
    let (mut answered, mut seen) = (false, false);
    while !(answered && seen) {
        let block = socket.next().await.unwrap();
        match block.event.as_deref() {
            Some("headwater.batch") => {
                let answer = block.json();
                assert_eq!((&answer["ref"], &answer["accepted"]), (&json!("b1"), &json!([mine["id"]])), "{answer}");
                answered = true;
            }
            Some("order.created") => seen = text(&block.json(), "id") == text(&mine, "id"),
            _ => {}
        }
    }
    mine["tenant_id"] = json!("bar");
    mine["id"] = json!(Uuid::now_v7());
    socket.send(&json!({"type": "batch", "ref": 2, "events": [mine]})).await;
    assert_eq!(socket.event("headwater.batch").await.json()["rejected"][0]["code"], "forbidden");
    socket.send(&json!({"type": "nonsense", "ref": 3})).await;
    let error = socket.event("headwater.error").await.json();
    assert_eq!((&error["code"], &error["ref"]), (&json!("invalid_message"), &json!(3)));

    let mut again = subscribe.clone();
    again["cursor"] = json!(block.id);
    let mut resumed = Socket::open(&streamer, &again).await;
    assert_eq!(resumed.event("order.created").await.json()["payload"]["table_number"], 3);
}

#[tokio::test]
async fn a_websocket_lets_in_nobody_else() {
    let (_postgres, streamer) = orders::start(&token::ARGUMENTS).await;
    let cafe = token::of(Some("cafe"), "ann");
    for (first, code, close) in [
        (json!({"type": "subscribe"}), "unauthenticated", 4401),
        (json!({"type": "subscribe", "token": "nonsense"}), "invalid_token", 4401),
        (json!({"type": "subscribe", "token": cafe, "tenant_id": "bar"}), "forbidden", 4400),
        (json!({"type": "subscribe", "token": cafe, "cursor": "x"}), "invalid_cursor", 4400),
        (json!({"type": "batch", "token": cafe}), "invalid_message", 4400),
        (json!(7), "invalid_message", 4400),
    ] {
        let mut socket = Socket::open(&streamer, &first).await;
        assert_eq!(socket.event("headwater.error").await.json()["code"], code, "{first}");
        assert_eq!(socket.next().await, None);
        assert_eq!(socket.closed, Some(close), "{first}");
    }
    let short = token::sign(&json!({"tenant_id": "cafe", "exp": token::in_seconds(-28)}));
    let mut socket = Socket::open(&streamer, &json!({"type": "subscribe", "token": short})).await;
    socket.event("headwater.expired").await;
    assert_eq!(socket.next().await, None);

    let mut request = streamer.url("/api/v1/events/ws").replace("http", "ws").into_client_request().unwrap();
    request.headers_mut().insert("origin", "https://evil.example".parse().unwrap());
    assert!(tokio_tungstenite::connect_async(request).await.is_err(), "a page of another origin");
}

/// Before anybody has said who he is, and behind that: what one connection makes us hold is small.
#[tokio::test]
async fn a_websocket_takes_no_message_beyond_its_bound() {
    let (_postgres, streamer) = orders::start(&token::ARGUMENTS).await;
    let large = "x".repeat(100_000);
    let mut stranger = Socket::open(&streamer, &json!({"type": "subscribe", "token": large})).await;
    assert_eq!(stranger.next().await, None, "no answer to what was not read");

    let subscribe = json!({"type": "subscribe", "token": token::of(Some("cafe"), "ann")});
    let mut socket = Socket::open(&streamer, &subscribe).await;
    assert!(socket.next().await.is_some());
    socket.send(&json!({"type": "batch", "events": [large]})).await;
    assert_eq!(socket.next().await, None);
    assert!(Socket::open(&streamer, &subscribe).await.next().await.is_some(), "others go on");
}
