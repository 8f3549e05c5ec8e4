//! One reader's endless stream of SSE blocks: from the table while it is behind the ring, from the ring afterwards.
//!
//! The reader holds a place, not a queue: a slow one costs nothing, and one that falls out of the ring goes on from
//! the table by itself.

use super::seam::{self, Joined};
use super::table::Size;
use super::{Events, Filter, table};
use crate::error::Error;
use crate::log::{Event, Read, Transaction, put};
use crate::tally::{Ending, Reason};
use bytes::{Bytes, BytesMut};
use headwater_model::cursor::{Cursor, Offset, Position};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until};

/// All frames that wait go out in one write of about this size; larger ones bring nothing and cost memory per reader.
const WRITE_BYTES: usize = 64 * 1024;

/// While the database does not answer; the client sees a comment meanwhile.
const DATABASE_PAUSE: Duration = Duration::from_secs(1);

const RESTORED: &str = "the database was restored or promoted: read the entities anew, and send again what it lacks";
const DROPPED: &str = "retention has dropped events that this reader has not had: read the entities anew";

/// One reader.
#[derive(Debug)]
pub struct Stream {
    events: Arc<Events>,
    filter: Filter,
    /// Where the reader stands. Its offset, once there is one, is always true: everything up to it was delivered.
    cursor: Cursor,
    place: Place,
    greeted: bool,
    ended: bool,
    shareable: bool,
    arrivals: watch::Receiver<u64>,
    heartbeat_at: Instant,
    /// When the reader's token expires.
    until: Option<Instant>,
    ending: Ending,
}

/// Where the reader gets its events from.
#[derive(Debug)]
enum Place {
    /// The ring, behind the cursor's offset.
    Ring,
    /// The table, up to the watermark; then a join.
    Table,
    /// The table beyond the watermark, on its way into the ring.
    Joining(mpsc::Receiver<Result<Joined, Error>>),
    /// What the join's snapshot did not see.
    Missed { left: VecDeque<Arc<Transaction>>, next: Offset },
}

/// What came of a step.
#[derive(Debug)]
pub enum Step {
    /// To be sent.
    Blocks(Bytes),
    /// The reader has everything that there is.
    UpToDate,
    /// Nothing will come any more.
    Ended,
}

impl Stream {
    pub(super) fn new(events: Arc<Events>, cursor: Cursor, filter: Filter, until: Option<Instant>) -> Self {
        let arrivals = events.log.arrivals();
        let place = if cursor.offset.is_some() { Place::Ring } else { Place::Table };
        let heartbeat_at = Instant::now() + events.heartbeat;
        let ending = Ending::new(Arc::clone(&events.tally));
        Self {
            events,
            filter,
            cursor,
            place,
            greeted: false,
            ended: false,
            shareable: false,
            arrivals,
            heartbeat_at,
            until,
            ending,
        }
    }

    /// A reader that has had everything up to `cursor` comes back from where frames are shared.
    pub fn resumed(events: Arc<Events>, cursor: Cursor, filter: Filter, until: Option<Instant>) -> Self {
        Self { greeted: true, ..Self::new(events, cursor, filter, until) }
    }

    /// The next blocks; waits until there are some. None after the last ones.
    pub async fn next(&mut self) -> Option<Bytes> {
        loop {
            match self.advance().await {
                Step::Blocks(blocks) => return Some(blocks),
                Step::Ended => return None,
                Step::UpToDate => {
                    if let Some(blocks) = self.wait().await {
                        self.heartbeat_at = Instant::now() + self.events.heartbeat;
                        return Some(blocks);
                    }
                }
            }
        }
    }

    /// The next blocks, without waiting for what has not happened yet.
    pub async fn advance(&mut self) -> Step {
        if self.ended {
            return Step::Ended;
        }
        let step = if self.greeted { self.step().await } else { Step::Blocks(self.greet()) };
        if matches!(step, Step::Blocks(_)) {
            self.heartbeat_at = Instant::now() + self.events.heartbeat;
        }
        step
    }

    /// Where the reader stands, if it is as far as the log is and may therefore share its frames with all others that
    /// are: its own watermark is not newer than the log's.
    pub fn shareable(&self) -> Option<Cursor> {
        self.shareable.then_some(self.cursor)
    }

    /// What the reader wants, and until when: somebody else carries the stream on, and counts its end.
    pub fn into_wishes(self) -> (Filter, Option<Instant>) {
        self.ending.pass_on();
        (self.filter, self.until)
    }

    /// It ends because its reader takes nothing.
    pub fn too_slow(&mut self) {
        self.ending.because(Reason::Slow);
    }

