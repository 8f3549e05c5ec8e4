//! What makes the joint between a snapshot of tables and the log exact: the marker, and what the snapshot missed.
//!
//! In a REPEATABLE READ transaction a snapshot is taken, then rows are read. Meanwhile another connection commits a small
//! logical message. What the snapshot sees had written its commit record before the message was written, so it lies before
//! the marker in the WAL. Hence, without loss and without a gap: the rows; then every transaction of the log before the
//! marker that the snapshot does *not* see; then everything from the marker on. (To compare LSNs alone is wrong:
//! transactions become visible in another order than they commit in the WAL.)

use crate::database::Database;
use crate::error::Error;
use crate::log::{Log, Pin, Snapshot, Transaction};
use headwater_model::cursor::Lsn;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;
use tokio_postgres::GenericClient;

/// With synchronous replication a commit can be in the WAL, and out of the ring, long before it is visible. Who finds that
/// takes a new snapshot after this pause.
pub const UNSEEN_PAUSE: Duration = Duration::from_millis(200);

/// The marker normally comes back within milliseconds; after a restart the source has to catch up first.
const MARKER_PATIENCE: Duration = Duration::from_mins(1);

const MARKER: &str = "select pg_catalog.pg_logical_emit_message(true, 'headwater.seam', '')::text";

/// The snapshot of the transaction that `client` is in.
pub async fn snapshot(client: &impl GenericClient) -> Result<Snapshot, Error> {
    let text: String = client.query_one("select pg_catalog.pg_current_snapshot()::text", &[]).await?.try_get(0)?;
    text.parse().map_err(|_| Error::Protocol(format!("`{text}` is not a snapshot")))
}

/// Commits the marker. `local`: it must be flushed, for only then it is decoded, but no standby needs to have it.
pub async fn mark(database: &Database) -> Result<Lsn, Error> {
    let mut client = database.get().await?;
    let transaction = client.transaction().await?;
    transaction.batch_execute("set local synchronous_commit = local").await?;
    let text: String = transaction.query_one(MARKER, &[]).await?.try_get(0)?;
    transaction.commit().await?;
    text.parse().map_err(|_| Error::Protocol(format!("`{text}` is not an LSN")))
}

/// Waits until the log has everything before the marker; then what the snapshot misses, or none if the snapshot has to
/// be taken again. `pin` is older than the snapshot.
pub async fn missed(
    log: &Log,
    pin: Pin,
    snapshot: &Snapshot,
    marker: Lsn,
) -> Result<Option<Vec<Arc<Transaction>>>, Error> {
    arrived(log, marker).await?;
    Ok(pin.missed_by(snapshot, marker))
}

/// Waits until the log has everything before the marker; where it ends then.
pub async fn arrived(log: &Log, marker: Lsn) -> Result<Lsn, Error> {
    let mut head = log.head();
    match timeout(MARKER_PATIENCE, head.wait_for(|head| *head >= marker)).await {
        Ok(Ok(head)) => Ok(*head),
        _ => Err(Error::Timeout("the log does not reach the end of the WAL")),
    }
}
