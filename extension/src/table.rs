//! What there is to know of an enabled table: read once from the registry and the catalog, dropped when either changes.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use headwater_model::clock::Micros;
use headwater_model::fold::State;
use headwater_model::reach;
use headwater_model::rules::Rules;
use headwater_model::upcast::Upcasts;
use pgrx::PgSqlErrorCode;
use pgrx::pg_sys::{self, Oid};
use pgrx::prelude::*;
use pgrx::spi::{SpiClient, quote_literal};

use crate::jsonb::JsonB;
use crate::raise::raise;

use crate::head::object;
use crate::ingest::unseen::KeyIndexes;
use crate::render::{self, Column, Row, RowRenderer, Writer};
use crate::session::Definer;
use crate::settings::Settings;
use crate::spi::{SetStatement, Statement, for_each_row, latest};

/// An enabled table, or a partition of one.
pub(crate) struct Table {
    pub(crate) relid: Oid,
    /// Its name, qualified and quoted.
    pub(crate) name: String,
    pub(crate) entity_type: String,
    /// The shared columns: all but the excluded ones.
    pub(crate) columns: Vec<Column>,
    pub(crate) key: Vec<Column>,
    /// Renders its rows.
    pub(crate) renderer: RowRenderer,
    pub(crate) tenant: Option<Column>,
    pub(crate) user: Option<Column>,
    /// The columns that clients' events may set.
    pub(crate) settable: Vec<String>,
    /// Those of them whose values the table may spell its own way: all but JSON.
    spelt: Vec<String>,
    /// Columns that nobody sets: generated ones.
    pub(crate) generated: Vec<String>,
    pub(crate) rules: Rules,
    pub(crate) schema_version: i32,
    pub(crate) upcasts: Upcasts,
    /// Clients' events from before come too late.
    pub(crate) horizon: Option<Micros>,
    /// Every row has its baseline, or an event that created it.
    pub(crate) backfilled: bool,
    /// Its policies look at nothing but the row and the session: then they judge many rows of one statement as they would
    /// one after the other.
    pub(crate) policies_judge_alone: bool,
    /// The unique indexes over the key, once somebody has asked for them.
    pub(crate) key_indexes: OnceCell<Rc<KeyIndexes>>,
    statements: RefCell<HashMap<String, Rc<Statement>>>,
    set_statements: RefCell<HashMap<String, Rc<SetStatement>>>,
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
        self.tenant.as_ref().map_or_else(|| "null::text".to_owned(), |column| column.text_of(alias))
    }

    /// What is selected of a row to render it.
    pub(crate) fn selected(&self, alias: &str) -> String {
        self.rendered().map(|column| column.of(alias)).collect::<Vec<_>>().join(", ")
    }

    /// Calls `each` with the entity id and the state of every row of the last statement, which selected `selected`.
    pub(crate) fn for_each_selected(&self, client: &SpiClient<'_>, mut each: impl FnMut(String, State)) {
        let (mut writer, mut entity_id) = (Writer::default(), Vec::new());
        self.for_each_row(client, |row, renderer| {
            renderer.entity_id(row, &mut entity_id);
            let state = renderer.state(row, &mut writer);
            // SAFETY: the writer's jsonb.
            let state = unsafe { JsonB::from_datum(pg_sys::Datum::from(state.as_ptr()), false) };
            let state = state.and_then(|state| object(state.0)).expect("a state is an object");
            each(String::from_utf8_lossy(&entity_id).into_owned(), state);
        });
    }

    /// Calls `each` with every row of the last statement, which selected `selected`.
    pub(crate) fn for_each_row(&self, client: &SpiClient<'_>, mut each: impl FnMut(&Row<'_>, &RowRenderer)) {
        let numbers: Vec<_> = self.rendered().map(|column| column.number).collect();
        let _settings = self.renderer.depends_on_settings.then(Settings::for_rendering);
        for_each_row(client, |values, nulls| {
            // SAFETY: the columns are of the types that the catalog names.
            each(&unsafe { Row::selected(values, nulls, &numbers) }, &self.renderer);
        });
    }

    /// The shared columns, and those of key and tenant.
    fn rendered(&self) -> impl Iterator<Item = &Column> {
        let is_shared = |key: &&Column| self.columns.iter().any(|column| column.number == key.number);
        self.columns.iter().chain(self.key.iter().chain(&self.tenant).filter(move |key| !is_shared(key)))
    }

    /// The shared columns of the row called `alias`, as jsonb.
    pub(crate) fn state(&self, alias: &str) -> String {
        render::state(&self.columns, alias)
    }

    /// What of its columns matters to events that build on others.
    pub(crate) fn reach(&self) -> reach::Columns<'_> {
        reach::Columns { settable: &self.settable, spelt: &self.spelt }
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

    /// The same for statements about sets of rows.
    pub(crate) fn set_statement(&self, name: &str, sql: impl FnOnce() -> String) -> Rc<SetStatement> {
        let mut statements = self.set_statements.borrow_mut();
        if let Some(statement) = statements.get(name) {
            return Rc::clone(statement);
        }
        if statements.len() >= MAX_STATEMENTS {
            statements.clear();
        }
        let statement = Rc::new(SetStatement::new(sql()));
        statements.insert(name.to_owned(), Rc::clone(&statement));
        statement
    }
}

