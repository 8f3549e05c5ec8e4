//! Coming and going: who is let in and where he stands, and with what he is given back, so that somebody else goes on
//! where we ended.

use super::reader::Reader;
use super::{Arrival, Order, Reactor};
use crate::events::Filter;
use crate::fanout::Returned;
use crate::fanout::outbox::{Mark, Outbox};
use crate::tally::Reason;
use bytes::Bytes;
use headwater_model::cursor::{Cursor, Offset};
use mio::net::TcpStream;
use mio::{Interest, Token};
use std::time::Instant;

impl Reactor {
    pub(super) fn admit(&mut self, arrival: Arrival) {
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

    pub(super) fn remove(&mut self, key: usize) -> (Reader, Filter) {
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
    pub(super) fn let_go(&mut self, key: usize) {
        self.tally.end(Reason::Left);
        drop(self.remove(key));
    }

    pub(super) fn give_back(&self, gone: (Reader, Filter)) {
        self.pass_back(gone, false);
    }

    pub(super) fn pass_back(&self, (reader, filter): (Reader, Filter), hopeless: bool) {
        let Some(epoch) = self.epoch else { return };
        let mark = reader.mark.unwrap_or(self.at);
        let cursor = Cursor { epoch, position: mark.position, offset: Some(mark.offset) };
        let Reader { socket, outbox, until, held, .. } = reader;
        let (socket, rest) = (socket.into(), outbox.into_rest());
        (self.back)(Returned { socket, filter, cursor, until, held, rest, hopeless });
    }

    pub(super) fn give_readers_back(&mut self) {
        for key in self.readers.iter().map(|(key, _)| key).collect::<Vec<_>>() {
            let reader = self.remove(key);
            self.give_back(reader);
        }
    }

    pub(super) fn give_all_back(mut self) {
        self.give_readers_back();
        let late = self.orders.try_iter().filter_map(|order| match order {
            Order::Take(arrival) => Some(*arrival),
            Order::Stop => None,
        });
        for arrival in std::mem::take(&mut self.early).into_iter().chain(late) {
            self.return_arrival(arrival);
        }
    }
}
