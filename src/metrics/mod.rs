//! Metrics of predictions: confusion, ranking, calibration, choice of a threshold.
//!
//! Conventions. An image is called positive when its score of the positive class is at or above the threshold. A
//! metric whose denominator is 0, or which needs both classes and has one, is `None`, never 0 or 0.5. With more than
//! two classes, an image is called the class of its largest score, and every metric is the macro average: the plain
//! mean over classes of one class against the rest. Accuracy and log loss need no such mean. A macro average with an
//! undefined part is undefined.

mod calibration;
mod confusion;
mod curve;
mod operating;
pub mod predictions;
mod summary;

#[cfg(test)]
mod reference;

pub use calibration::{Calibration, ReliabilityBin};
pub use confusion::{Confusion, ConfusionMatrix};
pub use curve::{Curve, PrPoint, Ranked, RocPoint, Step};
pub use predictions::{Prediction, Predictions, PredictionsError};
pub use summary::{Metrics, constrained, evaluate, objective, threshold_at};
