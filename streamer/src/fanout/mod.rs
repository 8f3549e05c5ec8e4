//! Fan-out: brings the bytes of event streams to plain sockets, a frame once for all who want it.
//!
//! A reader comes in with a stream of its own and a socket. Until it is up to date a task serves it ([`catch_up`]); then
//! a reactor, one thread per core, has it among all others: a slot of some 150 bytes and the socket. Readers with the
//! same wishes share a channel ([`channel`]), whose frames are put together once; each gets what waits for it in one
//! write. Who falls behind the ring, whose token expires, or who has to hear that the history is another one goes
//! back to a task.
//!
//! Streams over TLS, HTTP/2 and WebSocket do without: they are served by [`crate::events::Stream`] alone, which
//! makes the same bytes.

mod catch_up;
mod channel;
mod outbox;
mod reactor;

use crate::error::Error;
use crate::events::{Events, Filter, Stream};
use bytes::Bytes;
use catch_up::Alone;
use headwater_model::cursor::Cursor;
use reactor::{Arrival, Order, Reactor, WAKE};
use std::any::Any;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Weak};
use std::thread::available_parallelism;
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

/// More threads than this only wait for the network.
const MOST_REACTORS: usize = 8;

/// A reader that a reactor cannot serve.
struct Returned {
    socket: std::net::TcpStream,
    filter: Filter,
    cursor: Cursor,
    until: Option<Instant>,
    held: Box<dyn Any + Send>,
    /// What it has to get before all that follows.
    rest: Bytes,
    /// It takes nothing, and is only to be let go.
    hopeless: bool,
}

type Return = Box<dyn Fn(Returned) + Send>;

/// The reactors.
#[derive(Debug)]
pub struct Fanout {
    events: Arc<Events>,
    reactors: Vec<Remote>,
    next: AtomicUsize,
    write_timeout: Duration,
}

/// How to reach a reactor.
#[derive(Debug)]
struct Remote {
    orders: Sender<Order>,
    waker: Arc<mio::Waker>,
}

impl Fanout {
    /// Starts them. They stop with `shutdown`, and every stream ends as it should. A reader that takes nothing for
    /// `write_timeout` is let go. Call it within a Tokio runtime.
    pub fn start(
        events: &Arc<Events>,
        write_timeout: Duration,
        shutdown: &CancellationToken,
    ) -> Result<Arc<Self>, Error> {
        let count = available_parallelism().map_or(1, NonZeroUsize::get).min(MOST_REACTORS);
        let mut polls = Vec::with_capacity(count);
        let mut reactors = Vec::with_capacity(count);
        for _ in 0..count {
            let poll = mio::Poll::new().map_err(Error::io("make an epoll"))?;
            let waker = mio::Waker::new(poll.registry(), WAKE).map_err(Error::io("make an eventfd"))?;
            let (orders, inbox) = mpsc::channel();
            polls.push((poll, inbox));
            reactors.push(Remote { orders, waker: Arc::new(waker) });
        }
        let fanout = Arc::new(Self { events: Arc::clone(events), reactors, next: AtomicUsize::new(0), write_timeout });
        for (number, (poll, inbox)) in polls.into_iter().enumerate() {
            let back = give_back_to(Arc::downgrade(&fanout));
            let reactor = Reactor::new(poll, inbox, events, write_timeout, back);
            std::thread::Builder::new()
                .name(format!("fanout-{number}"))
                .spawn(move || reactor.run())
                .map_err(Error::io("start a thread"))?;
            let Remote { orders, waker } = &fanout.reactors[number];
            let (ringing, log) = (Arc::clone(waker), events.shared().0);
            log.on_arrival(move || ring(&ringing));
            let (orders, waker, ending) = (orders.clone(), Arc::clone(waker), shutdown.clone());
            tokio::spawn(async move {
                ending.cancelled().await;
                // It has stopped already if this cannot be sent.
                let _ = orders.send(Order::Stop);
                ring(&waker);
            });
        }
        Ok(fanout)
    }

    /// Serves a stream on `socket` from here on: `first`, then its blocks. `held` is dropped when it ends.
    pub fn serve(self: &Arc<Self>, socket: TcpStream, first: Bytes, stream: Stream, held: Box<dyn Any + Send>) {
        let alone = Alone { socket, first, stream, held, patient: false };
        tokio::spawn(catch_up::serve(Arc::clone(self), alone));
    }

    /// Passes a reader to the next reactor; gives it back if that has stopped.
    fn admit(&self, arrival: Arrival) -> Option<Box<Arrival>> {
        let number = self.next.fetch_add(1, Ordering::Relaxed) % self.reactors.len();
        let Remote { orders, waker } = &self.reactors[number];
        let refused = orders.send(Order::Take(Box::new(arrival))).err();
        ring(waker);
        refused.and_then(|refused| match refused.0 {
            Order::Take(arrival) => Some(arrival),
            Order::Stop => None,
        })
    }

    /// None if its socket is of no use any more.
    fn alone(&self, returned: Returned) -> Option<Alone> {
        let Returned { socket, filter, cursor, until, held, rest, .. } = returned;
        let socket = TcpStream::from_std(socket).inspect_err(|error| {
            tracing::warn!(%error, "a reader's socket cannot be taken back; it is let go, its cursor stays good");
        });
        let until = until.map(tokio::time::Instant::from_std);
        let stream = Stream::resumed(Arc::clone(&self.events), cursor, filter, until);
        Some(Alone { socket: socket.ok()?, first: rest, stream, held, patient: true })
    }
}

fn give_back_to(fanout: Weak<Fanout>) -> Return {
    let runtime = Handle::current();
    Box::new(move |returned| {
        let Some(fanout) = fanout.upgrade() else { return };
        let _entered = runtime.enter();
        if returned.hopeless {
            catch_up::let_go(TcpStream::from_std(returned.socket));
        } else if let Some(alone) = fanout.alone(returned) {
            runtime.spawn(catch_up::serve(fanout, alone));
        }
    })
}

fn ring(waker: &mio::Waker) {
    if let Err(error) = waker.wake() {
        tracing::error!(%error, "cannot wake a reactor");
    }
}
