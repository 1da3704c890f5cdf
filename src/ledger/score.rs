//! How objective values are compared, everywhere.

use crate::ids::{Epoch, TrialNumber};
use crate::spec::Direction;
use std::cmp::{Ordering, Reverse};

/// An objective value with its sign set so that smaller is better. A missing or non-finite value is worst in either
/// direction.
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

    /// Whether there is a finite value.
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

/// A trial's score in a comparison: best first, ties by trial number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ranked {
    /// Its score.
    pub score: Score,
    /// The trial.
    pub trial: TrialNumber,
}

/// A trial's place in the ranking of a study; smaller is better. Trials trained longest come first, then the best
/// results, then the lowest trial numbers: results after different numbers of epochs are never compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    epochs: Reverse<Epoch>,
    ranked: Ranked,
}

impl Place {
    /// The place of a trial with this result after this many epochs.
    pub fn new(direction: Direction, epochs: Epoch, result: f64, trial: TrialNumber) -> Self {
        Self { epochs: Reverse(epochs), ranked: Ranked { score: Score::new(direction, Some(result)), trial } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_after_different_numbers_of_epochs_are_not_compared() {
        let place = |epochs, result, trial| Place::new(Direction::Maximize, Epoch(epochs), result, TrialNumber(trial));
        assert!(place(9, 0.93, 1) < place(1, 0.95, 0), "a complete trial stands above one stopped at epoch 1");
        assert!(place(9, 0.94, 2) < place(9, 0.93, 1));
        assert!(place(9, 0.93, 0) < place(9, 0.93, 1));
    }

    #[test]
    fn a_non_finite_value_is_worst_in_both_directions() {
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
