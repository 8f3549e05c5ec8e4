//! An `OpenAPI` document → the entities to generate. Reads what `headwater.openapi()` writes, and what people write by hand:
//! what can be told from the rest may be left out; what cannot is an error that names the place and what to write there.

use crate::error::Error;
use crate::literal::sorted;
use crate::schema::{self, nullable, pointed};
use headwater_model::rules::{Elements, Rule, Rules};
use headwater_model::upcast::Upcasts;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// What a document says.
#[derive(Clone, Debug)]
pub struct Document {
    /// In the order of their types.
    pub entities: Vec<Entity>,
    /// What was passed over.
    pub notes: Vec<String>,
}

/// An entity that syncs.
#[derive(Clone, Debug)]
pub struct Entity {
    /// `order`.
    pub entity_type: String,
    /// The resolved schema of a state.
    pub state: Value,
    /// The columns that make up its id.
    pub key: Vec<String>,
    /// What clients may record, by name.
    pub events: BTreeMap<String, Event>,
    /// What the server records of SQL, by name: the resolved schemas of the payloads.
    pub captures: BTreeMap<String, Value>,
    /// How old payloads become present ones.
    pub upcasts: Upcasts,
}

/// An event that clients may record.
#[derive(Clone, Debug)]
pub struct Event {
    /// What it does to the state.
    pub rule: Rule,
    /// The resolved schema of its payload.
    pub payload: Value,
    /// The schema version that new ones bear.
    pub version: i32,
}

/// What the server's triggers record.
const CAPTURES: [&str; 4] = ["created", "updated", "deleted", "erased"];

/// Reads a document.
pub fn read(document: &Value) -> Result<Document, Error> {
    let version = document.get("openapi").and_then(Value::as_str).unwrap_or_default();
    if !version.starts_with("3.") {
        return Err(Error::at(
            "openapi",
            if version.is_empty() { "is missing".to_owned() } else { format!("{version:?} is not supported") },
            "This must be an OpenAPI 3.1 document, with \"openapi\": \"3.1.0\".",
        ));
    }
    let empty = Map::new();
    let paths = document.get("paths").and_then(Value::as_object).unwrap_or(&empty);
    let mut entities: BTreeMap<String, Entity> = BTreeMap::new();
    let mut notes = Vec::new();
    let mut found = false;
    for (path, item) in sorted(paths) {
        for (at, sync, operation) in declarations(path, item) {
            found = true;
            let place = Place { document, at: &at, sync, operation };
            if place.passes_over(&mut notes)? {
                continue;
            }
            let entity = place.entity()?;
            if entities.contains_key(&entity.entity_type) {
                return Err(Error::at(
                    at,
                    format!("the entity {:?} is declared a second time", entity.entity_type),
                    "Keep x-sync on one path of each entity.",
                ));
            }
            entities.insert(entity.entity_type.clone(), entity);
        }
    }
    if !found {
        return Err(Error::at(
            "paths",
            "no path carries x-sync, so there is nothing to generate",
            "A streamer's document has it for each enabled table: select headwater.enable('orders'). By hand: \
             \"/orders/{id}\": {\"x-sync\": {\"mode\": \"events\", \"entity_type\": \"order\", \"schema\": …, \"rules\": …}}.",
        ));
    }
    Ok(Document { entities: entities.into_values().collect(), notes })
}

/// The `x-sync` of a path or of one of its operations; with the operation that tells what a state looks like.
fn declarations<'a>(path: &str, item: &'a Value) -> Vec<(String, &'a Value, Option<&'a Value>)> {
    let get = item.get("get");
    let own = item.get("x-sync").map(|sync| (format!("paths.{path}.x-sync"), sync, get));
    let operations = item.as_object().into_iter().flat_map(sorted).filter_map(|(name, operation)| {
        let sync = operation.get("x-sync")?;
        Some((format!("paths.{path}.{name}.x-sync"), sync, get.or(Some(operation))))
    });
    own.into_iter().chain(operations).collect()
}

/// One `x-sync`, and where it stands.
struct Place<'a> {
    document: &'a Value,
    at: &'a str,
    sync: &'a Value,
    operation: Option<&'a Value>,
}

