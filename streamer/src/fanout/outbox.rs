//! What a socket has been given and has not taken yet: the rest of one chunk, never a queue. Whatever it takes at a
//! time, the bytes arrive whole and in order.

use bytes::{Buf, Bytes};
use headwater_model::cursor::{Offset, Position};
use std::io::{self, ErrorKind, IoSlice, Write};

/// One vectored write passes at most so many chunks, a megabyte: more than a socket's buffer takes at once.
const CHUNKS_PER_WRITE: usize = 16;

/// How far a reader is: it had everything up to `offset`, and its cursor may carry `position`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) offset: Offset,
    pub(super) position: Position,
}

/// Whole frames that all readers of a channel share.
#[derive(Clone, Debug)]
pub(super) struct Chunk {
    /// Whoever is here or behind, and before the first frame, goes on with this chunk.
    pub(super) from: Offset,
    /// The first frame's offset.
    pub(super) first: Offset,
    /// Where a reader of the chunk is.
    pub(super) to: Mark,
    pub(super) bytes: Bytes,
}

/// What is on its way to one socket.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    rest: Bytes,
}

impl Outbox {
    /// With bytes that a socket has to take before all others.
    pub(super) fn new(rest: Bytes) -> Self {
        Self { rest }
    }

    /// Nothing is on its way.
    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// How many bytes are on their way.
    pub(super) fn len(&self) -> usize {
        self.rest.len()
    }

    /// What is on its way.
    pub(super) fn into_rest(self) -> Bytes {
        self.rest
    }

    /// Sends `bytes`. Only when nothing is on its way.
    pub(super) fn send(&mut self, socket: &mut impl Write, bytes: Bytes) -> io::Result<bool> {
        debug_assert!(self.rest.is_empty(), "bytes overtake others");
        self.rest = bytes;
        self.flush(socket)
    }

    /// Sends what is on its way; whether all of it went.
    pub(super) fn flush(&mut self, socket: &mut impl Write) -> io::Result<bool> {
        while !self.rest.is_empty() {
            match write(socket, |socket| socket.write(&self.rest))? {
                Some(count) => self.rest.advance(count),
                None => return Ok(false),
            }
        }
        self.rest = Bytes::new();
        Ok(true)
    }

    /// Sends chunks, and answers how many were begun: all of them went if that is all and nothing is on its way.
    pub(super) fn send_chunks(&mut self, socket: &mut impl Write, chunks: &[Chunk]) -> io::Result<usize> {
        debug_assert!(self.rest.is_empty(), "chunks overtake bytes");
        let mut done = 0;
        let mut skip = 0;
        while done < chunks.len() {
            let wave = &chunks[done..chunks.len().min(done + CHUNKS_PER_WRITE)];
            let written = if let [one] = wave {
                write(socket, |socket| socket.write(&one.bytes[skip..]))?
            } else {
                let mut slices = [IoSlice::new(&[]); CHUNKS_PER_WRITE];
                for (slice, chunk) in slices.iter_mut().zip(wave) {
                    *slice = IoSlice::new(&chunk.bytes);
                }
                slices[0].advance(skip);
                write(socket, |socket| socket.write_vectored(&slices[..wave.len()]))?
            };
            let Some(mut count) = written else {
                if skip > 0 {
                    self.rest = chunks[done].bytes.slice(skip..);
                    done += 1;
                }
                return Ok(done);
            };
            count += skip;
            while done < chunks.len() && count >= chunks[done].bytes.len() {
                count -= chunks[done].bytes.len();
                done += 1;
            }
            skip = count;
        }
        Ok(done)
    }
}

/// How much the socket took; none if it takes nothing now.
fn write<S: Write>(socket: &mut S, mut once: impl FnMut(&mut S) -> io::Result<usize>) -> io::Result<Option<usize>> {
    loop {
        match once(socket) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(count) => return Ok(Some(count)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use headwater_model::cursor::Lsn;
    use proptest::prelude::*;

    /// Takes as many bytes at a time as it was told to; zero: none now.
    struct Fickle {
        takes: std::vec::IntoIter<usize>,
        taken: Vec<u8>,
    }

    impl Write for Fickle {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.write_vectored(&[IoSlice::new(bytes)])
        }

        fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
            let all: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).collect();
            let count = self.takes.next().unwrap_or(usize::MAX).min(all.len());
            self.taken.extend_from_slice(&all[..count]);
            if count == 0 { Err(ErrorKind::WouldBlock.into()) } else { Ok(count) }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn chunk(number: u64, length: usize) -> Chunk {
        let at = |number| Offset { lsn: Lsn(number), op: 0 };
        Chunk {
            from: at(number),
            first: at(number + 1),
            to: Mark { offset: at(number + 1), position: Position(0) },
            bytes: (0..length).map(|n| u8::try_from((number * 31 + n as u64) % 251).expect("small")).collect(),
        }
    }

    proptest! {
        /// Whatever the socket takes at a time, it gets the chunks' bytes, each once and in order.
        #[test]
        fn nothing_is_torn_or_reordered(
            lengths in proptest::collection::vec(1_usize..300, 1..40),
            takes in proptest::collection::vec(prop_oneof![Just(0), 1_usize..700], 0..200),
        ) {
            let chunks: Vec<_> = lengths.iter().enumerate().map(|(n, length)| chunk(n as u64, *length)).collect();
            let expected: Vec<u8> = chunks.iter().flat_map(|chunk| chunk.bytes.to_vec()).collect();
            let mut socket = Fickle { takes: takes.into_iter(), taken: Vec::new() };
            let mut outbox = Outbox::default();
            let mut done = 0;
            while done < chunks.len() || !outbox.is_empty() {
                if outbox.flush(&mut socket).expect("it takes no harm") {
                    done += outbox.send_chunks(&mut socket, &chunks[done..]).expect("it takes no harm");
                }
                let begun: usize = lengths[..done].iter().sum();
                prop_assert_eq!(socket.taken.len(), begun - outbox.rest.len(), "what is on its way is the end of what was begun");
            }
            prop_assert_eq!(socket.taken, expected);
        }
    }

    #[test]
    fn a_socket_that_ended_is_an_error() {
        struct Ended;
        impl Write for Ended {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Ok(0)
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        assert!(Outbox::default().send_chunks(&mut Ended, &[chunk(0, 3)]).is_err());
        assert!(Outbox::new(Bytes::from_static(b"x")).flush(&mut Ended).is_err());
    }
}
