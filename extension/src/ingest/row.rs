//! The row of an entity: locked, read as state, and written, under the rights of the role that applies events.
//!
//! Every statement has the caller's tenant in its condition: somebody else's row is as if it were missing.

use std::collections::HashMap;

use headwater_model::event::{Code, Reject};
use headwater_model::fold::{self, State};
use headwater_model::key;
use pgrx::pg_sys::Oid;
use pgrx::prelude::*;
use pgrx::spi::quote_identifier;
use serde_json::Value;

use super::unseen;
use crate::capture::own_write::{self, Operation};
use crate::head::Entity;
use crate::jsonb::JsonB;
use crate::render;
use crate::session::{self, ActingAs};
use crate::spi::run_once;
use crate::table::Table;

/// Locks these entities, in the order of their ids: the rows that are there, and a lock by name for each that is not.
/// Returns the states of those that are there.
pub(super) fn lock(
    table: &Table,
    tenant: Option<&str>,
    ids: &[String],
    role: Oid,
    claims: Option<&str>,
) -> Result<HashMap<String, State>, Reject> {
    let keys = Keys::of(table, ids)?;
    {
        let _acting = ActingAs::role(role, claims);
        keys.require_canonical(table, ids)?;
    }
    let mut rows = keys.lock(table, tenant, role, claims);
    let absent: Vec<String> = ids.iter().filter(|id| !rows.contains_key(*id)).cloned().collect();
    if !absent.is_empty() {
        lock_names(table, &absent);
        // Other transactions may be creating them, or have done so while we waited for their names.
        let keys = Keys::of(table, &absent)?;
        unseen::wait_for_inserts(table, &keys, role, claims);
        rows.extend(keys.lock(table, tenant, role, claims));
        // A row of this tenant that the role does not see is not absent: an event for it would stand in its history. Or it
        // has only just come; locked, it shows itself to whom it may.
        let there = keys.lock_whoever_sees_them(table, tenant);
        if there.iter().any(|id| !rows.contains_key(id)) {
            rows.extend(keys.lock(table, tenant, role, claims));
            if let Some(hidden) = there.iter().find(|id| !rows.contains_key(*id)) {
                return Err(Reject::new(Code::Forbidden, format!("{hidden} may not be changed by this role")));
            }
        }
    }
    Ok(rows)
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
    {
        let _acting = ActingAs::role(session::caller(), None);
        keys.require_canonical(table, &ids)?;
    }
    let sql = || {
        format!(
            "select {tenant} from {key_rows} join {name} t on {same_key} for update of t",
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
            statement.run(client, &keys.arguments()).next().map(|row| Owned { tenant: row.get(1).expect("a text") })
        })
    };
    if let Some(found) = look() {
        return Ok(Some(found));
    }
    lock_names(table, &ids);
    // Somebody may be inserting it: then it is there when they are done.
    unseen::wait_for_inserts(table, &keys, session::caller(), None);
    Ok(look())
}

/// Deletes a row that is there. Capture passes over it; what it sets off is captured.
pub(crate) fn delete(table: &Table, entity: &Entity, role: Oid) -> Result<(), Reject> {
    Write { table, entity, role, claims: None }.delete()
}

/// Brings a row from one state to another. Returns the state that the table made of it.
///
/// `user` goes into the user column of a row that is created.
pub(super) fn write(
    table: &Table,
    entity: &Entity,
    before: Option<&State>,
    after: Option<&State>,
    user: Option<&str>,
    role: Oid,
    claims: Option<&str>,
) -> Result<Option<State>, Reject> {
    let write = Write { table, entity, role, claims };
    match (before, after) {
        (None, None) => Ok(None),
        (None, Some(after)) => write.insert(after, user).map(Some),
        (Some(before), Some(after)) => write.update(before, after).map(Some),
        (Some(_), None) => write.delete().map(|()| None),
    }
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
    fn require_canonical(&self, table: &Table, ids: &[String]) -> Result<(), Reject> {
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
            table.statement("lock", sql).run(client, &arguments);
            let mut found = HashMap::new();
            table.for_each_selected(client, |entity_id, state| {
                found.insert(entity_id, state);
            });
            found
        })
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
    let arrays: Vec<_> = (1..=table.key.len()).map(|i| format!("${i}::text[]")).collect();
    let names: Vec<_> = (1..=table.key.len()).map(|i| format!("part{i}")).collect();
    let typed: Vec<_> = table
        .key
        .iter()
        .zip(&names)
        .map(|(column, name)| format!("u.{name}::{} as {}", column.base_type, quote_identifier(&column.name)))
        .collect();
    format!("(select {} from unnest({}) u ({})) k", typed.join(", "), arrays.join(", "), names.join(", "))
}

fn same_key(table: &Table) -> String {
    table.key.iter().map(|column| format!("{} = {}", column.of("t"), column.of("k"))).collect::<Vec<_>>().join(" and ")
}

/// Locks what is not there, by name. In the order of the hashes, which is the order of locking for all.
fn lock_names(table: &Table, ids: &[String]) {
    let names: Vec<_> = ids.iter().map(|id| format!("{}/{id}", table.entity_type)).collect();
    Spi::connect_mut(|client| {
        run_once(
            client,
            "select pg_advisory_xact_lock(hash) from (
               select distinct hashtextextended(name, 0) as hash from unnest($1::text[]) name order by 1 offset 0
             ) names",
            &[names.into()],
        );
    });
}

