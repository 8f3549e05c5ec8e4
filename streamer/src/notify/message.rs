//! What travels: channels, messages, and a subscriber's end.

use serde_json::value::RawValue;
use std::fmt;
use std::sync::Arc;
use tokio::sync::broadcast::{Receiver, error::RecvError};
use tokio_util::sync::DropGuard;

/// How many messages wait for a subscriber; the oldest make room for newer ones. A subscriber that is further behind
/// should read the events themselves.
pub(super) const WAITING_MESSAGES: usize = 1024;

/// An entity type, or one tenant's part of it. Entity types have no colon.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Channel(String);

impl Channel {
    /// Where events of this entity type and tenant are told.
    pub fn new(entity_type: &str, tenant: Option<&str>) -> Self {
        Self(tenant.map_or_else(|| entity_type.to_owned(), |tenant| format!("{entity_type}:{tenant}")))
    }
}

impl fmt::Display for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a subscriber gets.
#[derive(Clone, Debug)]
pub struct Message {
    /// The type that it was broadcast with.
    pub event_type: String,
    /// JSON.
    pub payload: String,
}

/// The form of a message on the wire.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub(super) struct Envelope<'a> {
    /// `type`
    #[serde(rename = "type")]
    pub(super) event_type: std::borrow::Cow<'a, str>,
    /// `payload`, as it stands.
    #[serde(borrow)]
    pub(super) payload: &'a RawValue,
}

/// A subscriber's end. Dropping it ends the subscription.
#[derive(Debug)]
pub struct Subscription {
    messages: Receiver<Arc<Message>>,
    lost: u64,
    /// Ends the task that feeds it, if there is one.
    _feeder: Option<DropGuard>,
}

impl Subscription {
    pub(super) fn new(messages: Receiver<Arc<Message>>, feeder: Option<DropGuard>) -> Self {
        Self { messages, lost: 0, _feeder: feeder }
    }

    /// The next message; none when the backend was closed or its connection has ended.
    pub async fn next(&mut self) -> Option<Arc<Message>> {
        loop {
            match self.messages.recv().await {
                Ok(message) => return Some(message),
                Err(RecvError::Lagged(lost)) => self.lost += lost,
                Err(RecvError::Closed) => return None,
            }
        }
    }

    /// How many messages were lost because this subscriber was too slow.
    pub fn lost(&self) -> u64 {
        self.lost
    }
}
