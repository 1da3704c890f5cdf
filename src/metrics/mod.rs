//! From predictions to figures: confusion, ranking, calibration, intervals.

mod predictions;

pub use predictions::{Prediction, Predictions};
