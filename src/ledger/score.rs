//! How values are compared, once for everybody.

use crate::ids::{Epoch, TrialNumber};
use crate::spec::Direction;
use std::cmp::{Ordering, Reverse};

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

/// A trial's place among all others; smaller is better. Those trained longest come first, among them the best result,
/// among equals the earlier trial: results after different numbers of epochs never compete.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    epochs: Reverse<Epoch>,
    ranked: Ranked,
}

impl Place {
    /// The place that a result after so many epochs gives.
    pub fn new(direction: Direction, epochs: Epoch, result: f64, trial: TrialNumber) -> Self {
        Self { epochs: Reverse(epochs), ranked: Ranked { score: Score::new(direction, Some(result)), trial } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_after_different_numbers_of_epochs_do_not_compete() {
        let place = |epochs, result, trial| Place::new(Direction::Maximize, Epoch(epochs), result, TrialNumber(trial));
        assert!(place(9, 0.93, 1) < place(1, 0.95, 0), "a complete trial stands above one stopped at epoch 1");
        assert!(place(9, 0.94, 2) < place(9, 0.93, 1));
        assert!(place(9, 0.93, 0) < place(9, 0.93, 1));
    }

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
