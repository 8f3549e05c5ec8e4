//! Statements within statements: a trigger of the user's may change the rows of its own statement again, and so may a
//! function in SET, WHERE or a default.
//!
//! The inner statement's triggers fire before those of the outer one, so the inner change is recorded first. Mostly it came
//! last: an AFTER ROW trigger made it. A BEFORE ROW trigger's came first. A BEFORE STATEMENT trigger of ours says where a
//! statement begins; what is captured between there and its end is within it, and keeps fingerprints of each row before and
//! after. From those the outer change of the same row knows whether it came before (then it takes an instant that was kept
//! just below the inner change), or behind. Where they do not tell, the row itself is looked at ([`Verdict::Look`]).

use std::cell::RefCell;
use std::collections::HashMap;

use headwater_model::clock::Micros;
use pgrx::pg_sys::{self, Oid, SubTransactionId};

use crate::clock;

/// Entities that a statement remembers as changed within it. Beyond that it takes all for changed.
const MAX_CHANGED_WITHIN: usize = 100_000;

/// What a row was, or became: a hash of its state; `None` where there was none.
pub(super) type Fingerprint = Option<u64>;

/// A statement on an enabled table that has begun and not yet ended.
struct Open {
    depth: i32,
    relid: Oid,
    entity_type: String,
    /// When its transaction began, and its subtransaction: an error ends a statement without a word.
    within: (i64, SubTransactionId),
    /// An INSERT … ON CONFLICT DO UPDATE and a MERGE begin and end once for each kind of change; a function that the
    /// statement calls may begin one of its own, at the same depth.
    begun: u32,
    earlier: Earlier,
    /// A foreign key's action. Where it began one trigger more was running than where it ends.
    cascade: bool,
}

/// What was changed within a statement, and the instant kept below those changes.
#[derive(Clone, Default)]
pub(super) struct Earlier {
    instant: Option<Micros>,
    changed: HashMap<Vec<u8>, Change>,
}

/// What happened to a row within a statement.
#[derive(Clone, Copy)]
enum Change {
    /// By a statement that is deeper: what it found and what it left.
    Within(Fingerprint, Fingerprint),
    /// By one at the same depth.
    Beside,
}

/// Where the outer change of a row belongs that was changed within too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Behind what was recorded.
    Now,
    /// Before it.
    At(Micros),
    /// It does not show: once recorded there, the row is to be looked at.
    Look(Option<Micros>),
}

impl Earlier {
    /// Nothing was changed within.
    pub(super) fn is_empty(&self) -> bool {
        self.changed.is_empty()
    }

    /// Where a change of this entity belongs, by what it found and what it left.
    pub(super) fn judge(&self, entity_id: &[u8], fingerprints: impl FnOnce() -> (Fingerprint, Fingerprint)) -> Verdict {
        let look = |change: &Change| match (*change, self.instant) {
            (Change::Within(found, left), Some(instant)) => {
                let (outer_found, outer_left) = fingerprints();
                match (outer_left == found, outer_found == left) {
                    (true, false) => Verdict::At(instant),
                    (false, true) => Verdict::Now,
                    _ => Verdict::Look(Some(instant)),
                }
            }
            _ => Verdict::Look(None),
        };
        match self.changed.get(entity_id) {
            Some(change) => look(change),
            None if self.changed.len() >= MAX_CHANGED_WITHIN => self.instant.map_or(Verdict::Now, Verdict::At),
            None => Verdict::Now,
        }
    }

