//! Events: as a client sends them, and as the fold reads them back.

use std::fmt;

use serde_json::{Map, Value};
use uuid::Uuid;

use crate::clock::Micros;

/// The longest name of an entity type or of an event: what a Postgres identifier holds (`NAMEDATALEN` - 1).
pub const MAX_NAME_BYTES: usize = 63;
/// The longest entity id. It stands in index rows, which Postgres bounds at about 2,700 bytes.
pub const MAX_ENTITY_ID_BYTES: usize = 1024;
/// The longest `client_id`, `user_id`, `tenant_id` and `idempotency_key`.
pub const MAX_TEXT_BYTES: usize = 256;
/// The largest payload as JSON text. An event travels to every reader and is folded again and again;
/// larger things belong into an object store, with their address in the event.
pub const MAX_PAYLOAD_BYTES: usize = 1024 * 1024;
/// The deepest nesting of a payload.
pub const MAX_PAYLOAD_DEPTH: usize = 64;

/// Why an event was refused: a stable code for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// No enabled entity declares this event.
    UnknownEventType,
    /// The event is malformed, or its payload does not fit its rule or the table.
    InvalidPayload,
    /// The table's own constraints refuse what the event would make of the row.
    ConstraintViolation,
    /// The caller may not do this.
    Forbidden,
    /// The id, or the idempotency key, was used before for a different event.
    Conflict,
    /// The entity has moved on since `expected_position`.
    VersionConflict,
    /// The client's clock stands too far ahead.
    ClockSkew,
    /// Older than what has been folded into snapshots for good.
    TooLate,
    /// No such schema version is declared.
    UnsupportedVersion,
    /// The event exceeds a limit.
    TooLarge,
    /// The entity was erased, for good.
    Erased,
}

impl Code {
    /// The code as it travels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::UnknownEventType => "unknown_event_type",
            Self::InvalidPayload => "invalid_payload",
            Self::ConstraintViolation => "constraint_violation",
            Self::Forbidden => "forbidden",
            Self::Conflict => "conflict",
            Self::VersionConflict => "version_conflict",
            Self::ClockSkew => "clock_skew",
            Self::TooLate => "too_late",
            Self::UnsupportedVersion => "unsupported_version",
            Self::TooLarge => "too_large",
            Self::Erased => "erased",
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A refusal: a code for programs and a reason for people.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {reason}")]
pub struct Reject {
    /// The stable code.
    pub code: Code,
    /// What was wrong, with which value, and what would be right.
    pub reason: String,
}

impl Reject {
    /// A refusal with `code`, for `reason`.
    pub fn new(code: Code, reason: impl Into<String>) -> Self {
        Self { code, reason: reason.into() }
    }
}

/// An event as a client sends it, well formed: names, lengths and types are right, nothing is known yet of its entity.
#[derive(Clone, Debug, PartialEq)]
pub struct NewEvent {
    /// The client's id for it, the same at every retry.
    pub id: Uuid,
    /// `order`
    pub entity_type: String,
    /// `order.item_added`
    pub event_type: String,
    /// The entity's key as text, see [`crate::key`].
    pub entity_id: String,
    /// What happened.
    pub payload: Map<String, Value>,
    /// When it happened, by the client's clock.
    pub timestamp: Micros,
    /// The version of the payload's form.
    pub schema_version: i32,
    /// Which device sent it.
    pub client_id: Option<String>,
    /// Who, as the body claims it.
    pub user_id: Option<String>,
    /// Whose, as the body claims it.
    pub tenant_id: Option<String>,
    /// A second name under which a retry is recognised.
    pub idempotency_key: Option<String>,
    /// The position of the entity's latest event that the client knew, if the event depends on it.
    pub expected_position: Option<i64>,
}

impl NewEvent {
    /// Reads one event of a batch. Unknown members are ignored, so that newer clients can talk to older servers.
    pub fn parse(value: Value) -> Result<Self, Reject> {
        let Value::Object(mut members) = value else {
            return Err(invalid(format!("an event is a JSON object, not {}", kind(&value))));
        };
        let members = &mut members;
        let id = parse_id(&text(members, "id", MAX_TEXT_BYTES)?)?;
        let entity_type = text(members, "entity_type", MAX_NAME_BYTES)?;
        let event_type = text(members, "event_type", 2 * MAX_NAME_BYTES + 1)?;
        if name_of(&event_type, &entity_type).is_none() {
            let reason = format!(
                "event_type {event_type:?} does not belong to entity_type {entity_type:?}; it would read {entity_type}.<event>"
            );
            return Err(Reject::new(Code::UnknownEventType, reason));
        }
        let sent = text(members, "timestamp", MAX_TEXT_BYTES)?;
        let timestamp = Micros::parse(&sent).ok_or_else(|| {
            invalid(format!("timestamp {sent:?} is not RFC 3339; write it like 2026-11-22T12:40:00.000000Z"))
        })?;
        Ok(Self {
            id,
            entity_type,
            event_type,
            entity_id: text(members, "entity_id", MAX_ENTITY_ID_BYTES)?,
            payload: payload(members)?,
            timestamp,
            schema_version: integer(members, "schema_version", 1)?.map_or(Ok(1), |version| {
                i32::try_from(version).map_err(|_| invalid(format!("schema_version {version} is too large")))
            })?,
            client_id: optional_text(members, "client_id")?,
            user_id: optional_text(members, "user_id")?,
            tenant_id: optional_text(members, "tenant_id")?,
            idempotency_key: optional_text(members, "idempotency_key")?,
            expected_position: integer(members, "expected_position", 0)?,
        })
    }

