//! Ranking: ROC and precision-recall curves, exact with ties.

use crate::spec::Metric;
use serde::{Deserialize, Serialize};

/// Scores in descending order. Sorting costs O(n log n); every curve after that, of all or of resampled images, costs
/// O(n).
#[derive(Clone, Debug)]
pub struct Ranked {
    order: Vec<u32>,
    scores: Vec<f64>,
    positive: Vec<bool>,
}

impl Ranked {
    /// `None` when a score is NaN or the lengths differ.
    pub fn new(scores: &[f64], positive: &[bool]) -> Option<Self> {
        if scores.len() != positive.len() || scores.iter().any(|s| s.is_nan()) {
            return None;
        }
        let mut order: Vec<u32> = (0..scores.len() as u32).collect();
        order.sort_by(|&a, &b| scores[b as usize].total_cmp(&scores[a as usize]));
        Some(Self { order, scores: scores.to_vec(), positive: positive.to_vec() })
    }

    /// The curve of all images.
    pub fn curve(&self) -> Curve {
        self.resampled(&vec![1; self.scores.len()])
    }

    /// The curve in which image `i` counts `times[i]` times.
    pub fn resampled(&self, times: &[u32]) -> Curve {
        let mut steps: Vec<Step> = Vec::new();
        let (mut tp, mut fp) = (0u64, 0u64);
        for &i in &self.order {
            let (i, n) = (i as usize, u64::from(times[i as usize]));
            if n == 0 {
                continue;
            }
            let threshold = self.scores[i];
            if self.positive[i] {
                tp += n;
            } else {
                fp += n;
            }
            match steps.last_mut() {
                // -0 and 0 are one threshold, though `total_cmp` tells them apart.
                Some(last) if last.threshold == threshold => (last.tp, last.fp) = (tp, fp),
                _ => steps.push(Step { threshold, tp, fp }),
            }
        }
        Curve { steps, positives: tp, negatives: fp }
    }
}

/// Counts of images at or above a threshold.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// A score that occurs.
    pub threshold: f64,
    /// Positive images at or above it.
    pub tp: u64,
    /// Negative images at or above it.
    pub fp: u64,
}

/// A point of the ROC curve.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct RocPoint {
    /// Threshold; `None` at (0, 0), where nothing is called positive.
    pub threshold: Option<f64>,
    /// False positive rate, 1 - specificity.
    pub fpr: f64,
    /// True positive rate, recall.
    pub tpr: f64,
}

/// A point of the precision-recall curve.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct PrPoint {
    /// Threshold.
    pub threshold: f64,
    /// Share of positive images called positive.
    pub recall: f64,
    /// Share of positive calls that are correct.
    pub precision: f64,
}

/// Counts at every distinct threshold: all that ROC and precision-recall curves are made from.
#[derive(Clone, Debug, PartialEq)]
pub struct Curve {
    /// One step per distinct score, descending.
    pub steps: Vec<Step>,
    /// Positive images in all.
    pub positives: u64,
    /// Negative images in all.
    pub negatives: u64,
}

impl Curve {
    fn both(&self) -> Option<(f64, f64)> {
        (self.positives > 0 && self.negatives > 0).then_some((self.positives as f64, self.negatives as f64))
    }

    /// Area under the ROC curve by the trapezoid rule: the probability that a positive image scores above a
    /// negative one, ties counting half. Exact: integers until the last division.
    pub fn roc_auc(&self) -> Option<f64> {
        self.both()?;
        let (mut twice, mut tp, mut fp) = (0u128, 0u64, 0u64);
        for s in &self.steps {
            twice += u128::from(s.fp - fp) * u128::from(s.tp + tp);
            (tp, fp) = (s.tp, s.fp);
        }
        Some(twice as f64 / (2 * u128::from(self.positives) * u128::from(self.negatives)) as f64)
    }

    /// Average precision: precision at each step weighted by the recall gained there, without interpolation.
    /// `None` without both classes (with positives alone it would be 1 whatever the model does).
    pub fn average_precision(&self) -> Option<f64> {
        let (positives, _) = self.both()?;
        let mut before = 0;
        Some(
            self.steps
                .iter()
                .map(|s| {
                    let gained = s.tp - before;
                    before = s.tp;
                    gained as f64 / positives * (s.tp as f64 / (s.tp + s.fp) as f64)
                })
                .sum(),
        )
    }

    /// The ROC curve from (0, 0) to (1, 1), one point per distinct score; empty without both classes.
    pub fn roc(&self) -> Vec<RocPoint> {
        let Some((p, n)) = self.both() else { return Vec::new() };
        let start = RocPoint { threshold: None, fpr: 0.0, tpr: 0.0 };
        let rest = self.steps.iter().map(|s| RocPoint {
            threshold: Some(s.threshold),
            fpr: s.fp as f64 / n,
            tpr: s.tp as f64 / p,
        });
        std::iter::once(start).chain(rest).collect()
    }

    /// The precision-recall curve from small recall to 1, one point per distinct score; empty without both classes.
    pub fn precision_recall(&self) -> Vec<PrPoint> {
        let Some((p, _)) = self.both() else { return Vec::new() };
        self.steps
            .iter()
            .map(|s| PrPoint {
                threshold: s.threshold,
                recall: s.tp as f64 / p,
                precision: s.tp as f64 / (s.tp + s.fp) as f64,
            })
            .collect()
    }

