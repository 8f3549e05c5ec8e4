//! `GET /openapi.json`: the API and the entities, as the extension describes them.

use super::App;
use super::problem::Problem;
use crate::error::Error;
use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;

pub(super) async fn get(State(app): State<App>) -> Result<impl IntoResponse, Problem> {
    let client = app.database.get().await?;
    let row = client.query_one("select headwater.openapi()::text", &[]).await.map_err(Error::from)?;
    let document: String = row.try_get(0).map_err(Error::from)?;
    Ok(([(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-cache")], document))
}
