//! Promise: whatever anybody sends to any route, it is answered as the HTTP API says or its connection ends: no 5xx but
//! the documented 503s, no panic, no word of it as SQL, and the streamer is well afterwards. Oracles: status lines; both
//! logs; what Postgres was told to run (`log_statement`), without its literals; a table that nobody may touch.
//!
//! `HEADWATER_TEST_MUTATIONS=10000` for the long run; `HEADWATER_TEST_SEED` for another one.

use std::collections::BTreeMap;

use headwater_tests::deadline::PATIENCE;
use headwater_tests::event::order_event;
use headwater_tests::http;
use headwater_tests::postgres::Postgres;
use headwater_tests::random::{Random, seed};
use headwater_tests::streamer::Streamer;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use uuid::Uuid;

use crate::orders;

/// In every text that is sent for SQL: nothing of ours has this word.
const MARK: &str = "zq9x";
const SENDERS: u64 = 8;

const METHODS: &[&str] =
    &["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "TRACE", "CONNECT", "get", "GE T", "\u{0}", "BREW"];

const TARGETS: &[&str] = &[
    "/v1/shape?table=orders&offset=-1",
    "/v1/shape?table=orders&offset=now",
    "/v1/shape?table=orders&offset=-1&where=table_number%3D1&columns=id,status",
    "/v1/shape?table=orders&offset=-1&where=status%3D%241&params%5B1%5D=open",
    "/v1/shape?table=orders&offset=0_0&handle=3-1&live=true&cursor=1",
    "/v1/shape?table=orders&offset=-1&replica=full&log=changes_only",
    "/v1/shape?table=orders&offset=0_0&handle=1-1&live=true&live_sse=true",
    "/v1/shape?table=public.orders&offset=-1&subset__where=table_number%3E0&subset__limit=3&subset__order_by=id",
    "/v1/health",
    "/",
    "/health",
    "/live",
    "/metrics",
    "/openapi.json",
    "/app/",
    "/console",
    "/console/",
    "/api/v1/events/since",
    "/api/v1/events/since?limit=5&entity_type=order&since=2020-01-01T00:00:00Z",
    "/api/v1/events/since?cursor=0-0&wait=20ms&entity_id=a",
    "/api/v1/events/stream",
    "/api/v1/events/stream?entity_type=order&entity_id=a",
    "/api/v1/events/ws",
    "/api/v1/events/batch",
    "/api/v1/entities/order/snapshot",
    "/api/v1/entities/order/0190b5a0-0000-7000-8000-000000000000",
    "/api/v1/entities/order/0190b5a0-0000-7000-8000-000000000000?as_of=2026-01-01T00:00:00Z",
    "/api/v1/entities/order/0190b5a0-0000-7000-8000-000000000000/history?limit=2",
];

const PARAMETERS: &[&str] = &[
    "table",
    "offset",
    "handle",
    "where",
    "columns",
    "live",
    "live_sse",
    "cursor",
    "replica",
    "params[1]",
    "params",
    "log",
    "secret",
    "api_secret",
    "subset__where",
    "subset__order_by",
    "subset__limit",
    "subset__offset",
    "subset__params",
    "experimental_compaction",
    "limit",
    "since",
    "wait",
    "entity_type",
    "entity_id",
    "as_of",
    "token",
];

const VALUES: &[&str] = &[
    "",
    "-1",
    "0",
    "0_0",
    "-1_0",
    "now",
    "inf",
    "0_inf",
    "18446744073709551616",
    "9223372036854775808_1",
    "1e400",
    "NaN",
    "true",
    "null",
    "{}",
    "[]",
    "\"",
    "'",
    "''",
    "\\",
    "%00",
    "%ff%fe",
    "%F0%9F%92%A9",
    "%C0%AF",
    "%",
    "%2",
    "%zz",
    "..%2f..%2fetc%2fpasswd",
    "../../../etc/passwd",
    "2026-13-45T99:99:99Z",
    "-infinity",
    "{\"1\":\"x\"}",
    "[[[[[[",
    "((((((((((((((((((((((((((((((((((((((((((((((((",
    "a,b,c",
    "id,id",
    "pg_catalog.pg_authid",
    "headwater.event",
    "\"orders\"",
    "orders;",
    "public.orders.id",
    "99999999999999999999ms",
    "-5s",
    "5y",
];

const SQL: &[&str] = &[
    "'; drop table canary_zq9x; --",
    "1=1); delete from canary_zq9x; select (1",
    "status = 'open' union select secret from canary_zq9x",
    "(select count(*) from canary_zq9x) > 0",
    "pg_sleep_zq9x(10) is null",
    "status = $zq9x$open$zq9x$",
    "status = E'\\'zq9x'",
    "status = U&'\\0027zq9x'",
    "/* zq9x */ true -- zq9x",
    "\"zq9x\" = 1",
    "status like 'zq9x%' escape ''",
    "id::zq9x is null",
    "zq9x(status)",
    "status = 'zq9x' || chr(39)",
    "status collate \"zq9x\" = 'a'",
    "orders\"; drop table canary_zq9x; --",
    "\\'; copy canary_zq9x to program 'id'; --",
];

const HEADERS: &[&str] = &[
    "content-length: 5",
    "content-length: -1",
    "content-length: 99999999999999999999",
    "transfer-encoding: chunked",
    "transfer-encoding: gzip, chunked",
    "content-encoding: gzip",
    "content-encoding: br",
    "content-type: text/plain",
    "content-type: application/json; charset=\"\u{1}\"",
    "accept-encoding: gzip;q=nope",
    "authorization: Bearer zq9x.zq9x.zq9x",
    "authorization: Basic Og==",
    "last-event-id: 0-0-0_0",
    "last-event-id: '; drop table canary_zq9x; --",
    "if-none-match: \"1-1:-1:0_0\"",
    "if-none-match: *",
    "range: bytes=0-,5-2,-1",
    "origin: null",
    "access-control-request-method: GET",
    "host: evil.example",
    "host:",
    "expect: 100-continue",
    "upgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==",
    "upgrade: h2c\r\nconnection: upgrade, http2-settings\r\nhttp2-settings: AAMAAABkAARAAAAAAAIAAAAA",
    "connection: close",
    "x-forwarded-for: 127.0.0.1",
    " folded: no",
    "no colon",
    "x-\u{0}: y",
    "electric-handle: 1",
];

/// A request as bytes are made of it.
struct Request {
    method: String,
    target: String,
    headers: Vec<String>,
    body: Vec<u8>,
}

impl Request {
    fn any(random: &mut Random) -> Self {
        let target = *random.one_of(TARGETS);
        let (method, body) = if target.ends_with("batch") || random.below(12) == 0 {
            let event = order_event("order.created", Uuid::now_v7(), &json!({ "status": MARK, "table_number": 7 }));
            ("POST", json!({ "events": [event] }).to_string().into_bytes())
        } else {
            ("GET", Vec::new())
        };
        let mut request = Self {
            method: method.to_owned(),
            target: target.to_owned(),
            headers: vec!["host: 127.0.0.1".to_owned(), "content-type: application/json".to_owned()],
            body,
        };
        for _ in 0..random.below(5) {
            request.mutate(random);
        }
        request
    }

    fn mutate(&mut self, random: &mut Random) {
        match random.below(16) {
            0 => (*random.one_of(METHODS)).clone_into(&mut self.method),
            1 | 2 => self.put(random, VALUES),
            3..=5 => self.put(random, SQL),
            6 => self.in_place(random),
            7 => self.in_path(random, VALUES),
            8 => self.in_path(random, SQL),
            9 | 10 => self.headers.push((*random.one_of(HEADERS)).to_owned()),
            11 => self.in_body(random),
            12 => self.of_event(random),
            13 => {
                self.target = self.target.replace('/', random.one_of::<&str>(&["//", "/./", "/%2e%2e/", "%2f", "\\"]));
            }
            14 => {
                let long = "zq9x".repeat(random.index(5000));
                self.target = format!("{}&where=status%3D%27{long}%27", self.target);
            }
            _ => self.headers.push(format!("x-{}: {}", random.below(200), "y".repeat(random.index(20_000)))),
        }
    }

    /// A parameter, spelled well enough to be understood, or not.
    fn put(&mut self, random: &mut Random, values: &[&str]) {
        let value = *random.one_of::<&str>(values);
        let value = if random.below(4) == 0 { value.replace(' ', "+") } else { percent_encoded(value) };
        let name = random.one_of(PARAMETERS).replace('[', "%5B").replace(']', "%5D");
        let joint = if self.target.contains('?') { '&' } else { '?' };
        self.target = format!("{}{joint}{name}={value}", self.target);
    }

    /// One character of the target is another one, is gone, or is there twice.
    fn in_place(&mut self, random: &mut Random) {
        let mut characters: Vec<char> = self.target.chars().collect();
        let at = random.index(characters.len());
        match random.below(3) {
            0 => characters[at] = *random.one_of(&['%', '/', '?', '&', '=', '#', '\'', '\u{7f}', 'é', '\t', '.', ';']),
            1 => drop(characters.remove(at)),
            _ => characters.insert(at, characters[at]),
        }
        self.target = characters.into_iter().collect();
    }

    fn in_path(&mut self, random: &mut Random, values: &[&str]) {
        let value = percent_encoded(random.one_of::<&str>(values));
        let (path, query) = self.target.split_once('?').unwrap_or((&self.target, ""));
        let mut parts: Vec<&str> = path.split('/').collect();
        let at = random.index(parts.len());
        parts[at] = &value;
        let path = parts.join("/");
        self.target = if query.is_empty() { path } else { format!("{path}?{query}") };
    }

    fn in_body(&mut self, random: &mut Random) {
        if self.body.is_empty() {
            return self.body.extend_from_slice(random.one_of(SQL).as_bytes());
        }
        let at = random.index(self.body.len());
        match random.below(4) {
            0 => self.body.truncate(at),
            1 => self.body[at] = u8::try_from(random.below(256)).unwrap(),
            2 => drop(self.body.remove(at)),
            _ => drop(self.body.splice(at..at, random.one_of(VALUES).bytes())),
        }
    }

    /// A good batch whose event has something else in one place.
    fn of_event(&mut self, random: &mut Random) {
        let mut event = order_event("order.created", Uuid::now_v7(), &json!({ "status": "open" }));
        let members = [
            "id",
            "event_type",
            "entity_type",
            "entity_id",
            "payload",
            "timestamp",
            "client_id",
            "user_id",
            "tenant_id",
            "idempotency_key",
            "schema_version",
            "expected_position",
        ];
        let value = if random.below(2) == 0 { *random.one_of(SQL) } else { *random.one_of(VALUES) };
        match random.below(4) {
            0 => event["payload"] = json!({ value: value }),
            1 => event["payload"] = json!({ "status": value, "items": [value] }),
            2 => event[*random.one_of(&members)] = json!({ value: [value] }),
            _ => event[*random.one_of(&members)] = json!(value),
        }
        self.body = json!({ "events": [event] }).to_string().into_bytes();
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = format!("{} {} HTTP/1.1\r\n", self.method, self.target).into_bytes();
        for header in &self.headers {
            bytes.extend_from_slice(header.as_bytes());
            bytes.extend_from_slice(b"\r\n");
        }
        if !self.body.is_empty() && self.headers.iter().all(|header| !header.starts_with("transfer-encoding")) {
            bytes.extend_from_slice(format!("content-length: {}\r\n", self.body.len()).as_bytes());
        }
        bytes.extend_from_slice(b"\r\n");
        bytes.extend_from_slice(&self.body);
        bytes
    }

    /// Whether the server may rightly wait for more of it.
    fn is_unfinished(&self) -> bool {
        self.headers
            .iter()
            .any(|header| header.starts_with("transfer-encoding") || header.starts_with("content-length"))
    }
}

fn percent_encoded(text: &str) -> String {
    // What is encoded already stays: a stray `%` is wanted, too.
    let encoded = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'%' => char::from(byte).to_string(),
        other => format!("%{other:02X}"),
    };
    text.bytes().map(encoded).collect()
}

