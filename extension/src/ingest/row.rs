//! The rows of entities: locked and read as states, under the rights of the role that applies events.
//!
//! Every statement has the caller's tenant in its condition: somebody else's row is as if it were missing.

use std::collections::HashMap;

use headwater_model::event::{Code, Reject};
use headwater_model::fold::State;
use headwater_model::key;
use pgrx::pg_sys::Oid;
use pgrx::prelude::*;
use pgrx::spi::quote_identifier;

use super::unseen;
use crate::render::{self, Column};
use crate::session::{self, ActingAs};
use crate::spi::SetStatement;
use crate::table::Table;

/// Locks these entities, in the order of their ids: the rows that are there, and a lock by name for each that is not.
/// Returns the states of those that are there. Those that are `expected` to be there are looked for first; the others are found
/// all the same, under the locks of their names.
pub(super) fn lock(
    table: &Table,
    tenant: Option<&str>,
    ids: &[String],
    expected: impl Fn(&str) -> bool,
    role: Oid,
    claims: Option<&str>,
) -> Result<HashMap<String, State>, Reject> {
    Keys::of(table, ids)?.require_canonical(table, ids, role, claims)?;
    let expected: Vec<String> = ids.iter().filter(|id| expected(id)).cloned().collect();
    let mut rows = if expected.is_empty() {
        HashMap::new()
    } else {
        Keys::of(table, &expected)?.lock(table, tenant, role, claims)
    };
    let absent: Vec<String> = ids.iter().filter(|id| !rows.contains_key(*id)).cloned().collect();
    if ids.len() - absent.len() != rows.len() {
        require_own_spelling(ids, &rows)?;
    }
    if !absent.is_empty() {
        lock_names(table, &absent);
        // Other transactions may be creating them, or have done so while we waited for their names.
        let keys = Keys::of(table, &absent)?;
        if unseen::wait_for_inserts(table, &keys, role, claims) {
            let found = keys.lock(table, tenant, role, claims);
            require_own_spelling(&absent, &found)?;
            rows.extend(found);
            // A row of this tenant that the role does not see is not absent: an event for it would stand in its history.
            // Or it has only just come; locked, it shows itself to whom it may.
            let there = keys.lock_whoever_sees_them(table, tenant);
            if there.iter().any(|id| !rows.contains_key(id)) {
                rows.extend(keys.lock(table, tenant, role, claims));
                if let Some(hidden) = there.iter().find(|id| !rows.contains_key(*id)) {
                    return Err(Reject::new(Code::Forbidden, format!("{hidden} may not be changed by this role")));
                }
            }
        }
    }
    Ok(rows)
}

/// Keys that are equal but spelt otherwise, as numeric `1` and `1.00`, are one row: an event under another spelling than the
/// row's own would begin a second history of it.
fn require_own_spelling(ids: &[String], rows: &HashMap<String, State>) -> Result<(), Reject> {
    match rows.keys().find(|found| !ids.contains(found)) {
        Some(found) => Err(another_spelling(found)),
        None => Ok(()),
    }
}

fn another_spelling(found: &str) -> Reject {
    Reject::new(Code::InvalidPayload, format!("an entity_id means the row that is written {found:?}"))
}

/// A row that is there, and locked.
pub(crate) struct Owned {
    /// Whose it is.
    pub(crate) tenant: Option<String>,
}

