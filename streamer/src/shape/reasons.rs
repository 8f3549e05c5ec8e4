//! Why a row of a shape with subqueries is in: tags and conditions, as headers of its messages. The same on every replica. Pure.

use super::definition::Definition;
use super::filter::{Dnf, Filter, Slot};
use super::inner::selection::Side;
use sha2::{Digest, Sha256};
use std::fmt::Write as _;

/// Why a row is in the shape: headers of its messages.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Reasons {
    tags: Vec<String>,
    conditions: Vec<bool>,
}

impl Reasons {
    /// Of a row of a shape with subqueries.
    pub(super) fn of(definition: &Definition, side: &Side<'_>) -> Self {
        let none = || Self { tags: Vec::new(), conditions: Vec::new() };
        let found = |filter: &Filter, dnf: &Dnf| Self {
            tags: dnf.tags(filter, side.row).iter().map(|tag| join(definition, tag)).collect(),
            conditions: dnf.active(side.row, &side.atoms),
        };
        normal(definition).map_or_else(none, |(filter, dnf)| found(filter, dnf))
    }

    /// The header for tags that it does not have any more.
    pub(super) fn removed_since(&self, old: &Self) -> String {
        let removed: Vec<&String> = old.tags.iter().filter(|tag| !self.tags.contains(tag)).collect();
        if removed.is_empty() { String::new() } else { format!(",\"removed_tags\":{}", list(&removed)) }
    }
}

/// Members of a JSON object, each behind a comma.
impl std::fmt::Display for Reasons {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let conditions: Vec<String> = self.conditions.iter().map(bool::to_string).collect();
        let tags: Vec<&String> = self.tags.iter().collect();
        write!(f, ",\"tags\":{},\"active_conditions\":[{}]", list(&tags), conditions.join(","))
    }
}

/// Tags are made of what needs no escapes.
fn list(tags: &[&String]) -> String {
    let quoted: Vec<String> = tags.iter().map(|tag| format!("\"{tag}\"")).collect();
    format!("[{}]", quoted.join(","))
}

fn join(definition: &Definition, tag: &[Slot]) -> String {
    let slots: Vec<String> = (tag.iter().enumerate())
        .map(|(position, slot)| match slot {
            Slot::Absent => String::new(),
            Slot::Plain => "1".to_owned(),
            Slot::Value(value) => hash(definition, position, value),
        })
        .collect();
    slots.join("/")
}

/// The filter of a shape with subqueries, as it was written and as alternatives.
pub(super) fn normal(definition: &Definition) -> Option<(&Filter, &Dnf)> {
    let filter = definition.filter.as_ref()?;
    Some((filter, filter.dnf()?))
}

/// What a value is called in tags of this shape; the same on every replica.
pub(super) fn hash(definition: &Definition, position: usize, value: &[Option<String>]) -> String {
    let mut digest = Sha256::new();
    digest.update(definition.digest());
    digest.update(position.to_be_bytes());
    for part in value {
        match part {
            None => digest.update([0]),
            Some(text) => {
                digest.update([1]);
                digest.update(text.len().to_be_bytes());
                digest.update(text);
            }
        }
    }
    let mut text = String::new();
    for byte in &digest.finalize()[..16] {
        let _ = write!(text, "{byte:02x}");
    }
    text
}
