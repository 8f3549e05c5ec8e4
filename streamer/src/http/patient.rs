//! A socket whose writes end in time: a reader that takes nothing for too long is let go, whatever the transport.
//!
//! Sits right on the TCP stream, beneath TLS and HTTP, where every byte for the reader passes.

use std::io::{self, ErrorKind, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// See the module.
#[derive(Debug)]
pub(super) struct Patient<T> {
    io: T,
    patience: Duration,
    /// What is done to the socket when patience ends.
    give_up: fn(&T),
    /// Runs while a write waits for the reader; idle sockets have none.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl<T> Patient<T> {
    /// Writes may wait for `patience` without any progress.
    pub(super) fn new(io: T, patience: Duration, give_up: fn(&T)) -> Self {
        Self { io, patience, give_up, stalled: None }
    }

    fn judge(&mut self, written: Poll<io::Result<usize>>, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let patience = self.patience;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(patience)));
        if stalled.as_mut().poll(context).is_ready() {
            (self.give_up)(&self.io);
            return Poll::Ready(Err(io::Error::new(ErrorKind::TimedOut, "the reader takes nothing")));
        }
        Poll::Pending
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Patient<T> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write(context, bytes);
        self.judge(written, context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write_vectored(context, slices);
        self.judge(written, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Patient<T> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(context, into)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::poll;
    use std::pin::pin;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    #[tokio::test]
    async fn who_takes_nothing_is_let_go() {
        let (socket, _reader) = duplex(16);
        let mut socket = Patient::new(socket, Duration::from_millis(20), |_| {});
        let error = socket.write_all(&[b'x'; 17]).await.expect_err("nobody reads");
        assert_eq!(error.kind(), ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn every_progress_begins_the_wait_anew() {
        let (socket, mut reader) = duplex(16);
        let mut socket = Patient::new(socket, Duration::from_hours(1), |_| {});
        for part in [17, 16] {
            assert!(poll!(pin!(socket.write_all(&vec![b'x'; part]))).is_pending(), "{part}: it is full");
            assert!(socket.stalled.is_some(), "{part}: the clock runs");
            reader.read_exact(&mut [0; 16]).await.expect("bytes");
            socket.write_all(b"x").await.expect("room");
            assert!(socket.stalled.is_none(), "{part}: there was progress");
        }
    }
}
