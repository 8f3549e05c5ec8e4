//! `headwater.openapi`: the HTTP API and the enabled entities as `OpenAPI` 3.1.
//!
//! `base.json` has what is the same everywhere. Each entity `order` adds
//!
//! * the schemas `order` (a state) and `order.item_added` (the payload of each declared event),
//! * the paths of its snapshot, its states and its histories. The path of its states carries `x-sync`: what a client
//!   needs to keep the entity by itself.

use headwater_model::rules::{Elements, Rule, Rules};
use headwater_model::upcast::Upcasts;
use pgrx::pg_sys::Oid;
use pgrx::prelude::*;
use serde_json::{Map, Value, json};

use crate::jsonb::JsonB;
use crate::spi::read_once;

const BASE: &str = include_str!("openapi/base.json");

/// What capture records, whichever events are declared; `erased` is the tombstone of `headwater.erase`.
const CAPTURED: [&str; 4] = ["created", "updated", "deleted", "erased"];

#[pg_extern(sql = false)]
fn openapi() -> JsonB {
    let mut document: Value = serde_json::from_str(BASE).expect("base.json is JSON");
    document["info"]["version"] = env!("CARGO_PKG_VERSION").into();
    for entity in entities() {
        let name = entity.entity_type.clone();
        let schemas = members(&mut document["components"]["schemas"]);
        schemas.insert(name.clone(), entity.state());
        schemas.extend(entity.rules.iter().map(|(event, rule)| (format!("{name}.{event}"), entity.payload(rule))));
        members(&mut document["paths"]).extend(entity.paths());
    }
    JsonB(document)
}

fn members(value: &mut Value) -> &mut Map<String, Value> {
    value.as_object_mut().expect("base.json has an object here")
}

#[allow(clippy::struct_field_names, reason = "the names that they have in SQL")]
struct Entity {
    entity_type: String,
    key_columns: Vec<String>,
    tenant_column: Option<String>,
    user_column: Option<String>,
    rules: Rules,
    schema_version: i32,
    upcasts: Value,
    notification: Option<String>,
    columns: Vec<Column>,
}

/// A shared column.
struct Column {
    name: String,
    schema: Value,
    settable: bool,
}

fn entities() -> Vec<Entity> {
    #[derive(serde::Deserialize)]
    struct Entry {
        relation: u32,
        entity_type: String,
        key_columns: Vec<String>,
        tenant_column: Option<String>,
        user_column: Option<String>,
        excluded: Vec<String>,
        rules: Value,
        schema_version: i32,
        upcasts: Value,
        notification: Option<String>,
    }
    Spi::connect(|client| {
        let entries: Vec<Entry> = read_once(
            client,
            "select pg_catalog.to_jsonb(e) || pg_catalog.jsonb_build_object('relation', c.oid::int8)
             from headwater.entity e join pg_catalog.pg_class c on c.oid = e.relation where e.enabled order by e.entity_type",
            &[],
        )
        .map(|row| row.get::<JsonB>(1).expect("a jsonb").expect("not null"))
        .map(|entry| serde_json::from_value(entry.0).expect("the columns of the registry are known"))
        .collect();
        entries
            .into_iter()
            .map(|entry| {
                let reserved: Vec<_> = entry
                    .key_columns
                    .iter()
                    .chain(&entry.tenant_column)
                    .chain(&entry.user_column)
                    .chain(&entry.excluded)
                    .cloned()
                    .collect();
                let columns = read_once(
                    client,
                    "select a.attname::text, headwater.type_schema(a.atttypid, a.atttypmod, not a.attnotnull),
                            a.attname = any (headwater.settable_columns($1::oid::regclass, $3))
                     from pg_catalog.pg_attribute a
                     where a.attrelid = $1 and a.attnum > 0 and not a.attisdropped and a.attname <> all ($2::text[])
                     order by a.attnum",
                    &[Oid::from(entry.relation).into(), entry.excluded.clone().into(), reserved.into()],
                )
                .map(|row| {
                    let get = "the catalog's columns are not null";
                    let settable: bool = row.get(3).expect(get).expect(get);
                    let mut schema = row.get::<JsonB>(2).expect(get).expect(get).0;
                    if !settable {
                        schema["readOnly"] = true.into();
                    }
                    Column { name: row.get(1).expect(get).expect(get), schema, settable }
                })
                .collect();
                Entity {
                    entity_type: entry.entity_type,
                    key_columns: entry.key_columns,
                    tenant_column: entry.tenant_column,
                    user_column: entry.user_column,
                    rules: Rules::parse(&entry.rules).expect("enable has checked the rules"),
                    schema_version: entry.schema_version,
                    upcasts: Upcasts::parse(entry.schema_version, &entry.upcasts)
                        .expect("upcast has checked them")
                        .to_json(),
                    notification: entry.notification,
                    columns,
                }
            })
            .collect()
    })
}

impl Entity {
    /// The schema of a state. A state that a client made alone lacks what only the table knows, its defaults.
    fn state(&self) -> Value {
        let properties: Map<_, _> =
            self.columns.iter().map(|column| (column.name.clone(), column.schema.clone())).collect();
        let names: Vec<_> = self.columns.iter().map(|column| column.name.as_str()).collect();
        json!({"type": "object", "properties": properties, "required": names})
    }

