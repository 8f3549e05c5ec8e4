//! `GET /api/v1/events/since`

use super::App;
use super::access::{Caller, filter};
use super::problem::Problem;
use super::stream::parse_cursor;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::header;
use axum::response::IntoResponse;
use bytes::BytesMut;
use headwater_model::clock::Micros;
use serde::Deserialize;

pub(super) const DEFAULT_LIMIT: usize = 100;

/// More rows in one answer bring nothing, and the page must be held in memory.
pub(super) const MAX_LIMIT: usize = 1000;

#[derive(Debug, Deserialize)]
pub(super) struct Parameters {
    cursor: Option<String>,
    entity_type: Option<String>,
    entity_id: Option<String>,
    since: Option<String>,
    limit: Option<usize>,
    tenant_id: Option<String>,
}

pub(super) async fn get(
    State(app): State<App>,
    Caller(caller): Caller,
    parameters: Result<Query<Parameters>, QueryRejection>,
) -> Result<impl IntoResponse, Problem> {
    let Query(parameters) = parameters.map_err(|error| Problem::bad_request("invalid_parameter", error.body_text()))?;
    let cursor = parse_cursor(parameters.cursor.as_deref())?;
    let mut filter = filter(&caller, parameters.tenant_id, parameters.entity_type.as_deref(), parameters.entity_id)?;
    filter.recorded_since = parameters.since.map(|text| timestamp("since", &text)).transpose()?;
    let limit = parameters.limit.unwrap_or(DEFAULT_LIMIT).clamp(1, MAX_LIMIT);
    let mut out = BytesMut::from(r#"{"events":["#);
    let (cursor, has_more) = app.events.since(cursor, &filter, limit, &mut out).await?;
    out.extend_from_slice(format!(r#"],"cursor":"{cursor}","has_more":{has_more}}}"#).as_bytes());
    Ok(([(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")], out.freeze()))
}

/// Read here and written anew: Postgres knows fewer zones (none beyond 15:59:59) than RFC 3339 allows. And `+` for a
/// space, which is how `+00:00` arrives.
pub(super) fn timestamp(name: &str, text: &str) -> Result<Micros, Problem> {
    Micros::parse(&text.replace(' ', "+")).ok_or_else(|| {
        let detail = format!("`{name}` must be an RFC 3339 time, as 2026-01-02T03:04:05Z");
        Problem::bad_request("invalid_parameter", detail)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_reach_postgres_in_one_form() {
        let check = |text: &str, expected: Option<&str>| {
            assert_eq!(timestamp("since", text).ok().map(|time| time.to_string()).as_deref(), expected, "{text}");
        };
        check("2026-01-02T03:04:05Z", Some("2026-01-02T03:04:05.000000Z"));
        check("2026-01-02T03:04:05 02:00", Some("2026-01-02T01:04:05.000000Z"));
        check("2026-01-01T00:00:00+23:59", Some("2025-12-31T00:01:00.000000Z"));
        check("0001-01-01T00:00:00+23:59", None);
        check("yesterday", None);
    }
}
