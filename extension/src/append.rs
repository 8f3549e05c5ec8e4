//! Events straight into `headwater.event` ([`crate::heap`]). Its constraints are kept by the types here; its triggers refuse
//! changes, none fires on insert.
//!
//! The lock on the table is taken before the first position is drawn, and held to the end of the transaction: the
//! watermark (`/events/since`) rests on that.

use headwater_model::clock::Micros;
use pgrx::pg_sys::{self, Datum, Oid};

use crate::heap::{BATCH_ROWS, Rows, copied, optional, varlena};
use crate::seek::BY_ENTITY;

/// Payload bytes held for one write to the heap. A larger event is written alone.
const BATCH_BYTES: usize = 64 * 1024;
/// Columns of `headwater.event`.
const COLUMNS: usize = 14;

/// An event as the table keeps it. Texts in the database's encoding.
pub(crate) struct NewEvent<'a> {
    pub(crate) id: uuid::Uuid,
    pub(crate) tenant: Option<&'a [u8]>,
    pub(crate) entity_type: &'a [u8],
    pub(crate) entity_id: &'a [u8],
    pub(crate) event_type: &'a [u8],
    /// A jsonb, header included.
    pub(crate) payload: &'a [u8],
    pub(crate) schema_version: i32,
    pub(crate) occurred_at: Micros,
    pub(crate) recorded_at: Micros,
    pub(crate) user: Option<&'a [u8]>,
    pub(crate) client: Option<&'a [u8]>,
    /// `client`, `sql` or `capture`.
    pub(crate) source: &'static str,
    pub(crate) applies: bool,
}

/// The event table, open for writing.
pub(crate) struct Appender {
    rows: Rows,
    sequence: Oid,
    by_entity: Option<ByEntity>,
    waiting_bytes: usize,
    appended: i64,
}

// Of the backend (`src/include/commands/sequence.h`); pgrx does not declare it.
unsafe extern "C-unwind" {
    fn nextval_internal(relid: Oid, check_permissions: bool) -> i64;
}

impl Appender {
    /// Opens the table. An error leaves the rest to the transaction's abort.
    pub(crate) fn open() -> Self {
        let mut rows = Rows::open(c"event", COLUMNS);
        // SAFETY: catalog look-ups by names that outlive the calls; the indexes of the open table.
        let (sequence, by_entity) = unsafe {
            let schema = pg_sys::get_namespace_oid(c"headwater".as_ptr(), false);
            let sequence = pg_sys::get_relname_relid(c"event_position_seq".as_ptr(), schema);
            (sequence, ByEntity::take_from(rows.indexes_mut()))
        };
        Self { rows, sequence, by_entity, waiting_bytes: 0, appended: 0 }
    }

    /// Whether somebody has given the table an index over expressions, or for some rows only.
    pub(crate) fn calls_functions(&self) -> bool {
        let indexes = self.rows.indexes();
        // SAFETY: as many infos as there are indexes; the one taken out is over columns.
        let infos = unsafe {
            let count = usize::try_from(indexes.ri_NumIndices).unwrap_or(0);
            if count == 0 {
                return false;
            }
            std::slice::from_raw_parts(indexes.ri_IndexRelationInfo, count)
        };
        // SAFETY: as above.
        infos.iter().any(|info| unsafe { !(**info).ii_Expressions.is_null() || !(**info).ii_Predicate.is_null() })
    }

    /// Adds an event; returns its position.
    pub(crate) fn append(&mut self, event: &NewEvent<'_>) -> i64 {
        let bytes = event.payload.len() + event.entity_id.len();
        let waiting = self.rows.waiting();
        if waiting == BATCH_ROWS || (waiting > 0 && self.waiting_bytes + bytes > BATCH_BYTES) {
            self.flush();
        }
        // SAFETY: the sequence is there as long as the extension's functions run.
        let position = unsafe { pg_sys::ffi::pg_guard_ffi_boundary(|| nextval_internal(self.sequence, false)) };
        self.rows.put(|values, nulls| {
            values[0] = Datum::from(position);
            values[1] = copied(event.id.as_bytes());
            values[2] = optional(event.tenant, &mut nulls[2]);
            values[3] = varlena(event.entity_type);
            values[4] = varlena(event.entity_id);
            values[5] = varlena(event.event_type);
            values[6] = copied(event.payload);
            values[7] = Datum::from(event.schema_version);
            values[8] = Datum::from(event.occurred_at.to_postgres());
            values[9] = Datum::from(event.recorded_at.to_postgres());
            values[10] = optional(event.user, &mut nulls[10]);
            values[11] = optional(event.client, &mut nulls[11]);
            values[12] = varlena(event.source.as_bytes());
            values[13] = Datum::from(event.applies);
        });
        if let Some(by_entity) = &mut self.by_entity {
            by_entity.note(event);
        }
        self.waiting_bytes += bytes;
        self.appended += 1;
        position
    }

    /// Writes what waits. Returns how many events were added in all.
    pub(crate) fn close(mut self) -> i64 {
        self.flush();
        self.enter_by_entity();
        if self.by_entity.take().is_some() {
            self.rows.indexes_mut().ri_NumIndices += 1;
        }
        self.rows.close();
        self.appended
    }

    fn flush(&mut self) {
        let by_entity = &mut self.by_entity;
        self.rows.flush(|place| {
            if let Some(by_entity) = by_entity {
                by_entity.written(place);
            }
        });
        self.waiting_bytes = 0;
        if self.by_entity.as_ref().is_some_and(|by_entity| by_entity.entries.len() >= SORTED_ENTRIES) {
            self.enter_by_entity();
        }
    }

