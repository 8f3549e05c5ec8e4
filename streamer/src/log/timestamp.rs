//! Postgres' ISO text of a timestamptz under `TimeZone=UTC` → RFC 3339, UTC, six digits, `Z`. Pure.

use bytes::{BufMut, BytesMut};

/// Appends `text` (`2026-01-02 03:04:05.6+00`) as `2026-01-02T03:04:05.600000Z`.
///
/// RFC 3339 has four-digit years only; what lies outside (infinity, BC, years above 9999) becomes its nearest end,
/// so that every client can read every event.
pub fn write_rfc3339(text: &str, out: &mut BytesMut) {
    let Some(parts) = Parts::read(text) else {
        let early = text.starts_with('-') || text.ends_with(" BC");
        out.put_slice(if early { b"0001-01-01T00:00:00.000000Z" } else { b"9999-12-31T23:59:59.999999Z" });
        return;
    };
    out.put_slice(parts.date.as_bytes());
    out.put_u8(b'T');
    out.put_slice(parts.time.as_bytes());
    out.put_u8(b'.');
    out.put_slice(parts.fraction.as_bytes());
    out.put_bytes(b'0', 6 - parts.fraction.len());
    out.put_u8(b'Z');
}

struct Parts<'a> {
    date: &'a str,
    time: &'a str,
    fraction: &'a str,
}

impl<'a> Parts<'a> {
    fn read(text: &'a str) -> Option<Self> {
        let (date, rest) = text.strip_suffix("+00")?.split_once(' ')?;
        let (time, fraction) = rest.split_once('.').unwrap_or((rest, ""));
        let shaped = date.len() == 10 && time.len() == 8 && fraction.len() <= 6;
        shaped.then_some(Self { date, time, fraction })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form() {
        let check = |text: &str, expected: &str| {
            let mut out = BytesMut::new();
            write_rfc3339(text, &mut out);
            assert_eq!(out, expected, "{text}");
        };
        check("2026-01-02 03:04:05+00", "2026-01-02T03:04:05.000000Z");
        check("2026-01-02 03:04:05.6+00", "2026-01-02T03:04:05.600000Z");
        check("2026-01-02 03:04:05.123456+00", "2026-01-02T03:04:05.123456Z");
        check("0001-01-01 00:00:00+00", "0001-01-01T00:00:00.000000Z");
        check("0044-03-15 12:00:00+00 BC", "0001-01-01T00:00:00.000000Z");
        check("-infinity", "0001-01-01T00:00:00.000000Z");
        check("infinity", "9999-12-31T23:59:59.999999Z");
        check("12026-01-02 03:04:05+00", "9999-12-31T23:59:59.999999Z");
    }
}
