//! A part of a shape's rows, as they are at one moment: chosen, ordered and cut by the client, beside the stream of changes.
//! It comes with the snapshot that it was read in, by which the client knows which changes it has already.

use super::copy::Lines;
use super::definition::Definition;
use super::error::ShapeError;
use super::filter::{parse_order_by, parse_subset};
use super::memory::Memory;
use super::message::Framing;
use super::reader::Renderer;
use super::request::{Parameters, check_numbers, is_known};
use super::session::{begin, condition_error};
use super::table::{TableSchema, quote};
use crate::database::Database;
use crate::seam;
use bytes::Bytes;
use futures_util::TryStreamExt;
use headwater_model::cursor::Lsn;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio_postgres::IsolationLevel;

/// A subset is a page; who wants more than this wants a shape.
const MAX_BYTES: usize = 64 << 20;

/// Memory is counted in steps of this.
const CHARGED_BYTES: u64 = 256 << 10;

/// How long Postgres may take for one.
const PATIENCE: Duration = Duration::from_mins(1);

/// The names of a subset's parameters, behind `subset__` or in a body.
const NAMES: [&str; 5] = ["where", "params", "order_by", "limit", "offset"];

/// What is asked for.
#[derive(Clone, Debug, Default)]
pub struct Subset {
    filter: Option<String>,
    params: BTreeMap<u32, String>,
    order_by: Option<String>,
    limit: Option<u64>,
    offset: Option<u64>,
}

impl Parameters {
    /// What stands in a request's body, a JSON object: a subset, in `subset` or beside everything else; of the rest, what the
    /// query may say too. Everything else is passed over unread.
    pub fn take_body(&mut self, text: &str) -> Result<(), serde_json::Error> {
        let Members(members) = serde_json::from_str(text)?;
        for (name, value) in members {
            if name == "subset" && value.get().starts_with('{') {
                for (name, value) in serde_json::from_str::<Members<'_>>(value.get())?.0 {
                    self.set_json(&format!("subset__{name}"), value)?;
                }
            } else if NAMES.contains(&name.as_ref()) {
                self.set_json(&format!("subset__{name}"), value)?;
            } else {
                self.set_json(&name, value)?;
            }
        }
        Ok(())
    }

    fn set_json(&mut self, name: &str, value: &RawValue) -> Result<(), serde_json::Error> {
        if value.get() != "null" {
            self.set(name, text_of(value)?);
        }
        Ok(())
    }

    /// The subset that is asked for, if one is.
    pub fn subset(&self) -> Result<Option<Subset>, ShapeError> {
        if !self.any("subset__") {
            return Ok(None);
        }
        let text = |name: &str| self.get(&format!("subset__{name}")).map(str::to_owned);
        let number = |name: &'static str| {
            let parsed = text(name).map(|text| text.parse::<i64>());
            parsed.transpose().map_err(|_| ShapeError::invalid_subset(name, "is invalid"))
        };
        let limit = match number("limit")? {
            Some(limit) if limit < 1 => return Err(ShapeError::invalid_subset("limit", "must be greater than 0")),
            limit => limit.and_then(|limit| u64::try_from(limit).ok()),
        };
        let offset = match number("offset")? {
            Some(offset) if offset < 0 => {
                return Err(ShapeError::invalid_subset("offset", "must be greater than or equal to 0"));
            }
            offset => offset.and_then(|offset| u64::try_from(offset).ok()),
        };
        let order_by = text("order_by");
        if order_by.is_none() && (limit.is_some() || offset.is_some()) {
            let message = "order_by is required when limit or offset is present";
            return Err(ShapeError::invalid_subset("order_by", message));
        }
        let params = text("params").map(|text| params(&text)).transpose()?.unwrap_or_default();
        Ok(Some(Subset { filter: text("where"), params, order_by, limit, offset }))
    }
}

/// Members of a JSON object that we know, as they are written.
struct Members<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Known)
    }
}

struct Known;

impl<'de> Visitor<'de> for Known {
    type Value = Members<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = Vec::new();
        while let Some(name) = map.next_key::<Cow<'de, str>>()? {
            if name == "subset" || NAMES.contains(&name.as_ref()) || is_known(&name) {
                members.push((name, map.next_value()?));
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(Members(members))
    }
}

/// A text, or how anything else is written.
fn text_of(value: &RawValue) -> Result<String, serde_json::Error> {
    let written = value.get();
    if written.starts_with('"') { serde_json::from_str(written) } else { Ok(written.to_owned()) }
}

/// A JSON object of numbers and texts.
fn params(text: &str) -> Result<BTreeMap<u32, String>, ShapeError> {
    let wrong = |message: &str| ShapeError::invalid_subset("params", message);
    let value: &RawValue = serde_json::from_str(text).map_err(|_| wrong("params must be valid JSON"))?;
    let object: BTreeMap<Cow<'_, str>, &RawValue> =
        serde_json::from_str(value.get()).map_err(|_| wrong("params must be a JSON object"))?;
    let mut params = BTreeMap::new();
    for (name, value) in object {
        let number = name.parse().map_err(|_| wrong("Parameters must be numbered starting from 1"))?;
        params.insert(number, text_of(value).map_err(|_| wrong("params must be valid JSON"))?);
    }
    check_numbers(&params).map_err(|message| wrong(&message))?;
    Ok(params)
}

