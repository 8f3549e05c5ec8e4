//! The values that a subquery gives, at every place of the log between two: who is at the log's end asks about now, who is
//! behind about then. Pure.

use headwater_model::cursor::Lsn;
use std::collections::{HashMap, VecDeque};

/// The texts of a value's columns, as the WAL has them.
pub(in crate::shape) type Value = Vec<Option<String>>;

/// What a value costs besides its text: its entry in a table, and an allocation for each column.
const OVERHEAD_BYTES: usize = 96;

/// A place is an LSN, and means what was committed before it.
#[derive(Debug)]
pub(in crate::shape) struct Values {
    /// How many rows give each, at `upto`.
    rows: HashMap<Value, u64>,
    with_null: usize,
    /// Oldest first.
    changes: VecDeque<Change>,
    /// The commits by which a value came or went, ascending.
    flips: HashMap<Value, Vec<Lsn>>,
    /// Changes of `changes` by which a value with a null came or went.
    null_flips: usize,
    from: Lsn,
    upto: Lsn,
    bytes: usize,
}

/// What a transaction did to the values.
#[derive(Debug)]
pub(in crate::shape) struct Change {
    commit: Lsn,
    /// What came (true) and what went.
    pub(in crate::shape) values: Vec<(Value, bool)>,
    /// Whether it is the first value that came, or the last that went.
    pub(in crate::shape) emptiness: bool,
}

impl Change {
    /// Whether a value with a null came or went.
    pub(in crate::shape) fn has_null(&self) -> bool {
        self.values.iter().any(|(value, _)| value.contains(&None))
    }
}

fn cost(value: &[Option<String>]) -> usize {
    OVERHEAD_BYTES + value.iter().flatten().map(String::len).sum::<usize>()
}

impl Values {
    /// None, at this place.
    pub(in crate::shape) fn new(place: Lsn) -> Self {
        Self {
            rows: HashMap::new(),
            with_null: 0,
            changes: VecDeque::new(),
            flips: HashMap::new(),
            null_flips: 0,
            from: place,
            upto: place,
            bytes: 0,
        }
    }

    /// The first place that can be asked about.
    pub(in crate::shape) fn from(&self) -> Lsn {
        self.from
    }

    /// The last one.
    pub(in crate::shape) fn upto(&self) -> Lsn {
        self.upto
    }

    /// Roughly how much memory it takes.
    pub(in crate::shape) fn bytes(&self) -> usize {
        self.bytes
    }

    /// A row gives this value, from the first place on.
    pub(in crate::shape) fn begin_with(&mut self, value: &Value) {
        self.count(value, 1);
    }

    /// A transaction is over: by how much the number of rows that give each value has changed.
    pub(in crate::shape) fn apply(&mut self, commit: Lsn, deltas: HashMap<Value, i64>) {
        let was_empty = self.rows.is_empty();
        let mut values: Vec<(Value, bool)> = Vec::new();
        for (value, delta) in deltas {
            let was = self.rows.contains_key(&value);
            let is = self.count(&value, delta);
            if was != is {
                values.push((value, is));
            }
        }
        self.upto = Lsn(commit.0 + 1);
        if values.is_empty() {
            return;
        }
        // The same on every replica.
        values.sort_unstable();
        for (value, _) in &values {
            self.flips.entry(value.clone()).or_default().push(commit);
            self.bytes += 2 * cost(value);
        }
        let change = Change { commit, values, emptiness: was_empty != self.rows.is_empty() };
        self.null_flips += usize::from(change.has_null());
        self.changes.push_back(change);
    }

    /// Whether any row gives the value now.
    fn count(&mut self, value: &Value, delta: i64) -> bool {
        let null = value.contains(&None);
        let cost = cost(value);
        let count = self.rows.entry(value.clone()).or_default();
        let was = *count > 0;
        *count = count.saturating_add_signed(delta);
        let is = *count > 0;
        if !is {
            self.rows.remove(value);
        }
        match (was, is) {
            (false, true) => {
                self.bytes += cost;
                self.with_null += usize::from(null);
            }
            (true, false) => {
                self.bytes -= cost;
                self.with_null -= usize::from(null);
            }
            _ => {}
        }
        is
    }

    /// Nothing else happened up to this place.
    pub(in crate::shape) fn advance(&mut self, place: Lsn) {
        self.upto = self.upto.max(place);
    }

    /// Nobody asks about earlier places any more.
    pub(in crate::shape) fn forget_before(&mut self, place: Lsn) {
        while let Some(change) = self.changes.pop_front_if(|change| change.commit < place) {
            self.from = Lsn(change.commit.0 + 1);
            self.null_flips -= usize::from(change.has_null());
            for (value, _) in &change.values {
                self.bytes -= 2 * cost(value);
                if let Some(flips) = self.flips.get_mut(value) {
                    flips.retain(|commit| *commit != change.commit);
                    if flips.is_empty() {
                        self.flips.remove(value);
                    }
                }
            }
        }
    }

