//! `noop`: nobody is told; clients poll.

use super::message::{Channel, Subscription};
use super::{Backend, Kind, NotifyError};
use futures_util::future::BoxFuture;
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether it is closed, which is all that there is to know.
#[derive(Debug, Default)]
pub struct Noop(AtomicBool);

impl Noop {
    fn open(&self) -> Result<(), NotifyError> {
        if self.0.load(Ordering::Relaxed) { Err(NotifyError::Closed) } else { Ok(()) }
    }
}

impl Backend for Noop {
    fn kind(&self) -> Kind {
        Kind::Noop
    }

    fn broadcast<'a>(&'a self, _: &'a Channel, _: &'a str, _: &'a str) -> BoxFuture<'a, Result<(), NotifyError>> {
        Box::pin(async move { self.open() })
    }

    fn subscribe<'a>(&'a self, _: &'a Channel) -> BoxFuture<'a, Result<Subscription, NotifyError>> {
        Box::pin(async move { self.open().and(Err(NotifyError::NothingIsPushed)) })
    }

    fn unsubscribe(&self, _: Subscription) -> BoxFuture<'_, Result<(), NotifyError>> {
        Box::pin(async move { self.open() })
    }

    fn health_check(&self) -> BoxFuture<'_, Result<(), NotifyError>> {
        Box::pin(async move { self.open() })
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.0.store(true, Ordering::Relaxed);
        Box::pin(async {})
    }
}
