//! A row's values and its key as SQL expressions, where a set of rows is rendered by one statement.
//!
//! Types that users define are printed by their output function, never by a cast: a cast may be a function of the
//! user's, and these expressions run with the rights of the extension's owner.

use pgrx::spi::{quote_identifier, quote_literal};

use super::Column;

/// `jsonb_build_object` takes 100 arguments: two a column.
const COLUMNS_PER_OBJECT: usize = 50;

impl Column {
    /// The column of the row called `alias`.
    pub(crate) fn of(&self, alias: &str) -> String {
        format!("{alias}.{}", quote_identifier(&self.name))
    }

    /// Its value as text; null as null.
    pub(crate) fn text_of(&self, alias: &str) -> String {
        let value = self.of(alias);
        if self.builtin {
            format!("({value})::text")
        } else {
            format!("case when pg_catalog.num_nulls({value}) = 0 then pg_catalog.concat({value}) end")
        }
    }

    /// Its value as JSON; null as null.
    fn json_of(&self, alias: &str) -> String {
        format!("headwater.to_json({})", self.of(alias))
    }

    /// The value that the member of this name has in the jsonb called `state`, in the column's type.
    /// `table` is the table's name, for types that only a whole row can convert.
    pub(crate) fn read_json(&self, state: &str, table: &str) -> String {
        let key = quote_literal(&self.name);
        if self.is_json {
            format!("nullif({state}->{key}, 'null'::jsonb)::{}", self.sql_type)
        } else if self.form.is_structured() {
            format!(
                "(pg_catalog.jsonb_populate_record(null::{table}, pg_catalog.jsonb_build_object({key}, {state}->{key}))).{}",
                quote_identifier(&self.name)
            )
        } else {
            format!("({state}->>{key})::{}", self.sql_type)
        }
    }
}

/// The row called `alias` as jsonb.
pub(crate) fn state<'a>(columns: impl IntoIterator<Item = &'a Column>, alias: &str) -> String {
    let pairs: Vec<_> = columns
        .into_iter()
        .map(|column| format!("{}, {}", quote_literal(&column.name), column.json_of(alias)))
        .collect();
    let objects: Vec<_> = pairs
        .chunks(COLUMNS_PER_OBJECT)
        .map(|chunk| format!("pg_catalog.jsonb_build_object({})", chunk.join(", ")))
        .collect();
    if objects.is_empty() { "'{}'::jsonb".to_owned() } else { objects.join(" || ") }
}

/// The entity id of the row called `alias`; see `headwater_model::key`.
pub(crate) fn entity_id<'a>(key: impl IntoIterator<Item = &'a Column>, alias: &str) -> String {
    let key: Vec<_> = key.into_iter().collect();
    if let [single] = key[..] {
        return single.text_of(alias);
    }
    let parts: Vec<_> = key
        .iter()
        .map(|column| match (column.text_of(alias), column.needs_escape) {
            (text, true) => format!("pg_catalog.replace(pg_catalog.replace({text}, '~', '~0'), '/', '~1')"),
            (text, false) => text,
        })
        .collect();
    parts.join(" || '/' || ")
}
