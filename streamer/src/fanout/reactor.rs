//! One thread's readers: those who have everything get each new chunk by one write; those whose socket was full go on
//! when it is not; whoever needs more than the ring has is given back.
//!
//! Invariants:
//! 1. A reader that is "at the head" has had every frame that it wants up to `at`, and nothing is on its way to it.
//! 2. Every other one has a mark: where it is when what is on its way has gone. It is at the head again once its mark
//!    has reached `at`.
//! 3. Per reader there is a mark and the rest of one chunk, never a queue.

use super::channel::{CHUNK_BYTES, Channels};
use super::outbox::{Chunk, Mark, Outbox};
use super::{Return, Returned};
use crate::events::{Events, Filter};
use crate::log::{Log, Read, Taken};
use crate::registry::Registry;
use crate::tally::{Reason, Tally};
use bytes::{Bytes, BytesMut};
use headwater_model::cursor::{Cursor, Epoch, Offset, Position};
use mio::net::TcpStream;
use mio::{Interest, Poll, Token};
use slab::Slab;
use std::any::Any;
use std::collections::{BTreeSet, VecDeque};
use std::io::{self, ErrorKind, Read as _};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::{Duration, Instant};

/// The reactor's own wake-up; readers have smaller numbers.
pub(super) const WAKE: Token = Token(usize::MAX);

/// Events that are put together before sockets get them: it bounds the memory of a round.
const EVENTS_PER_ROUND: usize = 4096;

/// Chunks that a reader who lags behind gets before it is another one's turn.
const CHUNKS_PER_TURN: usize = 16;

/// Readiness that is taken from the kernel at a time.
const READINESS_PER_POLL: usize = 1024;

/// After the request's end nothing is expected; whoever keeps talking is cut off after so many bytes.
const UNASKED_BYTES: u32 = 16 * 1024;

/// Heartbeats are looked for so many times between two of them.
const SWEEPS_PER_HEARTBEAT: u32 = 8;

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

struct Reader {
    socket: TcpStream,
    channel: usize,
    /// Its place among the channel's members.
    seat: usize,
    outbox: Outbox,
    /// None: at the head.
    mark: Option<Mark>,
    unasked: u32,
    written: Instant,
    until: Option<Instant>,
    held: Box<dyn Any + Send>,
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

    /// Brings what is new to those who are at the head, then lets new readers in.
    fn round(&mut self) {
        if self.readers.is_empty() {
            self.jump();
        } else if let Some(epoch) = self.epoch {
            match self.log.take(epoch, self.at.offset, EVENTS_PER_ROUND) {
                Taken::Foreign | Taken::Behind => {
                    tracing::debug!("the log went on without the readers of a reactor; they go on by themselves");
                    self.give_readers_back();
                    self.jump();
                }
                Taken::Some(transactions) => {
                    self.more = true;
                    self.distribute(epoch, &transactions, None);
                }
                Taken::All { transactions, next, watermark } => {
                    self.more = false;
                    let position = watermark.map_or(Position(0), |watermark| watermark.position);
                    self.distribute(epoch, &transactions, Some(Mark { offset: next, position }));
                }
            }
        }
        for arrival in std::mem::take(&mut self.early) {
            self.admit(arrival);
        }
    }

    /// Nobody is here: where the log ends is where we are.
    fn jump(&mut self) {
        let tip = self.log.tip();
        self.epoch = tip.epoch;
        let position = self.log.watermark_at(tip.head).map_or(Position(0), |watermark| watermark.position);
        self.at = Mark { offset: Offset::just_before(tip.head), position };
        self.more = false;
    }

    /// `end`: where readers are that had all of it, unless the round's bound cuts it short.
    fn distribute(&mut self, epoch: Epoch, transactions: &[Arc<crate::log::Transaction>], end: Option<Mark>) {
        let before = self.at;
        let entities = self.registry.entities();
        let mut left = EVENTS_PER_ROUND;
        for transaction in transactions {
            let events = transaction.events_after(before.offset);
            let (now, later) = events.split_at(events.len().min(left));
            for event in now {
                self.channels.route(epoch, transaction, event, self.at, &entities);
            }
            if let Some(last) = now.last() {
                let position = self.at.position.max(transaction.watermark);
                self.at = Mark { offset: transaction.offset(last), position };
            }
            left -= now.len();
            if !later.is_empty() {
                self.more = true;
                return self.deliver(before);
            }
        }
        if let Some(end) = end {
            self.at.offset = self.at.offset.max(end.offset);
            self.at.position = self.at.position.max(end.position);
        }
        self.deliver(before);
    }