    /// The event's name within its entity: `item_added` of `order.item_added`.
    pub fn name(&self) -> &str {
        name_of(&self.event_type, &self.entity_type).unwrap_or_default()
    }
}

/// A stored event as the fold reads it.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredEvent {
    /// When it happened; the first half of its place in the order.
    pub occurred_at: Micros,
    /// Its id; the second half.
    pub id: Uuid,
    /// Its name within the entity: `item_added`.
    pub name: String,
    /// Recorded by the capture triggers: folds by create, set and delete, whatever rule bears the same name.
    pub captured: bool,
    /// What happened.
    pub payload: Map<String, Value>,
}

impl StoredEvent {
    /// Whether it is what a table's defaults filled in: such an event sets only what the state lacks, so that it yields
    /// to every other event of the same life, whichever of them arrived first.
    pub fn fills(&self) -> bool {
        self.captured && self.id.get_version_num() == FILL_VERSION
    }

    /// Its place among the events of its entity. Ids compare as their lower-case text does.
    pub fn order(&self) -> (Micros, Uuid) {
        (self.occurred_at, self.id)
    }
}

/// The event's name within its entity, if the type is one of the entity's.
pub fn name_of<'a>(event_type: &'a str, entity_type: &str) -> Option<&'a str> {
    event_type.strip_prefix(entity_type)?.strip_prefix('.').filter(|name| !name.is_empty())
}