impl Place<'_> {
    /// Entities of the mode "api" are read and written by requests; there is nothing to sync.
    fn passes_over(&self, notes: &mut Vec<String>) -> Result<bool, Error> {
        match self.sync.get("mode").map(|mode| mode.as_str().unwrap_or_default()) {
            None | Some("events") => Ok(false),
            Some("api") => {
                let name = self.sync.get("entity_type").and_then(Value::as_str).unwrap_or(self.at);
                notes.push(format!("{name}: passed over, for its mode is \"api\": it is not synced by events"));
                Ok(true)
            }
            Some(other) => Err(Error::at(
                format!("{}.mode", self.at),
                format!("{other:?} is no mode"),
                "Write \"events\" (synced, works offline) or \"api\" (passed over).",
            )),
        }
    }

    fn entity(&self) -> Result<Entity, Error> {
        let entity_type = self.entity_type()?;
        let rules = self.rules(&entity_type)?;
        let mut state = self.state(&entity_type)?;
        sharpen(&mut state, &rules);
        let key = self.key(&state)?;
        let versions = |name: &str| {
            let versions = self.sync.get("schema_versions")?;
            versions.get(format!("{entity_type}.{name}")).or_else(|| versions.get(name))?.as_i64()
        };
        let version = |name: &str| versions(name).and_then(|version| i32::try_from(version).ok()).unwrap_or(1);
        let present = rules.iter().map(|(name, _)| version(name)).chain(CAPTURES.map(version)).max().unwrap_or(1);
        let upcasts = Upcasts::parse(present, self.sync.get("upcasts").unwrap_or(&json!({}))).map_err(|error| {
            Error::at(
                format!("{}.upcasts", self.at),
                error.to_string(),
                "Write {\"state\": {\"1\": [steps]}, \"events\": {\"item_added\": {\"1\": [steps]}}}.",
            )
        })?;
        let mut events = BTreeMap::new();
        for (name, rule) in rules.iter() {
            let mut payload = self.payload(&entity_type, name, rule, &state, &key)?;
            sharpen(&mut payload, &rules);
            events.insert(name.to_owned(), Event { rule: rule.clone(), payload, version: version(name) });
        }
        let captures = self.captures(&entity_type)?.into_iter().map(|name| {
            let payload = captured(&name, &state, &key);
            (name, payload)
        });
        Ok(Entity { captures: captures.collect(), entity_type, state, key, events, upcasts })
    }

    fn entity_type(&self) -> Result<String, Error> {
        let missing = |what: &str| {
            Error::at(
                format!("{}.entity_type", self.at),
                what,
                "Add \"entity_type\": \"order\": what events call it (order.created).",
            )
        };
        match self.sync.get("entity_type") {
            Some(Value::String(name)) if !name.is_empty() => return Ok(name.clone()),
            Some(other) => return Err(missing(&format!("{other} is no name"))),
            None => {}
        }
        let mut prefixes: Vec<&str> =
            self.names("events")?.iter().filter_map(|name| name.rsplit_once('.').map(|(prefix, _)| prefix)).collect();
        prefixes.dedup();
        match prefixes[..] {
            [only] => Ok(only.to_owned()),
            _ => Err(missing("is missing, and the events do not tell it")),
        }
    }

    /// A list of texts; none where it is absent.
    fn names(&self, member: &str) -> Result<Vec<&str>, Error> {
        let wrong = || {
            Error::at(
                format!("{}.{member}", self.at),
                "is no list of names",
                format!("Write \"{member}\": [\"order.created\", …]."),
            )
        };
        match self.sync.get(member) {
            None | Some(Value::Null) => Ok(Vec::new()),
            Some(Value::Array(names)) => names.iter().map(|name| name.as_str().ok_or_else(wrong)).collect(),
            Some(_) => Err(wrong()),
        }
    }

    fn rules(&self, entity_type: &str) -> Result<Rules, Error> {
        let at = format!("{}.rules", self.at);
        let example = "Add \"rules\": {\"created\": {\"rule\": \"create\"}, \"item_added\": {\"rule\": \"append\", \"field\": \"items\", \
                       \"value\": \"item\"}, \"state_changed\": {\"rule\": \"set\", \"fields\": [\"status\"]}, \"deleted\": {\"rule\": \"delete\"}}.";
        let short = |name: &str| {
            name.strip_prefix(entity_type).and_then(|name| name.strip_prefix('.')).unwrap_or(name).to_owned()
        };
        let declared = match self.sync.get("rules") {
            None => return Err(Error::at(at, "is missing: how do events change the state?", example)),
            Some(Value::Object(rules)) => {
                Value::Object(rules.iter().map(|(name, rule)| (short(name), rule.clone())).collect())
            }
            Some(other) => other.clone(),
        };
        let rules = Rules::parse(&declared).map_err(|error| Error::at(&at, error.to_string(), example))?;
        for event in self.names("events")? {
            if rules.get(&short(event)).is_none() {
                return Err(Error::at(
                    at,
                    format!("has no rule for the event {event:?}"),
                    format!(
                        "Add \"{}\": {{\"rule\": \"set\"}}, or one of create, unset, append, remove, increment, delete, ignore, custom.",
                        short(event)
                    ),
                ));
            }
        }
        Ok(rules)
    }

    /// The schema of a state: named, or that of the path's answer, or the component of the entity's name.
    fn state(&self, entity_type: &str) -> Result<Value, Error> {
        let at = format!("{}.schema", self.at);
        let remedy = format!(
            "Add \"schema\": \"#/components/schemas/{entity_type}\", and under components.schemas \"{entity_type}\": \
             {{\"type\": \"object\", \"properties\": {{\"id\": {{\"type\": \"string\"}}, …}}, \"required\": [\"id\"]}}."
        );
        let schema = match self.sync.get("schema") {
            Some(Value::String(reference)) => json!({"$ref": reference}),
            Some(schema) => schema.clone(),
            None => self
                .answer()
                .or_else(|| self.component(&[entity_type, &crate::names::pascal(entity_type)]))
                .ok_or_else(|| {
                    Error::at(&at, format!("is missing: what does a state of {entity_type:?} look like?"), &remedy)
                })?,
        };
        let schema = schema::resolve(self.document, &schema, &at)?;
        if schema::properties(&schema).is_empty() {
            return Err(Error::at(at, format!("the schema of {entity_type:?} has no properties"), remedy));
        }
        Ok(schema)
    }

    fn answer(&self) -> Option<Value> {
        let schema = self.operation?.pointer("/responses/200/content/application~1json/schema")?;
        Some(schema.pointer("/properties/state").unwrap_or(schema).clone())
    }

    fn component(&self, names: &[&str]) -> Option<Value> {
        let schemas = self.document.pointer("/components/schemas")?;
        names
            .iter()
            .find(|name| schemas.get(**name).is_some())
            .map(|name| json!({"$ref": format!("#/components/schemas/{}", name.replace('~', "~0").replace('/', "~1"))}))
    }

    fn key(&self, state: &Value) -> Result<Vec<String>, Error> {
        let known = |name: &str| state.pointer("/properties").and_then(|properties| properties.get(name)).is_some();
        let names = self.names("key")?;
        if let Some(unknown) = names.iter().find(|name| !known(name)) {
            return Err(Error::at(
                format!("{}.key", self.at),
                format!("{unknown:?} is no property of the state"),
                "Name the columns that make up entity_id, as \"key\": [\"id\"].",
            ));
        }
        if names.is_empty() && known("id") {
            return Ok(vec!["id".to_owned()]);
        }
        Ok(names.into_iter().map(str::to_owned).collect())
    }

    /// The schema of a payload: named in `x-sync.payloads`, or the component of the event's name, or what its rule makes of the state.
    fn payload(
        &self,
        entity_type: &str,
        name: &str,
        rule: &Rule,
        state: &Value,
        key: &[String],
    ) -> Result<Value, Error> {
        let full = format!("{entity_type}.{name}");
        let at = format!("components.schemas.{full}");
        let payloads = self.sync.get("payloads");
        let named =
            payloads.and_then(|payloads| payloads.get(&full).or_else(|| payloads.get(name))).map(
                |schema| match schema {
                    Value::String(reference) => json!({"$ref": reference}),
                    schema => schema.clone(),
                },
            );
        let pascal = crate::names::pascal(&full);
        if let Some(schema) = named.or_else(|| self.component(&[&full, &pascal, &format!("{pascal}Payload")])) {
            if let Some(reference) = schema.get("$ref").and_then(Value::as_str) {
                pointed(self.document, reference, &format!("{}.payloads.{name}", self.at))?;
            }
            return schema::resolve(self.document, &schema, &at);
        }
        let fixed: Vec<&str> = ["tenant_column", "user_column"]
            .iter()
            .filter_map(|member| self.sync.get(*member).and_then(Value::as_str))
            .chain(key.iter().map(String::as_str))
            .collect();
        told_by_rule(rule, state, &fixed).ok_or_else(|| {
            Error::at(
                &at,
                format!("is missing: what does the payload of {full:?} hold?"),
                format!("Add it under components.schemas: \"{full}\": {{\"type\": \"object\", \"properties\": {{…}}, \"required\": […]}}."),
            )
        })
    }

    fn captures(&self, entity_type: &str) -> Result<Vec<String>, Error> {
        let declared = self.names("capture")?;
        if self.sync.get("capture").is_none() {
            return Ok(CAPTURES.map(str::to_owned).into());
        }
        // Others are for newer generators.
        let short = declared
            .iter()
            .map(|name| name.strip_prefix(entity_type).and_then(|name| name.strip_prefix('.')).unwrap_or(name));
        Ok(short.filter(|name| CAPTURES.contains(name)).map(str::to_owned).collect())
    }
}

