//! RFC 9457: every error is a problem document with a stable `code`. No database text leaks.

use crate::error::Error;
use crate::events::ReadError;
use crate::identity::Refusal;
use crate::ingest::IngestError;
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

/// Clients that can wait are told to wait this long.
const RETRY_AFTER_SECONDS: u16 = 1;

/// An answer that is not what was asked for.
#[derive(Debug)]
pub(super) struct Problem {
    status: StatusCode,
    code: &'static str,
    detail: String,
    /// What the header `www-authenticate` says, if it must be there.
    challenge: Option<&'static str>,
}

impl Problem {
    pub(super) fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self { status, code, detail: detail.into(), challenge: None }
    }

    pub(super) fn bad_request(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, detail)
    }

    pub(super) fn too_large(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", detail)
    }

    pub(super) fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", "there is nothing at this path")
    }

    pub(super) fn not_found_here(detail: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", detail)
    }

    pub(super) fn method_not_allowed(method: &Method) -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", format!("{method} means nothing at this path"))
    }

    pub(super) fn forbidden(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", detail)
    }

    /// The problem document.
    pub(super) fn body(&self) -> Value {
        json!({
            "type": format!("urn:headwater:problem:{}", self.code),
            "title": self.status.canonical_reason(),
            "status": self.status.as_u16(),
            "detail": self.detail,
            "code": self.code,
        })
    }

    pub(super) fn code(&self) -> &'static str {
        self.code
    }

    pub(super) fn is_unauthenticated(&self) -> bool {
        self.status == StatusCode::UNAUTHORIZED
    }

    /// Whether the same request may succeed in a moment.
    pub(super) fn may_pass(&self) -> bool {
        matches!(self.status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS)
    }

    /// A limit of ours that others fill.
    pub(super) fn busy(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "busy", detail)
    }

    /// A limit that the caller's own tenant fills.
    pub(super) fn too_many(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, "too_many_streams", detail)
    }

    fn unavailable(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", detail)
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        if error.is_transient() {
            tracing::warn!(%error, "a request has to be repeated");
            return Self::unavailable("the database cannot answer just now; send the request again");
        }
        tracing::error!(%error, "a request failed");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "the server failed; its log has the reason")
    }
}

impl From<Refusal> for Problem {
    /// RFC 6750 3.
    fn from(refusal: Refusal) -> Self {
        let (code, challenge) = match &refusal {
            Refusal::Missing => ("unauthenticated", "Bearer"),
            Refusal::Expired => ("token_expired", r#"Bearer error="invalid_token""#),
            Refusal::Invalid(_) => ("invalid_token", r#"Bearer error="invalid_token""#),
            Refusal::Unavailable(why) => return Self::unavailable(*why),
        };
        Self { challenge: Some(challenge), ..Self::new(StatusCode::UNAUTHORIZED, code, refusal.to_string()) }
    }
}

impl From<ReadError> for Problem {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Expired => Self::new(
                StatusCode::GONE,
                "cursor_expired",
                "the cursor belongs to another history of the database (it was restored or promoted): start anew, and keep your own pending events",
            ),
            ReadError::UnknownEntity => {
                Self::new(StatusCode::NOT_FOUND, "unknown_entity", "no enabled table is this entity")
            }
            ReadError::Dropped => Self::new(
                StatusCode::GONE,
                "cursor_expired",
                "events behind the cursor have been dropped by retention: start anew from a snapshot, and keep your own pending events",
            ),
            ReadError::Forgotten => Self::new(
                StatusCode::GONE,
                "history_dropped",
                "retention has dropped the history of that time: ask for a later `as_of`",
            ),
            ReadError::PollingOnly => Self::new(
                StatusCode::CONFLICT,
                "polling_only",
                "nothing is pushed of these entities (their notification backend is noop): poll /api/v1/events/since",
            ),
            ReadError::NotReady(why) => Self::unavailable(why),
            ReadError::Database(error) => error.into(),
        }
    }
}

impl From<IngestError> for Problem {
    fn from(error: IngestError) -> Self {
        let detail = error.to_string();
        match error {
            IngestError::Malformed(_) => Self::bad_request("malformed_json", detail),
            IngestError::NotABatch(_) => Self::bad_request("invalid_batch", detail),
            IngestError::TooMany { .. } => Self::too_large(detail),
            // The role is the token's, and whether we may act as it is the database's word.
            IngestError::Database(error) if error.state() == Some("28000") => {
                tracing::warn!(%error, "a batch was refused for its role");
                Self::forbidden("the token's `role` is no role that events may be applied under here")
            }
            IngestError::Database(error) => error.into(),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = (self.status, self.body().to_string()).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(challenge) = self.challenge {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        if self.may_pass() {
            headers.insert(header::RETRY_AFTER, RETRY_AFTER_SECONDS.into());
        }
        response
    }
}
