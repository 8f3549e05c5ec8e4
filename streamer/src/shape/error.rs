//! Why a request for a shape is not answered with rows. The texts are those that ElectricSQL's clients know.

use crate::error::Error;
use serde_json::{Value, json};
use std::time::Duration;

/// What a client can do, in the end: mend the request, start anew, or come back later.
#[derive(Debug, thiserror::Error)]
pub enum ShapeError {
    /// 400: parameters are wrong; by parameter, what is wrong with each.
    #[error("invalid request: {0}")]
    Invalid(Value),
    /// 409: the client's copy cannot be brought up to date, it starts anew; with the handle to start with, if there is one.
    #[error("the shape has to be fetched anew")]
    Refetch(Option<String>),
    /// 404: nothing to delete.
    #[error("No existing shape found")]
    NotFound,
    /// 405: deletion is off.
    #[error("DELETE not allowed")]
    NotAllowed,
    /// 503: later.
    #[error("{}", body)]
    Unavailable {
        /// The body.
        body: Value,
        /// When to come back.
        retry_after: Duration,
    },
    /// 503: the service itself may not read the table.
    #[error("The service may not read the table; its log tells why")]
    Unreadable,
    /// The database, or something that should not be.
    #[error(transparent)]
    Failed(Error),
}

impl ShapeError {
    /// One parameter is wrong.
    pub fn invalid(parameter: &str, message: impl Into<String>) -> Self {
        Self::Invalid(json!({ parameter: [message.into()] }))
    }

    /// One parameter of the subset is wrong.
    pub fn invalid_subset(parameter: &str, message: impl Into<String>) -> Self {
        Self::Invalid(json!({ "subset": { parameter: [message.into()] } }))
    }

    /// Too many requests at once.
    pub(super) fn overloaded(kind: &str, limit: usize) -> Self {
        let message = format!("Concurrent {kind} request limit exceeded (limit: {limit}), please retry");
        let body = json!({ "code": "concurrent_request_limit_exceeded", "message": message });
        // Not all at once.
        let seconds = 6 + std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |now| u64::from(now.subsec_nanos() % 5));
        Self::Unavailable { body, retry_after: Duration::from_secs(seconds) }
    }

    /// The shape's rows, or its place in the log, could not be had this time.
    pub(super) fn not_begun(retry_after: u64) -> Self {
        Self::busy("Failed to create shape, please retry", retry_after)
    }

    /// Come back in so many seconds.
    pub fn busy(message: &str, retry_after: u64) -> Self {
        Self::Unavailable { body: json!({ "message": message }), retry_after: Duration::from_secs(retry_after) }
    }
}

impl From<Error> for ShapeError {
    fn from(error: Error) -> Self {
        if error.is_transient() {
            tracing::warn!(%error, "a shape's request has to be repeated");
            let body = json!({ "code": "database_unreachable", "error": "Database is unreachable" });
            return Self::Unavailable { body, retry_after: Duration::from_secs(10) };
        }
        Self::Failed(error)
    }
}

impl From<tokio_postgres::Error> for ShapeError {
    fn from(error: tokio_postgres::Error) -> Self {
        Error::from(error).into()
    }
}