/// One write of one row.
struct Write<'a> {
    table: &'a Table,
    entity: &'a Entity,
    role: Oid,
    claims: Option<&'a str>,
}

impl Write<'_> {
    fn insert(&self, after: &State, user: Option<&str>) -> Result<State, Reject> {
        let table = self.table;
        let mut values = after.clone();
        // What makes the row whose it is never comes from an event.
        let parts = key::split(&self.entity.entity_id, table.key.len()).expect("the id was taken apart before");
        let reserved = table.key.iter().zip(parts.into_iter().map(Some));
        let reserved = reserved.chain(table.tenant.iter().map(|column| (column, self.entity.tenant.clone())));
        for (column, text) in reserved {
            values.insert(column.name.clone(), text.map_or(Value::Null, Value::String));
        }
        if let Some((column, user)) = table.user.as_ref().zip(user) {
            values.entry(column.name.clone()).or_insert_with(|| Value::String(user.to_owned()));
        }
        let columns: Vec<_> = table
            .columns
            .iter()
            .filter(|column| values.contains_key(&column.name))
            .filter(|column| {
                !table.generated.contains(&column.name) || table.key.iter().any(|key| key.name == column.name)
            })
            .collect();
        let names: Vec<_> = columns.iter().map(|column| quote_identifier(&column.name)).collect();
        let sql = || {
            let typed: Vec<_> = columns.iter().map(|column| column.read_json("$1", &table.name)).collect();
            format!(
                "insert into {} as t ({}) overriding system value select {}
                 returning {}",
                table.name,
                names.join(", "),
                typed.join(", "),
                table.selected("t"),
            )
        };
        self.run(Operation::Insert, &format!("insert {}", names.join(",")), sql, &values)
    }

    /// Sets what differs. What the new state lacks goes back to its default: the entity began anew, by another event.
    fn update(&self, before: &State, after: &State) -> Result<State, Reject> {
        let table = self.table;
        let values = fold::difference(before, after);
        // The user column belongs to who began the entity; its default does not come back.
        let user = table.user.as_ref().map(|column| &column.name).filter(|name| values.contains_key(*name));
        let settable = || {
            let columns = table.columns.iter();
            columns.filter(|column| table.settable.contains(&column.name) || Some(&column.name) == user)
        };
        let (set, reset): (Vec<_>, Vec<_>) = settable()
            .filter(|column| values.contains_key(&column.name) || !after.contains_key(&column.name))
            .partition(|column| after.contains_key(&column.name));
        if set.is_empty() && reset.is_empty() {
            return Ok(before.clone());
        }
        let assignments: Vec<_> = set
            .iter()
            .map(|column| format!("{} = {}", quote_identifier(&column.name), column.read_json("$1", &table.name)))
            .chain(reset.iter().map(|column| format!("{} = default", quote_identifier(&column.name))))
            .collect();
        let name = format!("update {}", assignments.join(","));
        let sql = || {
            format!(
                "update {} as t set {} where {} returning {}",
                table.name,
                assignments.join(", "),
                self.this_row(),
                table.selected("t")
            )
        };
        self.run(Operation::Update, &name, sql, &values)
    }

    fn delete(&self) -> Result<(), Reject> {
        let sql = || {
            format!(
                "delete from {} as t where {} returning {}",
                self.table.name,
                self.this_row(),
                self.table.selected("t")
            )
        };
        self.run(Operation::Delete, "delete", sql, &State::new()).map(|_| ())
    }

    /// Why a write touched no row, though it was locked and no policy objected aloud.
    fn left_out(&self, operation: Operation) -> Reject {
        let id = &self.entity.entity_id;
        match operation {
            Operation::Delete => Reject::new(Code::Forbidden, format!("{id} may not be deleted by this role")),
            Operation::Insert | Operation::Update => {
                let reason = format!("a trigger or rule of {} left out the change of {id}", self.table.name);
                Reject::new(Code::ConstraintViolation, reason)
            }
        }
    }

    fn this_row(&self) -> String {
        let key = self.table.key.iter().enumerate();
        let same_key =
            key.map(|(i, column)| format!("{} = ($2::text[])[{}]::{}", column.of("t"), i + 1, column.base_type));
        let same_tenant = format!("{} is not distinct from $3::text", self.table.tenant_of("t"));
        same_key.chain([same_tenant]).collect::<Vec<_>>().join(" and ")
    }

    /// Runs a statement of three parameters: the values, the key, the tenant.
    fn run(
        &self,
        operation: Operation,
        name: &str,
        sql: impl FnOnce() -> String,
        values: &State,
    ) -> Result<State, Reject> {
        let table = self.table;
        let parts = key::split(&self.entity.entity_id, table.key.len()).expect("the id was taken apart before");
        let statement = table.statement(name, sql);
        let _acting = ActingAs::role(self.role, self.claims);
        own_write::marked(table.relid, operation, &self.entity.entity_id, || {
            Spi::connect_mut(|client| {
                let arguments =
                    [JsonB(Value::Object(values.clone())).into(), parts.into(), self.entity.tenant.as_deref().into()];
                statement.run(client, &arguments);
                let mut written = None;
                table.for_each_selected(client, |_, state| written = Some(state));
                written.ok_or_else(|| self.left_out(operation))
            })
        })
    }
}
