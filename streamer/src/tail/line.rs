//! One event as one line.

use serde_json::Value;

/// How lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    /// The event as it came.
    Json,
    /// Time, type, entity, who, payload.
    Text { colours: bool },
}

impl Style {
    pub(super) fn line(self, event: &Value) -> String {
        let Self::Text { colours } = self else { return event.to_string() };
        let text = |member: &str| printable(event[member].as_str().unwrap_or("?"));
        let paint = |code: u8, text: String| if colours { format!("\x1b[{code}m{text}\x1b[0m") } else { text };
        let of = |name: &str, member: &str| {
            event[member].as_str().map_or_else(String::new, |value| format!(" {name}={}", printable(value)))
        };
        let who = format!("{}{}", of("tenant", "tenant_id"), of("user", "user_id"));
        let (time, kind, entity) = (text("timestamp"), text("event_type"), text("entity_id"));
        let kind = paint(colour(event), kind);
        format!("{} {kind} {entity}{} {}", paint(2, time), paint(36, who), event["payload"])
    }
}

/// By what it does: green creates, red deletes, yellow changes.
fn colour(event: &Value) -> u8 {
    match event["event_type"].as_str().and_then(|name| name.rsplit_once('.')) {
        Some((_, "created")) => 32,
        Some((_, "deleted" | "erased")) => 31,
        _ => 33,
    }
}

/// What a client wrote must not move the cursor of somebody's terminal.
fn printable(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { '\u{fffd}' } else { letter }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn lines() {
        let event = json!({"timestamp": "2026-01-02T03:04:05.000006Z", "event_type": "order.created", "entity_id": "7\u{1b}[2J",
            "tenant_id": "cafe", "user_id": null, "payload": {"note": "\u{1b}[2J"}});
        assert_eq!(
            Style::Text { colours: false }.line(&event),
            "2026-01-02T03:04:05.000006Z order.created 7\u{fffd}[2J tenant=cafe {\"note\":\"\\u001b[2J\"}"
        );
        assert!(Style::Text { colours: true }.line(&event).contains("\x1b[32morder.created\x1b[0m"));
        assert_eq!(Style::Json.line(&event), event.to_string());
    }
}
