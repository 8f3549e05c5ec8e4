//! Which events a reader asked for.

use headwater_model::clock::Micros;

/// All conditions must hold; an empty one always does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Entity types; empty: all.
    pub entity_types: Vec<String>,
    /// One entity only. The log does not know it: for pages only.
    pub entity_id: Option<String>,
    /// Recorded at or after this time. For people, not for going on. For pages only.
    pub recorded_since: Option<Micros>,
}

impl Filter {
    /// For these entity types (comma-separated, spaces ignored), or all.
    pub fn of_types(list: Option<&str>) -> Self {
        let names = list.unwrap_or_default().split(',').map(str::trim).filter(|name| !name.is_empty());
        Self { entity_types: names.map(str::to_owned).collect(), ..Self::default() }
    }

    /// Whether a stream passes this event on.
    pub fn takes(&self, entity_type: &str) -> bool {
        self.entity_types.is_empty() || self.entity_types.iter().any(|wanted| wanted == entity_type)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_a_list() {
        let check = |list: Option<&str>, entity_type: &str, expected: bool| {
            assert_eq!(Filter::of_types(list).takes(entity_type), expected, "{list:?} {entity_type}");
        };
        check(None, "order", true);
        check(Some(""), "order", true);
        check(Some("order"), "order", true);
        check(Some("a, order ,b"), "order", true);
        check(Some("orders"), "order", false);
    }
}