    /// The true positive rate at a false positive rate on the ROC curve, interpolated linearly; on a vertical segment,
    /// its upper end. `None` without both classes.
    pub fn tpr_at(&self, fpr: f64) -> Option<f64> {
        let (p, n) = self.both()?;
        let after = self.steps.partition_point(|s| s.fp as f64 / n <= fpr);
        let (x0, y0) = match after {
            0 => (0.0, 0.0),
            i => (self.steps[i - 1].fp as f64 / n, self.steps[i - 1].tp as f64 / p),
        };
        Some(match self.steps.get(after) {
            None => y0,
            Some(s) => y0 + (s.tp as f64 / p - y0) * (fpr - x0) / (s.fp as f64 / n - x0),
        })
    }

    /// Largest recall among thresholds whose specificity is at least `specificity`.
    pub fn recall_at_specificity(&self, specificity: f64) -> Option<f64> {
        let (p, n) = self.both()?;
        let good = self.steps.iter().filter(|s| (self.negatives - s.fp) as f64 / n >= specificity);
        Some(good.map(|s| s.tp as f64 / p).fold(0.0, f64::max))
    }

    /// Largest specificity among thresholds whose recall is at least `recall`.
    pub fn specificity_at_recall(&self, recall: f64) -> Option<f64> {
        let (p, n) = self.both()?;
        if recall <= 0.0 {
            return Some(1.0);
        }
        let good = self.steps.iter().filter(|s| s.tp as f64 / p >= recall);
        good.map(|s| (self.negatives - s.fp) as f64 / n).reduce(f64::max)
    }

    /// Largest precision among thresholds whose recall is at least `recall`.
    pub fn precision_at_recall(&self, recall: f64) -> Option<f64> {
        let (p, _) = self.both()?;
        let good = self.steps.iter().filter(|s| s.tp as f64 / p >= recall);
        good.map(|s| s.tp as f64 / (s.tp + s.fp) as f64).reduce(f64::max)
    }

    /// The value of a metric that chooses its own threshold under a constraint; `None` if undefined, and for every other
    /// metric.
    pub fn constrained(&self, metric: &Metric) -> Option<f64> {
        match *metric {
            Metric::RecallAtSpecificity(s) => self.recall_at_specificity(s),
            Metric::SpecificityAtRecall(r) => self.specificity_at_recall(r),
            Metric::PrecisionAtRecall(r) => self.precision_at_recall(r),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn curve(scores: &[f64], labels: &[u8]) -> Curve {
        let positive: Vec<bool> = labels.iter().map(|&l| l == 1).collect();
        Ranked::new(scores, &positive).unwrap().curve()
    }

    #[test]
    fn ties_count_half() {
        assert_eq!(curve(&[0.5, 0.5], &[1, 0]).roc_auc(), Some(0.5));
        assert_eq!(curve(&[0.4, 0.5, 0.5, 0.6], &[0, 0, 1, 1]).roc_auc(), Some(0.875));
        assert_eq!(curve(&[0.0, -0.0], &[1, 0]).steps.len(), 1);
    }

    #[test]
    fn one_class_has_no_area_and_no_curve() {
        let one = curve(&[0.2, 0.9], &[1, 1]);
        assert_eq!((one.roc_auc(), one.average_precision(), one.tpr_at(0.5)), (None, None, None));
        assert!(one.roc().is_empty() && one.precision_recall().is_empty());
        assert_eq!(curve(&[], &[]).roc_auc(), None);
    }

    #[test]
    fn a_score_that_is_no_number_is_refused() {
        assert!(Ranked::new(&[f64::NAN, 0.1], &[true, false]).is_none());
    }

    #[test]
    fn a_resampled_curve_equals_the_curve_of_the_repeated_images() {
        let ranked = Ranked::new(&[0.1, 0.4, 0.4, 0.8], &[false, true, false, true]).unwrap();
        let repeated = curve(&[0.1, 0.1, 0.4, 0.4, 0.4, 0.8], &[0, 0, 1, 0, 0, 1]);
        assert_eq!(ranked.resampled(&[2, 1, 2, 1]), repeated);
    }

    #[test]
    fn the_roc_curve_is_interpolated_linearly() {
        let c = curve(&[0.4, 0.5, 0.5, 0.6], &[0, 0, 1, 1]);
        // Points (0, 0), (0, .5), (.5, 1), (1, 1).
        for (x, y) in [(0.0, 0.5), (0.25, 0.75), (0.5, 1.0), (0.9, 1.0), (1.0, 1.0)] {
            assert_eq!(c.tpr_at(x), Some(y), "at {x}");
        }
    }

    #[test]
    fn constrained_metrics_keep_their_constraint() {
        let c = curve(&[0.9, 0.8, 0.7, 0.6, 0.5, 0.4], &[1, 0, 1, 1, 0, 0]);
        assert_eq!(c.recall_at_specificity(1.0), Some(1.0 / 3.0));
        assert_eq!(c.recall_at_specificity(0.6), Some(1.0));
        assert_eq!(c.specificity_at_recall(1.0), Some(2.0 / 3.0));
        assert_eq!(c.precision_at_recall(1.0), Some(0.75));
        assert_eq!(c.specificity_at_recall(1.5), None);
        assert_eq!(c.constrained(&Metric::RecallAtSpecificity(0.6)), Some(1.0));
        assert_eq!(c.constrained(&Metric::RocAuc), None);
    }
}
