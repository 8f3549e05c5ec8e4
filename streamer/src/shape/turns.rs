//! Who reads from Postgres next: a few at a time, the waiting tenants by turns, so that nobody waits behind all of another's.

use crate::identity::Reach;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::oneshot;

/// This many places are left to others, however many one tenant waits for.
const LEFT_TO_OTHERS: usize = 2;

/// So many at a time.
#[derive(Debug)]
pub(super) struct Turns {
    limit: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    all: usize,
    of_tenant: HashMap<Reach, usize>,
    /// Those who wait, by tenant, in the order of their next turns.
    waiting: VecDeque<(Reach, VecDeque<oneshot::Sender<Turn>>)>,
}

/// A turn, until it is dropped.
#[derive(Debug)]
pub(super) struct Turn {
    turns: Arc<Turns>,
    reach: Reach,
}

impl Turns {
    pub(super) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit, state: Mutex::default() })
    }

    /// Waits for a turn. Who gives up waiting gives up the place in the row.
    pub(super) async fn turn(self: &Arc<Self>, reach: &Reach) -> Turn {
        loop {
            let (sender, receiver) = oneshot::channel();
            {
                let mut state = self.lock();
                match state.waiting.iter_mut().find(|(of, _)| of == reach) {
                    Some((_, row)) => row.push_back(sender),
                    None => state.waiting.push_back((reach.clone(), VecDeque::from([sender]))),
                }
            }
            self.give();
            // The sender is kept until it is used.
            if let Ok(turn) = receiver.await {
                return turn;
            }
        }
    }

    /// Gives out the places that are free.
    fn give(self: &Arc<Self>) {
        loop {
            let Some((reach, next)) = self.lock().next(self.limit) else { return };
            // If nobody takes it any more, the turn ends here and is given to another.
            let _ = next.send(Turn { turns: Arc::clone(self), reach });
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn next(&mut self, limit: usize) -> Option<(Reach, oneshot::Sender<Turn>)> {
        for (_, row) in &mut self.waiting {
            row.retain(|sender| !sender.is_closed());
        }
        self.waiting.retain(|(_, row)| !row.is_empty());
        if self.all >= limit {
            return None;
        }
        let share = |reach: &Reach| if *reach == Reach::Everything { limit } else { limit - LEFT_TO_OTHERS };
        let may = |(reach, _): &(Reach, _)| self.of_tenant.get(reach).is_none_or(|own| *own < share(reach));
        let at = self.waiting.iter().position(may)?;
        let (reach, mut row) = self.waiting.remove(at)?;
        let next = row.pop_front()?;
        if !row.is_empty() {
            self.waiting.push_back((reach.clone(), row));
        }
        self.all += 1;
        *self.of_tenant.entry(reach.clone()).or_default() += 1;
        Some((reach, next))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut state = self.turns.lock();
        state.all -= 1;
        let left = state.of_tenant.get_mut(&self.reach).map(|own| {
            *own -= 1;
            *own
        });
        if left == Some(0) {
            state.of_tenant.remove(&self.reach);
        }
        drop(state);
        self.turns.give();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    #[tokio::test]
    async fn tenants_wait_by_turns() {
        let tenant = |name: &str| Reach::Tenant(Some(name.into()));
        let (a, b) = (tenant("a"), tenant("b"));
        let turns = Turns::new(3);
        let taken = turns.turn(&a).now_or_never().expect("the first of three places");
        // Two places are left to others; of those who wait, the one who has waited longest of each tenant.
        let mut many: Vec<_> = (0..20).map(|_| Box::pin(turns.turn(&a))).collect();
        assert!(many.iter_mut().all(|waiting| waiting.now_or_never().is_none()));
        let other = turns.turn(&b).now_or_never().expect("b waits behind nobody");
        let mut next = Box::pin(turns.turn(&b));
        assert!((&mut next).now_or_never().is_none());
        drop(many.remove(0)); // gives up
        drop(taken);
        assert!((&mut many[0]).now_or_never().is_some(), "the next of a");
        drop(other);
        assert!(next.now_or_never().is_some(), "b's second does not wait for all of a's");
        drop(many);
        let state = turns.lock();
        assert!(state.all == 0 && state.of_tenant.is_empty(), "{state:?}");
    }
}