    /// Goes out with the headers: a reader that is cut off before the first event knows where it stood.
    fn greet(&mut self) -> Bytes {
        self.greeted = true;
        let retry = self.events.retry.as_millis();
        let mut out = BytesMut::new();
        put(&mut out, format_args!("retry: {retry}\nid: {}\n\n", self.cursor));
        let entities = self.events.registry.entities();
        let asked =
            |name: &&str| self.filter.entity_types.is_empty() || self.filter.entity_types.iter().any(|it| it == name);
        let polled: Vec<&str> = entities.polled().into_iter().filter(asked).collect();
        if !polled.is_empty() {
            let polled = serde_json::json!({ "entity_types": polled });
            put(&mut out, format_args!("event: headwater.polling\ndata: {polled}\n\n"));
        }
        out.freeze()
    }

    async fn step(&mut self) -> Step {
        self.shareable = false;
        loop {
            if self.events.shutdown.is_cancelled() {
                return Step::Blocks(self.say_goodbye());
            }
            if self.until.is_some_and(|until| Instant::now() >= until) {
                return Step::Blocks(self.expire());
            }
            if self.events.log.tip().epoch != Some(self.cursor.epoch) {
                return Step::Blocks(self.reset(RESTORED));
            }
            let step = match &mut self.place {
                Place::Ring => self.read_ring().await,
                Place::Table => self.read_table().await.map(Step::Blocks),
                Place::Joining(_) => self.read_join().await.map(Step::Blocks),
                Place::Missed { .. } => self.read_missed().map(Step::Blocks),
            };
            if let Some(step) = step {
                return step;
            }
        }
    }

    async fn read_ring(&mut self) -> Option<Step> {
        let Some(offset) = self.cursor.offset else {
            self.place = Place::Table;
            return None;
        };
        // Marked before the read: what arrives in between wakes us.
        self.arrivals.mark_unchanged();
        let mut out = BytesMut::new();
        let mut single = None;
        let mut position = self.cursor.position;
        let (epoch, filter) = (self.cursor.epoch, &self.filter);
        let entities = self.events.registry.entities();
        let read = self.events.log.read(epoch, offset, |transaction, event| {
            if out.len() >= WRITE_BYTES || single.as_ref().is_some_and(|bytes: &Bytes| bytes.len() >= WRITE_BYTES) {
                return false;
            }
            if filter.takes(event, &entities) {
                let shared = position <= transaction.watermark;
                position = position.max(transaction.watermark);
                // One event alone goes out as the bytes that all readers share.
                if shared && out.is_empty() && single.is_none() {
                    single = Some(event.block.clone());
                } else {
                    out.extend_from_slice(&single.take().unwrap_or_default());
                    event.write_block(epoch, transaction, position, &mut out);
                }
            }
            true
        });
        self.cursor.position = position;
        let blocks = single.unwrap_or_else(|| out.freeze());
        match read {
            Read::Foreign => return None, // the caller's loop resets
            Read::Behind => {
                tracing::debug!(cursor = %self.cursor, "a reader fell out of the ring; it goes on from the table");
                self.place = Place::Table;
                return None;
            }
            Read::More { next } => {
                self.cursor.offset = Some(next);
                if blocks.is_empty() {
                    tokio::task::yield_now().await; // much that the filter passes over
                }
            }
            Read::CaughtUp { next, watermark } => {
                self.cursor.offset = Some(next);
                // Its marker lies at or before the head, and the reader has everything up to there.
                let shared = watermark.map_or(Position(0), |watermark| watermark.position);
                self.cursor.position = position.max(shared);
                if blocks.is_empty() {
                    self.shareable = position <= shared;
                    return Some(Step::UpToDate);
                }
            }
        }
        (!blocks.is_empty()).then_some(Step::Blocks(blocks))
    }

    /// Until something arrives; or the heartbeat, which moves the reader's Last-Event-ID silently.
    async fn wait(&mut self) -> Option<Bytes> {
        let wake_at = self.wake_at();
        tokio::select! {
            biased;
            () = self.events.shutdown.cancelled() => None,
            changed = self.arrivals.changed() => changed.err().map(|_| self.say_goodbye()),
            () = sleep_until(wake_at) => Some(format!("id: {}\n\n", self.cursor).into()),
        }
    }

