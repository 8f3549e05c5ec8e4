//! `memory`: within this process. Clients' streams read the ring by themselves; this is for whoever else listens here.

use super::message::{Channel, Message, Subscription, WAITING_MESSAGES};
use super::{Backend, Kind, NotifyError};
use futures_util::future::BoxFuture;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::broadcast::Sender;

/// Channels that somebody listens to; none once it was closed.
#[derive(Debug)]
pub struct Memory(Mutex<Option<HashMap<Channel, Sender<Arc<Message>>>>>);

impl Default for Memory {
    fn default() -> Self {
        Self(Mutex::new(Some(HashMap::new())))
    }
}

impl Memory {
    // A panic under the lock leaves whole entries.
    fn lock(&self) -> MutexGuard<'_, Option<HashMap<Channel, Sender<Arc<Message>>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn send(&self, channel: &Channel, event_type: &str, payload: &str) -> Result<(), NotifyError> {
        let mut channels = self.lock();
        let channels = channels.as_mut().ok_or(NotifyError::Closed)?;
        let Some(sender) = channels.get(channel) else { return Ok(()) };
        let message = Message { event_type: event_type.to_owned(), payload: payload.to_owned() };
        // It fails when the last listener has gone.
        if sender.send(Arc::new(message)).is_err() {
            channels.remove(channel);
        }
        Ok(())
    }

    fn listen(&self, channel: &Channel) -> Result<Subscription, NotifyError> {
        let mut channels = self.lock();
        let channels = channels.as_mut().ok_or(NotifyError::Closed)?;
        channels.retain(|_, sender| sender.receiver_count() > 0);
        let sender = channels.entry(channel.clone()).or_insert_with(|| Sender::new(WAITING_MESSAGES));
        Ok(Subscription::new(sender.subscribe(), None))
    }
}

impl Backend for Memory {
    fn kind(&self) -> Kind {
        Kind::Memory
    }

    fn broadcast<'a>(
        &'a self,
        channel: &'a Channel,
        event_type: &'a str,
        payload: &'a str,
    ) -> BoxFuture<'a, Result<(), NotifyError>> {
        Box::pin(async move { self.send(channel, event_type, payload) })
    }

    fn subscribe<'a>(&'a self, channel: &'a Channel) -> BoxFuture<'a, Result<Subscription, NotifyError>> {
        Box::pin(async move { self.listen(channel) })
    }

    fn unsubscribe(&self, subscription: Subscription) -> BoxFuture<'_, Result<(), NotifyError>> {
        drop(subscription);
        Box::pin(async { Ok(()) })
    }

    fn health_check(&self) -> BoxFuture<'_, Result<(), NotifyError>> {
        Box::pin(async move { if self.lock().is_some() { Ok(()) } else { Err(NotifyError::Closed) } })
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.lock().take();
        Box::pin(async {})
    }
}