thread_local! {
    static BY_RELATION: RefCell<HashMap<Oid, Rc<Table>>> = RefCell::default();
    static BY_ENTITY: RefCell<HashMap<String, Rc<Table>>> = RefCell::default();
    static CHANGED: Cell<bool> = const { Cell::new(false) };
    /// Partitions whose indexes are known to the caches.
    static LEAVES: RefCell<HashSet<Oid>> = RefCell::default();
}

/// Has the caches forgotten when this partition changes too: its indexes get new numbers with `reindex concurrently`.
pub(crate) fn watch_leaf(leaf: Oid) {
    LEAVES.with_borrow_mut(|leaves| leaves.insert(leaf));
}

/// Has Postgres tell this backend when a table changes, or its registry entry (`headwater.invalidate`).
pub(crate) fn watch_for_changes() {
    #[pg_guard]
    unsafe extern "C-unwind" fn changed(_arg: pg_sys::Datum, relid: Oid) {
        // Runs wherever Postgres takes in invalidations, also while the caches are in use: so it only leaves a note.
        let known = relid == Oid::INVALID
            || BY_RELATION.with(|tables| tables.try_borrow().map_or(true, |tables| tables.contains_key(&relid)))
            || LEAVES.with(|leaves| leaves.try_borrow().map_or(true, |leaves| leaves.contains(&relid)))
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
        LEAVES.with_borrow_mut(HashSet::clear);
    }
}

