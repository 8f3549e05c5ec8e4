//! Folds histories: reads one JSON object a line from standard input, writes the state of each, one JSON value a line.
//!
//! `{"rules": …, "baseline": null | {…}, "events": [{"id", "timestamp" (integer µs), "name", "source", "applies"?, "payload"}…]}`
//!
//! The tests of the TypeScript client run it beside their own fold. Its custom functions are `app.keep` (keeps the event's
//! payload under `kept`) and `app.end` (ends the entity).

use std::io::{BufRead, Write};

use headwater_model::clock::Micros;
use headwater_model::event::StoredEvent;
use headwater_model::fold::{State, fold};
use headwater_model::rules::Rules;
use serde_json::{Map, Value};
use uuid::Uuid;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    for line in std::io::stdin().lock().lines() {
        let history: Value = serde_json::from_str(&line?)?;
        let rules = Rules::parse(&history["rules"])?;
        let baseline = history["baseline"].as_object().cloned();
        let applying = |event: &&Value| event["applies"] != false;
        let events = history["events"].as_array().ok_or("events is no array")?;
        let mut events = events.iter().filter(applying).map(stored).collect::<Result<Vec<_>, _>>()?;
        let state = fold(baseline, &mut events, &rules, &mut custom).map_or(Value::Null, Value::Object);
        writeln!(out, "{state}")?;
    }
    Ok(out.flush()?)
}

fn stored(event: &Value) -> Result<StoredEvent, Box<dyn std::error::Error>> {
    Ok(StoredEvent {
        occurred_at: Micros(event["timestamp"].as_i64().ok_or("timestamp is no integer")?),
        id: Uuid::try_parse(event["id"].as_str().ok_or("id is no text")?)?,
        name: event["name"].as_str().ok_or("name is no text")?.to_owned(),
        captured: event["source"] == "capture",
        payload: event["payload"].as_object().ok_or("payload is no object")?.clone(),
    })
}

fn custom(function: &str, state: &State, event: &StoredEvent) -> Option<State> {
    let mut state: Map<String, Value> = state.clone();
    match function {
        "app.keep" => state.insert("kept".to_owned(), Value::Object(event.payload.clone())),
        _ => return None,
    };
    Some(state)
}
