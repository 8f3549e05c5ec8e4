//! One connection: TLS if that is on, then HTTP/1.1 or HTTP/2, whichever its first bytes are. Bounded in time and
//! memory whatever the other side does or leaves undone.

use super::patient::Patient;
use super::server::{Held, Limits};
use super::takeover::{Handover, Lent, Offer};
use super::tls::Tls;
use crate::fanout::Fanout;
use axum::Router;
use axum::body::Body;
use axum::http::Response;
use futures_util::future::BoxFuture;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::Service;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::convert::Infallible;
use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_util::sync::CancellationToken;

/// What an HTTP/1.1 connection may hold that its reader has not taken, beside the chunk that is being written; and how
/// much of a body is read at a time. hyper's default of 400 KiB would be a gigabyte for 2,500 readers that do not read.
const BUFFER_BYTES: usize = 16 * 1024;

/// The same for each stream of an HTTP/2 connection.
const STREAM_BUFFER_BYTES: usize = 64 * 1024;

/// Streams of one HTTP/2 connection at a time: a browser shares one among all its tabs.
const CONCURRENT_STREAMS: u32 = 200;

/// How hyper counts headers when it is not told: on the stack, without an allocation for each request.
const HEADERS_ON_THE_STACK: usize = 100;

/// RFC 9113 3.4: how an HTTP/2 connection begins, and no HTTP/1.1 connection does.
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

type Ended = Box<dyn std::error::Error + Send + Sync>;

/// How connections are served.
#[derive(Debug)]
pub(super) struct Protocols {
    http1: http1::Builder,
    http2: http2::Builder<TokioExecutor>,
    tls: Option<Arc<ServerConfig>>,
    fanout: Arc<Fanout>,
    header_timeout: Duration,
    write_timeout: Duration,
}

impl Protocols {
    pub(super) fn new(limits: &Limits, tls: Option<&Tls>, fanout: Arc<Fanout>) -> Self {
        let mut http1 = http1::Builder::new();
        http1
            .timer(TokioTimer::new())
            .header_read_timeout(limits.header_timeout)
            .max_header_size(limits.header_bytes)
            .max_buf_size(BUFFER_BYTES.max(limits.header_bytes));
        if limits.headers != HEADERS_ON_THE_STACK {
            http1.max_headers(limits.headers);
        }
        let mut http2 = http2::Builder::new(TokioExecutor::new());
        http2
            .timer(TokioTimer::new())
            // Between the frames of a header block nothing else may be sent, not even the answer to a ping: who dribbles
            // headers, or is gone, is found out.
            .keep_alive_interval(limits.header_timeout)
            .keep_alive_timeout(limits.header_timeout)
            .max_header_list_size(u32::try_from(limits.header_bytes).unwrap_or(u32::MAX))
            .max_concurrent_streams(CONCURRENT_STREAMS)
            .max_send_buf_size(STREAM_BUFFER_BYTES);
        Self {
            http1,
            http2,
            tls: tls.map(Tls::settings),
            fanout,
            header_timeout: limits.header_timeout,
            write_timeout: limits.write_timeout,
        }
    }

    /// Serves until the other side has had enough, or until what it asked before `ending` is answered.
    pub(super) async fn serve(&self, stream: TcpStream, guest: Guest, ending: CancellationToken) -> Result<(), Ended> {
        match &self.tls {
            None => {
                let lent = Lent::new(stream);
                let handover = Arc::new(Handover::default());
                let guest = Guest { handover: Some(Arc::clone(&handover)), ..guest };
                let held = guest.held.clone();
                let io = Patient::new(lent.clone(), self.write_timeout, |lent: &Lent| lent.with(drop_unsent));
                tokio::select! {
                    ended = self.speak(io, guest, ending) => ended?,
                    (answer, stream, place) = handover.taken() => {
                        if let Some(socket) = lent.recall() {
                            self.fanout.serve(socket, answer, stream, Box::new((place, held)));
                        }
                    }
                }
                Ok(())
            }
            Some(tls) => {
                let stream = Patient::new(stream, self.write_timeout, drop_unsent);
                let handshake = TlsAcceptor::from(Arc::clone(tls)).accept(stream);
                let stream = timeout(self.header_timeout, handshake).await??;
                self.speak(stream, guest, ending).await
            }
        }
    }

