//! Rows written, many of one table in one statement, under the rights of the role that applies events.
//!
//! Every statement has the caller's tenant in its condition, and returns what the table made of each row.

use std::borrow::Cow;
use std::collections::HashMap;

use headwater_model::event::{Code, Reject};
use headwater_model::fold::{self, State};
use headwater_model::key;
use pgrx::pg_sys::Oid;
use pgrx::prelude::*;
use pgrx::spi::quote_identifier;
use serde_json::Value;

use super::row::{STATE, key_columns};
use crate::capture::own_write::{self, Operation};
use crate::head::Entity;
use crate::jsonb::Members;
use crate::render::Column;
use crate::session::ActingAs;
use crate::table::Table;

/// What is to be done to a row.
pub(super) struct Change {
    operation: Operation,
    /// The columns that get a value, by their places in the table's list of columns.
    set: Vec<usize>,
    /// Those that go back to their defaults.
    reset: Vec<usize>,
    values: State,
}

impl Change {
    /// What brings a row from one state to another; `None` where nothing does.
    ///
    /// `user` goes into the user column of a row that is created.
    pub(super) fn between(
        table: &Table,
        entity: &Entity,
        before: Option<&State>,
        after: Option<Cow<'_, State>>,
        user: Option<&str>,
    ) -> Option<Self> {
        match (before, after) {
            (None, None) => None,
            (None, Some(after)) => Some(Self::insert(table, entity, after, user)),
            (Some(before), Some(after)) => Self::update(table, before, &after),
            (Some(_), None) => Some(Self::delete()),
        }
    }

    fn insert(table: &Table, entity: &Entity, after: Cow<'_, State>, user: Option<&str>) -> Self {
        let mut values = after.into_owned();
        // What makes the row whose it is never comes from an event.
        let parts = key::split(&entity.entity_id, table.key.len()).expect("the id was taken apart before");
        let reserved = table.key.iter().zip(parts.into_iter().map(Some));
        let reserved = reserved.chain(table.tenant.iter().map(|column| (column, entity.tenant.clone())));
        for (column, text) in reserved {
            values.insert(column.name.clone(), text.map_or(Value::Null, Value::String));
        }
        if let Some((column, user)) = table.user.as_ref().zip(user) {
            values.entry(column.name.clone()).or_insert_with(|| Value::String(user.to_owned()));
        }
        let given = |column: &Column| {
            values.contains_key(&column.name)
                && (!table.generated.contains(&column.name) || table.key.iter().any(|key| key.name == column.name))
        };
        let set = places(table, given);
        Self { operation: Operation::Insert, set, reset: Vec::new(), values }
    }

    /// Sets what differs. What the new state lacks goes back to its default: the entity began anew, by another event.
    fn update(table: &Table, before: &State, after: &State) -> Option<Self> {
        let values = fold::difference(before, after);
        // The user column belongs to who began the entity; its default does not come back.
        let user = table.user.as_ref().map(|column| &column.name).filter(|name| values.contains_key(*name));
        let settable = |column: &Column| table.settable.contains(&column.name) || Some(&column.name) == user;
        let set = places(table, |column| {
            settable(column) && after.contains_key(&column.name) && values.contains_key(&column.name)
        });
        let reset = places(table, |column| settable(column) && !after.contains_key(&column.name));
        if set.is_empty() && reset.is_empty() {
            return None;
        }
        Some(Self { operation: Operation::Update, set, reset, values })
    }

    fn delete() -> Self {
        Self { operation: Operation::Delete, set: Vec::new(), reset: Vec::new(), values: State::new() }
    }

    /// Whether one statement can do both, to two rows of one table and tenant.
    pub(super) fn goes_with(&self, other: &Self) -> bool {
        self.operation == other.operation && self.set == other.set && self.reset == other.reset
    }

    /// Whether the row was not there before.
    pub(super) fn begins(&self) -> bool {
        self.operation == Operation::Insert
    }

    /// Whether the row is gone afterwards.
    pub(super) fn ends(&self) -> bool {
        self.operation == Operation::Delete
    }

    fn name(&self) -> String {
        format!("{:?} {:?} {:?}", self.operation, self.set, self.reset)
    }

