//! `redis`: pub/sub channels `<prefix>:<entity>` and `<prefix>:<entity>:<tenant>`, and the connection to Redis.

use super::message::{Channel, Envelope, Message, Subscription, WAITING_MESSAGES};
use super::{Backend, Kind, NotifyError};
use crate::error::Error;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client};
use serde_json::value::RawValue;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, broadcast};
use tokio_util::sync::CancellationToken;

/// A Redis that does not answer for this long is away: its caller tries again, on a new connection.
const PATIENCE: Duration = Duration::from_secs(5);

/// Where Redis is, and what we call things there.
#[derive(Clone)]
pub struct RedisSettings {
    client: Client,
    /// Before every channel and key.
    pub prefix: String,
    /// How many entries the relay keeps, about.
    pub relay_entries: usize,
}

impl fmt::Debug for RedisSettings {
    // The client's own form may hold a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisSettings").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

impl RedisSettings {
    /// Reads a URL, `redis://` or `rediss://` (TLS, with the authorities that the system trusts).
    pub fn new(url: &str, prefix: String, relay_entries: usize) -> Result<Self, Error> {
        let client = Client::open(url).map_err(|error| {
            Error::setup(
                format!("the Redis URL cannot be read: {error}"),
                "pass --redis-url redis://user:password@host:6379/0 (rediss:// for TLS)",
            )
        })?;
        Ok(Self { client, prefix, relay_entries })
    }

    /// A new connection of the caller's own.
    pub(super) async fn connect(&self) -> Result<MultiplexedConnection, NotifyError> {
        let config =
            AsyncConnectionConfig::new().set_connection_timeout(Some(PATIENCE)).set_response_timeout(Some(PATIENCE));
        Ok(self.client.get_multiplexed_async_connection_with_config(&config).await?)
    }

    /// The name of a channel in Redis.
    pub(super) fn channel(&self, channel: &Channel) -> String {
        format!("{}:{channel}", self.prefix)
    }
}

/// The backend.
#[derive(Debug)]
pub struct Redis {
    settings: RedisSettings,
    connection: Mutex<Option<MultiplexedConnection>>,
    closed: CancellationToken,
}

impl Redis {
    /// Connects when it is first used.
    pub fn new(settings: RedisSettings) -> Self {
        Self { settings, connection: Mutex::new(None), closed: CancellationToken::new() }
    }

    /// Where it is.
    pub fn settings(&self) -> &RedisSettings {
        &self.settings
    }

    async fn command(&self, command: &redis::Cmd) -> Result<(), NotifyError> {
        if self.closed.is_cancelled() {
            return Err(NotifyError::Closed);
        }
        let mut held = self.connection.lock().await;
        let mut connection = match held.take() {
            Some(connection) => connection,
            None => self.settings.connect().await?,
        };
        // After a failure the connection may be in any state: it is not put back.
        let done: Result<redis::Value, _> = command.query_async(&mut connection).await;
        done?;
        *held = Some(connection);
        Ok(())
    }

    async fn listen(&self, channel: &Channel) -> Result<Subscription, NotifyError> {
        if self.closed.is_cancelled() {
            return Err(NotifyError::Closed);
        }
        let connect = async {
            let mut listener = self.settings.client.get_async_pubsub().await?;
            listener.subscribe(self.settings.channel(channel)).await?;
            Ok::<_, redis::RedisError>(listener)
        };
        let mut listener = tokio::time::timeout(PATIENCE, connect)
            .await
            .map_err(|_| NotifyError::Unexpected("no answer to SUBSCRIBE".to_owned()))??;
        let (sender, receiver) = broadcast::channel(WAITING_MESSAGES);
        let ending = self.closed.child_token();
        let guard = ending.clone().drop_guard();
        tokio::spawn(async move {
            let mut messages = listener.on_message();
            loop {
                let message = tokio::select! {
                    message = messages.next() => message,
                    () = ending.cancelled() => None,
                };
                let Some(message) = message else { return };
                match serde_json::from_slice::<Envelope<'_>>(message.get_payload_bytes()) {
                    Ok(envelope) => {
                        let (event_type, payload) =
                            (envelope.event_type.into_owned(), envelope.payload.get().to_owned());
                        let _ = sender.send(Arc::new(Message { event_type, payload })); // the subscriber may just be leaving
                    }
                    Err(error) => tracing::debug!(%error, "a message on our channel that is not ours"),
                }
            }
        });
        Ok(Subscription::new(receiver, Some(guard)))
    }
}

impl Backend for Redis {
    fn kind(&self) -> Kind {
        Kind::Redis
    }

    fn broadcast<'a>(
        &'a self,
        channel: &'a Channel,
        event_type: &'a str,
        payload: &'a str,
    ) -> BoxFuture<'a, Result<(), NotifyError>> {
        Box::pin(async move {
            let payload: &RawValue =
                serde_json::from_str(payload).map_err(|error| NotifyError::Unexpected(error.to_string()))?;
            let envelope = serde_json::to_string(&Envelope { event_type: event_type.into(), payload })
                .map_err(|error| NotifyError::Unexpected(error.to_string()))?;
            self.command(redis::cmd("PUBLISH").arg(self.settings.channel(channel)).arg(envelope)).await
        })
    }

    fn subscribe<'a>(&'a self, channel: &'a Channel) -> BoxFuture<'a, Result<Subscription, NotifyError>> {
        Box::pin(self.listen(channel))
    }

    fn unsubscribe(&self, subscription: Subscription) -> BoxFuture<'_, Result<(), NotifyError>> {
        drop(subscription);
        Box::pin(async { Ok(()) })
    }

    fn health_check(&self) -> BoxFuture<'_, Result<(), NotifyError>> {
        Box::pin(async move { self.command(&redis::cmd("PING")).await })
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.closed.cancel();
        Box::pin(async move { drop(self.connection.lock().await.take()) })
    }
}
