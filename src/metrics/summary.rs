//! All metrics of one set of predictions, by name.

use super::{Calibration, ConfusionMatrix, Curve, Predictions};
use crate::spec::{Metric, OperatingPoint};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Every metric that has no parameter of its own. Names are those of the study file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Metrics {
    /// The threshold of `recall` to `accuracy` (ignored with more than two classes).
    pub threshold: f64,
    pub recall: Option<f64>,
    pub precision: Option<f64>,
    pub specificity: Option<f64>,
    pub f1: Option<f64>,
    pub balanced_accuracy: Option<f64>,
    pub accuracy: Option<f64>,
    /// Area under the ROC curve.
    pub roc_auc: Option<f64>,
    /// Average precision.
    pub pr_auc: Option<f64>,
    /// Mean squared distance of the positive class's score from the truth (macro average with more classes).
    pub brier: Option<f64>,
    /// Mean cross-entropy, natural logarithm, scores clamped to at least 2^-52.
    pub log_loss: Option<f64>,
    /// Expected calibration error over ten bins of equal width.
    pub ece: Option<f64>,
}

impl Metrics {
    /// Every metric by name, undefined ones included.
    pub fn named(&self) -> [(&'static str, Option<f64>); 11] {
        [
            ("recall", self.recall),
            ("precision", self.precision),
            ("specificity", self.specificity),
            ("f1", self.f1),
            ("balanced_accuracy", self.balanced_accuracy),
            ("accuracy", self.accuracy),
            ("roc_auc", self.roc_auc),
            ("pr_auc", self.pr_auc),
            ("brier", self.brier),
            ("log_loss", self.log_loss),
            ("ece", self.ece),
        ]
    }

    /// The defined metrics by name, as reported for an epoch.
    pub fn defined(&self) -> BTreeMap<String, f64> {
        self.named().into_iter().filter_map(|(name, v)| Some((name.to_owned(), v?))).collect()
    }

    /// The value of a metric; `None` if it is undefined or not among these.
    pub fn get(&self, metric: &Metric) -> Option<f64> {
        match metric {
            Metric::Recall => self.recall,
            Metric::Precision => self.precision,
            Metric::Specificity => self.specificity,
            Metric::F1 => self.f1,
            Metric::BalancedAccuracy => self.balanced_accuracy,
            Metric::Accuracy => self.accuracy,
            Metric::RocAuc => self.roc_auc,
            Metric::PrAuc => self.pr_auc,
            Metric::Brier => self.brier,
            Metric::LogLoss => self.log_loss,
            Metric::RecallAtSpecificity(_)
            | Metric::SpecificityAtRecall(_)
            | Metric::PrecisionAtRecall(_)
            | Metric::Custom(_) => None,
        }
    }
}

/// The mean over classes; with two classes, the positive one alone. Undefined if any part is.
fn over_classes(predictions: &Predictions, figure: impl Fn(usize) -> Option<f64>) -> Option<f64> {
    if predictions.classes.len() == 2 {
        return figure(predictions.positive as usize);
    }
    let k = predictions.classes.len();
    (0..k).map(figure).sum::<Option<f64>>().map(|sum| sum / k as f64)
}

/// All metrics at a threshold. Predictions that do not pass [`Predictions::check`] (a NaN score, a label out of
/// range) have no defined metric.
pub fn evaluate(predictions: &Predictions, threshold: f64) -> Metrics {
    let mut m = Metrics { threshold, ..Metrics::default() };
    let Ok(matrix) = ConfusionMatrix::new(predictions, threshold) else { return m };
    if predictions.rows.is_empty() {
        return m;
    }
    let confusion = |c| matrix.versus_rest(c);
    let curves: Vec<Curve> = (0..predictions.classes.len()).map(|c| predictions.ranked(c).curve()).collect();
    m.recall = over_classes(predictions, |c| confusion(c).recall());
    m.precision = over_classes(predictions, |c| confusion(c).precision());
    m.specificity = over_classes(predictions, |c| confusion(c).specificity());
    m.f1 = over_classes(predictions, |c| confusion(c).f1());
    m.balanced_accuracy = over_classes(predictions, |c| confusion(c).balanced_accuracy());
    m.accuracy = matrix.accuracy();
    m.roc_auc = over_classes(predictions, |c| curves[c].roc_auc());
    m.pr_auc = over_classes(predictions, |c| curves[c].average_precision());
    m.brier = over_classes(predictions, |c| {
        let (scores, positive) = predictions.versus_rest(c);
        let square = |(s, p): (&f64, &bool)| (s - f64::from(u8::from(*p))).powi(2);
        Some(scores.iter().zip(&positive).map(square).sum::<f64>() / scores.len() as f64)
    });
    m.ece = over_classes(predictions, |c| {
        let (scores, positive) = predictions.versus_rest(c);
        Calibration::new(&scores, &positive, 10).ece
    });
    let loss = |row: &super::Prediction| -f64::from(row.scores[row.label as usize]).max(f64::EPSILON).ln();
    // A certain and right score gives -0; adding 0 makes it 0.
    m.log_loss = Some(predictions.rows.iter().map(loss).sum::<f64>() / predictions.rows.len() as f64 + 0.0);
    m
}

/// The threshold of an operating point on these (validation) predictions: two classes only, as with more the largest
/// score decides. `None` if it is undefined.
pub fn threshold_at(predictions: &Predictions, point: &OperatingPoint) -> Option<f64> {
    if let OperatingPoint::Threshold(t) = point {
        return Some(*t);
    }
    predictions.check().ok()?;
    if predictions.classes.len() != 2 {
        return None;
    }
    predictions.ranked(predictions.positive as usize).curve().choose(point)
}

/// The value of a metric that chooses its own threshold under a constraint, on any images; `None` if undefined, and for
/// every other metric.
pub fn constrained(predictions: &Predictions, metric: &Metric) -> Option<f64> {
    predictions.check().ok()?;
    over_classes(predictions, |c| predictions.ranked(c).curve().constrained(metric))
}

/// The value of an objective on validation predictions. Thresholded metrics are taken at the operating point,
/// which is chosen on the same images; a study that gives none has the threshold 0.5. Constrained metrics choose
/// their own threshold. `None` if undefined, and for [`Metric::Custom`], which cannot be computed from predictions.
pub fn objective(predictions: &Predictions, metric: &Metric, point: &OperatingPoint) -> Option<f64> {
    predictions.check().ok()?;
    match *metric {
        Metric::RecallAtSpecificity(_) | Metric::SpecificityAtRecall(_) | Metric::PrecisionAtRecall(_) => {
            constrained(predictions, metric)
        }
        Metric::Custom(_) => None,
        Metric::RocAuc | Metric::PrAuc | Metric::Brier | Metric::LogLoss => evaluate(predictions, 0.5).get(metric),
        _ if predictions.classes.len() > 2 => evaluate(predictions, 0.5).get(metric),
        _ => evaluate(predictions, threshold_at(predictions, point)?).get(metric),
    }
}
