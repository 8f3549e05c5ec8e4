//! What a shape is: a table, which of its rows and columns, and how they are told. Two requests that mean the same have the
//! same definition, on every replica. Pure.

use super::error::ShapeError;
use super::filter::{self, Catalog, Condition, Filter};
use super::json;
use super::layout::{Layout, Layouts};
use super::name;
use super::session::unreadable;
use super::table::{Column, TableSchema, TenantRows, quote};
use crate::identity::Reach;
use headwater_model::cursor::{Epoch, Lsn};
use serde_json::json;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;

/// A longer IN list is looked through row by row: the index has an entry for each value.
const ROUTED_VALUES: usize = 1000;

/// How updates and deletes are told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Replica {
    /// The key and what changed.
    #[default]
    Default,
    /// The whole row, and the old values of what changed.
    Full,
}

/// Whether a client gets the rows that are there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum LogMode {
    /// Rows, then changes.
    #[default]
    Full,
    /// Changes only.
    ChangesOnly,
}

/// What a request says of the shape it wants.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Wanted {
    /// As written.
    pub table: String,
    /// As written.
    pub filter: Option<String>,
    /// By number.
    pub params: BTreeMap<u32, String>,
    /// As written.
    pub columns: Option<String>,
    /// As written.
    pub queryable: Option<String>,
    /// How changes are told.
    pub replica: Replica,
    /// With rows or without.
    pub log: LogMode,
}

impl Wanted {
    /// What tells this request of a caller from all others.
    pub(super) fn identity(&self, reach: &Reach) -> Identity {
        let (whose, tenant) = match reach {
            Reach::Everything => (0, None),
            Reach::Tenant(tenant) => (1, tenant.as_deref()),
        };
        let mut digest = Sha256::new();
        digest.update([whose, u8::from(self.replica == Replica::Full), u8::from(self.log == LogMode::ChangesOnly)]);
        // Each text behind its length, so that none runs into the next.
        let mut add = |text: Option<&str>| {
            digest.update(text.map_or(u64::MAX, |text| text.len() as u64).to_be_bytes());
            digest.update(text.unwrap_or_default());
        };
        add(tenant);
        add(Some(&self.table));
        for text in [&self.filter, &self.columns, &self.queryable] {
            add(text.as_deref());
        }
        for (number, text) in &self.params {
            add(Some(&number.to_string()));
            add(Some(text));
        }
        digest.finalize().into()
    }

    /// Schema and name of each table that subqueries of the condition read.
    pub(super) fn inner_tables(&self) -> Result<BTreeSet<(String, String)>, ShapeError> {
        let tables = self.filter.as_deref().filter(|text| !text.trim().is_empty()).map(filter::inner_tables);
        tables
            .transpose()
            .map(Option::unwrap_or_default)
            .map_err(|error| ShapeError::invalid("where", error.to_string()))
    }
}

/// What tells shapes apart, or requests: two that differ have never the same.
pub(super) type Identity = [u8; 32];

/// A shape.
#[derive(Debug)]
pub(super) struct Definition {
    /// Its table and columns.
    pub(super) layout: Arc<Layout>,
    /// Which rows.
    pub(super) filter: Option<Filter>,
    /// Whose rows, by the caller's token.
    pub(super) tenant: Option<TenantRows>,
    /// How changes are told.
    pub(super) replica: Replica,
    /// With rows or without.
    pub(super) log: LogMode,
    /// All of it, hashed: the same for the same shape.
    pub(super) identity: Identity,
}

/// A column and the few texts of which every row of a shape has one there: as its value, or as an element of its array.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Route<'a> {
    pub(super) column: usize,
    pub(super) texts: Vec<&'a str>,
    pub(super) elements: bool,
}

