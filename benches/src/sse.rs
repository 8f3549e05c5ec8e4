//! From Postgres to 100 clients of Server-Sent Events: rows per second when very many are inserted, the server's memory
//! meanwhile, and how long a single commit takes to arrive when 200 come every second.
//!
//! Beside the peer runs something plainer, for scale: Postgres' own client, whose lines go to every socket as they are. A
//! latency has a part that is nobody's: the flush of the commit, the walsender, the hundred readers themselves.

use std::process::{Child, Stdio};
use std::time::{Duration, Instant, UNIX_EPOCH};

use headwater_tests::deadline::eventually;
use headwater_tests::postgres::Postgres;
use headwater_tests::streamer::Streamer;
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;
use tokio_postgres::Client;

use crate::measured::{Bound, Measured, turns};
use crate::process::{Server, anonymous_kib, cpu_seconds};
use crate::readers::Readers;
use crate::{Options, node, peers, server};

const HEADWATER: &str = "headwater";
const NODE: &str = "node, pg-logical-replication";
const LEAST: &str = "pg_recvlogical, its lines by raw writes";
const ALL: [&str; 3] = [HEADWATER, NODE, LEAST];

/// The slot of whoever is not Headwater.
const SLOT: &str = "peer";

const CLIENTS: usize = 100;
const ROWS_PER_TRANSACTION: u32 = 1_000;
const ROWS_PER_SECOND: u32 = 200;
const FILLING: i32 = 60;

const INSERT: &str = "insert into message select n, '#' || lpad(n::text, 8, '0') || '#' || repeat('x', $3)
    from generate_series($1::bigint, $2::bigint) n";

pub(crate) async fn run(options: &Options) -> Vec<Measured> {
    let postgres = server::start_with(options, &["track_commit_timestamp=on"]).await;
    postgres.install().await;
    let table = "create table message (id bigint primary key, body text)";
    postgres.sql(&format!("{table}; select headwater.enable('message')")).await;
    server::make(&postgres, "plain", &[table, "create publication bench for table message"]).await;

    let rows = |unit, must| {
        let measured = Measured::new(format!("{} rows to {CLIENTS} clients", options.sse_rows), unit);
        measured.claim(HEADWATER, NODE, must, None)
    };
    let mut speed = rows("rows/s", Some(Bound::AtLeast(5.0))).claim(HEADWATER, LEAST, None, None);
    let mut cpu = rows("CPU µs/row", None).claim(HEADWATER, LEAST, None, None);
    let mut memory = rows("MiB at most", None);
    let latency = |what: &str| {
        let measured = Measured::new(format!("commit → client at {ROWS_PER_SECOND} rows/s, {what}"), "µs");
        let measured = measured.claim(HEADWATER, NODE, Some(Bound::AtMost(0.5)), None);
        measured.claim(HEADWATER, LEAST, None, None).claim(LEAST, NODE, None, None)
    };
    let (mut median, mut worst) = (latency("p50"), latency("p99"));
    for round in 0..options.rounds {
        for contender in turns(&ALL, round) {
            let turn = turn(&postgres, contender, options).await;
            eprintln!("    round {round}, {contender}: {turn:.1?}");
            speed.add(contender, turn.rows_per_second);
            cpu.add(contender, turn.cpu_us);
            memory.add(contender, turn.most_mib);
            median.add(contender, turn.p50_us);
            worst.add(contender, turn.p99_us);
        }
    }
    vec![speed, cpu, memory, median, worst]
}

#[derive(Debug)]
struct Turn {
    rows_per_second: f64,
    cpu_us: f64,
    most_mib: f64,
    p50_us: f64,
    p99_us: f64,
}

enum Contender {
    Headwater(Box<Streamer>),
    Node(Server),
    /// The server, and who feeds it.
    Least(Server, Child),
}

impl Contender {
    fn pid(&self) -> u32 {
        match self {
            Self::Headwater(streamer) => streamer.pid(),
            Self::Node(server) | Self::Least(server, _) => server.pid(),
        }
    }

    async fn readers(&self, note_times: bool) -> Readers {
        match self {
            Self::Headwater(streamer) => {
                Readers::open(streamer.port(), "/api/v1/events/stream", CLIENTS, note_times).await
            }
            Self::Node(server) | Self::Least(server, _) => Readers::open(server.port, "/", CLIENTS, note_times).await,
        }
    }

    /// Ends it; a slot that it alone read goes too.
    async fn end(self, client: &Client) {
        match self {
            Self::Headwater(mut streamer) => return streamer.kill().await,
            Self::Node(server) => drop(server),
            Self::Least(server, mut feeder) => {
                feeder.kill().unwrap();
                feeder.wait().unwrap();
                drop(server);
            }
        }
        let free = "select pg_drop_replication_slot(slot_name) from pg_replication_slots
            where slot_name = $1 and not active";
        eventually("the slot to be free", || async { client.query_opt(free, &[&SLOT]).await.unwrap() }).await;
    }
}

