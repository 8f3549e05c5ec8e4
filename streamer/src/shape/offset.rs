//! Where a client of shapes stands: `-1`, `now`, `0_<chunk>`, `0_inf`, `<lsn>_<op>`. Pure.

use headwater_model::cursor::{Lsn, Offset};
use std::fmt;
use std::str::FromStr;

/// A place in a shape's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShapeOffset {
    /// `-1`: before everything.
    Start,
    /// `now`: no rows, only what comes.
    Now,
    /// `0_<k>`: behind chunk k of the snapshot.
    Chunk(usize),
    /// `0_inf`: behind the snapshot, before every change.
    Snapshot,
    /// Behind this change.
    Change(Offset),
}

/// The text was none of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidOffset;

impl FromStr for ShapeOffset {
    type Err = InvalidOffset;

    fn from_str(text: &str) -> Result<Self, InvalidOffset> {
        match text {
            "-1" | "-1_0" => return Ok(Self::Start),
            "now" => return Ok(Self::Now),
            _ => {}
        }
        let number = |part: &str| {
            let digits = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
            digits.then(|| part.parse::<u64>().ok()).flatten().ok_or(InvalidOffset)
        };
        let (transaction, op) = text.split_once('_').ok_or(InvalidOffset)?;
        let infinite = op == "inf";
        let (lsn, op) = (number(transaction)?, if infinite { u64::MAX } else { number(op)? });
        Ok(match lsn {
            0 if infinite => Self::Snapshot,
            0 => Self::Chunk(usize::try_from(op).map_err(|_| InvalidOffset)?),
            _ => Self::Change(Offset { lsn: Lsn(lsn), op }),
        })
    }
}

impl fmt::Display for ShapeOffset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Start => f.write_str("-1"),
            Self::Now => f.write_str("now"),
            Self::Chunk(chunk) => write!(f, "0_{chunk}"),
            Self::Snapshot => f.write_str("0_inf"),
            Self::Change(Offset { lsn, op: u64::MAX }) => write!(f, "{}_inf", lsn.0),
            Self::Change(offset) => offset.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form() {
        let change = |lsn, op| ShapeOffset::Change(Offset { lsn: Lsn(lsn), op });
        let check = |text: &str, expected: Option<ShapeOffset>| {
            assert_eq!(text.parse().ok(), expected, "{text}");
            if let Some(offset) = expected.filter(|_| text != "-1_0") {
                assert_eq!(offset.to_string(), text);
            }
        };
        check("-1", Some(ShapeOffset::Start));
        check("-1_0", Some(ShapeOffset::Start));
        check("now", Some(ShapeOffset::Now));
        check("0_0", Some(ShapeOffset::Chunk(0)));
        check("0_17", Some(ShapeOffset::Chunk(17)));
        check("0_inf", Some(ShapeOffset::Snapshot));
        check("26719992_4", Some(change(26_719_992, 4)));
        check("26719992_inf", Some(change(26_719_992, u64::MAX)));
        for wrong in ["", "0", "-2", "1_", "_1", "a_1", "1_b", "1_-1", "+1_0", "99999999999999999999_0", "NOW", "1_2_3"]
        {
            check(wrong, None);
        }
    }
}
