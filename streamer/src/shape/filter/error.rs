//! Why a filter is refused: what is wrong, where, and what to write instead.

use std::fmt;

/// A filter that is not taken. Shown as `At location N: what is wrong`, the way ElectricSQL's clients know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WhereError {
    /// Where, in characters from zero, if it is at one place.
    pub location: Option<usize>,
    /// What is wrong.
    pub message: String,
}

impl WhereError {
    /// At this place.
    pub(super) fn at(location: usize, message: impl Into<String>) -> Self {
        Self { location: Some(location), message: message.into() }
    }

    /// Of the whole.
    pub(super) fn whole(message: impl Into<String>) -> Self {
        Self { location: None, message: message.into() }
    }
}

impl fmt::Display for WhereError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.location {
            Some(location) => write!(f, "At location {location}: {}", self.message),
            None => f.write_str(&self.message),
        }
    }
}

impl std::error::Error for WhereError {}
