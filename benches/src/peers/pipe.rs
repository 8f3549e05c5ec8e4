//! As plain as it can be: lines come in by a pipe, and go to every socket by one `write` for all that wait. No
//! cursors, no filters, no tenants. With `pg_recvlogical` in front of it, it is a yardstick and no bound: there is a pipe between the two.

use std::os::fd::AsFd as _;

use memchr::memrchr;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::unix::pipe;
use tokio::net::{TcpListener, TcpStream};

const PIPE_BYTES: usize = 64 * 1024;

pub(super) async fn serve(listener: TcpListener) {
    let input = std::io::stdin().as_fd().try_clone_to_owned().unwrap();
    let mut input = pipe::Receiver::from_owned_fd(input).unwrap();
    let mut waiting = Vec::with_capacity(PIPE_BYTES);
    let mut readers = Vec::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => readers.extend(greet(accepted.unwrap().0).await),
            count = input.read_buf(&mut waiting) => {
                if count.unwrap() == 0 {
                    return;
                }
                let whole = memrchr(b'\n', &waiting).map_or(0, |end| end + 1);
                let rest = waiting.split_off(whole);
                let frames = frames(&std::mem::replace(&mut waiting, rest));
                if frames.is_empty() {
                    continue;
                }
                for mut reader in std::mem::take(&mut readers) {
                    // Who has gone is forgotten.
                    if reader.write_all(&frames).await.is_ok() {
                        readers.push(reader);
                    }
                }
            }
        }
    }
}

/// A reader, unless it has gone without asking for anything.
async fn greet(mut socket: TcpStream) -> Option<TcpStream> {
    socket.set_nodelay(true).unwrap();
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        if socket.read_buf(&mut request).await.unwrap_or(0) == 0 {
            return None;
        }
    }
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n";
    socket.write_all(head.as_bytes()).await.unwrap();
    Some(socket)
}

/// Rows only, not where transactions begin and end.
fn frames(lines: &[u8]) -> Vec<u8> {
    let lines = lines.split(|byte| *byte == b'\n').filter(|line| line.starts_with(b"table "));
    lines.flat_map(|line| [b"data: ", line, b"\n\n"].concat()).collect()
}