    fn note(&mut self, entity_id: &[u8], found: Fingerprint, left: Fingerprint) {
        if let Some(change) = self.changed.get_mut(entity_id) {
            *change = match *change {
                Change::Within(first, _) => Change::Within(first, left),
                Change::Beside => Change::Beside,
            };
        } else if self.changed.len() < MAX_CHANGED_WITHIN {
            self.changed.insert(entity_id.to_vec(), Change::Within(found, left));
        }
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
///
/// What a foreign key's action changes is queued with the statement that set it off, so its end comes at that one's depth.
/// Such a statement runs with `SECURITY_NOFORCE_RLS` (`ri_PerformCheck`), and what triggers run within it does too, deeper.
pub(super) fn begin(depth: i32, relid: Oid, entity_type: &str) {
    let within = here();
    OPEN.with_borrow_mut(|open| {
        // SAFETY: reads a variable of the backend.
        let by_key = unsafe { pg_sys::InNoForceRLSOperation() };
        let cascade = by_key && !open.iter().any(|o| o.cascade && o.within == within && o.depth + 1 < depth);
        let depth = if cascade { depth - 1 } else { depth };
        open.retain(|o| o.depth < depth || (o.depth == depth && o.within == within));
        if let Some(same) = open.iter_mut().find(|o| o.depth == depth && o.relid == relid) {
            same.begun += 1;
            return;
        }
        let (entity_type, earlier) = (entity_type.to_owned(), Earlier::default());
        open.push(Open { depth, relid, entity_type, within, begun: 1, earlier, cascade });
    });
}

/// The end of a statement, or of one kind of its changes.
#[derive(Default)]
pub(super) struct Ended {
    /// What was changed within.
    pub(super) earlier: Earlier,
    /// Another is to come at this depth, perhaps of the same rows.
    pub(super) another_follows: bool,
}

/// A statement ends, or one kind of its changes.
pub(super) fn end(depth: i32, relid: Oid) -> Ended {
    let within = here();
    OPEN.with_borrow_mut(|open| {
        let here = open.iter().position(|o| o.depth == depth && o.relid == relid && o.within == within);
        let Some(place) = here else { return Ended::default() };
        let statement = &mut open[place];
        statement.begun -= 1;
        if statement.begun == 0 {
            return Ended { earlier: open.remove(place).earlier, another_follows: false };
        }
        Ended { earlier: statement.earlier.clone(), another_follows: true }
    })
}

/// Whether a statement on this entity's table has begun whose end will capture it: on the table that it named, whichever
/// partition holds the row.
pub(super) fn is_open(depth: i32, entity_type: &str) -> bool {
    let within = here();
    OPEN.with_borrow(|open| open.iter().any(|o| o.depth == depth && o.entity_type == entity_type && o.within == within))
}

/// Before a statement at this depth draws its instant: keeps one for each statement around it. Returns whether there
/// is one, which then wants to know what changes.
pub(super) fn keep_instants(depth: i32, entity_type: &str) -> bool {
    OPEN.with_borrow_mut(|open| {
        let mut within = false;
        for outer in around(open, depth, entity_type) {
            within = true;
            outer.earlier.instant.get_or_insert_with(clock::now);
        }
        within
    })
}

/// This entity was changed at this depth.
pub(super) fn changed(depth: i32, entity_type: &str, entity_id: &[u8], found: Fingerprint, left: Fingerprint) {
    OPEN.with_borrow_mut(|open| {
        for outer in around(open, depth, entity_type) {
            outer.earlier.note(entity_id, found, left);
        }
    });
}

/// This entity was changed, and another statement at this depth follows.
pub(super) fn changed_beside(depth: i32, relid: Oid, entity_id: &[u8]) {
    OPEN.with_borrow_mut(|open| {
        let beside = open.iter_mut().find(|o| o.depth == depth && o.relid == relid);
        if let Some(other) = beside.filter(|other| other.earlier.changed.len() < MAX_CHANGED_WITHIN) {
            other.earlier.changed.insert(entity_id.to_vec(), Change::Beside);
        }
    });
}

fn around<'o>(open: &'o mut [Open], depth: i32, entity_type: &'o str) -> impl Iterator<Item = &'o mut Open> {
    open.iter_mut().filter(move |o| o.depth < depth && o.entity_type == entity_type)
}