/// The table whose trigger fired, as part of the entity that the trigger names.
pub(crate) fn of_trigger(relid: Oid, entity_type: &str, definer: Definer) -> Rc<Table> {
    forget_what_changed();
    if let Some(table) = BY_RELATION.with_borrow(|tables| tables.get(&relid).cloned()) {
        return table;
    }
    let _acting = definer.act();
    let Some(table) = read(entity_type, Some(relid)) else {
        raise(
            PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("the table has triggers of entity \"{entity_type}\", which is not in the registry"),
            "Enable the table again, or drop its triggers headwater_insert, headwater_update, headwater_delete and headwater_truncate.",
        )
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

/// The same for a writer: until the transaction ends nobody changes what the table is. Without the lock, a column that comes
/// between this and the writer's first statement would be in the row, and not in what is recorded of it.
pub(crate) fn for_writing(entity_type: &str) -> Option<Rc<Table>> {
    loop {
        let table = of_entity(entity_type)?;
        // SAFETY: a lock on a number, which may be nobody's any more. Taking a new one takes in what became invalid.
        unsafe { pg_sys::LockRelationOid(table.relid, pg_sys::RowExclusiveLock.cast_signed()) };
        if !CHANGED.get() {
            return Some(table);
        }
    }
}

/// Reads an entity's registry entry, and the columns of its table or of the partition `member`.
pub(crate) fn read(entity_type: &str, member: Option<Oid>) -> Option<Table> {
    Spi::connect(|client| {
        // A disabled table's triggers go in the same transaction; those that still fire are in it.
        let entry = latest(
            client,
            &format!(
                "select pg_catalog.to_jsonb(e) || pg_catalog.jsonb_build_object('relation', c.oid::int8,
                   'horizon', (extract(epoch from e.horizon) operator(pg_catalog.*) 1000000)::int8,
                   'policies_judge_alone', not exists (
                     select from pg_catalog.pg_policy p
                     where p.polrelid = c.oid and (
                       pg_catalog.concat(p.polqual, p.polwithcheck) like '%{{SUBLINK%'
                       or exists (
                         select from pg_catalog.pg_depend d join pg_catalog.pg_proc f on f.oid = d.refobjid
                         where d.classid = 'pg_catalog.pg_policy'::pg_catalog.regclass and d.objid = p.oid
                           and d.refclassid = 'pg_catalog.pg_proc'::pg_catalog.regclass and f.provolatile <> 'i'))))
                 from headwater.entity e join pg_catalog.pg_class c on c.oid = e.relation
                 where e.entity_type = {} and (e.enabled or {})",
                quote_literal(entity_type),
                member.is_some(),
            ),
        )?;
        let entry: Entry = serde_json::from_value(entry).expect("the columns of the registry are known");
        let relid = member.unwrap_or_else(|| Oid::from(entry.relation));
        let Description { name, columns, generated } = columns(client, relid)?;
        let named = |name: &String| {
            let column = columns.iter().find(|column| column.name == *name);
            column.cloned().unwrap_or_else(|| lost(entity_type, name))
        };
        let reserved = |name: &String| {
            entry.key_columns.contains(name)
                || entry.tenant_column.as_ref() == Some(name)
                || entry.user_column.as_ref() == Some(name)
        };
        let shared: Vec<_> = columns.iter().filter(|column| !entry.excluded.contains(&column.name)).cloned().collect();
        let settable: Vec<_> =
            shared.iter().filter(|column| !reserved(&column.name) && !generated.contains(&column.name)).collect();
        let listed = |columns: Vec<&Column>| columns.into_iter().map(|column| column.name.clone()).collect();
        let spelt = listed(settable.iter().copied().filter(|column| !column.is_json).collect());
        let key: Vec<_> = entry.key_columns.iter().map(named).collect();
        let tenant = entry.tenant_column.as_ref().map(named);
        let user = entry.user_column.as_ref().map(named);
        Some(Table {
            relid,
            name,
            entity_type: entity_type.to_owned(),
            renderer: RowRenderer::new(&shared, &key, tenant.as_ref(), user.as_ref()),
            key,
            tenant,
            user,
            settable: listed(settable),
            spelt,
            columns: shared,
            generated,
            rules: Rules::parse(&entry.rules).expect("enable has checked the rules"),
            schema_version: entry.schema_version,
            upcasts: Upcasts::parse(entry.schema_version, &entry.upcasts).expect("upcast has checked them"),
            horizon: entry.horizon.map(Micros),
            backfilled: entry.backfilled,
            policies_judge_alone: entry.policies_judge_alone,
            key_indexes: OnceCell::new(),
            statements: RefCell::default(),
            set_statements: RefCell::default(),
        })
    })
}

/// A row of `headwater.entity`.
#[derive(serde::Deserialize)]
struct Entry {
    relation: u32,
    key_columns: Vec<String>,
    tenant_column: Option<String>,
    user_column: Option<String>,
    excluded: Vec<String>,
    rules: serde_json::Value,
    schema_version: i32,
    upcasts: serde_json::Value,
    /// Microseconds since 1970.
    horizon: Option<i64>,
    backfilled: bool,
    policies_judge_alone: bool,
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

/// What the catalog says of a table.
pub(crate) struct Description {
    /// Its name, qualified and quoted.
    name: String,
    pub(crate) columns: Vec<Column>,
    /// The names of those that nobody sets.
    generated: Vec<String>,
}

/// Looks a table up in the catalog; `None` if it is gone.
pub(crate) fn columns(client: &SpiClient<'_>, relid: Oid) -> Option<Description> {
    #[derive(serde::Deserialize)]
    struct Attribute {
        name: String,
        number: i16,
        type_oid: u32,
        sql_type: String,
        base_type: String,
        builtin: bool,
        generated: bool,
    }
    let name = latest(
        client,
        &format!(
            "select pg_catalog.to_jsonb(pg_catalog.format('%I.%I', n.nspname, c.relname))
             from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
             where c.oid = {}",
            relid.to_u32()
        ),
    )?;
    // `-1`: no modifier. (format_type(bpchar, null) would be character(1).)
    let attributes = latest(
        client,
        &format!(
            "select pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
               'name', a.attname, 'number', a.attnum, 'type_oid', a.atttypid::int8,
               'sql_type', pg_catalog.format_type(a.atttypid, a.atttypmod), 'base_type', pg_catalog.format_type(b.oid, -1),
               'builtin', b.typnamespace = 'pg_catalog'::pg_catalog.regnamespace and b.typtype <> 'c',
               'generated', a.attgenerated <> '' or a.attidentity = 'a') order by a.attnum)
             from pg_catalog.pg_attribute a
             join pg_catalog.pg_type t on t.oid = a.atttypid
             cross join lateral (
               with recursive base as (
                 select t.oid, t.typtype, t.typbasetype, t.typnamespace
                 union all
                 select u.oid, u.typtype, u.typbasetype, u.typnamespace
                 from base join pg_catalog.pg_type u on u.oid = base.typbasetype
               )
               select base.oid, base.typtype, base.typnamespace from base where base.typbasetype = 0
             ) b
             where a.attrelid = {} and a.attnum > 0 and not a.attisdropped and a.attgenerated <> 'v'",
            relid.to_u32()
        ),
    );
    let attributes: Vec<Attribute> = attributes
        .map(|attributes| serde_json::from_value(attributes).expect("the query names these members"))
        .unwrap_or_default();
    Some(Description {
        name: name.as_str().expect("a text").to_owned(),
        generated: attributes.iter().filter(|a| a.generated).map(|a| a.name.clone()).collect(),
        columns: attributes
            .into_iter()
            .map(|a| Column::new(a.name, a.number, Oid::from(a.type_oid), a.sql_type, a.base_type, a.builtin))
            .collect(),
    })
}
