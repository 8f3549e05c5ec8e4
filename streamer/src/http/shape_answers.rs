//! Answers of `/v1/shape`: what is known of a shape as headers and bodies that ElectricSQL's clients know.

use super::shape::unique;
use super::shape_headers::Caching;
use crate::shape::{Answer, Body as Messages, MUST_REFETCH, Page, Pieces, ShapeError, ShapeOffset};
use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt;
use futures_util::stream::unfold;
use serde_json::json;
use std::convert::Infallible;
use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hash, Hasher};

/// A part of a shape's log.
pub(super) fn answered(
    answer: Answer,
    asked: &crate::shape::Asked,
    (if_none_match, requested): (Option<&HeaderValue>, ShapeOffset),
    caching: &Caching,
) -> Response {
    let mut headers = HeaderMap::new();
    let mut set = |name: &'static str, value: &str| {
        if let Ok(value) = HeaderValue::from_bytes(value.as_bytes()) {
            headers.insert(HeaderName::from_static(name), value);
        }
    };
    set("electric-handle", &answer.handle);
    set("electric-offset", &answer.offset.to_string());
    if asked.live {
        set("electric-cursor", &caching.cursor(asked.cursor).to_string());
    } else {
        set("electric-schema", &ascii(&answer.schema));
    }
    if answer.up_to_date {
        set("electric-up-to-date", "");
    }
    set("electric-has-data", if answer.has_data { "true" } else { "false" });
    // Nothing in a while is never the same again.
    let suffix = if answer.has_data { String::new() } else { format!(":{:x}", unique()) };
    // What a column may hold can change where rows do not.
    let schema = if asked.live { String::new() } else { format!(":{:x}", checksum(&answer.schema)) };
    let etag = format!("\"{}:{requested}:{}{schema}{suffix}\"", answer.handle, answer.offset);
    // Weak: the same bytes may be on their way packed or not.
    set("etag", &format!("W/{etag}"));
    set("cache-control", &caching.of_answer());
    if caching.private {
        set("vary", "authorization");
    }
    let known = if_none_match
        .and_then(|value| value.to_str().ok())
        .is_some_and(|list| list.split(',').any(|tag| tag.trim().trim_start_matches("W/") == etag));
    match answer.body {
        _ if known => (StatusCode::NOT_MODIFIED, headers).into_response(),
        Messages::Array(pieces) => {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
            whole(headers, pieces)
        }
        Messages::Stream(stream) => {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
            headers.insert(header::CONNECTION, HeaderValue::from_static("keep-alive"));
            // nginx would hold changes back.
            headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
            let blocks = unfold(stream, async |mut stream| {
                let blocks = stream.next().await?;
                Some((Ok::<_, Infallible>(blocks), stream))
            });
            (headers, Body::from_stream(blocks.fuse())).into_response()
        }
    }
}

/// A subset.
pub(super) fn paged(page: Page, private: bool) -> Response {
    let mut headers = HeaderMap::new();
    let (offset, schema) = (page.offset.to_string(), ascii(&page.schema));
    let given = [
        ("content-type", "application/json"),
        ("cache-control", "no-cache"),
        ("electric-handle", page.handle.as_str()),
        ("electric-offset", offset.as_str()),
        ("electric-schema", schema.as_str()),
        ("electric-snapshot", "true"),
        ("electric-has-data", "true"),
        ("vary", if private { "authorization" } else { "origin" }),
    ];
    for (name, value) in given {
        if let Ok(value) = HeaderValue::from_bytes(value.as_bytes()) {
            headers.insert(HeaderName::from_static(name), value);
        }
    }
    whole(headers, page.body)
}

/// It was forgotten.
pub(super) fn deleted() -> Response {
    (StatusCode::ACCEPTED, [(header::CACHE_CONTROL, "no-cache")]).into_response()
}

