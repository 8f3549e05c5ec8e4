//! One answer for all who ask at the same time. Who asks is told what is true at that time or later.

use tokio::time::Instant;

/// The last answer; the lock is held while the next one is asked for, so that those who come meanwhile share it.
#[derive(Debug)]
pub(super) struct Shared<T>(tokio::sync::Mutex<Option<(Instant, T)>>);

impl<T> Default for Shared<T> {
    fn default() -> Self {
        Self(tokio::sync::Mutex::new(None))
    }
}

impl<T: Clone> Shared<T> {
    /// An answer to a question that was asked after this call: that of another caller, or of `ask`.
    pub(super) async fn now<E>(&self, ask: impl AsyncFnOnce() -> Result<T, E>) -> Result<T, E> {
        let called = Instant::now();
        let mut last = self.0.lock().await;
        if let Some((asked, answer)) = last.as_ref()
            && *asked > called
        {
            return Ok(answer.clone());
        }
        let asked = Instant::now();
        let answer = ask().await?;
        *last = Some((asked, answer.clone()));
        Ok(answer)
    }
}
