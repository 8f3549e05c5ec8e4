//! Promise: no byte of another tenant's rows reaches a tenant, by any endpoint or transport, with any cursor or handle,
//! in deletes and tombstones neither. Oracle: every row carries its owner's secret, which is looked for in all that comes.

use headwater_tests::deadline::eventually;
use headwater_tests::event::order_event;
use headwater_tests::http::{self, with_query};
use headwater_tests::postgres::Postgres;
use headwater_tests::sse::Connection;
use headwater_tests::streamer::Streamer;
use headwater_tests::token;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::orders;
use crate::websocket::Socket;

const OWNERS: [Option<&str>; 3] = [Some("cafe"), Some("bar"), None];

fn name(owner: Option<&str>) -> &str {
    owner.unwrap_or("nobody")
}

fn secret(owner: Option<&str>) -> String {
    format!("secret-of-{}", name(owner))
}

/// All that one caller got.
struct Loot {
    owner: Option<&'static str>,
    token: String,
    all: String,
}

impl Loot {
    fn new(owner: Option<&'static str>) -> Self {
        Self { owner, token: token::of(owner, name(owner)), all: String::new() }
    }

    /// Takes what an address gives, whatever it is.
    async fn get(&mut self, streamer: &Streamer, path: &str, query: &[(&str, &str)]) -> http::Answer {
        let answer = http::get_as(&self.token, &streamer.url(path), query).await;
        self.take(&format!("{path} {query:?}"), &answer.body);
        answer
    }

    /// Nothing of others may be in it.
    fn take(&mut self, from: &str, text: &str) {
        for other in OWNERS.into_iter().filter(|other| *other != self.owner) {
            assert!(!text.contains(&secret(other)), "{} got by {from}: {text}", name(self.owner));
        }
        self.all.push_str(text);
    }

    async fn stream(&self, streamer: &Streamer, client: &reqwest::Client, cursor: &str) -> Connection {
        let url = with_query(&streamer.url("/api/v1/events/stream"), &[("cursor", cursor)]);
        let opened = Connection::open_with(client, Some(&self.token), url, None).await;
        opened.unwrap_or_else(|answer| panic!("{answer:?}"))
    }

    /// Reads a stream until its own last row comes.
    async fn follow(&mut self, mut connection: Connection) {
        loop {
            let data = connection.next_event().await.data.unwrap();
            self.take("the stream", &data);
            if data.contains("-the-last") {
                return;
            }
        }
    }

    async fn socket(&self, streamer: &Streamer, cursor: &str) -> Socket {
        let first = json!({"type": "subscribe", "token": self.token, "cursor": cursor});
        Socket::open(streamer, &first).await
    }

    async fn follow_socket(&mut self, mut socket: Socket) {
        loop {
            let block = socket.next().await.expect("the last row");
            let data = block.data.unwrap_or_default();
            self.take("the WebSocket", &data);
            if data.contains("-the-last") {
                return;
            }
        }
    }

    /// A shape from its beginning until it is up to date.
    async fn shape(
        &mut self,
        streamer: &Streamer,
        more: &[(&str, &str)],
        handle: Option<(String, String)>,
    ) -> Option<(String, String)> {
        let (mut handle, mut offset) =
            handle.map_or((None, "-1".to_owned()), |(handle, offset)| (Some(handle), offset));
        loop {
            let mut query = vec![("table", "orders"), ("offset", offset.as_str())];
            query.extend(handle.iter().map(|handle| ("handle", handle.as_str())));
            query.extend(more);
            let url = with_query(&streamer.url("/v1/shape"), &query);
            let answer = http::client().get(url).bearer_auth(&self.token).send().await.unwrap();
            let header = |name: &str| Some(answer.headers().get(name)?.to_str().unwrap().to_owned());
            let (next, at, done) =
                (header("electric-handle"), header("electric-offset"), header("electric-up-to-date"));
            let status = answer.status();
            self.take(&format!("a shape {query:?}"), &answer.text().await.unwrap());
            if status != 200 {
                return None;
            }
            let place = next.zip(at)?;
            if done.is_some() {
                return Some(place);
            }
            (handle, offset) = (Some(place.0), place.1);
        }
    }
}

