//! One thing that was looked at: how it stands, and what mends it.

use serde_json::{Value, json};

/// How much it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Level {
    /// As it should be.
    Good,
    /// It works, and will hurt one day.
    Warning,
    /// The streamer does not work, or loses what it should keep.
    Error,
}

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Finding {
    /// Stable, for scripts.
    pub(super) check: &'static str,
    pub(super) level: Level,
    pub(super) message: String,
    /// A statement or command, as one would type it.
    pub(super) remedy: Option<String>,
}

impl Finding {
    pub(super) fn good(check: &'static str, message: impl Into<String>) -> Self {
        Self { check, level: Level::Good, message: message.into(), remedy: None }
    }

    pub(super) fn warning(check: &'static str, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { check, level: Level::Warning, message: message.into(), remedy: Some(remedy.into()) }
    }

    pub(super) fn error(check: &'static str, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { check, level: Level::Error, message: message.into(), remedy: Some(remedy.into()) }
    }

    pub(super) fn json(&self) -> Value {
        json!({ "check": self.check, "level": self.level.name(), "message": self.message, "remedy": self.remedy })
    }

    /// For a terminal.
    pub(super) fn text(&self, colours: bool) -> String {
        let (word, colour) = match self.level {
            Level::Good => ("ok     ", 32),
            Level::Warning => ("warning", 33),
            Level::Error => ("ERROR  ", 31),
        };
        let word = if colours { format!("\x1b[{colour}m{word}\x1b[0m") } else { word.to_owned() };
        let remedy = self.remedy.iter().flat_map(|remedy| remedy.lines()).map(|line| format!("         {line}\n"));
        format!("{word}  {}\n{}", self.message, remedy.collect::<String>())
    }
}

impl Level {
    fn name(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn for_a_terminal() {
        let finding = Finding::error("wal_level", "it is replica", "alter system …\nrestart");
        assert_eq!(finding.text(false), "ERROR    it is replica\n         alter system …\n         restart\n");
        assert!(finding.text(true).starts_with("\x1b[31mERROR"));
        assert_eq!(Finding::good("clock", "fine").text(false), "ok       fine\n");
    }
}
