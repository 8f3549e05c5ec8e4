//! One reader: its socket, what is on its way to it, and where it is afterwards.

use crate::fanout::outbox::{Chunk, Mark, Outbox};
use mio::net::TcpStream;
use std::any::Any;
use std::io::{self, ErrorKind, Read as _};
use std::time::Instant;

/// After the request's end nothing is expected; whoever keeps talking is cut off after so many bytes.
const UNASKED_BYTES: u32 = 16 * 1024;

pub(super) struct Reader {
    pub(super) socket: TcpStream,
    pub(super) channel: usize,
    /// Its place among the channel's members.
    pub(super) seat: usize,
    pub(super) outbox: Outbox,
    /// None: at the head.
    pub(super) mark: Option<Mark>,
    pub(super) unasked: u32,
    pub(super) written: Instant,
    pub(super) until: Option<Instant>,
    pub(super) held: Box<dyn Any + Send>,
}

impl Reader {
    /// Sends it what is new. It was at `before`, and is at `at` when it had all of it.
    pub(super) fn take_chunks(&mut self, chunks: &[Chunk], before: Mark, at: Mark, now: Instant) -> io::Result<()> {
        self.written = now;
        let begun = self.outbox.send_chunks(&mut self.socket, chunks)?;
        if begun == chunks.len() && self.outbox.is_empty() {
            return Ok(());
        }
        self.mark = Some(match begun {
            0 => before,
            all if all == chunks.len() => at,
            some => chunks[some - 1].to,
        });
        Ok(())
    }

    /// Reads what nobody asked for; false if the other side has gone or will not be silent.
    pub(super) fn listen(&mut self) -> bool {
        let mut scratch = [0; 1024];
        loop {
            match self.socket.read(&mut scratch) {
                Ok(0) => return false,
                Ok(count) => self.unasked += u32::try_from(count).unwrap_or(u32::MAX),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return true,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
            if self.unasked > UNASKED_BYTES {
                return false;
            }
        }
    }
}
