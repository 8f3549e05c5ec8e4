//! Shapes: changes on their way to ten clients while very many others wait for theirs, what a shape costs that nobody
//! reads, many clients of one shape, the first rows of a large one.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::stream::{self, StreamExt as _};
use headwater_tests::deadline::PATIENCE;
use headwater_tests::http;
use headwater_tests::postgres::Postgres;
use headwater_tests::streamer::Streamer;
use tokio::task::JoinSet;
use tokio_postgres::Client;

use crate::measured::{Bound, Measured, turns};
use crate::process::{anonymous_kib, cpu_seconds, open_files_limit};
use crate::{Options, server};

/// More clients than this at a time tell nothing more.
const MOST_WAITING: usize = 10_000;
/// Clients of one shape.
const CLIENTS: usize = 1_000;
const ROWS_PER_TRANSACTION: u32 = 100;
/// Rows that are inserted one by one, each when the one before has arrived.
const SINGLE_ROWS: u32 = 300;
/// Requests at a time that begin shapes.
const BEGUN_AT_A_TIME: usize = 64;
/// Shapes that are begun before any is measured, and asked for once more. Of 64 connections that asked for the same 256 shapes again and
/// again the process grew by 1.4 MiB, until some three thousand requests had been answered, though no shape was begun: that belongs to
/// connections and the allocator. What it leaves free is taken by the next shapes, several hundred of them: these come before the
/// base line too, or a shape would look cheaper than it is.
const OTHER_SHAPES: i32 = 1024;
/// What a process needs beside its connections.
const OTHER_FILES: usize = 1_000;

const INSERT: &str =
    "insert into item select n, n % 10, repeat('x', 60) from generate_series($1::bigint, $2::bigint) n";

pub(crate) async fn run(options: &Options) -> Vec<Measured> {
    let postgres = server::start(options).await;
    postgres.install().await;
    postgres
        .sql(
            "create table item (id bigint primary key, tenant_id int not null, body text); create index on item (tenant_id);
             create table large (id bigint primary key, tenant_id int not null, body text);
             select headwater.publish('item'), headwater.publish('large');
             grant select on item, large to headwater_reader",
        )
        .await;
    let fill = "insert into large select n, n % 10, repeat('x', 60) from generate_series(1, $1::bigint) n";
    postgres.connect().await.execute(fill, &[&i64::from(options.shape_rows)]).await.unwrap();
    postgres.sql("vacuum analyze large").await;

    let mut all = through_many(&postgres, options).await;
    all.extend(of_one(&postgres, options).await);
    all.push(first_rows(&postgres, options).await);
    all
}

fn name(count: usize) -> String {
    format!("{count} shapes")
}

/// Ten shapes get changes, beside more and more that get none. They are of one tenant each, and live as far as there are open
/// files for their clients.
async fn through_many(postgres: &Postgres, options: &Options) -> Vec<Measured> {
    let what = "changes through tenant_id = … shapes";
    let counts = &options.shape_counts[..];
    let first = name(counts[0]);
    let mut speed =
        Measured::new(what, "rows/s").fixed(&first, Some(Bound::AtLeast(20_000.0)), Some(Bound::AtLeast(60_000.0)));
    let mut cpu = Measured::new(what, "CPU µs/row of the streamer").fixed(&first, None, None);
    let mut latency = Measured::new("write → client, one row at a time, p50", "µs").fixed(&first, None, None);
    let mut idle = Measured::new("a shape that nobody reads", "KiB");
    let mut begun = Measured::new("shapes of one table, begun by requests", "shapes/s");
    for count in &counts[1..] {
        speed = speed.claim(&name(*count), &first, Some(Bound::AtLeast(0.9)), None);
        cpu = cpu.claim(&name(*count), &first, None, None);
        latency = latency.claim(&name(*count), &first, None, None);
        idle = idle.fixed(&name(*count), Some(Bound::AtMost(4.0)), None);
        begun = begun.fixed(&name(*count), None, None);
    }
    let most = open_files_limit().saturating_sub(OTHER_FILES).min(MOST_WAITING);
    // The first turn of all would be the only cold one.
    let _ = turn(postgres, counts[0], counts[0].min(most), options).await;
    for round in 0..options.rounds {
        for count in turns(counts, round) {
            if count > most {
                eprintln!("    {most} of {count} shapes have a client that waits, the others had one a moment ago");
            }
            let turn = turn(postgres, count, count.min(most), options).await;
            eprintln!("    round {round}, {count} shapes: {turn:.1?}");
            speed.add(&name(count), turn.rows_per_second);
            cpu.add(&name(count), turn.cpu_us);
            latency.add(&name(count), turn.p50_us);
            idle.add(&name(count), turn.idle_kib);
            begun.add(&name(count), turn.begun_per_second);
        }
    }
    vec![speed, cpu, latency, idle, begun]
}

#[derive(Debug)]
struct Turn {
    rows_per_second: f64,
    cpu_us: f64,
    p50_us: f64,
    idle_kib: f64,
    begun_per_second: f64,
}

