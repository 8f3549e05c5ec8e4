//! Subqueries: what each gives is kept once, for all shapes that name it, and follows the log from transaction to
//! transaction. It is dropped with the last of these shapes.
//!
//! Nothing of it needs to survive: the rows of a table at any place that the ring reaches are found again
//! ([`rows_at`]), so what a subquery had there can be, and what follows from there is the same on every replica.

mod first_rows;
mod moving;
pub(super) mod rows_at;
pub(super) mod selection;
mod telling;
pub(super) mod values;

use super::definition::describe_table;
use super::error::ShapeError;
use super::filter::{Filter, Subquery};
use super::source::Source;
pub(super) use first_rows::first_rows;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use headwater_model::cursor::{Epoch, Lsn, Offset};
pub(super) use moving::owned;
use rows_at::{Relation, part_since};
use selection::{Selection, Side, Step, Told};
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};
use std::time::{Duration, Instant};
use tokio::task::yield_now;
use values::{Value, Values};

/// Memory for the values of all subqueries together: some two million UUIDs. Beyond it shapes are refused with 503.
const VALUES_BYTES: usize = 256 << 20;

/// Names of subqueries that nobody needs any more are swept out when there are this many more than at the last time.
const SWEEP: usize = 64;

/// All subqueries.
#[derive(Debug, Default)]
pub(super) struct Inners {
    known: Mutex<Known>,
    bytes: Arc<AtomicUsize>,
}

#[derive(Debug, Default)]
struct Known {
    /// By what tells one from others.
    inners: HashMap<String, Weak<Inner>>,
    swept: usize,
}

/// How long others wait while one follows the log from transaction to transaction.
const GO: Duration = Duration::from_millis(5);

/// Work between two pauses.
#[derive(Debug)]
pub(super) struct Go(Instant);

impl Go {
    pub(super) fn begin() -> Self {
        Self(Instant::now())
    }

    /// Others get their turn, if it is time.
    pub(super) async fn pause(&mut self) {
        if self.0.elapsed() > GO {
            yield_now().await;
            *self = Self::begin();
        }
    }
}

/// What a subquery gives.
#[derive(Debug)]
pub(super) struct Inner {
    selection: Selection,
    /// The columns that it gives.
    selected: Vec<usize>,
    values: RwLock<Option<Values>>,
    /// Held by whoever moves `values` on.
    turn: tokio::sync::Mutex<()>,
    /// What `values` takes, as it stands in `all_bytes`.
    bytes: AtomicUsize,
    all_bytes: Arc<AtomicUsize>,
}

impl Inners {
    /// What a filter's subqueries give, each kept once however many ask for it.
    pub(super) fn of(&self, filter: &Filter, epoch: Epoch) -> Vec<Arc<Inner>> {
        filter.subqueries().iter().map(|subquery| self.inner(subquery, epoch)).collect()
    }

    fn inner(&self, subquery: &Subquery, epoch: Epoch) -> Arc<Inner> {
        let name = format!("{epoch} {} {}", subquery.to_sql(), describe(subquery));
        if let Some(inner) = self.lock().inners.get(&name).and_then(Weak::upgrade) {
            return inner;
        }
        let nested = subquery.filter.as_ref().map(|filter| self.of(filter, epoch)).unwrap_or_default();
        let relation = Relation::new(Arc::clone(&subquery.table));
        let (filter, tenant) = (subquery.filter.clone(), subquery.tenant.clone());
        let inner = Arc::new(Inner {
            selection: Selection::new(relation, filter, tenant, nested, &subquery.selected),
            selected: subquery.selected.clone(),
            values: RwLock::default(),
            turn: tokio::sync::Mutex::default(),
            bytes: AtomicUsize::new(0),
            all_bytes: Arc::clone(&self.bytes),
        });
        let mut known = self.lock();
        // Somebody else was faster?
        if let Some(inner) = known.inners.get(&name).and_then(Weak::upgrade) {
            return inner;
        }
        known.inners.insert(name, Arc::downgrade(&inner));
        if known.inners.len() > known.swept + SWEEP {
            known.inners.retain(|_, inner| inner.strong_count() > 0);
            known.swept = known.inners.len();
        }
        inner
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Everything that its values depend on besides its text.
fn describe(subquery: &Subquery) -> String {
    let nested = subquery.filter.iter().flat_map(Filter::subqueries);
    std::iter::once(describe_table(&subquery.table).to_string())
        .chain(nested.map(describe))
        .collect::<Vec<_>>()
        .join(" ")
}

impl Inner {
    pub(super) fn watched(&self) -> &[u32] {
        &self.selection.watched
    }

    pub(super) fn values(&self) -> &RwLock<Option<Values>> {
        &self.values
    }

    /// Has the values ready between two places, from rows of Postgres and from the ring.
    pub(super) fn reach<'a>(
        &'a self,
        source: &'a Source,
        epoch: Epoch,
        from: Lsn,
        to: Lsn,
    ) -> BoxFuture<'a, Result<(), ShapeError>> {
        async move {
            let _turn = self.turn.lock().await;
            let known = read(&self.values, |values| (values.from(), values.upto()));
            if let Some((first, upto)) = known
                && first <= from
                && source.log.holds_rows(epoch, self.watched(), Offset::just_before(upto))
                && self.selection.reach(source, epoch, from.min(upto), to).await.is_ok()
            {
                return self.advance(source, epoch, &self.values, to).await;
            }
            // Whoever is further on than `to` stays served.
            let to = known.map_or(to, |(_, upto)| upto.max(to));
            self.selection.reach(source, epoch, from, to).await?;
            let mut loading = Loading { selected: &self.selected, values: Values::new(from), most: VALUES_BYTES };
            self.selection.rows(source, epoch, from, &mut loading).await?;
            let values = RwLock::new(Some(loading.values));
            self.advance(source, epoch, &values, to).await?;
            let values = values.into_inner().unwrap_or_else(PoisonError::into_inner);
            *self.values.write().unwrap_or_else(PoisonError::into_inner) = values;
            self.account()
        }
        .boxed()
    }

