//! A client that follows the stream through every break, as a browser's `EventSource` does: it reconnects with
//! the id of the last block. It keeps what came, repeats included, for the oracle to judge.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use serde_json::Value;
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::event::{position, text};
use crate::http::with_query;
use crate::sse::Connection;

/// Events that are kept whole; of further ones what the oracles ask for.
const KEPT: usize = 100_000;

/// What has come so far.
#[derive(Debug, Default)]
pub struct Seen {
    /// How many events came, repeats included.
    pub arrived: usize,
    /// How many connections there were.
    pub connections: usize,
    /// The last block's id.
    pub cursor: String,
    ids: HashSet<Uuid>,
    kept: Vec<Value>,
    /// Of each entity, the position of the last event that was new.
    last: HashMap<(String, String), i64>,
    /// What came in the wrong order.
    disorder: Option<String>,
}

impl Seen {
    fn take(&mut self, event: Value) {
        self.arrived += 1;
        let new = self.ids.insert(text(&event, "id").parse().unwrap());
        if new {
            let entity = (text(&event, "entity_type").to_owned(), text(&event, "entity_id").to_owned());
            let position = position(&event);
            let before = self.last.insert(entity, position).unwrap_or(0);
            if before >= position && self.disorder.is_none() {
                self.disorder = Some(format!("{event} came after position {before}"));
            }
        }
        if self.kept.len() < KEPT {
            self.kept.push(event);
        }
    }

    /// Every event in the order in which it came, repeats included.
    pub fn events(&self) -> &[Value] {
        assert_eq!(self.kept.len(), self.arrived, "so many are not kept");
        &self.kept
    }

    /// How many different events came.
    pub fn distinct(&self) -> usize {
        self.ids.len()
    }

    /// How many came more than once.
    pub fn repeats(&self) -> usize {
        self.arrived - self.ids.len()
    }

    /// Whether this event came.
    pub fn has(&self, id: &str) -> bool {
        self.ids.contains(&id.parse().unwrap())
    }

    /// Asserts that the events of each entity, taken when they came first, came in the order of their positions.
    pub fn assert_order_per_entity(&self) {
        assert_eq!(self.disorder, None);
    }
}

/// The running client. Ends when dropped.
#[derive(Debug)]
pub struct Follower {
    seen: Arc<Mutex<Seen>>,
    task: JoinHandle<()>,
}

impl Follower {
    /// Follows `url` from `cursor` on. A `headwater.reset` fails it: nothing here may be lost.
    pub fn start(url: &str, cursor: &str) -> Self {
        Self::start_as(None, url, cursor)
    }

    /// As `start`, with a token.
    pub fn start_as(token: Option<&str>, url: &str, cursor: &str) -> Self {
        let seen = Arc::new(Mutex::new(Seen { cursor: cursor.to_owned(), ..Seen::default() }));
        let task = tokio::spawn(follow(token.map(str::to_owned), url.to_owned(), Arc::clone(&seen)));
        Self { seen, task }
    }

    /// What has come so far.
    pub fn seen(&self) -> MutexGuard<'_, Seen> {
        assert!(!self.task.is_finished(), "the follower failed");
        self.seen.lock().unwrap()
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn follow(token: Option<String>, url: String, seen: Arc<Mutex<Seen>>) {
    loop {
        let cursor = seen.lock().unwrap().cursor.clone();
        match Connection::open_as(token.as_deref(), with_query(&url, &[]), Some(&cursor)).await {
            Ok(mut connection) => {
                seen.lock().unwrap().connections += 1;
                while let Some(block) = connection.next().await {
                    assert_ne!(block.event.as_deref(), Some("headwater.reset"), "{block:?}");
                    let mut seen = seen.lock().unwrap();
                    if block.data.is_some() {
                        let event = block.json();
                        assert_eq!(block.event.as_deref(), event["event_type"].as_str());
                        seen.take(event);
                    }
                    if let Some(id) = block.id {
                        seen.cursor = id;
                    }
                }
            }
            Err(Some(answer)) => assert_eq!(answer.status, 503, "{answer:?}"),
            Err(None) => {}
        }
        // A client's pause before it connects again; no test waits for it.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
