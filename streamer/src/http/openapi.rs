//! `GET /openapi.json`: the API and the entities, as the extension describes them.

use super::App;
use super::problem::Problem;
use crate::error::Error;
use crate::notify::Kind;
use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use serde_json::Value;

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

pub(super) async fn get(State(app): State<App>) -> Result<impl IntoResponse, Problem> {
    let client = app.database.get().await?;
    let row = client.query_one("select headwater.openapi()::text", &[]).await.map_err(Error::from)?;
    let document: String = row.try_get(0).map_err(Error::from)?;
    let document = with_default(document, app.notification);
    Ok(([(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-cache")], document))
}
