//! What events that lie stored on devices rely on: their types and the form of their payloads. Kept beside the generated code
//! as `contract.json`, so that a later document can be held against it.

use crate::document::{Entity, Event};
use crate::literal::sorted;
use crate::schema::{properties, requires, types};
use headwater_model::rules::Rule;
use headwater_model::upcast::{Shape, Upcasts};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Where it stands under the output folder.
pub const FILE: &str = "contract.json";

/// The contract of one document.
#[derive(Clone, Debug)]
pub struct Contract {
    entities: BTreeMap<String, Part>,
}

/// That of one entity.
#[derive(Clone, Debug)]
struct Part {
    version: i32,
    state: Value,
    events: BTreeMap<String, Promise>,
    upcasts: Upcasts,
}

/// That of one event.
#[derive(Clone, Debug)]
struct Promise {
    version: i32,
    payload: Value,
    /// Its payload consists of columns: upcasts of the state concern it too.
    of_columns: bool,
}

impl Contract {
    /// What the entities promise.
    pub fn of(entities: &[Entity]) -> Self {
        let promise = |event: &Event| Promise {
            version: event.version,
            payload: event.payload.clone(),
            of_columns: matches!(event.rule, Rule::Create | Rule::Set { .. }),
        };
        let part = |entity: &Entity| Part {
            version: entity.upcasts.version(),
            state: entity.state.clone(),
            events: entity.events.iter().map(|(name, event)| (name.clone(), promise(event))).collect(),
            upcasts: entity.upcasts.clone(),
        };
        Self { entities: entities.iter().map(|entity| (entity.entity_type.clone(), part(entity))).collect() }
    }

    /// For the file.
    pub fn to_json(&self) -> Value {
        let events = |part: &Part| -> Map<String, Value> {
            part.events
                .iter()
                .map(|(name, event)| (name.clone(), json!({"schema_version": event.version, "payload": event.payload})))
                .collect()
        };
        let entities: Map<String, Value> = self
            .entities
            .iter()
            .map(|(name, part)| {
                (name.clone(), json!({"schema_version": part.version, "state": part.state, "events": events(part)}))
            })
            .collect();
        Value::Object(entities)
    }

    /// What this contract breaks of a former one, as `to_json` wrote that: one text each, with what to do. Empty: nothing.
    pub fn breaks(&self, former: &Value) -> Vec<String> {
        let Some(entities) = former.as_object() else { return Vec::new() };
        let mut breaks = Vec::new();
        for (entity, before) in sorted(entities) {
            let Some(part) = self.entities.get(entity) else {
                breaks.push(format!(
                    "{entity}: the entity is gone; what devices hold unsent of it would be refused, and its states are shown no more"
                ));
                continue;
            };
            let version = |value: &Value| {
                value.get("schema_version").and_then(Value::as_i64).and_then(|v| i32::try_from(v).ok()).unwrap_or(1)
            };
            for (name, stored) in before.get("events").and_then(Value::as_object).into_iter().flat_map(sorted) {
                let full = format!("{entity}.{name}");
                let Some(event) = part.events.get(name) else {
                    breaks.push(format!(
                        "{full}: the event is gone; what devices hold unsent of it would be refused. Keep it: \"{name}\": {{\"rule\": \"ignore\"}} at least"
                    ));
                    continue;
                };
                let lifted = part.upcasts.concern(Shape::Event(name), version(stored))
                    || (event.of_columns && part.upcasts.concern(Shape::State, version(stored)));
                let Some(old) = stored.get("payload").filter(|_| !lifted) else { continue };
                if let Some(narrowed) = narrows(old, &event.payload, "") {
                    breaks.push(format!(
                        "{full}: {narrowed}. Say how stored payloads become new ones: select headwater.upcast('{full}', {}, …)",
                        version(stored)
                    ));
                }
            }
            let lifted = part.upcasts.concern(Shape::State, version(before));
            for (name, old) in before.get("state").filter(|_| !lifted).map(properties).unwrap_or_default() {
                let Some(new) = part.state.pointer("/properties").and_then(|properties| properties.get(name)) else {
                    continue;
                };
                if let Some(narrowed) = narrows(old, new, name) {
                    breaks.push(format!(
                        "{entity}: {narrowed}. Say how stored states become new ones: select headwater.upcast('{entity}', {}, …)",
                        version(before)
                    ));
                }
            }
        }
        breaks
    }
}

/// In which way `new` does not take what `old` took; lengths, patterns and ranges aside.
fn narrows(old: &Value, new: &Value, path: &str) -> Option<String> {
    let news = variants(new);
    variants(old).iter().find_map(|old| {
        let mut reasons = Vec::new();
        for new in &news {
            match differs(old, new, path) {
                None => return None,
                Some(reason) => reasons.push(reason),
            }
        }
        // Of several alternatives, the one that fails deepest says most; where none was meant, all are named.
        let deepest = reasons.iter().map(|(depth, _)| *depth).max()?;
        let mut meant = reasons.into_iter().filter(|(depth, _)| *depth == deepest).map(|(_, reason)| reason);
        let (first, another) = (meant.next(), meant.next());
        if another.is_none() {
            return first;
        }
        let kinds = news.iter().map(said).collect::<Vec<_>>().join(" or ");
        Some(format!("{} took {} and takes {kinds} now", named(path), said(old)))
    })
}

