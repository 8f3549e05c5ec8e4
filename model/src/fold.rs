//! The fold: an entity's state is its events in the order (`occurred_at`, `id`) over its baseline.
//!
//! 1. On an absent state every rule but create is without effect.
//! 2. Create on an existing state merges the given fields. After a delete only a later create revives.
//! 3. Captured events fold by create, set and delete, whatever rule bears the same name. `erased`, the tombstone of
//!    `headwater.erase`, deletes.
//! 4. A fill, the captured `updated` with a UUIDv8 that records a table's defaults, sets only what the state lacks.
//! 5. An event whose rule is gone, or that does not fit the state any more, is passed over: a fold never fails.
//! 6. An event that stands there twice counts once.
//!
//! `model/vectors/` shows each of these; every fold of Headwater runs the same files.

use serde_json::{Map, Value};

use crate::event::StoredEvent;
use crate::json;
use crate::rules::{Elements, Rule, Rules};

/// The fields of an entity that exists.
pub type State = Map<String, Value>;

/// Calls the application's own merge function: its name, the state before, the event. `None` ends the entity.
pub type Custom<'a> = &'a mut dyn FnMut(&str, &State, &StoredEvent) -> Option<State>;

/// The state that `events` make of `baseline`, in whatever order they come.
pub fn fold(baseline: Option<State>, events: &mut [StoredEvent], rules: &Rules, custom: Custom<'_>) -> Option<State> {
    in_order(events).fold(baseline, |state, event| apply(state, event, rules, custom))
}

/// The events in the order in which they count, each once.
pub fn in_order(events: &mut [StoredEvent]) -> impl Iterator<Item = &StoredEvent> {
    events.sort_by_key(StoredEvent::order);
    let mut last = None;
    events.iter().filter(move |event| last.replace(event.order()) != Some(event.order()))
}

/// The state after one more event, the newest.
pub fn apply(state: Option<State>, event: &StoredEvent, rules: &Rules, custom: Custom<'_>) -> Option<State> {
    let Some(rule) = rule_of(event, rules) else { return state };
    let Some(mut fields) = state else {
        return (*rule == Rule::Create).then(|| event.payload.clone());
    };
    if event.fills() {
        event.payload.iter().for_each(|(name, value)| {
            fields.entry(name.clone()).or_insert_with(|| value.clone());
        });
        return Some(fields);
    }
    match rule {
        Rule::Create | Rule::Set { fields: None } => merge(&mut fields, &event.payload, |_| true),
        Rule::Set { fields: Some(listed) } => {
            merge(&mut fields, &event.payload, |name| listed.iter().any(|field| field == name));
        }
        Rule::Unset { fields: listed } => fields.extend(listed.iter().map(|name| (name.clone(), Value::Null))),
        Rule::Append { field, value } => append(&mut fields, field, event.payload.get(value)),
        Rule::Remove { field, elements } => remove(&mut fields, field, elements, &event.payload),
        Rule::Increment { field, by } => increment(&mut fields, field, event.payload.get(by)),
        Rule::Delete => return None,
        Rule::Ignore => {}
        Rule::Custom { function } => return custom(function, &fields, event),
    }
    Some(fields)
}

/// The fields in which `after` differs from `before`, with their values after. Those that are gone become null; one that
/// was null anyway makes no difference.
pub fn difference(before: &State, after: &State) -> State {
    let changed = after.iter().filter(|(name, value)| !before.get(*name).is_some_and(|old| json::equal(old, value)));
    let gone =
        before.iter().filter(|(name, value)| !value.is_null() && !after.contains_key(*name)).map(|(name, _)| name);
    changed
        .map(|(name, value)| (name.clone(), value.clone()))
        .chain(gone.map(|name| (name.clone(), Value::Null)))
        .collect()
}

/// The rule by which an event folds; captured ones have rules of their own.
pub fn rule_of<'a>(event: &StoredEvent, rules: &'a Rules) -> Option<&'a Rule> {
    if !event.captured {
        return rules.get(&event.name);
    }
    match event.name.as_str() {
        "created" => Some(&Rule::Create),
        "updated" => Some(&Rule::Set { fields: None }),
        "deleted" | "erased" => Some(&Rule::Delete),
        _ => None,
    }
}

fn merge(fields: &mut State, payload: &Map<String, Value>, listed: impl Fn(&str) -> bool) {
    fields.extend(payload.iter().filter(|(name, _)| listed(name)).map(|(name, value)| (name.clone(), value.clone())));
}

