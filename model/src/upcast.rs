//! Upcasts: how a payload of an older schema version becomes one of the present. Declared once, in SQL, as merge rules
//! are; the same grammar stands in `x-sync` and in the conformance vectors.
//!
//! ```json
//! [{"step": "rename",  "field": "table", "to": "table_number"},
//!  {"step": "rename",  "field": "/item/id", "to": "item_id"},
//!  {"step": "default", "field": "tip", "value": "0"},
//!  {"step": "remove",  "field": "note"},
//!  {"step": "wrap",    "field": "item", "key": "value"},
//!  {"step": "list",    "field": "tag"},
//!  {"step": "map",     "field": "status", "values": {"paid": "settled"}},
//!  {"step": "text",    "field": "count"},
//!  {"step": "number",  "field": "count"},
//!  {"step": "each",    "field": "items", "steps": [{"step": "remove", "field": "draft"}]},
//!  {"step": "custom",  "function": "app.lift_item_added"}]
//! ```
//!
//! 1. The steps run in their order. A step whose field is absent does nothing: an upcast never fails.
//! 2. A field is the name of a member; or, with a `/` in front, a JSON Pointer (RFC 6901) through objects. Objects that
//!    are missing on the way to where a value goes are made; one that is something else keeps the step from happening.
//! 3. `rename` takes the value away first, and then puts it where it replaces what is there.
//! 4. `default` sets what is absent; null is present. It passes over payloads that carry only what changed (captured
//!    `updated` and `deleted`): what is absent there has not changed.
//! 5. `wrap` makes `{key: value}` and `list` makes `[value]` of a value (of an array: nothing); null stays null.
//! 6. `text` makes decimal texts of whole numbers that JavaScript keeps (up to 2⁵³ − 1), as a column that becomes int8
//!    asks for; `number` the reverse. Both reach into arrays; other values stay.
//! 7. `each` runs its steps on every object in an array. `custom` is no step of it.

use std::collections::BTreeMap;

use serde_json::{Map, Number, Value, json};

use crate::event::is_name;
use crate::json::decimal;

/// The members of a payload or a state.
pub type Members = Map<String, Value>;

/// Calls the application's own function: its name, the payload. The result is the new payload.
pub type Custom<'a> = &'a mut dyn FnMut(&str, Members) -> Members;

/// The largest number of schema versions: each is a step that every old event takes when it is read.
pub const MAX_VERSION: i32 = 1000;

/// The largest whole number that an IEEE double keeps with all its neighbours.
const MAX_SAFE_INTEGER: i64 = 9_007_199_254_740_991;

/// What is lifted: which upcasts count for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape<'a> {
    /// A whole row: a baseline, a snapshot, a captured `created`.
    State,
    /// Some columns of a row: a captured `updated` or `deleted`.
    Change,
    /// The payload of a declared event of this name.
    Event(&'a str),
}

impl<'a> Shape<'a> {
    /// The shape of an event's payload.
    pub fn of_event(name: &'a str, captured: bool) -> Self {
        match (captured, name) {
            (false, name) => Self::Event(name),
            (true, "created") => Self::State,
            (true, _) => Self::Change,
        }
    }
}

/// From one schema version to the next.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Upcast(Vec<Step>);

#[derive(Clone, Debug, PartialEq)]
enum Step {
    Rename { field: Field, to: Field },
    Default { field: Field, value: Value },
    Remove { field: Field },
    Wrap { field: Field, key: String },
    List { field: Field },
    Map { field: Field, values: Members },
    Text { field: Field },
    Number { field: Field },
    Each { field: Field, steps: Upcast },
    Custom { function: String },
}

/// A member's name, or a pointer: never empty.
#[derive(Clone, Debug, PartialEq)]
struct Field {
    path: Vec<String>,
    declared: String,
}

/// An upcast that cannot be read; the message says what is wrong, and what would be right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct UpcastError(String);