/// Locks a row as nobody in particular: for events that do not change it.
pub(crate) fn lock_for_record(table: &Table, entity_id: &str) -> Result<Option<Owned>, Reject> {
    let ids = [entity_id.to_owned()];
    let keys = Keys::of(table, &ids)?;
    keys.require_canonical(table, &ids, session::caller(), None)?;
    let sql = || {
        format!(
            "select {tenant}, {entity_id} from {key_rows} join {name} t on {same_key} for update of t",
            entity_id = table.entity_id("t"),
            tenant = table.tenant_of("t"),
            key_rows = key_rows(table),
            name = table.name,
            same_key = same_key(table),
        )
    };
    let look = || {
        Spi::connect_mut(|client| {
            let _acting = ActingAs::owner_of(table.relid);
            let statement = table.statement("lock_for_record", sql);
            statement.run(client, &keys.arguments()).next().map(|row| {
                let found: Option<String> = row.get(2).expect("a text");
                (Owned { tenant: row.get(1).expect("a text") }, found.unwrap_or_default())
            })
        })
    };
    let own =
        |(owned, found): (Owned, String)| if found == entity_id { Ok(owned) } else { Err(another_spelling(&found)) };
    if let Some(found) = look() {
        return own(found).map(Some);
    }
    lock_names(table, &ids);
    // Somebody may be inserting it: then it is there when they are done.
    unseen::wait_for_inserts(table, &keys, session::caller(), None);
    look().map(own).transpose()
}

/// Entity ids taken apart: for each key column the texts.
pub(super) struct Keys(Vec<Vec<String>>);

impl Keys {
    fn of(table: &Table, ids: &[String]) -> Result<Self, Reject> {
        let mut columns = vec![Vec::with_capacity(ids.len()); table.key.len()];
        for id in ids {
            let parts = key::split(id, table.key.len()).ok_or_else(|| {
                let names: Vec<_> = table.key.iter().map(|column| column.name.as_str()).collect();
                Reject::new(
                    Code::InvalidPayload,
                    format!("entity_id {id:?} is no key of {}; it would read {}", table.entity_type, names.join("/")),
                )
            })?;
            columns.iter_mut().zip(parts).for_each(|(column, part)| column.push(part));
        }
        Ok(Self(columns))
    }

    pub(super) fn arguments<'a>(&self) -> Vec<pgrx::datum::DatumWithOid<'a>> {
        self.0.iter().map(|column| column.clone().into()).collect()
    }

    /// One entity has one id: `05` for 5 would begin a second history.
    fn require_canonical(&self, table: &Table, ids: &[String], role: Oid, claims: Option<&str>) -> Result<(), Reject> {
        let obviously = |(column, parts): (&Column, &Vec<String>)| parts.iter().all(|part| is_canonical(column, part));
        if table.key.iter().zip(&self.0).all(obviously) {
            return Ok(());
        }
        let _acting = ActingAs::role(role, claims);
        let sql = || format!("select {} from {}", render::entity_id(&table.key, "k"), key_rows(table));
        let canonical: Vec<Option<String>> = Spi::connect_mut(|client| {
            table
                .statement("canonical", sql)
                .run(client, &self.arguments())
                .map(|row| row.get(1).expect("a text"))
                .collect()
        });
        match ids.iter().zip(canonical).find(|(id, canonical)| canonical.as_ref() != Some(*id)) {
            Some((id, canonical)) => Err(Reject::new(
                Code::InvalidPayload,
                format!("entity_id {id:?} is written {:?}", canonical.unwrap_or_default()),
            )),
            None => Ok(()),
        }
    }

    /// Locks these rows as nobody in particular, and returns their ids.
    fn lock_whoever_sees_them(&self, table: &Table, tenant: Option<&str>) -> Vec<String> {
        let sql = || format!("{} order by 1 for update of t", of_tenant(table, &table.entity_id("t")));
        let _acting = ActingAs::owner_of(table.relid);
        Spi::connect_mut(|client| {
            let mut arguments = self.arguments();
            arguments.push(tenant.into());
            let rows = table.statement("lock_whoever_sees_them", sql).run(client, &arguments);
            rows.map(|row| row.get(1).expect("a text").expect("a key is not null")).collect()
        })
    }

    fn lock(&self, table: &Table, tenant: Option<&str>, role: Oid, claims: Option<&str>) -> HashMap<String, State> {
        let sql =
            || format!("{} order by {} for update of t", of_tenant(table, &table.selected("t")), table.entity_id("t"));
        let _acting = ActingAs::role(role, claims);
        Spi::connect_mut(|client| {
            let mut arguments = self.arguments();
            arguments.push(tenant.into());
            table.set_statement("lock", sql).run(client, &arguments);
            let mut found = HashMap::new();
            table.for_each_selected(client, |entity_id, state| {
                found.insert(entity_id, state);
            });
            found
        })
    }
}

