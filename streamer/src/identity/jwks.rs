//! Keys from an issuer's URL (JSON Web Key Set, RFC 7517): fetched when needed, kept for a while, fetched again when a
//! token names a key that we do not know, so that issuers can change their keys at any time.
//!
//! Whose key is known never waits for the issuer: what is a little old is used, and fetched again meanwhile.

use super::{Keys, Refusal};
use crate::error::Error;
use futures_util::TryStreamExt;
use reqwest::{Client, Url, redirect};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::Instant;

/// After this long the keys are fetched again, so that a withdrawn one does not count for ever.
const FRESH_FOR: Duration = Duration::from_mins(5);

/// While the issuer does not answer, the keys that we have go on to count for this long.
const STALE_FOR: Duration = Duration::from_hours(1);

/// Tokens with made-up key names must not make us call the issuer more often than this.
const LEAST_PAUSE: Duration = Duration::from_secs(5);

const FETCH_PATIENCE: Duration = Duration::from_secs(5);

/// A key takes less than two kilobytes, certificates included.
const MAX_SET_BYTES: usize = 256 * 1024;

/// The keys of one issuer.
#[derive(Clone, Debug)]
pub struct Jwks(Arc<Issuer>);

#[derive(Debug)]
struct Issuer {
    url: Url,
    client: Client,
    known: RwLock<Known>,
    /// One fetch at a time; holds when the last one was tried.
    tried: Mutex<Option<Instant>>,
    least_pause: Duration,
    fresh_for: Duration,
}

#[derive(Clone, Debug, Default)]
struct Known {
    keys: Arc<Keys>,
    fetched: Option<Instant>,
}

impl Jwks {
    /// For the set at `url`: https, or http on this machine. Nothing is fetched yet.
    pub fn new(url: &str) -> Result<Self, Error> {
        let remedy = "give HEADWATER_JWT_JWKS_URL as https://issuer.example/.well-known/jwks.json";
        let url: Url =
            url.parse().map_err(|error| Error::setup(format!("the JWKS URL cannot be read: {error}"), remedy))?;
        let local = matches!(url.host_str(), Some("localhost" | "127.0.0.1" | "[::1]"));
        if url.scheme() != "https" && !(url.scheme() == "http" && local) {
            return Err(Error::setup(
                "the JWKS URL must be https: whoever changes it on its way makes tokens of his own",
                remedy,
            ));
        }
        let client = Client::builder().timeout(FETCH_PATIENCE).redirect(redirect::Policy::none()).build();
        let client =
            client.map_err(|error| Error::setup(format!("cannot set up TLS: {error}"), "install ca-certificates"))?;
        let (known, tried) = (RwLock::default(), Mutex::new(None));
        Ok(Self(Arc::new(Issuer { url, client, known, tried, least_pause: LEAST_PAUSE, fresh_for: FRESH_FOR })))
    }

    #[cfg(test)]
    pub(super) fn with_pauses(self, least_pause: Duration, fresh_for: Duration) -> Self {
        let issuer = Arc::try_unwrap(self.0).expect("nobody has it yet");
        Self(Arc::new(Issuer { least_pause, fresh_for, ..issuer }))
    }

    /// The keys that are known, unless they are too old. Waits for the issuer only if there are none.
    pub(super) async fn keys(&self) -> Result<Arc<Keys>, Refusal> {
        let issuer = &self.0;
        if let Some(keys) = issuer.younger_than(issuer.fresh_for) {
            return Ok(keys);
        }
        if let Some(keys) = issuer.younger_than(STALE_FOR) {
            // Locked: somebody is at it.
            if issuer.tried.try_lock().is_ok() {
                let issuer = Arc::clone(issuer);
                tokio::spawn(async move { issuer.refresh().await });
            }
            return Ok(keys);
        }
        self.newest().await
    }

    /// The keys after a fetch that began after this call, or a moment before it: for a token whose key is unknown. Only such
    /// tokens wait for the issuer, and none does while an answer, or none, is as young as `least_pause`.
    pub(super) async fn newest(&self) -> Result<Arc<Keys>, Refusal> {
        self.0.refresh().await;
        self.0.younger_than(STALE_FOR).ok_or(Refusal::Unavailable("the issuer's keys cannot be fetched; try again"))
    }
}

impl Issuer {
    fn younger_than(&self, age: Duration) -> Option<Arc<Keys>> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.fetched.filter(|fetched| fetched.elapsed() < age).map(|_| Arc::clone(&known.keys))
    }

    async fn refresh(&self) {
        let mut tried = self.tried.lock().await;
        if tried.is_some_and(|tried| tried.elapsed() < self.least_pause) {
            return;
        }
        match self.fetch().await {
            Ok(keys) => {
                let known = Known { keys: Arc::new(keys), fetched: Some(Instant::now()) };
                *self.known.write().unwrap_or_else(PoisonError::into_inner) = known;
            }
            Err(reason) => tracing::warn!(url = %self.url, reason, "cannot fetch the issuer's keys"),
        }
        *tried = Some(Instant::now());
    }

    async fn fetch(&self) -> Result<Keys, String> {
        let answer = self.client.get(self.url.clone()).send().await.map_err(|error| error.to_string())?;
        if !answer.status().is_success() {
            return Err(format!("the answer is {}", answer.status()));
        }
        let body = answer.bytes_stream().map_err(|error| error.to_string());
        let body = body.try_fold(Vec::new(), async |mut body, chunk| {
            body.extend_from_slice(&chunk);
            if body.len() > MAX_SET_BYTES {
                Err(format!("the answer has more than {MAX_SET_BYTES} bytes"))
            } else {
                Ok(body)
            }
        });
        let set = serde_json::from_slice(&body.await?).map_err(|error| error.to_string())?;
        Keys::of_set(&set).ok_or_else(|| "the answer is not a JSON Web Key Set".to_owned())
    }
}
