//! A round: what the log has got since the last one goes to those who are at the head, by one write each.

use super::Reactor;
use crate::fanout::outbox::Mark;
use crate::log::{Taken, Transaction};
use headwater_model::cursor::{Epoch, Offset, Position};
use std::sync::Arc;
use std::time::Instant;

/// Events that are put together before sockets get them: it bounds the memory of a round.
const EVENTS_PER_ROUND: usize = 4096;

/// Sockets that are written to before other threads have a turn, if they want one: whoever reads beside us has what was written, and the
/// source what comes next, before everybody has this. With short turns (`slice.rs`) giving way costs little.
const WRITES_PER_TURN: usize = 8;

impl Reactor {
    /// Brings what is new to those who are at the head, then lets new readers in.
    pub(super) fn round(&mut self) {
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
    fn distribute(&mut self, epoch: Epoch, transactions: &[Arc<Transaction>], end: Option<Mark>) {
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
        let mut wrote = 0;
        for channel in std::mem::take(&mut self.channels.dirty) {
            let chunks = self.channels.cut(channel);
            let mut gone = Vec::new();
            let mut lagging = 0;
            for key in &self.channels.get(channel).members {
                let reader = &mut self.readers[*key];
                if reader.mark.is_none() {
                    if wrote == WRITES_PER_TURN {
                        std::thread::yield_now();
                        wrote = 0;
                    }
                    wrote += 1;
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
}
