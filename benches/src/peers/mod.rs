//! Servers to compare with that are a page of Rust: this binary again, in a process of its own.

mod axum_sse;
mod pipe;
mod raw;

use std::process::{Command, Stdio};

use headwater_tests::place::free_port;

use crate::process::Server;

const VARIABLE: &str = "HEADWATER_BENCH_PEER";

/// Becomes a peer if that is what this process was started for.
pub(crate) async fn serve_if_asked() {
    let Ok(asked) = std::env::var(VARIABLE) else { return };
    let (peer, port) = asked.split_once(':').unwrap();
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port.parse().unwrap())).await.unwrap();
    match peer {
        "axum" => axum_sse::serve(listener).await,
        "pipe" => pipe::serve(listener).await,
        "raw" => raw::serve(listener).await,
        other => panic!("no such peer: {other}"),
    }
    std::process::exit(0);
}

/// Starts a peer.
pub(crate) async fn start(peer: &str) -> Server {
    start_fed(peer, Stdio::null()).await
}

/// Starts a peer that reads something.
pub(crate) async fn start_fed(peer: &str, input: Stdio) -> Server {
    let port = free_port();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.env(VARIABLE, format!("{peer}:{port}"));
    Server::start_fed(command, input, port).await
}
