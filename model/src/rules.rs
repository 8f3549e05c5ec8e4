//! Merge rules: how each event of an entity changes its state. Declared once, in SQL; the same grammar stands in
//! `x-sync` and in the conformance vectors.
//!
//! ```json
//! ["created", "item_added"]
//! {"created": {"rule": "create"},
//!  "item_added": {"rule": "append", "field": "items", "value": "item"},
//!  "item_removed": {"rule": "remove", "field": "items", "where": {"id": "item_id"}},
//!  "state_changed": {"rule": "set", "fields": ["status"]},
//!  "tipped": {"rule": "increment", "field": "tip", "by": "amount"},
//!  "deleted": {"rule": "delete"}}
//! ```
//!
//! The strings behind `value`, `where` and `by` are keys of the payload. In the short form, an array of names,
//! `created` creates, `deleted` deletes, and every other event sets what its payload carries.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::event::{Code, Reject, is_name};
use crate::json::decimal;

/// How one event changes its entity's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Begins the entity with the payload's fields; merges them into one that exists.
    Create,
    /// Sets the payload's fields, or those of them that are listed.
    Set {
        /// The fields it may set; without a list, all that the payload carries.
        fields: Option<Vec<String>>,
    },
    /// Sets fields to null.
    Unset {
        /// The fields it clears.
        fields: Vec<String>,
    },
    /// Appends `payload[value]` to the array `field`.
    Append {
        /// The array.
        field: String,
        /// The payload's key of the new element.
        value: String,
    },
    /// Removes elements from the array `field`.
    Remove {
        /// The array.
        field: String,
        /// Which elements go.
        elements: Elements,
    },
    /// Adds `payload[by]` to the number `field`, exactly.
    Increment {
        /// The number.
        field: String,
        /// The payload's key of the amount.
        by: String,
    },
    /// Ends the entity; only a later create revives it.
    Delete,
    /// History only.
    Ignore,
    /// `function(state, event) → state`, written by the application.
    Custom {
        /// Its name, schema-qualified.
        function: String,
    },
}

/// Which elements of an array a `remove` takes out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Elements {
    /// Objects whose member equals the payload's value, for each pair (member, payload key).
    Where(BTreeMap<String, String>),
    /// Elements that equal `payload[key]`.
    Equal(String),
}

/// A declaration that cannot be read; the message says which event, what is wrong, and what would be right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct RuleError(String);

/// The events of an entity and their rules, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules(BTreeMap<String, Rule>);

impl Rules {
    /// Reads a declaration in either form.
    pub fn parse(declared: &Value) -> Result<Self, RuleError> {
        let rules = match declared {
            Value::Array(names) => names.iter().map(short_form).collect::<Result<_, _>>()?,
            Value::Object(events) => {
                events.iter().map(|(name, rule)| long_form(name, rule)).collect::<Result<_, _>>()?
            }
            other => {
                return Err(RuleError(format!("events must be an array of names or an object of rules, not {other}")));
            }
        };
        Ok(Self(rules))
    }

    /// The declaration in its long form; [`Rules::parse`] reads it back.
    pub fn to_json(&self) -> Value {
        Value::Object(self.0.iter().map(|(name, rule)| (name.clone(), rule.to_json())).collect())
    }

    /// The rule of the event `name`.
    pub fn get(&self, name: &str) -> Option<&Rule> {
        self.0.get(name)
    }

    /// Every event with its rule, in the order of names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Rule)> {
        self.0.iter().map(|(name, rule)| (name.as_str(), rule))
    }
}

impl Rule {
    /// The fields that the rule names.
    pub fn fields(&self) -> Vec<&str> {
        match self {
            Self::Set { fields: Some(fields) } | Self::Unset { fields } => fields.iter().map(String::as_str).collect(),
            Self::Append { field, .. } | Self::Remove { field, .. } | Self::Increment { field, .. } => vec![field],
            Self::Create | Self::Set { fields: None } | Self::Delete | Self::Ignore | Self::Custom { .. } => Vec::new(),
        }
    }

    /// Whether a payload fits the rule. `settable` are the columns that events may write: shared, and none of
    /// key, tenant, user and generated ones.
    pub fn check(&self, payload: &Map<String, Value>, settable: &[String]) -> Result<(), Reject> {
        let invalid = |reason: String| Err(Reject::new(Code::InvalidPayload, reason));
        let needs = |key: &String| match payload.get(key) {
            Some(value) => Ok(value),
            None => Err(Reject::new(Code::InvalidPayload, format!("the payload lacks {key:?}"))),
        };
        match self {
            Self::Create | Self::Set { fields: None } => match payload.keys().find(|key| !settable.contains(key)) {
                Some(key) => {
                    invalid(format!("{key:?} is no column that an event may set; those are {}", listed(settable)))
                }
                None => Ok(()),
            },
            Self::Set { fields: Some(fields) } => {
                if fields.iter().any(|field| payload.contains_key(field)) {
                    return Ok(());
                }
                invalid(format!("the payload carries none of the fields that this event sets: {}", listed(fields)))
            }
            Self::Append { value, .. } => needs(value).map(|_| ()),
            Self::Remove { elements: Elements::Where(pairs), .. } => {
                pairs.values().try_for_each(|key| needs(key).map(|_| ()))
            }
            Self::Remove { elements: Elements::Equal(key), .. } => needs(key).map(|_| ()),
            Self::Increment { by, .. } => match decimal(needs(by)?) {
                Some(_) => Ok(()),
                None => invalid(format!("{by:?} is no number")),
            },
            Self::Unset { .. } | Self::Delete | Self::Ignore | Self::Custom { .. } => Ok(()),
        }
    }

