//! As little as can be done: every socket gets all messages of a batch by one `write`. No resuming, no heartbeats, no
//! filters. `POST /` with one message a line.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

enum Order {
    Reader(TcpStream),
    Batch(String),
}

pub(super) async fn serve(listener: TcpListener) {
    let (orders, mut inbox) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            socket.set_nodelay(true).unwrap();
            tokio::spawn(listen(socket, orders.clone()));
        }
    });
    let mut readers = Vec::new();
    while let Some(order) = inbox.recv().await {
        match order {
            Order::Reader(socket) => readers.push(socket),
            Order::Batch(frames) => {
                for reader in &mut readers {
                    reader.write_all(frames.as_bytes()).await.unwrap();
                }
            }
        }
    }
}

async fn listen(mut socket: TcpStream, orders: mpsc::UnboundedSender<Order>) {
    let mut text = Vec::new();
    loop {
        let end = loop {
            if let Some(end) = text.windows(4).position(|window| window == b"\r\n\r\n") {
                break end + 4;
            }
            if socket.read_buf(&mut text).await.unwrap_or(0) == 0 {
                return;
            }
        };
        let head = std::str::from_utf8(&text[..end]).unwrap().to_ascii_lowercase();
        if head.starts_with("get ") {
            let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n";
            socket.write_all(head.as_bytes()).await.unwrap();
            orders.send(Order::Reader(socket)).unwrap();
            return;
        }
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let length: usize = length.unwrap().parse().unwrap();
        while text.len() < end + length {
            assert!(socket.read_buf(&mut text).await.unwrap() > 0);
        }
        let body = std::str::from_utf8(&text[end..end + length]).unwrap();
        let frames = body.lines().flat_map(|line| ["data: ", line, "\n\n"]).collect();
        orders.send(Order::Batch(frames)).unwrap();
        text.drain(..end + length);
        socket.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
    }
}
