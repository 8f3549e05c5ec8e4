//! A reader that is behind the ring: what the table has beyond its watermark, joined to the log exactly (`crate::seam`).

use super::spool::Spool;
use super::table::Size;
use super::{Events, Filter, table};
use crate::error::Error;
use crate::log::Transaction;
use crate::seam::{self, UNSEEN_PAUSE};
use bytes::{Bytes, BytesMut};
use headwater_model::cursor::{Cursor, Offset, Position};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::sleep;
use tokio_postgres::IsolationLevel;

/// Pages read ahead of the client. What fits here does not hold the snapshot open for a slow client; and it is what each of
/// many clients that read nothing may make us keep.
const PAGES_AHEAD: usize = 1;

/// How long a page may wait for a reader that does not read, when all pages are there: the join holds neither a connection, nor
/// one of the few permits, nor a snapshot any more, but the missed transactions.
const READER_PATIENCE: Duration = Duration::from_secs(10);

/// What a join brings, in this order: pages, then the way on.
#[derive(Debug)]
pub(super) enum Joined {
    /// SSE blocks without offset.
    Page(Bytes),
    /// Retention has dropped what the reader would need.
    Dropped,
    /// The table part is over.
    Log {
        /// To be delivered first.
        missed: Vec<Arc<Transaction>>,
        /// Where to go on in the log.
        next: Offset,
    },
}

/// Starts a join of everything behind `cursor.position`. Dropping the receiver ends it. If the sender is dropped before
/// the way on has come, the reader was too slow, and has to start again at its watermark.
pub(super) fn join(events: Arc<Events>, cursor: Cursor, filter: Filter) -> mpsc::Receiver<Result<Joined, Error>> {
    let (sender, receiver) = mpsc::channel(PAGES_AHEAD);
    tokio::spawn(async move {
        let done = tokio::select! {
            done = run(&events, cursor, &filter, &sender) => done,
            () = sender.closed() => return, // the connection rolls the transaction back
            () = events.shutdown.cancelled() => return,
        };
        if let Err(error) = done {
            let _ = sender.send(Err(error)).await; // a reader that left needs no answer
        }
    });
    receiver
}

async fn run(
    events: &Events,
    cursor: Cursor,
    filter: &Filter,
    sender: &mpsc::Sender<Result<Joined, Error>>,
) -> Result<(), Error> {
    let permit = events.joins.acquire().await.map_err(|_| Error::Timeout("shutting down"))?;
    let mut reader = events.database.get().await?;
    loop {
        let pin = events.log.pin();
        let transaction =
            reader.build_transaction().isolation_level(IsolationLevel::RepeatableRead).read_only(true).start().await?;
        let snapshot = seam::snapshot(&*transaction).await?;
        let marker = seam::mark(&events.database).await?;
        let Some(missed) = seam::missed(&events.log, pin, &snapshot, marker).await? else {
            transaction.rollback().await?;
            sleep(UNSEEN_PAUSE).await;
            continue;
        };
        let mut after = cursor.position;
        let mut spool = Spool::new(&events.room, sender, |page| Ok(Joined::Page(page)));
        let entities = events.registry.entities();
        loop {
            let mut blocks = BytesMut::new();
            // Until the join is complete, a reader that comes back starts again at its watermark.
            let page = table::page(&*transaction, after, Position(i64::MAX), filter, Size::WRITE, |row| {
                if filter.pushes(row.entity_type, &entities) {
                    row.write_block(Cursor { offset: None, ..cursor }, &mut blocks);
                }
                blocks.len()
            })
            .await?;
            if after < page.dropped {
                transaction.rollback().await?;
                let _ = sender.send(Ok(Joined::Dropped)).await; // a reader that left needs no answer
                return Ok(());
            }
            if !blocks.is_empty() && !spool.push(blocks.freeze()).await? {
                transaction.rollback().await?;
                return Ok(());
            }
            match page.more {
                Some(position) => after = position,
                None => break,
            }
        }
        transaction.commit().await?;
        // From here on it keeps nobody back any more.
        drop((reader, permit));
        if !spool.drain(READER_PATIENCE).await? {
            tracing::debug!(%cursor, "a reader does not read; its join ends");
            return Ok(());
        }
        let _ = sender.send(Ok(Joined::Log { missed, next: Offset::just_before(marker) })).await;
        return Ok(());
    }
}
