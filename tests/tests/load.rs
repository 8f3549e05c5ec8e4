//! Writers that count, for tests which break things meanwhile: each transaction adds one to one row of `counter`,
//! so that a row's number tells how many of its changes were committed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use headwater_tests::postgres::Postgres;
use tokio::task::JoinHandle;
use tokio_postgres::NoTls;

const ROWS: usize = 20;
const WRITERS: usize = 3;

/// A running load. `stop` ends it.
#[derive(Debug)]
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicUsize>,
    writers: Vec<JoinHandle<()>>,
}

impl Load {
    /// Makes the table, enables it, and starts to write.
    pub(crate) async fn start(postgres: &Postgres) -> Self {
        postgres
            .sql(&format!(
                "create table counter (id int primary key, n int not null default 0);
                 insert into counter select generate_series(0, {ROWS} - 1);
                 select headwater.enable('counter', entity => 'counter');"
            ))
            .await;
        let stop = Arc::new(AtomicBool::new(false));
        let acknowledged = Arc::new(AtomicUsize::new(0));
        let writers = (0..WRITERS)
            .map(|writer| tokio::spawn(write(postgres.port(), writer, Arc::clone(&stop), Arc::clone(&acknowledged))))
            .collect();
        Self { stop, acknowledged, writers }
    }

    /// How many changes Postgres has said were committed.
    pub(crate) fn acknowledged(&self) -> usize {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// Ends the load; the number of acknowledged changes.
    pub(crate) async fn stop(self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        for writer in self.writers {
            writer.await.unwrap();
        }
        self.acknowledged.load(Ordering::Relaxed)
    }
}

async fn write(port: u16, writer: usize, stop: Arc<AtomicBool>, acknowledged: Arc<AtomicUsize>) {
    let parameters = format!("host=127.0.0.1 port={port} user=postgres dbname=headwater");
    let mut turn = writer;
    while !stop.load(Ordering::Relaxed) {
        // Postgres may be down for a while: that is what these tests do to it.
        let Ok((client, connection)) = tokio_postgres::connect(&parameters, NoTls).await else {
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        tokio::spawn(connection);
        while !stop.load(Ordering::Relaxed) {
            turn += WRITERS + 1;
            let row = i32::try_from(turn % ROWS).unwrap();
            if client.execute("update counter set n = n + 1 where id = $1", &[&row]).await.is_err() {
                break;
            }
            acknowledged.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// The oracle: every change of a row is one event, in the order of its numbers, and no acknowledged one is missing.
/// Returns the number of events.
pub(crate) async fn assert_events_match_rows(postgres: &Postgres, acknowledged: usize) -> usize {
    let events = postgres.count("select count(*) from headwater.event").await;
    assert_eq!(postgres.count("select sum(n) from counter").await, events);
    assert!(acknowledged <= events, "{acknowledged} changes were acknowledged, {events} events are there");
    let out_of_order = "select count(*) from (
        select (payload ->> 'n')::bigint as n, row_number() over (partition by entity_id order by position) as expected
        from headwater.event) e where n is distinct from expected";
    assert_eq!(0, postgres.count(out_of_order).await);
    events
}
