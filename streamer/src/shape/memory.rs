//! Memory that is counted for as long as anybody holds it: the rows of snapshots, and answers on their way to slow readers.

use bytes::Bytes;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// So much, and no more.
#[derive(Debug)]
pub(super) struct Memory {
    used: AtomicU64,
    limit: u64,
}

/// A part of it, given back when dropped.
#[derive(Debug)]
pub(super) struct Charge {
    memory: Arc<Memory>,
    bytes: u64,
}

/// Bytes, and the part that they take.
struct Held {
    bytes: Vec<u8>,
    _charge: Charge,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Memory {
    pub(super) fn new(limit: u64) -> Arc<Self> {
        Arc::new(Self { used: AtomicU64::new(0), limit })
    }

    pub(super) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// Whether more than three quarters are taken.
    pub(super) fn is_tight(&self) -> bool {
        self.used() > self.limit / 4 * 3
    }

    /// So many bytes, if they are left.
    pub(super) fn charge(self: &Arc<Self>, bytes: u64) -> Option<Charge> {
        let more = |used: u64| Some(used.saturating_add(bytes)).filter(|sum| *sum <= self.limit);
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(Charge { memory: Arc::clone(self), bytes })
    }

    /// Counts bytes until the last who shares them is done; gives them back if there is no room.
    pub(super) fn hold(self: &Arc<Self>, bytes: Vec<u8>) -> Result<Bytes, Vec<u8>> {
        match self.charge(bytes.len() as u64) {
            Some(charge) => Ok(charge.hold(bytes)),
            None => Err(bytes),
        }
    }
}

impl Charge {
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Takes more, until it is `bytes` altogether; false if there is no room.
    pub(super) fn grow(&mut self, bytes: u64) -> bool {
        let Some(mut more) = self.memory.charge(bytes.saturating_sub(self.bytes)) else { return false };
        self.bytes += std::mem::take(&mut more.bytes);
        true
    }

    /// Bytes that take this part, until the last who shares them is done.
    pub(super) fn hold(self, bytes: Vec<u8>) -> Bytes {
        Bytes::from_owner(Held { bytes, _charge: self })
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.memory.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_counted_until_the_last_reader_is_done() {
        let memory = Memory::new(100);
        let held = memory.hold(vec![0; 60]).expect("there is room");
        let reader = held.slice(10..20);
        drop(held);
        assert_eq!(memory.used(), 60, "somebody still reads it");
        assert_eq!(memory.hold(vec![0; 41]), Err(vec![0; 41]));
        let mut charge = memory.charge(10).expect("there is room");
        assert!(charge.grow(40) && !charge.grow(41) && memory.is_tight());
        drop((reader, charge));
        assert_eq!(memory.used(), 0);
    }
}
