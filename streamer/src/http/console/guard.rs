//! Lets operators in, and nobody who guesses.

use crate::console::{Console, TooMany};
use crate::http::App;
use crate::http::access::bearer;
use crate::http::connection::Peer;
use crate::http::problem::Problem;
use crate::identity::Refusal;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Instant;

/// The console, for an operator. Whoever takes this as an argument is called by nobody else.
pub(super) struct Operator(pub(super) Arc<Console>);

impl FromRequestParts<App> for Operator {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Response> {
        let console = app.console.clone().ok_or_else(|| Problem::not_found_here(OFF).into_response())?;
        let presented = bearer(&parts.headers).and_then(|bearer| bearer.ok_or(Refusal::Missing)).map_err(refused)?;
        let from = parts.extensions.get::<Peer>().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| peer.0);
        console.attempts.begin(from, Instant::now()).map_err(too_many)?;
        let judged = console.operators.admit(&app.guard, Some(presented)).await;
        // What is wrong counts; a good token that has expired, or lacks the claim, is no guess.
        if !matches!(judged, Err(Refusal::Invalid(_))) {
            console.attempts.forgive(from);
        }
        match judged {
            Ok(true) => Ok(Self(console)),
            Ok(false) => Err(Problem::forbidden(NO_CLAIM).into_response()),
            Err(refusal) => Err(refused(refusal)),
        }
    }
}

/// What is said where nobody can be an operator.
pub(super) const OFF: &str = "the console is off: start `headwater serve` with --admin-secret (HEADWATER_ADMIN_SECRET), or, where tokens are \
     used, with --admin-claim (HEADWATER_ADMIN_CLAIM), and come back";

const NO_CLAIM: &str = "this token is good, and not an operator's: it lacks the claim that --admin-claim names";

fn refused(refusal: Refusal) -> Response {
    Problem::from(refusal).into_response()
}

fn too_many(TooMany(wait): TooMany) -> Response {
    let seconds = wait.as_secs() + 1;
    let detail = format!("too many wrong secrets came from this address: try again in {seconds} s");
    let mut response = Problem::new(StatusCode::TOO_MANY_REQUESTS, "too_many_attempts", detail).into_response();
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    response
}
