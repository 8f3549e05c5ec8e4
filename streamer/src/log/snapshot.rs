//! `pg_snapshot`: which transactions a query sees. Pure.

use std::str::FromStr;

/// The text form of `pg_current_snapshot()`: `xmin:xmax:xip,…`, ids with their epoch (64 bits).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    xmin: u64,
    xmax: u64,
    /// In progress when the snapshot was taken, ascending. Top-level transactions only.
    running: Vec<u64>,
}

impl Snapshot {
    /// Whether the snapshot sees the committed top-level transaction `xid` (low 32 bits, as the WAL has them).
    pub fn sees(&self, xid: u32) -> bool {
        let xid = self.widen(xid);
        xid < self.xmin || (xid < self.xmax && self.running.binary_search(&xid).is_err())
    }

    /// Everything below is visible.
    pub fn xmin(&self) -> u64 {
        self.xmin
    }

    /// Nothing from here on is visible.
    pub fn xmax(&self) -> u64 {
        self.xmax
    }

    /// In progress when the snapshot was taken, ascending.
    pub fn running(&self) -> &[u64] {
        &self.running
    }

    /// The 64-bit id nearest to the snapshot's `xmax`: ids in use never lie further apart than half the 32-bit circle.
    pub fn widen(&self, xid: u32) -> u64 {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_possible_wrap,
            reason = "arithmetic on the 32-bit circle"
        )]
        let behind = (self.xmax as u32).wrapping_sub(xid) as i32;
        self.xmax.wrapping_add_signed(-i64::from(behind))
    }
}

/// The text was not a `pg_snapshot`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a pg_snapshot")]
pub struct InvalidSnapshot(String);

impl FromStr for Snapshot {
    type Err = InvalidSnapshot;

    fn from_str(text: &str) -> Result<Self, InvalidSnapshot> {
        let parse = || {
            let mut parts = text.splitn(3, ':');
            let xmin = parts.next()?.parse().ok()?;
            let xmax = parts.next()?.parse().ok()?;
            let list = parts.next()?;
            let running: Vec<u64> = if list.is_empty() {
                Vec::new()
            } else {
                list.split(',').map(str::parse).collect::<Result<_, _>>().ok()?
            };
            (xmin <= xmax && running.is_sorted()).then_some(Self { xmin, xmax, running })
        };
        parse().ok_or_else(|| InvalidSnapshot(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sees_what_ended_before_it() {
        let check = |snapshot: &str, xid: u32, expected: bool| {
            let parsed: Snapshot = snapshot.parse().expect("a snapshot");
            assert_eq!(parsed.sees(xid), expected, "{snapshot} {xid}");
        };
        check("10:20:10,14,15", 9, true);
        check("10:20:10,14,15", 10, false);
        check("10:20:10,14,15", 13, true);
        check("10:20:10,14,15", 15, false);
        check("10:20:10,14,15", 19, true);
        check("10:20:10,14,15", 20, false);
        check("10:20:10,14,15", 21, false);
        check("10:10:", 9, true);
        check("10:10:", 10, false);
        // Just behind the change of the xid epoch, ids of the last one are the older ones.
        check("4294967290:4294967300:4294967295", 4_294_967_294, true);
        check("4294967290:4294967300:4294967295", 4_294_967_295, false);
        check("4294967290:4294967300:4294967295", 3, true);
        check("4294967290:4294967300:4294967295", 4, false);
    }

    #[test]
    fn refuses_other_text() {
        for text in ["", "1", "1:2", "2:1:", "1:5:3,2", "1:5:x", "1:5:,"] {
            assert!(text.parse::<Snapshot>().is_err(), "{text}");
        }
    }
}
