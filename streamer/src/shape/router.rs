//! Which shapes a change concerns: found by the index, and woken. A shape that nobody has asked for lately is not watched,
//! and costs nothing.

use super::live::Shape;
use super::routes::Routes;
use super::session::is_same;
use super::table::TableSchema;
use super::tables::Tables;
use crate::log::Log;
use headwater_model::cursor::Lsn;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

/// A client that polls comes back within this time, or the next look for it goes through the ring.
const WATCHED: Duration = Duration::from_mins(1);

/// How often the catalog is asked whether tables with readers are what they were: DDL that touches no row is not in the WAL.
const LOOK: Duration = Duration::from_secs(1);

/// Tables in one look: the catalog answers for so many within milliseconds.
const TABLES_PER_LOOK: usize = 256;

/// Finds the shapes that a change concerns.
#[derive(Debug)]
pub(super) struct Router {
    started: Instant,
    routes: Mutex<Routes>,
    /// Everything committed before it has been routed.
    position: AtomicU64,
    described: Notify,
    /// There is a shape again.
    wanted: Notify,
}

impl Router {
    pub(super) fn new() -> Self {
        Self {
            started: Instant::now(),
            routes: Mutex::default(),
            position: AtomicU64::new(0),
            described: Notify::new(),
            wanted: Notify::new(),
        }
    }

    pub(super) fn position(&self) -> Lsn {
        Lsn(self.position.load(Ordering::Acquire))
    }

    /// Somebody asks for this shape: it is watched for a while.
    pub(super) fn watch(&self, shape: &Arc<Shape>) {
        shape.asked_at.store(self.started.elapsed().as_secs(), Ordering::Relaxed);
        if shape.routed.load(Ordering::Acquire) {
            return;
        }
        let mut routes = self.lock();
        if shape.routed.swap(true, Ordering::AcqRel) {
            return;
        }
        // Under the lock, so that the router stands still.
        shape.begin_hits(self.position());
        routes.add(shape);
        self.wanted.notify_one();
    }

    /// Routes until `shutdown`.
    pub(super) async fn run(&self, log: &Log, tables: &Tables, shutdown: &CancellationToken) {
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = self.follow(log) => {}
            () = self.look_regularly(tables) => {}
        }
    }

    async fn follow(&self, log: &Log) {
        let mut arrivals = log.row_arrivals();
        loop {
            if self.route(log) {
                self.described.notify_one();
            }
            if self.lock().is_empty() {
                // Nobody is to be woken: no commit need wake us. But not for long, so that a first shape does not find us far behind.
                let _ = timeout(LOOK, self.wanted.notified()).await;
                arrivals.mark_unchanged();
            } else if arrivals.changed().await.is_err() {
                return;
            }
        }
    }

    async fn look_regularly(&self, tables: &Tables) {
        loop {
            // A table that the WAL describes anew may be another one by now, or have a new partition.
            let _ = timeout(LOOK, self.described.notified()).await;
            self.sweep();
            self.look(tables).await;
        }
    }

    /// Everything that has arrived. Answers whether the WAL described a table anew.
    fn route(&self, log: &Log) -> bool {
        let mut described = false;
        loop {
            let position = self.position();
            let (transactions, next) = log.routed(position);
            let routes = self.lock();
            let Some(transactions) = transactions.filter(|_| next >= position) else {
                // The log was faster, or began anew: everybody looks through what it has.
                routes.each(|shape| {
                    shape.begin_hits(next);
                    shape.wake();
                });
                self.position.store(next.0, Ordering::Release);
                return true;
            };
            let mut woken: Vec<&Arc<Shape>> = Vec::new();
            for transaction in &transactions {
                described |= transaction.described;
                routes.concerned(transaction, &mut |shape| {
                    if shape.hit(transaction.commit) {
                        woken.push(shape);
                    }
                });
            }
            // First the place, then the waking: who wakes finds its hits complete up to there.
            self.position.store(next.0, Ordering::Release);
            for shape in woken {
                shape.wake();
            }
            if next == position || next >= log.tip().head {
                return described;
            }
        }
    }

    /// Ends shapes whose table is another one by now.
    async fn look(&self, tables: &Tables) {
        let known = self.tables();
        let mut changed = Vec::new();
        for some in known.chunks(TABLES_PER_LOOK) {
            let names: Vec<(&str, &str)> = some.iter().map(|table| (&*table.schema, &*table.name)).collect();
            match tables.look_at(&names).await {
                Ok(now) => {
                    let pairs = some.iter().zip(now);
                    let other = |now: Option<TableSchema>, known| now.is_none_or(|now| !is_same(&now, known));
                    changed.extend(pairs.filter_map(|(known, now)| other(now, known).then_some(known)));
                }
                Err(error) => tracing::debug!(%error, "cannot look whether tables have changed"),
            }
        }
        if changed.is_empty() {
            return;
        }
        let is_changed = |table: &Arc<TableSchema>| changed.iter().any(|changed| Arc::ptr_eq(changed, table));
        for shape in self.which(|shape| shape.definition().layout.tables().any(is_changed)) {
            let table = &shape.definition().layout.table.name;
            tracing::debug!(table, "a shape's table has changed; its clients start anew");
            shape.end();
            self.forget(&shape);
        }
    }

    /// Shapes that nobody asks for any more.
    fn sweep(&self) {
        let now = self.started.elapsed().as_secs();
        let is_idle = |shape: &Shape| {
            let idle = now.saturating_sub(shape.asked_at.load(Ordering::Relaxed));
            idle > WATCHED.as_secs() && !shape.has_readers()
        };
        for shape in self.which(is_idle) {
            self.forget(&shape);
        }
    }

    fn forget(&self, shape: &Arc<Shape>) {
        let mut routes = self.lock();
        routes.remove(shape);
        shape.end_hits();
        shape.routed.store(false, Ordering::Release);
    }

    /// The tables of all shapes, each once.
    fn tables(&self) -> Vec<Arc<TableSchema>> {
        let mut known: HashMap<*const TableSchema, &Arc<TableSchema>> = HashMap::new();
        let routes = self.lock();
        routes.each(|shape| {
            for table in shape.definition().layout.tables() {
                known.entry(Arc::as_ptr(table)).or_insert(table);
            }
        });
        known.into_values().map(Arc::clone).collect()
    }

    fn which(&self, is_one: impl Fn(&Shape) -> bool) -> Vec<Arc<Shape>> {
        let mut all = Vec::new();
        self.lock().each(|shape| {
            if is_one(shape) {
                all.push(Arc::clone(shape));
            }
        });
        all
    }

    fn lock(&self) -> MutexGuard<'_, Routes> {
        self.routes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
