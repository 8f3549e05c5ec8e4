//! Promise: frames that are shared among readers are the frames that each of them would have got alone. Oracles: the
//! table, and the same stream over HTTP/2, which is served without sharing.

use headwater_tests::deadline::{PATIENCE, eventually};
use headwater_tests::event::text;
use headwater_tests::http::with_query;
use headwater_tests::postgres::Postgres;
use headwater_tests::sse::{Block, Connection};
use headwater_tests::streamer::Streamer;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

/// Two tables of tenants, one that they share.
const TABLES: &str = "
    create table task (id int primary key, org text, body text);
    create table note (id int primary key, org text, body text);
    create table menu (id int primary key, body text);
    select headwater.enable('task', tenant_column => 'org');
    select headwater.enable('note', tenant_column => 'org');
    select headwater.enable('menu');";

/// HTTP/1.1 shares frames, HTTP/2 does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Path {
    Shared,
    Alone,
}

async fn open(streamer: &Streamer, path: Path, query: &[(&str, &str)]) -> Connection {
    let client = reqwest::Client::builder().no_proxy();
    let client = if path == Path::Alone { client.http2_prior_knowledge() } else { client.http1_only() };
    let url = with_query(&streamer.url("/api/v1/events/stream"), query);
    let opened = Connection::open_with(&client.build().unwrap(), None, url, None).await;
    opened.unwrap_or_else(|answer| panic!("{answer:?}"))
}

async fn blocks(connection: &mut Connection, count: usize) -> Vec<Block> {
    let mut blocks = Vec::new();
    while blocks.len() < count {
        blocks.push(connection.next_event().await);
    }
    blocks
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_reader_gets_what_it_would_get_alone() {
    let postgres = Postgres::start().await;
    postgres.sql(TABLES).await;
    let streamer = Streamer::start(&postgres, &["--heartbeat", "200ms"]).await;
    let start = streamer.cursor_now().await;
    let mut queries: Vec<Vec<(&str, &str)>> = vec![vec![]];
    for tenant in ["a", "b", "none"] {
        queries.push(vec![("tenant_id", tenant)]);
        queries.push(vec![("tenant_id", tenant), ("entity_type", "note,menu")]);
        queries.push(vec![("tenant_id", tenant), ("entity_type", "task"), ("entity_id", "7")]);
    }
    queries.push(vec![("entity_type", "menu")]);
    queries.push(vec![("entity_id", "7")]);
    // From now on and from a cursor, two of each, so that they share.
    let mut readers = Vec::new();
    for query in &queries {
        for from in [None, None, Some(start.as_str())] {
            let query: Vec<_> = query.iter().copied().chain(from.map(|cursor| ("cursor", cursor))).collect();
            let mut reader = open(&streamer, Path::Shared, &query).await;
            reader.next().await.expect("a greeting");
            readers.push((query, reader));
        }
    }
    let mut alone = open(&streamer, Path::Alone, &[]).await;
    alone.next().await.expect("a greeting");
    for round in 0..30 {
        let first = round * 3;
        postgres
            .sql(&format!(
                "insert into task select n, (array['a', 'b'])[n % 2 + 1], repeat('x', n * 37) from generate_series({first}, {first} + 2) n;
                 insert into note values ({first}, (array['a', 'b', null])[{round} % 3 + 1], 'n');
                 insert into menu values ({first}, 'shared');
                 update task set body = 'changed' where id between {first} and {first} + 1;"
            ))
            .await;
    }
    let total = postgres.count("select count(*) from headwater.event").await;
    let all = blocks(&mut alone, total).await;
    eventually("the watermark to pass everything", || async {
        let events = streamer.since(&[("limit", "1000")]).await;
        (events["events"].as_array().unwrap().len() == total).then_some(())
    })
    .await;
    for (query, mut reader) in readers {
        let filter: Vec<_> = query.iter().copied().filter(|(name, _)| *name != "cursor").collect();
        let page = streamer.since(&[filter.as_slice(), &[("limit", "1000")]].concat()).await;
        let expected = page["events"].as_array().unwrap();
        let mut got: Vec<Block> = Vec::new();
        while got.len() < expected.len() {
            let block = reader.next_event().await;
            // Where the table was joined to the ring, an event may come twice.
            if !got.iter().any(|other| other.data == block.data) {
                got.push(block);
            }
        }
        // Delivery is in the order of commits, which here is that of positions.
        assert_eq!(&got.iter().map(Block::json).collect::<Vec<_>>(), expected, "{query:?}");
        let from_now_on = filter.len() == query.len();
        for block in got.iter().filter(|_| from_now_on) {
            let same = all.iter().find(|other| text(&other.json(), "id") == text(&block.json(), "id")).unwrap();
            assert_eq!(
                (&block.event, &block.data, offset(block)),
                (&same.event, &same.data, offset(same)),
                "{query:?}"
            );
        }
        let beat = reader.find("a heartbeat", |block| block.id.is_some() && block.event.is_none()).await;
        assert_eq!(beat.data, None, "{query:?}");
    }
}

/// The place in the log that a block's cursor names; the watermark in it may be newer for one reader than for another.
fn offset(block: &Block) -> Option<&str> {
    block.id.as_deref()?.split('-').nth(2)
}

/// The head of a stream's answer was read; nothing more.
async fn open_by_hand(streamer: &Streamer, cursor: &str) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(8 * 1024).unwrap();
    let mut socket = socket.connect(([127, 0, 0, 1], streamer.port()).into()).await.unwrap();
    let request = format!("GET /api/v1/events/stream?cursor={cursor} HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n");
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(socket.read_u8().await.unwrap());
    }
    socket
}

