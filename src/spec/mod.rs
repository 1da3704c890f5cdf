//! The validated study: what `config` makes of a study file, and what everything else reads.
//!
//! `config` checks a study once, and nothing else does. What comes in later is checked where it comes in: a trial's
//! configuration by [`TrialSettings::with`], against the same [`SETTINGS`] as the study file.
//! The JSON form of [`StudySpec`] is stored in the database, so a changed study file can be told from a raised
//! budget.

mod augment;
mod backbones;
mod command;
mod data;
mod device;
mod identity;
mod keys;
mod metric;
mod network;
mod precision;
mod runner;
mod search;
mod settings;
mod training;
mod trial;

pub use augment::{AugmentSpec, Views};
pub use command::{FillError, ORDER_FIELDS};
pub use data::{BadFilePolicy, ColourMode, DataSource, DataSpec, SplitSpec, SyntheticSpec, ValidationPolicy};
pub use device::{Device, Devices, UnknownDevice};
pub use identity::{Change, Difference};
pub use keys::{FrozenKey, NetworkKey};
pub use metric::{UnknownMetric, UnknownOperatingPoint};
pub use network::{
    BackboneKind, BatchNormMode, CachePrecision, FreezeTo, HeadKind, HeadSpec, NetworkSpec, PixelScaling, PoolPadding,
    WeightSource,
};
pub use precision::Precision;
pub use search::{
    Budget, CommandSpec, Direction, FailurePolicies, Limits, Metric, Needs, Objective, OperatingPoint, RunSpec,
    RunnerSpec, SamplerSpec, SchedulerSpec,
};
pub use settings::{Bounds, SETTINGS, Setting, SettingKind, SettingsError};
pub use training::{ImbalancePolicy, LossKind, NormStatistics, OptimiserKind, ScheduleKind, TrainingSpec};
pub use trial::TrialSettings;

use crate::space::{Params, SearchSpace};
use serde::{Deserialize, Serialize};

/// Everything a study file says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StudySpec {
    /// The study's name: unique within a state folder; letters, digits, `-`, `_`, `.`.
    pub name: String,
    /// The seed of every random stream.
    pub seed: u64,
    /// What runs a trial.
    pub runner: RunnerSpec,
    /// What is measured and which way is better.
    pub objective: Objective,
    /// The parameters that differ between trials.
    pub space: SearchSpace,
    /// How configurations are proposed.
    pub sampler: SamplerSpec,
    /// How epochs are given to them.
    pub scheduler: SchedulerSpec,
    /// Known configurations that go first, in this order.
    pub enqueue: Vec<Params>,
    /// When the study ends.
    pub budget: Budget,
    /// What a single trial or epoch may take.
    pub limits: Limits,
    /// What follows each class of failure.
    pub failures: FailurePolicies,
    /// How it is run here; may differ from run to run without changing any result.
    pub run: RunSpec,
}

impl StudySpec {
    /// A study whose trials the caller trains himself, with everything else as in a study file that says no more:
    /// change what should differ. The domains of `space` must be sound; where they come from outside,
    /// `config::from_text` checks them.
    pub fn external(name: impl Into<String>, space: SearchSpace, epochs: u32, n_trials: u32) -> Self {
        Self {
            name: name.into(),
            seed: 0,
            runner: RunnerSpec::External { epochs },
            objective: Objective {
                metric: Metric::Custom(String::from("value")),
                direction: Direction::Maximize,
                operating_point: OperatingPoint::Threshold(0.5),
            },
            space,
            sampler: SamplerSpec::Random,
            scheduler: SchedulerSpec::Sha { min_resource: 1, reduction_factor: 3 },
            enqueue: Vec::new(),
            budget: Budget { n_trials: Some(n_trials), wall_seconds: None, epochs: None, max_failures: None },
            limits: Limits::default(),
            failures: FailurePolicies::default(),
            run: RunSpec {
                workers: 1,
                threads: None,
                workers_per_device: None,
                device: Devices::Auto,
                precision: Precision::default(),
                virtual_workers: 8,
            },
        }
    }
}

#[cfg(test)]
mod words;
