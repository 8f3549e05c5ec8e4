//! What is read from the database at the database's pace and sent at the reader's: a reader that is slower costs disk, for
//! a while, and neither a connection nor a snapshot nor anybody's turn.

use crate::error::Error;
use crate::nameless;
use bytes::Bytes;
use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::mpsc::{Permit, Sender};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout, timeout_at};

/// Disk for all spools together. The states of a table of some ten million rows; whoever wants more of it at a time than there
/// is left waits for his reader, as [`Spool::push`] says.
pub(super) const SPOOL_BYTES: u64 = 4 << 30;

/// Who reads slower than this has a connection that nobody uses any more, or does it on purpose.
const LEAST_BYTES_PER_SECOND: u64 = 16 * 1024;

/// How long a chunk waits for a reader while there is no room on the disk, or no disk, for it keeps others waiting meanwhile: at the least pace,
/// a chunk of some hundred kilobytes.
const NO_ROOM_PATIENCE: Duration = Duration::from_secs(10);

/// The disk that all spools share.
#[derive(Debug)]
pub(super) struct Room {
    used: AtomicU64,
    limit: u64,
    /// Makes a spool's file.
    make: fn() -> io::Result<File>,
}

impl Room {
    pub(super) fn new(limit: u64) -> Arc<Self> {
        Arc::new(Self { used: AtomicU64::new(0), limit, make: nameless::file })
    }

    fn take(&self, bytes: u64) -> bool {
        let taken = |used: u64| Some(used + bytes).filter(|sum| *sum <= self.limit);
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, taken).is_ok()
    }
}

/// Chunks on their way to one reader, in order, each as it was. What the channel takes goes there at once; the rest waits in a
/// file without a name.
pub(super) struct Spool<T> {
    sender: Sender<T>,
    wrap: fn(Bytes) -> T,
    room: Arc<Room>,
    file: Option<Arc<File>>,
    /// How long the chunks are that wait in the file.
    waiting: VecDeque<usize>,
    read: u64,
    written: u64,
}

impl<T> Spool<T> {
    pub(super) fn new(room: &Arc<Room>, sender: &Sender<T>, wrap: fn(Bytes) -> T) -> Self {
        let (sender, room) = (sender.clone(), Arc::clone(room));
        Self { sender, wrap, room, file: None, waiting: VecDeque::new(), read: 0, written: 0 }
    }

    /// Adds a chunk without waiting for the reader, unless there is no room; false if the reader has left, or kept us waiting for long.
    pub(super) async fn push(&mut self, chunk: Bytes) -> Result<bool, Error> {
        loop {
            if self.waiting.is_empty() {
                return match self.sender.try_send((self.wrap)(chunk.clone())) {
                    Ok(()) => Ok(true),
                    Err(TrySendError::Closed(_)) => Ok(false),
                    Err(TrySendError::Full(_)) => self.keep_or_wait(chunk).await,
                };
            }
            let sender = self.sender.clone();
            match sender.try_reserve() {
                Ok(permit) => self.send_first(permit).await?,
                Err(TrySendError::Closed(())) => return Ok(false),
                Err(TrySendError::Full(())) => return self.keep_or_wait(chunk).await,
            }
        }
    }

    /// Sends what is left, for as long as the reader takes it: each chunk within `patience`, and all of it at some pace. False if it did not.
    pub(super) async fn drain(mut self, patience: Duration) -> Result<bool, Error> {
        let all = Duration::from_secs((self.written - self.read) / LEAST_BYTES_PER_SECOND);
        let last = Instant::now() + patience + all;
        let sender = self.sender.clone();
        while !self.waiting.is_empty() {
            let deadline = last.min(Instant::now() + patience);
            let Ok(Ok(permit)) = timeout_at(deadline, sender.reserve()).await else { return Ok(false) };
            self.send_first(permit).await?;
        }
        Ok(true)
    }

    async fn keep_or_wait(&mut self, chunk: Bytes) -> Result<bool, Error> {
        if self.room.take(chunk.len() as u64) {
            let (at, length) = (self.written, chunk.len());
            match self.write(chunk.clone(), at).await {
                Ok(()) => {
                    self.written += length as u64;
                    self.waiting.push_back(length);
                    return Ok(true);
                }
                Err(error) => {
                    self.room.used.fetch_sub(length as u64, Ordering::Relaxed);
                    tracing::warn!(%error, "slow readers hold up others: there is no disk for what waits for them");
                }
            }
        }
        let sender = self.sender.clone();
        loop {
            let Ok(Ok(permit)) = timeout(NO_ROOM_PATIENCE, sender.reserve()).await else { return Ok(false) };
            if self.waiting.is_empty() {
                permit.send((self.wrap)(chunk));
                return Ok(true);
            }
            self.send_first(permit).await?;
        }
    }

    async fn send_first(&mut self, permit: Permit<'_, T>) -> Result<(), Error> {
        let (Some(length), Some(file)) = (self.waiting.pop_front(), &self.file) else { return Ok(()) };
        let (file, at) = (Arc::clone(file), self.read);
        let read = move || {
            let mut bytes = vec![0; length];
            file.read_exact_at(&mut bytes, at).map(|()| Bytes::from(bytes))
        };
        let read = spawn_blocking(read).await.map_err(|_| Error::Timeout("shutting down"))?;
        permit.send((self.wrap)(read.map_err(Error::io("read back what waited for a reader"))?));
        self.read += length as u64;
        Ok(())
    }

