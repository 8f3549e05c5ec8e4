//! A client that follows the stream through every break, as a browser's `EventSource` does: it reconnects with
//! the id of the last block. It keeps every event that came, repeats included, for the oracle to judge.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use serde_json::Value;
use tokio::task::JoinHandle;

use crate::event::{position, text};
use crate::http::with_query;
use crate::sse::Connection;

/// What has come so far.
#[derive(Debug, Default)]
pub struct Seen {
    /// Every event in the order in which it came, repeats included.
    pub events: Vec<Value>,
    /// How many connections there were.
    pub connections: usize,
    /// The last block's id.
    pub cursor: String,
    ids: HashSet<String>,
}

impl Seen {
    /// How many different events came.
    pub fn distinct(&self) -> usize {
        self.ids.len()
    }

    /// How many came more than once.
    pub fn repeats(&self) -> usize {
        self.events.len() - self.ids.len()
    }

    /// Whether this event came.
    pub fn has(&self, id: &str) -> bool {
        self.ids.contains(id)
    }

    /// Asserts that the events of each entity, taken when they came first, came in the order of their positions.
    pub fn assert_order_per_entity(&self) {
        let mut last: HashMap<(&str, &str), i64> = HashMap::new();
        let mut first_time = HashSet::new();
        for event in &self.events {
            if !first_time.insert(text(event, "id")) {
                continue;
            }
            let entity = (text(event, "entity_type"), text(event, "entity_id"));
            let before = last.insert(entity, position(event)).unwrap_or(0);
            assert!(before < position(event), "{entity:?}: {} came after {before}", position(event));
        }
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
                        seen.ids.insert(text(&event, "id").to_owned());
                        seen.events.push(event);
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