/// The status of the answer; none if the connection ended without one.
async fn exchange(port: u16, request: &Request) -> Option<u16> {
    let mut socket = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    // A server that has heard enough may close before it has all.
    let _ = socket.write_all(&request.bytes()).await;
    if request.is_unfinished() {
        let _ = socket.shutdown().await;
    }
    let mut head = Vec::new();
    let mut buffer = [0; 4096];
    while !head.windows(2).any(|end| end == b"\r\n") {
        match socket.read(&mut buffer).await {
            Ok(0) | Err(_) => return None,
            Ok(count) => head.extend_from_slice(&buffer[..count]),
        }
    }
    let line = String::from_utf8_lossy(&head);
    Some(line.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_else(|| panic!("no status: {line}")))
}

async fn send_many(port: u16, mut random: Random, count: u64) -> BTreeMap<String, u64> {
    let mut outcomes = BTreeMap::new();
    for _ in 0..count {
        let request = Request::any(&mut random);
        let shown = || String::from_utf8_lossy(&request.bytes()).into_owned();
        let status = timeout(PATIENCE, exchange(port, &request)).await;
        let status = status.unwrap_or_else(|_| panic!("neither an answer nor an end: {}", shown()));
        if let Some(status) = status.filter(|status| *status >= 500) {
            assert_eq!(status, 503, "{}", shown());
        }
        *outcomes.entry(status.map_or_else(|| "ended".to_owned(), |status| status.to_string())).or_default() += 1;
    }
    outcomes
}

