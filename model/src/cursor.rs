//! Where a reader stands: LSN, offset, watermark and epoch in one opaque text.
//!
//! `<epoch>-<position>` or `<epoch>-<position>-<lsn>_<op>`: sixteen hex digits, then decimals. The parts are public to
//! us only; clients carry the text and never look inside. Only digits, letters, `-` and `_`: it stands in SSE `id:`
//! lines and in URLs without escaping.

use std::fmt;
use std::num::NonZeroU64;
use std::str::FromStr;

/// The longest text that can be a cursor; anything longer is refused unread.
pub const MAX_CURSOR_BYTES: usize = 16 + 1 + 19 + 1 + 20 + 1 + 20;

/// A position in the write-ahead log, in bytes since the cluster was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(pub u64);

impl Lsn {
    /// This position moved back by `bytes`, not below zero.
    #[must_use]
    pub fn minus(self, bytes: u64) -> Self {
        Self(self.0.saturating_sub(bytes))
    }
}

/// Postgres' own form, `16/B374D848`.
impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xffff_ffff)
    }
}

impl FromStr for Lsn {
    type Err = InvalidCursor;

    fn from_str(text: &str) -> Result<Self, InvalidCursor> {
        let (high, low) = text.split_once('/').ok_or(InvalidCursor)?;
        let half = |part: &str| {
            let digits = !part.is_empty() && part.len() <= 8 && part.bytes().all(|b| b.is_ascii_hexdigit());
            digits.then(|| u64::from_str_radix(part, 16).ok()).flatten().ok_or(InvalidCursor)
        };
        Ok(Self(half(high)? << 32 | half(low)?))
    }
}

/// The place of one change in the log: the LSN of its transaction's commit record, and twice its ordinal among the
/// transaction's changes. Offsets of one database rise in the order in which changes are delivered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Offset {
    /// Start of the commit record.
    pub lsn: Lsn,
    /// Twice the ordinal of the change; a changed key uses the odd number for its second half.
    pub op: u64,
}

impl Offset {
    /// The offset behind every change committed before `lsn` and before every change committed at `lsn` or later.
    ///
    /// WAL records are aligned to eight bytes, so no commit record starts at `lsn - 1`.
    #[must_use]
    pub fn just_before(lsn: Lsn) -> Self {
        Self { lsn: lsn.minus(1), op: 0 }
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}_{}", self.lsn.0, self.op)
    }
}

impl FromStr for Offset {
    type Err = InvalidCursor;

    fn from_str(text: &str) -> Result<Self, InvalidCursor> {
        let (lsn, op) = text.split_once('_').ok_or(InvalidCursor)?;
        Ok(Self { lsn: Lsn(decimal(lsn)?), op: decimal(op)? })
    }
}

/// The number of an event in `headwater.event.position`; zero is before all of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(pub i64);

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Which history positions and offsets belong to. It changes with a restore or a promotion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Epoch(NonZeroU64);

/// What makes one history of one event table different from every other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochParts {
    /// `systemid` of `IDENTIFY_SYSTEM`.
    pub system: u64,
    /// Timeline of the primary: a promotion starts a new one.
    pub timeline: u32,
    /// OID of the database.
    pub database: u32,
    /// OID of `headwater.event`.
    pub event_table: u32,
    /// `headwater.meta.epoch`, raised by hand after a restore in place.
    pub restored: i64,
}

impl From<EpochParts> for Epoch {
    /// FNV-1a (64 bit): every replica must come to the same number, and parts that differ in one byte never collide.
    fn from(parts: EpochParts) -> Self {
        let bytes = (parts.system.to_be_bytes().into_iter())
            .chain(parts.timeline.to_be_bytes())
            .chain(parts.database.to_be_bytes())
            .chain(parts.event_table.to_be_bytes())
            .chain(parts.restored.to_be_bytes());
        let hash =
            bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        Self(NonZeroU64::new(hash).unwrap_or(NonZeroU64::MIN))
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for Epoch {
    type Err = InvalidCursor;

    fn from_str(text: &str) -> Result<Self, InvalidCursor> {
        let digits = text.len() == 16 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        let number = digits.then(|| u64::from_str_radix(text, 16).ok()).flatten();
        number.and_then(NonZeroU64::new).map(Self).ok_or(InvalidCursor)
    }
}

/// Where a reader of events stands: it has every event up to `position`, and, when there is an offset, also every
/// event whose change stands at or before it in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// The history that the rest belongs to.
    pub epoch: Epoch,
    /// A watermark: every event up to here was delivered, or will never exist.
    pub position: Position,
    /// The last change delivered from the log, if the reader had joined it.
    pub offset: Option<Offset>,
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.epoch, self.position)?;
        self.offset.map_or(Ok(()), |offset| write!(f, "-{offset}"))
    }
}

impl FromStr for Cursor {
    type Err = InvalidCursor;

