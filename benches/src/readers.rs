//! Many readers of Server-Sent Events in one process: they count what comes, and check that nothing is missing.
//!
//! Every message carries its number between two `#`; a reader that sees another one than the next fails the run.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use futures_util::stream::{self, StreamExt as _};
use memchr::memchr;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinHandle;

/// Connections that are opened at a time: below the usual length of a listener's queue.
const OPENED_AT_A_TIME: usize = 64;

/// As long as something moves it may take any time.
const PATIENCE: Duration = Duration::from_mins(1);

thread_local! {
    /// All readers of a thread read into the same memory.
    static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; 256 * 1024]);
}

/// The number `#00000042#` as it stands in a message.
pub(crate) fn mark(number: u64) -> String {
    format!("#{number:08}#")
}

/// What all readers share.
#[derive(Debug, Default)]
struct Count {
    opened: AtomicU64,
    messages: AtomicU64,
    ended: AtomicU64,
}

/// The running readers; they leave when this is dropped.
#[derive(Debug)]
pub(crate) struct Readers {
    count: Arc<Count>,
    readers: Vec<JoinHandle<Vec<SystemTime>>>,
}

impl Readers {
    /// Opens `count` streams and waits until each has had its first bytes. `note_times`: note when each message comes.
    pub(crate) async fn open(port: u16, path: &str, count: usize, note_times: bool) -> Self {
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let request = format!("GET {path} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\naccept: text/event-stream\r\n\r\n");
        let counted = Arc::new(Count::default());
        let sockets: Vec<TcpStream> = stream::iter(0..count)
            .map(|_| async {
                let socket = TcpSocket::new_v4().unwrap();
                // Leaves without TIME_WAIT: thousands of ports are soon needed again.
                socket.set_zero_linger().unwrap();
                let mut socket = socket.connect(address).await.unwrap();
                socket.write_all(request.as_bytes()).await.unwrap();
                socket
            })
            .buffer_unordered(OPENED_AT_A_TIME)
            .collect()
            .await;
        let read = |socket| tokio::spawn(read(socket, Arc::clone(&counted), note_times));
        let readers = sockets.into_iter().map(read).collect();
        let all = Self { count: Arc::clone(&counted), readers };
        all.until("streams to open", |counted| counted.opened.load(Ordering::Relaxed), count as u64).await;
        all
    }

    /// Waits until all together have had so many messages.
    pub(crate) async fn received(&self, messages: u64) {
        self.until("messages to arrive", |counted| counted.messages.load(Ordering::Relaxed), messages).await;
    }

    async fn until(&self, what: &str, of: impl Fn(&Count) -> u64, expected: u64) {
        let (mut last, mut moved) = (0, Instant::now());
        loop {
            let now = of(&self.count);
            if now >= expected {
                assert_eq!(now, expected, "more than there can be, waiting for {what}");
                return;
            }
            if now != last {
                (last, moved) = (now, Instant::now());
            }
            let ended = self.count.ended.load(Ordering::Relaxed);
            assert!(ended == 0, "{ended} readers ended while waiting for {what}: {now} of {expected}");
            assert!(moved.elapsed() < PATIENCE, "waited in vain for {what}: {now} of {expected}");
            tokio::time::sleep(Duration::from_micros(500)).await;
        }
    }

    /// Waits until the server has ended the streams; when each message came to each.
    pub(crate) async fn ended(mut self) -> Vec<Vec<SystemTime>> {
        let mut all = Vec::new();
        for reader in std::mem::take(&mut self.readers) {
            all.push(reader.await.unwrap());
        }
        all
    }
}

impl Drop for Readers {
    fn drop(&mut self) {
        for reader in &self.readers {
            reader.abort();
        }
    }
}

async fn read(socket: TcpStream, counted: Arc<Count>, note_times: bool) -> Vec<SystemTime> {
    let mut scanner = Scanner::default();
    let mut times = Vec::new();
    let mut opened = false;
    loop {
        if socket.readable().await.is_err() {
            break;
        }
        let read = BUFFER.with_borrow_mut(|buffer| {
            let count = socket.try_read(buffer)?;
            std::io::Result::Ok((count, scanner.scan(&buffer[..count])))
        });
        match read {
            Ok((0, _)) => break,
            Ok((_, messages)) => {
                if !opened {
                    opened = true;
                    counted.opened.fetch_add(1, Ordering::Relaxed);
                }
                if note_times {
                    times.extend(std::iter::repeat_n(SystemTime::now(), usize::try_from(messages).unwrap()));
                }
                counted.messages.fetch_add(messages, Ordering::Relaxed);
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => break,
        }
    }
    counted.ended.fetch_add(1, Ordering::Relaxed);
    times
}

/// Finds the numbers in a stream, however it is cut.
#[derive(Debug, Default)]
struct Scanner {
    next: Option<u64>,
    number: Option<u64>,
}

impl Scanner {
    /// How many messages ended here.
    fn scan(&mut self, mut bytes: &[u8]) -> u64 {
        let mut messages = 0;
        while !bytes.is_empty() {
            let Some(number) = self.number else {
                let Some(at) = memchr(b'#', bytes) else { return messages };
                bytes = &bytes[at + 1..];
                self.number = Some(0);
                continue;
            };
            self.number = match bytes[0] {
                digit @ b'0'..=b'9' => Some(number * 10 + u64::from(digit - b'0')),
                b'#' => {
                    assert!(self.next.is_none_or(|next| next == number), "{number} came after {:?}", self.next);
                    self.next = Some(number + 1);
                    messages += 1;
                    None
                }
                other => panic!("a torn message: {:?} in a number", char::from(other)),
            };
            bytes = &bytes[1..];
        }
        messages
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_found_however_the_stream_is_cut() {
        let text = format!("head {} x {}{} tail", mark(7), mark(8), mark(9));
        for cut in 0..text.len() {
            let (left, right) = text.as_bytes().split_at(cut);
            let mut scanner = Scanner::default();
            assert_eq!(scanner.scan(left) + scanner.scan(right), 3, "{cut}");
        }
    }

    #[test]
    #[should_panic(expected = "9 came after Some(8)")]
    fn a_gap_is_found() {
        Scanner::default().scan(format!("{}{}", mark(7), mark(9)).as_bytes());
    }
}
