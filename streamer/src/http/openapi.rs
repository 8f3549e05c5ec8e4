//! `GET /openapi.json`: the API and the entities, as the extension describes them.
//!
//! Anybody may ask, as often as he likes: Postgres is asked by one request at a time, a few times a second, for all that wait.

use super::App;
use super::problem::Problem;
use crate::database::Database;
use crate::error::Error;
use crate::notify::Kind;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep_until, timeout};

/// Postgres begins no two documents (some 30 ms of its time) within this long: who asks just after somebody else waits for the next
/// one, with all others who do. Nobody gets one that is older than his request: DDL changes it without a word in the WAL.
const PAUSE: Duration = Duration::from_millis(250);

/// How long a request waits for those before it, while Postgres does not answer them.
const PATIENCE: Duration = Duration::from_secs(10);

/// The document, as it was last read.
#[derive(Debug)]
pub struct Document {
    database: Database,
    default: Kind,
    kept: Mutex<Option<Kept>>,
}

#[derive(Clone, Debug)]
struct Kept {
    text: Bytes,
    tag: HeaderValue,
    /// When Postgres was asked.
    asked: Instant,
}

impl Document {
    /// Nothing is read yet. `default` is the backend of entities that ask for none.
    pub fn new(database: Database, default: Kind) -> Self {
        Self { database, default, kept: Mutex::new(None) }
    }

    async fn get(&self) -> Result<Kept, Problem> {
        let came = Instant::now();
        let slow = || Problem::from(Error::Timeout("Postgres does not say what the entities are"));
        let mut kept = timeout(PATIENCE, self.kept.lock()).await.map_err(|_| slow())?;
        if let Some(known) = &*kept {
            if known.asked >= came {
                return Ok(known.clone());
            }
            sleep_until(known.asked + PAUSE).await;
        }
        let asked = Instant::now();
        let client = self.database.get().await?;
        let row = client.query_one("select headwater.openapi()::text", &[]).await.map_err(Error::from)?;
        let text: String = row.try_get(0).map_err(Error::from)?;
        let text = Bytes::from(with_default(text, self.default));
        let tag = tag_of(&text);
        Ok(kept.insert(Kept { text, tag, asked }).clone())
    }
}

/// The first half of the text's digest, in hexadecimal. Weak: packed or not, it is the same.
fn tag_of(text: &[u8]) -> HeaderValue {
    let number = Sha256::digest(text).iter().take(16).fold(0, |number: u128, byte| number << 8 | u128::from(*byte));
    HeaderValue::try_from(format!("W/\"{number:032x}\"")).unwrap_or(HeaderValue::from_static("W/\"\""))
}

/// The extension knows what each entity asks for; what the others get is this streamer's choice.
fn with_default(document: String, default: Kind) -> String {
    if default == Kind::Memory {
        return document; // what the document says anyway
    }
    let Ok(mut value) = serde_json::from_str::<Value>(&document) else { return document };
    let paths = value.get_mut("paths").and_then(Value::as_object_mut);
    for sync in paths.into_iter().flatten().filter_map(|(_, path)| path.get_mut("x-sync")) {
        let own = sync.get("notification").and_then(Value::as_str).and_then(Kind::parse);
        if own.is_none() && sync.get("transport").is_some() {
            sync["notification"] = default.to_string().into();
            sync["transport"] = if default.supports_push() { "sse" } else { "polling" }.into();
        }
    }
    value.to_string()
}

pub(super) async fn get(State(app): State<App>, headers: HeaderMap) -> Result<Response, Problem> {
    let Kept { text, tag, .. } = app.openapi.get().await?;
    let known = |list: &HeaderValue| {
        let opaque = |tag: &str| tag.trim().trim_start_matches("W/").to_owned();
        let own = tag.to_str().map(opaque).unwrap_or_default();
        list.to_str().is_ok_and(|list| list.split(',').any(|one| one.trim() == "*" || opaque(one) == own))
    };
    let common = [(header::CACHE_CONTROL, HeaderValue::from_static("no-cache")), (header::ETAG, tag.clone())];
    if headers.get(header::IF_NONE_MATCH).is_some_and(known) {
        return Ok((StatusCode::NOT_MODIFIED, common).into_response());
    }
    Ok((common, [(header::CONTENT_TYPE, "application/json")], text).into_response())
}
