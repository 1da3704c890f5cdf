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

/// A trial's place in the ranking of a study; smaller is better.
///
/// First come trials that are complete or may yet go on, whichever the number of their epochs: the best value after the latest
/// epoch, then the lowest number. On recorded trials that found the better model whenever a search was cut short, and the same
/// when it was not (`benches/quality/rules.py`). Trials that were given up follow, those trained longest first: others with as
/// many epochs were better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Of a trial that was given up.
    epochs: Option<Reverse<Epoch>>,
    ranked: Ranked,
}

impl Place {
    /// The place of a trial with this value after its latest epoch. `given_up`: whether it was stopped before its last one.
    pub fn new(direction: Direction, given_up: bool, epochs: Epoch, value: f64, trial: TrialNumber) -> Self {
        let ranked = Ranked { score: Score::new(direction, Some(value)), trial };
        Self { epochs: given_up.then_some(Reverse(epochs)), ranked }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_count_and_of_trials_that_were_given_up_epochs_do_first() {
        let place = |given_up, epochs, value, trial| {
            Place::new(Direction::Maximize, given_up, Epoch(epochs), value, TrialNumber(trial))
        };
        assert!(place(false, 9, 0.93, 1) < place(true, 1, 0.95, 0), "a complete trial stands above one given up");
        assert!(place(false, 7, 0.95, 2) < place(false, 9, 0.93, 1), "one that may go on, by its value");
        assert!(place(false, 9, 0.94, 2) < place(false, 9, 0.93, 1));
        assert!(place(false, 9, 0.93, 0) < place(false, 9, 0.93, 1));
        assert!(place(true, 3, 0.90, 2) < place(true, 1, 0.95, 1));
        assert!(place(true, 3, 0.91, 2) < place(true, 3, 0.90, 1));
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
