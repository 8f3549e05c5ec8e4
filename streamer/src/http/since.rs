//! `GET /api/v1/events/since`

use super::App;
use super::access::{Caller, filter, until};
use super::problem::Problem;
use super::stream::parse_cursor;
use crate::config::parse_duration;
use crate::metrics::Transport;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::header;
use axum::response::IntoResponse;
use bytes::BytesMut;
use headwater_model::clock::Micros;
use serde::Deserialize;
use std::time::Duration;
use tokio::time::Instant;

pub(super) const DEFAULT_LIMIT: usize = 100;

/// More rows in one answer bring nothing, and the page must be held in memory.
pub(super) const MAX_LIMIT: usize = 1000;

/// Proxies give up on an answer that takes longer, most of them at 60 seconds.
const LONGEST_WAIT: Duration = Duration::from_secs(55);

const EVENTS: &str = r#"{"events":["#;

#[derive(Debug, Deserialize)]
pub(super) struct Parameters {
    cursor: Option<String>,
    entity_type: Option<String>,
    entity_id: Option<String>,
    since: Option<String>,
    limit: Option<usize>,
    tenant_id: Option<String>,
    wait: Option<String>,
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
    let patience = parameters.wait.as_deref().map(wait).transpose()?.unwrap_or_default();
    let over = Instant::now() + patience;
    let over = until(&caller).map_or(over, |expires| expires.min(over));
    let mut waiting = match patience {
        Duration::ZERO => None,
        _ => Some((app.streams.enter(Transport::Poll, &caller.reach)?, app.events.watch(&filter))),
    };
    let mut out = BytesMut::from(EVENTS);
    let mut from = cursor;
    let (cursor, has_more) = loop {
        let (cursor, has_more) = app.events.since(from, &filter, limit, &mut out).await?;
        let empty = out.len() == EVENTS.len() && !has_more;
        let Some((_, watch)) = waiting.as_mut().filter(|_| empty) else { break (cursor, has_more) };
        if !watch.something(over).await {
            break (cursor, has_more);
        }
        from = Some(cursor);
    };
    out.extend_from_slice(format!(r#"],"cursor":"{cursor}","has_more":{has_more}}}"#).as_bytes());
    Ok(([(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")], out.freeze()))
}

/// How long a poller wants to wait: seconds, or with a unit. Longer than [`LONGEST_WAIT`] is as long.
fn wait(text: &str) -> Result<Duration, Problem> {
    let patience = if text == "0" { Ok(Duration::ZERO) } else { parse_duration(text) };
    patience.map(|patience| patience.min(LONGEST_WAIT)).map_err(|_| {
        Problem::bad_request("invalid_parameter", "`wait` must be seconds, as 20, or a time with its unit, as 500ms")
    })
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
    fn waits() {
        let check = |text: &str, expected: Option<u64>| {
            assert_eq!(wait(text).ok(), expected.map(Duration::from_millis), "{text}");
        };
        check("0", Some(0));
        check("20", Some(20_000));
        check("250ms", Some(250));
        check("10min", Some(55_000));
        for wrong in ["", "soon", "-1", "1e9"] {
            check(wrong, None);
        }
    }

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