/// The alternatives of a schema, each of one type at most.
fn variants(schema: &Value) -> Vec<Value> {
    if let Some(schemas) = schema.get("anyOf").and_then(Value::as_array) {
        return schemas.iter().flat_map(variants).collect();
    }
    let values = schema.get("enum").and_then(Value::as_array).cloned();
    if let Some(values) = values.or_else(|| schema.get("const").map(|value| vec![value.clone()])) {
        return values.into_iter().map(|value| json!({"const": value})).collect();
    }
    let kinds = types(schema);
    if kinds.is_empty() {
        return vec![schema.clone()];
    }
    kinds
        .into_iter()
        .map(|kind| {
            let mut one = schema.clone();
            one["type"] = json!(kind);
            one
        })
        .collect()
}

/// How deep a difference lies, and what it is.
type Difference = (usize, String);

fn differs(old: &Value, new: &Value, path: &str) -> Option<Difference> {
    let depth = path.matches('.').count() + usize::from(!path.is_empty());
    let at = |what: String| Some((depth, format!("{} {what}", named(path))));
    if let Some(value) = new.get("const") {
        return if old.get("const") == Some(value) { None } else { at(format!("takes {} no more", said(old))) };
    }
    let kind = kind_of(new)?;
    match kind_of(old) {
        Some(before) if before == kind || (before == "integer" && kind == "number") => {}
        Some(_) => return at(format!("took {} and takes {} now", said(old), said(new))),
        None => return at(format!("took any JSON and takes {} now", said(new))),
    }
    if kind == "array" {
        let any = json!({});
        return narrows(old.get("items").unwrap_or(&any), new.get("items").unwrap_or(&any), &format!("{path}[]"))
            .map(|reason| (depth + 1, reason));
    }
    if kind != "object" || old.get("const").is_some() {
        return None;
    }
    let inner = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    let members = new.get("properties");
    for (name, before) in properties(old) {
        match members.and_then(|members| members.get(name)) {
            Some(after) => {
                if let Some(reason) = narrows(before, after, &inner(name)) {
                    return Some((depth + 1, reason));
                }
            }
            None => return Some((depth + 1, format!("{:?} is gone", inner(name)))),
        }
    }
    let required = properties(new).into_iter().find(|(name, _)| requires(new, name) && !requires(old, name));
    required.map(|(name, _)| (depth + 1, format!("{:?} is required now, and stored ones may lack it", inner(name))))
}

/// The type of a variant; none takes anything.
fn kind_of(schema: &Value) -> Option<&str> {
    if let Some(value) = schema.get("const") {
        return Some(match value {
            Value::Null => "null",
            Value::Bool(_) => "boolean",
            Value::Number(number) if number.is_i64() || number.is_u64() => "integer",
            Value::Number(_) => "number",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
        });
    }
    let named = schema.get("type").and_then(Value::as_str);
    named.or_else(|| schema.get("properties").map(|_| "object"))
}

fn named(path: &str) -> String {
    if path.is_empty() { "the payload".to_owned() } else { format!("{path:?}") }
}

fn said(schema: &Value) -> String {
    let exact = schema.get("const").map(Value::to_string);
    exact.or_else(|| kind_of(schema).map(str::to_owned)).unwrap_or_else(|| "any JSON".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_old_payloads_do_not_fit_any_more_is_found() {
        let check = |old: Value, new: Value, expected: Option<&str>| {
            assert_eq!(narrows(&old, &new, "").as_deref(), expected, "{old} → {new}");
        };
        let object = |properties: Value, required: &[&str]| json!({"type": "object", "properties": properties, "required": required});
        let text = json!({"type": "string"});
        check(object(json!({"a": text}), &[]), object(json!({"a": text}), &[]), None);
        check(object(json!({"a": text}), &[]), object(json!({"a": {"type": ["string", "null"]}, "b": {}}), &[]), None);
        check(object(json!({"a": text}), &["a"]), object(json!({"a": {}}), &[]), None);
        check(object(json!({"a": text}), &[]), object(json!({}), &[]), Some("\"a\" is gone"));
        check(
            object(json!({"a": text}), &[]),
            object(json!({"a": {"type": "integer"}}), &[]),
            Some("\"a\" took string and takes integer now"),
        );
        check(object(json!({"a": {"type": "integer"}}), &[]), object(json!({"a": {"type": "number"}}), &[]), None);
        check(
            object(json!({"a": {}}), &[]),
            object(json!({"a": text}), &[]),
            Some("\"a\" took any JSON and takes string now"),
        );
        check(
            object(json!({"a": text}), &[]),
            object(json!({"a": text}), &["a"]),
            Some("\"a\" is required now, and stored ones may lack it"),
        );
        check(json!({"enum": ["a", "b"]}), json!({"enum": ["a"]}), Some("the payload takes \"b\" no more"));
        check(json!({"enum": ["a"]}), json!({"enum": ["a", "b"]}), None);
        check(json!({"enum": ["a"]}), json!({"type": "string"}), None);
        check(
            object(json!({"a": {"type": "array", "items": object(json!({"b": text}), &[])}}), &[]),
            object(
                json!({"a": {"anyOf": [{"type": "null"}, {"type": "array", "items": object(json!({}), &[])}]}}),
                &[],
            ),
            Some("\"a[].b\" is gone"),
        );
    }
}
