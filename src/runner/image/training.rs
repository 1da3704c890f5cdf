//! One trial: a model for every fold, trained and validated epoch by epoch.

use super::ImageError;
use super::feed::{Feed, Frozen};
use super::losses::Losses;
use super::memory;
use super::model::{InitialState, Model};
use super::plan::{Planner, Sample, batches};
use crate::data::augment::View;
use crate::data::features::FeatureCache;
use crate::data::{Fold, PixelSource};
use crate::engine::EpochReport;
use crate::ids::{Epoch, TrialNumber};
use crate::metrics::{self, Prediction, Predictions};
use crate::nn::checkpoint::{Checkpoint, Note};
use crate::nn::loss::balanced_weights;
use crate::runner::image::watch::watched;
use crate::runner::{EpochSink, Phase};
use crate::spec::{ImbalancePolicy, NormStatistics, Objective, TrialSettings};
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Instant;

/// Images scored at once where only a head is trained.
pub(super) const SCORED_AT_ONCE: usize = 256;
/// Images over which batch-norm statistics are computed after an epoch: a quarter of its samples, within these bounds.
/// Wu and Johnson (2021) found a thousand to be enough for all layers of a network; the head's need fewer.
const MEASURED: std::ops::RangeInclusive<usize> = 256..=1024;

/// Samples of an epoch of `samples` over which batch-norm statistics are computed.
pub(super) fn measured(samples: usize) -> usize {
    samples.div_ceil(4).clamp(*MEASURED.start(), *MEASURED.end()).min(samples)
}

/// A trial in training.
pub struct Training<'a> {
    frozen: Frozen<'a>,
    /// The same for early epochs: with everything frozen, or for smaller images.
    early: Option<Frozen<'a>>,
    /// Epochs done.
    reached: Epoch,
    objective: &'a Objective,
    number: TrialNumber,
    settings: &'a TrialSettings,
    digest: crate::digest::Digest,
    folds: Vec<FoldOfTrial<'a>>,
}

struct FoldOfTrial<'a> {
    fold: &'a Fold,
    labels: Vec<u32>,
    model: Model,
}

/// Where the batches of a range of epochs come from.
pub struct Prepared<'a> {
    feed: Feed<'a>,
    epochs: RangeInclusive<u32>,
}

impl Prepared<'_> {
    /// Whether an epoch is one of them.
    pub fn covers(&self, epoch: Epoch) -> bool {
        self.epochs.contains(&epoch.0)
    }
}

/// An epoch's result, before its files are written.
pub struct Trained {
    pub report: EpochReport,
    pub predictions: Predictions,
}

impl<'a> Training<'a> {
    /// An untrained trial. `early`: the frozen part of its early epochs, if it has any.
    pub fn new(
        frozen: Frozen<'a>,
        early: Option<Frozen<'a>>,
        objective: &'a Objective,
        number: TrialNumber,
        digest: crate::digest::Digest,
    ) -> Result<Self, ImageError> {
        let settings = frozen.settings;
        let (data, tap) = (frozen.data, settings.network.tap_position());
        let size = early.map_or(usize::MAX, |early| early.side()).min(frozen.side());
        if frozen.backbone.side_at(tap, size).is_none() {
            return Err(ImageError::TooSmall { tap: settings.network.tap.clone(), size });
        }
        let classes = data.classes().len();
        let mut folds = Vec::new();
        for (number_of_fold, fold) in (0u32..).zip(&data.split().folds) {
            for (what, images) in [("training", &fold.train), ("validation", &fold.validation)] {
                if images.is_empty() {
                    return Err(ImageError::NoImages { what });
                }
            }
            let labels: Vec<u32> = fold.train.iter().map(|&i| data.records()[i].class).collect();
            let planner = planner(&frozen, number, number_of_fold, fold, &labels);
            let class_weights = match settings.training.imbalance {
                ImbalancePolicy::Weights => balanced_weights(&labels, classes),
                _ => Vec::new(),
            };
            let initial = InitialState {
                backbone: frozen.backbone,
                classes,
                seed: frozen.seed,
                trial: number,
                fold: number_of_fold,
                steps: planner.steps(),
                class_weights,
                device: frozen.device,
                at_once: frozen.at_once,
            };
            folds.push(FoldOfTrial { fold, model: Model::new(settings, initial)?, labels });
        }
        Ok(Self { frozen, early, reached: Epoch(0), objective, number, settings, digest, folds })
    }

    /// Whether an epoch is an early one.
    fn is_early(&self, epoch: Epoch) -> bool {
        epoch.0 <= self.settings.early_epochs()
    }

    /// The last epoch that was trained or restored.
    pub fn reached(&self) -> Epoch {
        self.reached
    }