/// Starts who is to be measured; its slot begins here.
async fn start(postgres: &Postgres, name: &str, client: &Client) -> Contender {
    if name == HEADWATER {
        return Contender::Headwater(Box::new(Streamer::start(postgres, &["--replica", "sse"]).await));
    }
    let plugin = if name == NODE { "pgoutput" } else { "test_decoding" };
    client.execute("select pg_create_logical_replication_slot($1, $2)", &[&SLOT, &plugin]).await.unwrap();
    let contender = if name == NODE {
        Contender::Node(node::start(postgres, "plain", SLOT).await)
    } else {
        let mut feeder = postgres.program("pg_recvlogical");
        feeder.args(["--start", "--no-loop", "-S", SLOT, "-d", "plain", "-f", "-", "-o", "skip-empty-xacts=1"]);
        let mut feeder = feeder.stdout(Stdio::piped()).spawn().unwrap();
        let lines = feeder.stdout.take().unwrap();
        Contender::Least(peers::start_fed("pipe", lines.into()).await, feeder)
    };
    let active = "select from pg_replication_slots where slot_name = $1 and active";
    eventually("the slot to be read", || async { client.query_opt(active, &[&SLOT]).await.unwrap() }).await;
    contender
}

async fn turn(postgres: &Postgres, name: &str, options: &Options) -> Turn {
    let database = if name == HEADWATER { "headwater" } else { "plain" };
    let client = server::connect(postgres, database).await;
    client.batch_execute("truncate message; checkpoint").await.unwrap();
    let contender = start(postgres, name, &client).await;
    let pid = contender.pid();

    let readers = contender.readers(false).await;
    let peak = Peak::watch(pid);
    let (start, before) = (Instant::now(), cpu_seconds(pid));
    let rows = options.sse_rows.next_multiple_of(ROWS_PER_TRANSACTION);
    insert(&client, 1, rows).await;
    readers.received(u64::from(rows) * CLIENTS as u64).await;
    let rows_per_second = f64::from(rows) / start.elapsed().as_secs_f64();
    let cpu_us = (cpu_seconds(pid) - before) * 1e6 / f64::from(rows);
    let most_mib = peak.end().await / 1024.0;
    drop(readers);

    let readers = contender.readers(true).await;
    let (first, count) = (rows + 1, ROWS_PER_SECOND * options.seconds);
    let mut tick = tokio::time::interval(Duration::from_secs(1) / ROWS_PER_SECOND);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let prepared = client.prepare(INSERT).await.unwrap();
    for number in first..first + count {
        tick.tick().await;
        let number = i64::from(number);
        client.execute(&prepared, &[&number, &number, &FILLING]).await.unwrap();
    }
    readers.received(u64::from(count) * CLIENTS as u64).await;
    let commits = "select (extract(epoch from pg_xact_commit_timestamp(xmin)) * 1000000)::bigint
        from message where id >= $1 order by id";
    let commits = client.query(commits, &[&i64::from(first)]).await.unwrap();
    contender.end(&client).await;
    let mut latencies = Vec::new();
    for times in readers.ended().await {
        for (arrived, commit) in times.iter().zip(&commits) {
            let arrived = arrived.duration_since(UNIX_EPOCH).unwrap().as_micros();
            latencies.push(arrived as f64 - commit.get::<_, i64>(0) as f64);
        }
    }
    latencies.sort_by(f64::total_cmp);
    let at = |part: f64| latencies[((latencies.len() - 1) as f64 * part) as usize];
    Turn { rows_per_second, cpu_us, most_mib, p50_us: at(0.5), p99_us: at(0.99) }
}

async fn insert(client: &Client, first: u32, last: u32) {
    let prepared = client.prepare(INSERT).await.unwrap();
    for from in (first..=last).step_by(ROWS_PER_TRANSACTION as usize) {
        let (from, to) = (i64::from(from), i64::from(from + ROWS_PER_TRANSACTION - 1));
        client.execute(&prepared, &[&from, &to, &FILLING]).await.unwrap();
    }
}

/// The most memory that a process has while it is watched.
struct Peak(JoinHandle<f64>, tokio::sync::oneshot::Sender<()>);

impl Peak {
    fn watch(pid: u32) -> Self {
        let (stop, mut stopped) = tokio::sync::oneshot::channel();
        let watch = async move {
            let mut most = anonymous_kib(pid);
            loop {
                tokio::select! {
                    _ = &mut stopped => return most,
                    () = tokio::time::sleep(Duration::from_millis(50)) => most = most.max(anonymous_kib(pid)),
                }
            }
        };
        Self(tokio::spawn(watch), stop)
    }

    async fn end(self) -> f64 {
        let _ = self.1.send(());
        self.0.await.unwrap()
    }
}
