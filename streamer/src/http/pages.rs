//! The files of a folder under `/app/`: a built front end beside the API, so that a demo needs no other server.
//!
//! What is served is what stands there at the time; the folder may be filled later. Pages may load nothing from elsewhere.

use super::problem::Problem;
use axum::Router;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::map_response;
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use std::path::Path;
use tower_http::services::ServeDir;

/// Where the folder appears.
const PREFIX: &str = "/app";

/// Scripts, styles and connections of our own origin only; icons may stand in the page itself.
const CONTENT_SECURITY_POLICY: &str =
    "default-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const HEADERS: [(HeaderName, &str); 4] = [
    (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    // A new build shows at the next load; an unchanged file is answered by 304.
    (header::CACHE_CONTROL, "no-cache"),
];

/// The routes of the folder; none without one.
pub(super) fn routes<S: Clone + Send + Sync + 'static>(folder: Option<&Path>) -> Router<S> {
    let Some(folder) = folder else { return Router::new() };
    let files = Router::new().fallback_service(ServeDir::new(folder)).layer(map_response(finish));
    // Relative links of a page need the slash.
    Router::new().route(PREFIX, get(async || Redirect::permanent("/app/"))).nest(&format!("{PREFIX}/"), files)
}

async fn finish(mut response: Response) -> Response {
    if response.status() == StatusCode::NOT_FOUND {
        return Problem::not_found().into_response();
    }
    for (name, value) in HEADERS {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}
