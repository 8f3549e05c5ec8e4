//! `POST /api/v1/events/batch`

use super::App;
use super::body;
use super::problem::Problem;
use crate::ingest::Claims;
use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use serde_json::{Value, json};

pub(super) async fn post(State(app): State<App>, headers: HeaderMap, body: Body) -> Result<Json<Value>, Problem> {
    let text = body::read(&headers, body, app.max_body_bytes).await?;
    // Without authentication the events themselves say whose they are.
    let claims = Claims { role: Some(app.apply_role.to_string()), trusted: true, ..Claims::default() };
    let outcome = app.ingest.batch(&text, &claims).await?;
    let cursor = app.events.settled().map(|cursor| cursor.to_string());
    Ok(Json(json!({ "accepted": outcome.accepted, "rejected": outcome.rejected, "cursor": cursor })))
}
