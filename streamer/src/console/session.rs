//! The console's transactions: as a role that may do just what is needed, with names and time bounded.

use super::Console;
use crate::error::Error;
use deadpool_postgres::{Object, Transaction};
use std::time::Duration;
use tokio::sync::SemaphorePermit;
use tokio::time::timeout;
use tokio_postgres::IsolationLevel;

/// Operators' questions may be large, and must not become a load: what takes longer is ended.
const STATEMENT_TIMEOUT: &str = "5s";

/// How long a question waits for those before it.
const PATIENCE: Duration = Duration::from_secs(5);

/// `lock_timeout`: behind somebody's ALTER TABLE, to say so is better than to wait.
const LOCK_TIMEOUT: &str = "2s";

/// By which rights a statement runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Sees events, states and the registry.
    Reader,
    /// Sees dead letters and decides about them. Granted by the operator, or not.
    Admin,
}

impl Role {
    fn name(self) -> &'static str {
        match self {
            Self::Reader => "headwater_reader",
            Self::Admin => "headwater_admin",
        }
    }
}

/// A connection, and the right to use it.
pub(super) struct Session<'a> {
    client: Object,
    _permit: SemaphorePermit<'a>,
}

impl Console {
    pub(super) async fn session(&self) -> Result<Session<'_>, Error> {
        let permit = timeout(PATIENCE, self.queries.acquire()).await;
        let permit = permit.ok().and_then(Result::ok);
        let permit = permit.ok_or(Error::Timeout("the console has as many questions as it may have at a time"))?;
        Ok(Session { client: self.database.get().await?, _permit: permit })
    }
}

impl Session<'_> {
    /// A transaction in which everything is seen as of one moment and nothing is written.
    pub(super) async fn read(&mut self, role: Role) -> Result<Transaction<'_>, Error> {
        self.begin(role, IsolationLevel::RepeatableRead, true).await
    }

    /// A transaction that may write what the role may write.
    pub(super) async fn write(&mut self, role: Role) -> Result<Transaction<'_>, Error> {
        self.begin(role, IsolationLevel::ReadCommitted, false).await
    }

    async fn begin(
        &mut self,
        role: Role,
        isolation: IsolationLevel,
        read_only: bool,
    ) -> Result<Transaction<'_>, Error> {
        let builder = self.client.build_transaction().isolation_level(isolation).read_only(read_only);
        let transaction = builder.start().await?;
        let settings = format!(
            "set local search_path = pg_catalog, pg_temp; set local statement_timeout = '{STATEMENT_TIMEOUT}'; \
             set local lock_timeout = '{LOCK_TIMEOUT}'; set local role {}",
            role.name()
        );
        transaction.batch_execute(&settings).await?;
        Ok(transaction)
    }
}
