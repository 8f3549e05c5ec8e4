//! One channel, very many readers: what a delivery costs the server in processor time, and a reader in memory.
//!
//! Messages come in bursts; the next one is published when every reader has had the last. So nobody can fall behind, and
//! everybody may send at once what waits together.

use std::fmt::Write as _;
use std::time::Duration;

use headwater_tests::postgres::Postgres;
use headwater_tests::streamer::Streamer;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_postgres::Client;

use crate::measured::{Bound, Measured, turns};
use crate::nchan::{self, Nchan};
use crate::process::{Server, anonymous_kib, cpu_seconds, open_files_limit};
use crate::readers::{Readers, mark};
use crate::{Options, peers, server};

const HEADWATER: &str = "headwater";
const NCHAN: &str = "nginx + nchan";
const AXUM: &str = "axum Sse";
const RAW: &str = "raw writes";
const ALL: [&str; 4] = [HEADWATER, NCHAN, AXUM, RAW];

const CLIENTS: [usize; 2] = [1_000, 10_000];
/// Files that a server has open besides its readers' sockets.
const OTHER_FILES: usize = 1_000;
const BURST: u64 = 100;
/// Bursts before anything is measured.
const WARM_UP: u64 = 2;
/// What a message holds besides its number; the whole frame has some 500 bytes, as Headwater's events have.
const FILLING: usize = 60;

/// After a burst a server may take so long to give memory back.
const SETTLE: Duration = Duration::from_secs(2);

pub(crate) async fn run(options: &Options) -> Vec<Measured> {
    let postgres = server::start(options).await;
    postgres.install().await;
    postgres.sql("create table message (id bigint primary key, body text); select headwater.enable('message')").await;
    let most = open_files_limit().saturating_sub(OTHER_FILES);
    let mut all = Vec::new();
    for clients in CLIENTS.map(|clients| clients.min(most)) {
        let claim = |measured: Measured, of_nchan: Option<f64>, of_axum: Option<f64>, goal_of_raw: Option<f64>| {
            measured
                .claim(HEADWATER, NCHAN, of_nchan.map(Bound::AtMost), None)
                .claim(HEADWATER, AXUM, of_axum.map(Bound::AtMost), None)
                .claim(HEADWATER, RAW, None, goal_of_raw.map(Bound::AtMost))
        };
        let figure = |what: &str, unit| Measured::new(format!("{clients} SSE clients: {what}"), unit);
        let mut bursts = claim(figure("CPU of a delivery, bursts of 100", "ns"), Some(0.25), Some(0.5), Some(1.5));
        let mut single = claim(figure("CPU of a delivery, one message at a time", "ns"), None, None, None);
        let mut idle = claim(figure("memory of an idle client", "bytes"), None, None, None).fixed(
            HEADWATER,
            Some(Bound::AtMost(6.0 * 1024.0)),
            Some(Bound::AtMost(2.0 * 1024.0)),
        );
        let mut after = claim(figure("memory of a client after bursts", "bytes"), None, None, None).fixed(
            HEADWATER,
            Some(Bound::AtMost(6.0 * 1024.0)),
            Some(Bound::AtMost(2.0 * 1024.0)),
        );
        for round in 0..options.rounds {
            for contender in turns(&ALL, round) {
                let turn = turn(&postgres, contender, clients, options.deliveries).await;
                eprintln!("    {clients} clients, round {round}, {contender}: {turn:.0?}");
                bursts.add(contender, turn.burst_ns);
                single.add(contender, turn.single_ns);
                idle.add(contender, turn.idle_bytes);
                after.add(contender, turn.after_bytes);
            }
        }
        all.extend([bursts, single, idle, after]);
    }
    all
}

#[derive(Debug)]
struct Turn {
    burst_ns: f64,
    single_ns: f64,
    idle_bytes: f64,
    after_bytes: f64,
}

enum Contender {
    Headwater { streamer: Box<Streamer>, client: Client },
    Nchan { nchan: Nchan, publisher: TcpStream },
    Peer { server: Server, publisher: TcpStream },
}

impl Contender {
    async fn start(name: &str, postgres: &Postgres, clients: usize) -> Self {
        let connect = async |port: u16| TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        match name {
            HEADWATER => {
                let client = postgres.connect().await;
                client.batch_execute("truncate message").await.unwrap();
                // A small ring, so that it is full before memory is measured.
                let streamer = Streamer::start(postgres, &["--replica", "fanout", "--ring-bytes", "1MiB"]).await;
                Self::Headwater { streamer: Box::new(streamer), client }
            }
            NCHAN => {
                let nchan = nchan::start(clients).await;
                let publisher = connect(nchan.server.port).await;
                Self::Nchan { nchan, publisher }
            }
            peer => {
                let server = peers::start(if peer == AXUM { "axum" } else { "raw" }).await;
                let publisher = connect(server.port).await;
                Self::Peer { server, publisher }
            }
        }
    }

    fn pid(&self) -> u32 {
        match self {
            Self::Headwater { streamer, .. } => streamer.pid(),
            Self::Nchan { nchan, .. } => nchan.server.pid(),
            Self::Peer { server, .. } => server.pid(),
        }
    }