impl Definition {
    /// Works out what is wanted of `table`, within `reach`; `inner` are the tables that subqueries name.
    pub(super) fn new(
        wanted: &Wanted,
        table: &Arc<TableSchema>,
        inner: &[Arc<TableSchema>],
        reach: &Reach,
        epoch: Epoch,
        layouts: &Layouts,
    ) -> Result<Self, ShapeError> {
        let pk = table.primary_key();
        let queryable = wanted.queryable.as_deref();
        let queryable = queryable.map(|list| columns_of(table, list, &pk, "queryable_columns")).transpose()?;
        let selected = match wanted.columns.as_deref() {
            Some(list) => {
                let selected = columns_of(table, list, &pk, "columns")?;
                let allowed = |at: &usize| queryable.as_ref().is_none_or(|allowed| allowed.contains(at));
                if let Some(hidden) = selected.iter().find(|at| !allowed(at)) {
                    let name = &table.columns[*hidden].name;
                    return Err(ShapeError::invalid(
                        "columns",
                        format!("The following columns are not queryable: {name}"),
                    ));
                }
                selected
            }
            None => queryable.clone().unwrap_or_else(|| (0..table.columns.len()).collect()),
        };
        refuse_generated(table, &selected)?;
        let filter = match wanted.filter.as_deref().map(str::trim).filter(|text| !text.is_empty()) {
            Some(text) => Some(
                filter::parse_with(text, &wanted.params, table, &Tables { inner, reach })
                    .map_err(|error| ShapeError::invalid("where", error.to_string()))?,
            ),
            None => None,
        };
        let tenant = rows_of(reach, table);
        let key = table.row_key();
        let named = filter.iter().flat_map(Filter::columns).chain(tenant.iter().map(TenantRows::column));
        may_be_read(table, selected.iter().chain(&key).copied().chain(named))?;
        let layout = layouts.of(table, inner, selected, queryable);
        let (replica, log) = (wanted.replica, wanted.log);
        let mut definition = Self { layout, filter, tenant, replica, log, identity: [0; 32] };
        definition.identity = Sha256::digest(definition.describe(epoch)).into();
        Ok(definition)
    }

    /// Whether a caller with this reach could have asked for it.
    pub(super) fn is_within(&self, reach: &Reach) -> bool {
        self.tenant == rows_of(reach, &self.layout.table)
    }

    fn describe(&self, epoch: Epoch) -> String {
        let table = &self.layout.table;
        let names =
            |list: &[usize]| list.iter().map(|at| table.columns[*at].name.as_str()).collect::<Vec<_>>().join("\u{0}");
        let inner: Vec<_> = self.layout.inner.iter().map(|table| describe_table(table)).collect();
        json!({
            "epoch": epoch.to_string(), "table": describe_table(table), "selected": names(&self.layout.selected),
            "queryable": self.layout.queryable.as_deref().map(names),
            "where": self.filter.as_ref().map(Filter::to_sql), "inner": inner,
            "tenant": self.tenant.as_ref().map(|rows| json!([rows.column(), rows.tenant()])),
            "replica": self.replica == Replica::Full, "changes_only": self.log == LogMode::ChangesOnly,
        })
        .to_string()
    }

    /// Whether the rows depend on those of other tables.
    pub(super) fn has_subqueries(&self) -> bool {
        !self.layout.inner.is_empty()
    }

    /// Roughly how much memory its condition takes: as SQL, and as an expression.
    pub(super) fn bytes(&self) -> usize {
        1024 + self.filter.as_ref().map_or(0, |filter| 4 * filter.to_sql().len())
    }

    /// Schema and name of each table that subqueries read.
    pub(super) fn inner_names(&self) -> BTreeSet<(String, String)> {
        self.layout.inner.iter().map(|table| (table.schema.clone(), table.name.clone())).collect()
    }

    /// Whether subqueries read this table.
    pub(super) fn is_inner(&self, oid: u32) -> bool {
        self.layout.inner.iter().any(|table| table.members.iter().any(|member| member.oid == oid))
    }

    /// What tells this shape from others.
    pub(super) fn digest(&self) -> String {
        digest(&self.identity)
    }

    /// The handle of this shape as of a snapshot at `lsn`. Says all that another replica needs to check it.
    pub(super) fn handle(&self, lsn: Lsn) -> String {
        format!("{}-{}", self.digest(), lsn.0)
    }

    /// The LSN of the snapshot, if this is a handle of this shape.
    pub(super) fn snapshot_of(&self, handle: &str) -> Option<Lsn> {
        let (digest, lsn) = handle.split_once('-')?;
        let digits = lsn.bytes().all(|byte| byte.is_ascii_digit());
        if *digest == self.digest() && digits { lsn.parse().ok().map(Lsn) } else { None }
    }

    /// Whether a row belongs to the shape; values by their columns' place in the table. Adds the steps that it took.
    pub(super) fn takes(&self, row: &[Option<&str>], steps: &mut u64) -> bool {
        self.tenant.as_ref().is_none_or(|rows| rows.takes(row))
            && self.filter.as_ref().is_none_or(|filter| filter.matches_for(row, steps) == Some(true))
    }

    /// For SQL, what stands behind FROM: our own text, none of the client's.
    pub(super) fn from(&self) -> String {
        self.layout.table.from(self.tenant.as_ref())
    }

