//! A replication connection without any library: what a walsender sends, and in which pieces.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use crate::postgres::Postgres;

/// How long Postgres may say nothing.
const PATIENCE: Duration = Duration::from_mins(1);
/// More than a walsender has on its way at any time.
const READ_BYTES: usize = 1 << 20;
/// Before a message of the output plugin: `w`, two positions and the time at which it was sent.
const HEADER: usize = 25;
const POSITIONS: usize = 17;

/// One message of an output plugin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Where it stands in the WAL.
    pub positions: Vec<u8>,
    /// As the output plugin wrote it: with pgoutput, its first byte is its kind.
    pub body: Vec<u8>,
}

/// The connection, as the superuser.
#[derive(Debug)]
pub struct Walsender {
    socket: TcpStream,
    buffered: Vec<u8>,
}

impl Walsender {
    /// Logs in; no password is asked for.
    pub fn open(postgres: &Postgres) -> Self {
        let socket = TcpStream::connect(("127.0.0.1", postgres.port())).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut connection = Self { socket, buffered: Vec::new() };
        let mut start = 196_608_i32.to_be_bytes().to_vec();
        for word in ["user", "postgres", "database", "headwater", "replication", "database"] {
            start.extend(word.as_bytes());
            start.push(0);
        }
        start.push(0);
        connection.send(None, &start);
        connection.until(b'Z');
        connection
    }

    /// Runs a statement to its end; the first value of its last row.
    pub fn query(&mut self, sql: &str) -> Option<String> {
        self.send(Some(b'Q'), &[sql.as_bytes(), b"\0"].concat());
        let messages = self.until(b'Z');
        let (_, row) = messages.iter().rfind(|(tag, _)| *tag == b'D')?;
        let length = usize::try_from(i32::from_be_bytes(row[2..6].try_into().unwrap())).ok()?;
        Some(String::from_utf8(row[6..6 + length].to_vec()).unwrap())
    }

    /// Begins to stream.
    pub fn stream(&mut self, sql: &str) {
        self.send(Some(b'Q'), &[sql.as_bytes(), b"\0"].concat());
        self.until(b'W');
    }

    /// What one read brings, without keepalives; and whether nothing of a message was left over.
    pub fn piece(&mut self) -> (Vec<Message>, bool) {
        let mut messages = Vec::new();
        if self.buffered.is_empty() {
            self.fill();
        }
        while let Some((tag, body)) = self.take() {
            assert_eq!(b'd', tag, "{}", String::from_utf8_lossy(&body));
            if body[0] == b'w' {
                messages.push(Message { positions: body[..POSITIONS].to_vec(), body: body[HEADER..].to_vec() });
            }
        }
        let whole = self.buffered.is_empty();
        if !whole {
            self.fill();
        }
        (messages, whole)
    }

    /// Ends the stream, as a client that goes does; the connection can be asked again.
    pub fn end(&mut self) {
        self.send(Some(b'c'), &[]);
        self.until(b'Z');
    }

    fn send(&mut self, tag: Option<u8>, body: &[u8]) {
        let length = i32::try_from(body.len() + 4).unwrap().to_be_bytes();
        let message = [tag.as_slice(), &length, body].concat();
        self.socket.write_all(&message).unwrap();
    }

    /// Reads up to a message of that kind.
    fn until(&mut self, last: u8) -> Vec<(u8, Vec<u8>)> {
        let mut messages = Vec::new();
        loop {
            while let Some((tag, body)) = self.take() {
                assert_ne!(b'E', tag, "{}", String::from_utf8_lossy(&body));
                messages.push((tag, body));
                if tag == last {
                    return messages;
                }
            }
            self.fill();
        }
    }

    fn take(&mut self) -> Option<(u8, Vec<u8>)> {
        let length = i32::from_be_bytes(self.buffered.get(1..5)?.try_into().unwrap());
        let end = 1 + usize::try_from(length).unwrap();
        let body = self.buffered.get(5..end)?.to_vec();
        let tag = self.buffered[0];
        self.buffered.drain(..end);
        Some((tag, body))
    }

    fn fill(&mut self) {
        let before = self.buffered.len();
        self.buffered.resize(before + READ_BYTES, 0);
        let read = self.socket.read(&mut self.buffered[before..]).unwrap();
        assert_ne!(0, read, "Postgres closed the connection");
        self.buffered.truncate(before + read);
    }
}
