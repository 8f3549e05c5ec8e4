//! JSON Schema: references followed, unknown words left out, and written as types of TypeScript.

use crate::error::Error;
use crate::literal;
use serde_json::{Map, Value, json};

/// The words that count; everything else (examples, formats of others) says nothing to the client.
const KNOWN: [&str; 22] = [
    "additionalProperties",
    "allOf",
    "anyOf",
    "const",
    "description",
    "enum",
    "format",
    "items",
    "maxLength",
    "maximum",
    "minLength",
    "minProperties",
    "minimum",
    "oneOf",
    "pattern",
    "properties",
    "readOnly",
    "required",
    "type",
    "nullable",
    "x-postgres",
    "deprecated",
];

/// A schema without references: `resolve` makes it.
///
/// A recursive reference becomes "any JSON": a type of TypeScript that is written out has no name to come back to.
pub fn resolve(document: &Value, schema: &Value, at: &str) -> Result<Value, Error> {
    Resolver { document, open: Vec::new() }.schema(schema, at)
}

struct Resolver<'a> {
    document: &'a Value,
    /// The references that are being followed.
    open: Vec<String>,
}

impl Resolver<'_> {
    fn schema(&mut self, schema: &Value, at: &str) -> Result<Value, Error> {
        let members = match schema {
            Value::Bool(true) => return Ok(json!({})),
            Value::Object(members) => members,
            other => {
                return Err(Error::at(
                    at,
                    format!("{other} is no schema"),
                    "Write an object, as {\"type\": \"string\"}; {} stands for any JSON.",
                ));
            }
        };
        let mut resolved = Map::new();
        if let Some(reference) = members.get("$ref") {
            let reference = reference.as_str().unwrap_or_default();
            if self.open.iter().any(|open| open == reference) {
                return Ok(json!({}));
            }
            let target = pointed(self.document, reference, at)?;
            self.open.push(reference.to_owned());
            let target = self.schema(target, reference.trim_start_matches("#/"))?;
            self.open.pop();
            resolved = target.as_object().cloned().unwrap_or_default();
        }
        for (name, value) in literal::sorted(members) {
            if !KNOWN.contains(&name.as_str()) {
                continue;
            }
            let at = format!("{at}.{name}");
            let value = match (name.as_str(), value) {
                ("properties", Value::Object(properties)) => {
                    let mut inner = Map::new();
                    for (name, schema) in literal::sorted(properties) {
                        inner.insert(name.clone(), self.schema(schema, &format!("{at}.{name}"))?);
                    }
                    Value::Object(inner)
                }
                ("items", schema) | ("additionalProperties", schema @ Value::Object(_)) => self.schema(schema, &at)?,
                ("anyOf" | "oneOf" | "allOf", Value::Array(schemas)) => Value::Array(
                    schemas
                        .iter()
                        .enumerate()
                        .map(|(index, schema)| self.schema(schema, &format!("{at}.{index}")))
                        .collect::<Result<_, _>>()?,
                ),
                (_, value) => value.clone(),
            };
            resolved.insert(name.clone(), value);
        }
        // OpenAPI 3.0's way of saying it.
        if resolved.remove("nullable") == Some(Value::Bool(true)) {
            return Ok(nullable(Value::Object(resolved)));
        }
        // "Exactly one of" says no more than "one of" to whoever holds a value.
        if let Some(one_of) = resolved.remove("oneOf") {
            resolved.entry("anyOf").or_insert(one_of);
        }
        Ok(Value::Object(resolved))
    }
}

/// What a reference within the document leads to.
pub(crate) fn pointed<'a>(document: &'a Value, reference: &str, at: &str) -> Result<&'a Value, Error> {
    let Some(pointer) = reference.strip_prefix('#') else {
        return Err(Error::at(
            at,
            format!("the reference {reference:?} leads out of the document"),
            "Copy what it leads to under components.schemas, and refer to that as \"#/components/schemas/…\".",
        ));
    };
    document.pointer(pointer).ok_or_else(|| {
        Error::at(
            at,
            format!("the reference {reference:?} leads to nothing"),
            format!(
                "Add it to the document at {}, or mend the reference.",
                pointer.trim_start_matches('/').replace('/', ".")
            ),
        )
    })
}

