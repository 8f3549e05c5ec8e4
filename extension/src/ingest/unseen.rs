//! Rows that another transaction is just inserting: no query sees them, and they cannot be locked.
//!
//! An event for such an entity must not be judged against an absent row, for by the time that both have committed the
//! insert may stand before the event. So ingest looks into the key's index with a dirty snapshot, as a unique check
//! does, and waits for whoever it finds there. What is inserted after that look is stamped later than the event.

use std::rc::Rc;

use pgrx::pg_sys::{self, Oid};
use pgrx::prelude::*;
use pgrx::spi::SpiClient;

use super::row::{Keys, key_rows};
use crate::session::ActingAs;
use crate::spi::{for_each_row, read_once};
use crate::table::{self, Table};

/// Waits until nobody is inserting a row with one of these keys any more. Returns whether there may be a row with one of
/// them, whoever may see it.
pub(super) fn wait_for_inserts(table: &Table, keys: &Keys, role: Oid, claims: Option<&str>) -> bool {
    Spi::connect_mut(|client| {
        let indexes = key_indexes(client, table);
        // What a client sent is read under the rights with which it is applied.
        let _acting = ActingAs::role(role, claims);
        let statement = table.set_statement("typed keys", || format!("select k.* from {}", key_rows(table)));
        statement.run(client, &keys.arguments());
        let mut typed = Vec::new();
        // The rows stay where they are until the connection ends.
        for_each_row(client, |key, _| typed.push(key.to_vec()));
        // Each index is asked for every key, for it waits.
        indexes.each.iter().fold(!indexes.complete, |found, index| index.wait(&typed) || found)
    })
}

/// The unique indexes over a table's key.
pub(crate) struct KeyIndexes {
    each: Vec<KeyIndex>,
    /// Every partition has one.
    complete: bool,
}

/// A unique index over the key, of the table or of one of its partitions.
pub(crate) struct KeyIndex {
    table: Oid,
    index: Oid,
    /// The key columns' numbers in the table, in the key's order.
    columns: Vec<i16>,
}

fn key_indexes(client: &SpiClient<'_>, table: &Table) -> Rc<KeyIndexes> {
    Rc::clone(table.key_indexes.get_or_init(|| {
        let names: Vec<_> = table.key.iter().map(|column| column.name.clone()).collect();
        let get = "the catalog's columns are not null";
        let mut complete = true;
        let rows = read_once(
            client,
            "select leaf::oid, i.indexrelid, k.columns
             from headwater.leaves($1::oid::regclass) leaf
             left join pg_catalog.pg_index i on i.indrelid = leaf
               and i.indisunique and i.indisvalid and i.indpred is null and i.indexprs is null
               and i.indnkeyatts = pg_catalog.cardinality($2::text[])
               and pg_catalog.cardinality($2::text[]) = (
                 select pg_catalog.count(*) from pg_catalog.pg_attribute a
                 where a.attrelid = i.indrelid and a.attname = any ($2::text[])
                   and a.attnum = any ((i.indkey::int2[])[0:i.indnkeyatts - 1]))
             left join lateral (
               select pg_catalog.array_agg(a.attnum order by n.place) as columns
               from pg_catalog.unnest($2::text[]) with ordinality n (name, place)
               join pg_catalog.pg_attribute a on a.attrelid = i.indrelid and a.attname = n.name
             ) k on true",
            &[table.relid.into(), names.into()],
        );
        let each = rows.filter_map(|row| {
            let index = row.get(2).expect("an oid");
            complete &= index.is_some();
            let leaf = row.get(1).expect(get).expect(get);
            table::watch_leaf(leaf);
            Some(KeyIndex { table: leaf, index: index?, columns: row.get(3).expect(get).expect(get) })
        });
        let each = each.collect();
        Rc::new(KeyIndexes { each, complete })
    }))
}

