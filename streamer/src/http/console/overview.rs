//! How it goes: `POST …/sign-in`, `GET …/overview`.

use super::guard::Operator;
use super::{failed, json};
use crate::http::App;
use crate::http::problem::Problem;
use crate::log::Feed;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::response::IntoResponse;
use serde::Deserialize;
use serde_json::json;

#[derive(Debug, Deserialize)]
pub(super) struct Parameters {
    /// The last sample that the page has.
    after: Option<u64>,
}

/// What a page needs to know once. That it is answered at all says that the secret is good.
pub(super) async fn sign_in(Operator(console): Operator) -> Result<impl IntoResponse, Problem> {
    json(&json!({
        "version": env!("CARGO_PKG_VERSION"),
        "replica": console.replica,
        "writes": console.writes,
    }))
}

pub(super) async fn get(
    State(app): State<App>,
    Operator(console): Operator,
    parameters: Result<Query<Parameters>, QueryRejection>,
) -> Result<impl IntoResponse, Problem> {
    let Query(parameters) = parameters.map_err(|error| Problem::bad_request("invalid_parameter", error.body_text()))?;
    let feed = *app.log.feed().borrow();
    let tip = app.log.tip();
    // While nothing streams the database is most likely away, and the page says that rather than wait.
    let slots = if feed == Feed::Streaming { Some(console.slots().await.map_err(failed)) } else { None };
    let (slots, trouble) = match slots {
        None => (None, None),
        Some(Ok(slots)) => (Some(slots), None),
        Some(Err(problem)) => (None, Some(problem.body())),
    };
    let clients = app.metrics.open_streams();
    let clients: serde_json::Map<_, _> =
        clients.into_iter().map(|(name, count)| (name.to_owned(), count.into())).collect();
    let pool = app.database.pool();
    let publisher = app.publisher.as_ref().map(|publisher| {
        json!({
            "connected": publisher.is_connected(),
            "published": publisher.published(),
            "gaps": publisher.gaps(),
            "rewinds": publisher.rewinds(),
        })
    });
    json(&json!({
        "status": match feed {
            Feed::Starting => "starting",
            Feed::Streaming => "active",
            Feed::Interrupted => "unavailable",
        },
        "version": env!("CARGO_PKG_VERSION"),
        "replica": console.replica,
        "writes": console.writes,
        "uptime_seconds": console.started.elapsed().as_secs(),
        "epoch": tip.epoch.map(|epoch| epoch.to_string()),
        "head": tip.head.to_string(),
        "watermark": tip.watermark.map(|watermark| watermark.position.0),
        "watermark_age_ms": u64::try_from(app.events.watermark_age().as_millis()).unwrap_or(u64::MAX),
        "ring": { "start": tip.start.to_string(), "bytes": tip.bytes },
        "slot": app.vitals.slot(),
        "slots": slots,
        "slots_problem": trouble,
        "clients": clients,
        "pool": { "busy": pool.size.saturating_sub(pool.available), "most": pool.max_size, "waiting": pool.waiting },
        "notification": { "backend": app.notification.to_string(), "redis": publisher },
        "samples": console.samples.after(parameters.after),
    }))
}
