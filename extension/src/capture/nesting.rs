//! Statements within statements: an AFTER ROW trigger of the user's may change the rows of its own statement again.
//!
//! The inner statement's triggers fire before those of the outer one, so the inner change is recorded first, although it
//! came last. A BEFORE STATEMENT trigger says where a statement begins; what is captured between there and its end is
//! within it. The first such capture of the same entity keeps an instant for the outer statement, just below its own:
//! there the outer change of a row that was changed within is put.

use std::cell::RefCell;
use std::collections::HashSet;

use headwater_model::clock::Micros;
use pgrx::pg_sys::{self, Oid, SubTransactionId};

use crate::clock;

/// Entities that a statement remembers as changed within it. Beyond that it takes all for changed.
const MAX_CHANGED_WITHIN: usize = 100_000;

/// A statement on an enabled table that has begun and not yet ended.
struct Open {
    depth: i32,
    relid: Oid,
    entity_type: String,
    /// When its transaction began, and its subtransaction: an error ends a statement without a word.
    within: (i64, SubTransactionId),
    /// An INSERT … ON CONFLICT DO UPDATE and a MERGE begin and end once for each kind of change.
    begun: u32,
    earlier: Option<Earlier>,
}

/// What was changed within a statement, and the instant kept below those changes.
pub(super) struct Earlier {
    instant: Micros,
    changed: HashSet<Vec<u8>>,
}

impl Earlier {
    /// The instant for the outer change of this entity, if it was changed within.
    pub(super) fn of(&self, entity_id: &[u8]) -> Option<Micros> {
        let within = self.changed.len() >= MAX_CHANGED_WITHIN || self.changed.contains(entity_id);
        within.then_some(self.instant)
    }
}

thread_local! {
    /// Outer before inner.
    static OPEN: RefCell<Vec<Open>> = const { RefCell::new(Vec::new()) };
}

fn here() -> (i64, SubTransactionId) {
    // SAFETY: both read the state of the transaction.
    unsafe { (pg_sys::GetCurrentTransactionStartTimestamp(), pg_sys::GetCurrentSubTransactionId()) }
}

/// A statement begins: the BEFORE STATEMENT trigger.
pub(super) fn begin(depth: i32, relid: Oid, entity_type: &str) {
    let within = here();
    OPEN.with_borrow_mut(|open| {
        open.retain(|o| o.depth < depth || (o.depth == depth && o.within == within));
        if let Some(same) = open.iter_mut().find(|o| o.depth == depth && o.relid == relid) {
            same.begun += 1;
            return;
        }
        open.push(Open { depth, relid, entity_type: entity_type.to_owned(), within, begun: 1, earlier: None });
    });
}

/// A statement ends, or one kind of its changes: what was changed within.
pub(super) fn end(depth: i32, relid: Oid) -> Option<Earlier> {
    let within = here();
    OPEN.with_borrow_mut(|open| {
        let place = open.iter().position(|o| o.depth == depth && o.relid == relid && o.within == within)?;
        let statement = &mut open[place];
        statement.begun -= 1;
        if statement.begun == 0 {
            return open.remove(place).earlier;
        }
        statement.earlier.as_ref().map(|e| Earlier { instant: e.instant, changed: e.changed.clone() })
    })
}

/// Whether a statement on this table has begun whose end will capture it.
pub(super) fn is_open(depth: i32, relid: Oid) -> bool {
    let within = here();
    OPEN.with_borrow(|open| open.iter().any(|o| o.depth == depth && o.relid == relid && o.within == within))
}

/// Before a statement at this depth draws its instant: keeps one for each statement around it. Returns whether there
/// is one, which then wants to know what changes.
pub(super) fn keep_instants(depth: i32, entity_type: &str) -> bool {
    OPEN.with_borrow_mut(|open| {
        let mut within = false;
        for outer in around(open, depth, entity_type) {
            within = true;
            outer.earlier.get_or_insert_with(|| Earlier { instant: clock::now(), changed: HashSet::new() });
        }
        within
    })
}

/// This entity was changed at this depth.
pub(super) fn changed(depth: i32, entity_type: &str, entity_id: &[u8]) {
    OPEN.with_borrow_mut(|open| {
        for outer in around(open, depth, entity_type) {
            if let Some(earlier) = outer.earlier.as_mut().filter(|e| e.changed.len() < MAX_CHANGED_WITHIN) {
                earlier.changed.insert(entity_id.to_vec());
            }
        }
    });
}

fn around<'o>(open: &'o mut [Open], depth: i32, entity_type: &'o str) -> impl Iterator<Item = &'o mut Open> {
    open.iter_mut().filter(move |o| o.depth < depth && o.entity_type == entity_type)
}