    /// For SQL, the condition for rows of [`Definition::from`].
    pub(super) fn condition(&self) -> String {
        self.filter.as_ref().map_or_else(|| "true".to_owned(), |filter| format!("({})", filter.to_sql()))
    }

    /// By what the router finds the shape; none if every change of the table may concern it.
    pub(super) fn route(&self) -> Option<Route<'_>> {
        let tenant = self.tenant.as_ref().and_then(|rows| Some((rows.column(), vec![rows.text()?])));
        let filter = self.filter.as_ref().map_or(&[][..], |filter| filter.conditions());
        let values = filter.iter().filter_map(|condition| match condition {
            Condition::OneOf { column, values } if values.len() <= ROUTED_VALUES => {
                Some((*column, values.iter().map(String::as_str).collect()))
            }
            _ => None,
        });
        let values = values.chain(tenant).min_by_key(|(_, values): &(usize, Vec<&str>)| values.len());
        if let Some((column, texts)) = values {
            return Some(Route { column, texts, elements: false });
        }
        // Rows with all of the elements are among those with the longest, which few others ask for.
        filter.iter().find_map(|condition| match condition {
            Condition::Contains { column, elements } => {
                let texts = vec![elements.iter().max_by_key(|text| text.len())?.as_str()];
                Some(Route { column: *column, texts, elements: true })
            }
            Condition::Never => Some(Route { column: 0, texts: Vec::new(), elements: false }),
            Condition::OneOf { .. } => None,
        })
    }

    /// The columns that a snapshot reads: those of clients and those of keys, in the table's order.
    pub(super) fn read(&self) -> Vec<usize> {
        let Layout { table, selected, key, .. } = &*self.layout;
        (0..table.columns.len()).filter(|at| selected.contains(at) || key.contains(at)).collect()
    }

    /// The header `electric-schema`, as `table` is now: what may be null may have changed.
    pub(super) fn schema(&self, table: &TableSchema) -> String {
        let parts = self.layout.selected.iter().map(|at| {
            let column = &self.layout.table.columns[*at];
            let column = table.column(&column.name).map_or(column, |at| &table.columns[at]);
            format!("{}:{}", json::text(&column.name), describe_column(column))
        });
        format!("{{{}}}", parts.collect::<Vec<_>>().join(","))
    }
}

/// What the role may not read is not told from the log either.
fn may_be_read(table: &TableSchema, columns: impl Iterator<Item = usize>) -> Result<(), ShapeError> {
    let is_hidden = |at: &usize| table.unreadable.contains(&table.columns[*at].name);
    match columns.into_iter().find(is_hidden) {
        None => Ok(()),
        Some(at) => Err(unreadable(table, &format!("its column {}", quote(&table.columns[at].name)))),
    }
}

/// Whose rows of a table are within reach; all, if none.
fn rows_of(reach: &Reach, table: &TableSchema) -> Option<TenantRows> {
    match (reach, table.tenant_column.as_deref().and_then(|name| table.column(name))) {
        (Reach::Tenant(tenant), Some(column)) => Some(TenantRows::new(table, column, tenant.clone())),
        _ => None,
    }
}

/// The tables that subqueries may read, and whose rows of them.
struct Tables<'a> {
    inner: &'a [Arc<TableSchema>],
    reach: &'a Reach,
}

impl Catalog for Tables<'_> {
    fn table(&self, schema: &str, name: &str) -> Option<&Arc<TableSchema>> {
        self.inner.iter().find(|table| table.schema == schema && table.name == name)
    }

    fn tenant(&self, table: &TableSchema) -> Option<TenantRows> {
        rows_of(self.reach, table)
    }
}

/// All of a table that its clients' copies depend on.
pub(super) fn describe_table(table: &TableSchema) -> serde_json::Value {
    let columns: Vec<_> = (table.columns.iter())
        .map(|column| {
            // By the last three, conditions may come out otherwise.
            let text = format!("{:?} {:?}", column.collation, column.letters);
            json!([
                column.name,
                column.type_oid,
                column.type_name,
                column.type_mod,
                column.pk_index,
                text,
                column.enum_labels
            ])
        })
        .collect();
    // Where rows are stored tells of TRUNCATE, and of an ALTER that rewrites them without a trace in the WAL.
    let members: Vec<_> = table.members.iter().map(|member| json!([member.oid, member.storage])).collect();
    json!({ "oid": table.oid, "schema": table.schema, "name": table.name, "members": members, "columns": columns })
}