/// A column of no known type that events append to holds a list.
fn sharpen(schema: &mut Value, rules: &Rules) {
    let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) else { return };
    for (_, rule) in rules.iter() {
        let (Rule::Append { field, .. } | Rule::Remove { field, .. }) = rule else { continue };
        if let Some(Value::Object(members)) = properties.get_mut(field)
            && ["type", "anyOf", "allOf", "enum", "const"].iter().all(|word| !members.contains_key(*word))
        {
            members.insert("type".to_owned(), json!(["array", "null"]));
            members.entry("items").or_insert(json!({}));
        }
    }
}

/// What a payload must hold for its rule; none where the rule does not tell.
fn told_by_rule(rule: &Rule, state: &Value, fixed: &[&str]) -> Option<Value> {
    let of = |field: &str| {
        state.pointer("/properties").and_then(|properties| properties.get(field)).cloned().unwrap_or_else(|| json!({}))
    };
    let element = |field: &str| of(field).get("items").cloned().unwrap_or_else(|| json!({}));
    let with = |pairs: Vec<(String, Value)>, required: bool| {
        let names: Vec<String> = pairs.iter().map(|(name, _)| name.clone()).collect();
        let mut schema = json!({"type": "object", "properties": pairs.into_iter().collect::<Map<_, _>>()});
        if required {
            schema["required"] = json!(names);
        }
        schema
    };
    Some(match rule {
        Rule::Create | Rule::Set { fields: None } => {
            let settable = schema::properties(state).into_iter().filter(|(name, property)| {
                !fixed.contains(&name.as_str()) && property.get("readOnly") != Some(&Value::Bool(true))
            });
            let mut schema = with(settable.map(|(name, property)| (name.clone(), property.clone())).collect(), false);
            schema["additionalProperties"] = Value::Bool(false);
            schema
        }
        Rule::Set { fields: Some(fields) } => {
            let mut schema = with(fields.iter().map(|field| (field.clone(), of(field))).collect(), false);
            schema["minProperties"] = json!(1);
            schema
        }
        Rule::Append { field, value } => with(vec![(value.clone(), element(field))], true),
        Rule::Remove { field, elements: Elements::Equal(key) } => with(vec![(key.clone(), element(field))], true),
        Rule::Remove { field, elements: Elements::Where(pairs) } => {
            let member =
                |name: &str| element(field).pointer("/properties").and_then(|members| members.get(name)).cloned();
            with(
                pairs.iter().map(|(name, key)| (key.clone(), member(name).unwrap_or_else(|| json!({})))).collect(),
                true,
            )
        }
        Rule::Increment { by, .. } => with(
            vec![(by.clone(), json!({"anyOf": [{"type": "number"}, {"type": "string", "description": "A decimal."}]}))],
            true,
        ),
        Rule::Unset { .. } | Rule::Delete | Rule::Ignore => json!({"type": "object"}),
        Rule::Custom { .. } => return None,
    })
}