/// The schema, or null.
pub(crate) fn nullable(schema: Value) -> Value {
    if types(&schema).iter().any(|kind| kind == "null") {
        return schema;
    }
    match schema {
        Value::Object(mut members) if members.contains_key("type") && !members.contains_key("enum") => {
            let mut kinds = types(&Value::Object(members.clone()));
            kinds.push("null".to_owned());
            members.insert("type".to_owned(), json!(kinds));
            Value::Object(members)
        }
        schema if schema.as_object().is_some_and(Map::is_empty) => schema,
        schema => json!({"anyOf": [schema, {"type": "null"}]}),
    }
}

/// The types that a schema names; none where it takes any.
pub(crate) fn types(schema: &Value) -> Vec<String> {
    match schema.get("type") {
        Some(Value::String(kind)) => vec![kind.clone()],
        Some(Value::Array(kinds)) => kinds.iter().filter_map(|kind| kind.as_str().map(str::to_owned)).collect(),
        _ => Vec::new(),
    }
}

/// The properties of an object's schema, in the order of their names.
pub(crate) fn properties(schema: &Value) -> Vec<(&String, &Value)> {
    schema
        .get("properties")
        .and_then(Value::as_object)
        .map(|members| literal::sorted(members).collect())
        .unwrap_or_default()
}

/// Whether the schema of an object requires a property.
pub(crate) fn requires(schema: &Value, name: &str) -> bool {
    schema.get("required").and_then(Value::as_array).is_some_and(|names| names.iter().any(|one| one == name))
}

/// The type of TypeScript that takes what a resolved schema takes.
pub fn type_of(schema: &Value, indent: usize) -> String {
    let mut parts = union_of(schema, indent);
    let mut seen = Vec::new();
    parts.retain(|part| {
        !seen.contains(part) && {
            seen.push(part.clone());
            true
        }
    });
    if parts.iter().any(|part| part == "hw.Json") {
        return "hw.Json".to_owned();
    }
    // Null last, as people write it.
    parts.sort_by_key(|part| part == "null");
    parts.join(" | ")
}

fn union_of(schema: &Value, indent: usize) -> Vec<String> {
    if let Some(value) = schema.get("const") {
        return vec![literal::one_line(value)];
    }
    if let Some(values) = schema.get("enum").and_then(Value::as_array) {
        return if values.is_empty() {
            vec!["never".to_owned()]
        } else {
            values.iter().map(literal::one_line).collect()
        };
    }
    if let Some(schemas) = schema.get("anyOf").and_then(Value::as_array) {
        return schemas.iter().flat_map(|schema| union_of(schema, indent)).collect();
    }
    if let Some(schemas) = schema.get("allOf").and_then(Value::as_array) {
        let own = schema.get("properties").is_some().then(|| object(schema, indent));
        let parts: Vec<String> = schemas.iter().map(|schema| type_of(schema, indent)).chain(own).collect();
        let joined = parts.iter().map(|part| if part.contains(" | ") { format!("({part})") } else { part.clone() });
        return vec![joined.collect::<Vec<_>>().join(" & ")];
    }
    let kinds = types(schema);
    if kinds.is_empty() {
        return vec![if schema.get("properties").is_some() { object(schema, indent) } else { "hw.Json".to_owned() }];
    }
    kinds
        .iter()
        .map(|kind| match kind.as_str() {
            "string" => "string".to_owned(),
            "number" | "integer" => "number".to_owned(),
            "boolean" => "boolean".to_owned(),
            "null" => "null".to_owned(),
            "array" => array(schema, indent),
            "object" => object(schema, indent),
            _ => "hw.Json".to_owned(),
        })
        .collect()
}

fn array(schema: &Value, indent: usize) -> String {
    let element = schema.get("items").map_or_else(|| "hw.Json".to_owned(), |items| type_of(items, indent));
    if element.contains(" | ") || element.contains(" & ") {
        format!("readonly ({element})[]")
    } else {
        format!("readonly {element}[]")
    }
}