fn digest(identity: &Identity) -> String {
    let mut text = String::new();
    // 80 bits: no two shapes of a database ever meet.
    for byte in &identity[..10] {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

fn columns_of(table: &TableSchema, list: &str, pk: &[usize], parameter: &str) -> Result<Vec<usize>, ShapeError> {
    let names = name::columns(list).map_err(|message| ShapeError::invalid(parameter, message))?;
    let unknown: Vec<&str> = names.iter().filter(|name| table.column(name).is_none()).map(String::as_str).collect();
    if !unknown.is_empty() {
        let list = unknown.join(", ");
        return Err(ShapeError::invalid(
            parameter,
            format!("The following columns are not found on the table: {list}"),
        ));
    }
    let selected: Vec<usize> = (0..table.columns.len()).filter(|at| names.contains(&table.columns[*at].name)).collect();
    let missing: Vec<&str> =
        pk.iter().filter(|at| !selected.contains(at)).map(|at| table.columns[*at].name.as_str()).collect();
    if !missing.is_empty() {
        let message =
            format!("The list of columns must include all primary key columns, missing: {}", missing.join(", "));
        return Err(ShapeError::invalid(parameter, message));
    }
    Ok(selected)
}

/// Generated columns that the WAL does not carry: before Postgres 18, all of them.
fn refuse_generated(table: &TableSchema, selected: &[usize]) -> Result<(), ShapeError> {
    let generated: Vec<&str> = (selected.iter().map(|at| &table.columns[*at]))
        .filter(|column| column.generated)
        .map(|column| column.name.as_str())
        .collect();
    if generated.is_empty() {
        return Ok(());
    }
    let message =
        format!("The following columns are generated and cannot be included in the shape: {}", generated.join(", "));
    Err(ShapeError::invalid("columns", message))
}

/// Type modifiers as the types' own `typmodout` functions read them (`src/backend/utils/adt`).
fn describe_column(column: &Column) -> serde_json::Value {
    const HEADER: i32 = 4;
    let element = column.element.as_ref();
    let name = element.map_or(column.type_name.as_str(), |element| element.name.as_str());
    let mut description = json!({ "type": name });
    if element.is_some() {
        description["dims"] = column.dims.into();
    }
    if let Some(index) = column.pk_index {
        description["pk_index"] = index.into();
    }
    if column.not_null {
        description["not_null"] = true.into();
    }
    let modifier = column.type_mod;
    if modifier < 0 {
        return description;
    }
    match name {
        "varchar" => description["max_length"] = (modifier - HEADER).into(),
        "bpchar" => description["length"] = (modifier - HEADER).into(),
        "bit" | "varbit" => description["length"] = modifier.into(),
        "time" | "timetz" | "timestamp" | "timestamptz" => description["precision"] = modifier.into(),
        "numeric" => {
            let packed = modifier - HEADER;
            description["precision"] = ((packed >> 16) & 0xffff).into();
            // Eleven bits, signed.
            description["scale"] = (((packed & 0x7ff) ^ 1024) - 1024).into();
        }
        "interval" => {
            let (range, precision) = ((modifier >> 16) & 0x7fff, modifier & 0xffff);
            if let Some(fields) = interval_fields(range) {
                description["fields"] = fields.into();
            }
            if precision != 0xffff {
                description["precision"] = precision.into();
            }
        }
        _ => description["type_mod"] = modifier.into(),
    }
    description
}

/// Bits as in `src/include/utils/datetime.h`: month 1, year 2, day 3, hour 10, minute 11, second 12.
fn interval_fields(range: i32) -> Option<&'static str> {
    const YEAR: i32 = 1 << 2;
    const MONTH: i32 = 1 << 1;
    const DAY: i32 = 1 << 3;
    const HOUR: i32 = 1 << 10;
    const MINUTE: i32 = 1 << 11;
    const SECOND: i32 = 1 << 12;
    let all = [
        (YEAR, "YEAR"),
        (MONTH, "MONTH"),
        (DAY, "DAY"),
        (HOUR, "HOUR"),
        (MINUTE, "MINUTE"),
        (SECOND, "SECOND"),
        (YEAR | MONTH, "YEAR TO MONTH"),
        (DAY | HOUR, "DAY TO HOUR"),
        (DAY | HOUR | MINUTE, "DAY TO MINUTE"),
        (DAY | HOUR | MINUTE | SECOND, "DAY TO SECOND"),
        (HOUR | MINUTE, "HOUR TO MINUTE"),
        (HOUR | MINUTE | SECOND, "HOUR TO SECOND"),
        (MINUTE | SECOND, "MINUTE TO SECOND"),
    ];
    all.into_iter().find(|(bits, _)| *bits == range).map(|(_, name)| name)
}
