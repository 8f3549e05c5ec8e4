//! The rows of a user's table, read where they are stored: no statement names the table, so none is planned.
//!
//! Planning runs code of the table's owner: immutable functions with constant arguments in index expressions, in the
//! predicates of indexes, in CHECK constraints, in partition bounds. Postgres does so as the current user, which within our
//! functions is the extension's owner, a superuser. What has to be a statement is run as the table's owner
//! ([`ActingAs::owner_of`]).

use std::ffi::CStr;

use headwater_model::key;
use pgrx::pg_sys::{self, Datum, Oid};
use pgrx::prelude::*;
use pgrx::spi::quote_identifier;

use crate::jsonb::JsonB;
use crate::materialize::enabled;
use crate::render::{Row, Writer};
use crate::session::ActingAs;
use crate::settings::Settings;
use crate::spi::run_once;
use crate::table;

/// The pages of a table that are read.
#[derive(Clone, Copy)]
pub(crate) enum Pages {
    /// Every one.
    All,
    /// From the first of these up to, and without, the second.
    Range(u32, u32),
}

/// Every row of a table, partitions not included, that the snapshot shows. Whoever may not see it, `each` may.
///
/// # Safety
/// An open relation that holds rows, and a registered or active snapshot.
pub(crate) unsafe fn for_each(
    relation: pg_sys::Relation,
    snapshot: pg_sys::Snapshot,
    pages: Pages,
    mut each: impl FnMut(&Row<'_>),
) {
    let forward = pg_sys::ScanDirection::ForwardScanDirection;
    // SAFETY: the caller's promise. An error leaves the scan to the transaction's abort.
    unsafe {
        let knows_pages = (*(*relation).rd_tableam).scan_set_tidrange.is_some();
        let range = match pages {
            Pages::Range(first, past) if first >= past => return,
            Pages::Range(first, past) if knows_pages => Some((place(first, 1), place(past - 1, u16::MAX))),
            Pages::Range(1.., _) => return,
            // An access method without pages: all of it counts as the first.
            Pages::All | Pages::Range(0, _) => None,
        };
        let slot = pg_sys::table_slot_create(relation, std::ptr::null_mut());
        let scan = match range {
            None => pg_sys::table_beginscan(relation, snapshot, 0, std::ptr::null_mut()),
            Some((mut from, mut to)) => {
                pg_sys::table_beginscan_tidrange(relation, snapshot, &raw mut from, &raw mut to)
            }
        };
        let natts = (*(*slot).tts_tupleDescriptor).natts;
        let attributes = usize::try_from(natts).expect("a count");
        loop {
            let found = match range {
                None => pg_sys::table_scan_getnextslot(scan, forward, slot),
                Some(_) => pg_sys::table_scan_getnextslot_tidrange(scan, forward, slot),
            };
            if !found {
                break;
            }
            pgrx::check_for_interrupts!();
            pg_sys::slot_getsomeattrs(slot, natts);
            each(&Row::new(
                std::slice::from_raw_parts((*slot).tts_values, attributes),
                std::slice::from_raw_parts((*slot).tts_isnull, attributes),
            ));
        }
        pg_sys::table_endscan(scan);
        pg_sys::ExecDropSingleTupleTableSlot(slot);
    }
}

fn place(page: u32, item: u16) -> pg_sys::ItemPointerData {
    let mut place = pg_sys::ItemPointerData::default();
    pgrx::itemptr::item_pointer_set_all(&mut place, page, item);
    place
}

#[unsafe(no_mangle)]
#[doc(hidden)]
extern "C-unwind" fn pg_finfo_rows_wrapper() -> &'static pg_sys::Pg_finfo_record {
    const V1: pg_sys::Pg_finfo_record = pg_sys::Pg_finfo_record { api_version: 1 };
    &V1
}

/// `headwater.rows`. By hand: the rows go into a tuple store, which spills to disk.
#[unsafe(no_mangle)]
#[doc(hidden)]
#[pg_guard]
#[expect(clippy::cast_ptr_alignment, reason = "InitMaterializedSRF has seen to it that it is one")]
unsafe extern "C-unwind" fn rows_wrapper(call: pg_sys::FunctionCallInfo) -> Datum {
    // SAFETY: Postgres calls, with the arguments of `sql/rows.sql`.
    unsafe {
        pg_sys::InitMaterializedSRF(call, 0);
        let leaf: Option<Oid> = pgrx::fcinfo::pg_getarg(call, 0);
        let entity_type: Option<&str> = pgrx::fcinfo::pg_getarg(call, 1);
        let first: Option<i64> = pgrx::fcinfo::pg_getarg(call, 2);
        let past: Option<i64> = pgrx::fcinfo::pg_getarg(call, 3);
        let result = (*call).resultinfo.cast::<pg_sys::ReturnSetInfo>();
        if let Some((leaf, entity_type)) = leaf.zip(entity_type) {
            let page = |page: i64| u32::try_from(page.max(0)).unwrap_or(pg_sys::InvalidBlockNumber);
            let pages = match (first, past) {
                (None, None) => Pages::All,
                _ => Pages::Range(page(first.unwrap_or(0)), page(past.unwrap_or(i64::MAX))),
            };
            store(leaf, entity_type, pages, (*result).setResult, (*result).setDesc);
        }
    }
    Datum::from(0)
}

