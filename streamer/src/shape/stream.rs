//! One client's changes as they come: SSE blocks, each batch closed by `up-to-date`, which is where the client comes back.

use super::live::Wakes;
use super::message::{Framing, up_to_date};
use super::{Admitted, Shapes, Standing};
use bytes::Bytes;
use headwater_model::cursor::{Lsn, Offset};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// Proxies close what says nothing for half a minute or a minute; ElectricSQL's interval.
const KEEP_ALIVE: Duration = Duration::from_secs(21);

/// A batch below this size goes out in one piece with what closes it.
const JOINED_BYTES: usize = 16 << 10;

/// One reader.
#[derive(Debug)]
pub struct Stream {
    shapes: Arc<Shapes>,
    standing: Standing,
    after: Offset,
    wakes: Wakes,
    greeted: bool,
    ends_at: Instant,
    keep_alive_at: Instant,
    /// What closes the batch that was given out.
    closing: Option<Bytes>,
    _admitted: Admitted,
}

impl Stream {
    pub(super) fn new(shapes: Arc<Shapes>, standing: Standing, until: Option<Instant>, admitted: Admitted) -> Self {
        let now = Instant::now();
        let ends_at = now + shapes.settings.sse_timeout;
        Self {
            after: standing.after,
            wakes: standing.shape.wakes(),
            shapes,
            standing,
            greeted: false,
            ends_at: until.map_or(ends_at, |until| until.min(ends_at)),
            keep_alive_at: now + KEEP_ALIVE,
            closing: None,
            _admitted: admitted,
        }
    }

    /// The next blocks; waits until there are some. None at the end: the client comes back, and is told if it has to start
    /// anew.
    pub async fn next(&mut self) -> Option<Bytes> {
        if let Some(closing) = self.closing.take() {
            return Some(closing);
        }
        loop {
            self.wakes.mark_unchanged();
            let shape = &self.standing.shape;
            if self.shapes.shutdown.is_cancelled() || shape.is_stale() || !shape.honours(self.standing.lsn) {
                return None;
            }
            let messages = self.shapes.read(&self.standing, self.after, Framing::Sse).await.ok()?;
            self.after = messages.next;
            let told = messages.last.is_some();
            if told || !messages.complete || !self.greeted {
                if messages.complete {
                    self.greeted = true;
                    // The client comes back with `<this>_0`, which has to mean "behind all of this": no commit starts there.
                    let place = up_to_date(Lsn(messages.next.lsn.0));
                    self.closing = Some(format!("data: {place}\n\n").into());
                }
                self.keep_alive_at = Instant::now() + KEEP_ALIVE;
                match (messages.body, self.closing.take()) {
                    (body, None) if body.is_empty() => continue,
                    (body, Some(closing)) if body.len() < JOINED_BYTES => return Some([body, closing].concat().into()),
                    // Not copied: others share it.
                    (body, closing) => {
                        self.closing = closing;
                        return Some(body);
                    }
                }
            }
            tokio::select! {
                biased;
                () = self.shapes.shutdown.cancelled() => return None,
                () = self.wakes.changed() => {}
                () = sleep_until(self.ends_at) => return None,
                () = sleep_until(self.keep_alive_at) => {
                    self.keep_alive_at = Instant::now() + KEEP_ALIVE;
                    return Some(Bytes::from_static(b": keep-alive\n\n"));
                }
            }
        }
    }
}
