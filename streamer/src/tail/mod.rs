//! `headwater tail`: the live stream in a terminal, or as lines of JSON for a pipe.
//!
//! It keeps its cursor and comes back with it after every break, so nothing is missing between two lines.

mod line;
mod sse;

use crate::config::Tail;
use crate::error::Error;
use futures_util::StreamExt;
use line::Style;
use reqwest::{Client, RequestBuilder, Response, StatusCode, Url};
use serde_json::Value;
use sse::{Block, Blocks};
use std::io::{ErrorKind, IsTerminal, Write};
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// Longest pause between two tries; the server says how long the first one is.
const LONGEST_PAUSE: Duration = Duration::from_secs(15);
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// Until the head of an answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// The server sends a sign of life every 15 s unless it was told otherwise.
const SILENCE: Duration = Duration::from_mins(3);

/// Follows until it is interrupted, or `--count` events have come.
pub async fn run(config: Tail) -> Result<(), Error> {
    let mut tail = Follower::new(config)?;
    tokio::select! {
        ended = tail.follow() => match ended {
            // Whoever reads our output has had enough, as `head` does.
            Err(Error::Io { source, .. }) if source.kind() == ErrorKind::BrokenPipe => Ok(()),
            ended => ended,
        },
        _ = tokio::signal::ctrl_c() => Ok(()),
    }
}

struct Follower {
    config: Tail,
    api: Url,
    http: Client,
    style: Style,
    cursor: Option<String>,
    pause: Duration,
    left: Option<u64>,
}

/// How a connection ended.
enum Ended {
    /// To be opened again.
    Broken,
    /// All that was asked for has come.
    Done,
}

impl Follower {
    fn new(config: Tail) -> Result<Self, Error> {
        let remedy = "give the streamer's address, as http://127.0.0.1:4000 (or set HEADWATER_URL)";
        let base = Url::parse(&config.url).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
        let base = base.ok_or_else(|| Error::setup(format!("`{}` is no address", config.url), remedy))?;
        let api = base.join("/api/v1/").map_err(|error| Error::setup(error.to_string(), remedy))?;
        let http = Client::builder()
            .build()
            .map_err(|error| Error::setup(format!("no HTTP client: {error}"), "check the proxy settings"))?;
        let style = if config.json { Style::Json } else { Style::Text { colours: std::io::stdout().is_terminal() } };
        let (cursor, left) = (config.cursor.clone(), config.count);
        Ok(Self { config, api, http, style, cursor, pause: FIRST_PAUSE, left })
    }

    async fn follow(&mut self) -> Result<(), Error> {
        if self.left == Some(0) || self.read_past().await? {
            return Ok(());
        }
        let mut pause = self.pause;
        loop {
            match self.connection().await? {
                Some(Ended::Done) => return Ok(()),
                // It worked for a while: from the start.
                Some(Ended::Broken) => pause = self.pause,
                None => {}
            }
            self.say(&format!("no connection; trying again in {:.1} s", pause.as_secs_f64()));
            sleep(pause).await;
            pause = LONGEST_PAUSE.min(pause * 2);
        }
    }

    /// What was recorded since the time that was asked for, page by page; whether that was all.
    async fn read_past(&mut self) -> Result<bool, Error> {
        let Some(since) = self.config.since.clone() else { return Ok(false) };
        loop {
            let request = self.request("events/since", &[("since", since.as_str()), ("limit", "1000")])?;
            let answer = match timeout(PATIENCE, request.send()).await {
                Ok(Ok(answer)) => judge(answer).await?,
                _ => None,
            };
            let page: Option<Value> = match answer {
                Some(answer) => answer.json().await.ok(),
                None => None,
            };
            let Some(page) = page else {
                self.say("no answer; trying again");
                sleep(FIRST_PAUSE).await;
                continue;
            };
            for event in page["events"].as_array().into_iter().flatten() {
                if self.show(event)? {
                    return Ok(true);
                }
            }
            self.cursor = page["cursor"].as_str().map(str::to_owned);
            if page["has_more"] != true {
                return Ok(false);
            }
        }
    }

