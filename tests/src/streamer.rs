//! The streamer under test: the real binary, with a log of its own.

use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Instant;

use serde_json::Value;
use tokio::process::{Child, Command};

use crate::deadline::{BETWEEN_LOOKS, PATIENCE};
use crate::http;
use crate::place::{Scratch, end_of, free_port, signal, streamer_binary};
use crate::postgres::Postgres;

/// How a run of the binary that ended by itself ended.
#[derive(Debug)]
pub struct Ending {
    /// Its exit status.
    pub status: ExitStatus,
    /// What it wrote to standard error.
    pub message: String,
}

/// A running (or, for a while, killed) `headwater serve`.
#[derive(Debug)]
pub struct Streamer {
    scratch: Scratch,
    port: u16,
    database_url: String,
    arguments: Vec<String>,
    process: Option<Child>,
}

impl Streamer {
    /// A streamer on this Postgres, healthy. `arguments` follow `serve`.
    pub async fn start(postgres: &Postgres, arguments: &[&str]) -> Self {
        Self::start_at(postgres.streamer_url(), arguments).await
    }

    /// The same, by another way to Postgres.
    pub async fn start_at(database_url: String, arguments: &[&str]) -> Self {
        let mut streamer = Self::new(database_url, arguments);
        streamer.resume().await;
        streamer
    }

    /// A streamer that has only just begun to start.
    pub fn spawned(postgres: &Postgres, arguments: &[&str]) -> Self {
        let mut streamer = Self::new(postgres.streamer_url(), arguments);
        streamer.spawn();
        streamer
    }

    fn new(database_url: String, arguments: &[&str]) -> Self {
        Self {
            scratch: Scratch::new("streamer"),
            port: free_port(),
            database_url,
            arguments: arguments.iter().map(ToString::to_string).collect(),
            process: None,
        }
    }

    /// Runs the binary until it ends by itself, as it does when it cannot start.
    pub async fn run_to_end(database_url: &str, arguments: &[&str]) -> Ending {
        let child = command(database_url, free_port())
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let output = tokio::time::timeout(PATIENCE, child.wait_with_output())
            .await
            .expect("headwater serve should have ended by itself")
            .unwrap();
        Ending { status: output.status, message: String::from_utf8(output.stderr).unwrap() }
    }

    /// Starts it again, on the same port, and waits until it is healthy.
    pub async fn resume(&mut self) {
        self.spawn();
        self.healthy().await;
    }

    /// Starts it again without waiting.
    pub fn spawn(&mut self) {
        assert!(self.process.is_none(), "the streamer runs");
        let log = std::fs::File::options().create(true).append(true).open(self.log()).unwrap();
        let process = command(&self.database_url, self.port)
            .args(self.arguments.iter().all(|argument| argument != "--jwt-secret").then_some("--insecure"))
            .args(&self.arguments)
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.process = Some(process);
    }

    /// Waits until `/health` says that the WAL streams: as long as the head moves, catching up may take any time.
    pub async fn healthy(&mut self) {
        let url = self.url("/health");
        let process = self.process.as_mut().unwrap();
        let client = http::client_that_trusts_anybody();
        let (mut head, mut moved) = (Value::Null, Instant::now());
        loop {
            assert!(process.try_wait().unwrap().is_none(), "the streamer ended by itself");
            if let Ok(answer) = client.get(&url).send().await {
                if answer.status() == 200 {
                    return;
                }
                let health: Value = serde_json::from_str(&answer.text().await.unwrap_or_default()).unwrap_or_default();
                if health["head"] != head {
                    (head, moved) = (health["head"].clone(), Instant::now());
                }
            }
            assert!(moved.elapsed() < PATIENCE, "nothing moved for {PATIENCE:?} while the streamer is to be healthy");
            tokio::time::sleep(BETWEEN_LOOKS).await;
        }
    }

    /// `kill -9`.
    pub async fn kill(&mut self) {
        self.process.take().expect("the streamer does not run").kill().await.unwrap();
    }

    /// SIGTERM; the exit status.
    pub async fn terminate(&mut self) -> ExitStatus {
        let mut process = self.process.take().expect("the streamer does not run");
        signal(process.id().unwrap(), "TERM");
        tokio::time::timeout(PATIENCE, process.wait()).await.expect("SIGTERM should end the streamer").unwrap()
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.process.as_ref().and_then(Child::id).expect("the streamer does not run")
    }

    /// The port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The address of a path.
    pub fn url(&self, path: &str) -> String {
        let scheme = if self.arguments.iter().any(|argument| argument == "--tls-cert") { "https" } else { "http" };
        format!("{scheme}://127.0.0.1:{}{path}", self.port)
    }

    /// `GET /api/v1/events/since`, which must answer 200.
    pub async fn since(&self, query: &[(&str, &str)]) -> Value {
        let answer = http::get(&self.url("/api/v1/events/since"), query).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.json()
    }

    /// The cursor behind everything that is visible now.
    pub async fn cursor_now(&self) -> String {
        let mut cursor = String::new();
        loop {
            let query = [("cursor", cursor.as_str())];
            let page = self.since(if cursor.is_empty() { &[] } else { &query }).await;
            page["cursor"].as_str().unwrap().clone_into(&mut cursor);
            if page["has_more"] == false {
                return cursor;
            }
        }
    }

    /// `POST /api/v1/events/batch` with these events, which must answer 200.
    pub async fn batch(&self, events: &[Value]) -> Value {
        let body = serde_json::json!({ "events": events }).to_string();
        let answer = http::post(&self.url("/api/v1/events/batch"), body).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.json()
    }

    /// What it has logged so far.
    pub fn logged(&self) -> String {
        std::fs::read_to_string(self.log()).unwrap()
    }

    /// The most memory that it has ever taken, in bytes.
    pub fn peak_memory(&self) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        peak.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
    }

    fn log(&self) -> PathBuf {
        self.scratch.path().join("streamer.log")
    }
}

impl Drop for Streamer {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- end of the streamer's log\n{}", end_of(&self.log()));
        }
    }
}

fn command(database_url: &str, port: u16) -> Command {
    let mut command = Command::new(streamer_binary());
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("HEADWATER_") {
            command.env_remove(name);
        }
    }
    command
        .arg("serve")
        .env("HEADWATER_PORT", port.to_string())
        .env("DATABASE_URL", database_url)
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}
