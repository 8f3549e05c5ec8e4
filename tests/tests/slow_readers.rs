//! Promise: clients that read nothing, and clients that dribble their requests, cost the streamer a bounded amount of memory
//! and harm nobody. Oracle: the kernel's count of the streamer's memory, and a healthy client that must get every event.
//!
//! `HEADWATER_TEST_SLOW_MEGABYTES=500` is the long run.

use headwater_tests::deadline::{PATIENCE, eventually, while_it_moves};
use headwater_tests::http::{self, with_query};
use headwater_tests::place::resident_bytes;
use headwater_tests::sse::Connection;
use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;

use crate::orders;

const SILENT: usize = 1000;
const DRIBBLING: usize = 1000;
const RING_BYTES: u64 = 16 << 20;

/// What one silent client may cost beside the ring.
const BYTES_PER_CLIENT: u64 = 64 << 10;

/// Pages of the table for the healthy client, a batch of decoded changes, the allocator's own.
const SLACK: u64 = 64 << 20;

/// Letters in each event.
const LETTERS: usize = 8000;

/// The pace of a dribble. A client's pause, for which nothing waits.
const DRIP: Duration = Duration::from_millis(500);

async fn connect(address: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    // What the kernel holds for a client that does not read is not ours to count: little.
    socket.set_recv_buffer_size(4096)?;
    socket.connect(address).await
}

/// Asks for a stream and reads not a byte of it.
async fn silent(address: SocketAddr) -> TcpStream {
    let mut stream = connect(address).await.unwrap();
    stream.write_all(b"GET /api/v1/events/stream HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    stream
}

/// Sends a request that never ends, one letter at a time; again, whenever it is let go.
async fn dribble(address: SocketAddr, let_go: Arc<AtomicUsize>) {
    loop {
        let Ok(mut stream) = connect(address).await else { continue };
        let mut sent = stream.write_all(b"GET /health HTTP/1.1\r\nx-endless: ").await;
        while sent.is_ok() {
            tokio::time::sleep(DRIP).await;
            sent = stream.write_all(b"x").await;
        }
        let_go.fetch_add(1, Ordering::Relaxed);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_thousand_slow_clients_cost_a_bounded_amount_and_harm_nobody() {
    let megabytes = std::env::var("HEADWATER_TEST_SLOW_MEGABYTES").ok().map_or(60, |text| text.parse().unwrap());
    let events = megabytes * 1_000_000 / LETTERS;
    let ring = RING_BYTES.to_string();
    let (postgres, streamer) = orders::start(&["--ring-bytes", &ring, "--header-timeout", "3s"]).await;
    let address = SocketAddr::from(([127, 0, 0, 1], streamer.port()));

    let ids: Arc<Mutex<HashSet<String>>> = Arc::default();
    let url = with_query(&streamer.url("/api/v1/events/stream"), &[]);
    let mut healthy = Connection::open(url, None).await.unwrap_or_else(|answer| panic!("{answer:?}"));
    healthy.next().await.expect("a greeting");
    let seen = Arc::clone(&ids);
    let healthy = tokio::spawn(async move {
        while let Some(block) = healthy.next().await {
            if block.data.is_some() {
                seen.lock().unwrap().insert(block.json()["id"].as_str().unwrap().to_owned());
            }
        }
    });

    let mut sockets = Vec::new();
    for _ in 0..SILENT {
        sockets.push(silent(address).await);
    }
    let let_go = Arc::new(AtomicUsize::new(0));
    let mut dribbling = JoinSet::new();
    for _ in 0..DRIBBLING {
        dribbling.spawn(dribble(address, Arc::clone(&let_go)));
    }
    eventually("the silent clients to be served", || async {
        let metrics = http::get(&streamer.url("/metrics"), &[]).await.body;
        metrics.contains(&format!("headwater_clients{{transport=\"sse\"}} {}", SILENT + 1)).then_some(())
    })
    .await;
    let before = resident_bytes(streamer.pid());

    let (peak, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let (highest, ended, pid) = (Arc::clone(&peak), Arc::clone(&stop), streamer.pid());
    let watch = std::thread::spawn(move || {
        while !ended.load(Ordering::Relaxed) {
            highest.fetch_max(resident_bytes(pid), Ordering::Relaxed);
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    let client = postgres.connect().await;
    let insert = format!(
        "insert into orders (tenant_id, status) select 'cafe', repeat('x', {LETTERS}) from generate_series(1, $1)"
    );
    for first in (0..events).step_by(250) {
        let count = i32::try_from((events - first).min(250)).unwrap();
        client.execute(&insert, &[&count]).await.unwrap();
        // The others are slow, this one is asked.
        let health = tokio::time::timeout(PATIENCE, http::get(&streamer.url("/health"), &[])).await.expect("an answer");
        assert_eq!(health.status, 200, "{health:?}");
    }
    let count = || ids.lock().unwrap().len();
    while_it_moves("the healthy client to have everything", count, || count() == events).await;
    assert!(!healthy.is_finished(), "it was never cut off");
    // Every dribbler was let go, and more than once.
    eventually("the dribbling clients to be let go", || async {
        (let_go.load(Ordering::Relaxed) >= DRIBBLING).then_some(())
    })
    .await;
    stop.store(true, Ordering::Relaxed);
    watch.join().unwrap();

    let grown = peak.load(Ordering::Relaxed).saturating_sub(before);
    let allowed = RING_BYTES + SILENT as u64 * BYTES_PER_CLIENT + SLACK;
    println!("{megabytes} MB passed; {} KiB before, {} KiB more at most", before >> 10, grown >> 10);
    assert!(grown <= allowed, "{} MiB more than before, {} MiB are allowed", grown >> 20, allowed >> 20);
    drop(sockets);
}
