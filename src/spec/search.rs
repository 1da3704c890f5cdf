//! Objective, sampler, scheduler, budget, limits.

use super::{AugmentSpec, DataSpec, Devices, HeadSpec, NetworkSpec, Precision, TrainingSpec};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use strum::{Display, EnumString, IntoStaticStr, VariantNames};

/// What runs a trial.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[allow(clippy::large_enum_variant)] // one value a study
pub enum RunnerSpec {
    /// A transfer-learning job on images.
    Image { data: DataSpec, network: NetworkSpec, head: HeadSpec, training: TrainingSpec, augment: AugmentSpec },
    /// Any program.
    Command(CommandSpec),
    /// A formula with a learning curve, for tests and benchmarks of the search itself.
    Synthetic {
        /// Full number of epochs.
        epochs: u32,
        /// Milliseconds an epoch takes.
        epoch_ms: u64,
    },
    /// Whoever has opened the study trains its trials himself: `Study::ask`, `report`, `tell`. No worker runs them.
    External {
        /// Full number of epochs.
        epochs: u32,
    },
}

/// An external program as a trial: see `runner::command` for the protocol.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CommandSpec {
    /// Program and arguments; `{name}` is replaced by the parameter, those of [`ORDER_FIELDS`](super::ORDER_FIELDS) by the
    /// order's.
    pub argv: Vec<String>,
    /// Working directory, relative to the study file.
    pub directory: Option<PathBuf>,
    /// Full number of epochs.
    pub epochs: u32,
}

/// Better is larger, or smaller.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, Display, EnumString, IntoStaticStr, VariantNames,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case", const_into_str)]
pub enum Direction {
    Maximize,
    Minimize,
}

/// What a study optimises: a metric of the validation images after a trial's latest epoch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Objective {
    /// The metric.
    pub metric: Metric,
    /// Which way is better.
    pub direction: Direction,
    /// Where the decision threshold of thresholded metrics and of the report sits.
    pub operating_point: OperatingPoint,
}

/// A metric. `Display`/`FromStr` give the names of the study file, among them `recall@specificity>=0.9`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    Recall,
    Precision,
    Specificity,
    F1,
    BalancedAccuracy,
    Accuracy,
    RocAuc,
    PrAuc,
    Brier,
    /// Mean cross-entropy of the validation images, unweighted.
    LogLoss,
    /// Largest recall among thresholds whose specificity is at least this.
    RecallAtSpecificity(f64),
    /// Largest specificity among thresholds whose recall is at least this.
    SpecificityAtRecall(f64),
    /// Largest precision among thresholds whose recall is at least this.
    PrecisionAtRecall(f64),
    /// A value that a command or a library user reports under this name.
    Custom(String),
}

/// How a threshold is fixed, on validation images only.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OperatingPoint {
    /// This score.
    Threshold(f64),
    /// The largest threshold whose recall is at least this.
    Recall(f64),
    /// The smallest threshold whose specificity is at least this.
    Specificity(f64),
    /// Maximises recall + specificity - 1 (Youden 1950).
    Youden,
    /// Maximises F1.
    F1,
}

/// How configurations are proposed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, IntoStaticStr)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[strum(serialize_all = "snake_case", const_into_str)]
pub enum SamplerSpec {
    Random,
    /// Every combination; floats without `step` take `points` values.
    Grid {
        points: u32,
    },
    /// Owen-scrambled Sobol points.
    Sobol,
    /// Tree-structured Parzen estimator (Bergstra et al. 2011), multivariate, constant liar.
    Tpe {
        n_startup: u32,
        n_ei_candidates: u32,
        /// Earlier studies whose results it knows from the start, by name or by the path of their database.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        warm_start: Vec<String>,
    },
}

impl SamplerSpec {
    /// Earlier studies whose results it knows from the start.
    pub fn warm_start(&self) -> &[String] {
        match self {
            Self::Tpe { warm_start, .. } => warm_start,
            _ => &[],
        }
    }

    /// Whether results change its proposals.
    pub fn learns(&self) -> bool {
        matches!(self, Self::Tpe { .. })
    }
}

/// How epochs are given to configurations.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, IntoStaticStr)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[strum(serialize_all = "snake_case", const_into_str)]
pub enum SchedulerSpec {
    /// Every trial runs to the end.
    None,
    /// Synchronous successive halving with certain promotion.
    Sha { min_resource: u32, reduction_factor: u32 },
    /// Asynchronous successive halving by promotion (Li et al. 2020).
    Asha { min_resource: u32, reduction_factor: u32 },
    /// Hyperband (Li et al. 2018), brackets as its Table 1, or as its Algorithm 1.
    Hyperband { min_resource: u32, reduction_factor: u32, algorithm1: bool },
    /// Stops what is worse than the median of finished trials at the same epoch.
    Median { warmup_epochs: u32, min_trials: u32 },
}

/// What a scheduler's decisions depend on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// Not on results.
    Nothing,
    /// On results, but not on the order in which they are seen.
    Results,
    /// On the order too: results are shown in that of the virtual workers, whose number is part of the study.
    Order,
}

impl SchedulerSpec {
    /// What its decisions depend on.
    pub fn needs(&self) -> Needs {
        match self {
            Self::None => Needs::Nothing,
            Self::Sha { .. } => Needs::Results,
            Self::Asha { .. } | Self::Hyperband { .. } | Self::Median { .. } => Needs::Order,
        }
    }
}

/// When a study ends. Raising these and running again continues the study.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Budget {
    /// Trials in all. `None` only with grid (its size) and hyperband (its brackets).
    pub n_trials: Option<u32>,
    /// Seconds of running, over all runs of the study.
    pub wall_seconds: Option<f64>,
    /// Trained epochs in all.
    pub epochs: Option<u64>,
    /// Failed trials after which the study stops with an error.
    pub max_failures: Option<u32>,
}

/// What a single trial may take.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Limits {
    /// Seconds one trial may train.
    pub trial_seconds: Option<f64>,
    /// Seconds one epoch may take; a worker silent for longer is killed.
    pub epoch_seconds: Option<f64>,
    /// Bytes of checkpoints kept at once.
    pub checkpoint_bytes: Option<u64>,
    /// Bytes of cached features on disk.
    pub cache_bytes: Option<u64>,
}

/// Further attempts allowed after each class of failure; 0: the trial fails at once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailurePolicies {
    pub oom: u32,
    pub diverged: u32,
    pub timeout: u32,
    pub crashed: u32,
    pub lost: u32,
}

impl Default for FailurePolicies {
    fn default() -> Self {
        Self { oom: 3, diverged: 0, timeout: 0, crashed: 1, lost: 3 }
    }
}

/// How the study is run on this machine. Not part of its identity: no result depends on it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunSpec {
    /// Worker processes.
    pub workers: u32,
    /// Threads each; `None`: the cores divided by the workers.
    pub threads: Option<u32>,
    /// Worker processes on each device, instead of `workers` in all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workers_per_device: Option<u32>,
    /// Where they compute.
    pub device: Devices,
    /// How convolutions multiply on GPUs. Results differ by rounding.
    #[serde(default, skip_serializing_if = "Precision::is_default")]
    pub precision: Precision,
    /// Virtual workers of algorithms that learn from results (part of the identity of such studies).
    pub virtual_workers: u32,
}
