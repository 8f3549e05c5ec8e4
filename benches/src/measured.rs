//! What was measured: each contender's figure of every round, and what must hold between two of them.

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// What a ratio has to keep to.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

impl Bound {
    pub(crate) fn holds(self, ratio: f64) -> bool {
        match self {
            Self::AtMost(bound) => ratio <= bound,
            Self::AtLeast(bound) => ratio >= bound,
        }
    }

    pub(crate) fn text(self) -> String {
        match self {
            Self::AtMost(bound) => format!("≤ {bound}"),
            Self::AtLeast(bound) => format!("≥ {bound}"),
        }
    }
}

/// What a figure is compared with that is bounded by itself.
pub(crate) const ITSELF: &str = "(absolute)";

/// The ratio of two contenders' figures; without bounds it is there for scale.
#[derive(Clone, Debug)]
pub(crate) struct Claim {
    pub(crate) of: String,
    pub(crate) over: String,
    pub(crate) must: Option<Bound>,
    pub(crate) goal: Option<Bound>,
}

/// One thing that was measured of several contenders.
#[derive(Clone, Debug)]
pub(crate) struct Measured {
    /// `INSERT … SELECT of 100,000 orders`
    pub(crate) what: String,
    /// `ms`, `tps`, `events/s`
    pub(crate) unit: &'static str,
    /// By contender, one figure a round.
    figures: BTreeMap<String, Vec<f64>>,
    pub(crate) claims: Vec<Claim>,
}

impl Measured {
    pub(crate) fn new(what: impl Into<String>, unit: &'static str) -> Self {
        Self { what: what.into(), unit, figures: BTreeMap::new(), claims: Vec::new() }
    }

    /// States a ratio, with what it must and what it should reach.
    pub(crate) fn claim(mut self, of: &str, over: &str, must: Option<Bound>, goal: Option<Bound>) -> Self {
        self.claims.push(Claim { of: of.to_owned(), over: over.to_owned(), must, goal });
        self
    }

    /// States what a contender's own figure must and should reach.
    pub(crate) fn fixed(self, of: &str, must: Option<Bound>, goal: Option<Bound>) -> Self {
        self.claim(of, ITSELF, must, goal)
    }

    /// Notes a contender's figure of the round that is under way.
    pub(crate) fn add(&mut self, contender: &str, figure: f64) {
        self.figures.entry(contender.to_owned()).or_default().push(figure);
    }

    /// A contender's median over the rounds.
    pub(crate) fn figure(&self, contender: &str) -> f64 {
        median(&self.figures[contender])
    }

    /// The median of the rounds' ratios: both figures of a ratio are of the same minute.
    pub(crate) fn ratio(&self, claim: &Claim) -> f64 {
        median(&self.ratios(claim))
    }

    /// The smallest and the largest of the rounds' ratios.
    pub(crate) fn spread(&self, claim: &Claim) -> (f64, f64) {
        let ratios = self.ratios(claim);
        (ratios.iter().copied().fold(f64::INFINITY, f64::min), ratios.iter().copied().fold(0.0, f64::max))
    }

    fn ratios(&self, claim: &Claim) -> Vec<f64> {
        let of = &self.figures[&claim.of];
        if claim.over == ITSELF {
            return of.clone();
        }
        let over = &self.figures[&claim.over];
        of.iter().zip(over).map(|(of, over)| of / over).collect()
    }

    pub(crate) fn to_json(&self) -> Value {
        let contenders: BTreeMap<_, _> = self
            .figures
            .iter()
            .map(|(name, rounds)| {
                let rounded: Vec<_> = rounds.iter().copied().map(rounded).collect();
                (name, json!({"median": rounded_median(rounds), "rounds": rounded}))
            })
            .collect();
        let claims: Vec<_> = self
            .claims
            .iter()
            .map(|claim| {
                let ratio = self.ratio(claim);
                let (least, most) = self.spread(claim);
                json!({
                    "of": claim.of,
                    "over": claim.over,
                    "ratio": rounded(ratio),
                    "least": rounded(least),
                    "most": rounded(most),
                    "must": claim.must.map(Bound::text),
                    "goal": claim.goal.map(Bound::text),
                    "passed": claim.must.map(|must| must.holds(ratio)),
                    "reached": claim.goal.map(|goal| goal.holds(ratio)),
                })
            })
            .collect();
        json!({"what": self.what, "unit": self.unit, "contenders": contenders, "ratios": claims})
    }
}

/// The middle one; of an even number the mean of the two in the middle.
fn median(figures: &[f64]) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[middle] } else { f64::midpoint(sorted[middle - 1], sorted[middle]) }
}

fn rounded_median(figures: &[f64]) -> f64 {
    rounded(median(figures))
}

/// Three decimals are more than any of this is good for.
fn rounded(figure: f64) -> f64 {
    (figure * 1000.0).round() / 1000.0
}

/// The contenders of a round: each round begins with another, so that none always follows the same.
pub(crate) fn turns<T: Copy>(contenders: &[T], round: u32) -> Vec<T> {
    let start = usize::try_from(round).unwrap() % contenders.len();
    contenders[start..].iter().chain(&contenders[..start]).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_taken_round_by_round() {
        let mut measured = Measured::new("a thing", "ms").claim("ours", "theirs", Some(Bound::AtMost(2.0)), None);
        for (ours, theirs) in [(2.0, 1.0), (30.0, 10.0), (1.0, 1.0)] {
            measured.add("ours", ours);
            measured.add("theirs", theirs);
        }
        let claim = measured.claims[0].clone();
        assert_eq!((measured.ratio(&claim), measured.spread(&claim)), (2.0, (1.0, 3.0)));
        assert!(Bound::AtMost(2.0).holds(2.0) && !Bound::AtLeast(2.1).holds(2.0));
        assert!((median(&[4.0, 1.0, 3.0, 2.0]) - 2.5).abs() < f64::EPSILON);
    }

    #[test]
    fn each_round_begins_with_another() {
        assert_eq!(turns(&[1, 2, 3], 4), [2, 3, 1]);
    }
}