    async fn readers(&self, count: usize) -> Readers {
        let (port, path) = match self {
            Self::Headwater { streamer, .. } => (streamer.port(), "/api/v1/events/stream"),
            Self::Nchan { nchan, .. } => (nchan.server.port, "/"),
            Self::Peer { server, .. } => (server.port, "/"),
        };
        Readers::open(port, path, count, false).await
    }

    /// Publishes messages with the numbers from `first` on, all at once.
    async fn publish(&mut self, first: u64, count: u64) {
        let body = |number: u64| format!("{}{}", mark(number), "x".repeat(FILLING));
        // As long as Headwater's frame of the same row.
        let event = |number: u64| {
            format!(
                r#"{{"id":"0190b0a0-0000-7000-8000-000000000001","position":{number},"entity_type":"message","entity_id":"{number}","event_type":"message.created","payload":{{"id": "{number}", "body": "{}"}},"schema_version":1,"timestamp":"2026-01-02T03:04:05.123456Z","recorded_at":"2026-01-02T03:04:05.123456Z","user_id":null,"client_id":null,"tenant_id":null,"source":"capture","applies":true}}"#,
                body(number)
            )
        };
        match self {
            Self::Headwater { client, .. } => {
                let (first, last) = (i64::try_from(first).unwrap(), i64::try_from(first + count - 1).unwrap());
                let insert = "insert into message select n, '#' || lpad(n::text, 8, '0') || '#' || repeat('x', $3)
                    from generate_series($1::bigint, $2::bigint) n";
                client.execute(insert, &[&first, &last, &i32::try_from(FILLING).unwrap()]).await.unwrap();
            }
            Self::Nchan { publisher, .. } => {
                let mut requests = String::new();
                for message in (first..first + count).map(event) {
                    let head = "POST /publish HTTP/1.1\r\nhost: b\r\ncontent-type: application/json\r\n";
                    let _ = write!(requests, "{head}content-length: {}\r\n\r\n{message}", message.len());
                }
                exchange(publisher, requests.as_bytes(), count).await;
            }
            Self::Peer { publisher, .. } => {
                let body: String = (first..first + count).map(|number| event(number) + "\n").collect();
                let request = format!(
                    "POST / HTTP/1.1\r\nhost: b\r\ncontent-type: text/plain\r\ncontent-length: {}\r\n\r\n{body}",
                    body.len()
                );
                exchange(publisher, request.as_bytes(), 1).await;
            }
        }
    }
}

/// Sends requests and reads as many answers; each must be one of success.
async fn exchange(socket: &mut TcpStream, requests: &[u8], answers: u64) {
    let (mut reader, mut writer) = socket.split();
    let read = async {
        let (mut text, mut seen) = (Vec::new(), 0);
        while seen < answers {
            assert!(reader.read_buf(&mut text).await.unwrap() > 0, "the server hung up");
            // With the first digit of the status.
            let mut heads = text.windows(10).filter(|window| window.starts_with(b"HTTP/1.1 "));
            let good = heads.clone().count();
            assert!(heads.all(|head| head.ends_with(b"2")), "{}", String::from_utf8_lossy(&text));
            seen = good as u64;
        }
        // nchan's answers have bodies; what is left of the last one does not disturb the next count.
    };
    let (written, ()) = tokio::join!(writer.write_all(requests), read);
    written.unwrap();
}

async fn turn(postgres: &Postgres, name: &str, clients: usize, deliveries: u64) -> Turn {
    let mut contender = Contender::start(name, postgres, clients).await;
    let mut next = 1;
    // What a server loads once, and a ring that is full, are no client's.
    for _ in 0..30 {
        contender.publish(next, BURST).await;
        next += BURST;
    }
    tokio::time::sleep(SETTLE).await;
    let pid = contender.pid();
    let bare = anonymous_kib(pid);
    let readers = contender.readers(clients).await;
    tokio::time::sleep(SETTLE).await;
    let idle = anonymous_kib(pid);

    let clients_u64 = clients as u64;
    let mut received = 0;
    let mut bursts = async |contender: &mut Contender, bursts: u64, size: u64| {
        let before = cpu_seconds(pid);
        for _ in 0..bursts {
            contender.publish(next, size).await;
            next += size;
            received += size * clients_u64;
            readers.received(received).await;
        }
        (cpu_seconds(pid) - before) * 1e9 / (bursts * size * clients_u64) as f64
    };
    bursts(&mut contender, WARM_UP, BURST).await;
    let burst_ns = bursts(&mut contender, (deliveries / clients_u64).div_ceil(BURST).max(3), BURST).await;
    let single_ns = bursts(&mut contender, (deliveries / 10 / clients_u64).max(10), 1).await;
    tokio::time::sleep(SETTLE).await;
    let after = anonymous_kib(pid);
    let each = |kib: f64| (kib - bare).max(1.0) * 1024.0 / clients as f64;
    Turn { burst_ns, single_ns, idle_bytes: each(idle), after_bytes: each(after) }
}