    fn sql(&self, table: &Table) -> String {
        let name = &table.name;
        let columns = |places: &[usize]| places.iter().map(|place| &table.columns[*place]).collect::<Vec<_>>();
        let (set, reset) = (columns(&self.set), columns(&self.reset));
        let quoted = |column: &Column| quote_identifier(&column.name);
        let state = format!("v.{STATE}");
        let value = |column: &&Column| column.read_json(&state, name);
        let selected = table.selected("t");
        match self.operation {
            Operation::Insert => format!(
                "insert into {name} as t ({}) overriding system value select {} from pg_catalog.unnest($1) v ({STATE})
                 returning {selected}",
                set.iter().map(|column| quoted(column)).collect::<Vec<_>>().join(", "),
                set.iter().map(value).collect::<Vec<_>>().join(", "),
            ),
            Operation::Update => {
                let assigned = set.iter().map(|column| format!("{} = {}", quoted(column), value(column)));
                let assigned = assigned.chain(reset.iter().map(|column| format!("{} = default", quoted(column))));
                format!(
                    "update {name} as t set {} from {} where {} returning {selected}",
                    assigned.collect::<Vec<_>>().join(", "),
                    key_columns(table, 3, Some(1)),
                    these_rows(table),
                )
            }
            Operation::Delete => format!(
                "delete from {name} as t using {} where {} returning {selected}",
                key_columns(table, 3, Some(1)),
                these_rows(table),
            ),
        }
    }
}

/// The rows called `t` that have the key of one called `v`, and the tenant.
fn these_rows(table: &Table) -> String {
    let same_key = table.key.iter().map(|column| format!("{} = {}", column.of("t"), column.of("v")));
    let same_tenant = format!("{} is not distinct from $2::text", table.tenant_of("t"));
    same_key.chain([same_tenant]).collect::<Vec<_>>().join(" and ")
}

fn places(table: &Table, wanted: impl Fn(&Column) -> bool) -> Vec<usize> {
    (0..table.columns.len()).filter(|place| wanted(&table.columns[*place])).collect()
}

/// Deletes a row that is there. Capture passes over it; what it sets off is captured.
pub(crate) fn delete(table: &Table, entity: &Entity, role: Oid) -> Result<(), Reject> {
    write(table, entity.tenant.as_deref(), &[(entity.entity_id.as_str(), &Change::delete())], role, None).map(|_| ())
}

/// Makes changes that go with one another to rows of one tenant. Returns the states that the table made of the rows, by
/// their ids.
pub(super) fn write(
    table: &Table,
    tenant: Option<&str>,
    changes: &[(&str, &Change)],
    role: Oid,
    claims: Option<&str>,
) -> Result<HashMap<String, State>, Reject> {
    let Some((_, first)) = changes.first() else { return Ok(HashMap::new()) };
    let statement = table.set_statement(&first.name(), || first.sql(table));
    let values: Vec<_> = changes.iter().map(|(_, change)| Members(&change.values)).collect();
    let ids = changes.iter().map(|(id, _)| id.as_bytes().to_vec()).collect();
    let _acting = ActingAs::role(role, claims);
    let written = own_write::marked(table.relid, first.operation, ids, || {
        Spi::connect_mut(|client| {
            let mut arguments = vec![values.into()];
            if first.operation != Operation::Insert {
                arguments.push(tenant.into());
                let mut parts = vec![Vec::with_capacity(changes.len()); table.key.len()];
                for (id, _) in changes {
                    let split = key::split(id, table.key.len()).expect("the id was taken apart before");
                    parts.iter_mut().zip(split).for_each(|(column, part)| column.push(part));
                }
                arguments.extend(parts.into_iter().map(Into::into));
            }
            statement.run(client, &arguments);
            let mut written = HashMap::with_capacity(changes.len());
            table.for_each_selected(client, |id, state| {
                written.insert(id, state);
            });
            written
        })
    });
    match changes.iter().find(|(id, _)| !written.contains_key(*id)) {
        None => Ok(written),
        Some((id, _)) => Err(left_out(table, first.operation, id)),
    }
}

/// Why a write touched no row, though it was locked and no policy objected aloud.
fn left_out(table: &Table, operation: Operation, id: &str) -> Reject {
    match operation {
        Operation::Delete => Reject::new(Code::Forbidden, format!("{id} may not be deleted by this role")),
        Operation::Insert | Operation::Update => {
            let reason = format!("a trigger or rule of {} left out the change of {id}", table.name);
            Reject::new(Code::ConstraintViolation, reason)
        }
    }
}
