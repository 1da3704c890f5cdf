//! How a trial is trained.

use serde::{Deserialize, Serialize};
use strum::{Display, EnumString, IntoStaticStr, VariantNames};

/// Optimiser, schedule, loss and batches of a trial.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrainingSpec {
    /// Full number of epochs: the schedule's length and the scheduler's `max_resource`.
    pub epochs: u32,
    /// Images per step.
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
    /// How classes of unequal size are handled.
    pub imbalance: ImbalancePolicy,
    // Fields added later are serialised only if they change earlier behaviour, so that older studies keep their digest.
    /// Gradients are scaled down to this global norm (Pascanu et al. 2013); 0: never.
    #[serde(default, skip_serializing_if = "crate::spec::is_default")]
    pub clip_norm: f64,
    /// Learning rate of every unfrozen stage as a multiple of that of the stage above it (discriminative fine-tuning:
    /// Howard and Ruder 2018).
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub layer_decay: f64,
    /// Epochs after which a step counts for 1/e in a moving average of the weights, which is judged instead of them; 0: the
    /// weights themselves are.
    #[serde(default, skip_serializing_if = "crate::spec::is_default")]
    pub average_epochs: f64,
    /// Epochs at the start in which only the head is trained, on the pretrained features; then the unfrozen layers join
    /// (linear probing, then fine-tuning: Kumar et al. 2022). Each part has its own course of the learning rate. Without
    /// effect where nothing but the head is ever trained.
    #[serde(default, skip_serializing_if = "crate::spec::is_default")]
    pub probe_epochs: u32,
    /// Epochs at the start in which the network sees smaller images (progressive resizing: Howard 2018; Tan and Le 2021,
    /// section 4.2). The learning rate has one course over all epochs.
    #[serde(default, skip_serializing_if = "crate::spec::is_default")]
    pub small_epochs: u32,
    /// Side in pixels of the images in those epochs; `None`: half of the later side, or there are no such epochs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub small_size: Option<u32>,
    /// Statistics that the head's batch norm uses outside training.
    #[serde(default, skip_serializing_if = "NormStatistics::is_running")]
    pub norm_statistics: NormStatistics,
}

impl Default for TrainingSpec {
    /// The values of a study file that says nothing about training.
    fn default() -> Self {
        Self {
            epochs: 10,
            batch_size: 32,
            optimiser: OptimiserKind::AdamW,
            learning_rate: 1e-3,
            weight_decay: 1e-4,
            momentum: 0.9,
            backbone_rate: 0.1,
            schedule: ScheduleKind::Cosine,
            warmup_epochs: 0.0,
            loss: LossKind::CrossEntropy,
            focal_gamma: 2.0,
            label_smoothing: 0.0,
            imbalance: ImbalancePolicy::Weights,
            clip_norm: 0.0,
            layer_decay: 1.0,
            average_epochs: 0.0,
            probe_epochs: 0,
            small_epochs: 0,
            small_size: None,
            norm_statistics: NormStatistics::Precise,
        }
    }
}

fn one() -> f64 {
    1.0
}

fn is_one(x: &f64) -> bool {
    *x == 1.0
}

/// Statistics of the head's batch norm outside training.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    Hash,
    Serialize,
    Deserialize,
    Display,
    EnumString,
    IntoStaticStr,
    VariantNames,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case", const_into_str)]
pub enum NormStatistics {
    /// Moving averages over training steps: they lag behind features that change.
    #[default]
    Running,
    /// Computed after each epoch over training images, with the weights that are evaluated (precise batch norm: Wu and
    /// Johnson 2021).
    Precise,
}

impl NormStatistics {
    fn is_running(&self) -> bool {
        *self == Self::Running
    }
}

/// Optimisers.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, Display, EnumString, IntoStaticStr, VariantNames,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case", const_into_str)]
pub enum OptimiserKind {
    #[serde(rename = "adamw")]
    #[strum(serialize = "adamw")]
    AdamW,
    Sgd,
}

/// Learning-rate schedules, all over the full number of epochs.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, Display, EnumString, IntoStaticStr, VariantNames,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case", const_into_str)]
pub enum ScheduleKind {
    Constant,
    /// Half a cosine down to 0 (Loshchilov and Hutter 2017).
    Cosine,
    /// Times 0.1 at 1/2 and at 3/4 of the epochs.
    Step,
}

/// Losses.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, Display, EnumString, IntoStaticStr, VariantNames,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case", const_into_str)]
pub enum LossKind {
    CrossEntropy,
    Focal,
}

/// How classes of unequal size are handled.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, Display, EnumString, IntoStaticStr, VariantNames,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case", const_into_str)]
pub enum ImbalancePolicy {
    None,
    /// Class c weighs n / (classes * n_c), from the training split.
    Weights,
    /// Smaller classes are drawn repeatedly until all are as large as the largest.
    Oversample,
    /// Each epoch draws a new subset of every larger class, as large as the smallest.
    Undersample,
}
