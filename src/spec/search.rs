//! Objective, sampler, scheduler, budget, limits.

use super::{AugmentSpec, DataSpec, Devices, HeadSpec, NetworkSpec, Precision, TrainingSpec};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use strum::{Display, EnumString, IntoStaticStr, VariantNames};

/// What runs a trial.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[allow(clippy::large_enum_variant)] // one value per study
pub enum RunnerSpec {
    /// A transfer-learning job on images.
    Image { data: DataSpec, network: NetworkSpec, head: HeadSpec, training: TrainingSpec, augment: AugmentSpec },
    /// Any program.
    Command(CommandSpec),
    /// Learning curves from a formula, for tests and benchmarks of the search itself.
    Synthetic {
        /// Full number of epochs.
        epochs: u32,
        /// Milliseconds an epoch takes.
        epoch_ms: u64,
    },
    /// The program that opened the study trains its trials (`Study::ask`, `report`, `tell`); no worker runs them.
    External {
        /// Full number of epochs.
        epochs: u32,
    },
}

/// An external program as a trial: see `runner::command` for the protocol.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CommandSpec {
    /// Program and arguments; `{name}` is replaced by the value of that parameter, or of the order for a name in
    /// [`ORDER_FIELDS`](super::ORDER_FIELDS).
    pub argv: Vec<String>,
    /// Working directory, relative to the study file.
    pub directory: Option<PathBuf>,
    /// Full number of epochs.
    pub epochs: u32,
}

/// Whether larger or smaller values are better.
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
    /// How the decision threshold of thresholded metrics and of the report is chosen.
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

/// How the decision threshold is chosen, on validation images only.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OperatingPoint {
    /// A fixed score.
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
        /// Whether it weighs what a configuration promises against what it costs.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        cost_aware: bool,
        /// Earlier studies whose results it knows from the start, by name or by the path of their database.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        warm_start: Vec<String>,
    },
    /// Expected improvement of a Gaussian process (Jones et al. 1998).
    Gp {
        n_startup: u32,
        /// Earlier studies whose results it knows from the start, by name or by the path of their database.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        warm_start: Vec<String>,
    },
}

impl SamplerSpec {
    /// Earlier studies whose results it knows from the start.
    pub fn warm_start(&self) -> &[String] {
        match self {
            Self::Tpe { warm_start, .. } | Self::Gp { warm_start, .. } => warm_start,
            _ => &[],
        }
    }

    /// Whether results change its proposals.
    pub fn learns(&self) -> bool {
        matches!(self, Self::Tpe { .. } | Self::Gp { .. })
    }

    /// Whether costs change its proposals.
    pub fn weighs_costs(&self) -> bool {
        matches!(self, Self::Tpe { cost_aware: true, .. })
    }
}

/// How epochs are allocated to configurations.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, IntoStaticStr)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[strum(serialize_all = "snake_case", const_into_str)]
pub enum SchedulerSpec {
    /// Every trial trains for all epochs.
    None,
    /// Synchronous successive halving (Jamieson and Talwalkar 2016); promotes as soon as a promotion is certain.
    Sha { min_resource: u32, reduction_factor: u32 },
    /// Asynchronous successive halving (Li et al. 2020).
    Asha { min_resource: u32, reduction_factor: u32 },
    /// Hyperband (Li et al. 2018), brackets as its Table 1, or as its Algorithm 1.
    Hyperband { min_resource: u32, reduction_factor: u32, algorithm1: bool },
    /// Stops trials that are worse than the median of complete ones at the same epoch (Golovin et al. 2017).
    Median { warmup_epochs: u32, min_trials: u32 },
}

/// What a scheduler's decisions depend on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// Not on results at all.
    Nothing,
    /// On results, but not on the order in which they are seen.
    Results,
    /// On the order too: results are shown in the order of the virtual workers, whose number is part of the study.
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
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Budget {
    /// Trials in all. `None`: as many as a finite space or the scheduler's brackets have; study files allow it with grid
    /// and hyperband only.
    pub n_trials: Option<u32>,
    /// Seconds of running, over all runs of the study.
    pub wall_seconds: Option<f64>,
    /// Trained epochs in all.
    pub epochs: Option<u64>,
    /// Work in all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub work: Option<WorkBudget>,
    /// Failed trials after which the study stops with an error.
    pub max_failures: Option<u32>,
}

/// A budget of work. It is spent by what orders cost by the cost model, not by what they take.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WorkBudget {
    /// In units of 10^9 operations, which do not depend on the machine.
    GigaOperations(u64),
    /// In seconds, at the pace of the machine that begins the study.
    Seconds(f64),
}

impl WorkBudget {
    /// The budget in mega-operations, at a pace in mega-operations a second; `None` if the pace is needed and not known.
    pub fn operations(self, pace: Option<f64>) -> Option<u64> {
        match self {
            Self::GigaOperations(n) => Some(n.saturating_mul(1000)),
            Self::Seconds(seconds) => pace.map(|pace| (seconds * pace) as u64),
        }
    }
}

/// What a single trial may take.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Limits {
    /// Seconds one trial may train.
    pub trial_seconds: Option<f64>,
    /// Seconds one epoch may take.
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

/// How the study is run on this machine. No decision depends on it, with one exception: `virtual_workers` where
/// algorithms learn from results. Rounding differs between devices and precisions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunSpec {
    /// Worker processes.
    pub workers: u32,
    /// Threads per worker; `None`: the cores divided by the workers.
    pub threads: Option<u32>,
    /// Worker processes on each device, instead of `workers` in all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workers_per_device: Option<u32>,
    /// The devices that workers compute on.
    pub device: Devices,
    /// Precision of convolutions. Results differ by rounding.
    #[serde(default, skip_serializing_if = "Precision::is_default")]
    pub precision: Precision,
    /// Virtual workers of algorithms that learn from results (part of the identity of such studies).
    pub virtual_workers: u32,
}
