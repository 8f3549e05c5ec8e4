//! `headwater.emit`: a domain event in the caller's own transaction.

use std::borrow::Cow;

use headwater_model::event::{Code, MAX_ENTITY_ID_BYTES, MAX_PAYLOAD_BYTES, MAX_TEXT_BYTES, NewEvent, Reject, is_name};
use pgrx::prelude::*;
use pgrx::{PgSqlErrorCode, Uuid};

use crate::jsonb::JsonB;
use crate::raise::raise;

use crate::clock::{self, pg_uuid};
use crate::custom::Runner;
use crate::head::{has_event, is_erased, object};
use crate::ingest::apply::{self, Prepared};
use crate::ingest::record::{self, Record, Source};
use crate::ingest::{Checked, begin_batch, check, lock_for_record};
use crate::{session, table};

#[pg_extern(sql = false)]
#[allow(clippy::too_many_arguments)]
fn emit(
    event_type: Option<&str>,
    entity_id: Option<&str>,
    payload: Option<JsonB>,
    user_id: Option<String>,
    apply: Option<bool>,
    tenant_id: Option<String>,
    client_id: Option<String>,
    id: Option<Uuid>,
    schema_version: Option<i32>,
) -> Uuid {
    let (Some(event_type), Some(entity_id)) = (event_type, entity_id) else {
        refuse(&Reject::new(Code::InvalidPayload, "event_type and entity_id must not be null"))
    };
    let Some((entity_type, name)) =
        event_type.split_once('.').filter(|(entity, name)| is_name(entity) && is_name(name))
    else {
        refuse(&Reject::new(
            Code::UnknownEventType,
            format!("event_type {event_type:?} does not read <entity>.<event>"),
        ))
    };
    if entity_id.is_empty() || entity_id.len() > MAX_ENTITY_ID_BYTES {
        refuse(&Reject::new(Code::TooLarge, format!("entity_id must have 1 to {MAX_ENTITY_ID_BYTES} bytes")));
    }
    let Some(table) = table::for_writing(entity_type) else {
        refuse(&Reject::new(
            Code::UnknownEventType,
            format!("no enabled table is entity {entity_type:?}, as in {event_type:?}"),
        ))
    };
    let Some(payload) = payload.map_or_else(|| Some(serde_json::Map::new()), |payload| object(payload.0)) else {
        refuse(&Reject::new(Code::InvalidPayload, format!("the payload of {entity_type}.{name} must be a JSON object")))
    };
    // What goes to every client has the limits that hold for what comes from one.
    let bytes = serde_json::to_vec(&payload).map_or(0, |payload| payload.len());
    if bytes > MAX_PAYLOAD_BYTES {
        let reason = format!("the payload has {bytes} bytes; at most {MAX_PAYLOAD_BYTES} are taken");
        refuse(&Reject::new(Code::TooLarge, reason));
    }
    if [&user_id, &tenant_id, &client_id].into_iter().flatten().any(|text| text.len() > MAX_TEXT_BYTES) {
        let reason = format!("user_id, tenant_id and client_id have at most {MAX_TEXT_BYTES} bytes");
        refuse(&Reject::new(Code::TooLarge, reason));
    }
    let mut event = NewEvent {
        id: id.map_or_else(clock::new_id, |id| uuid::Uuid::from_bytes(*id.as_bytes())),
        entity_type: entity_type.to_owned(),
        event_type: event_type.to_owned(),
        entity_id: entity_id.to_owned(),
        payload,
        timestamp: clock::now(),
        schema_version: schema_version.unwrap_or(table.schema_version),
        client_id,
        user_id,
        tenant_id,
        idempotency_key: None,
        expected_position: None,
    };
    let id = event.id;

    // Whose the event is follows from the row; for an entity without one, from the caller.
    let owner = lock_for_record(&table, entity_id).unwrap_or_else(|reject| refuse(&reject));
    event.tenant_id = table.tenant.as_ref().and(owner.and_then(|row| row.tenant).or(event.tenant_id));
    if Spi::connect(|client| has_event(client, entity_type, entity_id, id)) {
        refuse(&Reject::new(Code::Conflict, format!("{entity_type} {entity_id:?} has an event with the id {id}")));
    }
    if Spi::connect(|client| is_erased(client, entity_type, entity_id)) {
        refuse(&Reject::new(Code::Erased, format!("{entity_type} {entity_id:?} was erased")));
    }
    if !(1..=table.schema_version).contains(&event.schema_version) {
        let known = table.schema_version;
        let reason = format!("schema_version {} is not known; the present one is {known}", event.schema_version);
        refuse(&Reject::new(Code::UnsupportedVersion, reason));
    }
    // After the lock: later than all that happened to the entity before.
    let occurred_at = clock::now();
    if apply.unwrap_or(false) {
        let runner = Runner::Role(session::caller(), None);
        let Checked { table, lifted } =
            check(&event, occurred_at, runner).unwrap_or_else(|rejection| refuse(&rejection.reject));
        begin_batch();
        let prepared = Prepared::emitted(table, event, lifted, occurred_at);
        if let Err(rejection) = apply::apply(&[&prepared], session::caller(), None) {
            if rejection.is_overtaken() {
                apply::serialization_failure();
            }
            refuse(&rejection.reject);
        }
    } else {
        let record = Record {
            id,
            tenant: event.tenant_id.map(Cow::Owned),
            entity_type: Cow::Owned(event.entity_type),
            entity_id: Cow::Owned(event.entity_id),
            event_type: Cow::Owned(event.event_type),
            payload: Cow::Owned(event.payload),
            schema_version: event.schema_version,
            occurred_at,
            user_id: event.user_id.map(Cow::Owned),
            client_id: event.client_id.map(Cow::Owned),
            source: Source::Sql,
            applies: false,
        };
        record::record([record]);
    }
    pg_uuid(id)
}

fn refuse(reject: &Reject) -> ! {
    let code = match reject.code {
        Code::UnknownEventType => PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT,
        Code::Forbidden => PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
        _ => PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
    };
    raise(
        code,
        format!("cannot emit: {}", reject.reason),
        "select entity, rules from headwater.syncable_tables() shows what there is.",
    )
}
