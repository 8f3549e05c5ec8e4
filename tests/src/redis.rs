//! A Redis of a test's own: the real server, on a free port, with an append-only file that is flushed once a second, as
//! most have it: killed, it loses the last second.

use std::process::Stdio;

use redis::aio::MultiplexedConnection;
use redis::streams::StreamRangeReply;
use redis::{AsyncCommands, Client};
use tokio::process::{Child, Command};

use crate::deadline::eventually;
use crate::place::{Scratch, free_port};

/// A running (or, for a while, killed) server.
#[derive(Debug)]
pub struct Redis {
    scratch: Scratch,
    port: u16,
    server: Option<Child>,
}

/// An entry of the relay.
#[derive(Clone, Debug)]
pub struct RelayEntry {
    /// `<lsn>-<op>`
    pub id: String,
    /// The event, or none for a marker.
    pub event: Option<serde_json::Value>,
}

impl Redis {
    /// A new server, empty.
    pub async fn start() -> Self {
        let mut redis = Self { scratch: Scratch::new("redis"), port: free_port(), server: None };
        redis.resume().await;
        redis
    }

    /// Starts it again, with what it had on disk.
    pub async fn resume(&mut self) {
        assert!(self.server.is_none(), "the server runs");
        let server = Command::new("redis-server")
            .args(["--port", &self.port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "yes"])
            .arg("--dir")
            .arg(self.scratch.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("redis-server (Debian's package of that name)");
        self.server = Some(server);
        let this = &*self;
        eventually("Redis to answer", || async move {
            let mut connection = this.try_connect().await?;
            connection.ping::<String>().await.ok()
        })
        .await;
    }

    /// `kill -9`.
    pub async fn kill(&mut self) {
        self.server.take().expect("the server does not run").kill().await.unwrap();
    }

    /// Its address.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// A connection.
    pub async fn connect(&self) -> MultiplexedConnection {
        self.try_connect().await.expect("Redis runs")
    }

    async fn try_connect(&self) -> Option<MultiplexedConnection> {
        Client::open(self.url()).unwrap().get_multiplexed_async_connection().await.ok()
    }

    /// Everything in the present relay.
    pub async fn relay(&self) -> Vec<RelayEntry> {
        let mut connection = self.connect().await;
        let Some(epoch) = connection.get::<_, Option<String>>("sync:relay").await.unwrap() else { return Vec::new() };
        let all: StreamRangeReply = connection.xrange_all(format!("sync:relay:{epoch}")).await.unwrap();
        let entry = |entry: &redis::streams::StreamId| RelayEntry {
            id: entry.id.clone(),
            event: entry.get::<String>("event").map(|event| serde_json::from_str(&event).unwrap()),
        };
        all.ids.iter().map(entry).collect()
    }
}
