//! The validated study: what `config` makes of a study file, and what everything else reads.
//!
//! Only `config` checks a study, once. A trial's configuration, which comes later, is checked by
//! [`TrialSettings::with`] against the same [`SETTINGS`] as the study file. The JSON form of [`StudySpec`] is stored in
//! the database, so that a raised budget can be told from a different study.

mod augment;
mod backbones;
mod cluster;
mod command;
mod data;
mod device;
mod identity;
mod keys;
mod metric;
mod network;
mod notify;
mod precision;
pub mod rungs;
mod runner;
mod search;
mod settings;
mod training;
mod trial;

pub use augment::{AugmentSpec, Views};
pub use cluster::{Allocation, ClusterKind, ClusterSpec, Others, WORKER_FIELDS};
pub use command::{FillError, ORDER_FIELDS};
pub use data::{BadFilePolicy, ColourMode, DataSource, DataSpec, SplitSpec, SyntheticSpec, ValidationPolicy, Window};
pub use device::{Device, Devices, UnknownDevice};
pub use identity::{Change, Difference};
pub use keys::{FrozenKey, NetworkKey};
pub use metric::{UnknownMetric, UnknownOperatingPoint};
pub use network::{
    BackboneKind, BatchNormMode, CachePrecision, FreezeTo, HeadKind, HeadSpec, NetworkSpec, PixelScaling, PoolPadding,
    WeightSource,
};
pub use notify::{NOTICE_FIELDS, NotifySpec, NotifyUrl, Occasion};
pub use precision::Precision;
pub use search::{
    Budget, CommandSpec, Direction, FailurePolicies, Limits, Metric, Needs, Objective, OperatingPoint, RunSpec,
    RunnerSpec, SamplerSpec, SchedulerSpec, WorkBudget,
};
pub use settings::{Bounds, SETTINGS, Setting, SettingKind, SettingsError};
pub use training::{ImbalancePolicy, LossKind, NormStatistics, OptimiserKind, ScheduleKind, TrainingSpec};
pub use trial::TrialSettings;

use crate::space::{Params, SearchSpace, Value};
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
    /// How epochs are allocated to them.
    pub scheduler: SchedulerSpec,
    /// Configurations to try first, in this order.
    pub enqueue: Vec<Params>,
    /// When the study ends.
    pub budget: Budget,
    /// What a single trial or epoch may take.
    pub limits: Limits,
    /// What follows each class of failure.
    pub failures: FailurePolicies,
    /// How it is run on this machine; may differ from run to run without changing any result.
    pub run: RunSpec,
    /// How workers are started on other machines; `None`: they run on this one. Not stored.
    #[serde(skip)]
    pub cluster: Option<ClusterSpec>,
    /// Who is told of what happens. Not stored.
    #[serde(skip)]
    pub notify: NotifySpec,
    /// Which of its values are defaults that differed in an earlier version of the program.
    #[serde(skip)]
    pub changed_defaults: ChangedDefaults,
}

/// Defaults that a study file relies on and that differed in an earlier version, so that a study begun with the earlier
/// ones can be continued (see [`StudySpec::with_defaults_of`]). Not part of a study's identity: all values are equal.
#[derive(Clone, Copy, Debug, Default)]
pub struct ChangedDefaults {
    /// `training.norm_statistics`, once `running`.
    pub norm_statistics: bool,
}

impl PartialEq for ChangedDefaults {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl StudySpec {
    /// This study; where its file relies on a default that has changed since, with the value of `stored`.
    pub fn with_defaults_of(mut self, stored: &Self) -> Self {
        if self.changed_defaults.norm_statistics
            && let RunnerSpec::Image { training: earlier, .. } = &stored.runner
            && let RunnerSpec::Image { training, .. } = &mut self.runner
        {
            training.norm_statistics = earlier.norm_statistics;
        }
        self
    }

    /// The networks of a study of images, one for each backbone that its space can ask for; none in other studies.
    pub fn networks(&self) -> Vec<NetworkSpec> {
        let RunnerSpec::Image { network, .. } = &self.runner else { return Vec::new() };
        let choices = self.space.get("backbone").map_or_else(Vec::new, |p| p.domain.choices().to_vec());
        let asked = choices.iter().filter_map(Value::as_str).filter_map(|name| name.parse().ok());
        let mut networks: Vec<NetworkSpec> = asked.filter_map(|kind| network.with_backbone(kind)).collect();
        if networks.is_empty() {
            networks.push(network.clone());
        }
        networks
    }

    /// A study whose trials the caller trains, with the defaults of a study file for everything else: change the fields
    /// that should differ. The domains of `space` are not checked here and must be valid; `config::from_text` checks
    /// those of a study file.
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
            budget: Budget { n_trials: Some(n_trials), ..Default::default() },
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
            cluster: None,
            notify: NotifySpec::default(),
            changed_defaults: ChangedDefaults::default(),
        }
    }
}

#[cfg(test)]
mod words;

/// Whether a field holds its type's default: such fields, added later, are not serialised, so that older studies keep their
/// digest.
pub(crate) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
