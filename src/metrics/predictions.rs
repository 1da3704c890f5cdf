//! Scores of images: what every metric and every chart is made from.

use serde::{Deserialize, Serialize};

/// One image's true class and scores.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Prediction {
    /// The image's path as the manifest has it.
    pub image: String,
    /// Its patient, where known.
    pub patient: Option<String>,
    /// Index of the true class.
    pub label: u32,
    /// Softmax score of each class.
    pub scores: Vec<f32>,
}

/// The predictions of one model on one set of images.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Predictions {
    /// Class names; indices are those of `label` and `scores`.
    pub classes: Vec<String>,
    /// Index of the positive class (binary metrics); with more than two classes metrics are macro averages of
    /// one-vs-rest.
    pub positive: u32,
    /// One row an image.
    pub rows: Vec<Prediction>,
}