/// Whether `name` can name an entity or an event: lower-case letters, digits and `_`, a letter first.
///
/// Both become parts of file names, functions and types in the generated client.
pub fn is_name(name: &str) -> bool {
    name.len() <= MAX_NAME_BYTES
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

/// What marks the id of a fill: UUIDv8, the version that RFC 9562 leaves to applications. It sorts behind the v4 or v7
/// id that it is derived from.
pub const FILL_VERSION: usize = 8;

/// The id of a fill behind the event `id`: its bits but for the version, so that it sorts shortly behind it and fills sort
/// as their causes do, and in the end a few random ones. `None` if no UUIDv8 sorts behind that id.
pub fn id_of_fill(id: Uuid, random: u128) -> Option<Uuid> {
    const RANDOM: u128 = (1 << 22) - 1;
    let fill =
        uuid::Builder::from_u128((id.as_u128() & !RANDOM) | (random & RANDOM)).with_version(uuid::Version::Custom);
    let fill = fill.with_variant(uuid::Variant::RFC4122).into_uuid();
    (fill > id).then_some(fill)
}

/// An id shortly behind `id`, under which what triggers made of an event is recorded: of the same instant, it sorts
/// behind that event and before anybody else's. `None` behind the last ids of all.
///
/// Not the very next one: a device that counts its ids up by one may give that to its next event. `gap` is random.
pub fn id_behind(id: Uuid, gap: u32) -> Option<Uuid> {
    const NEAREST: u128 = 1 << 16;
    let behind = id.as_u128().checked_add(NEAREST + u128::from(gap)).map(Uuid::from_u128)?;
    (behind.get_version_num() != FILL_VERSION).then_some(behind)
}

fn invalid(reason: impl Into<String>) -> Reject {
    Reject::new(Code::InvalidPayload, reason)
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

/// The canonical 36-character form only: other spellings of one id would be told apart by clients.
fn parse_id(text: &str) -> Result<Uuid, Reject> {
    let parsed = if text.len() == 36 { Uuid::try_parse(text).ok() } else { None };
    parsed.ok_or_else(|| invalid(format!("id {text:?} is not a UUID in its 36-character form")))
}

fn text(members: &mut Map<String, Value>, name: &str, max_bytes: usize) -> Result<String, Reject> {
    match members.remove(name) {
        None | Some(Value::Null) => Err(invalid(format!("{name} is missing"))),
        Some(Value::String(text)) if text.is_empty() => Err(invalid(format!("{name} is empty"))),
        Some(Value::String(text)) if text.len() > max_bytes => {
            Err(Reject::new(Code::TooLarge, format!("{name} has {} bytes; at most {max_bytes} are taken", text.len())))
        }
        Some(Value::String(text)) if text.contains('\0') => Err(invalid(format!("{name} contains a NUL character"))),
        Some(Value::String(text)) => Ok(text),
        Some(other) => Err(invalid(format!("{name} is {}; it must be a string", kind(&other)))),
    }
}

fn optional_text(members: &mut Map<String, Value>, name: &str) -> Result<Option<String>, Reject> {
    match members.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(_) => text(members, name, MAX_TEXT_BYTES).map(Some),
    }
}

fn integer(members: &Map<String, Value>, name: &str, min: i64) -> Result<Option<i64>, Reject> {
    match members.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => match value.as_i64() {
            Some(number) if number >= min => Ok(Some(number)),
            _ => Err(invalid(format!("{name} is {value}; it must be an integer of at least {min}"))),
        },
    }
}

fn payload(members: &mut Map<String, Value>) -> Result<Map<String, Value>, Reject> {
    match members.remove("payload") {
        None | Some(Value::Null) => Err(invalid("payload is missing; an event without content carries {}")),
        Some(Value::Object(payload)) => {
            let bytes = serde_json::to_string(&payload).map_or(usize::MAX, |text| text.len());
            if bytes > MAX_PAYLOAD_BYTES {
                return Err(Reject::new(
                    Code::TooLarge,
                    format!("the payload has {bytes} bytes; at most {MAX_PAYLOAD_BYTES} are taken"),
                ));
            }
            if payload.values().any(|value| deeper_than(value, MAX_PAYLOAD_DEPTH - 1)) {
                return Err(Reject::new(
                    Code::TooLarge,
                    format!("the payload is nested deeper than {MAX_PAYLOAD_DEPTH}"),
                ));
            }
            Ok(payload)
        }
        Some(other) => Err(invalid(format!("payload is {}; it must be an object", kind(&other)))),
    }
}