    /// The schema of the payload that an event with this rule carries.
    fn payload(&self, rule: &Rule) -> Value {
        let settable = |listed: Option<&Vec<String>>| -> Map<String, Value> {
            self.columns
                .iter()
                .filter(|column| column.settable && listed.is_none_or(|listed| listed.contains(&column.name)))
                .map(|column| (column.name.clone(), column.schema.clone()))
                .collect()
        };
        let of = |properties: Map<String, Value>| {
            let required: Vec<_> = properties.keys().cloned().collect();
            json!({"type": "object", "properties": properties, "required": required})
        };
        let one = |name: &String, schema: Value| of([(name.clone(), schema)].into_iter().collect());
        match rule {
            Rule::Create | Rule::Set { fields: None } => {
                json!({"type": "object", "properties": settable(None), "additionalProperties": false})
            }
            Rule::Set { fields } => {
                json!({"type": "object", "properties": settable(fields.as_ref()), "minProperties": 1})
            }
            Rule::Append { field, value } | Rule::Remove { field, elements: Elements::Equal(value) } => {
                one(value, self.element(field))
            }
            Rule::Remove { elements: Elements::Where(pairs), .. } => {
                of(pairs.values().map(|key| (key.clone(), json!({}))).collect())
            }
            Rule::Increment { by, .. } => {
                one(by, json!({"anyOf": [{"type": "number"}, {"$ref": "#/components/schemas/Decimal"}]}))
            }
            Rule::Unset { .. } | Rule::Delete | Rule::Ignore | Rule::Custom { .. } => json!({"type": "object"}),
        }
    }

    /// The schema of an element of an array column; of a json column nothing is known.
    fn element(&self, field: &str) -> Value {
        let column = self.columns.iter().find(|column| column.name == field);
        column.and_then(|column| column.schema.get("items")).cloned().unwrap_or_else(|| json!({}))
    }

    fn paths(&self) -> [(String, Value); 3] {
        let name = &self.entity_type;
        let prefix = format!("/api/v1/entities/{name}");
        let state = json!({"$ref": format!("#/components/schemas/{name}")});
        let parameter = |name: &str| json!({"$ref": format!("#/components/parameters/{name}")});
        let answer = |description: &str, content_type: &str, schema: Value| {
            let mut content = Map::new();
            content.insert(content_type.to_owned(), json!({"schema": schema}));
            json!({"description": description, "content": content})
        };
        let refused = |description: &str| {
            answer(description, "application/problem+json", json!({"$ref": "#/components/schemas/Problem"}))
        };
        let missing = refused("There is none, or it is somebody else's.");
        let position = json!({"type": "integer"});
        let last = json!({"type": "object", "properties": {
            "timestamp": {"$ref": "#/components/schemas/Instant"}, "id": {"type": "string", "format": "uuid"}}});
        let line = json!({
            "type": "object",
            "description": "A line for each entity: its state, its latest position, its last event. A last line has the cursor to go on from.",
            "properties": {
                "entity_id": {"type": "string"}, "state": state, "position": position,
                "last": last,
                "cursor": {"$ref": "#/components/schemas/Cursor"}}
        });
        let one = json!({
            "type": "object", "required": ["entity_id", "state"],
            "description": "With as_of: that time and the state then. Without: the row as it is, its latest position, its last event.",
            "properties": {"entity_type": {"type": "string"}, "entity_id": {"type": "string"}, "state": state, "position": position,
                "last": last, "as_of": {"$ref": "#/components/schemas/Instant"}}
        });
        let page = json!({
            "type": "object", "required": ["events", "cursor", "has_more"],
            "properties": {"events": {"type": "array", "items": {"$ref": "#/components/schemas/Event"}},
                "cursor": {"type": ["string", "null"], "description": "To go on with, as long as has_more."}, "has_more": {"type": "boolean"}}
        });
        let get = |id: &str, summary: &str, parameters: Value, responses: Value| json!({"operationId": format!("{id}_{name}"), "summary": summary, "tags": [name], "parameters": parameters, "responses": responses});
        [
            (
                format!("{prefix}/snapshot"),
                json!({"get": get("snapshot", "All states, with a cursor: how a new device starts.", json!([parameter("tenant_id")]),
                    json!({"200": answer("The states.", "application/x-ndjson", line)}))}),
            ),
            (
                format!("{prefix}/{{entity_id}}"),
                json!({
                    "x-sync": self.sync(),
                    "get": get("get", "One state.", json!([parameter("path_entity_id"), parameter("as_of"), parameter("tenant_id")]),
                        json!({"200": answer("The state.", "application/json", one), "404": missing,
                            "410": refused("The history that as_of asks for has been dropped.")}))
                }),
            ),
            (
                format!("{prefix}/{{entity_id}}/history"),
                json!({"get": get("history", "The events of one entity, oldest first.",
                    json!([parameter("path_entity_id"), parameter("history_cursor"), parameter("limit"), parameter("tenant_id")]),
                    json!({"200": answer("A page; empty if there is none, or it is somebody else's.", "application/json", page)}))}),
            ),
        ]
    }

    fn sync(&self) -> Value {
        let name = &self.entity_type;
        let full = |event: &str| format!("{name}.{event}");
        let events: Vec<_> = self.rules.iter().map(|(event, _)| full(event)).collect();
        let captured: Vec<_> = CAPTURED.into_iter().map(full).collect();
        let versions: Map<_, _> =
            events.iter().chain(&captured).map(|event| (event.clone(), self.schema_version.into())).collect();
        json!({
            "mode": "events",
            "entity_type": name,
            "schema": format!("#/components/schemas/{name}"),
            "key": self.key_columns,
            "tenant_column": self.tenant_column,
            "user_column": self.user_column,
            "events": events,
            "rules": self.rules.to_json(),
            "capture": captured,
            "schema_versions": versions,
            "upcasts": self.upcasts,
            "notification": self.notification,
            "transport": if self.notification.as_deref() == Some("noop") { "polling" } else { "sse" },
        })
    }
}