/// Whether a key's part reads as Postgres would write it, where that can be told without asking: in the types that keys
/// mostly have.
fn is_canonical(column: &Column, part: &str) -> bool {
    fn reprinted<T: std::str::FromStr + ToString>(part: &str) -> bool {
        part.parse::<T>().is_ok_and(|value| value.to_string() == part)
    }
    match column.base_type.as_str() {
        "uuid" => reprinted::<uuid::Uuid>(part),
        "smallint" => reprinted::<i16>(part),
        "integer" => reprinted::<i32>(part),
        "bigint" => reprinted::<i64>(part),
        "text" => true,
        _ => false,
    }
}

/// Selects `what` of the rows called `t` that have one of the keys and, by the parameter behind those, the tenant.
fn of_tenant(table: &Table, what: &str) -> String {
    format!(
        "select {what} from {key_rows} join {name} t on {same_key} where {tenant} is not distinct from ${place}::text",
        key_rows = key_rows(table),
        name = table.name,
        same_key = same_key(table),
        tenant = table.tenant_of("t"),
        place = table.key.len() + 1,
    )
}

/// The keys `$1`, `$2`… in their columns' types, as rows called `k`.
pub(super) fn key_rows(table: &Table) -> String {
    keys(table, 1, None, "k")
}

/// The keys `$first`… in their columns' types and, of the parameter `$state`, a jsonb each, as rows called `v`.
pub(super) fn key_columns(table: &Table, first: usize, state: Option<usize>) -> String {
    keys(table, first, state, "v")
}

/// What the jsonb is called, beside key columns of any name.
pub(super) const STATE: &str = r#""headwater's state""#;

fn keys(table: &Table, first: usize, state: Option<usize>, alias: &str) -> String {
    let arrays = (first..first + table.key.len()).map(|i| format!("${i}::text[]"));
    let names: Vec<_> = (1..=table.key.len()).map(|i| format!("part{i}")).collect();
    let typed = table.key.iter().zip(&names);
    let typed =
        typed.map(|(column, name)| format!("u.{name}::{} as {}", column.base_type, quote_identifier(&column.name)));
    let (typed, arrays, names) = match state {
        None => (typed.collect::<Vec<_>>(), arrays.collect::<Vec<_>>(), names),
        Some(state) => (
            typed.chain([format!("u.{STATE}")]).collect(),
            arrays.chain([format!("${state}::jsonb[]")]).collect(),
            names.iter().cloned().chain([STATE.to_owned()]).collect(),
        ),
    };
    // Of several arrays it is syntax, and Postgres' own whatever the path; a function of one is found by name.
    let unnest = if arrays.len() > 1 { "unnest" } else { "pg_catalog.unnest" };
    let (typed, arrays, names) = (typed.join(", "), arrays.join(", "), names.join(", "));
    format!("(select {typed} from {unnest}({arrays}) u ({names})) {alias}")
}

fn same_key(table: &Table) -> String {
    table.key.iter().map(|column| format!("{} = {}", column.of("t"), column.of("k"))).collect::<Vec<_>>().join(" and ")
}

/// Locks what is not there, by name. In the order of the hashes, which is the order of locking for all.
fn lock_names(table: &Table, ids: &[String]) {
    thread_local! {
        static LOCK: SetStatement = SetStatement::new(
            "select pg_catalog.pg_advisory_xact_lock(hash) from (
               select distinct pg_catalog.hashtextextended(name, 0) as hash
               from pg_catalog.unnest($1::pg_catalog.text[]) name order by 1 offset 0
             ) names",
        );
    }
    let names: Vec<_> = ids.iter().map(|id| format!("{}/{id}", table.entity_type)).collect();
    Spi::connect_mut(|client| LOCK.with(|lock| lock.run(client, &[names.into()])));
}
