//! Rows straight into the heap and the indexes of a table of ours, without a statement: what COPY does with its rows.
//!
//! Unique indexes are asked, as for any insert, and who meets a row that another transaction is inserting waits for it. Other
//! constraints and triggers are not: those who write here keep them. Logical decoding sees these inserts like any others.

use std::ffi::CStr;

use pgrx::PgSqlErrorCode;
use pgrx::pg_sys::{self, Datum};

use crate::raise::raise;

/// Rows written to the heap at once; as many as COPY takes.
pub(crate) const BATCH_ROWS: usize = 1000;

/// A table, open for writing.
pub(crate) struct Rows {
    relation: pg_sys::Relation,
    indexes: *mut pg_sys::ResultRelInfo,
    estate: *mut pg_sys::EState,
    command: pg_sys::CommandId,
    columns: usize,
    /// One for each row of a batch, made when first needed.
    slots: Vec<*mut pg_sys::TupleTableSlot>,
    waiting: usize,
    /// What the waiting rows' values are in.
    memory: pg_sys::MemoryContext,
}

impl Rows {
    /// Opens a table of the schema `headwater`. An error leaves the rest to the transaction's abort.
    pub(crate) fn open(name: &CStr, columns: usize) -> Self {
        // SAFETY: as in COPY: the relation, its lock and its indexes are released at `close`, or by an abort.
        unsafe {
            let schema = pg_sys::get_namespace_oid(c"headwater".as_ptr(), false);
            let table = pg_sys::get_relname_relid(name.as_ptr(), schema);
            let relation = pg_sys::table_open(table, pg_sys::RowExclusiveLock.cast_signed());
            if usize::try_from((*(*relation).rd_att).natts) != Ok(columns) {
                raise(
                    PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                    format!(
                        "headwater.{} is not the table that this version of the extension writes",
                        name.to_string_lossy()
                    ),
                    "alter extension headwater update;",
                );
            }
            let estate = pg_sys::CreateExecutorState();
            let indexes = pg_sys::palloc0(size_of::<pg_sys::ResultRelInfo>()).cast::<pg_sys::ResultRelInfo>();
            (*indexes).type_ = pg_sys::NodeTag::T_ResultRelInfo;
            pg_sys::InitResultRelInfo(indexes, relation, 1, std::ptr::null_mut(), 0);
            pg_sys::ExecOpenIndices(indexes, false);
            let memory = pg_sys::AllocSetContextCreateExtended(
                pg_sys::CurrentMemoryContext,
                c"headwater rows".as_ptr(),
                pg_sys::ALLOCSET_DEFAULT_MINSIZE as usize,
                pg_sys::ALLOCSET_DEFAULT_INITSIZE as usize,
                pg_sys::ALLOCSET_DEFAULT_MAXSIZE as usize,
            );
            let command = pg_sys::GetCurrentCommandId(true);
            Self { relation, indexes, estate, command, columns, slots: Vec::new(), waiting: 0, memory }
        }
    }

    pub(crate) fn relation(&self) -> pg_sys::Relation {
        self.relation
    }

    /// The indexes that each row gets an entry in.
    pub(crate) fn indexes(&self) -> &pg_sys::ResultRelInfo {
        // SAFETY: ours alone, until `close`.
        unsafe { &*self.indexes }
    }

    /// The same, to be changed.
    pub(crate) fn indexes_mut(&mut self) -> &mut pg_sys::ResultRelInfo {
        // SAFETY: as above.
        unsafe { &mut *self.indexes }
    }

    /// Reset whenever nothing waits.
    pub(crate) fn memory(&self) -> pg_sys::MemoryContext {
        self.memory
    }

    /// How many rows wait to be written, at most [`BATCH_ROWS`].
    pub(crate) fn waiting(&self) -> usize {
        self.waiting
    }