impl Subset {
    /// The query's end, from WHERE on.
    fn to_sql(&self, definition: &Definition) -> Result<String, ShapeError> {
        // What may not be asked about does not exist.
        let mut visible = TableSchema::clone(&definition.layout.table);
        if let Some(queryable) = &definition.layout.queryable {
            let names: Vec<&str> =
                queryable.iter().map(|at| definition.layout.table.columns[*at].name.as_str()).collect();
            visible.columns.retain(|column| names.contains(&column.name.as_str()));
        }
        let mut sql = definition.condition();
        if let Some(text) = self.filter.as_deref() {
            let filter = parse_subset(text, &self.params, &visible)
                .map_err(|error| ShapeError::invalid_subset("where", error.to_string()))?;
            let _ = write!(sql, " and ({})", filter.to_sql());
        }
        if let Some(text) = self.order_by.as_deref() {
            let order = parse_order_by(text, &visible)
                .map_err(|error| ShapeError::invalid_subset("order_by", error.to_string()))?;
            let _ = write!(sql, " order by {}", order.to_sql());
        }
        if let Some(limit) = self.limit {
            let _ = write!(sql, " limit {limit}");
        }
        if let Some(offset) = self.offset {
            let _ = write!(sql, " offset {offset}");
        }
        Ok(sql)
    }

    /// Reads the rows: the body of the answer. `mark` tells them from those of other subsets.
    pub(super) async fn read(
        &self,
        database: &Database,
        renderer: &Renderer,
        mark: u64,
        memory: &Arc<Memory>,
    ) -> Result<Bytes, ShapeError> {
        let full = || ShapeError::busy("Answers take as much memory as they may, please retry", 5);
        let mut charge = memory.charge(0).ok_or_else(full)?;
        let definition = &renderer.definition;
        let condition = self.to_sql(definition)?;
        let mut reader = database.get().await?;
        let session = reader.build_transaction().isolation_level(IsolationLevel::RepeatableRead).read_only(true);
        let session = session.start().await?;
        let snapshot = seam::snapshot(&*session).await?;
        let lsn: String = session
            .query_one("select pg_catalog.pg_current_wal_lsn()::text", &[])
            .await?
            .try_get(0)
            .map_err(crate::error::Error::from)?;
        let lsn: Lsn = lsn.parse().unwrap_or_default();
        begin(&session, &definition.layout.table).await?;
        session.batch_execute(&format!("set local statement_timeout = '{}s'", PATIENCE.as_secs())).await?;
        let read = definition.read();
        let names: Vec<String> = read.iter().map(|at| quote(&definition.layout.table.columns[*at].name)).collect();
        let sql = format!("copy (select {} from {} where {condition}) to stdout", names.join(", "), definition.from());
        let client_error = |error: tokio_postgres::Error| match condition_error(error.into()) {
            ShapeError::Invalid(errors) => ShapeError::Invalid(serde_json::json!({ "subset": errors })),
            other => other,
        };
        let rows = session.copy_out(&sql).await.map_err(client_error)?;
        let mut rows = pin!(rows);
        let mut lines = Lines::new(definition.layout.table.columns.len(), read);
        let mut writer = renderer.writer(Framing::Array);
        while let Some(line) = rows.try_next().await.map_err(client_error)? {
            lines.read(&line, |row| writer.marked_row(row, mark));
            if writer.len() as u64 > charge.bytes() && !charge.grow(writer.len() as u64 + CHARGED_BYTES) {
                return Err(full());
            }
            if writer.len() > MAX_BYTES {
                let message = format!("the subset has more than {MAX_BYTES} bytes: use limit and offset");
                return Err(ShapeError::invalid_subset("limit", message));
            }
        }
        let running: Vec<String> = snapshot.running().iter().map(|xid| format!("\"{xid}\"")).collect();
        let metadata = format!(
            "{{\"metadata\":{{\"xmin\":\"{}\",\"xmax\":\"{}\",\"xip_list\":[{}],\"snapshot_mark\":{mark},\"database_lsn\":\"{}\"}},\"data\":[",
            snapshot.xmin(),
            snapshot.xmax(),
            running.join(","),
            lsn.0
        );
        let mut body = metadata.into_bytes();
        body.extend_from_slice(&writer.finish());
        body.extend_from_slice(b"]}");
        Ok(charge.hold(body))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_says_what_is_known_and_nothing_else() {
        let check = |body: &str, expected: &[(&str, &str)]| {
            let mut parameters = Parameters::default();
            parameters.take_body(body).expect("it is JSON");
            for (name, value) in expected {
                assert_eq!(parameters.get(name), Some(*value), "{name} of {body}");
            }
            assert_eq!(parameters.count(), expected.len(), "{parameters:?} of {body}");
        };
        check(r#"{"where": "a \u003c 1", "limit": 5}"#, &[("subset__where", "a < 1"), ("subset__limit", "5")]);
        check(r#"{"subset": {"where": "a", "limit": null}, "table": "t"}"#, &[("subset__where", "a"), ("table", "t")]);
        check(r#"{"params": {"1": "x"}, "params[1]": 7}"#, &[("subset__params", r#"{"1": "x"}"#), ("params[1]", "7")]);
        check(r#"{"x": [1, 2], "secret": "s", "subset": {"y": 1}, "wheres": {"where": "a"}}"#, &[]);
        assert!(
            Parameters::default().take_body(r#"{"x": [1,}"#).is_err() && Parameters::default().take_body("[]").is_err()
        );
    }
}
