//! Finds training curves that look wrong, for a person to inspect.

use crate::ids::Epoch;
use crate::spec::Metric;
use std::collections::BTreeMap;

/// A ROC-AUC so far below one half that chance does not explain it, even with few validation images: below it by
/// 1.75 standard errors for 50 images of each class (Hanley and McNeil 1982).
const FAR_BELOW_CHANCE: f64 = 0.4;
/// A network whose ROC-AUC has reached this had learnt something: falling back to chance is then suspicious.
const HAD_LEARNT: f64 = 0.6;

/// An epoch whose validation ROC-AUC is no better than chance although the training loss falls.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct WorseThanChance {
    /// The epoch.
    pub epoch: Epoch,
    /// The validation ROC-AUC there.
    pub roc_auc: f64,
}

impl WorseThanChance {
    /// The first such epoch of a training curve: the training loss is the lowest so far, and the validation ROC-AUC is
    /// far below one half, or has fallen to it from well above.
    ///
    /// Training and validation then disagree: running statistics of batch norm lag behind features that change too
    /// fast, the network has memorised its training images, or the classes of the two sets are mixed up.
    ///
    /// `course`: training loss and validation ROC-AUC after every epoch, from epoch 1.
    pub fn first(course: impl IntoIterator<Item = (Option<f64>, Option<f64>)>) -> Option<Self> {
        let (mut lowest, mut highest) = (f64::INFINITY, 0f64);
        for (epoch, (train_loss, roc_auc)) in (1..).zip(course) {
            let falls = train_loss.is_some_and(|loss| loss < lowest);
            lowest = train_loss.unwrap_or(lowest).min(lowest);
            let Some(roc_auc) = roc_auc else { continue };
            if falls && (roc_auc < FAR_BELOW_CHANCE || (roc_auc <= 0.5 && highest >= HAD_LEARNT)) {
                return Some(Self { epoch: Epoch(epoch), roc_auc });
            }
            highest = highest.max(roc_auc);
        }
        None
    }
}

/// The validation ROC-AUC in an epoch's report: among its metrics, or as its objective.
pub fn roc_auc(metrics: &BTreeMap<String, f64>, value: Option<f64>, objective: &Metric) -> Option<f64> {
    metrics.get("roc_auc").copied().or(value.filter(|_| *objective == Metric::RocAuc))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first(course: &[(f64, f64)]) -> Option<u32> {
        let known = course.iter().map(|&(loss, auc)| (Some(loss), Some(auc)));
        WorseThanChance::first(known).map(|found| found.epoch.0)
    }

    #[test]
    fn a_validation_auc_that_sinks_to_chance_while_the_loss_falls_is_found() {
        assert_eq!(first(&[(0.54, 0.87), (0.50, 0.209), (0.45, 0.89)]), Some(2));
        assert_eq!(first(&[(0.54, 0.87), (0.50, 0.5)]), Some(2));
        assert_eq!(first(&[(0.54, 0.189)]), Some(1));
    }

    #[test]
    fn slow_learners_noise_and_rising_losses_are_not_reported() {
        assert_eq!(first(&[(0.69, 0.47), (0.68, 0.49), (0.67, 0.55)]), None);
        assert_eq!(first(&[(0.54, 0.87), (0.80, 0.3)]), None);
        assert_eq!(first(&[(0.54, 0.87), (0.50, 0.88)]), None);
        assert_eq!(first(&[]), None);
    }
}
