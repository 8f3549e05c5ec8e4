//! What there is to know of an enabled table: read once from the registry and the catalog, dropped when either changes.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

use headwater_model::rules::Rules;
use pgrx::pg_sys::{self, Oid};
use pgrx::prelude::*;
use pgrx::spi::{SpiClient, quote_literal};
use pgrx::{JsonB, PgSqlErrorCode};

use crate::raise::raise;

use crate::ingest::unseen::KeyIndex;
use crate::render::{self, Column};
use crate::spi::Statement;

/// An enabled table, or a partition of one.
pub(crate) struct Table {
    pub(crate) relid: Oid,
    /// Its name, qualified and quoted.
    pub(crate) name: String,
    pub(crate) entity_type: String,
    /// The shared columns: all but the excluded ones.
    pub(crate) columns: Vec<Column>,
    pub(crate) key: Vec<Column>,
    pub(crate) tenant: Option<Column>,
    pub(crate) user: Option<Column>,
    /// The columns that clients' events may set.
    pub(crate) settable: Vec<String>,
    /// Columns that nobody sets: generated ones.
    pub(crate) generated: Vec<String>,
    pub(crate) rules: Rules,
    pub(crate) schema_version: i32,
    /// Every row has its baseline, or an event that created it.
    pub(crate) backfilled: bool,
    /// The unique indexes over the key, once somebody has asked for them.
    pub(crate) key_indexes: OnceCell<Rc<[KeyIndex]>>,
    statements: RefCell<HashMap<String, Rc<Statement>>>,
}

/// How many statements a table keeps; they differ by the columns that an event sets.
const MAX_STATEMENTS: usize = 256;

impl Table {
    /// The entity's name as an SQL literal.
    pub(crate) fn entity_literal(&self) -> String {
        quote_literal(&self.entity_type)
    }

    /// The entity id of the row called `alias`.
    pub(crate) fn entity_id(&self, alias: &str) -> String {
        render::entity_id(&self.key, alias)
    }

    /// The tenant of the row called `alias`, as text.
    pub(crate) fn tenant_of(&self, alias: &str) -> String {
        self.tenant.as_ref().map_or_else(|| "null::text".to_owned(), |column| column.text(alias))
    }

    /// The shared columns of the row called `alias`, as jsonb.
    pub(crate) fn state(&self, alias: &str) -> String {
        render::state(&self.columns, alias)
    }

    /// The statement called `name`, with its plan; `sql` writes it the first time.
    pub(crate) fn statement(&self, name: &str, sql: impl FnOnce() -> String) -> Rc<Statement> {
        let mut statements = self.statements.borrow_mut();
        if let Some(statement) = statements.get(name) {
            return Rc::clone(statement);
        }
        if statements.len() >= MAX_STATEMENTS {
            statements.clear();
        }
        let statement = Rc::new(Statement::new(sql()));
        statements.insert(name.to_owned(), Rc::clone(&statement));
        statement
    }
}

thread_local! {
    static BY_RELATION: RefCell<HashMap<Oid, Rc<Table>>> = RefCell::default();
    static BY_ENTITY: RefCell<HashMap<String, Rc<Table>>> = RefCell::default();
    static CHANGED: Cell<bool> = const { Cell::new(false) };
}

/// Has Postgres tell this backend when a table changes, or its registry entry (`headwater.invalidate`).
pub(crate) fn watch_for_changes() {
    #[pg_guard]
    unsafe extern "C-unwind" fn changed(_arg: pg_sys::Datum, relid: Oid) {
        // Runs wherever Postgres takes in invalidations, also while the caches are in use: so it only leaves a note.
        let known = relid == Oid::INVALID
            || BY_RELATION.with(|tables| tables.try_borrow().map_or(true, |tables| tables.contains_key(&relid)))
            || BY_ENTITY.with(|tables| {
                tables.try_borrow().map_or(true, |tables| tables.values().any(|table| table.relid == relid))
            });
        if known {
            CHANGED.set(true);
        }
    }
    // SAFETY: registered once a backend, in _PG_init; the function lives as long as the library.
    unsafe { pg_sys::CacheRegisterRelcacheCallback(Some(changed), pg_sys::Datum::from(0)) };
}

fn forget_what_changed() {
    if CHANGED.replace(false) {
        BY_RELATION.with_borrow_mut(HashMap::clear);
        BY_ENTITY.with_borrow_mut(HashMap::clear);
    }
}

/// The table whose trigger fired, as part of the entity that the trigger names.
pub(crate) fn of_trigger(relid: Oid, entity_type: &str) -> Rc<Table> {
    forget_what_changed();
    if let Some(table) = BY_RELATION.with_borrow(|tables| tables.get(&relid).cloned()) {
        return table;
    }
    let Some(table) = read(entity_type, Some(relid)) else {
        error!("table {relid:?} has headwater's triggers, but entity \"{entity_type}\" is not in the registry");
    };
    let table = Rc::new(table);
    BY_RELATION.with_borrow_mut(|tables| tables.insert(relid, Rc::clone(&table)));
    table
}

