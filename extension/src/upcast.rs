//! `headwater.upcast`: how payloads of an older schema version become present ones.

use headwater_model::event::is_name;
use headwater_model::upcast::{Shape, Upcast, UpcastError, Upcasts};
use pgrx::PgSqlErrorCode;
use pgrx::pg_sys::Oid;
use pgrx::prelude::*;

use crate::custom;
use crate::jsonb::JsonB;
use crate::raise::raise;

#[pg_extern(sql = false)]
fn upcast(event_type: &str, from_version: i32, rule: JsonB) -> i32 {
    let (entity_type, shape) = match event_type.split_once('.') {
        None => (event_type, Shape::State),
        Some((entity_type, name)) => (entity_type, Shape::Event(name)),
    };
    let mut upcast = Upcast::parse(&rule.0).unwrap_or_else(|error| refuse(&error));
    for function in upcast.functions_mut() {
        *function = custom::qualified(function, 1).unwrap_or_else(|why| {
            raise(
                PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
                format!("function \"{function}\" cannot be a step: {why}"),
                "create function app.lift(payload jsonb) returns jsonb immutable …",
            )
        });
    }
    Spi::connect_mut(|client| {
        let get = "the registry's columns are not null";
        let found = client
            .update(
                "select e.relation::oid, e.schema_version, e.upcasts from headwater.entity e where e.entity_type = $1 for update",
                Some(1),
                &[entity_type.into()],
            )
            .expect("the query is ours")
            .next()
            .filter(|_| is_name(entity_type))
            .map(|row| {
                let relation: Oid = row.get(1).expect(get).expect(get);
                let version: i32 = row.get(2).expect(get).expect(get);
                let upcasts: JsonB = row.get(3).expect(get).expect(get);
                (relation, Upcasts::parse(version, &upcasts.0).expect("upcast has checked them"))
            });
        let Some((relation, mut upcasts)) = found else {
            raise(
                PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT,
                format!("no table is entity \"{entity_type}\", as in \"{event_type}\""),
                "select * from headwater.syncable_tables() lists them.",
            )
        };
        // Its owner, for a custom step is code that runs for whoever reads.
        client
            .update("select headwater.require_owner($1::oid::regclass)", None, &[relation.into()])
            .expect("the query is ours");
        upcasts.declare(shape, from_version, upcast).unwrap_or_else(|error| refuse(&error));
        client
            .update(
                "update headwater.entity set schema_version = $2, upcasts = $3 where entity_type = $1",
                None,
                &[entity_type.into(), upcasts.version().into(), JsonB(upcasts.to_json()).into()],
            )
            .expect("the statement is ours");
        client
            .update(
                "select headwater.invalidate(member) from headwater.members($1::oid::regclass) member",
                None,
                &[relation.into()],
            )
            .expect("the query is ours");
        upcasts.version()
    })
}

fn refuse(error: &UpcastError) -> ! {
    raise(
        PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
        error.to_string(),
        "See \\df+ headwater.upcast for the forms that a rule takes.",
    )
}
