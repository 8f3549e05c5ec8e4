//! `/console`: a page for operators, and what it asks under `/console/api/`. Nobody else is answered, and nothing is written unless
//! `--console-writes` says so.

mod assets;
mod guard;
mod letters;
mod overview;
mod read;

use super::App;
use super::problem::Problem;
use crate::error::Error;
use axum::Router;
use axum::http::{HeaderName, StatusCode, header};
use axum::routing::{get, post};
use serde::Serialize;
use serde_json::value::to_raw_value;

/// The page, its files, and its endpoints.
pub(super) fn routes() -> Router<App> {
    let api = Router::new()
        .route("/sign-in", post(overview::sign_in))
        .route("/overview", get(overview::get))
        .route("/entities", get(read::entities))
        .route("/entities/{entity_type}/{entity_id}/history", get(read::timeline))
        .route("/entities/{entity_type}/{entity_id}/state", get(read::state))
        .route("/events", get(read::newest))
        .route("/tail", get(read::tail))
        .route("/problems", get(read::problems))
        .route("/dead-letters", get(letters::list))
        .route("/dead-letters/{id}/retry", post(letters::retry))
        .route("/dead-letters/{id}/discard", post(letters::discard))
        .fallback(async |_: guard::Operator| Problem::not_found());
    Router::new().merge(assets::routes()).nest("/console/api", api)
}

const HEADERS: [(HeaderName, &str); 2] =
    [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")];

type Answer = ([(HeaderName, &'static str); 2], String);

/// An answer. What it is made of holds no maps with keys that are not text, so that it always has a form.
fn json(body: &impl Serialize) -> Result<Answer, Problem> {
    let body = to_raw_value(body).map_err(|error| Problem::from(Error::Protocol(error.to_string())))?;
    Ok((HEADERS, String::from(Box::<str>::from(body))))
}

/// Why a question has no answer, for somebody who can mend the set-up.
fn failed(error: Error) -> Problem {
    let state = error.state().unwrap_or_default().to_owned();
    match state.as_str() {
        "57014" => Problem::new(
            StatusCode::GATEWAY_TIMEOUT,
            "too_slow",
            "Postgres was stopped after 5 s: ask for less, as for one entity by its id",
        ),
        "42704" => Problem::new(StatusCode::NOT_FOUND, "unknown_entity", "no enabled table is this entity"),
        "42501" => {
            tracing::warn!(%error, "the console may not read");
            Problem::new(
                StatusCode::FORBIDDEN,
                "not_granted",
                "the streamer's role may not do this: it has to be a member of headwater_writer, or of headwater_reader and headwater_admin \
                 (`headwater doctor` has the statement)",
            )
        }
        "42883" | "42P01" | "3F000" => {
            tracing::warn!(%error, "the console finds no extension that it knows");
            Problem::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "unavailable",
                "the extension is missing or older than this streamer: create extension headwater; or alter extension headwater update;",
            )
        }
        state if state.starts_with("22") => {
            Problem::bad_request("invalid_parameter", "Postgres cannot read one of the values")
        }
        _ => error.into(),
    }
}
