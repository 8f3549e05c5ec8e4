//! What is enabled, what happened, what is wrong.

use super::guard::Operator;
use super::{failed, json};
use crate::console::Asked;
use crate::events::Filter;
use crate::http::App;
use crate::http::problem::Problem;
use crate::http::since::timestamp;
use crate::http::stream::parse_cursor;
use crate::identity::Reach;
use crate::metrics::Transport;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::response::IntoResponse;
use bytes::BytesMut;
use serde::Deserialize;
use serde_json::json;
use std::time::Duration;
use tokio::time::Instant;

/// Events in one answer: more than anybody reads at once, and little enough for one page.
const MAX_EVENTS: u16 = 500;

const DEFAULT_EVENTS: u16 = 100;

/// How long the live tail waits for something: below what proxies give up at, most of them at 60 seconds.
const TAIL_PATIENCE: Duration = Duration::from_secs(25);

type Asking<T> = Result<Query<T>, QueryRejection>;
type OfEntity = Result<Path<(String, String)>, PathRejection>;

#[derive(Debug, Deserialize)]
pub(super) struct Newest {
    entity_type: Option<String>,
    entity_id: Option<String>,
    source: Option<String>,
    tenant_id: Option<String>,
    before: Option<i64>,
    limit: Option<u16>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Tail {
    cursor: Option<String>,
    entity_type: Option<String>,
    entity_id: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Timeline {
    tenant_id: Option<String>,
    /// Time and id of the last event of the page before.
    since: Option<String>,
    after: Option<String>,
    limit: Option<u16>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Instantly {
    tenant_id: Option<String>,
    as_of: Option<String>,
}

pub(super) async fn entities(
    State(app): State<App>,
    Operator(console): Operator,
) -> Result<impl IntoResponse, Problem> {
    let (entities, exact) = console.entities().await.map_err(failed)?;
    json(&json!({ "entities": entities, "events_exact": exact, "notification": app.notification.to_string() }))
}

pub(super) async fn problems(Operator(console): Operator) -> Result<impl IntoResponse, Problem> {
    json(&json!({ "problems": console.problems().await.map_err(failed)? }))
}

/// The newest events, and a cursor from which [`tail`] goes on without a hole.
pub(super) async fn newest(
    State(app): State<App>,
    Operator(console): Operator,
    asked: Asking<Newest>,
) -> Result<impl IntoResponse, Problem> {
    let asked = given(asked)?;
    let limit = limit(asked.limit);
    let asked = Asked {
        entity_type: name(asked.entity_type)?,
        entity_id: name(asked.entity_id)?,
        source: name(asked.source)?,
        tenant_id: name(asked.tenant_id)?,
        before: asked.before,
    };
    // Before the events are read: what is committed in between comes twice, and is known by its id.
    let cursor = app.events.settled();
    let events = console.newest(&asked, limit.into()).await.map_err(failed)?;
    json(&json!({ "events": events, "cursor": cursor.map(|cursor| cursor.to_string()) }))
}

/// What happened behind the cursor; waits for something.
pub(super) async fn tail(
    State(app): State<App>,
    Operator(_): Operator,
    asked: Asking<Tail>,
) -> Result<impl IntoResponse, Problem> {
    let asked = given(asked)?;
    let cursor = parse_cursor(asked.cursor.as_deref())?;
    let cursor = cursor
        .ok_or_else(|| Problem::bad_request("invalid_cursor", "begin with /console/api/events, which has a cursor"))?;
    let (entity_type, entity_id) = (name(asked.entity_type)?, name(asked.entity_id)?);
    let filter = Filter::new(Reach::Everything).of_types(entity_type.as_deref()).of_entity(entity_id);
    let over = Instant::now() + TAIL_PATIENCE;
    let _place = app.streams.enter(Transport::Poll, &Reach::Everything)?;
    let mut watch = app.events.watch(&filter);
    let mut out = BytesMut::from(r#"{"events":["#);
    let (nothing, mut from) = (out.len(), cursor);
    let has_more = loop {
        let (cursor, has_more) = app.events.since(Some(from), &filter, MAX_EVENTS.into(), &mut out).await?;
        from = cursor;
        if has_more || out.len() > nothing || !watch.something(over).await {
            break has_more;
        }
    };
    out.extend_from_slice(format!(r#"],"cursor":"{from}","has_more":{has_more}}}"#).as_bytes());
    Ok((super::HEADERS, out.freeze()))
}

pub(super) async fn timeline(
    Operator(console): Operator,
    path: OfEntity,
    asked: Asking<Timeline>,
) -> Result<impl IntoResponse, Problem> {
    let (entity_type, entity_id) = of_entity(path)?;
    let asked = given(asked)?;
    let tenant = name(asked.tenant_id)?;
    let after = match (asked.since, asked.after) {
        (None, None) => None,
        (Some(since), Some(after)) => Some((timestamp("since", &since)?, uuid("after", after)?)),
        _ => {
            return Err(Problem::bad_request(
                "invalid_parameter",
                "`since` and `after` are time and id of one event: give both",
            ));
        }
    };
    let limit = limit(asked.limit);
    let events = console.timeline(&entity_type, &entity_id, after.as_ref(), tenant.as_deref(), limit.into()).await;
    json(&json!({ "entity_type": entity_type, "entity_id": entity_id, "events": events.map_err(failed)? }))
}

pub(super) async fn state(
    Operator(console): Operator,
    path: OfEntity,
    asked: Asking<Instantly>,
) -> Result<impl IntoResponse, Problem> {
    let (entity_type, entity_id) = of_entity(path)?;
    let asked = given(asked)?;
    let tenant = name(asked.tenant_id)?;
    let as_of = asked.as_of.map(|text| timestamp("as_of", &text)).transpose()?;
    let state = match console.state(&entity_type, &entity_id, as_of, tenant.as_deref()).await {
        // no_data_found: retention has dropped what was then.
        Err(error) if error.state() == Some("P0002") => return Err(crate::events::ReadError::Forgotten.into()),
        state => state.map_err(failed)?,
    };
    let as_of = as_of.map(|time| time.to_string());
    json(&json!({ "entity_type": entity_type, "entity_id": entity_id, "as_of": as_of, "state": state }))
}

fn limit(asked: Option<u16>) -> u16 {
    asked.unwrap_or(DEFAULT_EVENTS).clamp(1, MAX_EVENTS)
}

fn given<T>(asked: Asking<T>) -> Result<T, Problem> {
    let Query(asked) = asked.map_err(|error| Problem::bad_request("invalid_parameter", error.body_text()))?;
    Ok(asked)
}

fn of_entity(path: OfEntity) -> Result<(String, String), Problem> {
    let Path((entity_type, entity_id)) =
        path.map_err(|error| Problem::bad_request("invalid_parameter", error.body_text()))?;
    Ok((text(entity_type)?, text(entity_id)?))
}

/// An empty one, as forms send it, is none.
pub(super) fn name(given: Option<String>) -> Result<Option<String>, Problem> {
    given.filter(|name| !name.is_empty()).map(text).transpose()
}

fn text(given: String) -> Result<String, Problem> {
    if given.contains('\0') {
        return Err(Problem::bad_request("invalid_parameter", "no name has the character U+0000"));
    }
    Ok(given)
}

pub(super) fn uuid(name: &str, given: String) -> Result<String, Problem> {
    match given.parse::<uuid::Uuid>() {
        Ok(_) => Ok(given),
        Err(_) => {
            Err(Problem::bad_request("invalid_parameter", format!("`{name}` must be the id of an event, a UUID")))
        }
    }
}
