//! How far an event reaches: the fields that it writes, and the later events that build on them.
//!
//! A table has a say in what a row becomes: it fills in defaults, it spells values its own way (`1.5` as `1.50`), its
//! triggers change them. Events that set a field do not care what stood there before; those that append, remove, add or
//! run a custom rule do. Between a write and an event that builds on it, the table must have had its say.

use std::collections::BTreeSet;

use crate::event::StoredEvent;
use crate::fold::rule_of;
use crate::json::decimal;
use crate::rules::{Rule, Rules};

/// Whether `event` writes `field`.
pub fn writes(event: &StoredEvent, field: &str, rules: &Rules) -> bool {
    match rule_of(event, rules) {
        Some(Rule::Create | Rule::Set { fields: None }) => event.payload.contains_key(field),
        Some(Rule::Set { fields: Some(listed) }) => {
            event.payload.contains_key(field) && listed.iter().any(|name| name == field)
        }
        Some(Rule::Unset { fields }) => fields.iter().any(|name| name == field),
        Some(Rule::Append { field: array, .. } | Rule::Remove { field: array, .. }) => array == field,
        Some(Rule::Increment { field: number, .. }) => number == field,
        Some(Rule::Custom { .. }) => true,
        Some(Rule::Delete | Rule::Ignore) | None => false,
    }
}

/// The columns of a table that matter here.
#[derive(Clone, Copy, Debug)]
pub struct Columns<'a> {
    /// Those that events may set: what the one that begins the entity does not set, the table may fill in.
    pub settable: &'a [String],
    /// Those of them whose values the table may spell its own way.
    pub spelt: &'a [String],
}

/// Whether later events build on what the table makes of the row right behind `events[at]`, which is `new` to the table,
/// or `begins` the entity's life, or both.
///
/// `events` are in order and of one life from `at` on.
pub fn is_built_on(
    events: &[StoredEvent],
    at: usize,
    new: bool,
    begins: bool,
    columns: Columns<'_>,
    rules: &Rules,
) -> bool {
    let Some((event, later)) = events[at..].split_first().filter(|(_, later)| !later.is_empty()) else { return false };
    let those = |columns: &'_ [String], written: bool| -> BTreeSet<String> {
        columns.iter().filter(|column| writes(event, column, rules) == written).cloned().collect()
    };
    // Whole amounts are written as they are, whatever the column's scale.
    let spelt = match rule_of(event, rules) {
        Some(Rule::Increment { by, .. }) => {
            !event.payload.get(by).and_then(decimal).is_some_and(|amount| amount.is_integer())
        }
        Some(Rule::Unset { .. } | Rule::Remove { .. }) => false,
        _ => true,
    };
    let mut set = if new && spelt { those(columns.spelt, true) } else { BTreeSet::new() };
    let mut lacking = if begins { those(columns.settable, false) } else { BTreeSet::new() };
    for later in later {
        if set.is_empty() && lacking.is_empty() {
            return false;
        }
        match rule_of(later, rules) {
            Some(Rule::Append { field, .. } | Rule::Remove { field, .. } | Rule::Increment { field, .. })
                if set.contains(field) || lacking.contains(field) =>
            {
                return true;
            }
            Some(Rule::Custom { .. }) => return true,
            Some(Rule::Delete) => return false,
            _ => {}
        }
        if !later.fills() {
            set.retain(|field| !writes(later, field, rules));
        }
        lacking.retain(|field| !writes(later, field, rules));
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Micros;
    use crate::event::id_of_fill;
    use serde_json::{Value, json};
    use uuid::Uuid;

    fn rules() -> Rules {
        Rules::parse(&json!({
            "created": {"rule": "create"}, "named": {"rule": "set", "fields": ["name"]}, "changed": {"rule": "set"},
            "cleared": {"rule": "unset", "fields": ["tip"]}, "added": {"rule": "append", "field": "items", "value": "item"},
            "tipped": {"rule": "increment", "field": "tip", "by": "amount"}, "printed": {"rule": "ignore"},
            "merged": {"rule": "custom", "function": "app.merge"}, "deleted": {"rule": "delete"}
        }))
        .expect("rules")
    }

    fn history(events: &[(&str, Value)]) -> Vec<StoredEvent> {
        let event = |(i, (name, payload)): (usize, &(&str, Value))| {
            let id = Uuid::from_u128((i as u128 + 1) << 80);
            let fill = *name == "fill";
            StoredEvent {
                occurred_at: Micros(1),
                id: if fill { id_of_fill(id, 0).expect("an id") } else { id },
                name: if fill { "updated" } else { name }.to_owned(),
                captured: fill,
                payload: payload.as_object().expect("an object").clone(),
            }
        };
        events.iter().enumerate().map(event).collect()
    }

    #[test]
    fn the_table_has_its_say_before_an_event_builds_on_it() {
        let settable = ["name", "tip", "items"].map(str::to_owned);
        let columns = Columns { settable: &settable, spelt: &settable[..2] };
        let check = |events: &[(&str, Value)], as_new: bool, as_begin: bool| {
            let events = history(events);
            assert_eq!(is_built_on(&events, 0, true, false, columns, &rules()), as_new, "new: {events:?}");
            assert_eq!(is_built_on(&events, 0, false, true, columns, &rules()), as_begin, "begins: {events:?}");
        };
        let created = || ("created", json!({"tip": "1"}));
        let tipped = || ("tipped", json!({"amount": 1}));
        check(&[created()], false, false);
        check(&[created(), tipped()], true, false);
        check(&[created(), ("added", json!({"item": 1}))], false, true);
        check(&[created(), ("merged", json!({}))], true, true);
        check(&[created(), ("printed", json!({})), ("named", json!({"name": "a"}))], false, false);
        check(
            &[created(), ("changed", json!({"tip": "2", "items": []})), tipped(), ("added", json!({"item": 1}))],
            false,
            false,
        );
        check(&[created(), ("named", json!({"tip": "2"})), tipped()], true, false);
        check(&[created(), ("cleared", json!({})), tipped()], false, false);
        check(&[created(), ("fill", json!({"tip": "5", "items": []})), ("added", json!({"item": 1}))], false, false);
        check(&[created(), ("fill", json!({"tip": "5", "items": []})), tipped()], true, false);
        check(&[created(), ("deleted", json!({})), tipped()], false, false);
        let added = || ("added", json!({"item": 1}));
        check(&[added(), added()], false, false);
        check(&[("changed", json!({"items": [], "name": "a", "tip": "1"})), added()], false, false);
        check(&[tipped(), tipped()], false, false);
        check(&[("tipped", json!({"amount": 0.5})), tipped()], true, false);
    }
}