    /// Below the watermark nothing will be added, so plain pages do, and no snapshot is held for a slow client.
    async fn read_table(&mut self) -> Option<Bytes> {
        let upto = self.events.log.tip().watermark.map_or(Position(0), |watermark| watermark.position);
        if self.cursor.position >= upto {
            let cursor = Cursor { offset: None, ..self.cursor };
            self.events.tally.catch_up();
            self.place = Place::Joining(seam::join(Arc::clone(&self.events), cursor, self.filter.clone()));
            return None;
        }
        let (epoch, after) = (self.cursor.epoch, self.cursor.position);
        let mut blocks = BytesMut::new();
        let entities = self.events.registry.entities();
        let page = async {
            let client = self.events.database.get().await?;
            table::page(&**client, after, upto, &self.filter, Size::WRITE, |row| {
                let cursor = Cursor { epoch, position: Position(row.position), offset: None };
                if self.filter.pushes(row.entity_type, &entities) {
                    row.write_block(cursor, &mut blocks);
                }
                blocks.len()
            })
            .await
        };
        match page.await {
            Ok(page) if after < page.dropped => Some(self.reset(DROPPED)),
            Ok(page) => {
                self.cursor.position = page.more.unwrap_or(upto);
                (!blocks.is_empty()).then(|| blocks.freeze())
            }
            Err(error) => self.database_trouble(&error).await,
        }
    }

    async fn read_join(&mut self) -> Option<Bytes> {
        let wake_at = self.wake_at();
        let Place::Joining(join) = &mut self.place else { return None };
        let joined = tokio::select! {
            joined = join.recv() => joined,
            () = sleep_until(wake_at) => return Some(Bytes::from_static(b":\n\n")),
            () = self.events.shutdown.cancelled() => return None,
        };
        match joined {
            Some(Ok(Joined::Page(blocks))) => Some(blocks),
            Some(Ok(Joined::Dropped)) => Some(self.reset(DROPPED)),
            Some(Ok(Joined::Log { missed, next })) => {
                self.place = Place::Missed { left: missed.into(), next };
                None
            }
            Some(Err(error)) => {
                self.place = Place::Table;
                self.database_trouble(&error).await
            }
            // The join gave up on us. Its pages were final to nobody, so again from our cursor, which they did not move.
            None => {
                self.place = Place::Table;
                None
            }
        }
    }

    fn read_missed(&mut self) -> Option<Bytes> {
        let Place::Missed { left, next } = &mut self.place else { return None };
        let Some(transaction) = left.pop_front() else {
            // A reader that comes back with an offset beyond the marker has had everything up to there.
            self.cursor.offset = self.cursor.offset.max(Some(*next));
            self.place = Place::Ring;
            return None;
        };
        let delivered = self.cursor.offset;
        let mut blocks = BytesMut::new();
        let entities = self.events.registry.entities();
        let wanted = |event: &&Event| {
            self.filter.takes(event, &entities) && delivered.is_none_or(|offset| transaction.offset(event) > offset)
        };
        for event in transaction.events.iter().filter(wanted) {
            event.write_block(self.cursor.epoch, &transaction, self.cursor.position, &mut blocks);
        }
        (!blocks.is_empty()).then(|| blocks.freeze())
    }

    /// The stream stays open: the client cannot do more than wait either.
    async fn database_trouble(&mut self, error: &Error) -> Option<Bytes> {
        tracing::warn!(%error, "cannot read the event table for a stream; trying again");
        tokio::select! {
            () = self.events.shutdown.cancelled() => None,
            () = sleep(DATABASE_PAUSE) => Some(Bytes::from_static(b": waiting for the database\n\n")),
        }
    }

    fn wake_at(&self) -> Instant {
        self.until.map_or(self.heartbeat_at, |until| until.min(self.heartbeat_at))
    }

    fn end(&mut self, reason: Reason) {
        self.ended = true;
        self.ending.because(reason);
    }

    /// The cursor stays good: with a new token the reader goes on where it was.
    fn expire(&mut self) -> Bytes {
        self.end(Reason::Expired);
        let data =
            r#"{"code":"token_expired","reason":"the token has expired: come back with a new one and this cursor"}"#;
        format!("id: {}\nevent: headwater.expired\ndata: {data}\n\n", self.cursor).into()
    }

    fn say_goodbye(&mut self) -> Bytes {
        self.end(Reason::Shutdown);
        format!("retry: {}\nid: {}\n\n", self.events.retry.as_millis(), self.cursor).into()
    }

    /// The empty `id:` makes a browser forget the cursor, so that it does not come back with it.
    fn reset(&mut self, reason: &str) -> Bytes {
        self.end(Reason::Reset);
        let mut out = BytesMut::new();
        put(
            &mut out,
            format_args!(
                "id:\nevent: headwater.reset\ndata: {{\"code\":\"cursor_expired\",\"reason\":\"{reason}\"}}\n\n"
            ),
        );
        out.freeze()
    }
}