fn deeper_than(value: &Value, levels: usize) -> bool {
    match value {
        Value::Array(items) => levels == 0 || items.iter().any(|item| deeper_than(item, levels - 1)),
        Value::Object(members) => levels == 0 || members.values().any(|member| deeper_than(member, levels - 1)),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn sample() -> Value {
        json!({
            "id": "0190a0a0-0000-7000-8000-000000000001", "entity_type": "order", "event_type": "order.item_added",
            "entity_id": "5", "payload": {"item": {"id": 1}}, "timestamp": "2026-11-22T12:40:00Z", "client_id": "till-2",
            "of_a_newer_client": true
        })
    }

    #[test]
    fn a_well_formed_event_is_taken() {
        let event = NewEvent::parse(sample()).expect("well formed");
        assert_eq!((event.name(), event.schema_version, event.client_id.as_deref()), ("item_added", 1, Some("till-2")));
    }

    #[test]
    fn every_malformed_member_is_refused_by_name() {
        let check = |name: &str, value: Value, code: Code, says: &str| {
            let mut event = sample();
            event[name] = value;
            let reject = NewEvent::parse(event).expect_err(says);
            assert_eq!(reject.code, code, "{reject}");
            assert!(reject.reason.contains(says), "{reject}");
        };
        for name in ["id", "entity_type", "event_type", "entity_id", "timestamp", "payload"] {
            check(name, Value::Null, Code::InvalidPayload, &format!("{name} is missing"));
            check(name, json!(7), Code::InvalidPayload, &format!("{name} is a number"));
        }
        check("id", json!("{0190a0a0-0000-7000-8000-000000000001}"), Code::InvalidPayload, "36-character");
        check("id", json!("0190a0a0000070008000000000000001"), Code::InvalidPayload, "36-character");
        check("event_type", json!("ordered.item"), Code::UnknownEventType, "does not belong");
        check("event_type", json!("order."), Code::UnknownEventType, "does not belong");
        check("timestamp", json!("yesterday"), Code::InvalidPayload, "RFC 3339");
        check("entity_id", json!("x".repeat(MAX_ENTITY_ID_BYTES + 1)), Code::TooLarge, "entity_id has 1025 bytes");
        check("entity_id", json!(""), Code::InvalidPayload, "empty");
        check("client_id", json!("a\0b"), Code::InvalidPayload, "NUL");
        check("payload", json!([]), Code::InvalidPayload, "an array");
        check("payload", json!({"a": "x".repeat(MAX_PAYLOAD_BYTES)}), Code::TooLarge, "bytes");
        check("schema_version", json!(0), Code::InvalidPayload, "at least 1");
        check("expected_position", json!("3"), Code::InvalidPayload, "integer");
        assert!(NewEvent::parse(json!([])).expect_err("no object").reason.contains("an array"));
    }

    #[test]
    fn depth_is_bounded() {
        let nested = |depth: usize| (1..depth).fold(json!({}), |inner, _| json!({ "a": inner }));
        let mut event = sample();
        event["payload"] = nested(MAX_PAYLOAD_DEPTH);
        assert!(NewEvent::parse(event.clone()).is_ok());
        event["payload"] = nested(MAX_PAYLOAD_DEPTH + 1);
        assert_eq!(NewEvent::parse(event).expect_err("too deep").code, Code::TooLarge);
    }

    #[test]
    fn what_the_table_made_sorts_behind_its_cause() {
        for id in ["0190a0a0-0000-7000-8000-000000000001", "0190a0a0-0000-4fff-bfff-ffffffffffff"] {
            let id = Uuid::try_parse(id).expect("an id");
            let fill = id_of_fill(id, 0).expect("a fill");
            assert!(fill.to_string() > id.to_string() && fill.get_version_num() == FILL_VERSION, "{fill}");
            assert!(id_behind(id, u32::MAX).expect("an id").to_string() > id.to_string());
        }
        assert_eq!(id_of_fill(Uuid::from_u128(u128::MAX), 0), None);
        assert_eq!(id_behind(Uuid::from_u128(u128::MAX), 0), None);
    }

    #[test]
    fn names_are_identifiers() {
        for (name, expected) in [
            ("order", true),
            ("line_item2", true),
            ("", false),
            ("Order", false),
            ("2x", false),
            ("a.b", false),
            ("é", false),
        ] {
            assert_eq!(is_name(name), expected, "{name}");
        }
    }
}
