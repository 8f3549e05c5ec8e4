//! `GET /api/v1/events/stream`: Server-Sent Events.

use super::App;
use super::access::{Caller, filter, until};
use super::problem::Problem;
use super::takeover::Offer;
use crate::metrics::Transport;
use axum::Extension;
use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, header};
use axum::response::IntoResponse;
use futures_util::stream::unfold;
use headwater_model::cursor::Cursor;
use serde::Deserialize;
use std::convert::Infallible;

#[derive(Debug, Deserialize)]
pub(super) struct Parameters {
    entity_type: Option<String>,
    entity_id: Option<String>,
    tenant_id: Option<String>,
    cursor: Option<String>,
}

pub(super) async fn get(
    State(app): State<App>,
    Caller(caller): Caller,
    offer: Option<Extension<Offer>>,
    headers: HeaderMap,
    parameters: Result<Query<Parameters>, QueryRejection>,
) -> Result<impl IntoResponse, Problem> {
    let Query(parameters) = parameters.map_err(|error| Problem::bad_request("invalid_parameter", error.body_text()))?;
    // A browser that reconnects has the old URL and the newer header.
    let header = match headers.get("last-event-id") {
        Some(value) => Some(value.to_str().map_err(|_| invalid_cursor())?).filter(|text| !text.is_empty()),
        None => None,
    };
    let cursor = parse_cursor(header.or(parameters.cursor.as_deref()))?;
    let filter = filter(&caller, parameters.tenant_id, parameters.entity_type.as_deref(), parameters.entity_id)?;
    let place = app.streams.enter(Transport::Sse, &caller.reach)?;
    let stream = app.events.stream(cursor, filter, until(&caller)).await?;
    let headers = [
        (header::CONTENT_TYPE, "text/event-stream; charset=utf-8"),
        (header::CACHE_CONTROL, "no-store"),
        // nginx would hold events back.
        (header::HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    if let Some(Extension(offer)) = offer {
        offer.put(stream, Box::new(place));
        return Ok((headers, Body::empty()));
    }
    let blocks = unfold((stream, place), async |(mut stream, place)| {
        let blocks = stream.next().await?;
        Some((Ok::<_, Infallible>(blocks), (stream, place)))
    });
    Ok((headers, Body::from_stream(blocks)))
}

/// An absent or empty cursor is none.
pub(super) fn parse_cursor(text: Option<&str>) -> Result<Option<Cursor>, Problem> {
    match text {
        None | Some("") => Ok(None),
        Some(text) => text.parse().map(Some).map_err(|_| invalid_cursor()),
    }
}

fn invalid_cursor() -> Problem {
    Problem::bad_request("invalid_cursor", "the cursor is not one that this service gave out")
}