    /// What transactions did that committed between two places.
    pub(in crate::shape) fn changes(&self, from: Lsn, to: Lsn) -> impl Iterator<Item = &Change> {
        let at = self.changes.partition_point(|change| change.commit < from);
        self.changes.iter().skip(at).take_while(move |change| change.commit < to)
    }

    /// All values at a place.
    pub(in crate::shape) fn at(&self, place: Lsn) -> impl Iterator<Item = &Value> {
        let gone = self.flips.keys().filter(|value| !self.rows.contains_key(*value));
        self.rows.keys().chain(gone).filter(move |value| self.has(value, place))
    }

    fn has(&self, value: &Value, place: Lsn) -> bool {
        let since = self.flips.get(value).map_or(0, |all| all.iter().rev().take_while(|at| **at >= place).count());
        self.rows.contains_key(value) != (since % 2 == 1)
    }

    /// `value IN (…)` at a place, three-valued: null beside anything may be equal.
    pub(in crate::shape) fn contains(&self, value: &[Option<&str>], place: Lsn) -> Option<bool> {
        let owned: Value = value.iter().map(|part| part.map(str::to_owned)).collect();
        let null = value.contains(&None);
        if !null && self.has(&owned, place) {
            return Some(true);
        }
        if !null && self.with_null == 0 && self.null_flips == 0 {
            return Some(false);
        }
        if !null && value.len() == 1 {
            return if self.has(&vec![None], place) { None } else { Some(false) };
        }
        let maybe = |row: &Value| {
            row.iter().zip(&owned).all(|(theirs, ours)| theirs.is_none() || ours.is_none() || theirs == ours)
        };
        if self.at(place).any(maybe) { None } else { Some(false) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn value(text: &str) -> Value {
        vec![(text != "null").then(|| text.to_owned())]
    }

    #[test]
    fn values_leave_with_the_last_row_that_gave_them() {
        let mut values = Values::new(Lsn(1));
        values.apply(Lsn(10), HashMap::from([(value("1"), 2), (value("null"), 1)]));
        values.apply(Lsn(20), HashMap::from([(value("1"), -1)]));
        values.apply(Lsn(30), HashMap::from([(value("1"), -1)]));
        values.apply(Lsn(40), HashMap::from([(value("null"), -1)]));
        let check = |place, one, other, null| {
            let of = |text| values.contains(&[text], Lsn(place));
            assert_eq!((of(Some("1")), of(Some("2")), of(None)), (one, other, null), "at {place}");
        };
        check(10, Some(false), Some(false), Some(false));
        check(11, Some(true), None, None);
        check(30, Some(true), None, None);
        check(31, None, None, None);
        check(41, Some(false), Some(false), Some(false));
        let emptiness = |commit| values.changes(Lsn(commit), Lsn(commit + 1)).map(|change| change.emptiness).next();
        assert_eq!([10, 20, 30, 40].map(emptiness), [Some(true), None, Some(false), Some(true)]);
        assert_eq!(values.changes(Lsn(10), Lsn(40)).count(), 2);
    }

    proptest! {
        /// Every place is answered as a set would be that stopped there; what is forgotten costs nothing.
        #[test]
        fn the_past_is_as_it_was(
            steps in prop::collection::vec(prop::collection::vec((0_usize..5, any::<bool>()), 0..4), 1..12),
            forgotten in 0_usize..12,
        ) {
            let names = ["null", "1", "2", "3", "4"];
            let mut values = Values::new(Lsn(0));
            let mut counts = [0_i64; 5];
            let mut past = vec![counts];
            for (step, changes) in steps.iter().enumerate() {
                let mut deltas: HashMap<Value, i64> = HashMap::new();
                for (which, more) in changes {
                    let delta = if *more { 1 } else if counts[*which] > 0 { -1 } else { 0 };
                    counts[*which] += delta;
                    *deltas.entry(value(names[*which])).or_default() += delta;
                }
                values.apply(Lsn(10 * (step as u64 + 1)), deltas);
                past.push(counts);
            }
            values.forget_before(Lsn(10 * forgotten as u64));
            for (step, counts) in past.iter().enumerate() {
                let place = Lsn(10 * step as u64 + 1);
                if place < values.from() {
                    continue;
                }
                let mut expected: Vec<Value> = (0..5).filter(|at| counts[*at] > 0).map(|at| value(names[at])).collect();
                let mut found: Vec<Value> = values.at(place).cloned().collect();
                expected.sort();
                found.sort();
                prop_assert_eq!(&found, &expected);
                for (at, name) in names.iter().enumerate().skip(1) {
                    let expected = if counts[at] > 0 { Some(true) } else if counts[0] > 0 { None } else { Some(false) };
                    prop_assert_eq!(values.contains(&[Some(name)], place), expected);
                }
                prop_assert_eq!(values.contains(&[None], place), if expected.is_empty() { Some(false) } else { None });
            }
            values.forget_before(Lsn(u64::MAX));
            let alive: usize = values.rows.keys().map(|value| cost(value)).sum();
            prop_assert_eq!(values.bytes(), alive);
        }
    }
}
