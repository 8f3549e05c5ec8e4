//! The watermark: every event with a position at or below it is visible, or never will be.
//!
//! Positions are drawn before they commit, so they become visible out of order. A writer holds `RowExclusiveLock` on the
//! event table (or the partition it writes) from before it draws until it ends. So:
//!
//! 1. `p` = the last position drawn, in a statement of its own;
//! 2. *after* that, who holds the lock. A position at or below `p` belongs to one of these or to somebody who ended;
//!    whoever takes the lock later draws above `p`;
//! 3. when all of these have ended, a small synchronous commit: a flush barrier, without which a crash could take back
//!    the sequence and hand the same positions out again. Then the watermark is `p`.
//!
//! A holder is known by its virtual transaction id. PREPARE TRANSACTION gives its locks to another identity (`-1/xid`):
//! a holder that disappears may live on as one of the prepared transactions that appeared meanwhile, so unless its own
//! xid tells better, those are waited for too.

use crate::database::Database;
use crate::error::Error;
use crate::log::{Log, Snapshot, Watermark};
use headwater_model::cursor::{Epoch, Lsn, Position};
use std::collections::{HashMap, HashSet};
use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout};
use tokio_postgres::{Client, Statement};
use tokio_util::sync::CancellationToken;

/// The watermark moves at least this often while there are writers. One round costs about a millisecond.
const ROUND: Duration = Duration::from_millis(250);

/// Rounds that pollers ask for come no closer than this: those who ask meanwhile share the next one.
const LEAST_PAUSE: Duration = Duration::from_millis(5);

/// How often the holders are looked at while they are waited for: short ones end at once, long ones are not hurried.
const FIRST_LOOK: Duration = Duration::from_millis(5);

/// From here on an open writer is worth a line in the log: pollers stand still behind it.
const LONG_WRITER: Duration = Duration::from_mins(1);

const RECONNECT_PAUSE: Duration = Duration::from_secs(1);

const LAST_POSITION: &str =
    "select case when is_called then last_value else last_value - 1 end from headwater.event_position_seq";

/// `materialized`: the lock table is read once, as a whole. A prepared transaction has no pid.
const HOLDERS: &str = "with locks as materialized (select * from pg_catalog.pg_locks where granted), \
     tables as (select 'headwater.event'::regclass::oid as oid \
         union select relid::oid from pg_catalog.pg_partition_tree('headwater.event')) \
     select l.virtualtransaction, coalesce(l.pid, 0), coalesce((select array_agg(x.transactionid::text) from locks x \
         where x.locktype = 'transactionid' and x.virtualtransaction = l.virtualtransaction), '{}') \
     from locks l \
     where l.locktype = 'relation' and l.mode = 'RowExclusiveLock' and l.relation in (select oid from tables) \
       and l.database = (select oid from pg_catalog.pg_database where datname = current_database()) \
     group by 1, 2";

const MARKER: &str = "select pg_catalog.pg_logical_emit_message(true, 'headwater.watermark', $1)::text";

/// How pollers ask for a round: who has just written wants to read it, and not a quarter of a second later.
#[derive(Debug, Default)]
pub struct Rounds {
    wanted: Notify,
    begun: AtomicU64,
    finished: watch::Sender<u64>,
    /// When a round ended last.
    ended_at: Mutex<Option<Instant>>,
}

impl Rounds {
    /// Waits until a round that began after this call has ended, or for `patience`: a writer that stays open holds
    /// rounds up.
    pub async fn fresh(&self, patience: Duration) {
        let begun = self.begun();
        let mut finished = self.finished();
        self.wanted.notify_one();
        // Late or not, the watermark that there is then is what counts.
        let _ = timeout(patience, finished.wait_for(|finished| *finished > begun)).await;
    }

    /// The round that began last.
    pub fn begun(&self) -> u64 {
        self.begun.load(Ordering::Acquire)
    }

    /// The round that ended last.
    pub fn finished(&self) -> watch::Receiver<u64> {
        self.finished.subscribe()
    }

    /// How long ago the last round ended: all that was written before it is known about.
    pub fn age(&self) -> Duration {
        let ended_at = *self.ended_at.lock().unwrap_or_else(PoisonError::into_inner);
        ended_at.map_or(Duration::ZERO, |ended_at| ended_at.elapsed())
    }

    fn end(&self, round: u64) {
        *self.ended_at.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        self.finished.send_replace(round);
    }

    fn begin(&self) -> u64 {
        self.begun.fetch_add(1, Ordering::AcqRel) + 1
    }

    async fn next(&self) {
        sleep(LEAST_PAUSE).await;
        let _ = timeout(ROUND.saturating_sub(LEAST_PAUSE), self.wanted.notified()).await;
    }
}

