//! Counts of decisions against the truth.

use super::{Predictions, PredictionsError};
use serde::{Deserialize, Serialize};

/// Counts of decisions on one class against the rest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confusion {
    /// Positive images called positive.
    pub tp: u64,
    /// Negative images called positive.
    pub fp: u64,
    /// Negative images called negative.
    pub tn: u64,
    /// Positive images called negative.
    #[serde(rename = "fn")]
    pub fn_: u64,
}

fn ratio(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

impl Confusion {
    /// Counts decisions at a threshold: a score at or above it is called positive.
    pub fn at(scores: &[f64], positive: &[bool], threshold: f64) -> Self {
        let mut c = Self::default();
        for (&score, &truth) in scores.iter().zip(positive) {
            match (score >= threshold, truth) {
                (true, true) => c.tp += 1,
                (true, false) => c.fp += 1,
                (false, false) => c.tn += 1,
                (false, true) => c.fn_ += 1,
            }
        }
        c
    }

    /// Share of positive images called positive (sensitivity).
    pub fn recall(&self) -> Option<f64> {
        ratio(self.tp, self.tp + self.fn_)
    }

    /// Share of negative images called negative.
    pub fn specificity(&self) -> Option<f64> {
        ratio(self.tn, self.tn + self.fp)
    }

    /// Share of positive calls that are correct (positive predictive value).
    pub fn precision(&self) -> Option<f64> {
        ratio(self.tp, self.tp + self.fp)
    }

    /// Share of negative calls that are correct (negative predictive value).
    pub fn npv(&self) -> Option<f64> {
        ratio(self.tn, self.tn + self.fn_)
    }

    /// Harmonic mean of precision and recall, as 2 tp / (2 tp + fp + fn): 0 without true positives, undefined without
    /// positive images and positive calls.
    pub fn f1(&self) -> Option<f64> {
        ratio(2 * self.tp, 2 * self.tp + self.fp + self.fn_)
    }

    /// Share of correct decisions.
    pub fn accuracy(&self) -> Option<f64> {
        ratio(self.tp + self.tn, self.tp + self.fp + self.tn + self.fn_)
    }

    /// Mean of recall and specificity.
    pub fn balanced_accuracy(&self) -> Option<f64> {
        Some((self.recall()? + self.specificity()?) / 2.0)
    }
}

/// Counts by true class (rows) and called class (columns).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfusionMatrix {
    /// Class names, in the order of rows and columns.
    pub classes: Vec<String>,
    /// `counts[truth][called]`.
    pub counts: Vec<Vec<u64>>,
}

impl ConfusionMatrix {
    /// With two classes, decides by the threshold on the positive class's score; with more, by the largest score, the
    /// earlier class among equals (the threshold is then ignored).
    pub fn new(predictions: &Predictions, threshold: f64) -> Result<Self, PredictionsError> {
        predictions.check()?;
        let k = predictions.classes.len();
        let mut counts = vec![vec![0; k]; k];
        for row in &predictions.rows {
            counts[row.label as usize][predictions.called(row, threshold)] += 1;
        }
        Ok(Self { classes: predictions.classes.clone(), counts })
    }

    /// One class against the rest.
    pub fn versus_rest(&self, class: usize) -> Confusion {
        let mut c = Confusion::default();
        for (truth, row) in self.counts.iter().enumerate() {
            for (called, &n) in row.iter().enumerate() {
                match (called == class, truth == class) {
                    (true, true) => c.tp += n,
                    (true, false) => c.fp += n,
                    (false, false) => c.tn += n,
                    (false, true) => c.fn_ += n,
                }
            }
        }
        c
    }

    /// Share of correct decisions over all classes.
    pub fn accuracy(&self) -> Option<f64> {
        let right: u64 = self.counts.iter().enumerate().map(|(i, row)| row[i]).sum();
        ratio(right, self.counts.iter().flatten().sum())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_without_a_denominator_is_undefined() {
        let none = Confusion::at(&[], &[], 0.5);
        assert_eq!((none.recall(), none.f1(), none.accuracy()), (None, None, None));
        let negatives = Confusion::at(&[0.1, 0.2], &[false, false], 0.5);
        assert_eq!(negatives.specificity(), Some(1.0));
        assert_eq!((negatives.recall(), negatives.precision(), negatives.balanced_accuracy()), (None, None, None));
        let missed = Confusion::at(&[0.1, 0.2], &[true, false], 0.5);
        assert_eq!((missed.f1(), missed.precision(), missed.npv()), (Some(0.0), None, Some(0.5)));
    }

    #[test]
    fn a_score_at_the_threshold_is_positive() {
        assert_eq!(Confusion::at(&[0.5], &[true], 0.5).tp, 1);
    }
}
