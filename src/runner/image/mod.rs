//! Image trials: transfer learning in candle on a cached frozen prefix.
//!
//! `plan` decides which images an epoch visits; `feed` provides them, as cached features or as pixels through the
//! frozen layers; `model` is the trained part of one fold; `training` runs epochs over all folds; this file opens data,
//! networks and cache once, and writes checkpoints and predictions.

mod cost;
mod error;
mod export;
mod feed;
mod forecast;
mod losses;
mod memory;
mod model;
mod pieces;
mod plan;
mod pooled;
mod price;
mod resident;
mod scorer;
#[cfg(test)]
mod tests;
mod training;
mod watch;

pub use cost::{StudyCost, measured_pace, study_cost};
pub use error::{ImageError, explain};
pub use export::{ExportedTrial, sets, to_onnx};
pub use forecast::{Forecast, forecast, forecast_on};
pub use plan::{Planner, Sample};
pub use pooled::Pooled;
pub use price::{Counts, EpochWork, ImagePrices, ImageWork, Parts};
pub use scorer::{Explainer, Scored, Scorer, mean_of, mean_score, summed};

use super::{Continue, DeviceSlot, EpochSink, Materials, Start, TrialError, TrialRunner};
use crate::data::features::FeatureCache;
use crate::data::{DataSet, DataSummary};
use crate::digest::Digest;
use crate::engine::{FileRef, WorkOrder};
use crate::fsx;
use crate::ids::{Epoch, TrialNumber};
use crate::metrics::{self, Predictions};
use crate::nn::build::{Built, build};
use crate::nn::checkpoint::Checkpoint;
use crate::nn::cuda;
use crate::space::{Params, Value};
use crate::spec::{NetworkSpec, RunnerSpec, Setting, StudySpec, TrialSettings, WeightSource};
use candle_core::Device;
use feed::Frozen;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use training::{Prepared, Training};
use watch::watched;

/// Runs the orders of one image study. Data, networks and cache are opened at first use and kept.
pub struct ImageRunner {
    study: StudySpec,
    base: PathBuf,
    expected: Materials,
    opened: Option<Opened>,
}

/// What is kept between orders.
struct Opened {
    device: Device,
    named: crate::spec::Device,
    data: DataSet,
    cache: FeatureCache,
    /// By the settings that determine them; a list, as there are few.
    networks: Vec<(crate::spec::NetworkKey, Built)>,
}

/// What a trial needs to know of itself.
struct TrialPlan {
    settings: TrialSettings,
    /// The settings of its early epochs, if it has any.
    early: Option<TrialSettings>,
    /// Cuts whose pooled features are cached in one pass.
    taps: Vec<usize>,
}

impl ImageRunner {
    /// The runner of `study`, whose relative paths start at `base`, the study file's folder.
    pub fn new(study: &StudySpec, base: &Path) -> Self {
        Self { study: study.clone(), base: base.to_owned(), expected: Materials::default(), opened: None }
    }

    /// The same, which refuses other images and weights than these.
    #[must_use]
    pub fn expecting(self, expected: Materials) -> Self {
        Self { expected, ..self }
    }

    /// A summary of the images, which the first call opens.
    ///
    /// # Errors
    /// If the images or the device cannot be opened.
    pub fn data(&mut self, slot: &DeviceSlot, sink: &mut dyn EpochSink) -> Result<&DataSummary, ImageError> {
        self.images(slot, sink).map(DataSet::summary)
    }

    /// Checks that [`ImageRunner::test`] with the same arguments can score: that network, weights and checkpoint exist
    /// and match. Scores no image.
    ///
    /// # Errors
    /// If there are no test images, or the checkpoint is gone, damaged or another trial's.
    pub fn rehearse(
        &mut self,
        trial: (TrialNumber, &Params),
        checkpoint: &FileRef,
        slot: &DeviceSlot,
        sink: &mut dyn EpochSink,
    ) -> Result<(), ImageError> {
        let plan = self.trial_plan(trial.1)?;
        self.restored(trial.0, &plan, checkpoint, slot, sink)?.1.can_test()
    }

    /// Scores the locked test images with a trial's checkpoint: mean scores over its folds' models.
    ///
    /// # Errors
    /// If there are no test images, or the checkpoint does not belong to the trial.
    pub fn test(
        &mut self,
        trial: (TrialNumber, &Params),
        checkpoint: &FileRef,
        slot: &DeviceSlot,
        sink: &mut dyn EpochSink,
    ) -> Result<Predictions, ImageError> {
        let plan = self.trial_plan(trial.1)?;
        let (opened, mut trial) = self.restored(trial.0, &plan, checkpoint, slot, sink)?;
        trial.test(&opened.cache, sink)
    }

