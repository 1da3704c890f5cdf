//! What a runner needs of a study for one trial.

use super::{RunnerSpec, SettingsError, TrialSettings};
use crate::space::Params;

impl RunnerSpec {
    /// One trial's settings: the study's fixed values, overridden by the configuration. Parameters that do not exist
    /// in the configuration keep the study's value. A network that sees images as they are kept has no `input_size`,
    /// and a trial has a `small_size` if it has epochs of small images.
    ///
    /// # Errors
    /// [`SettingsError::NotImages`] for other runners; otherwise if the configuration does not fit the network or the images.
    /// Configurations of a validated study's own space always do.
    pub fn settings(&self, params: &Params) -> Result<TrialSettings, SettingsError> {
        let Self::Image { data, .. } = self else { return Err(SettingsError::NotImages) };
        let mut settings = self.fixed().ok_or(SettingsError::NotImages)?.with(params)?;
        match settings.network.input_size {
            Some(side) if side > data.size => return Err(SettingsError::Side { side, size: data.size }),
            Some(side) if side == data.size => settings.network.input_size = None,
            _ => {}
        }
        let side = settings.network.input_size.unwrap_or(data.size);
        let small = settings.training.small_size.unwrap_or(side / 2);
        settings.training.small_size = (settings.training.small_epochs > 0).then_some(small);
        match settings.training.small_size {
            Some(small) if small >= side => Err(SettingsError::Small { small, side }),
            Some(_) if settings.training.probe_epochs > 0 => Err(SettingsError::Beginnings),
            _ => Ok(settings),
        }
    }

    /// The study's fixed values of an image trial; `None` for other runners.
    pub fn fixed(&self) -> Option<TrialSettings> {
        let Self::Image { network, head, training, augment, .. } = self else { return None };
        Some(TrialSettings {
            network: network.clone(),
            head: head.clone(),
            training: training.clone(),
            augment: augment.clone(),
        })
    }

    /// The full number of epochs of a trial: the scheduler's `max_resource`.
    pub fn epochs(&self) -> u32 {
        match self {
            Self::Image { training, .. } => training.epochs,
            Self::Command(command) => command.epochs,
            Self::Synthetic { epochs, .. } | Self::External { epochs } => *epochs,
        }
    }

    /// Into how many folds the images of a trial are divided; `None`: into one split, or there are no images.
    pub fn folds(&self) -> Option<u32> {
        match self {
            Self::Image { data, .. } => data.split.folds,
            _ => None,
        }
    }
}
