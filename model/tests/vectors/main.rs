//! Promise: the rules of this crate give what `model/vectors/` says, in whatever order and however often events stand there.

mod generate;

use std::path::PathBuf;
use std::str::FromStr;

use headwater_model::clock::{Micros, Stamper};
use headwater_model::event::{StoredEvent, name_of};
use headwater_model::fold::{self, State};
use headwater_model::rules::Rules;
use headwater_model::upcast::Upcast;
use headwater_model::{json, key};
use serde_json::{Value, json};
use uuid::Uuid;

fn path(file: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("vectors").join(file)
}

fn read(file: &str) -> Value {
    let text = std::fs::read_to_string(path(file)).expect(file);
    serde_json::from_str(&text).expect(file)
}

fn cases(file: &Value) -> &[Value] {
    file["cases"].as_array().expect("cases")
}

fn text(value: &Value) -> &str {
    value.as_str().expect("a text")
}

fn object(value: &Value) -> State {
    value.as_object().expect("an object").clone()
}

/// The custom rules that the vectors name.
fn custom(function: &str, state: &State, event: &StoredEvent) -> Option<State> {
    let mut state = state.clone();
    match function {
        "vectors.replace" => return Some(event.payload.clone()),
        "vectors.note" => {
            if let Some(note) = event.payload.get("note") {
                let notes = state.entry("notes").or_insert_with(|| json!([]));
                notes.as_array_mut().expect("notes are an array").push(note.clone());
            }
        }
        "vectors.close" => return (event.payload.get("really") != Some(&json!(true))).then_some(state),
        other => panic!("the vectors do not name {other}"),
    }
    Some(state)
}

fn stored(event: &Value) -> Option<StoredEvent> {
    event.get("applies").is_none_or(|applies| applies == true).then(|| StoredEvent {
        occurred_at: Micros::parse(text(&event["timestamp"])).expect("an instant"),
        id: Uuid::from_str(text(&event["id"])).expect("an id"),
        name: name_of(text(&event["event_type"]), "order").expect("an event of the order").to_owned(),
        captured: event["source"] == "capture",
        payload: object(&event["payload"]),
    })
}

/// The state that a case's events make.
fn state_of(rules: &Rules, baseline: Option<&Value>, events: &[Value]) -> Value {
    let mut events: Vec<_> = events.iter().filter_map(stored).collect();
    fold::fold(baseline.map(object), &mut events, rules, &mut custom).map_or(Value::Null, Value::Object)
}

fn check_folds(file: &str) -> usize {
    let file = read(file);
    for case in cases(&file) {
        let rules = Rules::parse(case.get("rules").unwrap_or(&file["rules"])).expect("rules");
        let events = case["events"].as_array().expect("events");
        let check = |events: &[Value], how: &str| {
            let state = state_of(&rules, case.get("baseline"), events);
            assert!(
                json::equal(&state, &case["state"]),
                "{}, {how}: {state} instead of {}",
                case["name"],
                case["state"]
            );
        };
        check(events, "as it stands");
        check(&events.iter().rev().cloned().collect::<Vec<_>>(), "reversed");
        check(&[&events[..], events].concat(), "twice");
    }
    cases(&file).len()
}

#[test]
fn folds() {
    assert!(check_folds("fold.json") >= 150);
}

#[test]
fn generated_folds() {
    let wanted = generate::file(&state_of);
    if std::env::var_os("HEADWATER_WRITE_VECTORS").is_some() {
        std::fs::write(path("fold-generated.json"), &wanted).expect("vectors can be written");
    }
    let found = std::fs::read_to_string(path("fold-generated.json")).expect("generated vectors");
    assert!(
        found == wanted,
        "fold-generated.json is not what the generator gives; HEADWATER_WRITE_VECTORS=1 writes it"
    );
    assert_eq!(check_folds("fold-generated.json"), generate::CASES);
}

#[test]
fn keys() {
    let file = read("key.json");
    for case in cases(&file) {
        let columns = usize::try_from(case["columns"].as_u64().expect("a number")).expect("small");
        let parts = case["parts"].as_array().map(|parts| parts.iter().map(text).collect::<Vec<_>>());
        let split = key::split(text(&case["id"]), columns);
        assert_eq!(split.as_ref().map(|parts| parts.iter().map(String::as_str).collect()), parts, "{case}");
        if let Some(parts) = parts {
            assert_eq!(key::join(&parts), text(&case["id"]), "{case}");
        }
    }
}

#[test]
fn instants() {
    for case in cases(&read("instant.json")) {
        let instant = Micros::parse(text(&case["text"]));
        assert_eq!(instant.map(|at| at.0), case["micros"].as_i64(), "{case}");
        assert_eq!(instant.map(|at| at.to_string()), case["canonical"].as_str().map(str::to_owned), "{case}");
    }
}

#[test]
fn stamps() {
    for case in cases(&read("stamp.json")) {
        let mut stamper = Stamper::new(Micros(case["now"].as_i64().expect("micros")));
        let sent = case["sent"].as_array().expect("sent");
        let stamp = |sent: &Value| match stamper.stamp(Micros(sent.as_i64().expect("micros"))) {
            Ok(at) => json!(at.0),
            Err(_) => json!({"code": "clock_skew"}),
        };
        assert_eq!(Value::Array(sent.iter().map(stamp).collect()), case["stamped"], "{case}");
    }
}

#[test]
fn decimals() {
    for case in cases(&read("decimal.json")) {
        let sum = json::add(&case["value"], &case["by"]).unwrap_or(Value::Null);
        assert!(sum.is_string() == case["sum"].is_string() && json::equal(&sum, &case["sum"]), "{case}: {sum}");
    }
}

#[test]
fn equality() {
    for case in cases(&read("equal.json")) {
        assert_eq!(Value::Bool(json::equal(&case["a"], &case["b"])), case["equal"], "{case}");
        assert_eq!(Value::Bool(json::equal(&case["b"], &case["a"])), case["equal"], "{case}");
    }
}

#[test]
fn upcasts() {
    let mut stamp = |function: &str, mut members: State| {
        assert_eq!(function, "vectors.stamp");
        members.insert("stamped".to_owned(), json!(true));
        members
    };
    for case in cases(&read("upcast.json")) {
        let upcast = Upcast::parse(&case["upcast"]).unwrap_or_else(|error| panic!("{case}: {error}"));
        assert_eq!(Upcast::parse(&upcast.to_json()).as_ref(), Ok(&upcast), "{case}");
        let whole = case.get("whole") != Some(&json!(false));
        let lifted = Value::Object(upcast.apply(object(&case["members"]), whole, &mut stamp));
        assert!(json::equal(&lifted, &case["lifted"]), "{case}: {lifted}");
    }
}