impl Upcast {
    /// Reads a list of steps, or a single one.
    pub fn parse(declared: &Value) -> Result<Self, UpcastError> {
        let steps = match declared {
            Value::Array(steps) => steps.iter().map(Step::parse).collect::<Result<_, _>>()?,
            step => vec![Step::parse(step)?],
        };
        Ok(Self(steps))
    }

    /// The list of steps; [`Upcast::parse`] reads it back.
    pub fn to_json(&self) -> Value {
        self.0.iter().map(Step::to_json).collect()
    }

    /// The functions that its `custom` steps call.
    pub fn functions_mut(&mut self) -> impl Iterator<Item = &mut String> {
        self.0.iter_mut().filter_map(|step| match step {
            Step::Custom { function } => Some(function),
            _ => None,
        })
    }

    /// The payload one version up. `whole`: what is absent is really absent, and gets its default.
    pub fn apply(&self, members: Members, whole: bool, custom: Custom<'_>) -> Members {
        self.0.iter().fold(members, |members, step| step.apply(members, whole, custom))
    }
}

/// All upcasts of an entity, and its present schema version.
#[derive(Clone, Debug, PartialEq)]
pub struct Upcasts {
    version: i32,
    state: BTreeMap<i32, Upcast>,
    events: BTreeMap<String, BTreeMap<i32, Upcast>>,
}

impl Upcasts {
    /// Reads `{"state": {"1": […]}, "events": {"item_added": {"1": […]}}}`; `version` is the present one.
    pub fn parse(version: i32, declared: &Value) -> Result<Self, UpcastError> {
        let chain = |declared: &Value| -> Result<BTreeMap<i32, Upcast>, UpcastError> {
            let upcasts = declared.as_object().ok_or_else(|| UpcastError(format!("{declared} is no object")))?;
            let one = |(from, upcast): (&String, &Value)| {
                let from = from.parse().map_err(|_| UpcastError(format!("{from:?} is no schema version")))?;
                Ok((from, Upcast::parse(upcast)?))
            };
            upcasts.iter().map(one).collect()
        };
        let empty = json!({});
        let events = declared.get("events").unwrap_or(&empty).as_object().cloned().unwrap_or_default();
        Ok(Self {
            version,
            state: chain(declared.get("state").unwrap_or(&empty))?,
            events: events
                .iter()
                .map(|(name, declared)| Ok((name.clone(), chain(declared)?)))
                .collect::<Result<_, UpcastError>>()?,
        })
    }

    /// The declaration; [`Upcasts::parse`] reads it back.
    pub fn to_json(&self) -> Value {
        let chain = |chain: &BTreeMap<i32, Upcast>| -> Value {
            Value::Object(chain.iter().map(|(from, upcast)| (from.to_string(), upcast.to_json())).collect())
        };
        let events: Members = self.events.iter().map(|(name, upcasts)| (name.clone(), chain(upcasts))).collect();
        json!({"state": chain(&self.state), "events": events})
    }

    /// Declares how version `from` of a shape becomes the next one. The present version rises to that one if it lies below.
    pub fn declare(&mut self, shape: Shape<'_>, from: i32, upcast: Upcast) -> Result<(), UpcastError> {
        if from < 1 || from > self.version || from >= MAX_VERSION {
            return Err(UpcastError(format!(
                "from_version {from} is none: the present schema version is {}, and upcasts lead from 1 to {}",
                self.version, self.version
            )));
        }
        match shape {
            Shape::State | Shape::Change => self.state.insert(from, upcast),
            Shape::Event(name) if is_name(name) => self.events.entry(name.to_owned()).or_default().insert(from, upcast),
            Shape::Event(name) => return Err(UpcastError(format!("{name:?} cannot name an event"))),
        };
        self.version = self.version.max(from + 1);
        Ok(())
    }

    /// The present schema version.
    pub fn version(&self) -> i32 {
        self.version
    }

