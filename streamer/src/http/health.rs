//! `GET /health`: 200 while the log follows the WAL, else 503.

use super::App;
use crate::log::Feed;
use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use serde_json::json;

pub(super) async fn get(State(app): State<App>) -> impl IntoResponse {
    let feed = *app.log.feed().borrow();
    let (code, status) = match feed {
        Feed::Streaming => (StatusCode::OK, "active"),
        Feed::Starting => (StatusCode::SERVICE_UNAVAILABLE, "starting"),
        Feed::Interrupted => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
    };
    let tip = app.log.tip();
    let body = json!({
        "status": status,
        "version": env!("CARGO_PKG_VERSION"),
        "epoch": tip.epoch.map(|epoch| epoch.to_string()),
        "head": tip.head.to_string(),
        "ring": { "start": tip.start.to_string(), "bytes": tip.bytes },
        "watermark": tip.watermark.map(|watermark| watermark.position.0),
    });
    (code, [(header::CACHE_CONTROL, "no-store")], Json(body))
}
