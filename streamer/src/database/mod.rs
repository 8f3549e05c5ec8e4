//! Ordinary queries: a small pool, every session pinned to the settings that the wire formats rely on.
//!
//! [`Target`] says where Postgres is, [`tls`] secures the way there; the replication connection uses both too.

mod target;
pub mod tls;

pub use target::Target;

use crate::error::Error;
use deadpool_postgres::{Manager, ManagerConfig, Object, Pool, RecyclingMethod, Runtime, Status};
use std::time::Duration;
use tls::Tls;
use tokio_postgres::{CancelToken, Client, Config};

/// How long a request waits for a connection before it is told to come back.
const POOL_PATIENCE: Duration = Duration::from_secs(5);

/// The same text for the same value whatever role and database have set; no session hangs in a transaction, nor in
/// a statement whose reader may be long gone (first rows of shapes have all the time they need); and no name
/// of ours is looked for where others may put things.
const SESSION: &str = "-c TimeZone=UTC -c DateStyle=ISO -c IntervalStyle=iso_8601 -c extra_float_digits=1 \
     -c bytea_output=hex -c search_path=pg_catalog,pg_temp -c statement_timeout=60s -c idle_in_transaction_session_timeout=300s";

/// The way to Postgres for everything but the WAL.
#[derive(Clone, Debug)]
pub struct Database {
    pool: Pool,
    config: Config,
    tls: Tls,
}

impl Database {
    /// Connects lazily: a Postgres that is down fails the request, not the start.
    pub fn new(target: &Target, pool_size: usize) -> Result<Self, Error> {
        let Target { mut config, tls } = target.clone();
        let options = config.get_options().map_or_else(|| SESSION.to_owned(), |given| format!("{given} {SESSION}"));
        config.options(options);
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(POOL_PATIENCE);
        }
        let recycling = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let manager = Manager::from_config(config.clone(), tls.clone(), recycling);
        let pool = Pool::builder(manager)
            .max_size(pool_size)
            .runtime(Runtime::Tokio1)
            .wait_timeout(Some(POOL_PATIENCE))
            .create_timeout(Some(POOL_PATIENCE))
            .build()
            .map_err(|error| Error::Protocol(error.to_string()))?;
        Ok(Self { pool, config, tls })
    }

    /// A connection from the pool.
    pub async fn get(&self) -> Result<Object, Error> {
        Ok(self.pool.get().await?)
    }

    /// How many connections there are, and how many requests wait for one.
    pub fn pool(&self) -> Status {
        self.pool.status()
    }

    /// Ends the statement that a connection is at; whoever waits for it gets an error.
    pub async fn cancel(&self, statement: CancelToken) {
        if let Err(error) = statement.cancel_query(self.tls.clone()).await {
            tracing::debug!(%error, "a statement could not be ended");
        }
    }

    /// A connection outside the pool, for one owner who keeps it.
    pub async fn dedicated(&self, application_name: &str) -> Result<Client, Error> {
        let mut config = self.config.clone();
        config.application_name(application_name);
        let (client, connection) = config.connect(self.tls.clone()).await?;
        // It ends with the client; the client's next query tells the error.
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a database connection ended");
            }
        });
        Ok(client)
    }
}