    /// Whether only the head is trained in an epoch, although more is later.
    fn is_probing(&self, epoch: Epoch) -> bool {
        epoch.0 <= self.settings.probing_epochs()
    }

    /// Exchanges the weights that are trained and those that are judged, or back.
    fn swap(&mut self) -> Result<(), ImageError> {
        Ok(self.folds.iter_mut().try_for_each(|f| f.model.swap())?)
    }

    /// Prepares the models for an epoch.
    fn set_stage(&mut self, epoch: Epoch) {
        let probing = self.is_probing(epoch);
        self.folds.iter_mut().for_each(|f| f.model.set_probing(probing));
    }

    /// Restores the state in a checkpoint.
    pub fn restore(&mut self, checkpoint: &Checkpoint) -> Result<(), ImageError> {
        let Note { trial, settings, epoch, .. } = &checkpoint.note;
        if (*trial, *settings) != (self.number, self.digest) {
            return Err(crate::nn::checkpoint::CheckpointError::Foreign {
                found: format!("trial {trial} with settings {}", settings.short()),
                wanted: format!("trial {} with settings {}", self.number, self.digest.short()),
            }
            .into());
        }
        self.set_stage(*epoch);
        self.folds.iter_mut().try_for_each(|f| f.model.restore(checkpoint))?;
        self.reached = *epoch;
        Ok(())
    }

    /// The state from which training resumes after `epoch`.
    pub fn checkpoint(&self, epoch: Epoch) -> Result<Checkpoint, ImageError> {
        let mut tensors = BTreeMap::new();
        self.folds.iter().try_for_each(|f| f.model.save(&mut tensors))?;
        let steps = self.folds.iter().map(|f| f.model.steps()).collect();
        Ok(Checkpoint { note: Note::new(self.number, epoch, self.digest, steps), tensors })
    }

