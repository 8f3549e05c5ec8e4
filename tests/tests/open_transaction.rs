//! Promise: a transaction that stays open after it has written its events loses none of them to a poller that went
//! past meanwhile. Control: a reader that remembers the highest position it saw, which must lose some, or this
//! test shows nothing.

use std::collections::BTreeSet;

use headwater_tests::deadline::eventually;
use headwater_tests::event::position;
use headwater_tests::postgres::Postgres;
use headwater_tests::streamer::Streamer;
use tokio_postgres::Client;

/// What people write themselves.
struct NaiveReader {
    client: Client,
    last: i64,
    seen: BTreeSet<i64>,
}

impl NaiveReader {
    async fn poll(&mut self) {
        let query = "select position from headwater.event where position > $1 order by position";
        for row in self.client.query(query, &[&self.last]).await.unwrap() {
            self.last = row.get(0);
            self.seen.insert(self.last);
        }
    }
}

/// A poller of `/events/since` that goes on from each page's cursor.
struct Poller<'a> {
    streamer: &'a Streamer,
    cursor: String,
    seen: Vec<i64>,
}

impl Poller<'_> {
    async fn poll(&mut self) {
        loop {
            let query = [("limit", "7"), ("cursor", self.cursor.as_str())];
            let page = self.streamer.since(if self.cursor.is_empty() { &query[..1] } else { &query }).await;
            self.seen.extend(page["events"].as_array().unwrap().iter().map(position));
            page["cursor"].as_str().unwrap().clone_into(&mut self.cursor);
            if page["has_more"] == false {
                return;
            }
        }
    }
}

/// A server with a table of notes, and a streamer on it.
async fn start() -> (Postgres, Streamer) {
    let postgres = Postgres::start().await;
    postgres
        .sql(
            "create table note (id int primary key, body text);
             select headwater.enable('note', entity => 'note');",
        )
        .await;
    let streamer = Streamer::start(&postgres, &[]).await;
    // From here on the watermark is known.
    streamer.since(&[]).await;
    (postgres, streamer)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_poller_loses_nothing_of_a_transaction_that_stays_open() {
    let (postgres, streamer) = start().await;
    let mut naive = NaiveReader { client: postgres.connect().await, last: 0, seen: BTreeSet::new() };
    let mut poller = Poller { streamer: &streamer, cursor: String::new(), seen: Vec::new() };
    let quick = postgres.connect().await;
    let mut id = 0;

    for round in 0..10 {
        // One writes its events and stays open; in some rounds it is prepared for two-phase commit, or ends in nothing.
        let slow = postgres.connect().await;
        slow.batch_execute("begin").await.unwrap();
        for _ in 0..3 {
            id += 1;
            slow.execute("insert into note values ($1, 'slow')", &[&id]).await.unwrap();
        }
        if round % 3 == 1 {
            slow.batch_execute("prepare transaction 'slow'").await.unwrap();
        }
        for _ in 0..10 {
            id += 1;
            quick.execute("insert into note values ($1, 'quick')", &[&id]).await.unwrap();
            naive.poll().await;
            poller.poll().await;
        }
        let ending = match round % 3 {
            0 => "commit",
            1 => "commit prepared 'slow'",
            _ => "rollback",
        };
        slow.batch_execute(ending).await.unwrap();
        naive.poll().await;
        poller.poll().await;
    }

    let rows = postgres.connect().await.query("select position from headwater.event", &[]).await.unwrap();
    let all: BTreeSet<i64> = rows.iter().map(|row| row.get(0)).collect();
    let lost = all.difference(&naive.seen).count();
    println!("the naive reader lost {lost} of {} events", all.len());
    assert!(lost > 0, "the control lost nothing: this test has no teeth");

    // The watermark moves a moment after the last writer has gone.
    let deadline = std::time::Instant::now() + headwater_tests::deadline::PATIENCE;
    while poller.seen.len() < all.len() && std::time::Instant::now() < deadline {
        poller.poll().await;
    }
    let seen: BTreeSet<i64> = poller.seen.iter().copied().collect();
    assert_eq!(all, seen);
    assert_eq!(poller.seen.len(), seen.len(), "an event came twice");
    assert!(poller.seen.is_sorted(), "pages are in the order of positions");
}

/// Who writes and then polls finds what it wrote, as long as nobody else holds the watermark back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_poller_reads_what_was_just_committed() {
    let (postgres, streamer) = start().await;
    let writer = postgres.connect().await;
    let mut poller = Poller { streamer: &streamer, cursor: String::new(), seen: Vec::new() };
    for id in 1..=30 {
        writer.execute("insert into note values ($1, 'read at once')", &[&id]).await.unwrap();
        poller.poll().await;
        assert_eq!(usize::try_from(id).unwrap(), poller.seen.len());
    }
}

/// Pollers have to wait for a writer that stays open; what the slot keeps, and the list of what has left the ring, need not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_writer_that_stays_open_does_not_keep_the_ring_from_being_let_go() {
    let postgres = Postgres::start().await;
    postgres
        .sql("create table note (id int primary key, body text); select headwater.enable('note', entity => 'note')")
        .await;
    let streamer = Streamer::start(&postgres, &["--ring-bytes", "16384"]).await;
    let holder = postgres.connect().await;
    holder.batch_execute("begin; lock table headwater.event in row exclusive mode").await.unwrap();
    let confirmed = "select (confirmed_flush_lsn - '0/0')::bigint from pg_replication_slots";
    let writer = postgres.connect().await;
    let mut id = 0;
    for _ in 0..3 {
        let before = postgres.count(confirmed).await;
        eventually("the slot to move on", || {
            id += 1;
            let (writer, postgres, id) = (&writer, &postgres, id);
            async move {
                writer.execute("insert into note values ($1, repeat('x', 2000))", &[&id]).await.unwrap();
                (postgres.count(confirmed).await > before).then_some(())
            }
        })
        .await;
    }
    holder.batch_execute("commit").await.unwrap();
    drop(streamer);
}