    async fn speak<T>(&self, mut io: T, guest: Guest, ending: CancellationToken) -> Result<(), Ended>
    where
        T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let first = tokio::select! {
            first = timeout(self.header_timeout, First::read(&mut io)) => first??,
            () = ending.cancelled() => return Ok(()),
        };
        let http2 = first.is_http2();
        let io = TokioIo::new(Ahead { first, io });
        if http2 {
            // Large, and rare beside the other: not in every connection's task.
            let mut connection = Box::pin(self.http2.serve_connection(io, guest));
            tokio::select! {
                ended = connection.as_mut() => ended?,
                () = ending.cancelled() => {
                    connection.as_mut().graceful_shutdown();
                    connection.await?;
                }
            }
        } else {
            let mut connection = pin!(self.http1.serve_connection(io, guest).with_upgrades());
            tokio::select! {
                ended = connection.as_mut() => ended?,
                () = ending.cancelled() => {
                    connection.as_mut().graceful_shutdown();
                    connection.await?;
                }
            }
        }
        Ok(())
    }
}

/// A reader that takes nothing would leave what waits for it in the kernel, long after the socket is closed.
fn drop_unsent(stream: &TcpStream) {
    if let Err(error) = stream.set_zero_linger() {
        tracing::debug!(%error, "a connection is left to the kernel");
    }
}

/// Where a request comes from: its client, or the proxy before it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer(pub(super) IpAddr);

/// The routes, for one connection.
#[derive(Clone, Debug)]
pub(super) struct Guest {
    router: TowerToHyperService<Router>,
    held: Held,
    peer: SocketAddr,
    /// Where streams go on without the server, if they may.
    handover: Option<Arc<Handover>>,
}

impl Guest {
    pub(super) fn new(router: Router, held: Held, peer: SocketAddr) -> Self {
        Self { router: TowerToHyperService::new(router), held, peer, handover: None }
    }
}

impl Service<Request<Incoming>> for Guest {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        // A WebSocket outlives its HTTP connection, and is a connection nevertheless.
        request.extensions_mut().insert(self.held.clone());
        request.extensions_mut().insert(Peer(self.peer.ip()));
        let handover = self.handover.clone();
        let offer = handover.as_ref().and_then(|_| Offer::to(&mut request));
        let answer = self.router.call(request);
        Box::pin(async move {
            let answer = answer.await?;
            match handover {
                Some(handover) => handover.unless_taken_over(answer, offer).await,
                None => Ok(answer),
            }
        })
    }
}

/// The first bytes, as many as tell the protocol.
#[derive(Debug)]
struct First {
    bytes: [u8; PREFACE.len()],
    length: usize,
    taken: usize,
}

impl First {
    async fn read(io: &mut (impl AsyncRead + Unpin)) -> io::Result<Self> {
        let mut first = Self { bytes: [0; PREFACE.len()], length: 0, taken: 0 };
        loop {
            let count = io.read(&mut first.bytes[first.length..]).await?;
            first.length += count;
            let differs = first.bytes[..first.length] != PREFACE[..first.length];
            if differs || count == 0 || first.is_http2() {
                return Ok(first);
            }
        }
    }

    fn is_http2(&self) -> bool {
        self.bytes == *PREFACE
    }
}

/// A socket whose first bytes have been read already.
#[derive(Debug)]
struct Ahead<T> {
    first: First,
    io: T,
}

impl<T: AsyncRead + Unpin> AsyncRead for Ahead<T> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let first = &mut self.first;
        let left = &first.bytes[first.taken..first.length];
        if left.is_empty() {
            return Pin::new(&mut self.io).poll_read(context, into);
        }
        let count = left.len().min(into.remaining());
        into.put_slice(&left[..count]);
        first.taken += count;
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Ahead<T> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(context, slices)
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

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncWriteExt, duplex};

    #[tokio::test]
    async fn the_first_bytes_tell_the_protocol_and_are_not_lost() {
        async fn check(parts: &[&[u8]], http2: bool) {
            let (mut client, mut server) = duplex(64);
            let written: Vec<Vec<u8>> = parts.iter().map(|part| part.to_vec()).collect();
            tokio::spawn(async move {
                for part in written {
                    client.write_all(&part).await.expect("room");
                    tokio::task::yield_now().await;
                }
            });
            let first = First::read(&mut server).await.expect("bytes");
            assert_eq!(first.is_http2(), http2, "{parts:?}");
            let mut all = Vec::new();
            Ahead { first, io: server }.read_to_end(&mut all).await.expect("the rest");
            assert_eq!(all, parts.concat(), "{parts:?}");
        }
        check(&[b"GET / HTTP/1.1\r\n\r\n"], false).await;
        check(&[b"P", b"OST / HTTP/1.1\r\n\r\n"], false).await;
        check(&[b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"more"], true).await;
        check(&[b"PRI * HT", b"TP/2.0\r\n\r\nSM\r\n\r\nmore"], true).await;
        check(&[b"PRI * HTTP/1.1\r\n\r\n"], false).await;
        check(&[b"PRI"], false).await;
        check(&[], false).await;
    }
}