    /// The declaration in its long form.
    pub fn to_json(&self) -> Value {
        match self {
            Self::Create => json!({"rule": "create"}),
            Self::Set { fields: None } => json!({"rule": "set"}),
            Self::Set { fields: Some(fields) } => json!({"rule": "set", "fields": fields}),
            Self::Unset { fields } => json!({"rule": "unset", "fields": fields}),
            Self::Append { field, value } => json!({"rule": "append", "field": field, "value": value}),
            Self::Remove { field, elements: Elements::Where(pairs) } => {
                json!({"rule": "remove", "field": field, "where": pairs})
            }
            Self::Remove { field, elements: Elements::Equal(value) } => {
                json!({"rule": "remove", "field": field, "value": value})
            }
            Self::Increment { field, by } => json!({"rule": "increment", "field": field, "by": by}),
            Self::Delete => json!({"rule": "delete"}),
            Self::Ignore => json!({"rule": "ignore"}),
            Self::Custom { function } => json!({"rule": "custom", "function": function}),
        }
    }
}

fn listed(names: &[String]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

fn short_form(name: &Value) -> Result<(String, Rule), RuleError> {
    let name = name.as_str().ok_or_else(|| RuleError(format!("{name} is no name of an event")))?;
    let rule = match name {
        "created" => Rule::Create,
        "deleted" => Rule::Delete,
        _ => Rule::Set { fields: None },
    };
    Ok((checked_name(name)?, rule))
}

fn long_form(name: &str, declared: &Value) -> Result<(String, Rule), RuleError> {
    let members = Members {
        event: name,
        declared: declared.as_object().ok_or_else(|| {
            RuleError(format!("event {name:?}: a rule is an object like {{\"rule\": \"set\"}}, not {declared}"))
        })?,
    };
    let rule = match members.text("rule")?.as_str() {
        "create" => Rule::Create,
        "set" => Rule::Set { fields: members.optional_texts("fields")? },
        "unset" => Rule::Unset { fields: members.optional_texts("fields")?.ok_or_else(|| members.lacks("fields"))? },
        "append" => Rule::Append { field: members.text("field")?, value: members.text("value")? },
        "remove" => Rule::Remove { field: members.text("field")?, elements: members.elements()? },
        "increment" => Rule::Increment { field: members.text("field")?, by: members.text("by")? },
        "delete" => Rule::Delete,
        "ignore" => Rule::Ignore,
        "custom" => Rule::Custom { function: members.text("function")? },
        other => {
            return Err(members.error(&format!(
                "{other:?} is no rule; there are create, set, unset, append, remove, increment, delete, ignore and custom"
            )));
        }
    };
    members.nothing_else(&rule)?;
    Ok((checked_name(name)?, rule))
}

fn checked_name(name: &str) -> Result<String, RuleError> {
    if is_name(name) {
        return Ok(name.to_owned());
    }
    Err(RuleError(format!(
        "{name:?} cannot name an event: lower-case letters, digits and _ make up a name, a letter first"
    )))
}

/// The members of one declared rule, read with errors that name the event.
struct Members<'a> {
    event: &'a str,
    declared: &'a Map<String, Value>,
}

