//! Instants as integer microseconds since the Unix epoch, their RFC 3339 text, and the stamp of an arriving event.

use std::fmt;

use time::format_description::well_known::Rfc3339;
use time::{OffsetDateTime, UtcOffset};

/// How far ahead of the server a client's clock may stand before its event is refused with `clock_skew`.
pub const MAX_SKEW_MICROS: i64 = 5 * 60 * 1_000_000;

/// Microseconds from 1970-01-01 to 2000-01-01, where Postgres' own timestamps start
/// (`POSTGRES_EPOCH_JDATE` in `datatype/timestamp.h`).
pub const POSTGRES_EPOCH_MICROS: i64 = 946_684_800_000_000;

/// An instant: microseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Micros(pub i64);

impl Micros {
    /// Reads an RFC 3339 instant of any precision and zone; finer digits than microseconds are cut off.
    ///
    /// Years outside 0001–9999 are refused: Postgres and JavaScript both read what remains.
    pub fn parse(text: &str) -> Option<Self> {
        let instant = OffsetDateTime::parse(text, &Rfc3339).ok()?.to_offset(UtcOffset::UTC);
        if !(1..=9999).contains(&instant.year()) {
            return None;
        }
        i64::try_from(instant.unix_timestamp_nanos().div_euclid(1000)).ok().map(Self)
    }

    /// The instant of a Postgres timestamp: microseconds since 2000-01-01. Its infinities are the first and last instant.
    pub fn from_postgres(micros: i64) -> Self {
        Self(micros.saturating_add(POSTGRES_EPOCH_MICROS))
    }

    /// The Postgres timestamp of this instant.
    pub fn to_postgres(self) -> i64 {
        self.0.saturating_sub(POSTGRES_EPOCH_MICROS)
    }

    /// The instant that many microseconds later.
    #[must_use]
    pub fn plus(self, micros: i64) -> Self {
        Self(self.0.saturating_add(micros))
    }
}

impl fmt::Display for Micros {
    /// RFC 3339 in UTC with six digits: `2026-11-22T12:40:00.000001Z`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Ok(instant) = OffsetDateTime::from_unix_timestamp_nanos(i128::from(self.0) * 1000) else {
            return write!(f, "{}", self.0);
        };
        write!(
            f,
            "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:06}Z",
            instant.year(),
            u8::from(instant.month()),
            instant.day(),
            instant.hour(),
            instant.minute(),
            instant.second(),
            instant.microsecond()
        )
    }
}

/// A client's clock stands too far ahead: its event cannot be ordered among the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockSkew {
    /// What the server's clock says, for the client to correct itself by.
    pub server_time: Micros,
}

/// Gives arriving events of one batch the instant they count from: `min(sent, now)`.
///
/// Events whose instant had to be clamped keep their order, one microsecond apart.
#[derive(Debug)]
pub struct Stamper {
    now: Micros,
    last_clamped: Option<Micros>,
}

impl Stamper {
    /// A stamper for a batch that arrives at `now`.
    pub fn new(now: Micros) -> Self {
        Self { now, last_clamped: None }
    }

    /// The instant that an event sent as of `sent` gets.
    pub fn stamp(&mut self, sent: Micros) -> Result<Micros, ClockSkew> {
        if sent > self.now.plus(MAX_SKEW_MICROS) {
            return Err(ClockSkew { server_time: self.now });
        }
        if sent <= self.now {
            return Ok(sent);
        }
        let clamped = self.last_clamped.map_or(self.now, |last| last.plus(1));
        self.last_clamped = Some(clamped);
        Ok(clamped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_are_read_in_any_precision_and_written_with_six_digits() {
        let check = |text: &str, expected: &str| assert_eq!(Micros::parse(text).expect(text).to_string(), expected);
        check("2026-11-22T12:40:00Z", "2026-11-22T12:40:00.000000Z");
        check("2026-11-22T12:40:00.1+02:00", "2026-11-22T10:40:00.100000Z");
        check("2026-11-22T12:40:00.123456789Z", "2026-11-22T12:40:00.123456Z");
        check("1969-12-31T23:59:59.999999Z", "1969-12-31T23:59:59.999999Z");
        check("0001-01-01T00:00:00Z", "0001-01-01T00:00:00.000000Z");
        for wrong in
            ["", "now", "2026-11-22", "2026-11-22 12:40", "2026-13-01T00:00:00Z", "infinity", "0000-01-01T00:00:00Z"]
        {
            assert_eq!(Micros::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn postgres_counts_from_2000() {
        let instant = Micros::parse("2000-01-01T00:00:00Z").expect("an instant");
        assert_eq!(instant.to_postgres(), 0);
        assert_eq!(Micros::from_postgres(0), instant);
    }

    #[test]
    fn a_stamp_is_never_ahead_and_clamped_events_keep_their_order() {
        let now = Micros(1_000_000_000_000);
        let mut stamper = Stamper::new(now);
        assert_eq!(stamper.stamp(now.plus(-5)), Ok(now.plus(-5)));
        assert_eq!(stamper.stamp(now.plus(10)), Ok(now));
        assert_eq!(stamper.stamp(now.plus(20)), Ok(now.plus(1)));
        assert_eq!(stamper.stamp(now.plus(20)), Ok(now.plus(2)));
        assert_eq!(stamper.stamp(now.plus(MAX_SKEW_MICROS)), Ok(now.plus(3)));
        assert_eq!(stamper.stamp(now.plus(MAX_SKEW_MICROS + 1)), Err(ClockSkew { server_time: now }));
    }
}