    /// Whether there is anything to do for something of version `from`.
    pub fn concern(&self, shape: Shape<'_>, from: i32) -> bool {
        from < self.version && self.chain(shape).is_some_and(|chain| chain.range(from..).next().is_some())
    }

    /// Lifts a payload or a state from the version `from` to the present one. A version without an upcast of its own is
    /// as the next one.
    pub fn lift(&self, shape: Shape<'_>, from: i32, members: Members, custom: Custom<'_>) -> Members {
        let Some(chain) = self.chain(shape) else { return members };
        let whole = shape != Shape::Change;
        chain.range(from..).fold(members, |members, (_, upcast)| upcast.apply(members, whole, custom))
    }

    fn chain(&self, shape: Shape<'_>) -> Option<&BTreeMap<i32, Upcast>> {
        match shape {
            Shape::State | Shape::Change => Some(&self.state),
            Shape::Event(name) => self.events.get(name),
        }
    }
}

impl Step {
    fn parse(declared: &Value) -> Result<Self, UpcastError> {
        let Value::Object(members) = declared else {
            return Err(UpcastError(format!(
                "a step is an object like {{\"step\": \"remove\", \"field\": \"note\"}}, not {declared}"
            )));
        };
        let text = |name: &str| match members.get(name) {
            Some(Value::String(text)) if !text.is_empty() => Ok(text.clone()),
            _ => Err(UpcastError(format!("the step {declared} lacks {name:?}, a text"))),
        };
        let any = |name: &str| {
            members.get(name).cloned().ok_or_else(|| UpcastError(format!("the step {declared} lacks {name:?}")))
        };
        let field = |name: &str| text(name).map(|declared| Field::parse(&declared));
        let step = match text("step")?.as_str() {
            "rename" => Self::Rename { field: field("field")?, to: field("to")? },
            "default" => Self::Default { field: field("field")?, value: any("value")? },
            "remove" => Self::Remove { field: field("field")? },
            "wrap" => Self::Wrap { field: field("field")?, key: text("key")? },
            "list" => Self::List { field: field("field")? },
            "map" => {
                let Value::Object(values) = any("values")? else {
                    return Err(UpcastError(format!(
                        "\"values\" of {declared} is no object of old texts and new values"
                    )));
                };
                Self::Map { field: field("field")?, values }
            }
            "text" => Self::Text { field: field("field")? },
            "number" => Self::Number { field: field("field")? },
            "each" => Self::Each { field: field("field")?, steps: Self::inner(&any("steps")?)? },
            "custom" => Self::Custom { function: text("function")? },
            other => {
                return Err(UpcastError(format!(
                    "{other:?} is no step; there are rename, default, remove, wrap, list, map, text, number, each and custom"
                )));
            }
        };
        let known = step.to_json();
        match members.keys().find(|name| known.get(*name).is_none()) {
            Some(other) => Err(UpcastError(format!("the step {declared} knows no {other:?}"))),
            None => Ok(step),
        }
    }

    fn inner(declared: &Value) -> Result<Upcast, UpcastError> {
        let upcast = Upcast::parse(declared)?;
        if upcast.0.iter().any(|step| matches!(step, Self::Custom { .. })) {
            return Err(UpcastError("a custom step takes the whole payload; it cannot stand within each".to_owned()));
        }
        Ok(upcast)
    }

    fn to_json(&self) -> Value {
        match self {
            Self::Rename { field, to } => json!({"step": "rename", "field": field.declared, "to": to.declared}),
            Self::Default { field, value } => json!({"step": "default", "field": field.declared, "value": value}),
            Self::Remove { field } => json!({"step": "remove", "field": field.declared}),
            Self::Wrap { field, key } => json!({"step": "wrap", "field": field.declared, "key": key}),
            Self::List { field } => json!({"step": "list", "field": field.declared}),
            Self::Map { field, values } => json!({"step": "map", "field": field.declared, "values": values}),
            Self::Text { field } => json!({"step": "text", "field": field.declared}),
            Self::Number { field } => json!({"step": "number", "field": field.declared}),
            Self::Each { field, steps } => {
                json!({"step": "each", "field": field.declared, "steps": steps.to_json()})
            }
            Self::Custom { function } => json!({"step": "custom", "function": function}),
        }
    }