    /// Ends a round that began at `before`.
    fn deliver(&mut self, before: Mark) {
        let now = Instant::now();
        for channel in std::mem::take(&mut self.channels.dirty) {
            let chunks = self.channels.cut(channel);
            let mut gone = Vec::new();
            let mut lagging = 0;
            for key in &self.channels.get(channel).members {
                let reader = &mut self.readers[*key];
                if reader.mark.is_none() {
                    match reader.take_chunks(&chunks, before, self.at, now) {
                        Ok(()) => lagging += usize::from(reader.mark.is_some()),
                        Err(error) => gone.push((*key, error)),
                    }
                }
            }
            self.channels.get_mut(channel).lagging += lagging;
            self.channels.keep(channel, chunks);
            for (key, error) in gone {
                tracing::debug!(%error, "a reader ended");
                self.let_go(key);
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

    /// Sends what a reader that is behind has not had, as far as its socket takes it.
    fn go_on(&mut self, key: usize) {
        let Some(reader) = self.readers.get(key).filter(|reader| reader.mark.is_some()) else { return };
        let channel = reader.channel;
        match self.catch_up(key) {
            Ok(Progress::AtHead) => {
                let channel_of = self.channels.get_mut(channel);
                channel_of.lagging -= 1;
                if channel_of.lagging == 0 {
                    self.channels.forget(channel, 0);
                }
            }
            Ok(Progress::Blocked) => {}
            Ok(Progress::Turn) => self.turns.push_back(key),
            Ok(Progress::OutOfRing) => {
                let reader = self.remove(key);
                self.give_back(reader);
            }
            Err(error) => {
                tracing::debug!(%error, "a reader ended");
                self.let_go(key);
            }
        }
    }

    fn catch_up(&mut self, key: usize) -> io::Result<Progress> {
        let Self { readers, channels, log, registry, epoch, at, .. } = self;
        let reader = &mut readers[key];
        let channel = channels.get(reader.channel);
        let Some(epoch) = *epoch else { return Ok(Progress::OutOfRing) };
        for _ in 0..CHUNKS_PER_TURN {
            let before = reader.outbox.len();
            let all = reader.outbox.flush(&mut reader.socket)?;
            if reader.outbox.len() < before {
                reader.written = Instant::now();
            }
            if !all {
                return Ok(Progress::Blocked);
            }
            let Some(mark) = reader.mark else { return Ok(Progress::AtHead) };
            if mark.offset >= at.offset {
                reader.mark = None;
                return Ok(Progress::AtHead);
            }
            let (bytes, next) = match channel.after(mark.offset) {
                Some(Chunk { bytes, to, .. }) => (bytes.clone(), *to),
                None => match own_chunk(log, registry, &channel.filter, epoch, mark, *at) {
                    Some(own) => own,
                    None => return Ok(Progress::OutOfRing),
                },
            };
            reader.mark = Some(next);
            reader.outbox = Outbox::new(bytes);
        }
        Ok(Progress::Turn)
    }

    fn admit(&mut self, arrival: Arrival) {
        let offset = arrival.cursor.offset.unwrap_or_default();
        let at = self.at;
        if Some(arrival.cursor.epoch) != self.epoch || arrival.cursor.position > at.position {
            return self.return_arrival(arrival);
        }
        if offset > at.offset {
            // Either we are about to get there, or nobody ever will.
            if self.more || Offset::just_before(self.log.tip().head) >= offset {
                return self.early.push(arrival);
            }
            return self.return_arrival(arrival);
        }
        let Arrival { socket, filter, cursor, until, held } = arrival;
        let channel = self.channels.open(filter, at);
        let entry = self.readers.vacant_entry();
        let key = entry.key();
        let mut socket = TcpStream::from_std(socket);
        let interest = Interest::READABLE | Interest::WRITABLE;
        if let Err(error) = self.poll.registry().register(&mut socket, Token(key), interest) {
            tracing::warn!(%error, "cannot watch a reader's socket; it is let go, its cursor stays good");
            self.tally.end(Reason::Left);
            return self.channels.close_if_empty(channel);
        }
        let of = self.channels.get_mut(channel);
        let seat = of.members.len();
        of.members.push(key);
        of.lagging += 1;
        entry.insert(Reader {
            socket,
            channel,
            seat,
            outbox: Outbox::default(),
            mark: Some(Mark { offset, position: cursor.position }),
            unasked: 0,
            written: Instant::now(),
            until,
            held,
        });
        if let Some(until) = until {
            self.expiries.insert((until, key));
        }
        self.go_on(key);
    }

    fn return_arrival(&self, arrival: Arrival) {
        let Arrival { socket, filter, cursor, until, held } = arrival;
        (self.back)(Returned { socket, filter, cursor, until, held, rest: Bytes::new(), hopeless: false });
    }

    fn remove(&mut self, key: usize) -> (Reader, Filter) {
        let mut reader = self.readers.remove(key);
        if let Some(until) = reader.until {
            self.expiries.remove(&(until, key));
        }
        if let Err(error) = self.poll.registry().deregister(&mut reader.socket) {
            tracing::debug!(%error, "a socket was not watched");
        }
        let channel = self.channels.get_mut(reader.channel);
        let filter = Filter::clone(&channel.filter);
        channel.lagging -= usize::from(reader.mark.is_some());
        channel.members.swap_remove(reader.seat);
        if let Some(moved) = channel.members.get(reader.seat) {
            self.readers[*moved].seat = reader.seat;
        }
        self.channels.close_if_empty(reader.channel);
        (reader, filter)
    }

    /// The reader has left.
    fn let_go(&mut self, key: usize) {
        self.tally.end(Reason::Left);
        drop(self.remove(key));
    }

    fn give_back(&self, gone: (Reader, Filter)) {
        self.pass_back(gone, false);
    }

    fn pass_back(&self, (reader, filter): (Reader, Filter), hopeless: bool) {
        let Some(epoch) = self.epoch else { return };
        let mark = reader.mark.unwrap_or(self.at);
        let cursor = Cursor { epoch, position: mark.position, offset: Some(mark.offset) };
        let Reader { socket, outbox, until, held, .. } = reader;
        let (socket, rest) = (socket.into(), outbox.into_rest());
        (self.back)(Returned { socket, filter, cursor, until, held, rest, hopeless });
    }

    fn give_readers_back(&mut self) {
        for key in self.readers.iter().map(|(key, _)| key).collect::<Vec<_>>() {
            let reader = self.remove(key);
            self.give_back(reader);
        }
    }

    fn give_all_back(mut self) {
        self.give_readers_back();
        let late = self.orders.try_iter().filter_map(|order| match order {
            Order::Take(arrival) => Some(*arrival),
            Order::Stop => None,
        });
        for arrival in std::mem::take(&mut self.early).into_iter().chain(late) {
            self.return_arrival(arrival);
        }
    }

    /// What time brings: tokens that expire, heartbeats for those who have heard nothing for a while.
    fn sweep(&mut self) {
        if self.readers.is_empty() {
            return;
        }
        let now = Instant::now();
        while let Some((until, key)) = self.expiries.first().copied().filter(|(until, _)| *until <= now) {
            // Its stream says that it has expired.
            self.expiries.remove(&(until, key));
            let reader = self.remove(key);
            self.give_back(reader);
        }
        let Some(epoch) = self.epoch.filter(|_| now >= self.sweep_at) else { return };
        self.sweep_at = now + self.heartbeat.min(self.write_timeout) / SWEEPS_PER_HEARTBEAT;
        let cursor = Cursor { epoch, position: self.at.position, offset: Some(self.at.offset) };
        let beat = Bytes::from(format!("id: {cursor}\n\n"));
        let (mut gone, mut hopeless) = (Vec::new(), Vec::new());
        for (key, reader) in &mut self.readers {
            let waited = now.duration_since(reader.written);
            if reader.mark.is_some() && waited >= self.write_timeout {
                tracing::debug!("a reader takes nothing; it is let go, its cursor stays good");
                hopeless.push(key);
            } else if reader.mark.is_none() && waited >= self.heartbeat {
                reader.written = now;
                match reader.outbox.send(&mut reader.socket, beat.clone()) {
                    Ok(true) => {}
                    Ok(false) => {
                        reader.mark = Some(self.at);
                        self.channels.get_mut(reader.channel).lagging += 1;
                    }
                    Err(_) => gone.push(key),
                }
            }
        }
        for key in gone {
            self.let_go(key);
        }
        for key in hopeless {
            self.tally.end(Reason::Slow);
            let reader = self.remove(key);
            self.pass_back(reader, true);
        }
    }
}

enum Progress {
    AtHead,
    /// The socket takes nothing now.
    Blocked,
    /// There is more, but it is others' turn.
    Turn,
    /// What it needs is in the table only.
    OutOfRing,
}

impl Reader {
    /// Sends it what is new. It was at `before`, and is at `at` when it had all of it.
    fn take_chunks(&mut self, chunks: &[Chunk], before: Mark, at: Mark, now: Instant) -> io::Result<()> {
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
    fn listen(&mut self) -> bool {
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

/// The next frames for one reader, from the ring, and where it is behind them; none if the ring does not reach back.
fn own_chunk(
    log: &Log,
    registry: &Registry,
    filter: &Filter,
    epoch: Epoch,
    mark: Mark,
    at: Mark,
) -> Option<(Bytes, Mark)> {
    let entities = registry.entities();
    let mut out = BytesMut::new();
    let mut position = mark.position;
    let mut complete = false;
    let read = log.read(epoch, mark.offset, |transaction, event| {
        // What came in after our round is the next round's.
        complete = transaction.offset(event) > at.offset;
        if complete || out.len() >= CHUNK_BYTES {
            return false;
        }
        if filter.takes(event, &entities) {
            event.write_block(epoch, transaction, position, &mut out);
            position = position.max(transaction.watermark);
        }
        true
    });
    let offset = match read {
        Read::Foreign | Read::Behind => return None,
        Read::More { next } if !complete => next,
        Read::More { .. } | Read::CaughtUp { .. } => at.offset,
    };
    Some((out.freeze(), Mark { offset, position }))
}
