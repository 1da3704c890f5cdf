//! One trial's settings: the study's fixed values, overridden by a configuration.

use super::{AugmentSpec, HeadSpec, NetworkSpec, TrainingSpec};
use serde::{Deserialize, Serialize};

/// Everything about one image trial. Made by `RunnerSpec::settings(&Params)`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrialSettings {
    pub network: NetworkSpec,
    pub head: HeadSpec,
    pub training: TrainingSpec,
    pub augment: AugmentSpec,
}
