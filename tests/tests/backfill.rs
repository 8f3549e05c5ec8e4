//! Promise: every row that was there before a table was enabled has its baseline, whatever happened while `backfill` ran:
//! writers, a cancel, a crash. Oracle: a copy of the table from before, and the table itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use headwater_tests::deadline::eventually;
use headwater_tests::postgres::{Postgres, StopMode, connect};

/// `HEADWATER_TEST_BACKFILL_ROWS=1000000` runs it on a large table.
fn rows() -> usize {
    std::env::var("HEADWATER_TEST_BACKFILL_ROWS").map_or(20_000, |rows| rows.parse().unwrap())
}

/// Updates, deletes, inserts, changes of key and tenant, until told to stop. Returns how many statements that were.
async fn write(port: u16, seed: usize, stop: Arc<AtomicBool>) -> usize {
    let client = connect(port).await;
    let mut state = seed;
    let mut done = 0;
    while !stop.load(Ordering::Relaxed) {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let id = (state >> 33) % rows();
        let other = rows() + (state >> 20) % (rows() * 4);
        let sql = match (state >> 60) % 6 {
            0 | 1 => format!("update items set n = n + 1 where id = {id}"),
            2 => format!("delete from items where id = {id}"),
            3 => format!("insert into items values ({other}, 'a', 0) on conflict (id) do update set n = items.n + 1"),
            4 => format!(
                "update items set id = {other} where id = {id} and not exists (select from items where id = {other})"
            ),
            _ => format!("update items set tenant = 'b' where id = {id}"),
        };
        match client.batch_execute(&sql).await {
            Ok(()) => done += 1,
            // Two may want the same key, and the server is stopped meanwhile.
            Err(error) if error.code().is_some_and(|code| code.code() == "23505") => {}
            Err(_) => break,
        }
    }
    done
}

fn start_writers(postgres: &Postgres, round: usize) -> (Arc<AtomicBool>, Vec<tokio::task::JoinHandle<usize>>) {
    let stop = Arc::new(AtomicBool::new(false));
    let writers = (0..4).map(|n| tokio::spawn(write(postgres.port(), round * 10 + n, Arc::clone(&stop)))).collect();
    (stop, writers)
}

async fn end_writers(stop: &AtomicBool, writers: Vec<tokio::task::JoinHandle<usize>>) -> usize {
    stop.store(true, Ordering::Relaxed);
    let mut done = 0;
    for writer in writers {
        done += writer.await.unwrap();
    }
    done
}

async fn written(postgres: &Postgres) -> usize {
    postgres.count("select coalesce(sum(written), 0)::int8 from headwater.backfill_progress").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backfill_is_complete_whatever_happens_meanwhile() {
    let mut postgres = Postgres::start().await;
    let rows = rows();
    // Few rows a page, so that there are many batches.
    postgres
        .sql(&format!(
            "create table items (id int8 primary key, tenant text, n int) with (fillfactor = 10);
             insert into items select i, 'a', i from generate_series(0, {rows} - 1) i;
             create table before as select * from items;
             select headwater.enable('items', tenant_column => 'tenant')"
        ))
        .await;
    assert_eq!(0, postgres.count("select count(*) from headwater.snapshot").await, "too large for enable");
    let enabled_at = "(select enabled_at from headwater.entity)";

    // Cancelled in the middle.
    let (stop, writers) = start_writers(&postgres, 1);
    let client = postgres.connect().await;
    let cancel = client.cancel_token();
    let running = tokio::spawn(async move { client.batch_execute("call headwater.backfill('items')").await });
    eventually("the first batch", || async { (written(&postgres).await > 0).then_some(()) }).await;
    cancel.cancel_query(tokio_postgres::NoTls).await.unwrap();
    let cancelled = running.await.unwrap();
    let after_cancel = written(&postgres).await;
    if cancelled.is_err() {
        assert!(after_cancel > 0, "what was committed stays");
    }
    // Crashed in the middle.
    let client = postgres.connect().await;
    let running = tokio::spawn(async move { client.batch_execute("call headwater.backfill('items')").await });
    eventually("a further batch", || async {
        let now = written(&postgres).await;
        (now > after_cancel || now == 0).then_some(())
    })
    .await;
    postgres.stop(StopMode::Immediate).await;
    let _ = running.await.unwrap(); // cut off
    let mut statements = end_writers(&stop, writers).await;
    postgres.resume().await;
    assert!(written(&postgres).await >= after_cancel || cancelled.is_ok(), "it goes on where it was");

    // Rewritten in the middle: its pages are others now.
    postgres.sql("vacuum full items").await;
    let (stop, writers) = start_writers(&postgres, 2);
    let started = Instant::now();
    postgres.sql("call headwater.backfill('items')").await;
    let took = started.elapsed();
    statements += end_writers(&stop, writers).await;
    println!("{rows} rows; the last call took {took:?}; {statements} statements of writers meanwhile");
    assert!(statements > 0);

    assert_eq!(1, postgres.count("select count(*) from headwater.entity where backfilled").await);
    assert_eq!(0, postgres.count("select count(*) from headwater.backfill_progress").await);
    let lost = postgres
        .count(&format!(
            "select count(*) from before b
             where headwater.materialize('item', b.id::text, {enabled_at}, 'a')
                   is distinct from jsonb_build_object('id', b.id::text, 'tenant', b.tenant, 'n', b.n)"
        ))
        .await;
    assert_eq!(0, lost, "rows whose state at the time of enable is not what it was");
    let wrong = postgres
        .count(
            "select count(*) from items i
             where headwater.materialize('item', i.id::text, null, i.tenant)
                   is distinct from jsonb_build_object('id', i.id::text, 'tenant', i.tenant, 'n', i.n)",
        )
        .await;
    assert_eq!(0, wrong, "rows that are not the fold of their events");
    let invented = postgres
        .count(
            "select count(*) from headwater.snapshot s
             where not exists (select from before b where b.id::text = s.entity_id and b.tenant = s.tenant_id)",
        )
        .await;
    assert_eq!(0, invented, "baselines of rows that were not there");
}
