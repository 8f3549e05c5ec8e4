//! The rows that a trigger is shown: transition tables, and a table about to be truncated.

use pgrx::pg_sys::{self, Datum, Oid};

use crate::render::Row;

/// A transition table, read from its first row to its last.
pub(super) struct TransitionTable {
    store: *mut pg_sys::Tuplestorestate,
    pointer: i32,
    slot: *mut pg_sys::TupleTableSlot,
}

impl TransitionTable {
    /// # Safety
    /// The transition table of a trigger on a table with this description.
    pub(super) unsafe fn new(store: *mut pg_sys::Tuplestorestate, description: pg_sys::TupleDesc) -> Self {
        // SAFETY: the caller's promise. A read pointer of our own: SQL over the same transition table has its own.
        unsafe {
            let pointer = pg_sys::tuplestore_alloc_read_pointer(store, pg_sys::EXEC_FLAG_REWIND.cast_signed());
            let slot = pg_sys::MakeSingleTupleTableSlot(description, &raw const pg_sys::TTSOpsMinimalTuple);
            let table = Self { store, pointer, slot };
            table.rewind();
            table
        }
    }

    /// How many rows there are.
    pub(super) fn len(&self) -> i64 {
        // SAFETY: the store lives as long as the trigger runs.
        unsafe { pg_sys::tuplestore_tuple_count(self.store) }
    }

    /// To the first row again.
    pub(super) fn rewind(&self) {
        // SAFETY: as above.
        unsafe {
            pg_sys::tuplestore_select_read_pointer(self.store, self.pointer);
            pg_sys::tuplestore_rescan(self.store);
        }
    }

    /// The next row. It is there until the one after it is asked for.
    pub(super) fn next(&mut self) -> Option<Row<'_>> {
        // SAFETY: the slot has the store's description; taken apart, it has a value and a flag for each attribute.
        unsafe {
            pg_sys::tuplestore_select_read_pointer(self.store, self.pointer);
            if !pg_sys::tuplestore_gettupleslot(self.store, true, false, self.slot) {
                return None;
            }
            Some(row_of(self.slot))
        }
    }

    pub(super) fn close(self) {
        // SAFETY: made in `new`.
        unsafe { pg_sys::ExecDropSingleTupleTableSlot(self.slot) };
    }
}

/// The row in a slot.
///
/// # Safety
/// A slot that holds a tuple.
unsafe fn row_of<'a>(slot: *mut pg_sys::TupleTableSlot) -> Row<'a> {
    // SAFETY: the caller's promise.
    unsafe {
        let attributes = (*(*slot).tts_tupleDescriptor).natts;
        pg_sys::slot_getsomeattrs(slot, attributes);
        let attributes = usize::try_from(attributes).expect("a count");
        Row::new(
            std::slice::from_raw_parts((*slot).tts_values, attributes),
            std::slice::from_raw_parts((*slot).tts_isnull, attributes),
        )
    }
}

/// A tuple taken apart.
pub(super) struct Tuple {
    values: Vec<Datum>,
    nulls: Vec<bool>,
}

impl Tuple {
    /// # Safety
    /// A tuple of this description; its values stay in it.
    pub(super) unsafe fn of(tuple: pg_sys::HeapTuple, description: pg_sys::TupleDesc) -> Self {
        // SAFETY: the caller's promise.
        unsafe {
            let attributes = usize::try_from((*description).natts).expect("a count");
            let mut values = vec![Datum::from(0); attributes];
            let mut nulls = vec![true; attributes];
            pg_sys::heap_deform_tuple(tuple, description, values.as_mut_ptr(), nulls.as_mut_ptr());
            Self { values, nulls }
        }
    }

    pub(super) fn row(&self) -> Row<'_> {
        // SAFETY: the promise of `of`.
        unsafe { Row::new(&self.values, &self.nulls) }
    }
}

/// Every row of a table, partitions not included, as committed by now and as this transaction left it: also where the
/// transaction's own snapshot is older.
///
/// # Safety
/// An open relation, locked against writers.
pub(super) unsafe fn for_each(relation: pg_sys::Relation, mut each: impl FnMut(&Row<'_>)) {
    // SAFETY: the caller's promise; an error leaves the scan to the transaction's abort.
    unsafe {
        if (*(*relation).rd_rel).relkind == pg_sys::RELKIND_PARTITIONED_TABLE.cast_signed() {
            return;
        }
        let snapshot = pg_sys::RegisterSnapshot(pg_sys::GetLatestSnapshot());
        let scan = pg_sys::systable_beginscan(relation, Oid::INVALID, false, snapshot, 0, std::ptr::null_mut());
        loop {
            let tuple = pg_sys::systable_getnext(scan);
            if tuple.is_null() {
                break;
            }
            each(&Tuple::of(tuple, (*relation).rd_att).row());
        }
        pg_sys::systable_endscan(scan);
        pg_sys::UnregisterSnapshot(snapshot);
    }
}
