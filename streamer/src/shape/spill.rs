//! Disk for what does not fit into memory: places in one file without a name, which ends with the process.

use crate::error::Error;
use crate::nameless;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::task::spawn_blocking;

/// The disk that is taken. One file, and so one descriptor, however many snapshots there are.
#[derive(Debug)]
pub(super) struct Spill {
    state: Mutex<State>,
    limit: u64,
}

#[derive(Debug, Default)]
struct State {
    file: Option<Arc<File>>,
    used: u64,
    /// Behind it nothing was written.
    end: u64,
    /// Places before it that are free: where, and how long; no two of them touch.
    holes: BTreeMap<u64, u64>,
}

/// Bytes in the file, until it is dropped.
#[derive(Debug)]
pub(super) struct Extent {
    spill: Arc<Spill>,
    file: Arc<File>,
    at: u64,
    length: u64,
}

impl Spill {
    pub(super) fn new(limit: u64) -> Arc<Self> {
        Arc::new(Self { state: Mutex::default(), limit })
    }

    /// Whether more than half is taken.
    pub(super) fn is_tight(&self) -> bool {
        self.lock().used > self.limit / 2
    }

    /// Writes bytes down. None if there is no room.
    pub(super) async fn write(self: &Arc<Self>, bytes: Bytes) -> Result<Option<Arc<Extent>>, Error> {
        let taken = self.take(bytes.len() as u64).map_err(Error::io("make a temporary file for a snapshot's rows"))?;
        let Some(extent) = taken.map(Arc::new) else { return Ok(None) };
        let place = Arc::clone(&extent);
        let written = spawn_blocking(move || place.file.write_all_at(&bytes, place.at)).await;
        written
            .map_err(|_| Error::Timeout("shutting down"))?
            .map_err(Error::io("write a snapshot's rows to a temporary file"))?;
        Ok(Some(extent))
    }

    fn take(self: &Arc<Self>, length: u64) -> io::Result<Option<Extent>> {
        let mut state = self.lock();
        if state.used.saturating_add(length) > self.limit {
            return Ok(None);
        }
        let file = match &state.file {
            Some(file) => Arc::clone(file),
            None => Arc::clone(state.file.insert(Arc::new(nameless::file()?))),
        };
        let at = state.place(length);
        state.used += length;
        Ok(Some(Extent { spill: Arc::clone(self), file, at, length }))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The first place that is long enough.
    fn place(&mut self, length: u64) -> u64 {
        let hole = self.holes.iter().find(|(_, hole)| **hole >= length).map(|(at, hole)| (*at, *hole));
        let Some((at, hole)) = hole else {
            self.end += length;
            return self.end - length;
        };
        self.holes.remove(&at);
        if hole > length {
            self.holes.insert(at + length, hole - length);
        }
        at
    }

    fn free(&mut self, mut at: u64, mut length: u64) {
        if let Some((before, hole)) = self.holes.range(..at).next_back().map(|(at, hole)| (*at, *hole))
            && before + hole == at
        {
            self.holes.remove(&before);
            (at, length) = (before, length + hole);
        }
        if let Some(hole) = self.holes.remove(&(at + length)) {
            length += hole;
        }
        if at + length == self.end {
            self.end = at;
        } else {
            self.holes.insert(at, length);
        }
    }
}

impl Extent {
    pub(super) fn len(&self) -> u64 {
        self.length
    }

    /// A part of it, from `from` on, at most `most` bytes.
    pub(super) async fn read(self: &Arc<Self>, from: u64, most: u64) -> Result<Bytes, Error> {
        let place = Arc::clone(self);
        let read = move || {
            let length = usize::try_from(place.length.saturating_sub(from).min(most)).unwrap_or(usize::MAX);
            let mut bytes = vec![0; length];
            place.file.read_exact_at(&mut bytes, place.at + from).map(|()| Bytes::from(bytes))
        };
        let read = spawn_blocking(read).await.map_err(|_| Error::Timeout("shutting down"))?;
        read.map_err(Error::io("read a snapshot's rows back"))
    }
}

impl Drop for Extent {
    fn drop(&mut self) {
        let mut state = self.spill.lock();
        state.used -= self.length;
        state.free(self.at, self.length);
        if state.used == 0 {
            // The disk gets it back with the file.
            *state = State::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn places_in_the_file_are_used_again() {
        let spill = Spill::new(30);
        let write = async |text: &'static str| {
            spill.write(Bytes::from(text)).await.expect("a disk").map(|extent| (extent, text))
        };
        let mut kept =
            vec![write("0123456789").await, write("abcde").await, write("fghij").await, write("klmno").await];
        assert!(write("123456").await.is_none(), "five are left");
        // Two that touch make room for one of their length; what lies around them stays what it is.
        kept.drain(1..3);
        kept.push(write("0987654321").await);
        {
            let state = spill.lock();
            assert_eq!((state.end, state.holes.len()), (25, 0));
        }
        for (extent, text) in kept.iter().flatten() {
            assert_eq!(extent.read(0, 100).await.expect("a disk"), text.as_bytes());
            assert_eq!(extent.read(2, 2).await.expect("a disk"), text.as_bytes()[2..4]);
        }
        drop(kept);
        let state = spill.lock();
        assert!(state.file.is_none() && state.end == 0, "{state:?}");
    }
}