    fn from_str(text: &str) -> Result<Self, InvalidCursor> {
        if text.len() > MAX_CURSOR_BYTES {
            return Err(InvalidCursor);
        }
        let mut parts = text.split('-');
        let epoch = parts.next().ok_or(InvalidCursor)?.parse()?;
        let position = decimal(parts.next().ok_or(InvalidCursor)?)?;
        let offset = parts.next().map(str::parse).transpose()?;
        if parts.next().is_some() {
            return Err(InvalidCursor);
        }
        let position = Position(i64::try_from(position).map_err(|_| InvalidCursor)?);
        Ok(Self { epoch, position, offset })
    }
}

/// The text is not one that Headwater handed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this is not a cursor that Headwater gave out")]
pub struct InvalidCursor;

/// Only the form that `Display` writes: no sign, no leading zero, so that one cursor has one text.
fn decimal(text: &str) -> Result<u64, InvalidCursor> {
    let canonical = text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    if canonical { text.parse().map_err(|_| InvalidCursor) } else { Err(InvalidCursor) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn epoch() -> Epoch {
        "00000000000000ff".parse().expect("an epoch")
    }

    #[test]
    fn cursors_are_read_and_refused() {
        let check = |text: &str, expected: Option<(i64, Option<(u64, u64)>)>| {
            let expected = expected.map(|(position, offset)| Cursor {
                epoch: epoch(),
                position: Position(position),
                offset: offset.map(|(lsn, op)| Offset { lsn: Lsn(lsn), op }),
            });
            assert_eq!(text.parse().ok(), expected, "{text}");
        };
        check("00000000000000ff-7", Some((7, None)));
        check("00000000000000ff-0-16_4", Some((0, Some((16, 4)))));
        check("00000000000000ff-9223372036854775807", Some((i64::MAX, None)));
        for wrong in [
            "",
            "7",
            "00000000000000ff",
            "00000000000000FF-7",
            "0000000000000000-7",
            "00000000000000ff-",
            "00000000000000ff--1",
            "00000000000000ff-07",
            "00000000000000ff-9223372036854775808",
            "00000000000000ff-7-",
            "00000000000000ff-7-16",
            "00000000000000ff-7-16_",
            "00000000000000ff-7-16_4-1",
            "00000000000000ff-7-16_18446744073709551616",
            "00000000000000ff-7 ",
            "é0000000000000ff-7",
        ] {
            check(wrong, None);
        }
    }

    #[test]
    fn lsn_has_postgres_form() {
        let check = |text: &str, expected: Option<u64>| assert_eq!(text.parse().ok(), expected.map(Lsn), "{text}");
        check("16/B374D848", Some(0x16_B374_D848));
        check("0/0", Some(0));
        check("FFFFFFFF/FFFFFFFF", Some(u64::MAX));
        for wrong in ["", "/", "1/", "/1", "1/+1", "1/123456789", "g/0", "1/2/3"] {
            check(wrong, None);
        }
    }

    #[test]
    fn epochs_differ_with_each_part() {
        let parts = EpochParts { system: 7, timeline: 1, database: 5, event_table: 16_400, restored: 1 };
        let others = [
            EpochParts { system: 8, ..parts },
            EpochParts { timeline: 2, ..parts },
            EpochParts { database: 6, ..parts },
            EpochParts { event_table: 16_401, ..parts },
            EpochParts { restored: 2, ..parts },
        ];
        assert!(others.into_iter().all(|other| Epoch::from(other) != Epoch::from(parts)));
    }

    proptest! {
        #[test]
        fn cursors_come_back(hash in 1_u64.., position in 0_i64.., offset in proptest::option::of((any::<u64>(), any::<u64>()))) {
            let offset = offset.map(|(lsn, op)| Offset { lsn: Lsn(lsn), op });
            let epoch = Epoch(NonZeroU64::new(hash).expect("not zero"));
            let cursor = Cursor { epoch, position: Position(position), offset };
            prop_assert!(cursor.to_string().len() <= MAX_CURSOR_BYTES);
            prop_assert_eq!(cursor.to_string().parse(), Ok(cursor));
        }

        #[test]
        fn what_is_read_has_one_text(text in "[0-9a-f]{15,17}(-[0-9]{1,20}){0,3}(_[0-9]{1,3})?") {
            if let Ok(cursor) = text.parse::<Cursor>() {
                prop_assert_eq!(cursor.to_string(), text);
            }
        }

        #[test]
        fn just_before_lies_between_commits(lsn in (1_u64..1 << 60).prop_map(|n| n * 8), op: u64) {
            let lsn = Lsn(lsn);
            let (before, between, behind) = (Offset { lsn: lsn.minus(8), op }, Offset::just_before(lsn), Offset { lsn, op: 0 });
            prop_assert!(before < between && between < behind);
        }
    }
}
