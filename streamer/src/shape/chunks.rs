//! The chunks of a snapshot: in memory while there is room, else in a file without a name, which ends with its last reader.

use crate::error::Error;
use bytes::Bytes;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use tokio::task::spawn_blocking;

/// Memory for the chunks of all snapshots together; shapes of a screenful of rows never touch a disk.
pub(super) const MEMORY_BYTES: u64 = 64 << 20;

/// What all snapshots together hold.
#[derive(Debug)]
pub(super) struct Room {
    memory: AtomicU64,
    disk: AtomicU64,
    memory_limit: u64,
    disk_limit: u64,
}

impl Room {
    pub(super) fn new(memory_limit: u64, disk_limit: u64) -> Self {
        Self { memory: AtomicU64::new(0), disk: AtomicU64::new(0), memory_limit, disk_limit }
    }

    /// Whether snapshots that nobody needs any more should go.
    pub(super) fn is_tight(&self) -> bool {
        self.memory.load(Ordering::Relaxed) > self.memory_limit / 4 * 3
            || self.disk.load(Ordering::Relaxed) > self.disk_limit / 2
    }

    fn take(&self, bytes: u64) -> Option<Place> {
        let take = |used: &AtomicU64, limit: u64| {
            used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                Some(used + bytes).filter(|sum| *sum <= limit)
            })
            .is_ok()
        };
        if take(&self.memory, self.memory_limit) {
            Some(Place::Memory)
        } else if take(&self.disk, self.disk_limit) {
            Some(Place::Disk)
        } else {
            None
        }
    }
}

enum Place {
    Memory,
    Disk,
}

/// The chunks of one snapshot.
#[derive(Debug)]
pub(super) struct Chunks {
    room: Arc<Room>,
    kept: Mutex<Vec<Kept>>,
    file: OnceLock<Arc<File>>,
}

#[derive(Clone, Debug)]
enum Kept {
    Memory(Bytes),
    Disk { at: u64, length: usize },
}

impl Kept {
    fn len(&self) -> u64 {
        match self {
            Self::Memory(bytes) => bytes.len() as u64,
            Self::Disk { length, .. } => *length as u64,
        }
    }
}

impl Chunks {
    pub(super) fn new(room: Arc<Room>) -> Self {
        Self { room, kept: Mutex::default(), file: OnceLock::new() }
    }

    /// Adds the next one. An error if there is no room.
    pub(super) async fn push(&self, chunk: Bytes) -> Result<(), Error> {
        let length = chunk.len();
        let place = self.room.take(length as u64).ok_or_else(|| {
            Error::io("keep a snapshot's rows")(io::Error::new(
                io::ErrorKind::StorageFull,
                "snapshots take as much room as they may (--snapshot-bytes)",
            ))
        })?;
        let kept = match place {
            Place::Memory => Kept::Memory(chunk),
            Place::Disk => {
                let at = self.lock().iter().map(|kept| if let Kept::Disk { .. } = kept { kept.len() } else { 0 }).sum();
                let written = self.write(chunk, at).await;
                if written.is_err() {
                    self.room.disk.fetch_sub(length as u64, Ordering::Relaxed);
                }
                written?;
                Kept::Disk { at, length }
            }
        };
        self.lock().push(kept);
        Ok(())
    }

    /// How many bytes there are.
    pub(super) fn bytes(&self) -> u64 {
        self.lock().iter().map(Kept::len).sum()
    }

    /// One of those that are there.
    pub(super) async fn get(&self, index: usize) -> Result<Option<Bytes>, Error> {
        let kept = self.lock().get(index).cloned();
        match kept {
            None => Ok(None),
            Some(Kept::Memory(bytes)) => Ok(Some(bytes)),
            Some(Kept::Disk { at, length }) => {
                let Some(file) = self.file.get().map(Arc::clone) else { return Ok(None) };
                let read = move || {
                    let mut bytes = vec![0; length];
                    file.read_exact_at(&mut bytes, at).map(|()| Bytes::from(bytes))
                };
                let read = spawn_blocking(read).await.map_err(|_| Error::Timeout("shutting down"))?;
                Ok(Some(read.map_err(Error::io("read a snapshot's rows back"))?))
            }
        }
    }

    async fn write(&self, chunk: Bytes, at: u64) -> Result<(), Error> {
        let file = if let Some(file) = self.file.get() {
            Arc::clone(file)
        } else {
            let file = Arc::new(nameless_file().map_err(Error::io("make a temporary file for a snapshot's rows"))?);
            Arc::clone(self.file.get_or_init(|| file))
        };
        let written = spawn_blocking(move || file.write_all_at(&chunk, at)).await;
        written
            .map_err(|_| Error::Timeout("shutting down"))?
            .map_err(Error::io("write a snapshot's rows to a temporary file"))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Chunks {
    fn drop(&mut self) {
        for kept in self.lock().iter() {
            let used = if let Kept::Memory(_) = kept { &self.room.memory } else { &self.room.disk };
            used.fetch_sub(kept.len(), Ordering::Relaxed);
        }
    }
}

/// Readable by us only, and gone from its folder at once: whatever ends us, nothing stays behind.
fn nameless_file() -> io::Result<File> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let name = format!("headwater-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    let path = std::env::temp_dir().join(name);
    let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_does_not_fit_into_memory_comes_back_from_the_disk() {
        let room = Arc::new(Room::new(10, 25));
        let chunks = Chunks::new(Arc::clone(&room));
        for chunk in ["12345678", "second one", "x", "third one"] {
            chunks.push(Bytes::from(chunk)).await.expect("there is room");
        }
        for (index, expected) in ["12345678", "second one", "x", "third one"].into_iter().enumerate() {
            assert_eq!(chunks.get(index).await.expect("read").as_deref(), Some(expected.as_bytes()));
        }
        assert!(chunks.get(4).await.expect("read").is_none());
        assert_eq!((room.memory.load(Ordering::Relaxed), room.disk.load(Ordering::Relaxed)), (9, 19));
        assert!(chunks.push(Bytes::from_static(b"too much")).await.is_err());
        drop(chunks);
        assert_eq!((room.memory.load(Ordering::Relaxed), room.disk.load(Ordering::Relaxed)), (0, 0));
    }
}