    fn apply(&self, mut members: Members, whole: bool, custom: Custom<'_>) -> Members {
        match self {
            Self::Rename { field, to } => {
                let mut renamed = members.clone();
                if field.take(&mut renamed).is_some_and(|value| to.put(&mut renamed, value)) {
                    return renamed;
                }
            }
            Self::Default { field, value } => {
                if whole && field.of(&mut members).is_none() {
                    field.put(&mut members, value.clone());
                }
            }
            Self::Remove { field } => {
                field.take(&mut members);
            }
            Self::Wrap { field, key } => {
                field.change(&mut members, |value| Value::Object([(key.clone(), value)].into_iter().collect()));
            }
            Self::List { field } => field.change(&mut members, |value| match value {
                Value::Array(_) => value,
                value => Value::Array(vec![value]),
            }),
            Self::Map { field, values } => field.change(&mut members, |value| {
                let new = value.as_str().and_then(|text| values.get(text));
                new.cloned().unwrap_or(value)
            }),
            Self::Text { field } => field.change(&mut members, as_text),
            Self::Number { field } => field.change(&mut members, as_number),
            Self::Each { field, steps } => field.change(&mut members, |value| match value {
                Value::Array(elements) => {
                    let each = |element| match element {
                        Value::Object(members) => Value::Object(steps.apply(members, true, custom)),
                        other => other,
                    };
                    Value::Array(elements.into_iter().map(each).collect())
                }
                other => other,
            }),
            Self::Custom { function } => return custom(function, members),
        }
        members
    }
}

impl Field {
    fn parse(declared: &str) -> Self {
        let path = match declared.strip_prefix('/') {
            None => vec![declared.to_owned()],
            Some(pointer) => {
                pointer.split('/').map(|part| part.replace("~1", "/").replace("~0", "~")).collect::<Vec<_>>()
            }
        };
        Self { path, declared: declared.to_owned() }
    }

    /// The object that holds it, and its name there.
    fn holder<'m>(&self, members: &'m mut Members) -> Option<(&'m mut Members, &str)> {
        let (name, parents) = self.path.split_last().expect("a path is never empty");
        let holder = parents.iter().try_fold(members, |members, parent| match members.get_mut(parent) {
            Some(Value::Object(inner)) => Some(inner),
            _ => None,
        })?;
        Some((holder, name))
    }

    fn of<'m>(&self, members: &'m mut Members) -> Option<&'m mut Value> {
        let (holder, name) = self.holder(members)?;
        holder.get_mut(name)
    }

    fn take(&self, members: &mut Members) -> Option<Value> {
        let (holder, name) = self.holder(members)?;
        holder.remove(name)
    }

    /// Whether the value could be put there.
    fn put(&self, members: &mut Members, value: Value) -> bool {
        let (name, parents) = self.path.split_last().expect("a path is never empty");
        let holder = parents.iter().try_fold(members, |members, parent| {
            match members.entry(parent.clone()).or_insert_with(|| Value::Object(Map::new())) {
                Value::Object(inner) => Some(inner),
                _ => None,
            }
        });
        holder.map(|holder| holder.insert(name.clone(), value)).is_some()
    }

    /// Changes the value that is there, unless it is null.
    fn change(&self, members: &mut Members, change: impl FnOnce(Value) -> Value) {
        if let Some(value) = self.of(members).filter(|value| !value.is_null()) {
            *value = change(value.take());
        }
    }
}

fn as_text(value: Value) -> Value {
    match value {
        Value::Array(elements) => Value::Array(elements.into_iter().map(as_text).collect()),
        Value::Number(_) => safe_integer(&value).map_or(value, |whole| Value::String(whole.to_string())),
        other => other,
    }
}

