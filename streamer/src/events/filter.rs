//! Which events a reader gets: what it may see, and of that what it asked for.

use crate::identity::Reach;
use crate::log::Event;
use crate::registry::Entities;
use headwater_model::clock::Micros;

/// Entity types that a reader may name: each of his channel's events is held against them, on the thread that serves everybody.
/// Whoever wants more takes all.
pub const MOST_ENTITY_TYPES: usize = 100;

/// All conditions must hold; an empty one always does.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Filter {
    /// Whose events. There is no filter without it.
    pub reach: Reach,
    /// Entity types, ascending, each once: who asks for the same shares a channel. Empty: all.
    pub entity_types: Vec<String>,
    /// One entity only.
    entity_id: Option<EntityId>,
    /// Recorded at or after this time. For people, not for going on. For pages only.
    pub recorded_since: Option<Micros>,
    /// Only entities whose notification backend pushes: for streams, not for pages.
    pushed_only: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct EntityId {
    text: String,
    /// As it stands in an event's JSON.
    json: String,
}

impl Filter {
    /// Everything within `reach`.
    pub fn new(reach: Reach) -> Self {
        Self { reach, entity_types: Vec::new(), entity_id: None, recorded_since: None, pushed_only: false }
    }

    /// Only these entity types (comma-separated, spaces ignored), or all.
    #[must_use]
    pub fn of_types(mut self, list: Option<&str>) -> Self {
        let names = list.unwrap_or_default().split(',').map(str::trim).filter(|name| !name.is_empty());
        self.entity_types = names.map(str::to_owned).collect();
        self.entity_types.sort_unstable();
        self.entity_types.dedup();
        self
    }

    /// Only this entity, or all.
    #[must_use]
    pub fn of_entity(mut self, entity_id: Option<String>) -> Self {
        self.entity_id =
            entity_id.map(|text| EntityId { json: serde_json::Value::from(text.as_str()).to_string(), text });
        self
    }

    /// Only what is pushed.
    #[must_use]
    pub fn pushed(self) -> Self {
        Self { pushed_only: true, ..self }
    }

    /// Whether an event of this type, which otherwise fits, is for this reader.
    pub fn pushes(&self, entity_type: &str, entities: &Entities) -> bool {
        !self.pushed_only || entities.backend_of(entity_type).supports_push()
    }

    /// The entity asked for.
    pub fn entity_id(&self) -> Option<&str> {
        self.entity_id.as_ref().map(|id| id.text.as_str())
    }

    /// The entity asked for, as its id stands in an event's JSON.
    pub fn entity_json(&self) -> Option<&str> {
        self.entity_id.as_ref().map(|id| id.json.as_str())
    }

    /// Whether a stream passes this event on.
    pub fn takes(&self, event: &Event, entities: &Entities) -> bool {
        let visible = match &self.reach {
            Reach::Everything => true,
            Reach::Tenant(own) => {
                event.tenant == *own || (event.tenant.is_none() && entities.is_shared(&event.entity_type))
            }
        };
        visible
            && self.pushes(&event.entity_type, entities)
            && (self.entity_types.is_empty()
                || self.entity_types.binary_search_by(|wanted| (**wanted).cmp(&event.entity_type)).is_ok())
            && self.entity_id.as_ref().is_none_or(|id| event.is_of(&id.json))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::EventRow;
    use crate::registry::Entity;
    use bytes::BytesMut;

    fn event(entity_type: &str, tenant: Option<&str>, entity_id: &str) -> Event {
        let row = EventRow {
            position: 1,
            id: "0190b0a0-0000-7000-8000-000000000001",
            tenant_id: tenant,
            entity_type,
            entity_id,
            event_type: ",\"entity_id\":\"forged\"",
            payload: r#"{"entity_id":"forged"}"#,
            schema_version: 1,
            occurred_at: "2026-01-02 03:04:05+00",
            recorded_at: "2026-01-02 03:04:05+00",
            user_id: None,
            client_id: None,
            source: "sql",
            applies: true,
        };
        let mut block = BytesMut::new();
        let id_length = row.write_block("c-1", &mut block);
        Event {
            op: 0,
            entity_type: entity_type.into(),
            tenant: tenant.map(Into::into),
            block: block.freeze(),
            id_length,
        }
    }

    fn entities() -> Entities {
        let entity = |shared| Entity { shared, notification: None };
        Entities::new(1, [("order".to_owned(), entity(false)), ("menu".to_owned(), entity(true))])
    }

    #[test]
    fn types_are_a_list() {
        let check = |list: Option<&str>, entity_type: &str, expected: bool| {
            let filter = Filter::new(Reach::Everything).of_types(list);
            assert_eq!(filter.takes(&event(entity_type, None, "1"), &entities()), expected, "{list:?} {entity_type}");
        };
        check(None, "order", true);
        check(Some(""), "order", true);
        check(Some("order"), "order", true);
        check(Some("a, order ,b"), "order", true);
        check(Some("orders"), "order", false);
        check(Some("z,order,a"), "order", true);
        check(Some("z,order,a"), "a", true);
    }

    #[test]
    fn the_same_wishes_are_equal() {
        let of = |list| Filter::new(Reach::Everything).of_types(Some(list));
        assert_eq!(of("order,menu"), of(" menu ,order,menu,,order"));
        assert_ne!(of("order,menu"), of("order"));
    }

    #[test]
    fn a_tenant_sees_its_own_and_what_is_shared() {
        let check = |reach: Reach, seen: [bool; 5]| {
            let events = [
                event("order", Some("a"), "1"),
                event("order", Some("b"), "1"),
                event("order", None, "1"),
                event("menu", None, "1"),
                event("unknown", None, "1"),
            ];
            let filter = Filter::new(reach);
            assert_eq!(events.map(|event| filter.takes(&event, &entities())), seen, "{filter:?}");
        };
        check(Reach::Everything, [true; 5]);
        check(Reach::Tenant(Some("a".into())), [true, false, false, true, false]);
        check(Reach::Tenant(Some(String::new().into())), [false, false, false, true, false]);
        check(Reach::Tenant(None), [false, false, true, true, true]);
    }

    #[test]
    fn one_entity() {
        let check = |wanted: &str, entity_id: &str, expected: bool| {
            let filter = Filter::new(Reach::Everything).of_entity(Some(wanted.to_owned()));
            assert_eq!(filter.takes(&event("order", None, entity_id), &entities()), expected, "{wanted} {entity_id}");
        };
        check("17", "17", true);
        check("17", "1", false);
        check("17", "17/2", false);
        check("forged", "17", false);
        check("ü\"\\\n", "ü\"\\\n", true);
    }
}
