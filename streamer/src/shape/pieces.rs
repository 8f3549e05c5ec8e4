//! A body made of pieces that others share: nothing is copied for a reader, and who reads slowly holds little of his own.

use super::admission::Admitted;
use super::spill::Extent;
use crate::error::Error;
use bytes::Bytes;
use std::collections::VecDeque;
use std::sync::Arc;

/// What is read from the disk at a time, for each reader.
const READ_BYTES: u64 = 256 << 10;

/// A body of at most this length is copied into one piece: it is in the socket's buffer at once.
const JOINED_BYTES: u64 = 16 << 10;

/// Bytes that are somewhere.
#[derive(Clone, Debug)]
pub(super) enum Piece {
    Memory(Bytes),
    Disk(Arc<Extent>),
}

impl Piece {
    pub(super) fn len(&self) -> u64 {
        match self {
            Self::Memory(bytes) => bytes.len() as u64,
            Self::Disk(extent) => extent.len(),
        }
    }
}

/// A body. Whoever sends it holds the place of the request until it is sent.
#[derive(Debug)]
pub struct Pieces {
    left: VecDeque<Piece>,
    /// What was read of the first one already.
    read: u64,
    length: u64,
    admitted: Option<Admitted>,
}

impl Pieces {
    pub(super) fn of(pieces: impl IntoIterator<Item = Piece>) -> Self {
        let left: VecDeque<Piece> = pieces.into_iter().filter(|piece| piece.len() > 0).collect();
        Self { length: left.iter().map(Piece::len).sum(), left, read: 0, admitted: None }
    }

    /// Messages as a JSON array.
    pub(super) fn array(messages: Piece, control: Option<&str>) -> Self {
        let control = control.unwrap_or_default();
        let separator = if messages.len() > 0 && !control.is_empty() { ",\n" } else { "" };
        let end = format!("{separator}{control}]");
        Self::of([Piece::Memory(Bytes::from_static(b"[")), messages, Piece::Memory(end.into())])
    }

    /// The place that is held meanwhile.
    pub(super) fn holding(mut self, admitted: Admitted) -> Self {
        self.admitted = Some(admitted);
        self
    }

    /// How many bytes there are altogether.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// The whole body, if it is small; nothing is held for it.
    pub fn small(&self) -> Option<Bytes> {
        let memory = |piece: &Piece| if let Piece::Memory(bytes) = piece { Some(bytes.clone()) } else { None };
        let pieces: Vec<Bytes> = self.left.iter().map(memory).collect::<Option<_>>()?;
        (self.length <= JOINED_BYTES).then(|| pieces.concat().into())
    }

    /// The next part; none at the end.
    pub async fn next(&mut self) -> Option<Result<Bytes, Error>> {
        match self.left.front()? {
            Piece::Memory(bytes) => {
                let bytes = bytes.clone();
                self.left.pop_front();
                Some(Ok(bytes))
            }
            Piece::Disk(extent) => {
                let part = extent.read(self.read, READ_BYTES).await;
                if let Ok(part) = &part {
                    self.read += part.len() as u64;
                    if self.read >= extent.len() {
                        self.left.pop_front();
                        self.read = 0;
                    }
                }
                Some(part)
            }
        }
    }
}