/// Rows that come, change, go and are erased, of everybody in every transaction.
async fn live(postgres: &Postgres, word: &str) {
    for owner in OWNERS {
        let (tenant, status) = (owner.map_or("null".to_owned(), |owner| format!("'{owner}'")), secret(owner));
        let own = format!("tenant_id is not distinct from {tenant}");
        postgres
            .sql(&format!(
                "insert into orders (tenant_id, status) select {tenant}, '{status}-{word}' from generate_series(1, 4);
                 update orders set items = '[{{\"id\": \"{status}\"}}]' where {own};
                 delete from orders where ctid = (select ctid from orders where {own} limit 1);
                 select headwater.erase('order', (select id::text from orders where {own} limit 1));"
            ))
            .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_byte_of_another_tenant_comes_by_any_way() {
    let arguments: Vec<&str> = token::ARGUMENTS.into_iter().chain(["--ring-bytes", "32768"]).collect();
    let (postgres, streamer) = orders::start(&arguments).await;
    for round in ["first", "second", "third"] {
        live(&postgres, round).await;
    }
    let mut loot = OWNERS.map(Loot::new);
    let mut cursors = Vec::new();
    for loot in &mut loot {
        let page = loot.get(&streamer, "/api/v1/events/since", &[("limit", "1000")]).await.json();
        cursors.push(page["cursor"].as_str().unwrap().to_owned());
    }
    let epoch = cursors[0].split('-').next().unwrap().to_owned();
    let row = postgres.connect().await;
    let rows = row.query("select distinct on (tenant_id) id::text, tenant_id from orders", &[]).await.unwrap();
    let ids: Vec<(String, Option<String>)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    let http2 = reqwest::Client::builder().no_proxy().http2_prior_knowledge().build().unwrap();

    // Those who are there when it happens get it out of the ring …
    let mut present = Vec::new();
    for loot in &loot {
        let (one, two) = (loot.stream(&streamer, &http::client(), "").await, loot.stream(&streamer, &http2, "").await);
        let mut three = loot.socket(&streamer, "").await;
        assert!(three.next().await.is_some(), "its greeting: it is there");
        present.push((one, two, three));
    }
    live(&postgres, "the-last").await;
    for (loot, (one, two, three)) in loot.iter_mut().zip(present) {
        loot.follow(one).await;
        loot.follow(two).await;
        loot.follow_socket(three).await;
    }

    // … the others out of the table.
    let mut shapes = Vec::new();
    for loot in &mut loot {
        // Anybody's cursor, and made-up ones, by every transport.
        for cursor in cursors.iter().cloned().chain([format!("{epoch}-0"), format!("{epoch}-3-1_0")]) {
            loot.get(&streamer, "/api/v1/events/since", &[("cursor", &cursor), ("limit", "1000")]).await;
            loot.get(&streamer, "/api/v1/events/since", &[("cursor", &cursor), ("wait", "1ms")]).await;
            for client in [&http::client(), &http2] {
                let connection = loot.stream(&streamer, client, &cursor).await;
                loot.follow(connection).await;
            }
            let socket = loot.socket(&streamer, &cursor).await;
            loot.follow_socket(socket).await;
        }
        loot.get(&streamer, "/api/v1/entities/order/snapshot", &[]).await;
        // Everybody's entities by name; histories with everybody's places.
        let now = headwater_tests::event::now();
        for (id, _) in &ids {
            let path = format!("/api/v1/entities/order/{id}");
            let history = loot.get(&streamer, &format!("{path}/history"), &[("limit", "1")]).await.json();
            for place in [
                history["cursor"].as_str().unwrap_or_default(),
                "2000-01-01T00:00:00Z_00000000-0000-0000-0000-000000000000",
            ] {
                loot.get(&streamer, &format!("{path}/history"), &[("cursor", place)]).await;
            }
            loot.get(&streamer, &path, &[]).await;
            loot.get(&streamer, &path, &[("as_of", &now)]).await;
            loot.get(&streamer, "/api/v1/events/since", &[("entity_id", id)]).await;
        }
        let whole = loot.shape(&streamer, &[], None).await.expect("a shape");
        for filter in ["tenant_id = 'bar'", "status like 'secret%'", "true or tenant_id is null"] {
            loot.shape(&streamer, &[("where", filter)], None).await;
        }
        shapes.push(whole);
    }
    // Everybody's handles, and what changes from there on.
    live(&postgres, "afterwards").await;
    for loot in &mut loot {
        for shape in &shapes {
            loot.shape(&streamer, &[], Some(shape.clone())).await;
        }
        assert!(loot.all.contains(&secret(loot.owner)), "{} got nothing", name(loot.owner));
    }
    foreign_rows_are_as_if_missing(&streamer, &mut loot[0], &ids).await;
}

/// Whatever is posted about another's entity, the answer is the one for an entity that does not exist.
async fn foreign_rows_are_as_if_missing(streamer: &Streamer, cafe: &mut Loot, ids: &[(String, Option<String>)]) {
    let url = streamer.url("/api/v1/events/batch");
    let bars = ids.iter().find(|(_, owner)| owner.as_deref() == Some("bar")).expect("bar has a row");
    let bar = token::of(Some("bar"), "bar");
    let keyed = |entity: Value, kind: &str, payload: Value, more: &[(&str, Value)]| {
        let mut event = order_event(kind, Uuid::now_v7(), &payload);
        event.as_object_mut().unwrap().remove("tenant_id");
        event["entity_id"] = entity;
        for (member, value) in more {
            event[*member] = value.clone();
        }
        event
    };
    // A key that bar has used means nothing for cafe.
    let mine = keyed(
        json!(Uuid::now_v7()),
        "order.created",
        json!({"status": "secret-of-bar"}),
        &[("idempotency_key", json!("k"))],
    );
    http::post_as(&bar, &url, json!({"events": [mine]}).to_string()).await;
    for (kind, payload, more) in [
        ("order.state_changed", json!({"status": "taken over"}), vec![]),
        ("order.deleted", json!({}), vec![]),
        ("order.state_changed", json!({"status": "x"}), vec![("expected_position", json!(1))]),
        ("order.state_changed", json!({"status": "x"}), vec![("idempotency_key", json!("k"))]),
    ] {
        let mut answers = Vec::new();
        for entity in [json!(bars.0), json!(Uuid::now_v7())] {
            let event = keyed(entity, kind, payload.clone(), &more);
            let answer = http::post_as(&cafe.token, &url, json!({"events": [event]}).to_string()).await;
            cafe.take("a batch", &answer.body);
            let answer = answer.json();
            answers.push((answer["accepted"].as_array().unwrap().len(), answer["rejected"][0]["code"].clone()));
            if more.iter().any(|(member, _)| *member == "idempotency_key") {
                // Twice with one key would be cafe's own conflict.
                break;
            }
        }
        assert!(answers.iter().all(|answer| *answer == answers[0]), "{kind} {more:?}: {answers:?}");
    }
    let theirs = eventually("bar's row as it was", || async {
        let answer = http::get_as(&bar, &streamer.url(&format!("/api/v1/entities/order/{}", bars.0)), &[]).await;
        (answer.status != 503).then_some(answer)
    })
    .await;
    assert!(!theirs.body.contains("taken over"), "{}", theirs.body);
}

/// What a browser asks before it sends a token, and what it is told.
#[tokio::test]
async fn only_pages_of_listed_origins_may_call() {
    let arguments: Vec<&str> = token::ARGUMENTS.into_iter().chain(["--cors-origin", "https://app.example"]).collect();
    let (_postgres, streamer) = orders::start(&arguments).await;
    let url = streamer.url("/api/v1/events/since");
    let preflight = async |origin: &str| {
        let request = http::client().request(reqwest::Method::OPTIONS, &url).header("origin", origin);
        let request = request.header("access-control-request-method", "GET");
        request.header("access-control-request-headers", "authorization,last-event-id").send().await.unwrap()
    };
    let allowed = preflight("https://app.example").await;
    let header = |answer: &reqwest::Response, name: &str| {
        answer.headers().get(name).map(|value| value.to_str().unwrap().to_ascii_lowercase())
    };
    assert_eq!(header(&allowed, "access-control-allow-origin").as_deref(), Some("https://app.example"));
    let headers = header(&allowed, "access-control-allow-headers").unwrap();
    assert!(
        ["authorization", "content-encoding", "last-event-id"].iter().all(|name| headers.contains(name)),
        "{headers}"
    );
    assert_eq!(header(&allowed, "access-control-allow-credentials"), None, "there are no cookies");
    for origin in ["https://evil.example", "http://localhost:5173", "null", "https://app.example.evil.example"] {
        assert_eq!(header(&preflight(origin).await, "access-control-allow-origin"), None, "{origin}");
    }
    // An answer that a page may read says so, errors included; and caches keep them apart.
    let request = http::client().get(&url).header("origin", "https://app.example");
    let refused = request.send().await.unwrap();
    assert_eq!(refused.status(), 401);
    assert_eq!(header(&refused, "access-control-allow-origin").as_deref(), Some("https://app.example"));
    assert!(header(&refused, "vary").is_some_and(|vary| vary.contains("origin")));
}
