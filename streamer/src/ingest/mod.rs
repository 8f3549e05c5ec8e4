//! The way back: batches of events from clients, into `headwater.ingest`.
//!
//! Each event is looked at on its own first, for what Postgres could only refuse together with the whole batch.

mod border;
mod json;

use crate::database::Database;
use crate::error::Error;
use border::Checked;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// Writers may take one of so many of the pool's connections: those that wait for a locked row must not keep readers
/// from theirs.
const POOL_SHARE: usize = 2;

/// But always so many, so that one writer that waits does not stop the others.
const LEAST_WRITERS: usize = 2;

/// How long a batch waits for its turn before its sender is told to come back.
const TURN_PATIENCE: Duration = Duration::from_secs(5);

/// Takes batches.
#[derive(Debug)]
pub struct Ingest {
    database: Database,
    max_events: usize,
    turns: Arc<Semaphore>,
}

/// What became of a batch.
#[derive(Debug, Serialize)]
pub struct Outcome {
    /// Ids, those that an earlier try had stored included.
    pub accepted: Vec<Value>,
    /// One object per event that was not taken: `id`, `index` in the batch, `code`, `reason`, and what the code adds.
    pub rejected: Vec<Map<String, Value>>,
}

/// Why a batch as a whole was not taken.
#[derive(Debug, thiserror::Error)]
pub enum IngestError {
    /// The body is not JSON.
    #[error("the body is not JSON: {0}")]
    Malformed(serde_json::Error),
    /// It is, but not a batch.
    #[error("the body must be an object with an array `events`: {0}")]
    NotABatch(serde_json::Error),
    /// More events than a batch may have.
    #[error("the batch has {given} events, and {limit} is the limit: send it in parts")]
    TooMany {
        /// How many there were.
        given: usize,
        /// How many there may be.
        limit: usize,
    },
    /// The database. If transient, the whole batch may be sent again.
    #[error(transparent)]
    Database(#[from] Error),
}

#[derive(Deserialize)]
struct Batch<'a> {
    #[serde(borrow)]
    events: Vec<&'a RawValue>,
}

#[derive(Deserialize)]
struct Answer {
    accepted: Vec<Value>,
    rejected: Vec<Map<String, Value>>,
}

impl Ingest {
    /// At most `max_events` per batch, over a database with `pool_size` connections.
    pub fn new(database: Database, pool_size: usize, max_events: usize) -> Self {
        let writers = (pool_size / POOL_SHARE).max(LEAST_WRITERS);
        Self { database, max_events, turns: Arc::new(Semaphore::new(writers)) }
    }

    /// Stores the events of `body`, the JSON text of a batch. `claims` say who sends: the token's, and `role`, the
    /// database role whose policies judge the write, and `trusted`, whether tenant and user are taken from each event.
    pub async fn batch(&self, body: &str, claims: &Value) -> Result<Outcome, IngestError> {
        let batch: Batch<'_> = serde_json::from_str(body).map_err(|error| {
            if error.is_data() { IngestError::NotABatch(error) } else { IngestError::Malformed(error) }
        })?;
        let given = batch.events.len();
        if given > self.max_events {
            return Err(IngestError::TooMany { given, limit: self.max_events });
        }
        let Checked { array, indexes, mut rejected } = border::check(&batch.events);
        let mut accepted = Vec::new();
        if !indexes.is_empty() {
            let answer = self.store(array, claims).await?;
            accepted = answer.accepted;
            rejected.extend(answer.rejected.into_iter().map(|reject| with_index_of_batch(reject, &indexes)));
        }
        rejected.sort_by_key(|reject| reject.get("index").and_then(Value::as_u64));
        Ok(Outcome { accepted, rejected })
    }

    async fn store(&self, events: String, claims: &Value) -> Result<Answer, Error> {
        let claims = claims.to_string();
        let turn = timeout(TURN_PATIENCE, Arc::clone(&self.turns).acquire_owned()).await;
        let Ok(Ok(turn)) = turn else { return Err(Error::Timeout("other batches hold all connections for writing")) };
        let database = self.database.clone();
        // A task of its own: the statement goes on when its sender hangs up, and until it ends, neither the turn nor the
        // connection, which is busy with it, may go to another.
        let stored = tokio::spawn(async move {
            let _turn = turn;
            let client = database.get().await?;
            let statement = client
                .prepare_cached("select headwater.ingest($1::text::pg_catalog.jsonb, $2::text::pg_catalog.jsonb)::text")
                .await?;
            client.query_one(&statement, &[&events, &claims]).await?.try_get::<_, String>(0).map_err(Error::from)
        });
        let answer = stored.await.map_err(|error| Error::Protocol(format!("a batch's task failed: {error}")))??;
        serde_json::from_str(&answer)
            .map_err(|error| Error::Protocol(format!("headwater.ingest answered something else: {error}")))
    }
}

/// The database counts within what it was given; clients count within what they sent.
fn with_index_of_batch(mut reject: Map<String, Value>, indexes: &[usize]) -> Map<String, Value> {
    let inner = reject.get("index").and_then(Value::as_u64).and_then(|index| usize::try_from(index).ok());
    if let Some(index) = inner.and_then(|inner| indexes.get(inner)) {
        reject.insert("index".to_owned(), json!(index));
    }
    reject
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_of_the_wrong_shape() {
        let check = |body: &str, data: Option<bool>| {
            let error = serde_json::from_str::<Batch<'_>>(body).err();
            assert_eq!(error.map(|error| error.is_data()), data, "{body}");
        };
        check(r#"{"events":[]}"#, None);
        check(r#"{"events":[1,"x",{}],"more":true}"#, None);
        check(r"[]", Some(true));
        check(r"{}", Some(true));
        check(r#"{"events":{}}"#, Some(true));
        check(r#"{"events":[}"#, Some(false));
        check(r#"{"events":[{"a":1]}"#, Some(false));
        check("", Some(false));
        check(r#"{"events":[]} x"#, Some(false));
    }

    #[test]
    fn indexes_are_those_of_the_request() {
        let reject = |index: u64| Map::from_iter([("index".to_owned(), json!(index))]);
        assert_eq!(with_index_of_batch(reject(1), &[0, 2, 3]), reject(2));
        assert_eq!(with_index_of_batch(Map::new(), &[0]), Map::new());
    }
}
