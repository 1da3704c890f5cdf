//! How values are compared, once for everybody.

use crate::ids::TrialNumber;
use crate::spec::Direction;
use std::cmp::Ordering;

/// A value turned so that smaller is better in either direction. What is not finite, or absent, is worst in both.
#[derive(Clone, Copy, Debug)]
pub struct Score(f64);

impl Score {
    /// The score of a value in a direction.
    pub fn new(direction: Direction, value: Option<f64>) -> Self {
        match (value, direction) {
            (Some(v), Direction::Maximize) if v.is_finite() => Self(-v),
            (Some(v), Direction::Minimize) if v.is_finite() => Self(v),
            _ => Self(f64::INFINITY),
        }
    }

    /// Whether the value can win at all.
    pub fn is_finite(self) -> bool {
        self.0.is_finite()
    }

    /// The score as a number to be minimised; infinite for the worst.
    pub fn cost(self) -> f64 {
        self.0
    }
}

impl Ord for Score {
    fn cmp(&self, other: &Self) -> Ordering {
        // Adding zero makes -0.0 equal to 0.0, which `total_cmp` would tell apart.
        (self.0 + 0.0).total_cmp(&(other.0 + 0.0))
    }
}

impl PartialOrd for Score {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Score {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Score {}

/// A trial's place in a comparison: best first, ties by trial number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ranked {
    /// The value.
    pub score: Score,
    /// The trial.
    pub trial: TrialNumber,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_finite_loses_in_both_directions() {
        for direction in [Direction::Maximize, Direction::Minimize] {
            let poor = Score::new(direction, Some(if direction == Direction::Maximize { -1e300 } else { 1e300 }));
            for bad in [None, Some(f64::NAN), Some(f64::INFINITY), Some(f64::NEG_INFINITY)] {
                assert!(poor < Score::new(direction, bad), "{direction:?} {bad:?}");
            }
        }
        assert!(Score::new(Direction::Maximize, Some(2.0)) < Score::new(Direction::Maximize, Some(1.0)));
        assert!(Score::new(Direction::Minimize, Some(1.0)) < Score::new(Direction::Minimize, Some(2.0)));
        assert_eq!(Score::new(Direction::Maximize, Some(0.0)), Score::new(Direction::Minimize, Some(0.0)));
    }
}
