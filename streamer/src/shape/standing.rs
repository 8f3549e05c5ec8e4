//! Where in a shape's log a client stands, and what it is told from there.

use super::Shapes;
use super::answer::{Answer, Asking};
use super::error::ShapeError;
use super::initial::{Chunk, Initial};
use super::live::Shape;
use super::message::Framing;
use super::offset::ShapeOffset;
use super::pieces::Piece;
use super::reader::Messages;
use crate::log::Transaction;
use headwater_model::cursor::{Lsn, Offset};
use std::sync::Arc;
use tokio::time::{Instant, sleep_until, timeout};

/// An answer below this size is not counted: what its request takes is more.
const COUNTED_FROM_BYTES: usize = 16 << 10;

/// A shape, and where in its log a client stands.
#[derive(Clone, Debug)]
pub(super) struct Standing {
    pub(super) shape: Arc<Shape>,
    /// Of its handle.
    pub(super) lsn: Lsn,
    pub(super) initial: Option<Arc<Initial>>,
    pub(super) after: Offset,
    /// As the client has it.
    pub(super) offset: ShapeOffset,
}

impl Standing {
    /// Transactions that the client's rows do not have, though they lie before the place where the log goes on.
    fn missed(&self) -> &[Arc<Transaction>] {
        self.initial.as_ref().and_then(|initial| initial.known_joint()).map_or(&[], |joint| &joint.missed)
    }

    pub(super) fn has_missed(&self) -> bool {
        !self.missed().is_empty()
    }

    /// Whether nothing of the log was told yet.
    fn is_at_start(&self, after: Offset) -> bool {
        after < Offset { op: 1, ..Offset::just_before(self.lsn) }
    }
}

impl Shapes {
    /// Where the client stands in the log; or the next chunk of its first rows.
    pub(super) async fn stand(
        &self,
        shape: Arc<Shape>,
        lsn: Lsn,
        offset: ShapeOffset,
    ) -> Result<Result<Standing, (Piece, usize)>, ShapeError> {
        let initial = shape.initial_at(lsn);
        let start = Offset::just_before(lsn);
        let (initial, after) = match offset {
            ShapeOffset::Chunk(chunk) => {
                // Only who took them has them.
                let Some(initial) = initial else { return Err(ShapeError::Refetch(None)) };
                match initial.chunk(chunk + 1).await {
                    Ok(Chunk::Rows(rows)) => return Ok(Err((rows, chunk + 1))),
                    Ok(Chunk::End) => {}
                    Err(_) => return Err(ShapeError::Refetch(None)),
                }
                (Some(initial), start)
            }
            ShapeOffset::Change(after) if after >= start => (None, after),
            // `0_inf` is told only where nothing was missed that is the shape's: it is good on every replica.
            _ => (initial, start),
        };
        self.await_head(after).await?;
        Ok(Ok(Standing { shape, lsn, initial, after, offset }))
    }

    /// A place beyond the log's end is another replica's, or from before a restart: the log gets there, or never does.
    pub(super) async fn await_head(&self, after: Offset) -> Result<(), ShapeError> {
        let mut head = self.log.head();
        let patience = self.settings.long_poll_timeout / 2;
        let reached = timeout(patience, head.wait_for(|head| Offset::just_before(*head).lsn >= after.lsn)).await;
        match reached {
            Ok(Ok(_)) => Ok(()),
            _ => Err(ShapeError::invalid("offset", "out of bounds for this shape")),
        }
    }

    pub(super) async fn read(
        &self,
        standing: &Standing,
        after: Offset,
        framing: Framing,
    ) -> Result<Messages, ShapeError> {
        let outcome = self.read_from(standing, after, framing).await;
        if matches!(outcome, Err(ShapeError::Refetch(_))) {
            // Whoever begins anew does not begin with rows from which the log does not go on.
            standing.shape.breaks(standing.lsn.max(Lsn(after.lsn.0 + 1)));
        }
        outcome
    }

    async fn read_from(&self, standing: &Standing, after: Offset, framing: Framing) -> Result<Messages, ShapeError> {
        let shape = &standing.shape;
        let limit = self.settings.chunk_bytes;
        let hold = |messages| self.hold(messages);
        if let Some(tale) = shape.tale(&self.source) {
            return hold(tale.read(&self.source, &shape.renderer, shape.epoch, after, limit, framing).await?);
        }
        let missed = if standing.is_at_start(after) { standing.missed() } else { &[] };
        let messages = shape.read(&self.log, &self.router, missed, after, limit, framing, hold).await?;
        messages.ok_or(ShapeError::Refetch(None))
    }

    /// Counts an answer's memory, until the last who reads it is done.
    fn hold(&self, mut messages: Messages) -> Result<Messages, ShapeError> {
        if messages.body.len() < COUNTED_FROM_BYTES {
            return Ok(messages);
        }
        let held = self.answers.hold(messages.body.into()).or_else(|body| {
            self.known().shapes().for_each(|shape| shape.forget_answers());
            self.answers.hold(body)
        });
        messages.body =
            held.map_err(|_| ShapeError::busy("Answers take as much memory as they may, please retry", 5))?;
        Ok(messages)
    }

    pub(super) async fn log_part(
        &self,
        standing: Standing,
        asking: Asking,
        until: Option<Instant>,
    ) -> Result<Answer, ShapeError> {
        let shape = Arc::clone(&standing.shape);
        let mut wakes = shape.wakes();
        let deadline = Instant::now() + self.settings.long_poll_timeout;
        let deadline = until.map_or(deadline, |until| until.min(deadline));
        let mut after = standing.after;
        let mut ended = !asking.live;
        loop {
            // Marked before the look: what arrives in between wakes us.
            wakes.mark_unchanged();
            if shape.is_stale() || !shape.honours(standing.lsn) {
                return Err(ShapeError::Refetch(None));
            }
            let messages = self.read(&standing, after, Framing::Array).await?;
            if let Some(last) = messages.last {
                return Ok(asking.part(&standing, messages, last));
            }
            if !messages.complete {
                after = messages.next;
                continue;
            }
            if ended {
                return Ok(asking.nothing(&standing, &messages, &self.log.tip()));
            }
            after = messages.next;
            tokio::select! {
                biased;
                () = self.shutdown.cancelled() => ended = true,
                () = wakes.changed() => {}
                () = sleep_until(deadline) => ended = true,
            }
        }
    }
}
