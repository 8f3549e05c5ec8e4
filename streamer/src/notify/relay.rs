//! The relay: a Redis Stream whose entry ids are our offsets, `<lsn>-<op>`, one for each history (epoch).
//!
//! Redis refuses an id that is not above the last one, so any number of publishers send the same sequence and every
//! entry stands there once, in order, with no leader. What a publisher appends is appended only if everything that it
//! knows to lie before is there (`append.lua`): a Redis that came back with less than it had is noticed at once.

use super::redis::RedisSettings;
use super::{Channel, NotifyError};
use headwater_model::cursor::{Epoch, Lsn, Offset};
use redis::aio::MultiplexedConnection;
use redis::streams::StreamRangeReply;
use redis::{AsyncCommands, Script};

/// The relay of another history is of no use to anybody who has read the pointer to the present one.
const OLD_RELAY_SECONDS: i64 = 86_400;

/// Entries looked at in one go when an erased entity's are searched for.
const PURGE_PAGE: usize = 1000;

/// One entry to be.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) offset: Offset,
    /// A cursor for Postgres and `/api/v1`: whoever has this entry goes on from there.
    pub(super) cursor: String,
    pub(super) content: Content,
}

#[derive(Debug)]
pub(super) enum Content {
    /// An event: for whom, the message of its channel, the event as `/events/stream` has it.
    Event { channel: Channel, message: String, entity_type: String, entity_id: String, event: String },
    /// What lies before is not here: go to Postgres for it.
    Gap { reason: &'static str },
}

/// How an append ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Appended {
    /// Everything up to `last` is there; `added` entries were not before.
    All { added: usize, last: Offset },
    /// Nothing was appended: the relay has nothing behind `last`, although it did.
    Lost { last: Offset },
}

#[derive(Debug)]
pub(super) struct Relay {
    settings: RedisSettings,
    epoch: Epoch,
    key: String,
    append: Script,
    connection: MultiplexedConnection,
}

impl Relay {
    /// Connects, and makes sure that consumers find the relay of this history.
    pub(super) async fn open(settings: &RedisSettings, epoch: Epoch) -> Result<Self, NotifyError> {
        let connection = settings.connect().await?;
        let key = format!("{}:relay:{epoch}", settings.prefix);
        let append = Script::new(include_str!("append.lua"));
        let mut relay = Self { settings: settings.clone(), epoch, key, append, connection };
        relay.announce().await?;
        Ok(relay)
    }

    /// `<prefix>:relay` names the present history.
    pub(super) async fn announce(&mut self) -> Result<(), NotifyError> {
        let pointer = format!("{}:relay", self.settings.prefix);
        let present = self.epoch.to_string();
        let before: Option<String> = self.connection.getset(&pointer, &present).await?;
        if let Some(before) = before.filter(|before| *before != present) {
            let _: bool = self.connection.expire(format!("{pointer}:{before}"), OLD_RELAY_SECONDS).await?;
        }
        // A history that has come back is no old one any more.
        let _: bool = self.connection.persist(&self.key).await?;
        Ok(())
    }

    /// Appends what is not there yet. `known` is the last entry that the caller knows to be there, `published` the last
    /// one that subscribers have been told of.
    pub(super) async fn append(
        &mut self,
        known: Offset,
        published: Offset,
        entries: &[Entry],
    ) -> Result<Appended, NotifyError> {
        let mut call = self.append.prepare_invoke();
        call.key(&self.key).arg(self.settings.relay_entries);
        for offset in [known, published] {
            call.arg(offset.lsn.0.to_string()).arg(offset.op.to_string());
        }
        for Entry { offset, cursor, content } in entries {
            call.arg(offset.lsn.0.to_string()).arg(offset.op.to_string());
            match content {
                Content::Event { channel, message, entity_type, entity_id, event } => {
                    call.arg(self.settings.channel(channel)).arg(message).arg(cursor);
                    call.arg(entity_type).arg(entity_id).arg(event);
                }
                Content::Gap { reason } => {
                    call.arg("").arg("").arg(cursor).arg("").arg("").arg(*reason);
                }
            }
        }
        let (added, lsn, op): (i64, String, String) = call.invoke_async(&mut self.connection).await?;
        let number =
            |text: &str| text.parse().map_err(|_| NotifyError::Unexpected(format!("`{text}` is no part of an id")));
        let last = Offset { lsn: Lsn(number(&lsn)?), op: number(&op)? };
        Ok(usize::try_from(added).map_or(Appended::Lost { last }, |added| Appended::All { added, last }))
    }

    /// Removes what is there of an entity.
    pub(super) async fn purge(&mut self, entity_type: &str, entity_id: &str) -> Result<usize, NotifyError> {
        let (mut start, mut removed) = ("-".to_owned(), 0);
        loop {
            let page: StreamRangeReply = self.connection.xrange_count(&self.key, &start, "+", PURGE_PAGE).await?;
            let Some(last) = page.ids.last() else { return Ok(removed) };
            start = format!("({}", last.id);
            let of_entity = page.ids.iter().filter(|entry| {
                entry.get::<String>("entity_type").as_deref() == Some(entity_type)
                    && entry.get::<String>("entity_id").as_deref() == Some(entity_id)
            });
            let ids: Vec<&str> = of_entity.map(|entry| entry.id.as_str()).collect();
            if !ids.is_empty() {
                removed += self.connection.xdel::<_, _, usize>(&self.key, &ids).await?;
            }
        }
    }
}
