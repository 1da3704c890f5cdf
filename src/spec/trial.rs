//! One trial's settings: the study's fixed values, overridden by a configuration.

use super::{AugmentSpec, FreezeTo, HeadSpec, NetworkSpec, TrainingSpec};
use crate::ids::Epoch;
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

    /// Epochs at the start that are cheaper than the later ones: in which only the head is trained, or images are smaller.
    /// No trial has both.
    pub fn early_epochs(&self) -> u32 {
        self.probing_epochs().max(self.training.small_epochs.min(self.training.epochs))
    }

    /// The settings as they count in those epochs; `None` if there are none.
    pub fn early(&self) -> Option<Self> {
        let mut early = self.clone();
        match (self.probing_epochs(), self.training.small_epochs) {
            (0, 0) => return None,
            (0, _) => early.network.input_size = self.training.small_size.or(self.network.input_size),
            _ => early.network.freeze = FreezeTo::All,
        }
        Some(early)
    }

    /// The settings as they count in an epoch, the first of which is 1.
    pub fn in_epoch(&self, epoch: Epoch) -> Self {
        self.early().filter(|_| epoch.0 <= self.early_epochs()).unwrap_or_else(|| self.clone())
    }
}
