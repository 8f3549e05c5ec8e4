//! Where the rows of shapes come from: begins to read them when somebody asks, and ends that when nobody does any more.

use super::chunks::Room;
use super::error::ShapeError;
use super::group::{Groups, Member};
use super::initial::Initial;
use super::inner::{Inners, first_rows};
use super::reader::Renderer;
use super::session::FIRST_ROW_PATIENCE;
use super::shared::Shared;
use super::tables::Tables;
use super::tale::Tale;
use super::turns::Turns;
use crate::database::Database;
use crate::identity::Reach;
use crate::log::Log;
use crate::seam;
use headwater_model::cursor::{Epoch, Lsn};
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::time::timeout;
use tokio_postgres::CancelToken;

/// A snapshot takes one connection for as long as it reads, and a second one for a moment; more of them at once than
/// this would starve everything else.
pub(super) const CONCURRENT_SNAPSHOTS: usize = 6;

/// What taking snapshots needs.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) log: Arc<Log>,
    pub(super) database: Database,
    pub(super) tables: Arc<Tables>,
    pub(super) room: Arc<Room>,
    pub(super) turns: Arc<Turns>,
    pub(super) inners: Inners,
    pub(super) groups: Groups,
    /// One marker is as good for all whose snapshots are older.
    markers: Shared<Lsn>,
    pub(super) chunk_bytes: usize,
}

/// Ends what Postgres is doing for somebody.
pub(super) type Cancel = Mutex<Option<CancelToken>>;

impl Source {
    pub(super) fn new(
        log: Arc<Log>,
        database: Database,
        tables: Arc<Tables>,
        snapshot_bytes: u64,
        chunk_bytes: usize,
    ) -> Self {
        Self {
            log,
            database,
            tables,
            room: Arc::new(Room::new(super::chunks::MEMORY_BYTES, snapshot_bytes)),
            turns: Turns::new(CONCURRENT_SNAPSHOTS),
            inners: Inners::default(),
            groups: Groups::default(),
            markers: Shared::default(),
            chunk_bytes,
        }
    }

    /// Begins to read, at the turn of who asks. `tale` is the log of a shape with subqueries. It ends when nobody wants it
    /// any more.
    pub(super) fn begin(
        self: &Arc<Self>,
        renderer: Arc<Renderer>,
        tale: Option<Arc<Tale>>,
        epoch: Epoch,
        reach: &Reach,
    ) -> Arc<Initial> {
        let initial = Arc::new(Initial::new(Arc::clone(&self.room)));
        match tale {
            None => self.join(reach.clone(), vec![Member { initial: Arc::clone(&initial), renderer }]),
            Some(tale) => {
                // Each of its readings has a turn of its own: who held one while waiting for the next would never get it.
                let (source, own) = (Arc::clone(self), Arc::clone(&initial));
                tokio::spawn(async move {
                    let reading = first_rows(&source, &own, &renderer, &tale, epoch);
                    let outcome = source.unless(own.is_forsaken(), reading, &Cancel::default()).await;
                    own.ends(outcome);
                });
            }
        }
        initial
    }

    /// Reads to the end, unless everybody has gone.
    pub(super) async fn unless<T>(
        &self,
        forsaken: impl Future<Output = ()>,
        reading: impl Future<Output = Result<T, ShapeError>>,
        cancel: &Cancel,
    ) -> Result<T, ShapeError> {
        let mut reading = pin!(reading);
        tokio::select! {
            biased;
            outcome = &mut reading => return outcome,
            () = forsaken => {}
        }
        tracing::debug!("nobody waits for a shape's rows any more");
        let cancel = cancel.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(cancel) = cancel {
            // The statement ends with an error, and so does the reading: its connection is clean.
            self.database.cancel(cancel).await;
            let _ = timeout(FIRST_ROW_PATIENCE, reading).await;
        }
        Err(ShapeError::not_begun(1))
    }

    /// A marker for a snapshot that was taken before.
    pub(super) async fn marker(&self) -> Result<Lsn, ShapeError> {
        Ok(self.markers.now(async || seam::mark(&self.database).await).await?)
    }

    /// The log's head, for a snapshot as of there: no other one of this shape has it, for it makes the handle.
    pub(super) async fn place(&self, renderer: &Renderer) -> Result<Lsn, ShapeError> {
        let place = self.log.tip().head;
        if renderer.is_new(place) {
            return Ok(place);
        }
        // Nothing was written since. It may have been deleted just now.
        let marker = seam::mark(&self.database).await?;
        let place = seam::arrived(&self.log, marker).await?;
        if renderer.is_new(place) { Ok(place) } else { Err(ShapeError::not_begun(1)) }
    }
}
