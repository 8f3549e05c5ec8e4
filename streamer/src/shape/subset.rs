//! A part of a shape's rows, as they are at one moment: chosen, ordered and cut by the client, beside the stream of changes.
//! It comes with the snapshot that it was read in, by which the client knows which changes it has already.

use super::copy::Lines;
use super::definition::Definition;
use super::error::ShapeError;
use super::filter::{parse_order_by, parse_subset};
use super::initial::{begin, condition_error};
use super::message::Framing;
use super::reader::Renderer;
use super::request::{Parameters, check_numbers};
use super::table::{TableSchema, quote};
use crate::database::Database;
use crate::seam;
use bytes::Bytes;
use futures_util::TryStreamExt;
use headwater_model::cursor::Lsn;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::pin::pin;
use std::time::Duration;
use tokio_postgres::IsolationLevel;

/// A subset is a page; who wants more than this wants a shape.
const MAX_BYTES: usize = 64 << 20;

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
    /// What stands in a request's body: a subset, in `subset` or beside everything else; the rest joins the query's.
    pub fn take_body(&mut self, object: serde_json::Map<String, Value>) {
        for (name, value) in object {
            match value {
                Value::Object(inner) if name == "subset" => {
                    for (name, value) in inner {
                        self.set_json(&format!("subset__{name}"), value);
                    }
                }
                value if NAMES.contains(&name.as_str()) => self.set_json(&format!("subset__{name}"), value),
                value => self.set_json(&name, value),
            }
        }
    }

    fn set_json(&mut self, name: &str, value: Value) {
        match value {
            Value::Null => {}
            Value::String(text) => self.set(name, text),
            other => self.set(name, other.to_string()),
        }
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

/// A JSON object of numbers and texts.
fn params(text: &str) -> Result<BTreeMap<u32, String>, ShapeError> {
    let wrong = |message: &str| ShapeError::invalid_subset("params", message);
    let value: Value = serde_json::from_str(text).map_err(|_| wrong("params must be valid JSON"))?;
    let Value::Object(object) = value else { return Err(wrong("params must be a JSON object")) };
    let mut params = BTreeMap::new();
    for (name, value) in object {
        let number = name.parse().map_err(|_| wrong("Parameters must be numbered starting from 1"))?;
        let text = match value {
            Value::String(text) => text,
            other => other.to_string(),
        };
        params.insert(number, text);
    }
    check_numbers(&params).map_err(|message| wrong(&message))?;
    Ok(params)
}

impl Subset {
    /// The query's end, from WHERE on.
    fn to_sql(&self, definition: &Definition) -> Result<String, ShapeError> {
        // What may not be asked about does not exist.
        let mut visible = TableSchema::clone(&definition.table);
        if let Some(queryable) = &definition.queryable {
            let names: Vec<&str> = queryable.iter().map(|at| definition.table.columns[*at].name.as_str()).collect();
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
    pub(super) async fn read(&self, database: &Database, renderer: &Renderer, mark: u64) -> Result<Bytes, ShapeError> {
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
        begin(&session, &definition.table).await?;
        session.batch_execute(&format!("set local statement_timeout = '{}s'", PATIENCE.as_secs())).await?;
        let read = definition.read();
        let names: Vec<String> = read.iter().map(|at| quote(&definition.table.columns[*at].name)).collect();
        let sql = format!("copy (select {} from {} where {condition}) to stdout", names.join(", "), definition.from());
        let client_error = |error: tokio_postgres::Error| match condition_error(error.into()) {
            ShapeError::Invalid(errors) => ShapeError::Invalid(serde_json::json!({ "subset": errors })),
            other => other,
        };
        let rows = session.copy_out(&sql).await.map_err(client_error)?;
        let mut rows = pin!(rows);
        let mut lines = Lines::new(definition.table.columns.len(), read);
        let mut writer = renderer.writer(Framing::Array);
        while let Some(line) = rows.try_next().await.map_err(client_error)? {
            lines.read(&line, |row| writer.marked_row(row, mark));
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
        Ok(body.into())
    }
}
