//! The statements of capture. Parameters: `$1` the instant, `$2` who acts, `$3` the entity whose change is ingest's own.

use pgrx::spi::quote_literal;

use crate::render;
use crate::table::Table;

/// Where the rows that go come from.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// The transition table.
    OldRows,
    /// The table itself, before a TRUNCATE. A TRUNCATE fires for each partition, so every table looks at its own rows.
    Table,
}

impl Source {
    fn sql(self, table: &Table) -> String {
        match self {
            Self::OldRows => "old_rows o".to_owned(),
            Self::Table => format!("only {} o", table.name),
        }
    }
}

const INTO_EVENT: &str = "insert into headwater.event (id, tenant_id, entity_type, entity_id, event_type, payload, \
     schema_version, occurred_at, recorded_at, user_id, client_id, source, applies)";

/// What follows the payload in every captured event; `user` is SQL.
fn rest(table: &Table, user: &str) -> String {
    format!("{}, $1, $1, {user}, null, 'capture', true", table.schema_version)
}

fn event_type(table: &Table, name: &str) -> String {
    quote_literal(format!("{}.{name}", table.entity_type))
}

fn creator(table: &Table, alias: &str) -> String {
    table.user.as_ref().map_or_else(|| "$2".to_owned(), |column| format!("coalesce($2, {})", column.text(alias)))
}

fn not_own(entity_id: &str) -> String {
    format!("($3::text is null or {entity_id} <> $3)")
}

pub(super) fn insert(table: &Table) -> String {
    let entity_id = table.entity_id("n");
    format!(
        "{INTO_EVENT}
         select headwater.uuid_v7(), {tenant}, {entity}, {entity_id}, {created}, {state}, {rest}
         from new_rows n where {not_own}",
        tenant = table.tenant_of("n"),
        entity = table.entity_literal(),
        created = event_type(table, "created"),
        state = table.state("n"),
        rest = rest(table, &creator(table, "n")),
        not_own = not_own(&entity_id),
    )
}

/// The old and the new version of each updated row, as `o` and `n`. Both transition tables hold them in the same
/// order. A full join is hashed or merged, never nested, whatever the first execution made the planner expect; it must
/// not be reduced to an inner join, hence the `coalesce` around conditions on it.
const PAIRS: &str = "from (select *, row_number() over () as \"headwater.row\" from old_rows) o
     full join (select *, row_number() over () as \"headwater.row\" from new_rows) n
       on o.\"headwater.row\" = n.\"headwater.row\"";

pub(super) fn update(table: &Table) -> String {
    updated(table, PAIRS)
}

/// The same for a statement that updated one row.
pub(super) fn update_one(table: &Table) -> String {
    updated(table, "from old_rows o cross join new_rows n")
}

fn updated(table: &Table, from: &str) -> String {
    let (old, new) = ("o", "n");
    let entity_id = table.entity_id(new);
    format!(
        "{INTO_EVENT}
         select headwater.uuid_v7(), {tenant}, {entity}, {entity_id}, {updated}, {changes}, {rest}
         {from}
         where coalesce({old_id} = {entity_id} and {old_tenant} is not distinct from {tenant} and {not_own}, false)",
        tenant = table.tenant_of(new),
        entity = table.entity_literal(),
        updated = event_type(table, "updated"),
        changes = render::changes(&table.columns, old, new),
        rest = rest(table, "$2"),
        old_id = table.entity_id(old),
        old_tenant = table.tenant_of(old),
        not_own = not_own(&entity_id),
    )
}

/// Rows that an update gave another key or tenant.
pub(super) fn moves(table: &Table) -> String {
    let (old, new) = ("o", "n");
    let moved = format!(
        "coalesce({} <> {} or {} is distinct from {}, false)",
        table.entity_id(old),
        table.entity_id(new),
        table.tenant_of(old),
        table.tenant_of(new)
    );
    format!(
        "{INTO_EVENT}
         select headwater.uuid_v7(), m.tenant, {entity}, m.entity_id, m.event_type, m.payload, {rest}
         from (
           select 1 as half, {old_tenant} as tenant, {old_id} as entity_id, {deleted} as event_type, {key} as payload
           {PAIRS} where {moved}
           union all
           select 2, {new_tenant}, {new_id}, {created}, {state} {PAIRS} where {moved}
           order by half
         ) m where {not_own}",
        entity = table.entity_literal(),
        rest = rest(table, "$2"),
        old_tenant = table.tenant_of(old),
        old_id = table.entity_id(old),
        deleted = event_type(table, "deleted"),
        key = render::state(&table.key, old),
        new_tenant = table.tenant_of(new),
        new_id = table.entity_id(new),
        created = event_type(table, "created"),
        state = table.state(new),
        not_own = not_own("m.entity_id"),
    )
}

pub(super) fn delete(table: &Table, source: Source) -> String {
    let entity_id = table.entity_id("o");
    format!(
        "{INTO_EVENT}
         select headwater.uuid_v7(), {tenant}, {entity}, {entity_id}, {deleted}, {key}, {rest}
         from {from} where {not_own}",
        tenant = table.tenant_of("o"),
        entity = table.entity_literal(),
        deleted = event_type(table, "deleted"),
        key = render::state(&table.key, "o"),
        rest = rest(table, "$2"),
        from = source.sql(table),
        not_own = not_own(&entity_id),
    )
}

/// The rows as they were, for those that have no event yet. Without parameters.
pub(super) fn baseline(table: &Table, source: Source) -> String {
    let entity_id = table.entity_id("o");
    format!(
        "insert into headwater.snapshot (entity_type, entity_id, tenant_id, state)
         select {entity}, {entity_id}, {tenant}, {state} from {from}
         where not exists (select from headwater.event e where e.entity_type = {entity} and e.entity_id = {entity_id}
                           and e.tenant_id is not distinct from {tenant} and e.applies)
         on conflict do nothing",
        entity = table.entity_literal(),
        tenant = table.tenant_of("o"),
        state = table.state("o"),
        from = source.sql(table),
    )
}
