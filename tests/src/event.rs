//! Events as clients write and read them.

use serde_json::{Value, json};
use uuid::Uuid;

/// The current time as clients write it.
pub fn now() -> String {
    let micros = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_micros();
    timestamp(i64::try_from(micros).unwrap())
}

/// Microseconds since 1970 in RFC 3339.
fn timestamp(micros: i64) -> String {
    let (seconds, fraction) = (micros.div_euclid(1_000_000), micros.rem_euclid(1_000_000));
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms": civil_from_days.
    let shifted = days + 719_468;
    let (era, of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let day_of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_shifted + 2) / 5 + 1;
    let month = if month_shifted < 10 { month_shifted + 3 } else { month_shifted - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{fraction:06}Z")
}

/// A client's event about an order, new in every respect, with this type (`order.created`) and payload.
pub fn order_event(event_type: &str, order: Uuid, payload: &Value) -> Value {
    json!({
        "id": Uuid::now_v7(),
        "event_type": event_type,
        "entity_type": "order",
        "entity_id": order,
        "tenant_id": "cafe",
        "client_id": "test-device",
        "timestamp": now(),
        "payload": payload,
    })
}

/// A JSON string member.
pub fn text<'a>(value: &'a Value, member: &str) -> &'a str {
    value[member].as_str().unwrap_or_else(|| panic!("no text {member} in {value}"))
}

/// An event's position.
pub fn position(event: &Value) -> i64 {
    event["position"].as_i64().unwrap_or_else(|| panic!("no position in {event}"))
}

#[cfg(test)]
mod tests {
    use super::timestamp;

    #[test]
    fn times_are_written_in_rfc_3339() {
        assert_eq!(timestamp(0), "1970-01-01T00:00:00.000000Z");
        assert_eq!(timestamp(1_709_210_096_000_007), "2024-02-29T12:34:56.000007Z");
    }
}
