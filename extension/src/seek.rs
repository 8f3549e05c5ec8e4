//! An entity's events, found by the index `event_entity` without a statement: for very many entities one after the other.

use headwater_model::clock::Micros;
use pgrx::pg_sys::{self, Datum};
use pgrx::{FromDatum, IntoDatum};

use crate::head::Order;

/// The columns of `event_entity`, by their numbers in the table: `entity_id`, `entity_type`, `occurred_at`, `id`.
pub(crate) const BY_ENTITY: [i16; 4] = [5, 4, 9, 2];

/// Columns of `headwater.event`, by their places.
const ID: usize = 1;
const TENANT: usize = 2;
const OCCURRED_AT: usize = 8;
const APPLIES: usize = 13;
const COLUMNS: i32 = 14;

/// What is compared in the index: entity id, entity type and, where a scan begins at an instant, that.
const MOST_KEYS: usize = 3;

/// The events of entities of one type and tenant, as a snapshot shows them.
pub(crate) struct Seek<'a> {
    relation: pg_sys::Relation,
    index: pg_sys::Relation,
    snapshot: pg_sys::Snapshot,
    slot: *mut pg_sys::TupleTableSlot,
    entity_type: Datum,
    tenant: Option<&'a str>,
}

impl<'a> Seek<'a> {
    /// Opens table and index; an error leaves the rest to the transaction's abort. `None` where the index is not as we made it. What
    /// this transaction has done so far is seen, too.
    pub(crate) fn now(entity_type: &str, tenant: Option<&'a str>) -> Option<Self> {
        // SAFETY: a snapshot is taken within a transaction.
        Self::open(entity_type, tenant, || unsafe {
            pg_sys::CommandCounterIncrement();
            pg_sys::GetTransactionSnapshot()
        })
    }

    /// The same, as of this moment at every isolation level.
    pub(crate) fn latest(entity_type: &str, tenant: Option<&'a str>) -> Option<Self> {
        // SAFETY: as above.
        Self::open(entity_type, tenant, || unsafe { pg_sys::GetLatestSnapshot() })
    }

    fn open(entity_type: &str, tenant: Option<&'a str>, snapshot: impl FnOnce() -> pg_sys::Snapshot) -> Option<Self> {
        // SAFETY: a table of the extension and its index, open and locked until `close`.
        unsafe {
            let schema = pg_sys::get_namespace_oid(c"headwater".as_ptr(), false);
            let index = pg_sys::get_relname_relid(c"event_entity".as_ptr(), schema);
            if index == pg_sys::InvalidOid {
                return None;
            }
            let lock = pg_sys::AccessShareLock.cast_signed();
            let table = pg_sys::get_relname_relid(c"event".as_ptr(), schema);
            let relation = pg_sys::table_open(table, lock);
            let index = pg_sys::index_open(index, lock);
            let form = &*(*index).rd_index;
            let columns = form.indkey.values.as_slice(usize::try_from(form.indnatts).unwrap_or(0));
            let is_ours = form.indrelid == table
                && form.indisvalid
                && columns == BY_ENTITY
                && (*(*relation).rd_att).natts == COLUMNS
                && (*index).rd_indpred.is_null();
            if !is_ours {
                pg_sys::index_close(index, lock);
                pg_sys::table_close(relation, lock);
                return None;
            }
            Some(Self {
                relation,
                index,
                snapshot: pg_sys::RegisterSnapshot(snapshot()),
                slot: pg_sys::table_slot_create(relation, std::ptr::null_mut()),
                entity_type: entity_type.into_datum().expect("a text"),
                tenant,
            })
        }
    }

    /// The last applying event of each of these entities.
    pub(crate) fn last(&self, entity_ids: &[String]) -> Vec<Option<Order>> {
        let mut found = Vec::with_capacity(entity_ids.len());
        let mut scan = Scan::begin(self, 2);
        for entity_id in entity_ids {
            scan.find(entity_id, None);
            found.push(scan.next(pg_sys::ScanDirection::BackwardScanDirection).map(|(order, _)| order));
        }
        scan.end();
        found
    }

    /// The first of these entities, each with a place in its history, of which another transaction has written an applying event
    /// behind that place.
    pub(crate) fn overtaken(&self, places: &[(&str, Order)]) -> Option<String> {
        let mut scan = Scan::begin(self, 3);
        let mut overtaken = None;
        'places: for (entity_id, place) in places {
            scan.find(entity_id, Some(place.0));
            while let Some((order, writer)) = scan.next(pg_sys::ScanDirection::ForwardScanDirection) {
                // SAFETY: a transaction's number.
                if order > *place && !unsafe { pg_sys::TransactionIdIsCurrentTransactionId(writer) } {
                    overtaken = Some((*entity_id).to_owned());
                    break 'places;
                }
            }
        }
        scan.end();
        overtaken
    }

    pub(crate) fn close(self) {
        // SAFETY: what `open` opened, in reverse; the locks stay.
        unsafe {
            pg_sys::ExecDropSingleTupleTableSlot(self.slot);
            pg_sys::UnregisterSnapshot(self.snapshot);
            pg_sys::index_close(self.index, pg_sys::NoLock.cast_signed());
            pg_sys::table_close(self.relation, pg_sys::NoLock.cast_signed());
        }
    }
}