async fn turn(postgres: &Postgres, count: usize, waiting: usize, options: &Options) -> Turn {
    let client = postgres.connect().await;
    client.batch_execute("truncate item; checkpoint").await.unwrap();
    let streamer = streamer(postgres).await;
    let pid = streamer.pid();
    // What comes with the first requests of all is not the shapes'; nor are connections: these begin all shapes, and stay.
    let http = http::client();
    let begin_all = async |tenants: Range<i32>| -> Vec<Place> {
        stream::iter(tenants).map(|tenant| begin(&streamer, &http, tenant)).buffered(BEGUN_AT_A_TIME).collect().await
    };
    for _ in 0..2 {
        begin_all(-OTHER_SHAPES..0).await;
    }
    let (before, start) = (anonymous_kib(pid), Instant::now());
    let places = begin_all(0..i32::try_from(count).unwrap()).await;
    let begun_per_second = count as f64 / start.elapsed().as_secs_f64();
    let idle_kib = (anonymous_kib(pid) - before) / count as f64;

    let mut readers = Readers::default();
    for place in places.into_iter().take(waiting) {
        // Those who wait have a connection each.
        readers.add(Place { http: http::client(), ..place });
    }
    readers.waiting(&streamer, waiting).await;
    let rows = options.shape_changes.next_multiple_of(ROWS_PER_TRANSACTION);
    let (start, cpu) = (Instant::now(), cpu_seconds(pid));
    insert(&client, 1, rows).await;
    readers.received(u64::from(rows)).await;
    let rows_per_second = f64::from(rows) / start.elapsed().as_secs_f64();
    let cpu_us = (cpu_seconds(pid) - cpu) * 1e6 / f64::from(rows);

    let prepared = client.prepare(INSERT).await.unwrap();
    let mut latencies = Vec::new();
    for number in rows + 1..=rows + SINGLE_ROWS {
        let start = Instant::now();
        client.execute(&prepared, &[&i64::from(number), &i64::from(number)]).await.unwrap();
        readers.received(u64::from(number)).await;
        latencies.push(start.elapsed().as_secs_f64() * 1e6);
    }
    latencies.sort_by(f64::total_cmp);
    Turn { rows_per_second, cpu_us, p50_us: latencies[latencies.len() / 2], idle_kib, begun_per_second }
}

/// All clients want the same: one answer is made, and sent a thousand times.
async fn of_one(postgres: &Postgres, options: &Options) -> Vec<Measured> {
    let what = format!("{CLIENTS} clients of one shape");
    let contender = "headwater";
    let mut speed = Measured::new(what.clone(), "deliveries/s").fixed(contender, None, None);
    let mut cpu = Measured::new(what, "CPU µs/delivery of the streamer").fixed(contender, None, None);
    for round in 0..options.rounds {
        let client = postgres.connect().await;
        client.batch_execute("truncate item; checkpoint").await.unwrap();
        let streamer = streamer(postgres).await;
        let mut readers = Readers::default();
        for _ in 0..CLIENTS {
            readers.add(begin(&streamer, &http::client(), 0).await);
        }
        readers.waiting(&streamer, CLIENTS).await;
        // One row of ten is the tenant's.
        let rows =
            u32::try_from(options.deliveries / CLIENTS as u64).unwrap().next_multiple_of(ROWS_PER_TRANSACTION) * 10;
        let deliveries = u64::from(rows) / 10 * CLIENTS as u64;
        let (start, before) = (Instant::now(), cpu_seconds(streamer.pid()));
        insert(&client, 1, rows).await;
        readers.received(deliveries).await;
        let per_second = deliveries as f64 / start.elapsed().as_secs_f64();
        let cpu_us = (cpu_seconds(streamer.pid()) - before) * 1e6 / deliveries as f64;
        eprintln!("    round {round}, {CLIENTS} clients of one shape: {per_second:.0} deliveries/s, {cpu_us:.2} µs");
        speed.add(contender, per_second);
        cpu.add(contender, cpu_us);
    }
    vec![speed, cpu]
}

/// A first sync, beside what Postgres needs to make JSON of the same rows.
async fn first_rows(postgres: &Postgres, options: &Options) -> Measured {
    let (headwater, copy) = ("headwater", "COPY of row_to_json");
    let mut measured = Measured::new(format!("first sync of {} rows", options.shape_rows), "rows/s").claim(
        headwater,
        copy,
        Some(Bound::AtLeast(0.5)),
        None,
    );
    let client = postgres.connect().await;
    for round in 0..options.rounds {
        for contender in turns(&[headwater, copy], round) {
            let seconds = if contender == copy {
                let start = Instant::now();
                client.batch_execute("copy (select row_to_json(l) from large l) to '/dev/null'").await.unwrap();
                start.elapsed().as_secs_f64()
            } else {
                let streamer = streamer(postgres).await;
                let url = streamer.url("/v1/shape");
                let start = Instant::now();
                let (_, rows) = until_up_to_date(&url, &http::client(), &[("table", "large")]).await;
                assert_eq!(rows, u64::from(options.shape_rows));
                start.elapsed().as_secs_f64()
            };
            eprintln!("    round {round}, {contender}: {seconds:.2} s");
            measured.add(contender, f64::from(options.shape_rows) / seconds);
        }
    }
    measured
}

