//! The mark by which capture knows ingest's own write of a row.
//!
//! It lives in the backend's memory and names one statement: this relation, these keys, this operation, at this depth of
//! triggers. A trigger of the user's that writes the same row again does so one level deeper and is captured.

use std::cell::RefCell;
use std::collections::HashSet;

use pgrx::pg_sys::{self, Oid};

/// What is done to the row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Insert,
    Update,
    Delete,
}

/// Entity ids.
pub(crate) type Entities = HashSet<Vec<u8>>;

struct OwnWrite {
    relid: Oid,
    operation: Operation,
    entities: Entities,
    trigger_depth: i32,
}

thread_local! {
    static CURRENT: RefCell<Option<OwnWrite>> = const { RefCell::new(None) };
}

/// Marks the write that `work` does; the mark is gone afterwards, however `work` ends.
pub(crate) fn marked<T>(relid: Oid, operation: Operation, entities: Entities, work: impl FnOnce() -> T) -> T {
    struct Unmark(Option<OwnWrite>);
    impl Drop for Unmark {
        fn drop(&mut self) {
            CURRENT.set(self.0.take());
        }
    }
    let mark = OwnWrite { relid, operation, entities, trigger_depth: trigger_depth() + 1 };
    // A trigger of the user's may call emit with `apply`: the outer mark comes back afterwards.
    let _unmark = Unmark(CURRENT.replace(Some(mark)));
    work()
}

/// The entities whose changes in this firing are ingest's own; the mark is used up.
pub(crate) fn take(relid: Oid, operation: Operation) -> Option<Entities> {
    let depth = trigger_depth();
    CURRENT.with_borrow_mut(|current| {
        let own = current
            .as_ref()
            .is_some_and(|mark| mark.relid == relid && mark.operation == operation && mark.trigger_depth == depth);
        if own { current.take().map(|mark| mark.entities) } else { None }
    })
}

/// How many triggers are running, this one included.
pub(super) fn trigger_depth() -> i32 {
    // SAFETY: the function reads no arguments.
    let depth = unsafe { pgrx::direct_function_call::<i32>(pg_sys::pg_trigger_depth, &[]) };
    depth.expect("pg_trigger_depth returns a number")
}