    /// Prepares the data of the epochs from `from` on that see images alike, up to `to`: views of training images, and original
    /// validation images.
    pub fn prepared(
        &self,
        cache: &FeatureCache,
        (from, to): (Epoch, Epoch),
        sink: &mut dyn EpochSink,
    ) -> Result<Prepared<'a>, ImageError> {
        let (frozen, last) = match self.early {
            Some(early) if self.is_early(from) => (early, to.0.min(self.settings.early_epochs())),
            _ => (self.frozen, to.0),
        };
        let epochs = from.0..=last;
        let mut samples = Vec::new();
        for (number, f) in (0u32..).zip(&self.folds) {
            let planner = planner(&self.frozen, self.number, number, f.fold, &f.labels);
            samples.extend(epochs.clone().flat_map(|epoch| planner.epoch(Epoch(epoch)).concat()));
            samples.extend(originals(&f.fold.validation));
        }
        let feed = watched(sink, move |watch| Feed::prepare(frozen, cache, samples, watch))?;
        Ok(Prepared { feed, epochs })
    }

    /// Trains one epoch (the first is 1) and evaluates it on the validation images.
    pub fn epoch(
        &mut self,
        epoch: Epoch,
        prepared: &Prepared<'_>,
        sink: &mut dyn EpochSink,
    ) -> Result<Trained, ImageError> {
        let began = Instant::now();
        if !prepared.covers(epoch) {
            return Err(ImageError::NotPrepared { epoch: epoch.0 });
        }
        let feed = &prepared.feed;
        self.set_stage(epoch);
        let mut report = EpochReport { epoch, ..EpochReport::default() };
        let mut loss = 0.0;
        for number in 0..self.folds.len() {
            let (fold_loss, images, waited) = self.train(number, epoch, feed, sink)?;
            loss += fold_loss;
            report.images += images;
            report.data_wait_seconds += waited;
        }
        report.train_loss = Some(loss / report.images as f64);
        self.swap()?;
        if self.settings.training.norm_statistics == NormStatistics::Precise {
            for number in 0..self.folds.len() {
                self.recompute_statistics(number, epoch, feed, sink)?;
            }
        }
        let mut pooled = Vec::new();
        let mut by_fold = Vec::new();
        for number in 0..self.folds.len() {
            let rows = self.validate(number, epoch, feed, sink)?;
            by_fold.push(self.predictions(rows.clone()));
            pooled.extend(rows);
        }
        self.swap()?;
        let (value, metrics) = self.figures(&by_fold)?;
        report.value = Some(value);
        report.metrics = metrics;
        report.memory_bytes = memory::taken(self.frozen.device);
        report.at_once = self.frozen.at_once.and_then(|n| u32::try_from(n).ok());
        report.seconds = began.elapsed().as_secs_f64();
        self.reached = epoch;
        Ok(Trained { report, predictions: self.predictions(pooled) })
    }

    /// Trains fold `number` for an epoch. Returns the sum of its samples' losses, their number, and the seconds waited
    /// for data.
    fn train(
        &mut self,
        number: usize,
        epoch: Epoch,
        feed: &Feed<'_>,
        sink: &mut dyn EpochSink,
    ) -> Result<(f64, u64, f64), ImageError> {
        let records = self.frozen.data.records();
        let FoldOfTrial { fold, labels, model } = &mut self.folds[number];
        let plan = planner(&self.frozen, self.number, number as u32, fold, labels).epoch(epoch);
        let total: u64 = plan.iter().map(|b| b.len() as u64).sum();
        let (mut losses, mut done) = (Losses::new(epoch), 0u64);
        let waited = feed.pass(&plan, |step, x| {
            if sink.interrupted() {
                return Err(ImageError::Interrupted);
            }
            let batch = &plan[step];
            let labels: Vec<u32> = batch.iter().map(|s| records[s.image].class).collect();
            let number = model.steps() + 1;
            losses.add(model.step(&x, &labels, epoch, done)?, batch.len(), number)?;
            done += batch.len() as u64;
            sink.progress(Phase::Train, done, total);
            Ok(())
        })?;
        let sum = losses.sum()?;
        if !self.frozen.device.is_cpu() && !model.is_finite()? {
            return Err(ImageError::Diverged { what: "weights", value: f32::NAN, epoch: epoch.0, step: model.steps() });
        }
        Ok((sum, total, waited.as_secs_f64()))
    }

    /// Recomputes the statistics of the head's batch norm with the current weights, over the last samples of the epoch,
    /// whose order is random.
    fn recompute_statistics(
        &self,
        number: usize,
        epoch: Epoch,
        feed: &Feed<'_>,
        sink: &mut dyn EpochSink,
    ) -> Result<(), ImageError> {
        let FoldOfTrial { fold, labels, model } = &self.folds[number];
        let plan = planner(&self.frozen, self.number, number as u32, fold, labels).epoch(epoch);
        let samples = plan.concat();
        let samples = &samples[samples.len() - measured(samples.len())..];
        let plan: Vec<Vec<Sample>> = samples.chunks(self.at_once(epoch)).map(<[Sample]>::to_vec).collect();
        let (mut population, mut done) = (model.population(), 0);
        feed.pass(&plan, |step, x| {
            if sink.interrupted() {
                return Err(ImageError::Interrupted);
            }
            model.add_to(&mut population, &x)?;
            done += plan[step].len() as u64;
            sink.progress(Phase::Statistics, done, samples.len() as u64);
            Ok(())
        })?;
        Ok(model.set_statistics(&population)?)
    }

    /// Batch size where nothing is trained.
    fn at_once(&self, epoch: Epoch) -> usize {
        let probing = self.is_probing(epoch);
        let at_once = if self.settings.network.head_only() || probing {
            SCORED_AT_ONCE
        } else {
            self.settings.training.batch_size as usize
        };
        self.frozen.at_once.map_or(at_once, |n| n.min(at_once))
    }

    /// Scores the validation images of fold `number`.
    fn validate(
        &self,
        number: usize,
        epoch: Epoch,
        feed: &Feed<'_>,
        sink: &mut dyn EpochSink,
    ) -> Result<Vec<Prediction>, ImageError> {
        let f = &self.folds[number];
        let (models, images) = (std::slice::from_ref(f), &f.fold.validation);
        let scores = self.scores(models, images, (feed, epoch), sink, Phase::Validate)?;
        if let Some(&value) = scores.iter().flatten().find(|s| !s.is_finite()) {
            return Err(ImageError::Diverged { what: "score", value, epoch: epoch.0, step: f.model.steps() });
        }
        Ok(self.rows(&f.fold.validation, scores))
    }

    /// Mean scores of the folds' models, as they are after `epoch`.
    fn scores(
        &self,
        folds: &[FoldOfTrial<'_>],
        images: &[usize],
        (feed, epoch): (&Feed<'_>, Epoch),
        sink: &mut dyn EpochSink,
        phase: Phase,
    ) -> Result<Vec<Vec<f32>>, ImageError> {
        let samples: Vec<Sample> = originals(images).collect();
        let plan: Vec<Vec<Sample>> =
            batches(samples.len(), self.at_once(epoch)).map(|range| samples[range].to_vec()).collect();
        let mut all = Vec::with_capacity(images.len());
        feed.pass(&plan, |_, x| {
            if sink.interrupted() {
                return Err(ImageError::Interrupted);
            }
            let mut mean = folds[0].model.scores(&x)?;
            for f in &folds[1..] {
                for (mean, more) in mean.iter_mut().flatten().zip(f.model.scores(&x)?.into_iter().flatten()) {
                    *mean += more;
                }
            }
            mean.iter_mut().flatten().for_each(|s| *s /= folds.len() as f32);
            all.extend(mean);
            sink.progress(phase, all.len() as u64, images.len() as u64);
            Ok(())
        })?;
        Ok(all)
    }

    /// Whether there are test images.
    pub fn can_test(&self) -> Result<(), ImageError> {
        let empty = self.frozen.data.split().test.is_empty();
        if empty { Err(ImageError::NoImages { what: "test" }) } else { Ok(()) }
    }

    /// Scores the locked test images: the mean over the folds' models.
    pub fn test(&mut self, cache: &FeatureCache, sink: &mut dyn EpochSink) -> Result<Predictions, ImageError> {
        self.can_test()?;
        let images = &self.frozen.data.split().test;
        let frozen = self.early.filter(|_| self.is_early(self.reached)).unwrap_or(self.frozen);
        let samples: Vec<Sample> = originals(images).collect();
        let feed = watched(sink, move |watch| Feed::prepare(frozen, cache, samples, watch))?;
        self.swap()?;
        let scores = self.scores(&self.folds, images, (&feed, self.reached), sink, Phase::Test)?;
        self.swap()?;
        Ok(self.predictions(self.rows(images, scores)))
    }

    fn rows(&self, images: &[usize], scores: Vec<Vec<f32>>) -> Vec<Prediction> {
        let records = self.frozen.data.records();
        let row = |(&image, scores): (&usize, Vec<f32>)| Prediction {
            image: records[image].path.clone(),
            patient: records[image].patient.clone(),
            label: records[image].class,
            scores,
        };
        images.iter().zip(scores).map(row).collect()
    }

    fn predictions(&self, rows: Vec<Prediction>) -> Predictions {
        let data = self.frozen.data;
        Predictions { classes: data.classes().to_vec(), positive: data.positive(), rows }
    }

    /// The objective, and every metric that is defined in all folds, as means over the folds. Thresholded metrics are
    /// taken at the operating point, which is reported as `threshold`; those at 0.5 have the suffix `@0.5`.
    fn figures(&self, folds: &[Predictions]) -> Result<(f64, BTreeMap<String, f64>), ImageError> {
        let Objective { metric, operating_point, .. } = self.objective;
        let mut value = 0.0;
        let mut all: Vec<BTreeMap<String, f64>> = Vec::new();
        for (fold, predictions) in folds.iter().enumerate() {
            let of_fold = metrics::objective(predictions, metric, operating_point)
                .ok_or_else(|| ImageError::Undefined { metric: metric.to_string(), fold, why: missing(predictions) })?;
            value += of_fold / folds.len() as f64;
            let threshold = metrics::threshold_at(predictions, operating_point).unwrap_or(0.5);
            let mut figures = metrics::evaluate(predictions, threshold).defined();
            if predictions.classes.len() == 2 {
                figures.insert("threshold".to_owned(), threshold);
                for name in ["recall", "precision", "specificity", "f1", "balanced_accuracy", "accuracy"] {
                    let half = metrics::evaluate(predictions, 0.5).defined().get(name).copied();
                    figures.extend(half.map(|v| (format!("{name}@0.5"), v)));
                }
            }
            all.push(figures);
        }
        let names: Vec<String> = all.first().map(|f| f.keys().cloned().collect()).unwrap_or_default();
        let mean = |name: &String| {
            let sum: Option<f64> = all.iter().map(|f| f.get(name).copied()).sum();
            sum.filter(|s| s.is_finite()).map(|s| (name.clone(), s / all.len() as f64))
        };
        Ok((value, names.iter().filter_map(mean).collect()))
    }
}

/// Why a metric of these predictions may be undefined.
fn missing(predictions: &Predictions) -> String {
    let absent: Vec<&str> = (0u32..)
        .zip(&predictions.classes)
        .filter(|(class, _)| predictions.rows.iter().all(|row| row.label != *class))
        .map(|(_, name)| name.as_str())
        .collect();
    if absent.is_empty() {
        "no image is called positive at the operating point, or no threshold reaches it".to_owned()
    } else {
        format!(
            "there is none of class {}\nhint: validate on more images, or merge the given validation set (`policy = \"merge\"` in `[split]`)",
            absent.join(", ")
        )
    }
}

fn originals(images: &[usize]) -> impl Iterator<Item = Sample> {
    images.iter().map(|&image| Sample { image, view: View::Original })
}

fn planner<'b>(frozen: &Frozen<'b>, trial: TrialNumber, fold: u32, of: &'b Fold, labels: &'b [u32]) -> Planner<'b> {
    Planner {
        seed: frozen.seed,
        trial,
        fold,
        train: &of.train,
        labels,
        classes: frozen.data.classes().len(),
        training: &frozen.settings.training,
        augment: &frozen.settings.augment,
    }
}