/// Why there are no rows.
pub(super) fn failed(error: &ShapeError, private: bool) -> Response {
    match error {
        ShapeError::Invalid(errors) => {
            plain_error(StatusCode::BAD_REQUEST, &json!({ "message": "Invalid request", "errors": errors }))
        }
        ShapeError::Refetch(handle) => refetch(handle.as_deref(), private),
        ShapeError::NotFound => plain_error(StatusCode::NOT_FOUND, &json!({ "message": error.to_string() })),
        ShapeError::NotAllowed => plain_error(StatusCode::METHOD_NOT_ALLOWED, &json!({ "message": error.to_string() })),
        ShapeError::Unavailable { body, retry_after } => unavailable(body, retry_after.as_secs()),
        ShapeError::Unreadable => unavailable(&json!({ "message": error.to_string() }), 10),
        ShapeError::Failed(error) => {
            tracing::error!(%error, "a shape's request failed");
            plain_error(StatusCode::INTERNAL_SERVER_ERROR, &json!({ "error": "Internal server error" }))
        }
    }
}

fn unavailable(body: &serde_json::Value, retry_after: u64) -> Response {
    let mut response = plain_error(StatusCode::SERVICE_UNAVAILABLE, body);
    let headers = response.headers_mut();
    headers.insert(header::RETRY_AFTER, retry_after.into());
    headers.insert("electric-internal-known-error", HeaderValue::from_static("true"));
    response
}

fn refetch(handle: Option<&str>, private: bool) -> Response {
    let scope = if private { "private" } else { "public" };
    let (handle, caching) = match handle.map(HeaderValue::from_str) {
        Some(Ok(handle)) => (Some(handle), format!("{scope}, max-age=60, must-revalidate")),
        // Whoever asks again may be told of a handle.
        _ => (None, "no-store".to_owned()),
    };
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Ok(caching) = HeaderValue::from_str(&caching) {
        headers.insert(header::CACHE_CONTROL, caching);
    }
    if private {
        headers.insert(header::VARY, HeaderValue::from_static("authorization"));
    }
    if let Some(handle) = handle {
        headers.insert("electric-handle", handle);
    }
    (StatusCode::CONFLICT, headers, MUST_REFETCH).into_response()
}

/// An error that nobody keeps.
pub(super) fn plain_error(status: StatusCode, body: &serde_json::Value) -> Response {
    let headers = [
        (header::CONTENT_TYPE, "application/json"),
        (header::CACHE_CONTROL, "no-store"),
        (HeaderName::from_static("surrogate-control"), "no-store"),
    ];
    (status, headers, body.to_string()).into_response()
}

/// A body whose length is known. A large one is sent as it is read, and holds what it needs until then.
fn whole(mut headers: HeaderMap, pieces: Pieces) -> Response {
    headers.insert(header::CONTENT_LENGTH, pieces.length().into());
    if let Some(bytes) = pieces.small() {
        return (headers, bytes).into_response();
    }
    let parts = unfold(pieces, async |mut pieces| Some((pieces.next().await?, pieces)));
    // Compression asks once more behind the end.
    (headers, Body::from_stream(parts.fuse())).into_response()
}

/// The answer to HEAD: the same headers, the length too.
pub(super) fn without_body(response: Response) -> Response {
    let (parts, _) = response.into_parts();
    Response::from_parts(parts, Body::empty())
}

/// JSON for a header, which browsers read as Latin-1: outside of its strings there is nothing but ASCII.
fn ascii(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for character in json.chars() {
        if matches!(character, ' '..='~') {
            text.push(character);
        } else {
            for unit in character.encode_utf16(&mut [0; 2]) {
                let _ = write!(text, "\\u{unit:04x}");
            }
        }
    }
    text
}

/// The same on every replica of this build; another one only sends the answer again.
fn checksum(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_ascii() {
        assert_eq!(ascii(r#"{"a b":{"type":"int4"}}"#), r#"{"a b":{"type":"int4"}}"#);
        assert_eq!(ascii("{\"\u{e4}\u{1f600}\u{7f}\":1}"), r#"{"\u00e4\ud83d\ude00\u007f":1}"#);
    }
}
