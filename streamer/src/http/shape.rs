//! `/v1/shape`, `/v1/health` and `/`: ElectricSQL's protocol. Texts and headers are those that its clients know.

use super::access::{bearer, until};
use super::body;
use super::shape_answers::{answered, deleted, failed, paged, plain_error, without_body};
use super::shape_headers::{self, Caching};
use super::{App, Origins};
use crate::identity::{Reach, Refusal};
use crate::log::Feed;
use crate::shape::Parameters;
use axum::extract::{Query, Request};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use percent_encoding::percent_decode_str;
use serde_json::json;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::time::Instant;

/// What this path means, however it is written: `/v1//shape/` and `/v1/%73hape` are the same, so that nobody gets by the
/// secret with another spelling. None if it is not one of ours.
pub(super) async fn route(app: App, origins: &Origins, request: Request) -> Result<Response, Box<Request>> {
    let path = request.uri().path();
    if !(path == "/" || path.contains("/v1") || path.contains('%') || path.starts_with("//")) {
        return Err(Box::new(request));
    }
    let decoded = percent_decode_str(request.uri().path()).decode_utf8_lossy().into_owned();
    let path: Vec<&str> = decoded.split('/').filter(|part| !part.is_empty()).collect();
    let methods = if path == ["v1", "shape"] { "GET, POST, HEAD, DELETE, OPTIONS" } else { "GET, HEAD" };
    let origin = request.headers().get(header::ORIGIN).cloned();
    let mut response = match *path.as_slice() {
        [] if matches!(*request.method(), Method::GET | Method::HEAD) => StatusCode::OK.into_response(),
        ["v1", "health"] if matches!(*request.method(), Method::GET | Method::HEAD) => health(&app),
        ["v1", "shape"] if is_foreign_page(&app, origins, request.headers()) => {
            plain_error(StatusCode::FORBIDDEN, &json!({ "message": FOREIGN_PAGE }))
        }
        ["v1", "shape"] => shape(&app, request).await,
        [] | ["v1", ..] => (StatusCode::NOT_FOUND, "Not found").into_response(),
        _ => return Err(Box::new(request)),
    };
    shape_headers::common(response.headers_mut(), origin.as_ref(), methods);
    Ok(response)
}

