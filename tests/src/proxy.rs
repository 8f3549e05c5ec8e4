//! A TCP proxy that breaks things: it cuts connections, holds one direction up, or what has certain words, lets bytes through by
//! drops, and sends new connections elsewhere.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// How often a slowed direction lets its few bytes through.
const DROP_INTERVAL: Duration = Duration::from_millis(5);

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the client to the server.
    Up,
    /// From the server to the client.
    Down,
}

/// What one direction lets through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// Everything.
    Free,
    /// This many bytes at a time, two hundred times a second.
    Slow(usize),
    /// Nothing; what was read already waits.
    Stalled,
}

/// A running proxy. Ends, with its connections, when dropped.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    state: Arc<State>,
    accepting: JoinHandle<()>,
}

#[derive(Debug)]
struct State {
    target: watch::Sender<u16>,
    /// Counts cuts: a connection ends when the number changes.
    cuts: watch::Sender<u64>,
    up: watch::Sender<Flow>,
    down: watch::Sender<Flow>,
    /// What clients say with these words in it waits.
    held_words: watch::Sender<Option<&'static str>>,
    /// How many messages have waited.
    held: watch::Sender<usize>,
}

impl Proxy {
    /// On a free port of 127.0.0.1, to this port there.
    pub async fn start(target: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(State {
            target: watch::Sender::new(target),
            cuts: watch::Sender::new(0),
            up: watch::Sender::new(Flow::Free),
            down: watch::Sender::new(Flow::Free),
            held_words: watch::Sender::new(None),
            held: watch::Sender::new(0),
        });
        let shared = Arc::clone(&state);
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(carry(client, Arc::clone(&shared)));
            }
        });
        Self { port, state, accepting }
    }

    /// The address of a path.
    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// Ends every connection, in the middle of whatever it carries.
    pub fn cut(&self) {
        self.state.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// New connections go there; those that are open stay.
    pub fn move_to(&self, target: u16) {
        self.state.target.send_replace(target);
    }

    /// From now on, for open connections too.
    pub fn let_flow(&self, direction: Direction, flow: Flow) {
        let side = if direction == Direction::Up { &self.state.up } else { &self.state.down };
        side.send_replace(flow);
    }
}

impl Proxy {
    /// From now on, what a client sends with these words in it waits, and everything behind it.
    pub fn hold(&self, words: &'static str) {
        self.state.held_words.send_replace(Some(words));
    }

    /// Waits until something waits.
    pub async fn holds(&self) {
        let mut held = self.state.held.subscribe();
        held.wait_for(|held| *held > 0).await.unwrap();
    }

    /// Everything goes on.
    pub fn release(&self) {
        self.state.held_words.send_replace(None);
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.cut();
    }
}

async fn carry(client: TcpStream, state: Arc<State>) {
    let mut cuts = state.cuts.subscribe();
    let target = *state.target.borrow();
    // Nobody there: the client's connection ends, as if it had been refused a moment later.
    let Ok(server) = TcpStream::connect(("127.0.0.1", target)).await else { return };
    let (client_read, client_write) = client.into_split();
    let (server_read, server_write) = server.into_split();
    tokio::select! {
        () = pass(client_read, server_write, state.up.subscribe(), Some(&state)) => {}
        () = pass(server_read, client_write, state.down.subscribe(), None) => {}
        _ = cuts.changed() => {}
    }
}

/// Until either end is closed. `state`: where words are that are held.
async fn pass(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut flow: watch::Receiver<Flow>,
    state: Option<&State>,
) {
    let mut buffer = [0; 16 * 1024];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        if let Some(state) = state {
            let text = String::from_utf8_lossy(&buffer[..read]);
            let mut words = state.held_words.subscribe();
            let free = |words: Option<&str>| words.is_none_or(|words| !text.contains(words));
            if !free(*words.borrow()) {
                state.held.send_modify(|held| *held += 1);
            }
            if words.wait_for(|words| free(*words)).await.is_err() {
                return;
            }
        }
        let mut left = &buffer[..read];
        while !left.is_empty() {
            let Ok(now) = flow.wait_for(|flow| *flow != Flow::Stalled).await.map(|flow| *flow) else { return };
            let count = if let Flow::Slow(bytes) = now { bytes.min(left.len()) } else { left.len() };
            if to.write_all(&left[..count]).await.is_err() {
                return;
            }
            left = &left[count..];
            if now != Flow::Free {
                tokio::time::sleep(DROP_INTERVAL).await;
            }
        }
    }
}
