//! Sorts out the events that Postgres could not even read, one by one; the others go on as they came. Pure.

use super::json;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json as json_value};

/// The code of everything refused here.
const CODE: &str = "invalid_payload";

/// A batch after the check.
pub(super) struct Checked {
    /// JSON array of the events that go on.
    pub(super) array: String,
    /// Their indexes in the request.
    pub(super) indexes: Vec<usize>,
    /// The others.
    pub(super) rejected: Vec<Map<String, Value>>,
}

pub(super) fn check(events: &[&RawValue]) -> Checked {
    let mut array = String::from("[");
    let (mut indexes, mut rejected) = (Vec::new(), Vec::new());
    for (index, event) in events.iter().enumerate() {
        if let Some(reason) = problem(event.get()) {
            rejected.push(reject(event.get(), index, &reason));
            continue;
        }
        if !indexes.is_empty() {
            array.push(',');
        }
        array.push_str(event.get());
        indexes.push(index);
    }
    array.push(']');
    Checked { array, indexes, rejected }
}

fn problem(event: &str) -> Option<String> {
    if !event.starts_with('{') {
        return Some("an event must be a JSON object".to_owned());
    }
    json::problem(event).map(|problem| problem.to_string())
}

fn reject(event: &str, index: usize, reason: &str) -> Map<String, Value> {
    Map::from_iter([
        ("id".to_owned(), id(event).map_or(Value::Null, Value::String)),
        ("index".to_owned(), json_value!(index)),
        ("code".to_owned(), json_value!(CODE)),
        ("reason".to_owned(), json_value!(reason)),
    ])
}

/// The event's own id, so that the sender finds it again.
fn id(event: &str) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct WithId<'a> {
        #[serde(borrow)]
        id: &'a RawValue,
    }
    let id = serde_json::from_str::<WithId<'_>>(event).ok()?;
    serde_json::from_str(id.id.get()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn bad_events_do_not_spoil_the_batch() {
        let body =
            r#"[ {"id":"a"}, 7, {"id":"b","payload":{"n":9007199254740993}}, {"id":"c","s":"\u0000"}, {"id":"d"} ]"#;
        let events: Vec<&RawValue> = serde_json::from_str(body).expect("JSON");
        let checked = check(&events);
        assert_eq!(checked.array, r#"[{"id":"a"},{"id":"d"}]"#);
        assert_eq!(checked.indexes, [0, 4]);
        let told: Vec<(&Value, &Value)> =
            checked.rejected.iter().map(|reject| (&reject["id"], &reject["index"])).collect();
        let expected = [
            (json_value!(null), json_value!(1)),
            (json_value!("b"), json_value!(2)),
            (json_value!("c"), json_value!(3)),
        ];
        assert_eq!(told, expected.iter().map(|(id, index)| (id, index)).collect::<Vec<_>>());
        assert!(checked.rejected.iter().all(|reject| reject["code"] == CODE));
    }

    /// JSON of every form, as text: much of it cannot be a `Value`.
    fn json_text() -> impl Strategy<Value = String> {
        let leaf = prop_oneof![
            Just("null".to_owned()),
            r#""([a-z]|\\u[0-9a-fD-F]{4}|\\[nrt"/\\]){0,6}""#,
            r"-?(0|[1-9][0-9]{0,25})(\.[0-9]{1,25})?([eE][-+]?[0-9]{1,3})?",
        ];
        leaf.prop_recursive(4, 30, 5, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..5).prop_map(|list| format!("[{}]", list.join(","))),
                proptest::collection::vec((r#""(id|payload|timestamp|\\u0000|\\ud800)""#, inner), 0..5).prop_map(
                    |members| {
                        let members: Vec<String> =
                            members.iter().map(|(name, value)| format!("{name}:{value}")).collect();
                        format!("{{{}}}", members.join(","))
                    }
                ),
            ]
        })
    }

    proptest! {
        #[test]
        fn every_event_goes_on_as_it_came_or_is_rejected(texts in proptest::collection::vec(json_text(), 0..6)) {
            let body = format!("[{}]", texts.join(","));
            // What is no JSON at all never gets here.
            let Ok(events) = serde_json::from_str::<Vec<&RawValue>>(&body) else { return Ok(()) };
            let checked = check(&events);
            let mut all: Vec<u64> = checked.rejected.iter().map(|reject| reject["index"].as_u64().expect("an index")).collect();
            all.extend(checked.indexes.iter().map(|index| *index as u64));
            all.sort_unstable();
            prop_assert_eq!(all, (0..events.len() as u64).collect::<Vec<_>>());
            let on: Vec<&RawValue> = serde_json::from_str(&checked.array).expect("what goes on is JSON");
            let expected: Vec<&str> = checked.indexes.iter().map(|index| events[*index].get()).collect();
            prop_assert_eq!(on.iter().map(|event| event.get()).collect::<Vec<_>>(), expected);
            for event in on {
                prop_assert!(serde_json::from_str::<Map<String, Value>>(event.get()).is_ok(), "{}", event);
            }
        }
    }
}
