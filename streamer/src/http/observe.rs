//! Every request has an id, is counted, and leaves one line at debug. What a client sends as a secret stands in headers
//! and is never written; queries are not written either.

use crate::metrics::Metrics;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderName, HeaderValue, Method};
use axum::middleware::Next;
use axum::response::Response;
use std::sync::Arc;
use std::time::Instant;
use tracing::Instrument;
use uuid::Uuid;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Longer ids of clients and proxies are replaced.
const LONGEST_ID: usize = 64;

pub(super) async fn observe(State(metrics): State<Arc<Metrics>>, request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let id =
        request.headers().get(REQUEST_ID).and_then(given).map_or_else(|| Uuid::now_v7().to_string(), str::to_owned);
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    // Shapes are found before the routes: their clients spell the path in several ways.
    let unrouted = if path.ends_with("/shape") { "/v1/shape" } else { "none" };
    let route = request.extensions().get::<MatchedPath>().map_or(unrouted, MatchedPath::as_str).to_owned();
    let span = tracing::info_span!("request", %id);
    let mut response = next.run(request).instrument(span.clone()).await;
    let (status, elapsed) = (response.status().as_u16(), begun.elapsed());
    metrics.answered(known(&method), &route, status, elapsed);
    span.in_scope(|| tracing::debug!(%method, path, status, micros = elapsed.as_micros(), "answered"));
    if let Ok(id) = HeaderValue::try_from(id) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response
}

/// An id that came with the request, if it may stand in a log.
fn given(value: &HeaderValue) -> Option<&str> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b':' | b'/');
    value.to_str().ok().filter(|id| (1..=LONGEST_ID).contains(&id.len()) && id.bytes().all(plain))
}

/// Clients may name methods as they like; a metric's label they may not.
fn known(method: &Method) -> &str {
    match *method {
        Method::GET | Method::POST | Method::PUT | Method::DELETE | Method::HEAD | Method::OPTIONS | Method::PATCH => {
            method.as_str()
        }
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids() {
        let check = |id: &str, expected: bool| {
            assert_eq!(given(&HeaderValue::from_str(id).expect("a value")).is_some(), expected, "{id}");
        };
        check("0190b5a0-0000-7000-8000-000000000001", true);
        check("trace/1:2.a_b", true);
        check("", false);
        check(&"x".repeat(65), false);
        check("a b", false);
        check("a\"b", false);
        check("a=1", false);
    }
}