    /// A trial restored from a checkpoint.
    fn restored<'a>(
        &'a mut self,
        trial: TrialNumber,
        plan: &'a TrialPlan,
        checkpoint: &FileRef,
        slot: &DeviceSlot,
        sink: &mut dyn EpochSink,
    ) -> Result<(&'a Opened, Training<'a>), ImageError> {
        self.open(&plan.settings, slot, sink)?;
        let (opened, built) = self.parts(&plan.settings)?;
        let mut trial = self.training(trial, plan, (opened, built), None)?;
        let checkpoint =
            Checkpoint::read(&slot.study_dir.join(&checkpoint.path), Some(checkpoint.digest), &opened.device)?;
        trial.restore(&checkpoint)?;
        Ok((opened, trial))
    }

    fn trial_plan(&self, params: &Params) -> Result<TrialPlan, ImageError> {
        let settings = self.study.runner.settings(params).map_err(ImageError::Settings)?;
        Ok(TrialPlan { taps: self.taps(&settings), early: settings.early(), settings })
    }

    /// An untrained trial. `at_once`: micro-batch size where memory is short.
    fn training<'a>(
        &'a self,
        trial: TrialNumber,
        plan: &'a TrialPlan,
        (opened, built): (&'a Opened, &'a Built),
        at_once: Option<usize>,
    ) -> Result<Training<'a>, ImageError> {
        let frozen = |settings: &'a TrialSettings| Frozen {
            at_once,
            ..Frozen::new(opened, built, settings, &plan.taps, self.study.seed)
        };
        let early = plan.early.as_ref().map(frozen);
        let digest = self.digest(&plan.settings);
        Training::new(frozen(&plan.settings), early, &self.study.objective, trial, digest)
    }

    /// The cuts of all head-only networks that the search space allows with this trial's other settings: one pass
    /// through the frozen backbone caches the pooled features of all of them.
    fn taps(&self, settings: &TrialSettings) -> Vec<usize> {
        // `None`: not searched, so the trial's own value.
        let choices = |name: &str| -> Vec<Option<&Value>> {
            match self.study.space.parameters.iter().find(|p| p.name == name).map(|p| &p.domain) {
                Some(domain) if !domain.choices().is_empty() => domain.choices().iter().map(Some).collect(),
                _ => vec![None],
            }
        };
        let probes = settings.training.probe_epochs > 0 || self.study.space.get("probe_epochs").is_some();
        let mut cuts = BTreeSet::new();
        for tap in choices("tap") {
            for freeze in choices("freeze") {
                let mut other = settings.clone();
                let valid = [("tap", tap), ("freeze", freeze)].into_iter().all(|(name, value)| match value {
                    Some(value) => Setting::named(name).is_some_and(|s| s.put(&mut other, value).is_ok()),
                    None => true,
                });
                if valid && other.network.check().is_ok() && (probes || other.network.head_only()) {
                    cuts.insert(other.network.tap_position());
                }
            }
        }
        cuts.into_iter().collect()
    }

    /// Digest of what a checkpoint must have in common with the trial that resumes from it.
    fn digest(&self, settings: &TrialSettings) -> Digest {
        let data = match &self.study.runner {
            RunnerSpec::Image { data, .. } => serde_json::to_string(data),
            _ => Ok(String::new()),
        };
        // Plain structs always serialise.
        let texts = [data.unwrap_or_default(), serde_json::to_string(settings).unwrap_or_default()];
        Digest::of_parts([
            ("seed", &self.study.seed.to_le_bytes()[..]),
            ("data", texts[0].as_bytes()),
            ("settings", texts[1].as_bytes()),
        ])
    }

    /// Opens what is not open yet.
    fn open(
        &mut self,
        settings: &TrialSettings,
        slot: &DeviceSlot,
        sink: &mut dyn EpochSink,
    ) -> Result<(), ImageError> {
        let base = self.base.clone();
        let seed = self.study.seed;
        let expected = self.expected.weights.get(&settings.network.backbone.to_string()).copied();
        let opened = self.open_data(slot, sink)?;
        let key = settings.network.key();
        if opened.networks.iter().all(|(k, _)| *k != key) {
            let network = located(&settings.network, &base);
            let built = build(&network, seed, &opened.device)?;
            if expected.is_some_and(|expected| expected != built.weights) {
                return Err(ImageError::OtherWeights { backbone: network.backbone });
            }
            opened.networks.push((key, built));
        }
        Ok(())
    }

    fn open_data(&mut self, slot: &DeviceSlot, sink: &mut dyn EpochSink) -> Result<&mut Opened, ImageError> {
        if self.opened.as_ref().is_none_or(|o| o.named != slot.device) {
            let RunnerSpec::Image { data, .. } = &self.study.runner else { return Err(ImageError::NotImages) };
            // The thread pool of all kernels is global to the process; an existing one is kept.
            let _ = rayon::ThreadPoolBuilder::new().num_threads(slot.threads).build_global();
            let (seed, base) = (self.study.seed, &self.base);
            let opened = watched(sink, |watch| DataSet::open(data, seed, base, &slot.cache_dir, watch));
            if sink.interrupted() {
                return Err(ImageError::Interrupted);
            }
            let data = opened?;
            if self.expected.images.is_some_and(|expected| expected != data.summary().digest) {
                return Err(ImageError::OtherImages);
            }
            self.opened = Some(Opened {
                device: device(slot.device)?,
                named: slot.device,
                data,
                cache: FeatureCache::open(&slot.cache_dir, self.study.limits.cache_bytes)?,
                networks: Vec::new(),
            });
        }
        cuda::set_precision(self.study.run.precision);
        self.opened.as_mut().ok_or(ImageError::NotImages)
    }

    fn parts(&self, settings: &TrialSettings) -> Result<(&Opened, &Built), ImageError> {
        let opened = self.opened.as_ref().ok_or(ImageError::NotImages)?;
        let key = settings.network.key();
        let (_, built) = opened.networks.iter().find(|(k, _)| *k == key).ok_or(ImageError::NotImages)?;
        Ok((opened, built))
    }

    fn train(
        &mut self,
        order: &WorkOrder,
        start: &Start,
        slot: &DeviceSlot,
        sink: &mut dyn EpochSink,
    ) -> Result<(), ImageError> {
        let plan = self.trial_plan(&order.params)?;
        self.open(&plan.settings, slot, sink)?;
        let (opened, built) = self.parts(&plan.settings)?;
        memory::begin(&opened.device);
        let batch = plan.settings.training.batch_size as usize;
        let at_once = (start.halvings > 0).then(|| pieces::at_once(batch, start.halvings));
        let mut trial = self.training(order.trial, &plan, (opened, built), at_once)?;
        if let Some(file) = &start.checkpoint {
            let checkpoint = Checkpoint::read(&slot.study_dir.join(&file.path), Some(file.digest), &opened.device)?;
            trial.restore(&checkpoint)?;
        }
        let mut feed = None;
        for epoch in start.epoch.0 + 1..=order.to.0 {
            let feed = match feed.take().filter(|f: &Prepared<'_>| f.covers(Epoch(epoch))) {
                Some(prepared) => feed.insert(prepared),
                None => feed.insert(trial.prepared(&opened.cache, (Epoch(epoch), order.to), sink)?),
            };
            let mut trained = trial.epoch(Epoch(epoch), feed, sink)?;
            let name = format!("{:05}-{epoch:04}", order.trial.0);
            let predictions = write_predictions(&trained.predictions, slot, format!("predictions/{name}.csv"))?;
            let path = format!("checkpoints/{name}.safetensors");
            let (digest, bytes) = trial.checkpoint(Epoch(epoch))?.write(&slot.study_dir.join(&path))?;
            trained.report.predictions = Some(predictions);
            trained.report.checkpoint = Some(FileRef { path, digest, bytes });
            if sink.epoch(trained.report)? == Continue::Stop {
                break;
            }
        }
        Ok(())
    }
}