fn append(fields: &mut State, field: &str, element: Option<&Value>) {
    let Some(element) = element else { return };
    match fields.get_mut(field) {
        Some(Value::Array(elements)) => elements.push(element.clone()),
        None | Some(Value::Null) => {
            fields.insert(field.to_owned(), Value::Array(vec![element.clone()]));
        }
        Some(_) => {}
    }
}

fn remove(fields: &mut State, field: &str, which: &Elements, payload: &Map<String, Value>) {
    let Some(Value::Array(elements)) = fields.get_mut(field) else { return };
    let given = |key: &str, value: Option<&Value>| matches!((payload.get(key), value), (Some(wanted), Some(value)) if json::equal(wanted, value));
    elements.retain(|element| match which {
        Elements::Where(pairs) => !pairs.iter().all(|(member, key)| given(key, element.get(member))),
        Elements::Equal(key) => !given(key, Some(element)),
    });
}

fn increment(fields: &mut State, field: &str, by: Option<&Value>) {
    let before = fields.get(field).unwrap_or(&Value::Null);
    if let Some(sum) = by.and_then(|by| json::add(before, by)) {
        fields.insert(field.to_owned(), sum);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Micros;
    use proptest::prelude::*;
    use proptest::sample::select;
    use serde_json::json;
    use uuid::Uuid;

    fn rules() -> Rules {
        Rules::parse(&json!({
            "created": {"rule": "create"}, "deleted": {"rule": "delete"}, "renamed": {"rule": "set", "fields": ["name"]},
            "updated": {"rule": "ignore"}, "cleared": {"rule": "unset", "fields": ["name"]},
            "item_added": {"rule": "append", "field": "items", "value": "item"},
            "item_removed": {"rule": "remove", "field": "items", "where": {"id": "item_id"}},
            "tag_removed": {"rule": "remove", "field": "tags", "value": "tag"},
            "tipped": {"rule": "increment", "field": "tip", "by": "amount"},
            "swapped": {"rule": "custom", "function": "app.swap"}
        }))
        .expect("rules")
    }

    fn event(at: i64, name: &str, payload: Value, captured: bool) -> StoredEvent {
        let Value::Object(payload) = payload else { panic!("a payload is an object") };
        StoredEvent {
            occurred_at: Micros(at),
            id: Uuid::from_u128(at.unsigned_abs().into()),
            name: name.to_owned(),
            captured,
            payload,
        }
    }

    fn folded(baseline: Option<Value>, events: &mut [StoredEvent]) -> Option<Value> {
        let baseline = baseline.map(|state| state.as_object().expect("an object").clone());
        let mut swap = |_: &str, state: &State, _: &StoredEvent| {
            Some(state.iter().map(|(name, value)| (value.to_string(), json!(name))).collect())
        };
        fold(baseline, events, &rules(), &mut swap).map(Value::Object)
    }

    #[test]
    fn each_rule_does_what_it_says() {
        let check = |before: Option<Value>, name: &str, payload: Value, after: Option<Value>| {
            let mut events = [event(1, name, payload, false)];
            assert_eq!(folded(before.clone(), &mut events), after, "{name} on {before:?}");
        };
        let some = |value: Value| Some(value);
        check(None, "created", json!({"name": "a"}), some(json!({"name": "a"})));
        check(some(json!({"name": "a", "x": 1})), "created", json!({"name": "b"}), some(json!({"name": "b", "x": 1})));
        check(some(json!({"name": "a"})), "renamed", json!({"name": "b", "why": "typo"}), some(json!({"name": "b"})));
        check(some(json!({"name": "a"})), "cleared", json!({}), some(json!({"name": null})));
        check(some(json!({})), "item_added", json!({"item": 1}), some(json!({"items": [1]})));
        check(some(json!({"items": null})), "item_added", json!({"item": null}), some(json!({"items": [null]})));
        check(some(json!({"items": "?"})), "item_added", json!({"item": 1}), some(json!({"items": "?"})));
        let items = json!([{"id": 1}, {"id": "1"}, {"id": 2}, 1, {"id": 1.0, "n": 2}]);
        check(
            some(json!({"items": items})),
            "item_removed",
            json!({"item_id": 1}),
            some(json!({"items": [{"id": "1"}, {"id": 2}, 1]})),
        );
        check(some(json!({"tags": ["a", "b", "a"]})), "tag_removed", json!({"tag": "a"}), some(json!({"tags": ["b"]})));
        check(some(json!({"tip": "0.10"})), "tipped", json!({"amount": "0.20"}), some(json!({"tip": "0.30"})));
        check(some(json!({})), "tipped", json!({"amount": 2}), some(json!({"tip": 2})));
        check(some(json!({"tip": true})), "tipped", json!({"amount": 2}), some(json!({"tip": true})));
        check(some(json!({"a": "b"})), "swapped", json!({}), some(json!({"\"b\"": "a"})));
        check(some(json!({"a": "b"})), "deleted", json!({}), None);
        check(some(json!({"a": "b"})), "of_a_rule_that_is_gone", json!({"a": 1}), some(json!({"a": "b"})));
    }

    #[test]
    fn on_an_absent_state_only_create_has_an_effect() {
        for (name, _) in rules().iter().filter(|(_, rule)| **rule != Rule::Create) {
            assert_eq!(
                folded(None, &mut [event(1, name, json!({"name": "a", "item": 1, "amount": 1}), false)]),
                None,
                "{name}"
            );
        }
    }

    #[test]
    fn captured_events_fold_by_create_set_and_delete_whatever_the_rules_say() {
        let mut events = [event(1, "created", json!({"a": 1}), true), event(2, "updated", json!({"a": 2}), true)];
        assert_eq!(folded(None, &mut events), Some(json!({"a": 2})));
        let mut events = [event(1, "created", json!({"a": 1}), true), event(2, "deleted", json!({}), true)];
        assert_eq!(folded(None, &mut events), None);
    }

    #[test]
    fn a_fill_yields_to_every_event_of_the_same_life() {
        let fill = |at, payload| {
            let mut fill = event(at, "updated", payload, true);
            fill.id = crate::event::id_of_fill(fill.id, 0).expect("an id");
            fill
        };
        let mut events = [
            event(1, "created", json!({"a": 1}), false),
            event(2, "renamed", json!({"name": "b"}), false),
            fill(3, json!({"a": 0, "name": "default", "c": 0, "d": null})),
            event(4, "cleared", json!({}), false),
            fill(5, json!({"name": "default", "d": 0})),
        ];
        assert_eq!(folded(None, &mut events), Some(json!({"a": 1, "name": null, "c": 0, "d": null})));
        assert_eq!(folded(None, &mut [fill(1, json!({"a": 1}))]), None);
    }

    #[test]
    fn a_delete_is_final_until_a_later_create() {
        let mut events = [
            event(1, "created", json!({"name": "a"}), false),
            event(2, "deleted", json!({}), false),
            event(3, "renamed", json!({"name": "b"}), false),
            event(4, "created", json!({"x": 1}), false),
        ];
        assert_eq!(folded(None, &mut events), Some(json!({"x": 1})));
    }

    #[test]
    fn the_difference_makes_one_state_of_the_other() {
        let state = |value: Value| value.as_object().expect("an object").clone();
        let before = state(json!({"a": 1, "b": 2, "c": 3, "e": null}));
        let after = state(json!({"a": 1.0, "b": 3, "d": null}));
        assert_eq!(Value::Object(difference(&before, &after)), json!({"b": 3, "c": null, "d": null}));
    }

    fn any_event() -> impl Strategy<Value = StoredEvent> {
        let name =
            select(vec!["created", "deleted", "renamed", "cleared", "item_added", "item_removed", "tipped", "updated"]);
        (0..40i64, name, 0..4, any::<bool>()).prop_map(|(at, name, n, captured)| {
            event(at, name, json!({"name": n, "item": {"id": n}, "item_id": n, "amount": n}), captured)
        })
    }

    proptest! {
        #[test]
        fn the_order_of_arrival_does_not_matter(events in prop::collection::vec(any_event(), 0..20), seed in any::<u64>()) {
            // Instants are unique here; ties are broken by id, which `order` covers.
            let mut unique = events;
            unique.sort_by_key(StoredEvent::order);
            unique.dedup_by_key(|event| event.order());
            let mut shuffled = unique.clone();
            let len = shuffled.len().max(1);
            for i in 0..shuffled.len() {
                let j = usize::try_from(seed.rotate_left(u32::try_from(i).expect("few events")) % len as u64).expect("small");
                shuffled.swap(i, j);
            }
            prop_assert_eq!(folded(None, &mut unique), folded(None, &mut shuffled));
        }

        #[test]
        fn folding_in_steps_equals_folding_at_once(events in prop::collection::vec(any_event(), 0..20), cut in 0..20usize) {
            let mut sorted = events;
            sorted.sort_by_key(StoredEvent::order);
            sorted.dedup_by_key(|event| event.order());
            let cut = cut.min(sorted.len());
            let (head, tail) = sorted.split_at(cut);
            let baseline = folded(None, &mut head.to_vec());
            prop_assert_eq!(folded(baseline, &mut tail.to_vec()), folded(None, &mut sorted.clone()));
        }
    }
}
