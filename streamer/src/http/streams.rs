//! How many streams are open, of whom: an end to what one tenant may hold, and to what all may.

use super::problem::Problem;
use crate::identity::Reach;
use crate::metrics::{Metrics, Transport};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Counts open streams, whatever carries them; polls that wait are streams too.
#[derive(Debug)]
pub struct Streams {
    most: usize,
    most_per_tenant: usize,
    metrics: Arc<Metrics>,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    all: usize,
    /// Only tenants that have some.
    of_tenant: HashMap<Option<Arc<str>>, usize>,
}

/// A stream's place among those that may be open, until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    streams: Arc<Streams>,
    reach: Reach,
    transport: Transport,
}

impl Streams {
    /// At most so many in all, and for each tenant. HTTP/2 carries many streams over one connection, so the limit of
    /// connections alone would not do.
    pub fn new(most: usize, most_per_tenant: usize, metrics: Arc<Metrics>) -> Self {
        Self { most, most_per_tenant, metrics, open: Mutex::default() }
    }

    /// A place, or the reason why there is none. Trusted callers count in all only.
    pub(super) fn enter(self: &Arc<Self>, transport: Transport, reach: &Reach) -> Result<Place, Problem> {
        let mut open = self.open();
        if open.all >= self.most {
            return Err(Problem::busy(format!(
                "{} streams are open, and no more may be (--max-connections)",
                self.most
            )));
        }
        if let Reach::Tenant(tenant) = reach {
            let of_tenant = open.of_tenant.entry(tenant.clone()).or_default();
            if *of_tenant >= self.most_per_tenant {
                let detail = format!("this tenant has {} streams open, and may not have more", self.most_per_tenant);
                return Err(Problem::too_many(detail));
            }
            *of_tenant += 1;
        }
        open.all += 1;
        drop(open);
        self.metrics.begins(transport);
        Ok(Place { streams: Arc::clone(self), reach: reach.clone(), transport })
    }

    // Counting cannot panic half-way.
    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.streams.metrics.ends(self.transport);
        let mut open = self.streams.open();
        open.all -= 1;
        let Reach::Tenant(tenant) = &self.reach else { return };
        if let Entry::Occupied(mut of_tenant) = open.of_tenant.entry(tenant.clone()) {
            *of_tenant.get_mut() -= 1;
            if *of_tenant.get() == 0 {
                of_tenant.remove();
            }
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
    fn places() {
        let streams = Arc::new(Streams::new(4, 2, Arc::new(Metrics::new("test", false))));
        let enter = |reach: &Reach| streams.enter(Transport::Sse, reach).map_err(|problem| problem.code());
        let mut places = vec![enter(&tenant("a")).expect("the first"), enter(&tenant("a")).expect("the second")];
        assert_eq!(enter(&tenant("a")).err(), Some("too_many_streams"), "two a tenant");
        places.push(enter(&Reach::Tenant(None)).expect("none is a tenant of its own"));
        places.push(enter(&Reach::Everything).expect("the fourth"));
        for reach in [tenant("b"), Reach::Everything] {
            assert_eq!(enter(&reach).err(), Some("busy"), "four in all");
        }
        places.remove(0);
        assert!(enter(&tenant("a")).is_ok(), "a place is free again");
        drop(places);
        let open = streams.open();
        assert!(open.all == 0 && open.of_tenant.is_empty(), "{open:?}");
    }
}
