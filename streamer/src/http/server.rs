//! The accept loop: connection limit, graceful end. What a connection may do is in `connection.rs`.
//!
//! `axum::serve` installs no timer, which leaves hyper's header timeout without effect; hence a loop of our own.

use super::connection::{Guest, Protocols};
use super::tls::Tls;
use crate::error::Error;
use crate::fanout::Fanout;
use axum::Router;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream, lookup_host};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

/// Streams end at once; requests that are in the database get this long.
const DRAIN_PATIENCE: Duration = Duration::from_secs(10);

/// Out of file descriptors: accepting again at once would fail again at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What connections may do.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// At the same time; the others wait in the kernel's queue.
    pub connections: usize,
    /// For the headers of a request, for a TLS handshake, and for a connection between two requests.
    pub header_timeout: Duration,
    /// A request's headers, its first line included.
    pub header_bytes: usize,
    /// How many they may be (HTTP/1.1; those of HTTP/2 are bounded in bytes).
    pub headers: usize,
    /// How long a write may wait for a reader that takes nothing.
    pub write_timeout: Duration,
}

/// A connection's place among those that may be open at a time, until the last copy is dropped.
#[derive(Clone, Debug)]
pub(super) struct Held(#[expect(dead_code, reason = "held, not read")] Arc<OwnedSemaphorePermit>);

/// Takes the port. Done before everything else, so that a port in use is known at once.
pub async fn bind(host: &str, port: u16) -> Result<TcpListener, Error> {
    let explain = |error: io::Error| {
        let problem = format!("cannot listen on {host}:{port}: {error}");
        let remedy = match error.kind() {
            io::ErrorKind::AddrInUse => {
                format!("stop what uses port {port}, or choose another --port (HEADWATER_PORT)")
            }
            io::ErrorKind::PermissionDenied => {
                "ports below 1024 are for root: choose another --port (HEADWATER_PORT)".to_owned()
            }
            _ => "correct --listen (HEADWATER_LISTEN): a name or address of this machine".to_owned(),
        };
        Error::setup(problem, remedy)
    };
    let addresses: Vec<SocketAddr> = lookup_host((host, port)).await.map_err(explain)?.collect();
    TcpListener::bind(addresses.as_slice()).await.map_err(explain)
}

/// Serves until `shutdown`, then lets requests finish.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    limits: Limits,
    tls: Option<Arc<Tls>>,
    fanout: Arc<Fanout>,
    shutdown: CancellationToken,
) {
    let protocols = Arc::new(Protocols::new(&limits, tls.as_deref(), fanout));
    let permits = Arc::new(Semaphore::new(limits.connections));
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = accept(&listener, &permits) => accepted,
        };
        let Some((stream, peer, held)) = accepted else { continue };
        let guest = Guest::new(router.clone(), held.clone(), peer);
        let (protocols, ending) = (Arc::clone(&protocols), shutdown.clone());
        tokio::spawn(async move {
            // A client that breaks off or talks nonsense is its own affair.
            if let Err(error) = protocols.serve(stream, guest, ending).await {
                tracing::debug!(%error, %peer, "a connection ended");
            }
            drop(held);
        });
    }
    drop(listener);
    let all = u32::try_from(limits.connections).unwrap_or(u32::MAX);
    // The permits of all that is left, those that have become WebSockets included.
    let drained = permits.acquire_many(all);
    if timeout(DRAIN_PATIENCE, drained).await.is_err() {
        tracing::warn!("some requests did not end in time");
    }
}

async fn accept(listener: &TcpListener, permits: &Arc<Semaphore>) -> Option<(TcpStream, SocketAddr, Held)> {
    let permit = Held(Arc::new(Arc::clone(permits).acquire_owned().await.ok()?));
    match listener.accept().await {
        Ok((stream, peer)) => {
            // Frames are coalesced already; holding back a small one only adds delay.
            if let Err(error) = stream.set_nodelay(true) {
                tracing::debug!(%error, "a connection ended before it began");
            }
            Some((stream, peer, permit))
        }
        Err(error) => {
            tracing::warn!(%error, "cannot accept a connection");
            sleep(ACCEPT_PAUSE).await;
            None
        }
    }
}
