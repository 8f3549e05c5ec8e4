//! Rows that another transaction is just inserting: no query sees them, and they cannot be locked.
//!
//! An event for such an entity must not be judged against an absent row, for by the time that both have committed the
//! insert may stand before the event. So ingest looks into the key's index with a dirty snapshot, as a unique check
//! does, and waits for whoever it finds there. What is inserted after that look is stamped later than the event.
//!
//! On Postgres 16 and later `RelationFindReplTupleByIndex` compares whole rows unless the index is the primary key's:
//! there, inserts of entities with another key are not waited for yet.

use std::rc::Rc;

use pgrx::pg_sys::{self, Oid};
use pgrx::prelude::*;
use pgrx::spi::SpiClient;

use super::row::{Keys, key_rows};
use crate::session::ActingAs;
use crate::spi::read_once;
use crate::table::Table;

/// Waits until nobody is inserting a row with one of these keys any more.
pub(super) fn wait_for_inserts(table: &Table, keys: &Keys, role: Oid, claims: Option<&str>) {
    Spi::connect_mut(|client| {
        let indexes = key_indexes(client, table);
        let columns = table.key.len();
        // What a client sent is read under the rights with which it is applied.
        let _acting = ActingAs::role(role, claims);
        let statement = table.statement("typed keys", || format!("select k.* from {}", key_rows(table)));
        let mut rows = statement.run(client, &keys.arguments());
        while rows.next().is_some() {
            let key: Vec<_> = (1..=columns).map(|i| rows.get_datum_by_ordinal(i).expect("a key column")).collect();
            for index in indexes.iter() {
                index.wait(&key);
            }
        }
    });
}

/// A unique index over the key, of the table or of one of its partitions.
pub(crate) struct KeyIndex {
    table: Oid,
    index: Oid,
    /// The key columns' numbers in the table, in the key's order.
    columns: Vec<i16>,
}

fn key_indexes(client: &SpiClient<'_>, table: &Table) -> Rc<[KeyIndex]> {
    Rc::clone(table.key_indexes.get_or_init(|| {
        let names: Vec<_> = table.key.iter().map(|column| column.name.clone()).collect();
        read_once(
            client,
            "select i.indrelid, i.indexrelid, k.columns
             from headwater.leaves($1::oid::regclass) leaf
             join pg_catalog.pg_index i on i.indrelid = leaf
             cross join lateral (
               select array_agg(a.attnum order by n.place) as columns
               from unnest($2::text[]) with ordinality n (name, place)
               join pg_catalog.pg_attribute a on a.attrelid = i.indrelid and a.attname = n.name
             ) k
             where i.indisunique and i.indisvalid and i.indimmediate and i.indpred is null and i.indexprs is null
               and i.indnkeyatts = cardinality(k.columns) and k.columns <@ i.indkey::int2[]",
            &[table.relid.into(), names.into()],
        )
        .map(|row| {
            let get = "the catalog's columns are not null";
            KeyIndex {
                table: row.get(1).expect(get).expect(get),
                index: row.get(2).expect(get).expect(get),
                columns: row.get(3).expect(get).expect(get),
            }
        })
        .collect()
    }))
}

impl KeyIndex {
    fn wait(&self, key: &[Option<pg_sys::Datum>]) {
        // SAFETY: the relation stays open and locked as long as its slots; both slots have its descriptor. The function
        // reads the search slot's key columns only (`build_replindex_scan_key`), waits for the inserter of a matching
        // row (`RelationFindReplTupleByIndex`), and takes the weakest row lock on what it finds.
        unsafe {
            let lock = pg_sys::RowExclusiveLock.cast_signed();
            let relation = pg_sys::table_open(self.table, lock);
            let wanted = pg_sys::MakeSingleTupleTableSlot((*relation).rd_att, &raw const pg_sys::TTSOpsVirtual);
            let found = pg_sys::table_slot_create(relation, std::ptr::null_mut());
            pg_sys::ExecClearTuple(wanted);
            let width = usize::try_from((*(*relation).rd_att).natts).expect("a number of columns");
            std::slice::from_raw_parts_mut((*wanted).tts_isnull, width).fill(true);
            for (column, datum) in self.columns.iter().zip(key) {
                let place = usize::try_from(column - 1).expect("a user column");
                *(*wanted).tts_values.add(place) = datum.expect("a key column is not null");
                *(*wanted).tts_isnull.add(place) = false;
            }
            pg_sys::ExecStoreVirtualTuple(wanted);
            pg_sys::RelationFindReplTupleByIndex(
                relation,
                self.index,
                pg_sys::LockTupleMode::LockTupleKeyShare,
                wanted,
                found,
            );
            pg_sys::ExecDropSingleTupleTableSlot(found);
            pg_sys::ExecDropSingleTupleTableSlot(wanted);
            // The lock on the table is kept to the end of the transaction.
            pg_sys::table_close(relation, pg_sys::NoLock.cast_signed());
        }
    }
}