/// Keeps the log's watermark up to date until `shutdown`; after a lost connection it starts anew.
pub async fn run(database: Database, log: Arc<Log>, rounds: Arc<Rounds>, shutdown: CancellationToken) {
    let mut epochs = log.epochs();
    loop {
        // Not before the source has checked the set-up: its errors are the better ones.
        let epoch = *epochs.borrow_and_update();
        let round = async {
            match epoch {
                None => std::future::pending().await,
                Some(epoch) => follow(&database, &log, &rounds, epoch).await,
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = epochs.changed() => {}
            Err(error) = round => {
                tracing::debug!(%error, "the watermark stands still");
                tokio::select! {
                    () = shutdown.cancelled() => return,
                    () = sleep(RECONNECT_PAUSE) => {}
                }
            }
        }
    }
}

async fn follow(database: &Database, log: &Log, rounds: &Rounds, epoch: Epoch) -> Result<(), Error> {
    let session = Session::open(database).await?;
    let writers = follow_writers(&session, log, rounds, epoch);
    tokio::select! {
        ended = writers => ended,
        never = observe(database, log) => match never {},
    }
}

/// Tells the log what is visible, which it needs before it can let go of anything for good. On its own: a round lasts as long as the
/// longest writer, and its marker as long as synchronous standbys make it.
async fn observe(database: &Database, log: &Log) -> Infallible {
    loop {
        sleep(ROUND).await;
        if log.needs_observation() {
            let head = log.tip().head;
            match snapshot(database).await {
                Ok(snapshot) => log.observe(head, &snapshot),
                Err(error) => tracing::debug!(%error, "cannot see what is visible; trying again"),
            }
        }
    }
}

async fn snapshot(database: &Database) -> Result<Snapshot, Error> {
    let row = database.get().await?.query_one("select pg_catalog.pg_current_snapshot()::text", &[]).await?;
    let text: String = row.try_get(0)?;
    text.parse().map_err(|error: crate::log::InvalidSnapshot| Error::Protocol(error.to_string()))
}

async fn follow_writers(session: &Session, log: &Log, rounds: &Rounds, epoch: Epoch) -> Result<(), Error> {
    let mut known = None;
    loop {
        let round = rounds.begin();
        let last = session.last_position().await?;
        if known != Some(last) {
            session.wait_for_writers().await?;
            let marker = session.mark(last).await?;
            log.set_watermark(epoch, Watermark { position: last, lsn: marker });
            known = Some(last);
        }
        rounds.end(round);
        rounds.next().await;
    }
}

struct Session {
    client: Client,
    last_position: Statement,
    holders: Statement,
    marker: Statement,
}

impl Session {
    async fn open(database: &Database) -> Result<Self, Error> {
        let client = database.dedicated("headwater watermark").await?;
        client.batch_execute("set synchronous_commit = on").await?;
        let last_position = client.prepare(LAST_POSITION).await?;
        let holders = client.prepare(HOLDERS).await?;
        let marker = client.prepare(MARKER).await?;
        Ok(Self { client, last_position, holders, marker })
    }

    async fn last_position(&self) -> Result<Position, Error> {
        Ok(Position(self.client.query_one(&self.last_position, &[]).await?.try_get(0)?))
    }

    async fn holders(&self) -> Result<Holders, Error> {
        let mut holders = Holders::new();
        for row in self.client.query(&self.holders, &[]).await? {
            let holder = Holder { pid: row.try_get(1)?, xids: row.try_get(2)? };
            holders.insert(row.try_get(0)?, holder);
        }
        Ok(holders)
    }

    async fn wait_for_writers(&self) -> Result<(), Error> {
        let mut awaited = Awaited::new(self.holders().await?);
        let (began, mut warned, mut pause) = (Instant::now(), false, FIRST_LOOK);
        while !awaited.is_empty() {
            if began.elapsed() > LONG_WRITER && !warned {
                warned = true;
                tracing::warn!(writers = ?awaited.pids(), "a transaction has held events back for a minute; /events/since stops before them (pid 0: a prepared transaction)");
            }
            sleep(pause).await;
            pause = ROUND.min(pause * 2);
            awaited.look(&self.holders().await?);
        }
        Ok(())
    }

    async fn mark(&self, position: Position) -> Result<Lsn, Error> {
        let row = self.client.query_one(&self.marker, &[&position.to_string()]).await?;
        let lsn: String = row.try_get(0)?;
        lsn.parse().map_err(|_| Error::Protocol(format!("`{lsn}` is not an LSN")))
    }
}

/// Who holds the lock, by virtual transaction id (`backend/local`, or `-1/xid` when prepared).
type Holders = HashMap<String, Holder>;

#[derive(Clone, Debug)]
struct Holder {
    /// Zero for a prepared transaction.
    pid: i32,
    /// The transaction's ids as far as it has any yet, subtransactions included.
    xids: Vec<String>,
}

/// The holders of one moment, and what became of them. Pure.
struct Awaited {
    left: Holders,
    /// Prepared transactions that were there at the last look.
    prepared: HashSet<String>,
}

impl Awaited {
    fn new(holders: Holders) -> Self {
        let prepared = holders.keys().filter(|id| is_prepared(id)).cloned().collect();
        Self { left: holders, prepared }
    }

    fn is_empty(&self) -> bool {
        self.left.is_empty()
    }

    fn pids(&self) -> Vec<i32> {
        self.left.values().map(|holder| holder.pid).collect()
    }

    /// Compares with who holds the lock now.
    fn look(&mut self, now: &Holders) {
        let gone: Vec<Holder> = self.left.extract_if(|id, _| !now.contains_key(id)).map(|(_, holder)| holder).collect();
        // Those that go on may have drawn an xid since.
        for (id, holder) in &mut self.left {
            if let Some(current) = now.get(id) {
                holder.xids.clone_from(&current.xids);
            }
        }
        let nameless = gone.iter().any(|holder| holder.xids.is_empty());
        for (id, holder) in now.iter().filter(|(id, _)| is_prepared(id)) {
            let new = !self.prepared.contains(id);
            let same = gone.iter().any(|gone| gone.xids.iter().any(|xid| prepared_xid(id) == Some(xid)));
            if new && (same || nameless) {
                self.left.insert(id.clone(), holder.clone());
            }
        }
        self.prepared = now.keys().filter(|id| is_prepared(id)).cloned().collect();
    }
}

fn is_prepared(id: &str) -> bool {
    prepared_xid(id).is_some()
}

fn prepared_xid(id: &str) -> Option<&str> {
    id.strip_prefix("-1/")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holders(list: &[(&str, &[&str])]) -> Holders {
        let holder = |xids: &[&str]| Holder { pid: 1, xids: xids.iter().map(|&xid| xid.to_owned()).collect() };
        list.iter().map(|&(id, xids)| (id.to_owned(), holder(xids))).collect()
    }

    #[test]
    fn waits_for_exactly_those_that_were_there() {
        type Look<'a> = &'a [(&'a str, &'a [&'a str])];
        let check = |name: &str, looks: &[Look<'_>], expected: &[&str]| {
            let mut awaited = Awaited::new(holders(looks[0]));
            for look in &looks[1..] {
                awaited.look(&holders(look));
            }
            let mut left: Vec<&str> = awaited.left.keys().map(String::as_str).collect();
            left.sort_unstable();
            assert_eq!(left, expected, "{name}");
        };
        check("nobody", &[&[]], &[]);
        check("one that ends", &[&[("3/1", &["7"])], &[]], &[]);
        check("later ones do not matter", &[&[("3/1", &["7"])], &[("3/2", &["8"]), ("4/1", &[])]], &[]);
        check("one of two goes on", &[&[("3/1", &["7"]), ("4/1", &["8"])], &[("4/1", &["8"])]], &["4/1"]);
        check("prepared from the start", &[&[("-1/7", &["7"])], &[("-1/7", &["7"])]], &["-1/7"]);
        check("prepared, then ended", &[&[("-1/7", &["7"])], &[("-1/7", &["7"])], &[]], &[]);
        check("becomes prepared", &[&[("3/1", &["7"])], &[("-1/7", &["7"])]], &["-1/7"]);
        check("another one is prepared", &[&[("3/1", &["7"])], &[("-1/8", &["8"])]], &[]);
        check("an xid learnt later", &[&[("3/1", &[])], &[("3/1", &["7"])], &[("-1/8", &["8"])]], &[]);
        check("nameless, maybe prepared", &[&[("3/1", &[])], &[("-1/8", &["8"])]], &["-1/8"]);
        check("nameless, prepared before", &[&[("3/1", &[]), ("-1/8", &["8"])], &[("-1/8", &["8"])]], &["-1/8"]);
        check(
            "nameless, one prepared meanwhile by others is no candidate later",
            &[&[("3/1", &[])], &[("3/1", &[]), ("-1/8", &["8"])], &[("-1/8", &["8"])]],
            &[],
        );
        check("with subtransactions", &[&[("3/1", &["7", "8"])], &[("-1/7", &["7", "8"])]], &["-1/7"]);
    }
}