async fn streamer(postgres: &Postgres) -> Streamer {
    let streamer = Streamer::start(postgres, &["--replica", "shapes", "--long-poll-timeout", "10m"]).await;
    headwater_tests::shape::active(&streamer.url("")).await;
    streamer
}

async fn insert(client: &Client, first: u32, last: u32) {
    let prepared = client.prepare(INSERT).await.unwrap();
    for from in (first..=last).step_by(ROWS_PER_TRANSACTION as usize) {
        client.execute(&prepared, &[&i64::from(from), &i64::from(from + ROWS_PER_TRANSACTION - 1)]).await.unwrap();
    }
}

/// Where a client of a shape stands.
#[derive(Debug)]
struct Place {
    http: reqwest::Client,
    url: String,
    filter: String,
    handle: String,
    offset: String,
}

/// A client for the rows of one tenant, up to date.
async fn begin(streamer: &Streamer, http: &reqwest::Client, tenant: i32) -> Place {
    let filter = format!("tenant_id = {tenant}");
    let url = streamer.url("/v1/shape");
    let (place, _) = until_up_to_date(&url, http, &[("table", "item"), ("where", &filter)]).await;
    place
}

/// Reads a shape from its beginning; where that ends, and how many rows came.
async fn until_up_to_date(url: &str, http: &reqwest::Client, definition: &[(&str, &str)]) -> (Place, u64) {
    let (mut handle, mut offset, mut rows) = (String::new(), "-1".to_owned(), 0);
    loop {
        let mut query = definition.to_vec();
        query.push(("offset", &offset));
        if !handle.is_empty() {
            query.push(("handle", &handle));
        }
        let answer = http.get(http::with_query(url, &query)).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{query:?}");
        let header = |name: &str| answer.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
        let up_to_date = header("electric-up-to-date").is_some();
        let (next_handle, next_offset) = (header("electric-handle").unwrap(), header("electric-offset").unwrap());
        rows += operations(&answer.bytes().await.unwrap());
        (handle, offset) = (next_handle, next_offset);
        if up_to_date {
            let filter =
                definition.iter().find(|(name, _)| *name == "where").map_or("", |(_, filter)| filter).to_owned();
            return (Place { http: http.clone(), url: url.to_owned(), filter, handle, offset }, rows);
        }
    }
}

/// How many changes an answer has: each has one operation in its headers, and no row of ours has that word.
fn operations(body: &[u8]) -> u64 {
    const WORD: &[u8] = b"\"operation\"";
    body.windows(WORD.len()).filter(|window| *window == WORD).count() as u64
}

/// Clients that wait for changes, each with one request after the other.
#[derive(Debug, Default)]
struct Readers {
    received: Arc<AtomicU64>,
    readers: JoinSet<()>,
}

impl Readers {
    fn add(&mut self, mut place: Place) {
        let received = Arc::clone(&self.received);
        self.readers.spawn(async move {
            let mut cursor = String::new();
            loop {
                let query = [
                    ("table", "item"),
                    ("where", place.filter.as_str()),
                    ("handle", place.handle.as_str()),
                    ("offset", place.offset.as_str()),
                    ("live", "true"),
                    ("cursor", cursor.as_str()),
                ];
                let query = if cursor.is_empty() { &query[..5] } else { &query[..] };
                // The streamer of a turn that is over is gone.
                let Ok(answer) = place.http.get(http::with_query(&place.url, query)).send().await else { return };
                if answer.status() == 204 {
                    continue;
                }
                assert_eq!(answer.status(), 200, "{query:?}");
                let header = |name: &str| answer.headers().get(name).unwrap().to_str().unwrap().to_owned();
                let (offset, next) = (header("electric-offset"), header("electric-cursor"));
                let Ok(body) = answer.bytes().await else { return };
                received.fetch_add(operations(&body), Ordering::Relaxed);
                (place.offset, cursor) = (offset, next);
            }
        });
    }

    /// Until the streamer holds all their requests.
    async fn waiting(&self, streamer: &Streamer, count: usize) {
        let pid = streamer.pid();
        let sockets = || std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count);
        let deadline = Instant::now() + PATIENCE;
        while sockets() < count {
            assert!(Instant::now() < deadline, "{} of {count} clients have connected", sockets());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        // Accepted is not read yet: what little is missing belongs to no turn.
        tokio::time::sleep(Duration::from_millis(500)).await;
    }

    /// Until all together have had so many changes.
    async fn received(&self, changes: u64) {
        let (mut last, mut moved) = (0, Instant::now());
        loop {
            let now = self.received.load(Ordering::Relaxed);
            if now >= changes {
                assert_eq!(now, changes, "more than there can be");
                return;
            }
            if now != last {
                (last, moved) = (now, Instant::now());
            }
            assert!(moved.elapsed() < PATIENCE, "waited in vain for changes: {now} of {changes}");
            tokio::time::sleep(Duration::from_micros(200)).await;
        }
    }
}
