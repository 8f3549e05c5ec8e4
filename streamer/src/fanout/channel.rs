//! Channels: readers with the same wishes share one, and their frames are put together once.
//!
//! An index by tenant and entity leads from an event to the channels that may want it, so that an event costs nothing
//! to those who do not. The index only narrows down: each channel's filter has the last word.

use super::outbox::{Chunk, Mark};
use crate::events::Filter;
use crate::identity::Reach;
use crate::log::{Event, Transaction};
use crate::registry::Entities;
use bytes::Bytes;
use headwater_model::cursor::{Epoch, Offset};
use slab::Slab;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// A chunk is cut when it has so many bytes: what a slow reader holds on to, and enough for one write to be worth it.
pub(super) const CHUNK_BYTES: usize = 64 * 1024;

/// Chunks that readers who lag behind may share are kept up to this size, for all channels of a reactor together.
/// Those who need older ones make their own from the ring.
const RECENT_BYTES: usize = 16 * 1024 * 1024;

/// Frames for readers with the same wishes.
#[derive(Debug)]
pub(super) struct Channel {
    pub(super) filter: Arc<Filter>,
    /// The readers, as the reactor numbers them.
    pub(super) members: Vec<usize>,
    /// How many of them are behind.
    pub(super) lagging: usize,
    building: Vec<u8>,
    /// The one frame in `building`, if it is one, so that it need not be copied.
    single: Option<Bytes>,
    /// Of the chunk that is being built.
    from: Offset,
    first: Offset,
    /// The newest frame, or where the channel began.
    last: Mark,
    /// Finished chunks of this round.
    fresh: Vec<Chunk>,
    recent: VecDeque<Chunk>,
}

/// All channels of a reactor.
#[derive(Debug, Default)]
pub(super) struct Channels {
    all: Slab<Channel>,
    by_filter: HashMap<Arc<Filter>, usize>,
    /// Those of one entity, by its id in JSON.
    of_entity: HashMap<Box<str>, Vec<usize>>,
    /// The others.
    everything: Vec<usize>,
    of_tenant: HashMap<Option<Arc<str>>, Vec<usize>>,
    /// Those that got frames in this round.
    pub(super) dirty: Vec<usize>,
    recent_bytes: usize,
}

impl Channels {
    pub(super) fn get(&self, channel: usize) -> &Channel {
        &self.all[channel]
    }

    pub(super) fn get_mut(&mut self, channel: usize) -> &mut Channel {
        &mut self.all[channel]
    }

    /// The channel for these wishes; a new one begins at `at`.
    pub(super) fn open(&mut self, filter: Filter, at: Mark) -> usize {
        if let Some(channel) = self.by_filter.get(&filter) {
            return *channel;
        }
        let filter = Arc::new(filter);
        let channel = self.all.insert(Channel {
            filter: Arc::clone(&filter),
            members: Vec::new(),
            lagging: 0,
            building: Vec::new(),
            single: None,
            from: at.offset,
            first: at.offset,
            last: at,
            fresh: Vec::new(),
            recent: VecDeque::new(),
        });
        self.list(&filter).push(channel);
        self.by_filter.insert(filter, channel);
        channel
    }

    /// Forgets a channel that nobody reads.
    pub(super) fn close_if_empty(&mut self, channel: usize) {
        if !self.all[channel].members.is_empty() {
            return;
        }
        self.forget(channel, 0);
        let Channel { filter, .. } = self.all.remove(channel);
        self.dirty.retain(|other| *other != channel);
        self.by_filter.remove(&filter);
        let list = self.list(&filter);
        list.retain(|other| *other != channel);
        if list.is_empty() {
            match (filter.entity_json(), &filter.reach) {
                (Some(json), _) => drop(self.of_entity.remove(json)),
                (None, Reach::Everything) => {}
                (None, Reach::Tenant(tenant)) => drop(self.of_tenant.remove(tenant)),
            }
        }
    }

    fn list(&mut self, filter: &Filter) -> &mut Vec<usize> {
        match (filter.entity_json(), &filter.reach) {
            (Some(json), _) => self.of_entity.entry(json.into()).or_default(),
            (None, Reach::Everything) => &mut self.everything,
            (None, Reach::Tenant(tenant)) => self.of_tenant.entry(tenant.clone()).or_default(),
        }
    }

