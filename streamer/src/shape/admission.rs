//! How many requests are served at a time, and how many of them for one tenant: nobody takes all places from the others.

use super::error::ShapeError;
use crate::identity::Reach;
use prometheus_client::metrics::gauge::Gauge;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A tenant has at most this part of all places.
const SHARE: usize = 3;

/// The places of one kind of requests.
#[derive(Debug)]
pub(super) struct Admission {
    kind: &'static str,
    limit: usize,
    taken: Mutex<Taken>,
    /// Places taken of all kinds.
    open: Gauge,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    of_tenant: HashMap<Reach, usize>,
}

/// A place, until its answer is sent.
#[derive(Debug)]
pub(crate) struct Admitted {
    admission: Arc<Admission>,
    reach: Reach,
}

impl Admission {
    pub(super) fn new(kind: &'static str, limit: usize, open: &Gauge) -> Arc<Self> {
        Arc::new(Self { kind, limit, taken: Mutex::default(), open: open.clone() })
    }

    /// A place, if there is one. Trusted callers count in all only.
    pub(super) fn enter(self: &Arc<Self>, reach: &Reach) -> Result<Admitted, ShapeError> {
        let mut taken = self.lock();
        let share = if *reach == Reach::Everything { self.limit } else { self.limit.div_ceil(SHARE) };
        let own = taken.of_tenant.get(reach).copied().unwrap_or(0);
        if own >= share || taken.all >= self.limit {
            return Err(ShapeError::overloaded(self.kind, if own >= share { share } else { self.limit }));
        }
        taken.all += 1;
        taken.of_tenant.insert(reach.clone(), own + 1);
        self.open.inc();
        Ok(Admitted { admission: Arc::clone(self), reach: reach.clone() })
    }

    // Counting cannot panic half-way.
    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let mut taken = self.admission.lock();
        taken.all -= 1;
        self.admission.open.dec();
        let left = taken.of_tenant.get_mut(&self.reach).map(|own| {
            *own -= 1;
            *own
        });
        if left == Some(0) {
            taken.of_tenant.remove(&self.reach);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(name: &str) -> Reach {
        Reach::Tenant(Some(name.into()))
    }

    #[test]
    fn no_tenant_takes_all_places() {
        let open = Gauge::default();
        let admission = Admission::new("initial", 6, &open);
        let enter = |reach: &Reach| admission.enter(reach).ok();
        let mut taken = vec![enter(&tenant("a")).expect("its first"), enter(&tenant("a")).expect("its second")];
        assert!(enter(&tenant("a")).is_none(), "a third of all");
        taken.push(enter(&tenant("b")).expect("another's"));
        taken.push(enter(&Reach::Tenant(None)).expect("none is a tenant of its own"));
        taken.push(enter(&Reach::Everything).expect("a trusted proxy's"));
        taken.push(enter(&Reach::Everything).expect("a trusted proxy's"));
        assert!(enter(&tenant("c")).is_none() && enter(&Reach::Everything).is_none(), "six in all");
        assert_eq!(open.get(), 6);
        taken.remove(0);
        assert!(enter(&tenant("a")).is_some(), "a place is free again");
        drop(taken);
        assert!(admission.lock().all == 0 && admission.lock().of_tenant.is_empty() && open.get() == 0);
    }
}
