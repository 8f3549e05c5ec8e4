//! The chunks of a snapshot: in memory while there is room, else on disk.

use super::memory::Memory;
use super::pieces::Piece;
use super::spill::Spill;
use crate::error::Error;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Memory for the chunks of all snapshots together; shapes of a screenful of rows never touch a disk.
pub(super) const MEMORY_BYTES: u64 = 64 << 20;

/// What all snapshots together hold.
#[derive(Debug)]
pub(super) struct Room {
    memory: Arc<Memory>,
    disk: Arc<Spill>,
}

impl Room {
    pub(super) fn new(memory_limit: u64, disk_limit: u64) -> Self {
        Self { memory: Memory::new(memory_limit), disk: Spill::new(disk_limit) }
    }

    /// Whether snapshots that nobody needs any more should go.
    pub(super) fn is_tight(&self) -> bool {
        self.memory.is_tight() || self.disk.is_tight()
    }
}

/// The chunks of one snapshot.
#[derive(Debug)]
pub(super) struct Chunks {
    room: Arc<Room>,
    kept: Mutex<Vec<Piece>>,
}

impl Chunks {
    pub(super) fn new(room: Arc<Room>) -> Self {
        Self { room, kept: Mutex::default() }
    }

    /// Adds the next one. An error if there is no room.
    pub(super) async fn push(&self, mut chunk: Vec<u8>) -> Result<(), Error> {
        chunk.shrink_to_fit();
        let piece = match self.room.memory.hold(chunk) {
            Ok(held) => Piece::Memory(held),
            Err(chunk) => {
                let extent = self.room.disk.write(chunk.into()).await?;
                Piece::Disk(extent.ok_or_else(|| {
                    Error::io("keep a snapshot's rows")(io::Error::new(
                        io::ErrorKind::StorageFull,
                        "snapshots take as much room as they may (--snapshot-bytes)",
                    ))
                })?)
            }
        };
        let mut kept = self.lock();
        // Most snapshots have one.
        if kept.is_empty() {
            kept.reserve_exact(1);
        }
        kept.push(piece);
        drop(kept);
        Ok(())
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.lock().len()
    }

    /// How many bytes there are.
    pub(super) fn bytes(&self) -> u64 {
        self.lock().iter().map(Piece::len).sum()
    }

    /// One of those that are there; it stays for as long as somebody has it.
    pub(super) fn get(&self, index: usize) -> Option<Piece> {
        self.lock().get(index).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Piece>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::super::pieces::Pieces;
    use super::*;

    #[tokio::test]
    async fn what_does_not_fit_into_memory_comes_back_from_the_disk() {
        let room = Arc::new(Room::new(10, 25));
        let chunks = Chunks::new(Arc::clone(&room));
        for chunk in ["12345678", "second one", "x", "third one"] {
            chunks.push(chunk.into()).await.expect("there is room");
        }
        for (index, expected) in ["12345678", "second one", "x", "third one"].into_iter().enumerate() {
            let mut pieces = Pieces::of([chunks.get(index).expect("it is there")]);
            assert_eq!(pieces.next().await.expect("not empty").expect("read"), expected.as_bytes());
            assert!(pieces.next().await.is_none());
        }
        assert!(chunks.get(4).is_none());
        assert!(chunks.push(b"too much".to_vec()).await.is_err());
        assert_eq!((room.memory.used(), chunks.bytes()), (9, 28));
        drop(chunks);
        assert!(room.memory.used() == 0 && !room.is_tight());
    }
}