/// What triggers record: the row, what changed of it, or its key.
fn captured(name: &str, state: &Value, key: &[String]) -> Value {
    let mut schema = state.clone();
    let only_key = |schema: &mut Value| {
        if let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) {
            properties.retain(|name, _| key.contains(name));
        }
        schema["required"] = json!(key);
    };
    match name {
        "created" => {}
        "updated" => schema["required"] = json!([]),
        "deleted" if !key.is_empty() => only_key(&mut schema),
        _ => return json!({"type": "object"}),
    }
    schema
}

/// A property of a state as this device knows it: what only the server fills in may be missing until it has.
pub(crate) fn is_always_known(entity: &Entity, name: &str) -> bool {
    let made_here = entity.events.values().filter(|event| event.rule == Rule::Create);
    entity.key.iter().any(|column| column == name)
        || (schema::requires(&entity.state, name)
            && made_here.into_iter().all(|event| schema::requires(&event.payload, name)))
}

/// The property's schema in a state: an `unset` leaves null.
pub(crate) fn in_state(entity: &Entity, name: &str, property: &Value) -> Value {
    let unset = entity
        .events
        .values()
        .any(|event| matches!(&event.rule, Rule::Unset { fields } if fields.iter().any(|field| field == name)));
    if unset { nullable(property.clone()) } else { property.clone() }
}