    async fn write(&mut self, chunk: Bytes, at: u64) -> Result<(), Error> {
        let failed = "keep what waits for a reader in a temporary file";
        let file = match &self.file {
            Some(file) => Arc::clone(file),
            None => Arc::clone(self.file.insert(Arc::new((self.room.make)().map_err(Error::io(failed))?))),
        };
        let written = spawn_blocking(move || file.write_all_at(&chunk, at)).await;
        written.map_err(|_| Error::Timeout("shutting down"))?.map_err(Error::io(failed))
    }
}

impl<T> Drop for Spool<T> {
    fn drop(&mut self) {
        self.room.used.fetch_sub(self.written, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::mpsc::channel;

    fn chunk(number: usize) -> Bytes {
        Bytes::from(format!("{number}").repeat(number % 7 + 1))
    }

    #[tokio::test]
    async fn a_slow_reader_gets_everything_in_order_and_keeps_nobody_waiting() {
        let room = Room::new(1 << 20);
        let (sender, mut receiver) = channel(2);
        let mut spool = Spool::new(&room, &sender, |bytes| bytes);
        for number in 0..100 {
            assert!(spool.push(chunk(number)).await.expect("kept"), "nobody has read anything yet");
            if number % 10 == 9 {
                assert_eq!(receiver.recv().await.expect("a chunk"), chunk(number / 10));
            }
        }
        let drained = tokio::spawn(spool.drain(Duration::from_mins(1)));
        for number in 10..100 {
            assert_eq!(receiver.recv().await.expect("a chunk"), chunk(number));
        }
        assert!(drained.await.expect("no panic").expect("read back"));
        assert_eq!(room.used.load(Ordering::Relaxed), 0, "the room is given back");
        let mut spool = Spool::new(&room, &sender, |bytes| bytes);
        drop(receiver);
        assert!(!spool.push(chunk(1)).await.expect("no I/O"), "the reader left");
    }

    #[tokio::test]
    async fn without_room_it_waits_for_the_reader() {
        let room = Room::new(10);
        let (sender, mut receiver) = channel(1);
        let mut spool = Spool::new(&room, &sender, |bytes| bytes);
        for text in ["in the channel", "0123456789"] {
            assert!(spool.push(Bytes::from(text)).await.expect("kept"));
        }
        let (pushed, ()) = tokio::join!(spool.push(Bytes::from_static(b"one too many")), async {
            for text in ["in the channel", "0123456789"] {
                assert_eq!(receiver.recv().await.expect("a chunk"), text);
            }
        });
        assert!(pushed.expect("read back"), "the reader made room");
        assert!(spool.drain(Duration::from_mins(1)).await.expect("nothing is left"));
        assert_eq!(receiver.recv().await.expect("a chunk"), "one too many");
    }

    #[tokio::test]
    async fn without_a_disk_it_waits_for_the_reader() {
        let no_folder = || File::create_new("/nowhere/at/all");
        let full = || File::options().read(true).write(true).open("/dev/full");
        for make in [no_folder, full] {
            let room = Arc::new(Room { used: AtomicU64::new(0), limit: 1 << 20, make });
            let (sender, mut receiver) = channel(1);
            let mut spool = Spool::new(&room, &sender, |bytes| bytes);
            let pushing = tokio::spawn(async move {
                for number in 0..20 {
                    assert!(spool.push(chunk(number)).await.expect("no disk is needed"), "the reader reads");
                }
                assert!(spool.drain(Duration::from_mins(1)).await.expect("nothing is left"));
            });
            for number in 0..20 {
                assert_eq!(receiver.recv().await.expect("a chunk"), chunk(number));
            }
            pushing.await.expect("no panic");
            assert_eq!(room.used.load(Ordering::Relaxed), 0, "what could not be written takes no room");
        }
    }

    #[tokio::test]
    async fn a_disk_that_fills_up_on_the_way_changes_no_order() {
        let room = Room::new(1 << 20);
        let (sender, mut receiver) = channel(1);
        let mut spool = Spool::new(&room, &sender, |bytes| bytes);
        for number in 0..5 {
            assert!(spool.push(chunk(number)).await.expect("kept"), "there is a disk");
        }
        // What is there can be read, and nothing can be added.
        let written = spool.file.take().expect("some of it waits");
        spool.file = Some(Arc::new(readable_only(&written)));
        let (pushed, ()) = tokio::join!(spool.push(chunk(5)), async {
            for number in 0..5 {
                assert_eq!(receiver.recv().await.expect("a chunk"), chunk(number));
            }
        });
        assert!(pushed.expect("read back"), "the reader made room");
        assert_eq!(receiver.recv().await.expect("a chunk"), chunk(5));
    }

    fn readable_only(file: &File) -> File {
        use std::os::fd::AsRawFd;
        File::open(format!("/proc/self/fd/{}", file.as_raw_fd())).expect("opened once more")
    }

    #[tokio::test]
    async fn who_reads_nothing_is_given_up() {
        let (sender, _receiver) = channel(1);
        let mut spool = Spool::new(&Room::new(100), &sender, |bytes| bytes);
        for text in ["in the channel", "in the file"] {
            assert!(spool.push(Bytes::from(text)).await.expect("kept"));
        }
        assert!(!spool.drain(Duration::from_millis(20)).await.expect("no I/O"));
    }
}
