//! Dead letters: seen by operators, decided about only where `--console-writes` allows it.

use super::guard::Operator;
use super::read::{name, uuid};
use super::{failed, json};
use crate::console::{Console, Decision, Letters};
use crate::http::problem::Problem;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use serde::Deserialize;
use serde_json::json;

/// Dead letters in one answer.
const MAX_LETTERS: i64 = 200;

type Letter = Result<Path<String>, PathRejection>;
type Whose = Result<Query<Owner>, QueryRejection>;

#[derive(Debug, Deserialize)]
pub(super) struct Owner {
    tenant_id: Option<String>,
}

pub(super) async fn list(Operator(console): Operator) -> Result<impl IntoResponse, Problem> {
    let body = match console.letters(MAX_LETTERS).await.map_err(failed)? {
        Letters::Found(letters, count) => json!({ "letters": letters, "count": count, "writes": console.writes }),
        Letters::NotGranted(statement) => json!({ "letters": null, "statement": statement, "writes": console.writes }),
    };
    json(&body)
}

pub(super) async fn retry(
    Operator(console): Operator,
    letter: Letter,
    whose: Whose,
) -> Result<impl IntoResponse, Problem> {
    decide(&console, Decision::Retry, letter, whose).await
}

pub(super) async fn discard(
    Operator(console): Operator,
    letter: Letter,
    whose: Whose,
) -> Result<impl IntoResponse, Problem> {
    decide(&console, Decision::Discard, letter, whose).await
}

async fn decide(
    console: &Console,
    decision: Decision,
    letter: Letter,
    whose: Whose,
) -> Result<impl IntoResponse + use<>, Problem> {
    if !console.writes {
        let detail = "the console only reads: start `headwater serve` with --console-writes (HEADWATER_CONSOLE_WRITES=true) to decide here, \
             or call headwater.retry_rejected and headwater.discard_rejected";
        return Err(Problem::new(StatusCode::FORBIDDEN, "read_only", detail));
    }
    let Path(id) = letter.map_err(|error| Problem::bad_request("invalid_parameter", error.body_text()))?;
    let Query(owner) = whose.map_err(|error| Problem::bad_request("invalid_parameter", error.body_text()))?;
    let (id, tenant) = (uuid("id", id)?, name(owner.tenant_id)?);
    match console.decide(decision, &id, tenant.as_deref()).await {
        Ok(Ok(outcome)) => {
            tracing::info!(%id, ?decision, "an operator decided about a dead letter");
            json(&json!({ "id": id, "outcome": outcome }))
        }
        Ok(Err(statement)) => {
            let detail = format!("the streamer's role may not decide about dead letters; as a superuser: {statement}");
            Err(Problem::new(StatusCode::FORBIDDEN, "not_granted", detail))
        }
        Err(error) if error.state() == Some("P0002") => {
            Err(Problem::not_found_here("this dead letter is gone: somebody else has decided, or its client has"))
        }
        Err(error) => Err(failed(error)),
    }
}
