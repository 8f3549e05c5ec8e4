//! Those who are behind: they go on when their socket takes bytes again, a few chunks at a time, with chunks that others
//! have had or such as are made for them alone.

use super::Reactor;
use crate::events::Filter;
use crate::fanout::channel::CHUNK_BYTES;
use crate::fanout::outbox::{Chunk, Mark, Outbox};
use crate::log::{Log, Read};
use crate::registry::Registry;
use bytes::{Bytes, BytesMut};
use headwater_model::cursor::Epoch;
use std::io;
use std::time::Instant;

/// Chunks that a reader who lags behind gets before it is another one's turn.
const CHUNKS_PER_TURN: usize = 16;

impl Reactor {
    /// Sends what a reader that is behind has not had, as far as its socket takes it.
    pub(super) fn go_on(&mut self, key: usize) {
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
