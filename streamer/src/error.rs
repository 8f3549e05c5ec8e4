//! The one error type of the crate: what was wrong, with which value, and what to do.

use std::fmt;
use std::io;

/// Why the streamer cannot go on, or not now.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The set-up is wrong; it does not mend itself. Ends the process at start-up.
    #[error("{problem}\n  to mend it: {remedy}")]
    Setup {
        /// What is wrong.
        problem: String,
        /// What to do.
        remedy: String,
    },
    /// The slot cannot deliver what it should any more: it has to be made anew.
    #[error("the replication slot is of no use any more: {0}")]
    SlotLost(ServerError),
    /// Postgres refused what the replication connection asked.
    #[error("{0}")]
    Server(#[from] ServerError),
    /// The network.
    #[error("cannot {action}: {source}")]
    Io {
        /// What was tried.
        action: String,
        /// Why it failed.
        source: io::Error,
    },
    /// Postgres sent what the protocol does not have there.
    #[error("unexpected answer from Postgres: {0}")]
    Protocol(String),
    /// An ordinary query failed.
    #[error("{}", describe(.0))]
    Query(#[from] tokio_postgres::Error),
    /// No connection from the pool.
    #[error("no database connection: {0}")]
    Pool(#[from] deadpool_postgres::PoolError),
    /// Something took longer than it may.
    #[error("{0}")]
    Timeout(&'static str),
}

impl Error {
    /// A set-up error.
    pub fn setup(problem: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::Setup { problem: problem.into(), remedy: remedy.into() }
    }

    /// For `map_err` on I/O.
    pub fn io(action: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action: action.into(), source }
    }

    /// The SQLSTATE, if Postgres refused.
    pub fn state(&self) -> Option<&str> {
        match self {
            Self::Query(error) => error.code().map(tokio_postgres::error::SqlState::code),
            Self::Server(error) | Self::SlotLost(error) => Some(&error.code),
            _ => None,
        }
    }

    /// Whether waiting does not help.
    pub fn is_setup(&self) -> bool {
        matches!(self, Self::Setup { .. })
    }

    /// Whether the same call may succeed in a moment: connection, serialization, locks, shutdown, resources.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Query(error) => match error.code() {
                Some(code) => is_transient_state(code.code()),
                None => {
                    error.is_closed()
                        || std::error::Error::source(error).is_some_and(<dyn std::error::Error>::is::<io::Error>)
                }
            },
            Self::Server(error) | Self::SlotLost(error) => is_transient_state(&error.code),
            Self::Pool(_) | Self::Io { .. } | Self::Timeout(_) => true,
            Self::Setup { .. } | Self::Protocol(_) => false,
        }
    }
}

/// SQLSTATE classes of the Postgres manual, appendix A.
fn is_transient_state(code: &str) -> bool {
    // 08 connection, 40 rollback (serialization, deadlock), 53 resources, 57 operator intervention (shutdown, cancel),
    // 55P03 lock not available, 25006 read-only (a standby before its promotion).
    matches!(code.get(..2), Some("08" | "40" | "53" | "57")) || matches!(code, "55P03" | "25006")
}

/// `tokio_postgres::Error` prints only "db error"; what Postgres said is in its source.
fn describe(error: &tokio_postgres::Error) -> String {
    match (error.as_db_error(), std::error::Error::source(error)) {
        (Some(database), _) => format!("{} (SQLSTATE {})", database.message(), database.code().code()),
        (None, Some(source)) => format!("{error}: {source}"),
        (None, None) => error.to_string(),
    }
}

/// An `ErrorResponse` on the replication connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerError {
    /// SQLSTATE.
    pub code: String,
    /// The primary message.
    pub message: String,
    /// Detail, if any.
    pub detail: Option<String>,
}

impl std::error::Error for ServerError {}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (SQLSTATE {})", self.message, self.code)?;
        self.detail.as_ref().map_or(Ok(()), |detail| write!(f, ": {detail}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_succeed_in_a_moment() {
        let check = |code: &str, expected: bool| assert_eq!(is_transient_state(code), expected, "{code}");
        check("55P03", true); // lock_not_available: a row that another transaction holds
        check("40P01", true);
        check("57014", true);
        check("55006", false);
        check("23505", false);
        check("", false);
    }
}
