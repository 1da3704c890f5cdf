//! How a trial is trained.

use serde::{Deserialize, Serialize};

/// Optimiser, schedule, loss and batches of a trial.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrainingSpec {
    /// Full number of epochs: the schedule's length and the scheduler's `max_resource`.
    pub epochs: u32,
    /// Images a step.
    pub batch_size: u32,
    /// Which optimiser.
    pub optimiser: OptimiserKind,
    /// Peak learning rate.
    pub learning_rate: f64,
    /// Decoupled weight decay (AdamW: Loshchilov and Hutter 2019), or L2 penalty (SGD).
    pub weight_decay: f64,
    /// SGD's momentum; AdamW's beta1 is .9, beta2 .999.
    pub momentum: f64,
    /// Learning rate of the unfrozen backbone, as a multiple of `learning_rate`.
    pub backbone_rate: f64,
    /// Course of the learning rate over `epochs`.
    pub schedule: ScheduleKind,
    /// Epochs of linear warm-up; may be fractional.
    pub warmup_epochs: f64,
    /// Loss function.
    pub loss: LossKind,
    /// Focusing exponent of the focal loss (Lin et al. 2017).
    pub focal_gamma: f64,
    /// Label smoothing, 0..1.
    pub label_smoothing: f64,
    /// What is done about unequal classes.
    pub imbalance: ImbalancePolicy,
}

/// Optimisers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OptimiserKind {
    #[serde(rename = "adamw")]
    AdamW,
    Sgd,
}

/// Learning-rate schedules, all over the full number of epochs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScheduleKind {
    Constant,
    /// Half a cosine down to 0 (Loshchilov and Hutter 2017).
    Cosine,
    /// Times 0.1 at 1/2 and at 3/4 of the epochs.
    Step,
}

/// Losses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LossKind {
    CrossEntropy,
    Focal,
}

/// What is done about unequal classes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ImbalancePolicy {
    None,
    /// Class c weighs n / (classes * n_c), from the training split.
    Weights,
    /// Smaller classes are drawn repeatedly until all are as large as the largest.
    Oversample,
    /// Each epoch takes a fresh draw of larger classes, as large as the smallest.
    Undersample,
}
