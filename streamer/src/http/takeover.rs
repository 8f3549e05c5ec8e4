//! The seam between the HTTP server and the fan-out: once the head of a request for a stream was read, judged and
//! answered, the socket is taken from the server, and the stream goes on without it.
//!
//! What is taken is a plain HTTP/1.1 connection. The answer has no length and no chunks: it ends with the connection.

use crate::events::Stream;
use bytes::{BufMut, Bytes, BytesMut};
use hyper::header::{self, HeaderMap};
use hyper::http::response;
use hyper::{Method, Request, Response, StatusCode, Version};
use std::any::Any;
use std::convert::Infallible;
use std::fmt;
use std::future::pending;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::SystemTime;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::Notify;

/// A socket that can be taken back from whoever reads and writes it; from then on nothing happens to him.
#[derive(Clone, Debug)]
pub(super) struct Lent(Arc<Mutex<Option<TcpStream>>>);

impl Lent {
    pub(super) fn new(socket: TcpStream) -> Self {
        Self(Arc::new(Mutex::new(Some(socket))))
    }

    /// Takes it back, once.
    pub(super) fn recall(&self) -> Option<TcpStream> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Does something to it, unless it was taken back.
    pub(super) fn with(&self, act: impl FnOnce(&TcpStream)) {
        if let Some(socket) = self.0.lock().unwrap_or_else(PoisonError::into_inner).as_ref() {
            act(socket);
        }
    }

    fn poll<T>(&self, act: impl FnOnce(Pin<&mut TcpStream>) -> Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        let mut socket = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        socket.as_mut().map_or(Poll::Pending, |socket| act(Pin::new(socket)))
    }
}

impl AsyncRead for Lent {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.poll(|socket| socket.poll_read(context, buffer))
    }
}

impl AsyncWrite for Lent {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll(|socket| socket.poll_write(context, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll(|socket| socket.poll_write_vectored(context, slices))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll(|socket| socket.poll_flush(context))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll(|socket| socket.poll_shutdown(context))
    }
}

/// A stream that is to be served without the server, and what is to be dropped at its end.
type Streaming = (Stream, Box<dyn Any + Send>);

/// The answer's head, and what goes on behind it.
pub(super) type Taken = (Bytes, Stream, Box<dyn Any + Send>);

/// Stands among a request's extensions where its connection can be taken over: the handler of streams puts its stream
/// here and answers without a body.
#[derive(Clone, Default)]
pub(super) struct Offer(Arc<Mutex<Option<Streaming>>>);

impl Offer {
    /// Offers it to the handler of a request; only a GET of HTTP/1.1 can be taken over.
    pub(super) fn to<B>(request: &mut Request<B>) -> Option<Self> {
        if request.version() != Version::HTTP_11 || request.method() != Method::GET {
            return None;
        }
        let offer = Self::default();
        request.extensions_mut().insert(offer.clone());
        Some(offer)
    }

    pub(super) fn put(&self, stream: Stream, held: Box<dyn Any + Send>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((stream, held));
    }

    pub(super) fn take(&self) -> Option<Streaming> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl fmt::Debug for Offer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Offer")
    }
}

/// How a connection's server hands a stream over.
#[derive(Debug, Default)]
pub(super) struct Handover {
    taken: Mutex<Option<Taken>>,
    notify: Notify,
}

impl Handover {
    /// Passes an answer on, unless it is that of a stream: then the connection is handed over, and the server, which is
    /// about to be dropped, waits in vain.
    pub(super) async fn unless_taken_over<B>(
        &self,
        answer: Response<B>,
        offer: Option<Offer>,
    ) -> Result<Response<B>, Infallible> {
        let Some((stream, place)) = offer.and_then(|offer| offer.take()).filter(|_| answer.status() == StatusCode::OK)
        else {
            return Ok(answer);
        };
        let head = write_head(&answer.into_parts().0);
        *self.taken.lock().unwrap_or_else(PoisonError::into_inner) = Some((head, stream, place));
        self.notify.notify_one();
        pending().await
    }

    /// Waits until it was given.
    pub(super) async fn taken(&self) -> Taken {
        loop {
            self.notify.notified().await;
            if let Some(taken) = self.taken.lock().unwrap_or_else(PoisonError::into_inner).take() {
                return taken;
            }
        }
    }
}

/// RFC 9112: status line, fields, empty line. Without length and transfer coding the body ends with the connection (6.3).
fn write_head(head: &response::Parts) -> Bytes {
    let mut out = BytesMut::new();
    out.put_slice(
        format!("HTTP/1.1 {} {}\r\n", head.status.as_str(), head.status.canonical_reason().unwrap_or("")).as_bytes(),
    );
    for (name, value) in fields(&head.headers) {
        for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            out.put_slice(part);
        }
    }
    let now = httpdate::fmt_http_date(SystemTime::now());
    out.put_slice(format!("connection: close\r\ndate: {now}\r\n\r\n").as_bytes());
    out.freeze()
}

/// All but those that tell how the body is delimited, which is ours to say.
fn fields(headers: &HeaderMap) -> impl Iterator<Item = (&header::HeaderName, &header::HeaderValue)> {
    const OURS: [header::HeaderName; 4] =
        [header::CONTENT_LENGTH, header::TRANSFER_ENCODING, header::CONNECTION, header::DATE];
    headers.iter().filter(|(name, _)| !OURS.contains(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_what_the_server_would_have_written() {
        let answer = Response::builder()
            .header("content-type", "text/event-stream")
            .header("content-length", "0")
            .header("vary", "origin")
            .header("vary", "accept")
            .body(())
            .expect("an answer");
        let head = write_head(&answer.into_parts().0);
        let text = std::str::from_utf8(&head).expect("text");
        let date = text.split("date: ").nth(1).and_then(|rest| rest.strip_suffix("\r\n\r\n")).expect("a date, last");
        let expected = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nvary: origin\r\nvary: accept\r\n\
             connection: close\r\ndate: {date}\r\n\r\n"
        );
        assert_eq!(text, expected);
    }
}
