//! Promise: TLS and HTTP/2 carry everything that HTTP/1.1 does, certificates are renewed without a restart, and nobody
//! holds a connection, a stream or memory by leaving something undone. Oracles: the client's own TLS, and the socket.

use headwater_tests::deadline::{PATIENCE, eventually};
use headwater_tests::http::{self, with_query};
use headwater_tests::place::{Scratch, signal};
use headwater_tests::postgres::Postgres;
use headwater_tests::sse::Connection;
use headwater_tests::streamer::Streamer;
use headwater_tests::token;
use reqwest::Version;
use serde_json::json;
use std::path::PathBuf;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::orders;

/// A certificate for 127.0.0.1 in files of its own.
struct Files {
    scratch: Scratch,
}

impl Files {
    fn new() -> (Self, String) {
        let files = Self { scratch: Scratch::new("tls") };
        let certificate = files.renew();
        (files, certificate)
    }

    /// Writes another one; its PEM.
    fn renew(&self) -> String {
        let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        std::fs::write(self.path("key.pem"), made.signing_key.serialize_pem()).unwrap();
        std::fs::write(self.path("cert.pem"), made.cert.pem()).unwrap();
        made.cert.pem()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    async fn serve(&self, postgres: &Postgres) -> Streamer {
        let (certificate, key) = (self.path("cert.pem"), self.path("key.pem"));
        Streamer::start(postgres, &["--tls-cert", certificate.to_str().unwrap(), "--tls-key", key.to_str().unwrap()])
            .await
    }
}

/// Everything that a stream is for: greeting, a live event, resume; then a page and a batch.
async fn everything_works(client: &reqwest::Client, version: Version, postgres: &Postgres, streamer: &Streamer) {
    let url = with_query(&streamer.url("/api/v1/events/stream"), &[]);
    let answer = client.get(streamer.url("/health")).send().await.unwrap();
    assert_eq!((answer.status().as_u16(), answer.version()), (200, version));
    let opened = Connection::open_with(client, None, url.clone(), None).await;
    let mut connection = opened.unwrap_or_else(|answer| panic!("{answer:?}"));
    let greeting = connection.next().await.expect("a greeting");
    postgres.sql("insert into orders (table_number) values (1)").await;
    let live = connection.next_event().await;
    let resumed = Connection::open_with(client, None, url, greeting.id.as_deref()).await;
    let mut resumed = resumed.unwrap_or_else(|answer| panic!("{answer:?}"));
    assert_eq!(resumed.next_event().await.json()["id"], live.json()["id"]);

    let batch = client.post(streamer.url("/api/v1/events/batch")).json(&json!({"events": []}));
    assert_eq!(http::send(batch).await.status, 200);
    let page = client.get(with_query(&streamer.url("/api/v1/events/since"), &[("limit", "1")]));
    assert_eq!(http::send(page).await.json()["events"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn tls_and_http2_carry_everything() {
    let postgres = Postgres::start().await;
    postgres.sql(orders::SCHEMA).await;
    let plain = Streamer::start(&postgres, &[]).await;
    let prior_knowledge = reqwest::Client::builder().no_proxy().http2_prior_knowledge().build().unwrap();
    everything_works(&prior_knowledge, Version::HTTP_2, &postgres, &plain).await;
    everything_works(&http::client(), Version::HTTP_11, &postgres, &plain).await;
    drop(plain);

    let (files, certificate) = Files::new();
    let encrypted = files.serve(&postgres).await;
    let trusting = || http::client_that_trusts(&certificate);
    everything_works(&trusting().build().unwrap(), Version::HTTP_2, &postgres, &encrypted).await;
    everything_works(&trusting().http1_only().build().unwrap(), Version::HTTP_11, &postgres, &encrypted).await;
    let plain = encrypted.url("/health").replace("https", "http");
    assert!(http::client().get(plain).send().await.is_err(), "nothing is served in the clear");
    assert!(http::client().get(encrypted.url("/health")).send().await.is_err(), "nobody vouches for it");
}

#[tokio::test]
async fn a_renewed_certificate_is_taken_without_a_restart() {
    let postgres = Postgres::start().await;
    let (files, mut certificate) = Files::new();
    let streamer = files.serve(&postgres).await;
    let url = with_query(&streamer.url("/api/v1/events/stream"), &[]);
    let old = http::client_that_trusts(&certificate).build().unwrap();
    let opened = Connection::open_with(&old, None, url, None).await;
    let mut connection = opened.unwrap_or_else(|answer| panic!("{answer:?}"));
    connection.next().await.expect("a greeting");

    for how in ["SIGHUP", "the change of the files alone"] {
        certificate = files.renew();
        if how == "SIGHUP" {
            signal(streamer.pid(), "HUP");
        }
        // A client of its own each time, or its connection would be used again.
        eventually(how, || {
            let client = http::client_that_trusts(&certificate).build().unwrap();
            let url = streamer.url("/health");
            async move { client.get(url).send().await.ok() }
        })
        .await;
    }

    // What cannot be read does no harm.
    std::fs::write(files.path("cert.pem"), "nonsense").unwrap();
    signal(streamer.pid(), "HUP");
    let client = http::client_that_trusts(&certificate).build().unwrap();
    assert!(client.get(streamer.url("/health")).send().await.is_ok());
    postgres
        .sql("create table late (id int primary key); select headwater.enable('late'); insert into late values (1)")
        .await;
    connection.next_event().await;
}

/// States of sockets in /proc/net/tcp (`include/net/tcp_states.h`).
const TIME_WAIT: &str = "06";
const LISTEN: &str = "0A";

/// What the server sends until it closes.
async fn until_closed(mut socket: TcpStream) -> String {
    let mut all = Vec::new();
    // A reset is a close too.
    let _ = tokio::time::timeout(PATIENCE, socket.read_to_end(&mut all)).await.expect("the server closes");
    String::from_utf8_lossy(&all).into_owned()
}

#[tokio::test]
async fn who_dribbles_or_sends_too_much_is_let_go() {
    let (_postgres, streamer) =
        orders::start(&["--header-timeout", "300ms", "--max-header-bytes", "8KiB", "--max-headers", "20"]).await;
    let connect = async |bytes: &[u8]| {
        let mut socket = TcpStream::connect(("127.0.0.1", streamer.port())).await.unwrap();
        socket.write_all(bytes).await.unwrap();
        until_closed(socket).await
    };
    assert_eq!(connect(b"").await, "", "silence");
    assert_eq!(connect(b"GET /health HTTP/1.1\r\nhost: localhost\r\nx-slow").await, "", "half a head");
    assert_eq!(connect(b"PRI * HTT").await, "", "half a preface");
    // The server's own settings and pings, then its goodbye.
    connect(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await;
    // A header block without an end: nothing but its continuation may follow.
    connect(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0\0\0\x01\x01\0\0\0\0\x01\x82").await;

    let large = format!("GET /health HTTP/1.1\r\nhost: localhost\r\nx-large: {}\r\n\r\n", "x".repeat(8192));
    assert!(connect(large.as_bytes()).await.starts_with("HTTP/1.1 431 "));
    let many = format!("GET /health HTTP/1.1\r\nhost: localhost\r\n{}\r\n", "x-many: 1\r\n".repeat(20));
    assert!(connect(many.as_bytes()).await.starts_with("HTTP/1.1 431 "));
    assert!(connect(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n").await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn a_reader_that_takes_nothing_is_let_go() {
    let (postgres, streamer) = orders::start(&["--write-timeout", "300ms"]).await;
    let mut socket = TcpStream::connect(("127.0.0.1", streamer.port())).await.unwrap();
    socket.write_all(b"GET /api/v1/events/stream HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    let mut greeting = [0; 1];
    socket.read_exact(&mut greeting).await.unwrap();
    // The server's end of connections, in any state: nothing may stay with the kernel either.
    let ends = || {
        let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
        let local = format!("0100007F:{:04X}", streamer.port());
        let ends = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        ends.filter(|end| end[1] == local && !matches!(end[3], LISTEN | TIME_WAIT)).count()
    };
    // More than the kernel's buffers take.
    eventually("the connection to be closed", || async {
        postgres.sql("insert into orders (tenant_id) select repeat('x', 1000) from generate_series(1, 2000)").await;
        (ends() == 0).then_some(())
    })
    .await;
    assert_eq!(http::get(&streamer.url("/health"), &[]).await.status, 200);
}

#[tokio::test]
async fn one_tenant_cannot_take_all_streams() {
    let arguments: Vec<&str> = token::ARGUMENTS.into_iter().chain(["--max-streams-per-tenant", "2"]).collect();
    let (_postgres, streamer) = orders::start(&arguments).await;
    let url = with_query(&streamer.url("/api/v1/events/stream"), &[]);
    let cafe = token::of(Some("cafe"), "ann");
    let open = || Connection::open_as(Some(&cafe), url.clone(), None);
    let mut connections = Vec::new();
    for _ in 0..2 {
        connections.push(open().await.unwrap_or_else(|answer| panic!("{answer:?}")));
    }
    let Err(Some(refused)) = open().await else { panic!("a third stream") };
    refused.assert_problem(429, "too_many_streams");
    let bar = Connection::open_as(Some(&token::of(Some("bar"), "bob")), url.clone(), None).await;
    assert!(bar.is_ok(), "others are not disturbed");
    connections.pop();
    eventually("a place to be free", || async { open().await.ok() }).await;
}

#[tokio::test]
async fn a_stop_ends_streams_with_a_retry_and_lets_requests_finish() {
    let (postgres, mut streamer) = orders::start(&["--retry", "1234ms"]).await;
    let url = with_query(&streamer.url("/api/v1/events/stream"), &[]);
    let http2 = reqwest::Client::builder().no_proxy().http2_prior_knowledge().build().unwrap();
    let mut connections = Vec::new();
    for client in [&http2, &http2, &http::client()] {
        let opened = Connection::open_with(client, None, url.clone(), None).await;
        let mut connection = opened.unwrap_or_else(|answer| panic!("{answer:?}"));
        connection.next().await.expect("a greeting");
        connections.push(connection);
    }
    // A batch that waits for a lock, while the streamer is told to stop.
    postgres.sql("insert into orders (id, table_number) values ('0190b5a0-0000-7000-8000-000000000001', 1)").await;
    let blocker = postgres.connect().await;
    blocker.batch_execute("begin; lock table orders in exclusive mode").await.unwrap();
    let event = headwater_tests::event::order_event("order.created", uuid::Uuid::now_v7(), &json!({"table_number": 2}));
    let request = http2.post(streamer.url("/api/v1/events/batch")).json(&json!({"events": [event]}));
    let batch = tokio::spawn(http::send(request));
    eventually("the batch to wait", || async {
        let waiting = "select count(*) from pg_locks where not granted";
        (postgres.count(waiting).await > 0).then_some(())
    })
    .await;

    let stopping = tokio::spawn(async move { streamer.terminate().await });
    for connection in &mut connections {
        let last = connection.find("the goodbye", |block| block.retry == Some(1234)).await;
        assert!(last.id.is_some_and(|id| !id.is_empty()), "with a cursor");
        assert_eq!(connection.next().await, None, "then it ends");
    }
    blocker.batch_execute("commit").await.unwrap();
    let answer = batch.await.unwrap();
    assert_eq!((answer.status, answer.json()["accepted"].as_array().map(Vec::len)), (200, Some(1)), "{answer:?}");
    assert!(stopping.await.unwrap().success());
}