/// The statements of a server's log, without their literals: what a client may rightly have put there is gone.
fn statements(log: &str) -> Vec<String> {
    let mut entries: Vec<String> = Vec::new();
    for line in log.lines() {
        match entries.last_mut() {
            Some(last) if line.starts_with('\t') => last.push_str(line),
            _ => entries.push(line.to_owned()),
        }
    }
    let statement = |entry: String| {
        let told =
            ["LOG:  statement: ", "LOG:  execute "].iter().find_map(|kind| Some(entry.split_once(kind)?.1.to_owned()));
        told.map(|text| without_literals(&text))
    };
    entries.into_iter().filter_map(statement).collect()
}

/// Leaves out what stands between `'` and `'`; a doubled one is no end. (Under `standard_conforming_strings` a backslash
/// means something in `E''` only: there it would hide the end, so that those stay in.)
fn without_literals(statement: &str) -> String {
    let mut rest = statement;
    let mut kept = String::new();
    while let Some((before, literal)) = rest.split_once('\'') {
        kept.push_str(before);
        let escapes = before.ends_with(['E', 'e', '&']);
        let mut end = 0;
        let bytes = literal.as_bytes();
        while end < bytes.len() && (bytes[end] != b'\'' || bytes.get(end + 1) == Some(&b'\'')) {
            end += if bytes[end] == b'\'' { 2 } else { 1 };
        }
        if escapes {
            kept.push_str(&literal[..end.min(literal.len())]);
        }
        kept.push_str("''");
        rest = literal.get(end + 1..).unwrap_or_default();
    }
    kept + rest
}