/// # Safety
/// A tuple store of rows of four columns: entity id, tenant, state, schema version.
unsafe fn store(
    leaf: Oid,
    entity_type: &str,
    pages: Pages,
    store: *mut pg_sys::Tuplestorestate,
    description: pg_sys::TupleDesc,
) {
    // Read anew: in the transaction that changes the registry, what backends keep of it is a command behind.
    let Some(table) = table::read(entity_type, Some(leaf)) else { return };
    let _settings = Settings::for_rendering();
    let (mut writer, mut entity_id) = (Writer::default(), Vec::new());
    // SAFETY: the relation is open and locked as long as it is read; values live until they are in the store.
    unsafe {
        let relation = pg_sys::table_open(leaf, pg_sys::AccessShareLock.cast_signed());
        if (*(*relation).rd_rel).relkind == pg_sys::RELKIND_RELATION.cast_signed() {
            let outer = pg_sys::CurrentMemoryContext;
            let memory = pg_sys::AllocSetContextCreateExtended(
                outer,
                c"headwater row".as_ptr(),
                pg_sys::ALLOCSET_DEFAULT_MINSIZE as usize,
                pg_sys::ALLOCSET_DEFAULT_INITSIZE as usize,
                pg_sys::ALLOCSET_DEFAULT_MAXSIZE as usize,
            );
            for_each(relation, pg_sys::GetActiveSnapshot(), pages, |row| {
                pg_sys::MemoryContextSwitchTo(memory);
                table.renderer.entity_id(row, &mut entity_id);
                let tenant = table.renderer.tenant(row);
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned().into_datum();
                let state = table.renderer.state(row, &mut writer);
                let values = [text(&entity_id), tenant.as_deref().and_then(text), Some(Datum::from(state.as_ptr()))];
                let mut nulls = [false, values[1].is_none(), false, false];
                let mut values = [
                    values[0].unwrap_or(Datum::from(0)),
                    values[1].unwrap_or(Datum::from(0)),
                    values[2].unwrap_or(Datum::from(0)),
                    Datum::from(table.schema_version),
                ];
                pg_sys::tuplestore_putvalues(store, description, values.as_mut_ptr(), nulls.as_mut_ptr());
                pg_sys::MemoryContextSwitchTo(outer);
                pg_sys::MemoryContextReset(memory);
            });
            pg_sys::MemoryContextDelete(memory);
        }
        pg_sys::table_close(relation, pg_sys::NoLock.cast_signed());
    }
}

/// One row, as the table's owner finds it by its key.
#[pg_extern(sql = false)]
fn find_row(
    entity: &str,
    entity_id: &str,
) -> TableIterator<'static, (name!(tenant_id, Option<String>), name!(state, JsonB), name!(schema_version, i32))> {
    let table = enabled(entity);
    let Some(parts) = key::split(entity_id, table.key.len()) else { return TableIterator::new(Vec::new()) };
    let same_key = table.key.iter().enumerate();
    let same_key =
        same_key.map(|(i, column)| format!("{} = ($1::text[])[{}]::{}", column.of("t"), i + 1, column.base_type));
    let sql = format!(
        "select {} from {} t where {}",
        table.selected("t"),
        table.name,
        same_key.collect::<Vec<_>>().join(" and ")
    );
    let mut found = Vec::new();
    Spi::connect_mut(|client| {
        let _acting = ActingAs::owner_of(table.relid);
        crate::spi::read_once(client, &sql, &[parts.into()]);
        table.for_each_row(client, |row, renderer| {
            let (mut writer, mut found_id) = (Writer::default(), Vec::new());
            renderer.entity_id(row, &mut found_id);
            // One entity has one id: `05` is none.
            if found_id != entity_id.as_bytes() {
                return;
            }
            let tenant = renderer.tenant(row).map(|tenant| String::from_utf8_lossy(&tenant).into_owned());
            // SAFETY: the writer's jsonb.
            let state = unsafe { JsonB::from_datum(Datum::from(renderer.state(row, &mut writer).as_ptr()), false) };
            found.extend(state.map(|state| (tenant, state, table.schema_version)));
        });
    });
    TableIterator::new(found)
}

/// The greatest value of an integer column, as the table's owner finds it.
#[pg_extern(sql = false)]
fn greatest_key(relation: Oid, column: &str) -> Option<i64> {
    let name = qualified_name(relation)?;
    let sql = format!("select max({})::int8 from {name}", quote_identifier(column));
    let _acting = ActingAs::owner_of(relation);
    Spi::connect_mut(|client| run_once(client, &sql, &[]).first().get_one().expect("a bigint"))
}

/// A table's name, qualified and quoted; `None` if it is gone.
fn qualified_name(relation: Oid) -> Option<String> {
    // SAFETY: catalog look-ups, which give palloc'd names or null.
    unsafe {
        let text = |name: *mut std::ffi::c_char| (!name.is_null()).then(|| CStr::from_ptr(name).to_string_lossy());
        let name = text(pg_sys::get_rel_name(relation))?;
        let schema = text(pg_sys::get_namespace_name(pg_sys::get_rel_namespace(relation)))?;
        Some(format!("{}.{}", quote_identifier(&schema), quote_identifier(&name)))
    }
}
