//! A client of Server-Sent Events that hides nothing: every block as it came, ids and heartbeats included.

use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use serde_json::Value;

use crate::deadline::PATIENCE;
use crate::http;

/// One block of the stream, up to its empty line. Comments are left out.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Block {
    /// `id:`, the cursor.
    pub id: Option<String>,
    /// `event:`
    pub event: Option<String>,
    /// `data:`
    pub data: Option<String>,
    /// `retry:`, in milliseconds.
    pub retry: Option<u64>,
}

impl Block {
    /// The event that the block carries.
    pub fn json(&self) -> Value {
        serde_json::from_str(self.data.as_deref().expect("a block with data")).unwrap()
    }
}

/// An open stream.
pub struct Connection {
    bytes: BoxStream<'static, reqwest::Result<Vec<u8>>>,
    pending: Vec<u8>,
    /// How much of `pending` was given out already.
    taken: usize,
}

impl Connection {
    /// Opens `url`. `Err` holds the answer that was no stream, or none where nobody listened.
    pub async fn open(url: reqwest::Url, last_event_id: Option<&str>) -> Result<Self, Option<http::Answer>> {
        Self::open_as(None, url, last_event_id).await
    }

    /// As `open`, with a token.
    pub async fn open_as(
        token: Option<&str>,
        url: reqwest::Url,
        last_event_id: Option<&str>,
    ) -> Result<Self, Option<http::Answer>> {
        Self::open_with(&http::client(), token, url, last_event_id).await
    }

    /// As `open_as`, with a client of one's own.
    pub async fn open_with(
        client: &reqwest::Client,
        token: Option<&str>,
        url: reqwest::Url,
        last_event_id: Option<&str>,
    ) -> Result<Self, Option<http::Answer>> {
        let mut request = client.get(url).header("accept", "text/event-stream");
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        if let Some(id) = last_event_id {
            request = request.header("last-event-id", id);
        }
        let Ok(answer) = request.send().await else { return Err(None) };
        let content_type = answer.headers().get("content-type").cloned();
        if answer.status() != 200 {
            return Err(Some(http::read(answer).await));
        }
        assert!(
            content_type.as_ref().is_some_and(|value| value.as_bytes().starts_with(b"text/event-stream")),
            "content-type of a stream: {content_type:?}"
        );
        let bytes = answer.bytes_stream().map(|chunk| chunk.map(|bytes| bytes.to_vec())).boxed();
        Ok(Self { bytes, pending: Vec::new(), taken: 0 })
    }

    /// The next block, or none when the stream has ended, cleanly or not.
    pub async fn next(&mut self) -> Option<Block> {
        loop {
            let rest = &self.pending[self.taken..];
            if let Some(end) = rest.windows(2).position(|pair| pair == b"\n\n") {
                let block = parse(std::str::from_utf8(&rest[..end]).expect("a stream of UTF-8"));
                self.taken += end + 2;
                return Some(block);
            }
            self.pending.drain(..self.taken);
            self.taken = 0;
            let chunk = self.bytes.next().await?.ok()?;
            self.pending.extend_from_slice(&chunk);
        }
    }

    /// The next block that carries data; fails the test if none comes.
    pub async fn next_event(&mut self) -> Block {
        self.find("a block with data", |block| block.data.is_some()).await
    }

    /// The next block for which `wanted` holds; what comes before is dropped.
    pub async fn find(&mut self, what: &str, wanted: impl Fn(&Block) -> bool) -> Block {
        let search = async {
            loop {
                let block = self.next().await.unwrap_or_else(|| panic!("the stream ended before {what}"));
                if wanted(&block) {
                    return block;
                }
            }
        };
        tokio::time::timeout(PATIENCE, search).await.unwrap_or_else(|_| panic!("waited in vain for {what}"))
    }
}

/// One block from its text.
pub fn parse(text: &str) -> Block {
    let mut block = Block::default();
    for line in text.lines() {
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "id" => block.id = Some(value.to_owned()),
            "event" => block.event = Some(value.to_owned()),
            "data" => match &mut block.data {
                Some(data) => {
                    data.push('\n');
                    data.push_str(value);
                }
                None => block.data = Some(value.to_owned()),
            },
            "retry" => block.retry = Some(value.parse().expect("retry in milliseconds")),
            "" => {}
            other => panic!("unknown field {other:?} in {text:?}"),
        }
    }
    block
}
