//! Headers of shapes' answers: who may read them, how long they may be kept, and the cursor that makes live clients meet.

use super::App;
use super::shape::{ShapeCaller, unique};
use crate::shape::{Asked, ShapeOffset};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// What scripts of other origins may read.
const EXPOSED: &str = "electric-cursor,electric-handle,electric-has-data,electric-offset,electric-schema,electric-up-to-date,electric-internal-known-error,retry-after";

/// What they may send. ElectricSQL lets the first two through only; a POST of JSON, or a token, needs the others.
const ALLOWED: [&str; 4] = ["if-none-match", "traceparent", "content-type", "authorization"];

/// 2024-10-09T00:00:00Z, from which cursors count.
const CURSOR_EPOCH: Duration = Duration::from_hours(480_120);

/// On every answer.
pub(super) fn common(headers: &mut HeaderMap, origin: Option<&HeaderValue>, methods: &'static str) {
    let any = HeaderValue::from_static("*");
    let server = concat!("Headwater/", env!("CARGO_PKG_VERSION"));
    headers.insert("electric-server", HeaderValue::from_static(server));
    if let Ok(id) = HeaderValue::from_str(&format!("{:016x}", unique())) {
        headers.insert("x-request-id", id);
    }
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.cloned().unwrap_or(any));
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(methods));
    headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(EXPOSED));
}

/// `OPTIONS`: whoever asks is told; no secret is needed.
pub(super) fn preflight(headers: &HeaderMap) -> Response {
    let asked = headers.get(header::ACCESS_CONTROL_REQUEST_HEADERS).and_then(|value| value.to_str().ok());
    let allowed = asked.unwrap_or_default().split(',').map(|name| name.trim().to_ascii_lowercase());
    let allowed: Vec<String> = allowed.filter(|name| ALLOWED.contains(&name.as_str())).collect();
    let mut response = StatusCode::NO_CONTENT.into_response();
    let answer = response.headers_mut();
    answer.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("86400"));
    answer.insert(header::CONNECTION, HeaderValue::from_static("keep-alive"));
    if let (false, Ok(list)) = (allowed.is_empty(), HeaderValue::from_str(&allowed.join(","))) {
        answer.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, list);
    }
    response
}

/// How an answer may be kept.
#[derive(Debug)]
pub(super) struct Caching {
    directive: String,
    /// For the holder of a token alone.
    pub(super) private: bool,
    poll: Duration,
}

impl Caching {
    pub(super) fn of(app: &App, method: &Method, asked: &Asked, caller: &ShapeCaller) -> Self {
        let settings = app.shapes.settings();
        let scope = if caller.private { "private" } else { "public" };
        let directive = if *method == Method::POST {
            "no-cache".to_owned()
        } else if asked.offset == ShapeOffset::Start {
            // A week: its handle, once it is dead, leads to a new one.
            let shared = if caller.private { "" } else { " s-maxage=3600," };
            format!("{scope}, max-age=604800,{shared} stale-while-revalidate=2629746")
        } else if asked.sse {
            format!("{scope}, max-age={}", settings.sse_timeout.as_secs().saturating_sub(1))
        } else if asked.live {
            format!("{scope}, max-age=5, stale-while-revalidate=5")
        } else {
            format!("{scope}, max-age={}, stale-while-revalidate={}", app.cache_max_age, app.cache_stale_age)
        };
        Self { directive, private: caller.private, poll: settings.long_poll_timeout }
    }

    pub(super) fn of_answer(&self) -> String {
        self.directive.clone()
    }

    /// Live clients at the same offset share a URL within a period, so that a cache makes one request of theirs; a client
    /// that was quicker than the period gets a place of its own.
    pub(super) fn cursor(&self, given: Option<u64>) -> u64 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH + CURSOR_EPOCH).unwrap_or_default();
        next_cursor(now, self.poll, given, unique())
    }
}

fn next_cursor(now: Duration, period: Duration, given: Option<u64>, random: u64) -> u64 {
    let seconds = period.as_secs();
    if seconds == 0 {
        return 0;
    }
    let exact = now.as_secs() + u64::from(now.subsec_nanos() > 0);
    let next = exact.div_ceil(seconds) * seconds;
    match given {
        Some(given) if given >= next => given.saturating_add(1 + random % 3600),
        _ => next,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_meet_and_move_on() {
        let check = |now_ms: u64, period_s: u64, given: Option<u64>, expected: u64| {
            let cursor = next_cursor(Duration::from_millis(now_ms), Duration::from_secs(period_s), given, 3599);
            assert_eq!(cursor, expected, "{now_ms} {given:?}");
        };
        check(100_000, 20, None, 100);
        check(100_001, 20, None, 120);
        check(119_999, 20, Some(100), 120);
        check(119_999, 20, Some(120), 120 + 3600);
        check(119_999, 20, Some(500), 500 + 3600);
        check(119_999, 0, Some(500), 0);
    }
}