/// One entity after the other.
struct Scan<'s> {
    seek: &'s Seek<'s>,
    descriptor: pg_sys::IndexScanDesc,
    keys: [pg_sys::ScanKeyData; MOST_KEYS],
    count: usize,
}

impl<'s> Scan<'s> {
    fn begin(seek: &'s Seek<'_>, count: usize) -> Self {
        let strategies =
            [pg_sys::BTEqualStrategyNumber, pg_sys::BTEqualStrategyNumber, pg_sys::BTGreaterEqualStrategyNumber];
        let mut keys = [pg_sys::ScanKeyData::default(); MOST_KEYS];
        // SAFETY: relation, index and snapshot are there as long as they are used; a B-tree has these operators of its types.
        let scan = unsafe {
            for (i, (key, strategy)) in keys.iter_mut().zip(strategies).enumerate() {
                let strategy = u16::try_from(strategy).expect("a small number");
                let column_type = *(*seek.index).rd_opcintype.add(i);
                let family = *(*seek.index).rd_opfamily.add(i);
                let operator = pg_sys::get_opfamily_member(family, column_type, column_type, strategy.cast_signed());
                pg_sys::ScanKeyEntryInitialize(
                    key,
                    0,
                    i16::try_from(i + 1).expect("a small number"),
                    strategy,
                    column_type,
                    *(*seek.index).rd_indcollation.add(i),
                    pg_sys::get_opcode(operator),
                    seek.entity_type,
                );
            }
            let number = i32::try_from(count).expect("a few");
            #[cfg(not(feature = "pg18"))]
            let scan = pg_sys::index_beginscan(seek.relation, seek.index, seek.snapshot, number, 0);
            #[cfg(feature = "pg18")]
            let scan =
                pg_sys::index_beginscan(seek.relation, seek.index, seek.snapshot, std::ptr::null_mut(), number, 0);
            scan
        };
        Self { seek, descriptor: scan, keys, count }
    }

    /// From here on, the events of this entity; those from an instant on.
    fn find(&mut self, entity_id: &str, from: Option<Micros>) {
        self.keys[0].sk_argument = entity_id.into_datum().expect("a text");
        self.keys[2].sk_argument = Datum::from(from.map_or(0, Micros::to_postgres));
        let count = i32::try_from(self.count).expect("a few");
        // SAFETY: as many keys as the scan was begun with; their values live until the next ones.
        unsafe { pg_sys::index_rescan(self.descriptor, self.keys.as_mut_ptr(), count, std::ptr::null_mut(), 0) };
    }

    /// The next applying event of the tenant's, and which transaction wrote it.
    fn next(&mut self, direction: pg_sys::ScanDirection::Type) -> Option<(Order, pg_sys::TransactionId)> {
        let slot = self.seek.slot;
        // SAFETY: a slot of the table, whose columns are known.
        unsafe {
            while pg_sys::index_getnext_slot(self.descriptor, direction, slot) {
                pg_sys::slot_getsomeattrs(slot, COLUMNS);
                let columns = usize::try_from(COLUMNS).expect("a few");
                let values = std::slice::from_raw_parts((*slot).tts_values, columns);
                let nulls = std::slice::from_raw_parts((*slot).tts_isnull, columns);
                let applies = bool::from_datum(values[APPLIES], nulls[APPLIES]).unwrap_or(false);
                let tenant = <&str>::from_datum(values[TENANT], nulls[TENANT]);
                if !applies || tenant != self.seek.tenant {
                    continue;
                }
                let at = i64::from_datum(values[OCCURRED_AT], nulls[OCCURRED_AT]).map(Micros::from_postgres);
                let id = pgrx::Uuid::from_datum(values[ID], nulls[ID]);
                let order = at.zip(id).map(|(at, id)| (at, uuid::Uuid::from_bytes(*id.as_bytes())))?;
                let tuple = pg_sys::ExecFetchSlotHeapTuple(slot, false, std::ptr::null_mut());
                return Some((order, (*(*tuple).t_data).t_choice.t_heap.t_xmin));
            }
        }
        None
    }

    fn end(self) {
        // SAFETY: begun by us.
        unsafe {
            pg_sys::index_endscan(self.descriptor);
            pg_sys::ExecClearTuple(self.seek.slot);
        }
    }
}