impl KeyIndex {
    /// Waits until no other transaction is inserting a row with one of these keys, or deleting one. Returns whether
    /// there is a row with one of them.
    fn wait(&self, keys: &[Vec<pg_sys::Datum>]) -> bool {
        // SAFETY: relation and index stay open and locked as long as they are used.
        unsafe {
            let lock = pg_sys::RowExclusiveLock.cast_signed();
            let relation = pg_sys::table_open(self.table, lock);
            let index = pg_sys::index_open(self.index, lock);
            let mut any = false;
            for key in keys {
                let mut key = self.scan_keys(index, key);
                any |= loop {
                    match look(relation, index, &mut key) {
                        Found::Nothing => break false,
                        Found::Row => break true,
                        Found::Writer(transaction, 0) => pg_sys::XactLockTableWait(
                            transaction,
                            std::ptr::null_mut(),
                            std::ptr::null_mut(),
                            pg_sys::XLTW_Oper::XLTW_None,
                        ),
                        // An ON CONFLICT that may yet take its row back.
                        Found::Writer(transaction, token) => pg_sys::SpeculativeInsertionWait(transaction, token),
                    }
                };
            }
            // The locks are kept to the end of the transaction.
            pg_sys::index_close(index, pg_sys::NoLock.cast_signed());
            pg_sys::table_close(relation, pg_sys::NoLock.cast_signed());
            any
        }
    }

    /// `column = value` for each column of the index, in its order. Unique indexes are B-trees.
    unsafe fn scan_keys(&self, index: pg_sys::Relation, key: &[pg_sys::Datum]) -> Vec<pg_sys::ScanKeyData> {
        // SAFETY: the index is open; it has as many key columns as the key.
        unsafe {
            let numbers = (*(*index).rd_index).indkey.values.as_slice(self.columns.len());
            let equal = u16::try_from(pg_sys::BTEqualStrategyNumber).expect("a small number");
            (numbers.iter().enumerate())
                .map(|(i, number)| {
                    let place = self.columns.iter().position(|column| column == number).expect("a column of the key");
                    let value = key[place];
                    let column_type = *(*index).rd_opcintype.add(i);
                    let operator = pg_sys::get_opfamily_member(
                        *(*index).rd_opfamily.add(i),
                        column_type,
                        column_type,
                        equal.cast_signed(),
                    );
                    let mut scan_key = pg_sys::ScanKeyData::default();
                    pg_sys::ScanKeyEntryInitialize(
                        &raw mut scan_key,
                        0,
                        i16::try_from(i + 1).expect("a small number"),
                        equal,
                        column_type,
                        *(*index).rd_indcollation.add(i),
                        pg_sys::get_opcode(operator),
                        value,
                    );
                    scan_key
                })
                .collect()
        }
    }
}

/// What stands in an index under a key.
enum Found {
    Nothing,
    /// A row that nobody is writing.
    Row,
    /// Somebody is inserting or deleting a row: the transaction, and its token if the insert is speculative.
    Writer(pg_sys::TransactionId, u32),
}

unsafe fn look(relation: pg_sys::Relation, index: pg_sys::Relation, keys: &mut [pg_sys::ScanKeyData]) -> Found {
    // SAFETY: the scan ends before the function returns; the snapshot outlives it. A dirty snapshot tells, for each row
    // that it shows, who is about to insert or delete it (`HeapTupleSatisfiesDirty`).
    unsafe {
        let mut dirty = pg_sys::SnapshotData {
            snapshot_type: pg_sys::SnapshotType::SNAPSHOT_DIRTY,
            ..pg_sys::SnapshotData::default()
        };
        let count = i32::try_from(keys.len()).expect("a small number");
        #[cfg(not(feature = "pg18"))]
        let scan = pg_sys::index_beginscan(relation, index, &raw mut dirty, count, 0);
        #[cfg(feature = "pg18")]
        let scan = pg_sys::index_beginscan(relation, index, &raw mut dirty, std::ptr::null_mut(), count, 0);
        pg_sys::index_rescan(scan, keys.as_mut_ptr(), count, std::ptr::null_mut(), 0);
        let slot = pg_sys::table_slot_create(relation, std::ptr::null_mut());
        let mut found = Found::Nothing;
        while pg_sys::index_getnext_slot(scan, pg_sys::ScanDirection::ForwardScanDirection, slot) {
            if dirty.xmin != pg_sys::InvalidTransactionId {
                found = Found::Writer(dirty.xmin, dirty.speculativeToken);
                break;
            }
            if dirty.xmax != pg_sys::InvalidTransactionId {
                found = Found::Writer(dirty.xmax, 0);
                break;
            }
            found = Found::Row;
        }
        pg_sys::ExecDropSingleTupleTableSlot(slot);
        pg_sys::index_endscan(scan);
        found
    }
}