    /// Puts an event's frame into every channel that wants it. `before`: where readers are that had everything else.
    pub(super) fn route(
        &mut self,
        epoch: Epoch,
        transaction: &Transaction,
        event: &Event,
        before: Mark,
        entities: &Entities,
    ) {
        let Self { all, of_entity, everything, of_tenant, dirty, .. } = self;
        let mut offer = |list: &[usize]| {
            for channel in list {
                let number = *channel;
                let channel = &mut all[number];
                if channel.filter.takes(event, entities) {
                    if channel.building.is_empty() && channel.single.is_none() && channel.fresh.is_empty() {
                        dirty.push(number);
                    }
                    channel.push(epoch, transaction, event, before);
                }
            }
        };
        offer(everything);
        if let Some(list) = of_tenant.get(&event.tenant) {
            offer(list);
        }
        if event.tenant.is_none() && entities.is_shared(&event.entity_type) {
            of_tenant.iter().filter(|(tenant, _)| tenant.is_some()).for_each(|(_, list)| offer(list));
        }
        if !of_entity.is_empty()
            && let Some(list) = event.entity_json().and_then(|json| std::str::from_utf8(json).ok())
            && let Some(list) = of_entity.get(list)
        {
            offer(list);
        }
    }

    /// Ends the round for one channel: its chunks, for those who are up to date.
    pub(super) fn cut(&mut self, channel: usize) -> Vec<Chunk> {
        let channel = &mut self.all[channel];
        channel.finish();
        std::mem::take(&mut channel.fresh)
    }

    /// Keeps chunks as long as somebody lags behind who may want them.
    pub(super) fn keep(&mut self, channel: usize, chunks: Vec<Chunk>) {
        if self.all[channel].lagging == 0 {
            return self.forget(channel, 0);
        }
        for chunk in chunks {
            self.recent_bytes += chunk.bytes.len();
            self.all[channel].recent.push_back(chunk);
        }
        while self.recent_bytes > RECENT_BYTES && !self.all[channel].recent.is_empty() {
            let fewer = self.all[channel].recent.len() - 1;
            self.forget(channel, fewer);
        }
    }

    /// Drops the channel's kept chunks but the newest `keep`.
    pub(super) fn forget(&mut self, channel: usize, keep: usize) {
        let recent = &mut self.all[channel].recent;
        while recent.len() > keep {
            self.recent_bytes -= recent.pop_front().map_or(0, |chunk| chunk.bytes.len());
        }
        if recent.is_empty() {
            *recent = VecDeque::new();
        }
    }
}

impl Channel {
    fn push(&mut self, epoch: Epoch, transaction: &Transaction, event: &Event, before: Mark) {
        let offset = transaction.offset(event);
        if let Some(single) = self.single.take() {
            self.building.extend_from_slice(&single);
        } else if self.building.is_empty() {
            (self.from, self.first) = (self.last.offset, offset);
        }
        // One frame alone goes out as the bytes that the ring holds.
        if self.building.is_empty() && before.position <= transaction.watermark {
            self.single = Some(event.block.clone());
        } else {
            event.write_block(epoch, transaction, before.position, &mut self.building);
        }
        self.last = Mark { offset, position: before.position.max(transaction.watermark) };
        if self.building.len() >= CHUNK_BYTES {
            self.finish();
        }
    }

    fn finish(&mut self) {
        let bytes = match self.single.take() {
            Some(single) => single,
            None if self.building.is_empty() => return,
            // Exactly as large as it has to be: a slow reader may hold on to it.
            None => Bytes::from(std::mem::take(&mut self.building).into_boxed_slice()),
        };
        self.fresh.push(Chunk { from: self.from, first: self.first, to: self.last, bytes });
    }

    /// The kept chunk with which a reader at `offset` goes on.
    pub(super) fn after(&self, offset: Offset) -> Option<&Chunk> {
        let next = self.recent.partition_point(|chunk| chunk.first <= offset);
        self.recent.get(next).filter(|chunk| chunk.from <= offset)
    }
}

#[cfg(test)]
mod tests;