fn object(schema: &Value, indent: usize) -> String {
    let properties = properties(schema);
    if properties.is_empty() {
        return match schema.get("additionalProperties") {
            Some(Value::Bool(false)) => "{ readonly [name: string]: never }".to_owned(),
            Some(inner @ Value::Object(_)) => format!("{{ readonly [name: string]: {} }}", type_of(inner, indent)),
            _ => "hw.JsonObject".to_owned(),
        };
    }
    let lines: Vec<String> = properties
        .into_iter()
        .map(|(name, property)| {
            let optional = if requires(schema, name) { "" } else { "?" };
            let pad = " ".repeat(indent + 2);
            let about = about(property).map(|text| format!("{pad}/** {text} */\n")).unwrap_or_default();
            format!("{about}{pad}readonly {}{optional}: {};\n", literal::member(name), type_of(property, indent + 2))
        })
        .collect();
    format!("{{\n{}{}}}", lines.concat(), " ".repeat(indent))
}

/// What the type alone does not say.
fn about(schema: &Value) -> Option<String> {
    let text = |name: &str| schema.get(name).and_then(Value::as_str).map(literal::comment);
    let postgres = text("x-postgres").filter(|kind| !matches!(kind.as_str(), "text" | "boolean"));
    match (text("description"), postgres) {
        (Some(description), Some(kind)) => Some(format!("{description} ({kind})")),
        (Some(text), None) | (None, Some(text)) => Some(text),
        (None, None) => text("format"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schemas_become_types() {
        let check = |schema: Value, expected: &str| assert_eq!(type_of(&schema, 0), expected, "{schema}");
        check(json!({}), "hw.Json");
        check(json!({"type": "integer", "format": "int32"}), "number");
        check(json!({"type": ["null", "string"]}), "string | null");
        check(json!({"enum": ["glad", "sad", null], "type": ["string", "null"]}), "'glad' | 'sad' | null");
        check(json!({"const": "it's"}), r"'it\'s'");
        check(json!({"anyOf": [{"type": "number"}, {"enum": ["NaN"]}, {"type": "null"}]}), "number | 'NaN' | null");
        check(json!({"anyOf": [{}, {"type": "null"}]}), "hw.Json");
        check(
            json!({"type": ["array", "null"], "items": {"type": ["integer", "null"]}}),
            "readonly (number | null)[] | null",
        );
        check(json!({"type": "array"}), "readonly hw.Json[]");
        check(json!({"type": "object"}), "hw.JsonObject");
        check(json!({"type": "object", "additionalProperties": false}), "{ readonly [name: string]: never }");
        check(
            json!({"type": "object", "additionalProperties": {"type": "number"}}),
            "{ readonly [name: string]: number }",
        );
        check(
            json!({"properties": {"a b": {"type": "string"}, "c": {}}, "required": ["c"]}),
            "{\n  readonly 'a b'?: string;\n  readonly c: hw.Json;\n}",
        );
        check(
            json!({"allOf": [{"properties": {"a": {"type": "null"}}}, {"type": ["object", "null"]}]}),
            "{\n  readonly a?: null;\n} & (hw.JsonObject | null)",
        );
    }

    #[test]
    fn references_are_followed_within_the_document_only() {
        let document = json!({"components": {"schemas": {
            "Id": {"type": "string", "format": "uuid", "example": "x"},
            "Tree": {"type": "object", "properties": {"left": {"$ref": "#/components/schemas/Tree"}}}}}});
        let follow = |schema: Value| resolve(&document, &schema, "here").map_err(|error| error.to_string());
        assert_eq!(
            follow(json!({"$ref": "#/components/schemas/Id", "x-postgres": "uuid"})),
            Ok(json!({"type": "string", "format": "uuid", "x-postgres": "uuid"}))
        );
        assert_eq!(
            follow(json!({"$ref": "#/components/schemas/Tree"})),
            Ok(json!({"type": "object", "properties": {"left": {}}}))
        );
        assert_eq!(follow(json!({"type": "string", "nullable": true})), Ok(json!({"type": ["string", "null"]})));
        let missing = follow(json!({"items": {"$ref": "#/components/schemas/No"}})).expect_err("leads to nothing");
        assert!(missing.starts_with("here.items: ") && missing.contains("components.schemas.No"), "{missing}");
        assert!(follow(json!({"$ref": "other.json#/a"})).expect_err("leads out").contains("Copy"));
        assert!(follow(json!(7)).expect_err("no schema").contains("7 is no schema"));
    }
}
