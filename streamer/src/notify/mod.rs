//! Notification backends: who is told of events besides those who read them here.
//!
//! * `memory`: nobody; clients read the ring, which is already there
//! * `noop`: nobody, and nothing is pushed to clients either: they poll
//! * `redis`: subscribers of pub/sub channels, and a relay stream whose entry ids are our offsets ([`Publisher`])

mod memory;
mod message;
mod noop;
mod publisher;
mod redis;
mod relay;

pub use self::redis::{Redis, RedisSettings};
pub use memory::Memory;
pub use message::{Channel, Message, Subscription};
pub use noop::Noop;
pub use publisher::{Publisher, PublisherStatus};

use futures_util::future::BoxFuture;
use std::fmt;

/// Why a backend could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum NotifyError {
    /// Redis, or the way there.
    #[error("redis: {0}")]
    Redis(#[from] ::redis::RedisError),
    /// It was closed.
    #[error("the notification backend is closed")]
    Closed,
    /// Nothing is pushed here, so there is nothing to subscribe to.
    #[error("the notification backend `noop` pushes nothing: poll instead")]
    NothingIsPushed,
    /// What Redis holds is not ours, or of another version.
    #[error("unexpected answer from Redis: {0}")]
    Unexpected(String),
}

/// The names by which backends are chosen: `--notification-backend`, and `notification` in `headwater.enable`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// Clients are pushed to from memory.
    #[default]
    Memory,
    /// Clients poll.
    Noop,
    /// Besides memory, Redis gets every event.
    Redis,
}

impl Kind {
    /// As it is spelt in `enable`. Others, of other versions, are none.
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "memory" => Some(Self::Memory),
            "noop" => Some(Self::Noop),
            "redis" => Some(Self::Redis),
            _ => None,
        }
    }

    /// Whether streams push what is of this kind.
    pub fn supports_push(self) -> bool {
        self != Self::Noop
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Memory => "memory",
            Self::Noop => "noop",
            Self::Redis => "redis",
        })
    }
}

/// What every backend can do. One suite of tests holds all of them to it: `tests/tests/notify.rs`.
///
/// Messages of one channel from one broadcaster arrive in their order. A subscriber gets what is broadcast after its
/// subscription; one that falls far behind loses the oldest messages, and can tell how many.
pub trait Backend: fmt::Debug + Send + Sync {
    /// Which one it is.
    fn kind(&self) -> Kind;

    /// Whether subscribers are told of anything at all.
    fn supports_push(&self) -> bool {
        self.kind().supports_push()
    }

    /// Tells the channel's subscribers. `payload` is JSON.
    fn broadcast<'a>(
        &'a self,
        channel: &'a Channel,
        event_type: &'a str,
        payload: &'a str,
    ) -> BoxFuture<'a, Result<(), NotifyError>>;

    /// Starts to listen.
    fn subscribe<'a>(&'a self, channel: &'a Channel) -> BoxFuture<'a, Result<Subscription, NotifyError>>;

    /// Stops to listen. To drop the subscription does the same, a little later.
    fn unsubscribe(&self, subscription: Subscription) -> BoxFuture<'_, Result<(), NotifyError>>;

    /// Whether it works.
    fn health_check(&self) -> BoxFuture<'_, Result<(), NotifyError>>;

    /// Ends every subscription; everything else fails from now on.
    fn close(&self) -> BoxFuture<'_, ()>;
}
