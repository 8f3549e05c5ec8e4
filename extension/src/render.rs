//! A row's values and its key as SQL expressions.
//!
//! Values become JSON that JavaScript reads without loss: int8 and numeric as decimal strings, alone and in arrays.
//! Types that users define are rendered by their output function, never by a cast: a cast may be a function of the
//! user's, and these expressions run with the rights of the extension's owner.

use pgrx::pg_sys::{self, Oid};
use pgrx::spi::{quote_identifier, quote_literal};

/// What a column's type asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// `to_jsonb` renders it well.
    Json,
    /// int8 and numeric.
    Decimal,
    /// Arrays of those.
    DecimalArray,
    /// Any other array of a built-in type.
    Array,
    /// A type of the user's.
    Output,
}

/// A column as the expressions need it.
#[derive(Clone, Debug)]
pub(crate) struct Column {
    /// Its name.
    pub(crate) name: String,
    /// Its type, qualified, with modifier: what a text is cast to.
    pub(crate) sql_type: String,
    /// The type beneath its domains: to cast to it runs no code of the domain's owner.
    pub(crate) base_type: String,
    /// How its values become JSON.
    pub(crate) form: Form,
    /// Its type is json or jsonb.
    pub(crate) is_json: bool,
    /// `=` tells any two values of it apart that render differently.
    pub(crate) equality_is_identity: bool,
    /// Its text may contain the characters that a composite key escapes.
    pub(crate) needs_escape: bool,
}

/// `jsonb_build_object` takes 100 arguments: two a column.
const COLUMNS_PER_OBJECT: usize = 50;

impl Column {
    /// Describes a column by its type.
    pub(crate) fn new(name: String, type_oid: Oid, sql_type: String, base_type: String, builtin: bool) -> Self {
        // SAFETY: catalog look-ups; both accept any type's OID.
        let (base, element) = unsafe {
            let base = pg_sys::getBaseType(type_oid);
            (base, pg_sys::get_element_type(base))
        };
        let is_decimal = |oid: Oid| matches!(oid, pg_sys::INT8OID | pg_sys::NUMERICOID);
        let form = match (builtin, element) {
            (false, _) => Form::Output,
            (true, Oid::INVALID) if is_decimal(base) => Form::Decimal,
            (true, Oid::INVALID) => Form::Json,
            // SAFETY: as above.
            (true, element) if is_decimal(unsafe { pg_sys::getBaseType(element) }) => Form::DecimalArray,
            (true, _) => Form::Array,
        };
        Self {
            name,
            sql_type,
            base_type,
            form,
            is_json: matches!(base, pg_sys::JSONOID | pg_sys::JSONBOID),
            equality_is_identity: matches!(
                base,
                pg_sys::BOOLOID
                    | pg_sys::INT2OID
                    | pg_sys::INT4OID
                    | pg_sys::INT8OID
                    | pg_sys::UUIDOID
                    | pg_sys::DATEOID
                    | pg_sys::TIMESTAMPOID
                    | pg_sys::TIMESTAMPTZOID
                    | pg_sys::BYTEAOID
            ),
            needs_escape: !matches!(
                base,
                pg_sys::BOOLOID
                    | pg_sys::INT2OID
                    | pg_sys::INT4OID
                    | pg_sys::INT8OID
                    | pg_sys::UUIDOID
                    | pg_sys::DATEOID
                    | pg_sys::NUMERICOID
            ),
        }
    }

    /// The column of the row called `alias`.
    pub(crate) fn of(&self, alias: &str) -> String {
        format!("{alias}.{}", quote_identifier(&self.name))
    }

    /// Its value as text; null as null.
    pub(crate) fn text(&self, alias: &str) -> String {
        let value = self.of(alias);
        match self.form {
            Form::Output => format!("case when pg_catalog.num_nulls({value}) = 0 then pg_catalog.concat({value}) end"),
            _ => format!("({value})::text"),
        }
    }

    /// Its value as an argument of `jsonb_build_object`.
    pub(crate) fn json(&self, alias: &str) -> String {
        match self.form {
            Form::Decimal | Form::Output => self.text(alias),
            Form::DecimalArray => format!("({})::text[]", self.of(alias)),
            Form::Json | Form::Array => self.of(alias),
        }
    }

    /// The value that the member of this name has in the jsonb called `state`, in the column's type.
    /// `table` is the table's name, for types that only a whole row can convert.
    pub(crate) fn read_json(&self, state: &str, table: &str) -> String {
        let key = quote_literal(&self.name);
        match self.form {
            _ if self.is_json => format!("nullif({state}->{key}, 'null'::jsonb)::{}", self.sql_type),
            Form::Array | Form::DecimalArray => format!(
                "(pg_catalog.jsonb_populate_record(null::{table}, pg_catalog.jsonb_build_object({key}, {state}->{key}))).{}",
                quote_identifier(&self.name)
            ),
            _ => format!("({state}->>{key})::{}", self.sql_type),
        }
    }

    /// Whether its value differs, as rendered, between two rows.
    pub(crate) fn differs(&self, old: &str, new: &str) -> String {
        let (old, new) = (self.of(old), self.of(new));
        if self.equality_is_identity {
            format!("{old} is distinct from {new}")
        } else {
            // Binary images: 1.0 and 1.00 are equal numbers but different texts.
            format!("row({old})::record operator(pg_catalog.*<>) row({new})::record")
        }
    }
}

/// The row called `alias` as jsonb.
pub(crate) fn state<'a>(columns: impl IntoIterator<Item = &'a Column>, alias: &str) -> String {
    let pairs: Vec<_> =
        columns.into_iter().map(|column| format!("{}, {}", quote_literal(&column.name), column.json(alias))).collect();
    let objects: Vec<_> = pairs
        .chunks(COLUMNS_PER_OBJECT)
        .map(|chunk| format!("pg_catalog.jsonb_build_object({})", chunk.join(", ")))
        .collect();
    if objects.is_empty() { "'{}'::jsonb".to_owned() } else { objects.join(" || ") }
}

/// What changed from the row called `old` to the row called `new`, as jsonb.
pub(crate) fn changes<'a>(columns: impl IntoIterator<Item = &'a Column>, old: &str, new: &str) -> String {
    let changed: Vec<_> = columns
        .into_iter()
        .map(|column| {
            let (differs, value) = (column.differs(old, new), column.json(new));
            format!(
                "case when {differs} then pg_catalog.jsonb_build_object({}, {value}) else '{{}}' end",
                quote_literal(&column.name)
            )
        })
        .collect();
    if changed.is_empty() { "'{}'::jsonb".to_owned() } else { changed.join(" || ") }
}

/// The entity id of the row called `alias`; see `headwater_model::key`.
pub(crate) fn entity_id<'a>(key: impl IntoIterator<Item = &'a Column>, alias: &str) -> String {
    let key: Vec<_> = key.into_iter().collect();
    if let [single] = key[..] {
        return single.text(alias);
    }
    let parts: Vec<_> = key
        .iter()
        .map(|column| match (column.text(alias), column.needs_escape) {
            (text, true) => format!("pg_catalog.replace(pg_catalog.replace({text}, '~', '~0'), '/', '~1')"),
            (text, false) => text,
        })
        .collect();
    parts.join(" || '/' || ")
}