fn as_number(value: Value) -> Value {
    match value {
        Value::Array(elements) => Value::Array(elements.into_iter().map(as_number).collect()),
        // Only as `text` writes it: other texts may say more than their number.
        Value::String(ref text) => match safe_integer(&value) {
            Some(whole) if whole.to_string() == *text => Value::Number(Number::from(whole)),
            _ => value,
        },
        other => other,
    }
}

/// The whole number that a value stands for, if JavaScript keeps it.
fn safe_integer(value: &Value) -> Option<i64> {
    let whole = decimal(value)?.normalized();
    if whole.fractional_digit_count() > 0 {
        return None;
    }
    let whole: i64 = whole.to_plain_string().parse().ok()?;
    (whole.abs() <= MAX_SAFE_INTEGER).then_some(whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(value: &Value) -> Members {
        value.as_object().expect("an object").clone()
    }

    #[test]
    fn chains_lead_to_the_present_version() {
        let rename = |field: &str, to: &str| {
            Upcast::parse(&json!({"step": "rename", "field": field, "to": to})).expect("a step")
        };
        let mut upcasts = Upcasts::parse(1, &json!({})).expect("none");
        assert!(!upcasts.concern(Shape::State, 1));
        upcasts.declare(Shape::State, 1, rename("a", "b")).expect("the first");
        upcasts.declare(Shape::Event("made"), 2, rename("x", "y")).expect("the second");
        upcasts.declare(Shape::State, 3, rename("b", "c")).expect("the third");
        let default = Upcast::parse(&json!({"step": "default", "field": "d", "value": 0})).expect("a step");
        upcasts.declare(Shape::State, 4, default).expect("the fourth");
        assert_eq!(upcasts.version(), 5);
        assert_eq!(Upcasts::parse(5, &upcasts.to_json()), Ok(upcasts.clone()));
        let lift = |shape: Shape<'_>, from: i32, before: Value| {
            Value::Object(upcasts.lift(shape, from, members(&before), &mut |_, members| members))
        };
        assert_eq!(lift(Shape::State, 1, json!({"a": 1})), json!({"c": 1, "d": 0}));
        assert_eq!(lift(Shape::Change, 1, json!({"a": 1})), json!({"c": 1}));
        assert_eq!(lift(Shape::State, 3, json!({"a": 1, "b": 2})), json!({"a": 1, "c": 2, "d": 0}));
        assert_eq!(lift(Shape::State, 5, json!({"a": 1})), json!({"a": 1}));
        assert_eq!(lift(Shape::Event("made"), 1, json!({"x": 1})), json!({"y": 1}));
        assert_eq!(lift(Shape::Event("made"), 3, json!({"x": 1})), json!({"x": 1}));
        assert_eq!(lift(Shape::Event("moved"), 1, json!({"a": 1, "x": 1})), json!({"a": 1, "x": 1}));
        assert!(
            upcasts.concern(Shape::of_event("updated", true), 1) && !upcasts.concern(Shape::of_event("made", false), 3)
        );
        for wrong in [0, 6, -1] {
            assert!(upcasts.declare(Shape::State, wrong, Upcast::default()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_is_no_upcast_is_refused_with_its_reason() {
        let check = |declared: Value, says: &str| {
            let error = Upcast::parse(&declared).expect_err(says).to_string();
            assert!(error.contains(says), "{error}");
        };
        check(json!(7), "a step is an object");
        check(json!({"step": "fold"}), "is no step; there are rename");
        check(json!({"step": "rename", "field": "a"}), "lacks \"to\"");
        check(json!({"step": "remove", "field": ""}), "lacks \"field\"");
        check(json!({"step": "remove", "field": "a", "to": "b"}), "knows no \"to\"");
        check(json!({"step": "default", "field": "a"}), "lacks \"value\"");
        check(json!({"step": "map", "field": "a", "values": []}), "no object");
        check(json!({"step": "each", "field": "a", "steps": [{"step": "custom", "function": "f"}]}), "whole payload");
    }
}