fn health(app: &App) -> Response {
    let (code, status) = match *app.log.feed().borrow() {
        Feed::Streaming => (StatusCode::OK, "active"),
        Feed::Starting => (StatusCode::ACCEPTED, "starting"),
        Feed::Interrupted => (StatusCode::ACCEPTED, "waiting"),
    };
    let headers =
        [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-cache, no-store, must-revalidate")];
    (code, headers, json!({ "status": status }).to_string()).into_response()
}

/// A filter and its parameters, several times over.
const MAX_BODY_BYTES: usize = 256 << 10;

const FOREIGN_PAGE: &str =
    "Forbidden - without authentication, pages of other sites may not read: start with --cors-origin to let one in";

/// Whether a browser says that the page of another site asks, and whoever asks is let in: then the page would read what only
/// its reader can reach. ElectricSQL's answers are for any origin, which is right where a secret or a token is needed.
fn is_foreign_page(app: &App, origins: &Origins, headers: &HeaderMap) -> bool {
    let is_allowed = |origin: &HeaderValue| origin.to_str().is_ok_and(|origin| origins.allow(origin));
    app.guard.is_open()
        && app.shape_secret.is_none()
        && headers.get("sec-fetch-site").is_some_and(|site| site == "cross-site")
        && !headers.get(header::ORIGIN).is_some_and(is_allowed)
}

async fn shape(app: &App, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let method = parts.method.clone();
    if method == Method::OPTIONS {
        return shape_headers::preflight(&parts.headers);
    }
    if !matches!(method, Method::GET | Method::HEAD | Method::POST | Method::DELETE) {
        return (StatusCode::NOT_FOUND, "Not found").into_response();
    }
    let mut parameters = parameters(&parts.uri);
    let caller = match authenticate(app, &parts.headers, &parameters).await {
        Ok(caller) => caller,
        Err(refusal) => return refused(&refusal),
    };
    if method == Method::POST {
        let text = match body::read_within(&parts.headers, body, &app.bodies, MAX_BODY_BYTES).await {
            Ok(text) => text,
            Err(problem) => return problem.into_response(),
        };
        if let Err(response) = take_body(&text.text, &mut parameters) {
            return *response;
        }
    }
    let outcome = if method == Method::DELETE {
        match parameters.deletion() {
            Ok(deletion) => app.shapes.delete(deletion, &caller.reach).await.map(|()| deleted()),
            Err(error) => Err(error),
        }
    } else {
        match parameters.asked().and_then(|asked| Ok((asked, parameters.subset()?))) {
            Ok((asked, Some(subset))) => {
                let page = app.shapes.subset(&asked, &subset, &caller.reach).await;
                page.map(|page| paged(page, caller.private))
            }
            Ok((asked, None)) => {
                let caching = Caching::of(app, &method, &asked, &caller);
                let seen = (parts.headers.get(header::IF_NONE_MATCH), asked.offset);
                let answer = app.shapes.answer(&asked, &caller.reach, caller.until).await;
                answer.map(|answer| answered(answer, &asked, seen, &caching))
            }
            Err(error) => Err(error),
        }
    };
    let response = outcome.unwrap_or_else(|error| failed(&error, caller.private));
    if method == Method::HEAD { without_body(response) } else { response }
}

fn parameters(uri: &Uri) -> Parameters {
    // What is not UTF-8 becomes the replacement character, and no name that anybody knows.
    let pairs = Query::<Vec<(String, String)>>::try_from_uri(uri).map(|Query(pairs)| pairs);
    Parameters::new(pairs.unwrap_or_default())
}

/// Who asks for a shape.
#[derive(Debug)]
pub(super) struct ShapeCaller {
    pub(super) reach: Reach,
    pub(super) until: Option<Instant>,
    /// Whether the `Authorization` header says so; then answers are for its holder alone: it is no part of the address by
    /// which caches know them.
    pub(super) private: bool,
}

/// The shared secret of a trusted proxy, or a token.
async fn authenticate(app: &App, headers: &HeaderMap, parameters: &Parameters) -> Result<ShapeCaller, Refusal> {
    let trusted = || ShapeCaller { reach: Reach::Everything, until: None, private: false };
    if let Some(secret) = &app.shape_secret {
        let given = parameters.get("secret").or_else(|| parameters.get("api_secret"));
        match given {
            Some(given) if secret.is(given) => return Ok(trusted()),
            Some(_) => return Err(Refusal::Missing),
            // Without a token either, nobody is let in because others need not say who they are.
            None if !headers.contains_key(header::AUTHORIZATION) => return Err(Refusal::Missing),
            None => {}
        }
    }
    let caller = app.guard.identify(bearer(headers)?).await?;
    if app.shape_secret.is_some() && caller.reach == Reach::Everything && app.guard.is_open() {
        return Err(Refusal::Missing);
    }
    let private = !app.guard.is_open();
    Ok(ShapeCaller { until: until(&caller), reach: caller.reach, private })
}

fn refused(refusal: &Refusal) -> Response {
    let (status, message) = match refusal {
        Refusal::Missing => (StatusCode::UNAUTHORIZED, "Unauthorized - Invalid API secret".to_owned()),
        Refusal::Unavailable(why) => (StatusCode::SERVICE_UNAVAILABLE, (*why).to_owned()),
        other => (StatusCode::UNAUTHORIZED, format!("Unauthorized - {other}")),
    };
    plain_error(status, &json!({ "message": message }))
}

/// A body's parameters join those of the query.
fn take_body(text: &str, parameters: &mut Parameters) -> Result<(), Box<Response>> {
    if text.trim().is_empty() {
        return Ok(());
    }
    let refuse = |body: &serde_json::Value| Box::new(plain_error(StatusCode::BAD_REQUEST, body));
    let taken = if text.trim_start().starts_with('{') {
        parameters.take_body(text)
    } else {
        match serde_json::from_str::<serde::de::IgnoredAny>(text) {
            Ok(_) => return Err(refuse(&json!({ "error": "Request body must be a JSON object" }))),
            Err(error) => Err(error),
        }
    };
    let told =
        |error: serde_json::Error| json!({ "error": "Invalid JSON in request body", "details": error.to_string() });
    taken.map_err(|error| refuse(&told(error)))
}

/// Never the same again on this machine.
pub(super) fn unique() -> u64 {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_nanos());
    #[expect(clippy::cast_possible_truncation, reason = "only its changing matters")]
    let now = now as u64;
    now.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ COUNT.fetch_add(1, Ordering::Relaxed)
}