/// The enabled table of an entity.
pub(crate) fn of_entity(entity_type: &str) -> Option<Rc<Table>> {
    forget_what_changed();
    if let Some(table) = BY_ENTITY.with_borrow(|tables| tables.get(entity_type).cloned()) {
        return Some(table);
    }
    let table = Rc::new(read(entity_type, None)?);
    BY_ENTITY.with_borrow_mut(|tables| tables.insert(entity_type.to_owned(), Rc::clone(&table)));
    Some(table)
}

/// Reads an entity's registry entry, and the columns of its table or of the partition `member`.
fn read(entity_type: &str, member: Option<Oid>) -> Option<Table> {
    Spi::connect(|client| {
        let entry = crate::spi::read_once(
            client,
            "select c.oid, e.key_columns, e.tenant_column, e.user_column, e.excluded, e.rules, e.schema_version, e.backfilled
             from headwater.entity e join pg_catalog.pg_class c on c.oid = e.relation
             where e.entity_type = $1 and (e.enabled or $2)",
            // A disabled table's triggers go in the same transaction; those that still fire are in it.
            &[entity_type.into(), member.is_some().into()],
        )
        .next()?;
        let get = "the columns of the registry are known";
        let key: Vec<String> = entry.get(2).expect(get)?;
        let tenant: Option<String> = entry.get(3).expect(get);
        let user: Option<String> = entry.get(4).expect(get);
        let excluded: Vec<String> = entry.get(5).expect(get)?;
        let rules: JsonB = entry.get(6).expect(get)?;
        let relid = member.or(entry.get(1).expect(get))?;
        let (columns, generated) = columns(client, relid);
        let named = |name: &String| columns.iter().find(|column| column.name == *name).cloned();
        let reserved =
            |name: &String| key.contains(name) || tenant.as_ref() == Some(name) || user.as_ref() == Some(name);
        let shared: Vec<_> = columns.iter().filter(|column| !excluded.contains(&column.name)).cloned().collect();
        Some(Table {
            relid,
            name: qualified_name(client, relid),
            entity_type: entity_type.to_owned(),
            key: key.iter().map(|name| named(name).unwrap_or_else(|| lost(entity_type, name))).collect(),
            tenant: tenant.as_ref().map(|name| named(name).unwrap_or_else(|| lost(entity_type, name))),
            user: user.as_ref().map(|name| named(name).unwrap_or_else(|| lost(entity_type, name))),
            settable: shared
                .iter()
                .map(|column| column.name.clone())
                .filter(|name| !reserved(name) && !generated.contains(name))
                .collect(),
            columns: shared,
            generated,
            rules: Rules::parse(&rules.0).expect("enable has checked the rules"),
            schema_version: entry.get(7).expect(get)?,
            backfilled: entry.get(8).expect(get)?,
            key_indexes: OnceCell::new(),
            statements: RefCell::default(),
        })
    })
}

/// A column that makes up the entity is gone: better no change than one that no reader can place.
fn lost(entity_type: &str, column: &str) -> ! {
    raise(
        PgSqlErrorCode::ERRCODE_UNDEFINED_COLUMN,
        format!("column \"{column}\", by which entity \"{entity_type}\" is known, is gone"),
        format!(
            "Name the column that took its place in select headwater.enable(…, entity => '{entity_type}'), or end capture with select headwater.disable(…)."
        ),
    )
}

/// The columns of a table, and the names of those that are generated.
pub(crate) fn columns(client: &SpiClient<'_>, relid: Oid) -> (Vec<Column>, Vec<String>) {
    let rows = crate::spi::read_once(
        client,
        "select a.attname::text, a.atttypid, pg_catalog.format_type(a.atttypid, a.atttypmod),
                b.typnamespace = 'pg_catalog'::pg_catalog.regnamespace and b.typtype <> 'c',
                a.attgenerated <> '' or a.attidentity = 'a'
         from pg_catalog.pg_attribute a
         join pg_catalog.pg_type t on t.oid = a.atttypid
         cross join lateral (
           with recursive base as (
             select t.oid, t.typtype, t.typbasetype, t.typnamespace
             union all
             select u.oid, u.typtype, u.typbasetype, u.typnamespace from base join pg_catalog.pg_type u on u.oid = base.typbasetype
           )
           select base.typtype, base.typnamespace from base where base.typbasetype = 0
         ) b
         where a.attrelid = $1 and a.attnum > 0 and not a.attisdropped
         order by a.attnum",
        &[relid.into()],
    );
    let mut generated = Vec::new();
    let columns = rows
        .map(|row| {
            let get = "the catalog's columns are not null";
            let name: String = row.get(1).expect(get).expect(get);
            if row.get(5).expect(get).expect(get) {
                generated.push(name.clone());
            }
            let type_oid: Oid = row.get(2).expect(get).expect(get);
            Column::new(name, type_oid, row.get(3).expect(get).expect(get), row.get(4).expect(get).expect(get))
        })
        .collect();
    (columns, generated)
}

fn qualified_name(client: &SpiClient<'_>, relid: Oid) -> String {
    crate::spi::read_once(
        client,
        "select pg_catalog.format('%I.%I', n.nspname, c.relname)
         from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace where c.oid = $1",
        &[relid.into()],
    )
    .first()
    .get_one()
    .expect("one column")
    .expect("the table is locked by the statement that we are part of")
}