#[test]
fn literals_are_left_out_and_what_breaks_out_of_them_is_not() {
    let check = |statement: &str, expected: &str| assert_eq!(without_literals(statement), expected);
    check("select 'zq9x' from t", "select '' from t");
    check("select 'it''s zq9x', a", "select '', a");
    check("select ''; drop table zq9x", "select ''; drop table zq9x");
    check("select E'zq9x'", "select Ezq9x''");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_is_sent_nothing_breaks_and_no_word_of_it_runs() {
    let settings = ["wal_level=logical", "max_prepared_transactions=10", "log_statement=all", "fsync=off"];
    let postgres = Postgres::start_bare(&settings).await;
    postgres.install().await;
    postgres.sql(orders::SCHEMA).await;
    postgres.sql("create table canary_zq9x (secret text); insert into canary_zq9x values ('alive')").await;
    postgres.sql("insert into orders (table_number, status) select n, 'open' from generate_series(1, 20) n").await;
    let before = postgres.logged().len();
    let arguments =
        ["--long-poll-timeout", "20ms", "--sse-timeout", "50ms", "--auto-publish", "--allow-shape-deletion"];
    let streamer = Streamer::start(&postgres, &arguments).await;

    let count: u64 = std::env::var("HEADWATER_TEST_MUTATIONS").map_or(1_000, |count| count.parse().unwrap());
    let seed = seed();
    let senders = (0..SENDERS)
        .map(|n| tokio::spawn(send_many(streamer.port(), Random::new(seed ^ (n << 32)), count.div_ceil(SENDERS))));
    let mut outcomes: BTreeMap<String, u64> = BTreeMap::new();
    for sender in senders.collect::<Vec<_>>() {
        for (outcome, count) in sender.await.unwrap() {
            *outcomes.entry(outcome).or_default() += count;
        }
    }
    println!("{outcomes:?}");
    for expected in ["200", "400", "404", "405"] {
        assert!(outcomes.contains_key(expected), "nothing was answered with {expected}: the seed shows nothing");
    }

    let logged = streamer.logged();
    assert!(!logged.contains("panicked"), "{logged}");
    let logged = postgres.logged();
    // What the tests themselves say comes before.
    for statement in statements(&logged[before..]) {
        assert!(!statement.contains(MARK), "a client's text runs: {statement}");
    }
    let broken: Vec<&str> = logged[before..].lines().filter(|line| line.contains("syntax error")).collect();
    assert!(broken.is_empty(), "a client's text is read as SQL: {broken:?}");
    assert_eq!(1, postgres.count("select count(*) from canary_zq9x where secret = 'alive'").await);

    let answer = streamer.batch(&[order_event("order.created", Uuid::now_v7(), &json!({"status": "open"}))]).await;
    assert_eq!(answer["accepted"].as_array().unwrap().len(), 1, "{answer}");
    assert_eq!(http::get(&streamer.url("/health"), &[]).await.status, 200);
    assert_eq!(http::get(&streamer.url("/v1/shape"), &[("table", "orders"), ("offset", "-1")]).await.status, 200);
}
