//! A reader on its own: a task that brings it from wherever it is to the head of the log, where the reactors share
//! frames among all. Also where a stream ends: goodbyes, expired tokens and resets are sent from here.

use super::{Arrival, Fanout, Returned};
use crate::events::{Step, Stream};
use bytes::{Buf as _, Bytes};
use std::any::Any;
use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::time::timeout;

/// After the request's end nothing is expected; whoever keeps talking is cut off after so many bytes.
const UNASKED_BYTES: usize = 16 * 1024;

/// A reader on its own.
pub(super) struct Alone {
    pub(super) socket: TcpStream,
    /// Goes out before everything else.
    pub(super) first: Bytes,
    pub(super) stream: Stream,
    pub(super) held: Box<dyn Any + Send>,
    /// It has just been where frames are shared, and has to wait for something before it goes there again.
    pub(super) patient: bool,
}

enum Ending {
    Over,
    UpToDate,
}

/// Serves a reader until it is up to date or its stream ends.
pub(super) async fn serve(fanout: Arc<Fanout>, mut alone: Alone) {
    loop {
        let (inbound, mut outbound) = alone.socket.split();
        let first = std::mem::take(&mut alone.first);
        let ended = tokio::select! {
            ended = run(&mut outbound, first, &mut alone.stream, alone.patient, fanout.write_timeout) => ended,
            () = gone(inbound) => return,
        };
        match ended {
            Ok(Ending::UpToDate) => {}
            Ok(Ending::Over) => return,
            Err(error) => {
                tracing::debug!(%error, "a reader ended");
                if error.kind() == ErrorKind::TimedOut {
                    alone.stream.too_slow();
                    let_go(Ok(alone.socket));
                }
                return;
            }
        }
        match share(&fanout, alone) {
            Some(kept) => alone = kept,
            None => return,
        }
    }
}

async fn run(
    outbound: &mut WriteHalf<'_>,
    first: Bytes,
    stream: &mut Stream,
    mut patient: bool,
    write_timeout: Duration,
) -> io::Result<Ending> {
    write(outbound, first, write_timeout).await?;
    loop {
        let step = if patient { stream.next().await.map_or(Step::Ended, Step::Blocks) } else { stream.advance().await };
        match step {
            Step::Blocks(blocks) => {
                patient = false;
                write(outbound, blocks, write_timeout).await?;
            }
            Step::UpToDate if stream.shareable().is_some() => return Ok(Ending::UpToDate),
            Step::UpToDate => patient = true,
            Step::Ended => {
                outbound.shutdown().await?;
                return Ok(Ending::Over);
            }
        }
    }
}

/// Closes the socket of a reader that takes nothing: what waits for it must not stay in the kernel.
pub(super) fn let_go(socket: io::Result<TcpStream>) {
    if let Err(error) = socket.and_then(|socket| socket.set_zero_linger()) {
        tracing::debug!(%error, "a connection is left to the kernel");
    }
}

/// Every progress begins the wait anew.
async fn write(outbound: &mut WriteHalf<'_>, mut bytes: Bytes, patience: Duration) -> io::Result<()> {
    while !bytes.is_empty() {
        let written = timeout(patience, outbound.write(&bytes)).await;
        match written.map_err(|_| io::Error::new(ErrorKind::TimedOut, "the reader takes nothing"))?? {
            0 => return Err(ErrorKind::WriteZero.into()),
            count => bytes.advance(count),
        }
    }
    Ok(())
}

/// Returns when the other side has gone, or will not be silent.
async fn gone(mut inbound: ReadHalf<'_>) {
    let mut unasked = 0;
    let mut scratch = [0; 256];
    while let Ok(count @ 1..) = inbound.read(&mut scratch).await {
        unasked += count;
        if unasked > UNASKED_BYTES {
            return;
        }
    }
}

/// Passes the reader on to a reactor; gives it back if that has stopped.
fn share(fanout: &Fanout, alone: Alone) -> Option<Alone> {
    let Alone { socket, stream, held, .. } = alone;
    let cursor = stream.shareable()?;
    let (filter, until) = stream.into_wishes();
    let socket = socket.into_std().inspect_err(|error| {
        tracing::warn!(%error, "a reader's socket cannot be passed on; it is let go, its cursor stays good");
    });
    let until = until.map(tokio::time::Instant::into_std);
    let refused = fanout.admit(Arrival { socket: socket.ok()?, filter, cursor, until, held })?;
    let Arrival { socket, filter, cursor, until, held } = *refused;
    fanout.alone(Returned { socket, filter, cursor, until, held, rest: Bytes::new(), hopeless: false })
}