    /// Adds a row: `fill` gets a place for each column, none of them null.
    pub(crate) fn put(&mut self, fill: impl FnOnce(&mut [Datum], &mut [bool])) {
        if self.slots.len() == self.waiting {
            // SAFETY: the open relation.
            self.slots.push(unsafe { pg_sys::table_slot_create(self.relation, std::ptr::null_mut()) });
        }
        // SAFETY: a slot of the table has as many places as it has columns.
        unsafe {
            let outer = pg_sys::MemoryContextSwitchTo(self.memory);
            let slot = self.slots[self.waiting];
            let values = std::slice::from_raw_parts_mut((*slot).tts_values, self.columns);
            let nulls = std::slice::from_raw_parts_mut((*slot).tts_isnull, self.columns);
            nulls.fill(false);
            fill(values, nulls);
            pg_sys::ExecStoreVirtualTuple(slot);
            pg_sys::MemoryContextSwitchTo(outer);
        }
        self.waiting += 1;
    }

    /// Writes what waits; `written` gets the place of each row, in order.
    pub(crate) fn flush(&mut self, mut written: impl FnMut(pg_sys::ItemPointerData)) {
        let waiting = &mut self.slots[..self.waiting];
        if waiting.is_empty() {
            return;
        }
        // SAFETY: the slots hold tuples of this relation; the access method's functions raise Postgres' errors, hence
        // the guard. Index entries are made as for any insert.
        unsafe {
            let access = &*(*self.relation).rd_tableam;
            let no_state = std::ptr::null_mut();
            let (relation, command) = (self.relation, self.command);
            if let [slot] = waiting {
                let insert = access.tuple_insert.expect("every access method inserts");
                pg_sys::ffi::pg_guard_ffi_boundary(|| insert(relation, *slot, command, 0, no_state));
            } else {
                let insert = access.multi_insert.expect("every access method inserts");
                let (slots, count) = (waiting.as_mut_ptr(), waiting.len().cast_signed());
                let count = i32::try_from(count).expect("at most BATCH_ROWS");
                pg_sys::ffi::pg_guard_ffi_boundary(|| insert(relation, slots, count, command, 0, no_state));
            }
            for slot in waiting {
                pg_sys::ExecInsertIndexTuples(
                    self.indexes,
                    *slot,
                    self.estate,
                    false,
                    false,
                    std::ptr::null_mut(),
                    std::ptr::null_mut(),
                    #[cfg(not(feature = "pg15"))]
                    false,
                );
                written((**slot).tts_tid);
                pg_sys::ExecClearTuple(*slot);
            }
            pg_sys::MemoryContextReset(self.memory);
            let expressions = (*self.estate).es_per_tuple_exprcontext;
            if !expressions.is_null() {
                pg_sys::MemoryContextReset((*expressions).ecxt_per_tuple_memory);
            }
        }
        self.waiting = 0;
    }

    /// Closes the table, with nothing waiting.
    pub(crate) fn close(self) {
        // SAFETY: what `open` opened, in reverse; the lock stays.
        unsafe {
            for slot in &self.slots {
                pg_sys::ExecDropSingleTupleTableSlot(*slot);
            }
            pg_sys::ExecCloseIndices(self.indexes);
            pg_sys::FreeExecutorState(self.estate);
            pg_sys::MemoryContextDelete(self.memory);
            pg_sys::table_close(self.relation, pg_sys::NoLock.cast_signed());
        }
    }
}

/// A text that may be null.
pub(crate) fn optional(text: Option<&[u8]>, is_null: &mut bool) -> Datum {
    *is_null = text.is_none();
    text.map_or(Datum::from(0), varlena)
}

/// A text (or any varlena) of these bytes, in the current memory context.
pub(crate) fn varlena(bytes: &[u8]) -> Datum {
    let length = bytes.len() + pg_sys::VARHDRSZ;
    // SAFETY: as many bytes as are asked for.
    unsafe {
        let varlena = pg_sys::palloc(length).cast::<u8>();
        pgrx::set_varsize_4b(varlena.cast(), i32::try_from(length).expect("below 1 GB"));
        std::ptr::copy_nonoverlapping(bytes.as_ptr(), varlena.add(pg_sys::VARHDRSZ), bytes.len());
        Datum::from(varlena)
    }
}

/// These bytes, in the current memory context.
pub(crate) fn copied(bytes: &[u8]) -> Datum {
    // SAFETY: as above.
    unsafe {
        let copy = pg_sys::palloc(bytes.len()).cast::<u8>();
        std::ptr::copy_nonoverlapping(bytes.as_ptr(), copy, bytes.len());
        Datum::from(copy)
    }
}
