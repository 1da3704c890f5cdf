//! One trial's settings: the study's fixed values, overridden by a configuration.

use super::{AugmentSpec, FreezeTo, HeadSpec, NetworkSpec, TrainingSpec};
use serde::{Deserialize, Serialize};

/// Everything about one image trial. Made by `RunnerSpec::settings(&Params)`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrialSettings {
    pub network: NetworkSpec,
    pub head: HeadSpec,
    pub training: TrainingSpec,
    pub augment: AugmentSpec,
}

impl TrialSettings {
    /// Epochs at the start in which only the head is trained, although further layers are trained later.
    pub fn probing_epochs(&self) -> u32 {
        if self.network.head_only() { 0 } else { self.training.probe_epochs.min(self.training.epochs) }
    }

    /// The settings as they count in those epochs, with everything frozen; `None` if there are none.
    pub fn probing(&self) -> Option<Self> {
        let frozen = || NetworkSpec { freeze: FreezeTo::All, ..self.network.clone() };
        (self.probing_epochs() > 0).then(|| Self { network: frozen(), ..self.clone() })
    }
}
