//! Declaring a table syncable: what of `headwater.enable` is easier in Rust than in SQL.

use headwater_model::rules::{Rule, Rules};
use pgrx::pg_sys::{self, Oid};
use pgrx::prelude::*;
use pgrx::{AnyElement, PgSqlErrorCode};

use crate::custom;
use crate::jsonb::JsonB;
use crate::raise::raise;
use serde_json::Value;

/// Reads `events`, which may be of any type that reads well in SQL, and goes on in `headwater.enable_table`.
#[pg_extern(sql = false)]
#[allow(clippy::too_many_arguments)]
fn enable(
    table: Option<Oid>,
    entity: Option<&str>,
    events: Option<AnyElement>,
    key: Option<Vec<Option<String>>>,
    tenant_column: Option<&str>,
    user_column: Option<&str>,
    exclude: Option<Vec<Option<String>>>,
    notification: Option<&str>,
    backfill: Option<bool>,
    grant_client: Option<bool>,
) -> Option<String> {
    let Some(table) = table else {
        refuse("which table? The argument is null", "Name it: select headwater.enable('orders');".to_owned())
    };
    let (key, exclude) = (key.map(|key| names("key", key)), exclude.map(|exclude| names("exclude", exclude)));
    let events = events.and_then(declared).map(JsonB);
    Spi::get_one_with_args(
        "select headwater.enable_table($1::oid::regclass, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
        &[
            table.into(),
            entity.into(),
            events.into(),
            key.into(),
            tenant_column.into(),
            user_column.into(),
            exclude.into(),
            notification.into(),
            backfill.unwrap_or(true).into(),
            grant_client.into(),
        ],
    )
    .expect("enable_table returns one text")
}

/// The elements of the argument `which`, none of them null.
fn names(which: &str, given: Vec<Option<String>>) -> Vec<String> {
    given.into_iter().collect::<Option<_>>().unwrap_or_else(|| {
        refuse(&format!("{which} holds a null"), "Name columns, as in array['id', 'region'].".to_owned())
    })
}

/// The declaration as JSON: from an array of texts, json, jsonb, or a text or untyped literal of either.
fn declared(events: AnyElement) -> Option<Value> {
    let datum = events.datum();
    // SAFETY: each datum is read as the type that Postgres says it has; `unknown` literals are C strings.
    unsafe {
        match events.oid() {
            pg_sys::TEXTARRAYOID | pg_sys::VARCHARARRAYOID => {
                Vec::<Option<String>>::from_datum(datum, false).map(|names| serde_json::json!(names))
            }
            pg_sys::JSONBOID => JsonB::from_datum(datum, false).map(|json| json.0),
            pg_sys::JSONOID => pgrx::Json::from_datum(datum, false).map(|json| json.0),
            pg_sys::TEXTOID | pg_sys::VARCHAROID => String::from_datum(datum, false).map(|text| literal(&text)),
            pg_sys::UNKNOWNOID => {
                let text = std::ffi::CStr::from_ptr(datum.cast_mut_ptr());
                Some(literal(&text.to_string_lossy()))
            }
            _ => refuse(
                "events must be an array of names or jsonb",
                "Write array['created', 'moved'] or '{\"created\": {\"rule\": \"create\"}}'.".to_owned(),
            ),
        }
    }
}

fn literal(text: &str) -> Value {
    if let Ok(json) = serde_json::from_str(text) {
        return json;
    }
    // Not JSON: then an array literal, as '{created,moved}'. Postgres reads it, and says so if it is neither.
    let names: Option<Vec<Option<String>>> =
        Spi::get_one_with_args("select $1::text[]", &[text.into()]).expect("a cast returns one array");
    serde_json::json!(names.unwrap_or_default())
}

#[pg_extern(sql = false)]
fn parse_rules(events: JsonB, settable: Vec<Option<String>>) -> JsonB {
    let settable = names("settable", settable);
    let rules = Rules::parse(&events.0).unwrap_or_else(|error| {
        refuse(&error.to_string(), "See \\df+ headwater.enable for the forms that events takes.".to_owned())
    });
    for (name, rule) in rules.iter() {
        if let Some(field) = rule.fields().into_iter().find(|field| !settable.iter().any(|column| column == field)) {
            refuse(
                &format!("event {name:?}: the rule changes \"{field}\", which is no column that events may set"),
                format!(
                    "Those are {}. The key, the tenant and user columns, generated and excluded ones are not.",
                    settable.join(", ")
                ),
            );
        }
    }
    let mut declared = rules.to_json();
    for (name, rule) in rules.iter() {
        if let Rule::Custom { function } = rule {
            match custom::qualified(function, 2) {
                Ok(qualified) => declared[name]["function"] = qualified.into(),
                Err(why) => refuse(
                    &format!("event {name:?}: function \"{function}\" cannot be a rule: {why}"),
                    "create function app.merge(state jsonb, event jsonb) returns jsonb immutable …".to_owned(),
                ),
            }
        }
    }
    JsonB(declared)
}

#[pg_extern(sql = false)]
fn invalidate(relation: Oid) {
    // SAFETY: sends a message at commit; a relation that is gone has no cache to be dropped from.
    unsafe {
        if pg_sys::SearchSysCacheExists(
            pg_sys::SysCacheIdentifier::RELOID.cast_signed(),
            relation.into(),
            0.into(),
            0.into(),
            0.into(),
        ) {
            pg_sys::CacheInvalidateRelcacheByRelid(relation);
        }
    }
}

fn refuse(what: &str, hint: String) -> ! {
    raise(PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE, what.to_owned(), hint)
}
