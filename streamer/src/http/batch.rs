//! `POST /api/v1/events/batch`

use super::App;
use super::access::Caller;
use super::body;
use super::problem::Problem;
use crate::identity::Identity;
use crate::ingest::Outcome;
use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use serde_json::{Value, json};

pub(super) async fn post(
    State(app): State<App>,
    Caller(caller): Caller,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Value>, Problem> {
    let outcome =
        judge(&app, &caller, &headers, body).await.inspect_err(|problem| app.metrics.refused(problem.code()))?;
    count(&app, &outcome);
    let cursor = app.events.settled().map(|cursor| cursor.to_string());
    Ok(Json(json!({ "accepted": outcome.accepted, "rejected": outcome.rejected, "cursor": cursor })))
}

async fn judge(app: &App, caller: &Identity, headers: &HeaderMap, body: Body) -> Result<Outcome, Problem> {
    require_json(headers)?;
    let text = body::read(headers, body, &app.bodies).await?;
    let claims = caller.ingest_claims(&app.apply_role);
    Ok(app.ingest.batch(&text.text, &claims).await?)
}

pub(super) fn count(app: &App, outcome: &Outcome) {
    let codes = outcome.rejected.iter().filter_map(|reject| reject.get("code")?.as_str());
    app.metrics.judged(outcome.accepted.len(), codes);
}

/// A browser sends some media types to any address without asking first (CORS "simple requests"): without this a page
/// on the web could write into a developer's streamer on localhost. Browsers put `Origin` on such requests, so `curl -d`,
/// which names a form unless told otherwise, may pass.
fn require_json(headers: &HeaderMap) -> Result<(), Problem> {
    let value = headers.get(header::CONTENT_TYPE).map_or("", |value| value.to_str().unwrap_or("?"));
    let media_type = value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let plain_tool = !headers.contains_key(header::ORIGIN)
        && matches!(media_type.as_str(), "" | "application/x-www-form-urlencoded");
    if media_type == "application/json" || plain_tool {
        return Ok(());
    }
    let detail = format!("a batch has `content-type: application/json`, not `{value}`");
    Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", detail))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_of_other_sites_cannot_write() {
        let check = |content_type: Option<&str>, origin: Option<&str>, allowed: bool| {
            let mut headers = HeaderMap::new();
            for (name, value) in [(header::CONTENT_TYPE, content_type), (header::ORIGIN, origin)] {
                if let Some(value) = value {
                    headers.insert(name, value.parse().expect("a header value"));
                }
            }
            assert_eq!(require_json(&headers).is_ok(), allowed, "{content_type:?} {origin:?}");
        };
        let site = Some("https://evil.example");
        check(Some("application/json"), None, true);
        check(Some("Application/JSON; charset=utf-8"), site, true); // the browser has asked first
        check(None, None, true);
        check(Some("application/x-www-form-urlencoded"), None, true);
        check(None, site, false);
        check(Some("application/x-www-form-urlencoded"), site, false);
        check(Some("application/x-www-form-urlencoded"), Some("null"), false);
        check(Some("text/plain"), site, false);
        check(Some("text/plain"), None, false);
    }
}