impl TrialRunner for ImageRunner {
    fn run(
        &mut self,
        order: &WorkOrder,
        start: &Start,
        slot: &DeviceSlot,
        sink: &mut dyn EpochSink,
    ) -> Result<(), TrialError> {
        match self.train(order, start, slot, sink) {
            Err(ImageError::Interrupted) => Ok(()),
            other => other.map_err(TrialError::from),
        }
    }
}

/// The network, with a relative path of its weight file resolved against `base`, the study file's folder.
pub fn located(network: &NetworkSpec, base: &Path) -> NetworkSpec {
    let mut network = network.clone();
    if let WeightSource::File(path) = &mut network.weights {
        *path = base.join(&*path);
    }
    network
}

/// Checks that the weights of every backbone in the search space can be loaded, so that a missing one is reported
/// before the first trial, and returns their digests by backbone. Loads them on the CPU, so that the calling process holds no
/// GPU memory.
///
/// # Errors
/// If one cannot be loaded, or the study has no images.
pub fn usable(study: &StudySpec, base: &Path) -> Result<BTreeMap<String, Digest>, ImageError> {
    let networks = study.networks();
    if networks.is_empty() {
        return Err(ImageError::NotImages);
    }
    let built = |network: &NetworkSpec| build(&located(network, base), study.seed, &Device::Cpu);
    networks.iter().map(|network| Ok((network.backbone.to_string(), built(network)?.weights))).collect()
}

/// Opens a device.
fn device(named: crate::spec::Device) -> Result<Device, ImageError> {
    super::device::open(named).map_err(|e| ImageError::Device(Box::new(e)))
}

fn write_predictions(predictions: &Predictions, slot: &DeviceSlot, path: String) -> Result<FileRef, ImageError> {
    let target = slot.study_dir.join(&path);
    let bytes = metrics::predictions::to_csv(predictions)
        .map_err(|source| ImageError::Predictions { path: target.clone(), source })?;
    let io = |source| ImageError::Io { path: target.clone(), source };
    if let Some(folder) = target.parent() {
        std::fs::create_dir_all(folder).map_err(io)?;
    }
    fsx::write_atomic(&target, &bytes).map_err(io)?;
    Ok(FileRef { path, digest: Digest::of(&bytes), bytes: bytes.len() as u64 })
}