    fn enter_by_entity(&mut self) {
        if let Some(by_entity) = &mut self.by_entity {
            by_entity.enter(&self.rows);
        }
    }
}

/// Entries of `event_entity` held back to be sorted; some 100 bytes each.
const SORTED_ENTRIES: usize = 200_000;
/// After how many entries what an index leaves behind is freed.
const ENTRIES_BETWEEN_RESETS: usize = 256;

/// The index `event_entity`, whose entries are made at the end, in the order of their keys: of many rows with random
/// keys, each would otherwise seek its page anew. That was more than half of the cost of capture.
struct ByEntity {
    index: pg_sys::Relation,
    info: *mut pg_sys::IndexInfo,
    entries: Vec<Entry>,
    /// The entity ids of the entries, one behind the other.
    ids: Vec<u8>,
    /// How many entries have their place in the table.
    placed: usize,
}

struct Entry {
    /// The first bytes of the entity id: they decide most comparisons.
    prefix: u64,
    entity_id: std::ops::Range<usize>,
    entity_type: Datum,
    occurred_at: i64,
    id: [u8; 16],
    place: pg_sys::ItemPointerData,
}

impl ByEntity {
    /// Takes the index out of those that are kept with each row. `None` where it is not as we made it: then it is kept
    /// like any other.
    unsafe fn take_from(all: &mut pg_sys::ResultRelInfo) -> Option<Self> {
        // SAFETY: both arrays have as many places as there are indexes.
        unsafe {
            let count = usize::try_from(all.ri_NumIndices).ok().filter(|count| *count > 0)?;
            let indexes = std::slice::from_raw_parts_mut(all.ri_IndexRelationDescs, count);
            let infos = std::slice::from_raw_parts_mut(all.ri_IndexRelationInfo, count);
            let place = infos.iter().position(|info| {
                let info = &**info;
                info.ii_NumIndexAttrs == 4
                    && info.ii_IndexAttrNumbers[..4] == BY_ENTITY
                    && !info.ii_Unique
                    && info.ii_ReadyForInserts
                    && info.ii_Predicate.is_null()
                    && info.ii_ExclusionOps.is_null()
            })?;
            indexes.swap(place, count - 1);
            infos.swap(place, count - 1);
            all.ri_NumIndices -= 1;
            Some(Self {
                index: indexes[count - 1],
                info: infos[count - 1],
                entries: Vec::new(),
                ids: Vec::new(),
                placed: 0,
            })
        }
    }

    /// An event waits to be written.
    fn note(&mut self, event: &NewEvent<'_>) {
        let start = self.ids.len();
        self.ids.extend_from_slice(event.entity_id);
        let mut prefix = [0; 8];
        let length = event.entity_id.len().min(8);
        prefix[..length].copy_from_slice(&event.entity_id[..length]);
        // All events of a statement are of one type, mostly: its text is made once.
        let entity_type = match self.entries.last() {
            Some(last) if same_text(last.entity_type, event.entity_type) => last.entity_type,
            _ => varlena(event.entity_type),
        };
        self.entries.push(Entry {
            prefix: u64::from_be_bytes(prefix),
            entity_id: start..self.ids.len(),
            entity_type,
            occurred_at: event.occurred_at.to_postgres(),
            id: *event.id.as_bytes(),
            place: pg_sys::ItemPointerData::default(),
        });
    }

    /// The first of those that wait has its place.
    fn written(&mut self, place: pg_sys::ItemPointerData) {
        self.entries[self.placed].place = place;
        self.placed += 1;
    }

    /// Makes the entries.
    fn enter(&mut self, rows: &Rows) {
        let (relation, memory) = (rows.relation(), rows.memory());
        let ids = &self.ids;
        self.entries.sort_unstable_by(|a, b| {
            a.prefix
                .cmp(&b.prefix)
                .then_with(|| ids[a.entity_id.clone()].cmp(&ids[b.entity_id.clone()]))
                .then_with(|| (a.occurred_at, a.id).cmp(&(b.occurred_at, b.id)))
        });
        // SAFETY: values of the index's columns, in their order; the events stand at these places.
        unsafe {
            let outer = pg_sys::MemoryContextSwitchTo(memory);
            for (i, entry) in self.entries.iter_mut().enumerate() {
                let mut values = [
                    varlena(&ids[entry.entity_id.clone()]),
                    entry.entity_type,
                    Datum::from(entry.occurred_at),
                    Datum::from(entry.id.as_ptr()),
                ];
                let mut nulls = [false; 4];
                pg_sys::index_insert(
                    self.index,
                    values.as_mut_ptr(),
                    nulls.as_mut_ptr(),
                    &raw mut entry.place,
                    relation,
                    pg_sys::IndexUniqueCheck::UNIQUE_CHECK_NO,
                    false,
                    self.info,
                );
                if i % ENTRIES_BETWEEN_RESETS == ENTRIES_BETWEEN_RESETS - 1 {
                    pg_sys::MemoryContextReset(memory);
                }
            }
            pg_sys::MemoryContextSwitchTo(outer);
            pg_sys::MemoryContextReset(memory);
        }
        self.entries.clear();
        self.ids.clear();
        self.placed = 0;
    }
}

fn same_text(text: Datum, bytes: &[u8]) -> bool {
    // SAFETY: a text that `varlena` made.
    unsafe {
        let text = text.cast_mut_ptr::<pg_sys::varlena>();
        std::slice::from_raw_parts(pgrx::vardata_any(text).cast::<u8>(), pgrx::varsize_any_exhdr(text)) == bytes
    }
}
