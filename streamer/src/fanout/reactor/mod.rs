//! One thread's readers: those who have everything get each new chunk by one write; those whose socket was full go on
//! when it is not; whoever needs more than the ring has is given back.
//!
//! Invariants:
//! 1. A reader that is "at the head" has had every frame that it wants up to `at`, and nothing is on its way to it.
//! 2. Every other one has a mark: where it is when what is on its way has gone. It is at the head again once its mark
//!    has reached `at`.
//! 3. Per reader there is a mark and the rest of one chunk, never a queue.

mod lag;
mod passage;
mod reader;
mod round;
mod sweep;

use super::Return;
use super::channel::Channels;
use super::outbox::Mark;
use crate::events::{Events, Filter};
use crate::log::Log;
use crate::registry::Registry;
use crate::slice::ask_for_short_turns;
use crate::tally::Tally;
use headwater_model::cursor::{Cursor, Epoch, Offset, Position};
use mio::{Poll, Token};
use reader::Reader;
use slab::Slab;
use std::any::Any;
use std::collections::{BTreeSet, VecDeque};
use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::{Duration, Instant};

/// The reactor's own wake-up; readers have smaller numbers.
pub(super) const WAKE: Token = Token(usize::MAX);

/// Readiness that is taken from the kernel at a time.
const READINESS_PER_POLL: usize = 1024;

/// A reader that is up to date comes in.
pub(super) struct Arrival {
    pub(super) socket: std::net::TcpStream,
    pub(super) filter: Filter,
    /// With an offset.
    pub(super) cursor: Cursor,
    pub(super) until: Option<Instant>,
    pub(super) held: Box<dyn Any + Send>,
}

/// What the reactor is told.
pub(super) enum Order {
    Take(Box<Arrival>),
    Stop,
}

pub(super) struct Reactor {
    poll: Poll,
    orders: Receiver<Order>,
    log: Arc<Log>,
    registry: Arc<Registry>,
    tally: Arc<Tally>,
    back: Return,
    heartbeat: Duration,
    write_timeout: Duration,
    epoch: Option<Epoch>,
    /// Everything up to here was put together; its position is the newest watermark.
    at: Mark,
    /// Whether the log has more.
    more: bool,
    readers: Slab<Reader>,
    channels: Channels,
    /// Came with an offset that the log has reached and this reactor has not.
    early: Vec<Arrival>,
    /// Had their turn and want another.
    turns: VecDeque<usize>,
    expiries: BTreeSet<(Instant, usize)>,
    sweep_at: Instant,
}

impl Reactor {
    pub(super) fn new(
        poll: Poll,
        orders: Receiver<Order>,
        events: &Events,
        write_timeout: Duration,
        back: Return,
    ) -> Self {
        let (log, registry, heartbeat) = events.shared();
        let at = Mark { offset: Offset::default(), position: Position(0) };
        Self {
            poll,
            orders,
            log,
            registry,
            tally: Arc::clone(events.tally()),
            back,
            heartbeat,
            write_timeout,
            epoch: None,
            at,
            more: false,
            readers: Slab::new(),
            channels: Channels::default(),
            early: Vec::new(),
            turns: VecDeque::new(),
            expiries: BTreeSet::new(),
            sweep_at: Instant::now(),
        }
    }

    /// Until it is told to stop; then every reader is given back.
    pub(super) fn run(mut self) {
        ask_for_short_turns();
        let mut readiness = mio::Events::with_capacity(READINESS_PER_POLL);
        loop {
            if let Err(error) = self.poll.poll(&mut readiness, self.patience())
                && error.kind() != ErrorKind::Interrupted
            {
                // Only a programming error gets here (EBADF, EINVAL); the readers still have their cursors.
                tracing::error!(%error, "cannot wait for sockets; giving the readers back");
                return self.give_all_back();
            }
            let ready = readiness.iter().filter(|event| event.token() != WAKE);
            for (key, gone, readable) in
                ready.map(|event| (event.token().0, event.is_error(), event.is_readable() || event.is_read_closed()))
            {
                self.ready(key, gone, readable);
            }
            for _ in 0..self.turns.len() {
                let Some(key) = self.turns.pop_front() else { break };
                self.go_on(key);
            }
            if !self.take_orders() {
                return self.give_all_back();
            }
            self.round();
            self.sweep();
        }
    }

    fn patience(&self) -> Option<Duration> {
        if self.more || !self.turns.is_empty() || !self.early.is_empty() {
            return Some(Duration::ZERO);
        }
        if self.readers.is_empty() {
            return None;
        }
        let next = self.expiries.first().map_or(self.sweep_at, |(until, _)| self.sweep_at.min(*until));
        Some(next.saturating_duration_since(Instant::now()))
    }

    /// Whether it goes on.
    fn take_orders(&mut self) -> bool {
        loop {
            match self.orders.try_recv() {
                Ok(Order::Take(arrival)) => self.early.push(*arrival),
                Ok(Order::Stop) | Err(TryRecvError::Disconnected) => return false,
                Err(TryRecvError::Empty) => return true,
            }
        }
    }

    /// A socket has something to say, or takes bytes again.
    fn ready(&mut self, key: usize, gone: bool, readable: bool) {
        let Some(reader) = self.readers.get_mut(key) else { return };
        if gone || (readable && !reader.listen()) {
            return self.let_go(key);
        }
        self.go_on(key);
    }
}
