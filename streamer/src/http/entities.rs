//! `GET /api/v1/entities/{type}/snapshot`, `…/{id}`, `…/{id}/history`: states of entities.

use super::App;
use super::access::{Caller, reach};
use super::problem::Problem;
use super::since::{DEFAULT_LIMIT, MAX_LIMIT, timestamp};
use axum::body::Body;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::header;
use axum::response::IntoResponse;
use bytes::BytesMut;
use futures_util::StreamExt;
use futures_util::stream::{once, unfold};
use headwater_model::clock::Micros;
use serde::Deserialize;
use serde_json::json;

const JSON: [(header::HeaderName, &str); 2] =
    [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")];

#[derive(Debug, Deserialize)]
pub(super) struct Parameters {
    tenant_id: Option<String>,
    as_of: Option<String>,
    cursor: Option<String>,
    limit: Option<usize>,
}

type Asked = Result<Query<Parameters>, QueryRejection>;
type OfEntity = Result<Path<(String, String)>, PathRejection>;

pub(super) async fn snapshot(
    State(app): State<App>,
    Caller(caller): Caller,
    path: Result<Path<String>, PathRejection>,
    parameters: Asked,
) -> Result<impl IntoResponse, Problem> {
    let Path(entity_type) = path.map_err(|error| Problem::bad_request("invalid_parameter", error.body_text()))?;
    let parameters = asked(parameters, &[&entity_type])?;
    let reach = reach(&caller, parameters.tenant_id)?;
    let (first, rest) = app.events.snapshot(entity_type, reach).await?;
    let rest = unfold(rest, async |mut rest| {
        let chunk = rest.recv().await?;
        if let Err(error) = &chunk {
            tracing::warn!(%error, "a snapshot breaks off");
        }
        Some((chunk, rest))
    });
    // Compression asks once more behind the end.
    let body = Body::from_stream(once(async { Ok(first) }).chain(rest).fuse());
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson"), (header::CACHE_CONTROL, "no-store")], body))
}

pub(super) async fn entity(
    State(app): State<App>,
    Caller(caller): Caller,
    path: OfEntity,
    parameters: Asked,
) -> Result<impl IntoResponse, Problem> {
    let Path((entity_type, entity_id)) =
        path.map_err(|error| Problem::bad_request("invalid_parameter", error.body_text()))?;
    let parameters = asked(parameters, &[&entity_type, &entity_id])?;
    let reach = reach(&caller, parameters.tenant_id)?;
    let missing = || Problem::not_found_here("this entity does not exist, or is not yours");
    let Some(as_of) = parameters.as_of else {
        let found = app.events.entity(&entity_type, &entity_id, &reach).await?;
        return Ok((JSON, Body::from(found.ok_or_else(missing)?)));
    };
    let as_of = timestamp("as_of", &as_of)?;
    let state = app.events.entity_as_of(&entity_type, &entity_id, &reach, as_of).await?.ok_or_else(missing)?;
    let (entity_type, entity_id, as_of) = (json!(entity_type), json!(entity_id), as_of.to_string());
    let body = format!(r#"{{"entity_type":{entity_type},"entity_id":{entity_id},"as_of":"{as_of}","state":{state}}}"#);
    Ok((JSON, Body::from(body)))
}

pub(super) async fn history(
    State(app): State<App>,
    Caller(caller): Caller,
    path: OfEntity,
    parameters: Asked,
) -> Result<impl IntoResponse, Problem> {
    let Path((entity_type, entity_id)) =
        path.map_err(|error| Problem::bad_request("invalid_parameter", error.body_text()))?;
    let parameters = asked(parameters, &[&entity_type, &entity_id])?;
    let reach = reach(&caller, parameters.tenant_id)?;
    let after = parameters.cursor.filter(|text| !text.is_empty()).map(|text| place(&text)).transpose()?;
    let limit = parameters.limit.unwrap_or(DEFAULT_LIMIT).clamp(1, MAX_LIMIT);
    let mut out = BytesMut::from(r#"{"events":["#);
    let next = app.events.history(&entity_type, &entity_id, &reach, after, limit, &mut out).await?;
    out.extend_from_slice(format!(r#"],"cursor":{},"has_more":{}}}"#, json!(next), next.is_some()).as_bytes());
    Ok((JSON, Body::from(out.freeze())))
}

fn asked(parameters: Asked, names: &[&str]) -> Result<Parameters, Problem> {
    let Query(parameters) = parameters.map_err(|error| Problem::bad_request("invalid_parameter", error.body_text()))?;
    if names.iter().copied().chain(parameters.tenant_id.as_deref()).any(|name| name.contains('\0')) {
        return Err(Problem::bad_request("invalid_parameter", "no name has the character U+0000"));
    }
    Ok(parameters)
}

/// Time and id of an event, as [`history`] hands them out: `2026-01-02T03:04:05.678901Z_<uuid>`.
fn place(text: &str) -> Result<(Micros, String), Problem> {
    let place = text.split_once('_').and_then(|(time, id)| {
        let is_uuid = id.len() == 36 && id.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
        Some((Micros::parse(time)?, is_uuid.then(|| id.to_owned())?))
    });
    place.ok_or_else(|| Problem::bad_request("invalid_cursor", "the cursor is not one that this service gave out"))
}