    /// Opens the stream and shows what comes. None if it could not be opened just now.
    async fn connection(&mut self) -> Result<Option<Ended>, Error> {
        let request = self.request("events/stream", &[])?;
        let Ok(Ok(answer)) = timeout(PATIENCE, request.send()).await else { return Ok(None) };
        let Some(answer) = judge(answer).await? else { return Ok(None) };
        self.say(if self.cursor.is_some() { "following from the cursor on" } else { "following from now on" });
        let mut bytes = answer.bytes_stream();
        let mut blocks = Blocks::default();
        while let Ok(Some(Ok(chunk))) = timeout(SILENCE, bytes.next()).await {
            blocks.push(&chunk)?;
            while let Some(block) = blocks.next() {
                if let Some(ended) = self.take(block)? {
                    return Ok(Some(ended));
                }
            }
        }
        Ok(Some(Ended::Broken))
    }

    fn take(&mut self, block: Block) -> Result<Option<Ended>, Error> {
        if let Some(millis) = block.retry {
            self.pause = Duration::from_millis(millis);
        }
        let data = block.data.as_deref().and_then(|data| serde_json::from_str::<Value>(data).ok());
        let reason = || data.as_ref().and_then(|data| data["reason"].as_str()).unwrap_or("no reason given").to_owned();
        match (block.event.as_deref(), &data) {
            (Some("headwater.reset"), _) => {
                self.say(&format!("the server starts anew: {}; following from now on", reason()));
                self.cursor = None;
                return Ok(Some(Ended::Broken));
            }
            (Some("headwater.expired"), _) => {
                return Err(Error::setup(reason(), "pass a new --token (or set HEADWATER_TOKEN)"));
            }
            (_, Some(event)) if self.show(event)? => return Ok(Some(Ended::Done)),
            _ => {}
        }
        // Behind the event: whoever stops here has seen it.
        if let Some(id) = block.id {
            self.cursor = Some(id).filter(|id| !id.is_empty());
        }
        Ok(None)
    }

    /// Whether that was the last one asked for.
    fn show(&mut self, event: &Value) -> Result<bool, Error> {
        let mut out = std::io::stdout().lock();
        let written = writeln!(out, "{}", self.style.line(event)).and_then(|()| out.flush());
        written.map_err(Error::io("write to standard output"))?;
        self.left = self.left.map(|left| left.saturating_sub(1));
        Ok(self.left == Some(0))
    }

    fn request(&self, path: &str, more: &[(&str, &str)]) -> Result<RequestBuilder, Error> {
        let mut url = self.api.join(path).map_err(|error| Error::Protocol(error.to_string()))?;
        let wanted = [
            ("entity_type", self.config.entity_type.as_deref()),
            ("entity_id", self.config.entity_id.as_deref()),
            ("tenant_id", self.config.tenant_id.as_deref()),
            ("cursor", self.cursor.as_deref()),
        ];
        let given = wanted.into_iter().filter_map(|(name, value)| Some((name, value?)));
        url.query_pairs_mut().extend_pairs(given.chain(more.iter().copied()));
        let request = self.http.get(url);
        Ok(self.config.token.iter().fold(request, RequestBuilder::bearer_auth))
    }

    /// To the person, not into the pipe.
    fn say(&self, what: &str) {
        if !self.config.quiet {
            eprintln!("headwater tail: {what}");
        }
    }
}

/// The answer if it is good, none if it may be so in a moment.
async fn judge(answer: Response) -> Result<Option<Response>, Error> {
    let status = answer.status();
    if status.is_success() {
        return Ok(Some(answer));
    }
    if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
        return Ok(None);
    }
    let problem: Value = answer.json().await.unwrap_or_default();
    let detail = problem["detail"].as_str().unwrap_or("the address does not belong to a streamer");
    let remedy = match status.as_u16() {
        401 => "pass --token (or set HEADWATER_TOKEN): a JWT, or the administrators' secret",
        403 => "pass the token of one who may, or leave --tenant-id out",
        410 => "leave --cursor out; --since 2026-01-02T03:04:05Z shows what there still is",
        _ => "see headwater tail --help",
    };
    Err(Error::setup(format!("the streamer answers {status}: {detail}"), remedy))
}
