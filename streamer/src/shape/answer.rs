//! What a request for a shape is answered with.

use super::admission::Admitted;
use super::message::up_to_date;
use super::offset::ShapeOffset;
use super::pieces::{Piece, Pieces};
use super::reader::Messages;
use super::standing::Standing;
use super::stream::Stream;
use crate::log::Tip;
use bytes::Bytes;
use headwater_model::cursor::{Lsn, Offset};

/// An answer with a part of a shape's log.
#[derive(Debug)]
pub struct Answer {
    /// The incarnation.
    pub handle: String,
    /// Where the client goes on.
    pub offset: ShapeOffset,
    /// Whether it has everything by then.
    pub up_to_date: bool,
    /// Whether it is worth keeping: false if a client that waited, or that wanted no rows, has got none.
    pub has_data: bool,
    /// The types of the columns.
    pub schema: String,
    /// The messages.
    pub body: Body,
}

/// An answer with a subset's rows.
#[derive(Debug)]
pub struct Page {
    /// The incarnation.
    pub handle: String,
    /// Where a client goes on that has no place in the log yet: before the snapshot of these rows.
    pub offset: ShapeOffset,
    /// The types of the columns.
    pub schema: String,
    /// A JSON object.
    pub body: Pieces,
}

/// Messages.
#[derive(Debug)]
pub enum Body {
    /// A JSON array.
    Array(Pieces),
    /// SSE blocks, as they come.
    Stream(Box<Stream>),
}

impl Answer {
    /// Holds the place of its request until it is sent.
    pub(super) fn holding(self, admitted: Admitted) -> Self {
        let body = match self.body {
            Body::Array(pieces) => Body::Array(pieces.holding(admitted)),
            stream @ Body::Stream(_) => stream,
        };
        Self { body, ..self }
    }
}

/// What all answers to a request have.
#[derive(Debug)]
pub(super) struct Asking {
    pub(super) handle: String,
    pub(super) schema: String,
    pub(super) live: bool,
}

impl Asking {
    /// A chunk of the first rows.
    pub(super) fn chunk(self, rows: Piece, index: usize) -> Answer {
        let offset = ShapeOffset::Chunk(index);
        self.answer(offset, false, true, Pieces::array(rows, None))
    }

    /// No rows; the client goes on from the head.
    pub(super) fn now(self, head: Lsn) -> Answer {
        let offset = ShapeOffset::Change(Offset::just_before(head));
        self.answer(offset, true, false, only(&up_to_date(head)))
    }

    /// What has happened, up to the chunk's end.
    pub(super) fn part(self, standing: &Standing, messages: Messages, last: Offset) -> Answer {
        // Missed transactions lie before the marker; everything up to it has been told with them.
        let last = last.max(Offset::just_before(standing.lsn));
        let seen = if self.live { last.lsn } else { messages.head };
        let control = messages.complete.then(|| up_to_date(seen));
        let body = Pieces::array(Piece::Memory(messages.body), control.as_deref());
        self.answer(ShapeOffset::Change(last), messages.complete, true, body)
    }

    /// Nothing has happened. The offset stays, so that equal requests look equal; but before the ring forgets it, it moves.
    pub(super) fn nothing(self, standing: &Standing, messages: &Messages, tip: &Tip) -> Answer {
        let middle = Lsn(tip.start.0 + (tip.head.0.saturating_sub(tip.start.0)) / 2);
        let offset = match standing.offset {
            _ if standing.after.lsn < middle => ShapeOffset::Change(messages.next),
            ShapeOffset::Change(_) => standing.offset,
            _ => ShapeOffset::Snapshot,
        };
        let has_data = !self.live;
        self.answer(offset, true, has_data, only(&up_to_date(messages.head)))
    }

    /// Changes as they come.
    pub(super) fn stream(self, standing: &Standing, stream: Stream) -> Answer {
        let offset = match standing.offset {
            ShapeOffset::Change(_) => standing.offset,
            // Whoever is cut off before these were told has to have them when he comes back; only this snapshot knows them.
            ShapeOffset::Chunk(_) if standing.has_missed() => standing.offset,
            _ => ShapeOffset::Snapshot,
        };
        let Self { handle, schema, .. } = self;
        Answer { handle, offset, up_to_date: false, has_data: true, schema, body: Body::Stream(Box::new(stream)) }
    }

    fn answer(self, offset: ShapeOffset, up_to_date: bool, has_data: bool, body: Pieces) -> Answer {
        let Self { handle, schema, .. } = self;
        Answer { handle, offset, up_to_date, has_data, schema, body: Body::Array(body) }
    }
}

fn only(control: &str) -> Pieces {
    Pieces::array(Piece::Memory(Bytes::new()), Some(control))
}
