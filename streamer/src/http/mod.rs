//! The HTTP API. Handlers translate; what they serve is made upstream.

mod access;
mod batch;
mod body;
mod connection;
mod console;
mod entities;
mod health;
mod host;
mod metrics;
mod observe;
mod openapi;
mod pages;
mod patient;
mod problem;
mod server;
mod shape;
mod shape_answers;
mod shape_headers;
mod since;
mod socket;
mod stream;
mod streams;
mod takeover;
mod tls;

pub use body::Bodies;
pub use openapi::Document;
pub use server::{Limits, bind, serve};
pub use streams::Streams;
pub use tls::Tls;

use crate::console::Console;
use crate::database::Database;
use crate::events::Events;
use crate::identity::Guard;
use crate::identity::Secret;
use crate::ingest::Ingest;
use crate::log::Log;
use crate::metrics::Metrics;
use crate::notify::{Kind, PublisherStatus};
use crate::shape::Shapes;
use crate::slot_health::SlotWatch;
use crate::vitals::Vitals;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderName, HeaderValue, Method, header, request};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Extension, Router};
use problem::Problem;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tower_http::CompressionLevel;
use tower_http::compression::predicate::{NotForContentType, SizeAbove};
use tower_http::compression::{CompressionLayer, Predicate};
use tower_http::cors::{AllowOrigin, CorsLayer};

/// Browsers may keep a preflight's answer this long (Chromium's own limit is two hours).
const CORS_MAX_AGE: Duration = Duration::from_hours(1);

/// Below this an answer fits into one packet anyway.
const COMPRESSED_FROM_BYTES: u16 = 1400;

/// What the handlers need.
#[derive(Clone, Debug)]
pub struct App {
    /// Who is let in.
    pub guard: Arc<Guard>,
    /// For `/health`.
    pub log: Arc<Log>,
    /// The same.
    pub slot: Arc<SlotWatch>,
    /// The backend of entities that ask for none.
    pub notification: Kind,
    /// How publishing goes, if there is anything to publish to.
    pub publisher: Option<Arc<PublisherStatus>>,
    /// For readers.
    pub events: Arc<Events>,
    /// For writers.
    pub ingest: Arc<Ingest>,
    /// What `/openapi.json` answers.
    pub openapi: Arc<Document>,
    /// For clients of ElectricSQL's protocol.
    pub shapes: Arc<Shapes>,
    /// What lets a trusted proxy read all shapes.
    pub shape_secret: Option<Arc<Secret>>,
    /// How long caches may keep an answer of a shape, in seconds.
    pub cache_max_age: u64,
    /// How long they may give it out while they ask again, in seconds.
    pub cache_stale_age: u64,
    /// For what is asked of Postgres directly.
    pub database: Database,
    /// How often an idle WebSocket is pinged.
    pub heartbeat: Duration,
    /// The memory that bodies take.
    pub bodies: Arc<Bodies>,
    /// How many streams are open.
    pub streams: Arc<Streams>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// What Postgres says of our slot.
    pub vitals: Arc<Vitals>,
    /// The role under which events are applied.
    pub apply_role: Arc<str>,
    /// What operators see, where it is switched on.
    pub console: Option<Arc<Console>>,
}

/// Which browser origins may call us.
#[derive(Clone, Debug)]
pub struct Origins {
    /// Any port of this machine's loopback names (development).
    pub localhost: bool,
    /// These, as `scheme://host:port`; `*` is any.
    pub listed: Vec<String>,
}

