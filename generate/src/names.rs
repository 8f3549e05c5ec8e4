//! Identifiers for entities and events: readable where they can be, and never two the same.

use crate::document::Entity;
use std::collections::{BTreeMap, HashSet};

/// What the generated code calls an entity.
#[derive(Clone, Debug)]
pub(crate) struct Names {
    /// `Order`.
    pub(crate) pascal: String,
    /// `order`.
    pub(crate) camel: String,
    /// `Orders`.
    pub(crate) plural: String,
    /// `order`: of files.
    pub(crate) file: String,
    /// By event name: `ItemAdded`.
    pub(crate) events: BTreeMap<String, String>,
}

/// What the generated `index.ts` exports besides what belongs to an entity, and the global types that generated code uses.
const TAKEN: [&str; 47] = [
    "configure",
    "recordEvent",
    "getEventsForEntity",
    "syncEngine",
    "client",
    "close",
    "forget",
    "newId",
    "hooks",
    "useSyncStatus",
    "useRejectedEvents",
    "Configuration",
    "EntityType",
    "EventType",
    "EventDraft",
    "AnyEvent",
    "EventsOf",
    "HeadwaterClient",
    "HeadwaterError",
    "RecordedEvent",
    "RejectedEvent",
    "SyncStatus",
    "LocalEvent",
    "Rejection",
    "Json",
    "JsonObject",
    "EntityResult",
    "ListResult",
    "HistoryResult",
    "Filter",
    "StandardSchema",
    "Merge",
    "Lift",
    "formatMicros",
    "parseMicros",
    "joinKey",
    "splitKey",
    "Promise",
    "Partial",
    "Readonly",
    "Record",
    "Error",
    "Array",
    "Object",
    "String",
    "Number",
    "Merges",
];

/// Names that Windows keeps for devices, whatever stands behind a dot.
const DEVICES: [&str; 6] = ["con", "prn", "aux", "nul", "com1", "lpt1"];

/// Names for all entities. One that would meet another gets a number, and a note says so.
pub(crate) fn assign(entities: &[Entity], notes: &mut Vec<String>) -> Vec<Names> {
    let mut taken: HashSet<String> = TAKEN.iter().map(|name| name.to_lowercase()).collect();
    let mut files: HashSet<String> = HashSet::new();
    entities
        .iter()
        .map(|entity| {
            let wanted = pascal(&entity.entity_type);
            let events = event_names(entity);
            let pascal = numbered(&wanted, |pascal| {
                exports(pascal, &events).iter().all(|name| !taken.contains(&name.to_lowercase()))
            });
            // Files are named after them, and on some disks case does not count.
            taken.extend(exports(&pascal, &events).iter().map(|name| name.to_lowercase()));
            if pascal != wanted {
                notes.push(format!(
                    "{}: is {pascal} in the generated code, for {wanted} or one of its functions is taken",
                    entity.entity_type
                ));
            }
            let stem = file_stem(&entity.entity_type);
            let file = numbered(&stem, |file| !files.contains(&file.to_lowercase()));
            files.insert(file.to_lowercase());
            Names { camel: camel(&pascal), plural: plural(&pascal), file, events, pascal }
        })
        .collect()
}

fn event_names(entity: &Entity) -> BTreeMap<String, String> {
    let mut taken = HashSet::new();
    let names = entity.events.keys().map(|name| {
        let unique = numbered(&pascal(name), |candidate| !taken.contains(candidate));
        taken.insert(unique.clone());
        (name.clone(), unique)
    });
    names.collect()
}

/// Everything that the generated code exports for an entity.
fn exports(pascal: &str, events: &BTreeMap<String, String>) -> Vec<String> {
    let camel = camel(pascal);
    let mut names: Vec<String> = ["", "Event", "Draft", "Payloads", "Captures", "Mutations", "Merges"]
        .iter()
        .map(|end| format!("{pascal}{end}"))
        .collect();
    names.extend(
        ["Schema", "PayloadSchemas", "Definition", "Mutations", "Id"].iter().map(|end| format!("{camel}{end}")),
    );
    names.extend(["materialize", "fold", "fetch"].iter().map(|start| format!("{start}{pascal}")));
    names.extend(["", "Mutations", "History"].iter().map(|end| format!("use{pascal}{end}")));
    names.push(format!("use{}", plural(pascal)));
    names.extend(events.values().map(|event| format!("{pascal}{event}Payload")));
    names
}

/// The first of `base`, `base2`, `base3`… that is free.
fn numbered(base: &str, is_free: impl Fn(&str) -> bool) -> String {
    let candidates = std::iter::once(base.to_owned()).chain((2_u64..).map(|n| format!("{base}{n}")));
    candidates.into_iter().find(|name| is_free(name)).expect("one of all numbers is free")
}

/// `item_added` → `ItemAdded`; what no identifier may hold parts words.
pub(crate) fn pascal(name: &str) -> String {
    let words = name.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
    let joined: String = words
        .map(|word| {
            let mut characters = word.chars();
            characters.next().map_or_else(String::new, |first| first.to_uppercase().chain(characters).collect())
        })
        .collect();
    match joined.chars().next() {
        None => "Unnamed".to_owned(),
        Some(first) if first.is_alphabetic() => joined,
        Some(_) => format!("N{joined}"),
    }
}

/// `ItemAdded` → `itemAdded`.
pub(crate) fn camel(pascal: &str) -> String {
    let mut characters = pascal.chars();
    characters.next().map_or_else(String::new, |first| first.to_lowercase().chain(characters).collect())
}

/// The plural of an English noun, as far as three rules reach.
fn plural(noun: &str) -> String {
    let lower = noun.to_lowercase();
    let before_y = lower.strip_suffix('y').and_then(|stem| stem.chars().last());
    if before_y.is_some_and(|letter| !"aeiou".contains(letter)) {
        return format!("{}ies", &noun[..noun.len() - 1]);
    }
    let hisses = ["s", "x", "z", "ch", "sh"].iter().any(|end| lower.ends_with(end));
    format!("{noun}{}", if hisses { "es" } else { "s" })
}

fn file_stem(entity_type: &str) -> String {
    let stem: String =
        entity_type.chars().map(|c| if c.is_alphanumeric() || c == '_' || c == '-' { c } else { '_' }).collect();
    if DEVICES.contains(&stem.to_lowercase().as_str()) { format!("{stem}_") } else { stem }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_identifiers() {
        let check = |name: &str, expected: &str| assert_eq!(pascal(name), expected);
        check("order", "Order");
        check("order_line", "OrderLine");
        check("2fa.code", "N2faCode");
        check("größe \"x\"", "GrößeX");
        check("'; drop", "Drop");
        check("_", "Unnamed");
        check("class", "Class");
        assert_eq!(camel("OrderLine"), "orderLine");
        for (noun, plurals) in
            [("Order", "Orders"), ("City", "Cities"), ("Day", "Days"), ("Box", "Boxes"), ("Address", "Addresses")]
        {
            assert_eq!(plural(noun), plurals);
        }
        assert_eq!((file_stem("../etc"), file_stem("con")), ("___etc".to_owned(), "con_".to_owned()));
    }
}