/// Everything up to the event with this number.
async fn numbers_up_to(socket: &mut TcpStream, mut text: Vec<u8>, last: i64) -> Vec<i64> {
    let mut numbers = Vec::new();
    while numbers.last() != Some(&last) {
        let read = tokio::time::timeout(PATIENCE, socket.read_buf(&mut text)).await;
        assert!(read.expect("more has to come").unwrap() > 0, "the stream ended");
        while let Some(end) = text.windows(2).position(|pair| pair == b"\n\n") {
            let block = headwater_tests::sse::parse(std::str::from_utf8(&text[..end]).expect("whole frames"));
            text.drain(..end + 2);
            if block.data.is_some() {
                numbers.push(block.json()["payload"]["n"].as_i64().unwrap());
            }
        }
    }
    numbers
}

/// Sockets that were full for so long that the ring, and the kernel's buffers, have gone on several times.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_falls_out_of_the_ring_loses_nothing() {
    const ROWS: usize = 6_000;
    let postgres = Postgres::start().await;
    postgres.sql("create table t (n int primary key, body text); select headwater.enable('t');").await;
    let streamer = Streamer::start(&postgres, &["--ring-bytes", "256KiB", "--heartbeat", "100ms"]).await;
    let cursor = streamer.cursor_now().await;
    let mut slow = Vec::new();
    for _ in 0..3 {
        slow.push(open_by_hand(&streamer, &cursor).await);
    }
    let mut healthy = open(&streamer, Path::Shared, &[("cursor", &cursor)]).await;
    let writing = async {
        for first in (1..=ROWS).step_by(50) {
            let sql =
                format!("insert into t select n, repeat('x', 2000) from generate_series({first}, {first} + 49) n");
            postgres.sql(&sql).await;
        }
    };
    let reading = async {
        let mut seen = std::collections::BTreeSet::new();
        while seen.len() < ROWS {
            seen.insert(healthy.next_event().await.json()["payload"]["n"].as_i64().unwrap());
        }
    };
    // A reader that keeps up is not held up by those who do not.
    tokio::join!(writing, reading);
    let last = i64::try_from(ROWS).unwrap();
    for (number, mut socket) in slow.into_iter().enumerate() {
        let mut begun = Vec::new();
        // One dribbles at first.
        while number == 2 && begun.len() < 200 {
            begun.push(socket.read_u8().await.unwrap());
        }
        let numbers = numbers_up_to(&mut socket, begun, last).await;
        let mut distinct = numbers.clone();
        distinct.sort_unstable();
        distinct.dedup();
        assert_eq!(distinct, (1..=last).collect::<Vec<_>>(), "every event came");
        // What comes from the table again comes in order too; it starts over at most where the table was read from.
        let falls = numbers.windows(2).filter(|pair| pair[1] <= pair[0]).count();
        assert!(falls <= numbers.len() / 500, "{falls} of {}", numbers.len());
    }
}

#[tokio::test]
async fn who_takes_nothing_is_let_go() {
    let postgres = Postgres::start().await;
    postgres.sql("create table t (n int primary key, body text); select headwater.enable('t');").await;
    let streamer = Streamer::start(&postgres, &["--write-timeout", "2s", "--heartbeat", "100ms"]).await;
    let cursor = streamer.cursor_now().await;
    let mut stuck = open_by_hand(&streamer, &cursor).await;
    let mut healthy = open(&streamer, Path::Shared, &[]).await;
    postgres.sql("insert into t select n, repeat('x', 10000) from generate_series(1, 2000) n").await;
    blocks(&mut healthy, 2000).await;
    // The server's end of the socket is gone, and so is what waited in it.
    let own = format!("0100007F:{:04X}", stuck.local_addr().unwrap().port());
    eventually("the socket to be closed", || async {
        let sockets = std::fs::read_to_string("/proc/net/tcp").unwrap();
        let server_side = sockets.lines().any(|line| line.split_whitespace().nth(2) == Some(own.as_str()));
        (!server_side).then_some(())
    })
    .await;
    let mut sink = Vec::new();
    assert!(stuck.read_to_end(&mut sink).await.is_err(), "the connection was reset");
}

#[tokio::test]
async fn a_shutdown_says_goodbye_to_every_reader() {
    let postgres = Postgres::start().await;
    postgres.sql("create table t (n int primary key); select headwater.enable('t');").await;
    let mut streamer = Streamer::start(&postgres, &["--retry", "1234ms"]).await;
    let mut readers = Vec::new();
    for path in [Path::Shared, Path::Shared, Path::Shared, Path::Alone] {
        let mut reader = open(&streamer, path, &[]).await;
        assert_eq!(reader.next().await.expect("a greeting").retry, Some(1234));
        readers.push((path, reader));
    }
    postgres.sql("insert into t values (1)").await;
    for (_, reader) in &mut readers {
        reader.next_event().await;
    }
    assert!(streamer.terminate().await.success());
    let mut cursors = Vec::new();
    for (path, mut reader) in readers {
        let goodbye = reader.next().await.unwrap_or_else(|| panic!("{path:?}: no goodbye"));
        assert_eq!(goodbye.retry, Some(1234), "{path:?}: {goodbye:?}");
        assert_eq!(reader.next().await, None, "{path:?}");
        cursors.push(goodbye.id.expect("a cursor"));
    }
    streamer.resume().await;
    postgres.sql("insert into t values (2)").await;
    for cursor in cursors {
        let mut resumed = open(&streamer, Path::Shared, &[("cursor", &cursor)]).await;
        assert_eq!(resumed.next_event().await.json()["payload"]["n"], 2);
    }
}
