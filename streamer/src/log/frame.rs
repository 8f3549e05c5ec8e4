//! An event row as it goes over the wire: one JSON object, and the SSE block around it.
//!
//! A row from the WAL and the same row from the table give the same bytes.

use super::timestamp::write_rfc3339;
use bytes::{BufMut, BytesMut};
use std::fmt::{Display, Write as _};

/// One row of `headwater.event`, every column in Postgres' text form.
#[derive(Clone, Copy, Debug)]
pub struct EventRow<'a> {
    /// `position`
    pub position: i64,
    /// `id`
    pub id: &'a str,
    /// `tenant_id`
    pub tenant_id: Option<&'a str>,
    /// `entity_type`
    pub entity_type: &'a str,
    /// `entity_id`
    pub entity_id: &'a str,
    /// `event_type`
    pub event_type: &'a str,
    /// `payload`: JSON, passed on as it stands so that no number loses a digit.
    pub payload: &'a str,
    /// `schema_version`
    pub schema_version: i32,
    /// `occurred_at`, ISO under UTC
    pub occurred_at: &'a str,
    /// `recorded_at`, ISO under UTC
    pub recorded_at: &'a str,
    /// `user_id`
    pub user_id: Option<&'a str>,
    /// `client_id`
    pub client_id: Option<&'a str>,
    /// `source`
    pub source: &'a str,
    /// `applies`
    pub applies: bool,
}

impl EventRow<'_> {
    /// Appends the event's JSON object.
    pub fn write_json(&self, out: &mut BytesMut) {
        out.put_slice(b"{\"id\":");
        write_string(self.id, out);
        out.put_slice(b",\"position\":");
        put_decimal(self.position, out);
        out.put_slice(b",\"entity_type\":");
        write_string(self.entity_type, out);
        out.put_slice(b",\"entity_id\":");
        write_string(self.entity_id, out);
        out.put_slice(b",\"event_type\":");
        write_string(self.event_type, out);
        out.put_slice(b",\"payload\":");
        out.put_slice(self.payload.as_bytes());
        out.put_slice(b",\"schema_version\":");
        put_decimal(self.schema_version, out);
        out.put_slice(b",\"timestamp\":\"");
        write_rfc3339(self.occurred_at, out);
        out.put_slice(b"\",\"recorded_at\":\"");
        write_rfc3339(self.recorded_at, out);
        out.put_slice(b"\",\"user_id\":");
        write_optional(self.user_id, out);
        out.put_slice(b",\"client_id\":");
        write_optional(self.client_id, out);
        out.put_slice(b",\"tenant_id\":");
        write_optional(self.tenant_id, out);
        out.put_slice(b",\"source\":");
        write_string(self.source, out);
        out.put_slice(if self.applies { b",\"applies\":true}" } else { b",\"applies\":false}" });
    }

    /// Appends the SSE block, and answers how long its `id:` line is.
    pub fn write_block(&self, cursor: impl Display, out: &mut BytesMut) -> usize {
        let start = out.len();
        put(out, format_args!("id: {cursor}\n"));
        let id_length = out.len() - start;
        self.write_fields(out);
        id_length
    }

    /// The same, with a cursor whose text was made for the whole transaction, but for the op at its end.
    pub(super) fn write_block_of(&self, id: &str, op: u64, out: &mut BytesMut) -> usize {
        let start = out.len();
        out.put_slice(id.as_bytes());
        put_decimal(op, out);
        out.put_u8(b'\n');
        let id_length = out.len() - start;
        self.write_fields(out);
        id_length
    }

    fn write_fields(&self, out: &mut BytesMut) {
        // A line break would end the field; the extension's names have none, and a stray one must not forge a block.
        let breaks = |byte: u8| matches!(byte, b'\n' | b'\r' | 0);
        out.put_slice(b"event: ");
        if self.event_type.bytes().any(breaks) {
            out.extend(self.event_type.bytes().map(|byte| if breaks(byte) { b' ' } else { byte }));
        } else {
            out.put_slice(self.event_type.as_bytes());
        }
        out.put_slice(b"\ndata: ");
        self.write_json(out);
        out.put_slice(b"\n\n");
    }
}

fn put_decimal(number: impl itoa::Integer, out: &mut BytesMut) {
    out.put_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// Appends formatted text.
pub fn put(out: &mut BytesMut, text: std::fmt::Arguments<'_>) {
    // It fails only beyond usize::MAX bytes.
    let _ = out.write_fmt(text);
}

fn write_optional(text: Option<&str>, out: &mut BytesMut) {
    match text {
        Some(text) => write_string(text, out),
        None => out.put_slice(b"null"),
    }
}

fn write_string(text: &str, out: &mut BytesMut) {
    serde_json::to_writer(out.writer(), text).expect("a string is JSON and a BytesMut grows");
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn row<'a>() -> EventRow<'a> {
        EventRow {
            position: 42,
            id: "0190b0a0-0000-7000-8000-000000000001",
            tenant_id: None,
            entity_type: "order",
            entity_id: "a\"\\\n",
            event_type: "order.created",
            payload: r#"{"n": 12345678901234567890.10}"#,
            schema_version: 1,
            occurred_at: "2026-01-02 03:04:05+00",
            recorded_at: "2026-01-02 03:04:05.000001+00",
            user_id: Some("ü"),
            client_id: None,
            source: "client",
            applies: true,
        }
    }

    #[test]
    fn json_has_every_field() {
        let mut out = BytesMut::new();
        row().write_json(&mut out);
        let text = std::str::from_utf8(&out).expect("text");
        assert!(text.contains(r#""payload":{"n": 12345678901234567890.10},"#), "{text}");
        let mut value: serde_json::Value = serde_json::from_str(text).expect("JSON");
        value["payload"] = json!(null);
        let expected = json!({
            "id": "0190b0a0-0000-7000-8000-000000000001", "position": 42, "entity_type": "order",
            "entity_id": "a\"\\\n", "event_type": "order.created", "payload": null, "schema_version": 1,
            "timestamp": "2026-01-02T03:04:05.000000Z", "recorded_at": "2026-01-02T03:04:05.000001Z",
            "user_id": "ü", "client_id": null, "tenant_id": null, "source": "client", "applies": true,
        });
        assert_eq!(value, expected);
    }

    #[test]
    fn a_block_is_one_sse_event() {
        let mut out = BytesMut::from("before");
        let id_length = EventRow { event_type: "a\nb", ..row() }.write_block("c-1", &mut out);
        assert_eq!(id_length, "id: c-1\n".len());
        let text = std::str::from_utf8(&out).expect("text");
        let block = text.strip_prefix("beforeid: c-1\nevent: a b\ndata: {").expect("the fields in order");
        assert_eq!(block.find('\n'), Some(block.len() - 2), "data is one line");
    }
}