    async fn advance(
        &self,
        source: &Source,
        epoch: Epoch,
        values: &RwLock<Option<Values>>,
        to: Lsn,
    ) -> Result<(), ShapeError> {
        loop {
            let upto = read(values, Values::upto).unwrap_or(to);
            if upto >= to {
                break;
            }
            let (transactions, next) = part_since(&source.log, epoch, self.watched(), upto, to)?;
            let (mut moving, mut go) = (self.selection.moving(source, epoch, upto, next).await?, Go::begin());
            for transaction in &transactions {
                let mut deltas: HashMap<Value, i64> = HashMap::new();
                let mut add = |side: &Side<'_>, by: i64| {
                    if side.is_in {
                        *deltas.entry(value_of(&self.selected, side)).or_default() += by;
                    }
                };
                let take = |step: Step<'_>| match step {
                    Step::Changed { before, after, .. } => {
                        for (side, by) in [(before, -1), (after, 1)] {
                            if let Some(side) = side {
                                add(&side, by);
                            }
                        }
                    }
                    Step::Moved { before, after } => {
                        add(&before, -1);
                        add(&after, 1);
                    }
                };
                self.selection.tell(transaction, &mut moving, &mut go, take).await?;
                write(values, |values| values.apply(transaction.commit, deltas));
            }
            write(values, |values| values.advance(next));
        }
        let start = source.log.tip().start;
        write(values, |values| values.forget_before(start));
        self.account()
    }

    /// Counts the memory; if there is not enough, the values are forgotten.
    fn account(&self) -> Result<(), ShapeError> {
        let now = read(&self.values, Values::bytes).unwrap_or(0);
        let before = self.bytes.swap(now, Ordering::Relaxed);
        let all = self
            .all_bytes
            .fetch_add(now.wrapping_sub(before), Ordering::Relaxed)
            .wrapping_add(now.wrapping_sub(before));
        if now <= before || all <= VALUES_BYTES {
            return Ok(());
        }
        tracing::warn!("the values of subqueries take more than {VALUES_BYTES} bytes; a shape is refused");
        *self.values.write().unwrap_or_else(PoisonError::into_inner) = None;
        self.bytes.store(0, Ordering::Relaxed);
        self.all_bytes.fetch_sub(now, Ordering::Relaxed);
        Err(ShapeError::busy("Subqueries take as much memory as they may, please retry", 10))
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.all_bytes.fetch_sub(self.bytes.load(Ordering::Relaxed), Ordering::Relaxed);
    }
}

fn read<T>(values: &RwLock<Option<Values>>, what: impl FnOnce(&Values) -> T) -> Option<T> {
    values.read().unwrap_or_else(PoisonError::into_inner).as_ref().map(what)
}

fn write(values: &RwLock<Option<Values>>, what: impl FnOnce(&mut Values)) {
    if let Some(values) = values.write().unwrap_or_else(PoisonError::into_inner).as_mut() {
        what(values);
    }
}

fn value_of(selected: &[usize], side: &Side<'_>) -> Value {
    selected.iter().map(|at| side.row[*at].map(str::to_owned)).collect()
}

/// Counts the rows that values begin with.
struct Loading<'a> {
    selected: &'a [usize],
    values: Values,
    /// Bytes.
    most: usize,
}

impl Told for Loading<'_> {
    fn told(&mut self, side: &Side<'_>) -> Result<(), ShapeError> {
        self.values.begin_with(&value_of(self.selected, side));
        if self.values.bytes() > self.most {
            return Err(ShapeError::busy("Subqueries take as much memory as they may, please retry", 10));
        }
        Ok(())
    }

    async fn settle(&mut self) -> Result<(), ShapeError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
