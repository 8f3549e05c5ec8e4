//! What one writes in axum in an afternoon: `Sse` over a `tokio::sync::broadcast`. `POST /` with one message a line.

use std::convert::Infallible;

use axum::Router;
use axum::extract::State;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::routing::get;
use futures_util::stream::{self, Stream};
use tokio::net::TcpListener;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

/// Enough for everything that is published before the slowest reader has had it.
const CAPACITY: usize = 16 * 1024;

type Channel = broadcast::Sender<String>;

pub(super) async fn serve(listener: TcpListener) {
    let channel = Channel::new(CAPACITY);
    let router = Router::new().route("/", get(subscribe).post(publish)).with_state(channel);
    axum::serve(listener, router).await.unwrap();
}

async fn subscribe(State(channel): State<Channel>) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let events = stream::unfold(channel.subscribe(), async |mut messages| match messages.recv().await {
        Ok(message) => Some((Ok(Event::default().data(message)), messages)),
        Err(RecvError::Closed | RecvError::Lagged(_)) => None,
    });
    // The first bytes tell the bench that the reader is there.
    let hello = stream::once(async { Ok(Event::default().comment("hello")) });
    Sse::new(futures_util::StreamExt::chain(hello, events)).keep_alive(KeepAlive::default())
}

async fn publish(State(channel): State<Channel>, body: String) {
    for line in body.lines() {
        let _ = channel.send(line.to_owned());
    }
}
