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

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;
    use std::cell::Cell;
    use std::pin::pin;
    use tokio::sync::oneshot;

    /// Something that changes, and that is asked about.
    #[derive(Default)]
    struct World {
        truth: Cell<u32>,
        questions: Cell<u32>,
    }

    impl World {
        fn becomes(&self, truth: u32) {
            self.truth.set(truth);
        }

        /// What is true when the question is asked, though the answer comes when it is let through.
        async fn ask(&self, through: oneshot::Receiver<()>) -> Result<u32, &'static str> {
            self.questions.set(self.questions.get() + 1);
            let answer = self.truth.get();
            through.await.map(|()| answer).map_err(|_| "the question failed")
        }

        async fn ask_at_once(&self) -> Result<u32, &'static str> {
            let (let_through, through) = oneshot::channel();
            let_through.send(()).expect("it is about to be read");
            self.ask(through).await
        }
    }

    #[tokio::test]
    async fn who_asks_is_told_what_is_true_then() {
        let (shared, world) = (Shared::default(), World::default());
        for truth in 1..4 {
            world.becomes(truth);
            assert_eq!(shared.now(async || world.ask_at_once().await).await, Ok(truth), "not what was true before");
        }
    }

    #[tokio::test]
    async fn who_comes_while_a_question_is_under_way_shares_the_next_one() {
        let (shared, world) = (Shared::default(), World::default());
        world.becomes(1);
        let (let_through, through) = oneshot::channel();
        let mut first = pin!(shared.now(async || world.ask(through).await));
        assert!((&mut first).now_or_never().is_none(), "the question is under way");
        world.becomes(2);
        let mut others: Vec<_> = (0..5).map(|_| Box::pin(shared.now(async || world.ask_at_once().await))).collect();
        assert!(others.iter_mut().all(|other| other.now_or_never().is_none()), "they wait, and do not ask");
        let_through.send(()).expect("it is waited for");
        assert_eq!(first.await, Ok(1));
        for other in others {
            assert_eq!(other.await, Ok(2), "the first answer was true before they came");
        }
        assert_eq!(world.questions.get(), 2, "one for all who came");
    }

    #[tokio::test]
    async fn an_error_is_told_to_one_alone_and_not_kept() {
        let (shared, world) = (Shared::default(), World::default());
        let (fail, through) = oneshot::channel();
        let mut first = pin!(shared.now(async || world.ask(through).await));
        assert!((&mut first).now_or_never().is_none());
        let mut other = pin!(shared.now(async || world.ask_at_once().await));
        assert!((&mut other).now_or_never().is_none());
        world.becomes(1);
        drop(fail);
        assert_eq!(first.await, Err("the question failed"));
        assert_eq!(other.await, Ok(1), "who waited asks");
        assert_eq!(world.questions.get(), 2);
    }

    #[tokio::test]
    async fn who_gives_up_leaves_nothing_behind() {
        let (shared, world) = (Shared::default(), World::default());
        let (_never, through) = oneshot::channel();
        let mut asking = Box::pin(shared.now(async || world.ask(through).await));
        assert!((&mut asking).now_or_never().is_none());
        let mut waiting = Box::pin(shared.now(async || world.ask_at_once().await));
        assert!((&mut waiting).now_or_never().is_none());
        let mut last = pin!(shared.now(async || world.ask_at_once().await));
        assert!((&mut last).now_or_never().is_none());
        world.becomes(1);
        drop(asking);
        drop(waiting);
        assert_eq!(last.now_or_never(), Some(Ok(1)), "the turn of those who have gone is nobody's");
        assert_eq!(world.questions.get(), 2);
    }
}