/// All routes. `pages`: a folder to serve under `/app/`. `local_names`: only requests that name this machine itself, by address or as
/// localhost, are served.
pub fn router(app: App, origins: &Origins, pages: Option<&Path>, local_names: bool) -> Router {
    let api = Router::new()
        .route("/events/batch", post(batch::post))
        .route("/events/since", get(since::get))
        .route("/events/stream", get(stream::get))
        .route("/events/ws", get(socket::get))
        .route("/entities/{entity_type}/snapshot", get(entities::snapshot))
        .route("/entities/{entity_type}/{entity_id}", get(entities::entity))
        .route("/entities/{entity_type}/{entity_id}/history", get(entities::history));
    let counts = Arc::clone(&app.metrics);
    let router = Router::new()
        .nest("/api/v1", api)
        .route("/health", get(health::get))
        .route("/live", get(health::live))
        .route("/metrics", get(metrics::get))
        .route("/openapi.json", get(openapi::get))
        .merge(pages::routes(pages))
        .merge(console::routes())
        .fallback(async || Problem::not_found())
        .method_not_allowed_fallback(async |method: Method| Problem::method_not_allowed(&method))
        // Bodies are read with a limit of our own, which can tell the limit.
        .layer(DefaultBodyLimit::disable())
        .layer(cors(origins))
        .layer(Extension(origins.clone()))
        .layer(from_fn_with_state((app.clone(), origins.clone()), shapes_first))
        .layer(compression())
        .with_state(app);
    let router = if local_names { router.layer(from_fn(host::require_local)) } else { router };
    // Outermost: what the others refuse is counted too.
    router.layer(from_fn_with_state(counts, observe::observe))
}

/// What those who watch over us need, without authentication: for a port of its own.
pub fn watchers(app: App) -> Router {
    Router::new()
        .route("/metrics", get(metrics::open))
        .route("/health", get(health::get))
        .route("/live", get(health::live))
        .fallback(async || Problem::not_found())
        .with_state(app)
}

/// Pages, snapshots and documents; a stream's events must not wait in a compressor.
fn compression() -> CompressionLayer<impl Predicate> {
    let worth_it = SizeAbove::new(COMPRESSED_FROM_BYTES).and(NotForContentType::SSE);
    CompressionLayer::new().quality(CompressionLevel::Fastest).compress_when(worth_it)
}

/// ElectricSQL's paths, in every spelling. Outside of our own rules for origins: theirs are other ones.
async fn shapes_first(State((app, origins)): State<(App, Origins)>, request: Request, next: Next) -> Response {
    match shape::route(app, &origins, request).await {
        Ok(response) => response,
        Err(request) => next.run(*request).await,
    }
}

fn cors(origins: &Origins) -> CorsLayer {
    let origins = origins.clone();
    let allowed =
        move |origin: &HeaderValue, _: &request::Parts| origin.to_str().is_ok_and(|origin| origins.allow(origin));
    CorsLayer::new()
        .allow_origin(AllowOrigin::predicate(allowed))
        .allow_methods([Method::GET, Method::POST])
        .allow_headers([
            header::AUTHORIZATION,
            header::CONTENT_TYPE,
            header::CONTENT_ENCODING,
            HeaderName::from_static("last-event-id"),
        ])
        .expose_headers([header::RETRY_AFTER, HeaderName::from_static("x-request-id")])
        .max_age(CORS_MAX_AGE)
}

impl Origins {
    fn allow(&self, origin: &str) -> bool {
        self.listed.iter().any(|listed| listed == "*" || listed == origin) || (self.localhost && is_localhost(origin))
    }
}

fn is_localhost(origin: &str) -> bool {
    let Some((scheme, rest)) = origin.split_once("://") else { return false };
    let host = match rest.rsplit_once(':') {
        Some((host, port)) if !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => rest,
    };
    matches!(scheme, "http" | "https") && matches!(host, "localhost" | "127.0.0.1" | "[::1]")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins() {
        let check = |localhost: bool, listed: &[&str], origin: &str, expected: bool| {
            let origins = Origins { localhost, listed: listed.iter().map(|&text| text.to_owned()).collect() };
            assert_eq!(origins.allow(origin), expected, "{origin}");
        };
        check(true, &[], "http://localhost:5173", true);
        check(true, &[], "http://127.0.0.1", true);
        check(true, &[], "https://[::1]:8443", true);
        check(true, &[], "http://localhost.evil.example", false);
        check(true, &[], "http://evil.example:localhost", false);
        check(true, &[], "http://localhost:80@evil.example", false);
        check(true, &[], "null", false);
        check(false, &[], "http://localhost:5173", false);
        check(false, &["https://app.example"], "https://app.example", true);
        check(false, &["https://app.example"], "https://app.example:444", false);
        check(false, &["*"], "https://any.example", true);
    }
}
