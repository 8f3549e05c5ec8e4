//! `GET /health`: 200 while the log follows the WAL, else 503 and why. `GET /live`: 200 while the process answers at all.

use super::App;
use crate::log::Feed;
use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use serde_json::json;

const STARTING: &str = "the streamer has not caught up with Postgres yet";
const INTERRUPTED: &str = "the connection to Postgres is lost and being tried again";
const LOST: &str = "Postgres has removed WAL that the slot needs; the slot is made anew";

pub(super) async fn get(State(app): State<App>) -> impl IntoResponse {
    let feed = *app.log.feed().borrow();
    let tip = app.log.tip();
    // While nothing streams the database is most likely away, and a probe must not wait for it.
    let found = if feed == Feed::Streaming { Some(app.vitals.look().await) } else { None };
    let slot = found.as_ref().and_then(|found| found.slot.as_ref());
    let end = found.as_ref().and_then(|found| found.wal_end);
    let (status, reason) = match feed {
        Feed::Starting => ("starting", Some(STARTING)),
        Feed::Interrupted => ("unavailable", Some(INTERRUPTED)),
        Feed::Streaming if slot.is_some_and(|slot| slot.wal_status == "lost") => ("unavailable", Some(LOST)),
        Feed::Streaming => ("active", None),
    };
    let code = if reason.is_none() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let publisher = app.publisher.as_ref().map(|publisher| {
        json!({
            "connected": publisher.is_connected(),
            "published": publisher.published(),
            "gaps": publisher.gaps(),
            "rewinds": publisher.rewinds(),
        })
    });
    let body = json!({
        "status": status,
        "reason": reason,
        "version": env!("CARGO_PKG_VERSION"),
        "epoch": tip.epoch.map(|epoch| epoch.to_string()),
        "head": tip.head.to_string(),
        "lag_bytes": end.map(|end| end.saturating_sub(tip.head.0)),
        "database": found.as_ref().map(|_| if end.is_some() { "answers" } else { "does not answer" }),
        "slot": slot.map(|slot| json!({
            "name": app.vitals.slot(),
            "active": slot.active,
            "wal_status": slot.wal_status,
            "retained_bytes": slot.retained_bytes,
            "safe_bytes": slot.safe_bytes,
            "remade": app.slot.remade(),
        })),
        "ring": { "start": tip.start.to_string(), "bytes": tip.bytes },
        "notification": { "backend": app.notification.to_string(), "redis": publisher },
        "watermark": tip.watermark.map(|watermark| watermark.position.0),
    });
    (code, [(header::CACHE_CONTROL, "no-store")], Json(body))
}

pub(super) async fn live() -> impl IntoResponse {
    ([(header::CACHE_CONTROL, "no-store")], Json(json!({ "status": "alive" })))
}