impl Members<'_> {
    fn text(&self, member: &str) -> Result<String, RuleError> {
        match self.declared.get(member) {
            Some(Value::String(text)) if !text.is_empty() => Ok(text.clone()),
            Some(other) => Err(self.error(&format!("{member:?} is {other}; it must be a string"))),
            None => Err(self.lacks(member)),
        }
    }

    fn optional_texts(&self, member: &str) -> Result<Option<Vec<String>>, RuleError> {
        let Some(value) = self.declared.get(member) else { return Ok(None) };
        let texts = value
            .as_array()
            .and_then(|items| items.iter().map(|item| item.as_str().map(str::to_owned)).collect::<Option<Vec<_>>>());
        match texts {
            Some(texts) if !texts.is_empty() => Ok(Some(texts)),
            _ => Err(self.error(&format!("{member:?} is {value}; it must be an array of names"))),
        }
    }

    fn elements(&self) -> Result<Elements, RuleError> {
        match (self.declared.get("where"), self.declared.get("value")) {
            (Some(Value::Object(pairs)), None) if !pairs.is_empty() => pairs
                .iter()
                .map(|(member, key)| Some((member.clone(), key.as_str()?.to_owned())))
                .collect::<Option<_>>()
                .map(Elements::Where)
                .ok_or_else(|| {
                    self.error(
                        "\"where\" pairs a member of the elements with a key of the payload, as {\"id\": \"item_id\"}",
                    )
                }),
            (None, Some(_)) => Ok(Elements::Equal(self.text("value")?)),
            _ => Err(self.error("a remove needs either \"where\", as {\"id\": \"item_id\"}, or \"value\"")),
        }
    }

    /// A misspelt member would otherwise be passed over in silence.
    fn nothing_else(&self, rule: &Rule) -> Result<(), RuleError> {
        let known = rule.to_json();
        match self.declared.keys().find(|member| known.get(member.as_str()).is_none()) {
            Some(member) => Err(self.error(&format!("the rule {} does not take {member:?}", known["rule"]))),
            None => Ok(()),
        }
    }

    fn lacks(&self, member: &str) -> RuleError {
        self.error(&format!("{member:?} is missing"))
    }

    fn error(&self, what: &str) -> RuleError {
        RuleError(format!("event {:?}: {what}", self.event))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn orders() -> Value {
        json!({
            "created": {"rule": "create"},
            "item_added": {"rule": "append", "field": "items", "value": "item"},
            "item_removed": {"rule": "remove", "field": "items", "where": {"id": "item_id"}},
            "tag_removed": {"rule": "remove", "field": "tags", "value": "tag"},
            "state_changed": {"rule": "set", "fields": ["status"]},
            "cleared": {"rule": "unset", "fields": ["note"]},
            "tipped": {"rule": "increment", "field": "tip", "by": "amount"},
            "printed": {"rule": "ignore"},
            "merged": {"rule": "custom", "function": "app.merge"},
            "deleted": {"rule": "delete"}
        })
    }

    #[test]
    fn the_long_form_survives_the_round_trip() {
        assert_eq!(Rules::parse(&orders()).expect("rules").to_json(), orders());
    }

    #[test]
    fn the_short_form_creates_sets_and_deletes() {
        let rules = Rules::parse(&json!(["created", "moved", "deleted"])).expect("rules");
        assert_eq!(
            rules.to_json(),
            json!({"created": {"rule": "create"}, "moved": {"rule": "set"}, "deleted": {"rule": "delete"}})
        );
    }

    #[test]
    fn a_wrong_declaration_says_what_is_wrong() {
        let check = |declared: Value, says: &str| {
            let error = Rules::parse(&declared).expect_err(says).to_string();
            assert!(error.contains(says), "{error}");
        };
        check(json!("created"), "array of names or an object");
        check(json!([1]), "1 is no name");
        check(json!(["Created"]), "cannot name an event");
        check(json!({"a": "set"}), "a rule is an object");
        check(json!({"a": {}}), "\"rule\" is missing");
        check(json!({"a": {"rule": "upsert"}}), "is no rule; there are create");
        check(json!({"a": {"rule": "append", "field": "items"}}), "\"value\" is missing");
        check(json!({"a": {"rule": "append", "field": 1, "value": "x"}}), "must be a string");
        check(json!({"a": {"rule": "set", "field": "x"}}), "does not take \"field\"");
        check(json!({"a": {"rule": "set", "fields": []}}), "array of names");
        check(json!({"a": {"rule": "unset"}}), "\"fields\" is missing");
        check(json!({"a": {"rule": "remove", "field": "x"}}), "either \"where\"");
        check(json!({"a": {"rule": "remove", "field": "x", "where": {"id": 1}}}), "pairs a member");
    }

    #[test]
    fn a_payload_must_fit_its_rule() {
        let rules = Rules::parse(&orders()).expect("rules");
        let settable = ["status".to_owned(), "items".to_owned()];
        let check = |name: &str, payload: Value, says: Option<&str>| {
            let Value::Object(payload) = payload else { panic!("an object") };
            match (rules.get(name).expect(name).check(&payload, &settable), says) {
                (Ok(()), None) => {}
                (Err(reject), Some(says)) => assert!(reject.reason.contains(says), "{reject}"),
                (outcome, _) => panic!("{name}: {outcome:?}"),
            }
        };
        check("created", json!({"status": "open"}), None);
        check("created", json!({}), None);
        check("created", json!({"id": 1}), Some("\"id\" is no column that an event may set; those are status, items"));
        check("state_changed", json!({"status": "paid", "reason": "card"}), None);
        check("state_changed", json!({"reason": "card"}), Some("none of the fields"));
        check("item_added", json!({"item": null}), None);
        check("item_added", json!({}), Some("lacks \"item\""));
        check("item_removed", json!({"id": 1}), Some("lacks \"item_id\""));
        check("tag_removed", json!({}), Some("lacks \"tag\""));
        check("tipped", json!({"amount": "0.50"}), None);
        check("tipped", json!({"amount": "much"}), Some("no number"));
        check("deleted", json!({"why": "mistake"}), None);
    }
}
