//! What a whole study of images will take, in seconds and bytes, before it has run: the cost model's operations, at the
//! pace of this machine, which is measured on a few of the study's networks.

use super::forecast::IMAGES;
use super::price::{Counts, EpochWork, bank, feature_shape, originals, shared_by};
use super::{Forecast, ImageError, ImagePrices, ImageWork, Parts, forecast_on, located};
use crate::data::DataSummary;
use crate::data::features::predicted_bytes;
use crate::engine::{Paid, RungTable, planned_trials};
use crate::ids::TrialNumber;
use crate::nn::inception_v3;
use crate::sampler::drawn;
use crate::spec::{BackboneKind, Device, NetworkKey, StudySpec, TrialSettings};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::Path;

/// The most configurations drawn for a prediction.
const DRAWN: u32 = 256;
/// The most networks measured: each takes a second or two.
const MEASURED: usize = 4;

/// What determines the pace of a trial: network, input, tap, cut, head.
type Network = (NetworkKey, usize, usize, usize, &'static str);

/// Predicted work, time and disk.
#[derive(Clone, Debug, Serialize)]
pub struct StudyCost {
    /// What the figures were measured on.
    pub measured_on: String,
    /// How many of the networks that the search can draw were measured.
    pub networks_measured: usize,
    pub networks_drawn: usize,
    /// Work of the whole study in giga-operations of the cost model: the unit of `budget.work`.
    pub giga_operations: u64,
    /// Computing time through frozen layers for features that are kept.
    pub frozen_seconds: f64,
    /// Computing time of all epochs.
    pub epoch_seconds: f64,
    /// Seconds of an epoch of the cheapest and of the most expensive of the drawn trials.
    pub epoch_seconds_range: (f64, f64),
    /// Bytes of cached features, before the study's limit is applied.
    pub feature_bytes: u64,
    /// Bytes of decoded images.
    pub pixel_bytes: u64,
    /// Bytes of one checkpoint, the largest.
    pub checkpoint_bytes: u64,
    /// Different sets of cached features among the drawn trials.
    pub feature_sets: usize,
    /// Trials drawn for this prediction.
    pub drawn: u32,
}

/// Seconds that this machine takes for an operation, in each part of a trial.
#[derive(Clone, Copy, Debug)]
struct Pace {
    frozen: f64,
    step: f64,
    score: f64,
}

impl Pace {
    /// From networks that were measured, each with its modelled work. Parts that none of them has go at the pace of the
    /// others.
    fn new(measured: &[(Forecast, ImageWork)]) -> Self {
        let sums = |seconds: fn(&Forecast) -> f64, work: fn(&ImageWork) -> f64| {
            (measured.iter().map(|(f, _)| seconds(f)).sum::<f64>(), measured.iter().map(|(_, w)| work(w)).sum::<f64>())
        };
        let parts = [
            sums(|f| f.frozen_seconds, |w| w.frozen),
            sums(|f| f.train_seconds, |w| w.step),
            sums(|f| f.judge_seconds, |w| w.score),
        ];
        let all = parts.iter().map(|p| p.0).sum::<f64>() / parts.iter().map(|p| p.1).sum::<f64>().max(1.0);
        let [frozen, step, score] = parts.map(|(seconds, work)| if work > 0.0 { seconds / work } else { all });
        Self { frozen, step, score }
    }

    fn epoch(&self, work: &EpochWork) -> f64 {
        self.step * work.training + self.score * work.judging
    }
}

/// A drawn trial.
struct Drawn {
    settings: TrialSettings,
    network: Network,
    /// Operations through frozen layers that are kept.
    frozen: f64,
    /// What it trains of each planned stretch of epochs, by the share of the trials that get there.
    stretches: Vec<(f64, Parts)>,
}

impl Drawn {
    /// The expected sum over its epochs of what `each` makes of one.
    fn epochs(&self, each: impl Fn(&EpochWork) -> f64) -> f64 {
        self.stretches.iter().map(|(share, parts)| share * parts.epochs(&each)).sum()
    }
}

/// A stretch of epochs, and the share of a study's trials that train it.
type Stretch = (f64, Range<u32>);

/// Draws the study's trials, models each, measures the networks in which most of the work lies, and adds up.
///
/// `base`: the folder against which paths of the study file are resolved.
///
/// # Errors
/// If a configuration cannot be run, or if a network or device is not available.
pub fn study_cost(
    spec: &StudySpec,
    base: &Path,
    summary: &DataSummary,
    rungs: &RungTable,
    device: Device,
) -> Result<StudyCost, ImageError> {
    crate::nn::cuda::set_precision(spec.run.precision);
    let planned = planned_trials(spec).unwrap_or(DRAWN).max(1);
    // Thousands of brackets have a few stretches in common.
    let mut seats: BTreeMap<(u32, u32), u64> = BTreeMap::new();
    for rung in rungs.brackets.iter().flat_map(|bracket| &bracket.rungs) {
        *seats.entry((rung.epochs - rung.added, rung.epochs)).or_default() += u64::from(rung.seats);
    }
    let share = |seats: u64| seats as f64 / rungs.trials.max(1) as f64;
    let stretches: Vec<Stretch> = seats.into_iter().map(|((from, to), seats)| (share(seats), from..to)).collect();
    let drawn = draw(spec, base, summary, &stretches, planned.min(DRAWN))?;

    let measured = measure(&drawn, spec, summary, device)?;
    let pace = Pace::new(&measured);

    let mean = |each: &dyn Fn(&Drawn) -> f64| drawn.iter().map(each).sum::<f64>() / drawn.len() as f64;
    let trials = rungs.trials as f64;
    let frozen = extrapolated(&drawn, planned);
    let operations = mean(&|d| d.epochs(EpochWork::all)) * trials + frozen;
    let range = drawn
        .iter()
        .flat_map(|d| &d.stretches)
        .flat_map(|(_, parts)| [parts.early, parts.rest])
        .filter(|(_, n)| *n > 0)
        .map(|(work, _)| pace.epoch(&work))
        .fold((f64::INFINITY, 0f64), |(low, high), seconds| (low.min(seconds), high.max(seconds)));
    let (feature_bytes, feature_sets) = features(&drawn, summary);
    Ok(StudyCost {
        measured_on: measured.first().map(|(f, _)| f.arithmetic.clone()).unwrap_or_default(),
        networks_measured: measured.len(),
        networks_drawn: drawn.iter().map(|d| &d.network).collect::<BTreeSet<_>>().len(),
        giga_operations: (1e-9 * operations).ceil() as u64,
        frozen_seconds: pace.frozen * frozen,
        epoch_seconds: mean(&|d| d.epochs(|work| pace.epoch(work))) * trials,
        epoch_seconds_range: range,
        feature_bytes,
        pixel_bytes: summary.images.iter().sum::<u64>() * (summary.size * summary.size * summary.channels) as u64,
        checkpoint_bytes: measured.iter().map(|(f, _)| f.checkpoint_bytes).max().unwrap_or(0),
        feature_sets,
        drawn: drawn.len() as u32,
    })
}

/// Bytes of the features that these trials keep if they draw every view, and the number of their sets.
fn features(drawn: &[Drawn], summary: &DataSummary) -> (u64, usize) {
    let mut sets: BTreeMap<_, u64> = BTreeMap::new();
    // Sets of views share the original images.
    let mut still: BTreeMap<_, u64> = BTreeMap::new();
    let kept = drawn.iter().flat_map(|d| std::iter::once(d.settings.clone()).chain(d.settings.early()));
    for settings in kept {
        let Some(shape) = feature_shape(&settings.network, summary.size) else { continue };
        let cache = settings.network.cache;
        let bytes = |images: f64, views: u32| predicted_bytes(&shape, images as usize, views as usize, cache);
        // Validation images are kept as they are, training images in all views of the bank.
        let Counts { images, trained, validation, .. } = Counts::new(summary, &settings);
        let (views, unchanged) = match settings.augment.ranges_key() {
            Some(_) => (bank(&settings).unwrap_or(0), validation),
            None => (0, images),
        };
        sets.insert(settings.network.frozen_key(&settings.augment), bytes(trained, views));
        let most = still.entry(originals(&settings)).or_default();
        *most = bytes(unchanged, 1).max(*most);
    }
    (sets.values().chain(still.values()).sum(), sets.len())
}

/// Mega-operations a second of a machine with one such device, measured on the networks in which most of the study's work
/// lies.
///
/// # Errors
/// As [`study_cost`].
pub fn measured_pace(spec: &StudySpec, base: &Path, summary: &DataSummary, device: Device) -> Result<f64, ImageError> {
    crate::nn::cuda::set_precision(spec.run.precision);
    let trials = planned_trials(spec).unwrap_or(DRAWN).clamp(1, DRAWN);
    let drawn = draw(spec, base, summary, &[(1.0, 0..spec.runner.epochs())], trials)?;
    let measured = measure(&drawn, spec, summary, device)?;
    let seconds: f64 = measured.iter().map(|(f, _)| f.frozen_seconds + f.train_seconds + f.judge_seconds).sum();
    let operations: f64 = measured.iter().map(|(_, w)| w.frozen + w.step + w.score).sum();
    Ok(1e-6 * operations / seconds)
}

/// Measures the networks in which most of the work of these trials lies, each with its modelled work.
fn measure(
    drawn: &[Drawn],
    spec: &StudySpec,
    summary: &DataSummary,
    device: Device,
) -> Result<Vec<(Forecast, ImageWork)>, ImageError> {
    let mut networks: BTreeMap<&Network, (&TrialSettings, f64)> = BTreeMap::new();
    // Trials whose images do not reach the head fail at once.
    let reaches = |trial: &&Drawn| {
        let n = &trial.settings.network;
        n.backbone != BackboneKind::InceptionV3
            || inception_v3::side_at(n.width, n.side(summary.size), n.tap_position()).is_some()
    };
    for trial in drawn.iter().filter(reaches) {
        networks.entry(&trial.network).or_insert((&trial.settings, 0.0)).1 +=
            trial.frozen + trial.epochs(EpochWork::all);
    }
    let mut order: Vec<(&TrialSettings, f64)> = networks.into_values().collect();
    order.sort_by(|a, b| b.1.total_cmp(&a.1));
    let (classes, at_once) = (summary.classes.len(), IMAGES as f64);
    let cost = |settings: &TrialSettings| {
        let forecast = forecast_on(settings, summary.size, classes, spec.seed, device)?;
        Ok((forecast, ImageWork::at_once(settings, summary.size, classes, at_once, at_once)))
    };
    order.iter().take(MEASURED).map(|(settings, _)| cost(settings)).collect()
}

/// The study's first trials if its sampler were random. Features are paid for as if each trained the mean number of epochs.
fn draw(
    spec: &StudySpec,
    base: &Path,
    summary: &DataSummary,
    stretches: &[Stretch],
    trials: u32,
) -> Result<Vec<Drawn>, ImageError> {
    let prices = ImagePrices::new(&spec.runner, summary);
    let mut paid = Paid::new();
    let epochs = stretches.iter().map(|(share, epochs)| share * epochs.len() as f64).sum::<f64>();
    let epochs = epochs.round().max(1.0) as u32;
    (0..trials)
        .map(|trial| {
            let params = drawn(&spec.space, spec.seed, TrialNumber(trial), 0);
            let mut settings = spec.runner.settings(&params).map_err(ImageError::Settings)?;
            settings.network = located(&settings.network, base);
            let n = &settings.network;
            let network = (n.key(), n.side(summary.size), n.tap_position(), n.cut(), settings.head.kind.into_str());
            let frozen = prices.parts(&settings, 0..epochs, &paid).frozen;
            let parts = |(share, epochs): &Stretch| (*share, prices.parts(&settings, epochs.clone(), &paid));
            let stretches = stretches.iter().map(parts).collect();
            // By the settings as they were priced, with the weights' path resolved.
            for (key, epochs) in shared_by(&settings, 0..epochs) {
                *paid.entry(key).or_default() += epochs;
            }
            Ok(Drawn { network, frozen, stretches, settings })
        })
        .collect()
}

/// Operations through frozen layers for features that are kept, of `planned` trials: those that were not drawn take as
/// much as the later half of those that were, which share with the earlier half.
fn extrapolated(drawn: &[Drawn], planned: u32) -> f64 {
    let sum = |trials: &[Drawn]| trials.iter().map(|d| d.frozen).sum::<f64>();
    let later = &drawn[drawn.len() / 2..];
    sum(drawn) + (f64::from(planned) - drawn.len() as f64) * sum(later) / later.len().max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::from_text;

    #[test]
    fn trials_share_frozen_features_of_weights_that_lie_beside_the_study_file() {
        let file = "[data]\nsynthetic = {}\nsize = 75\n[network]\nweights = \"w.safetensors\"\ntap = \"Mixed_5c\"\n\
                    freeze = \"Mixed_5b\"\n[training]\nepochs = 6\nprobe_epochs = 2\n[budget]\nn_trials = 2\n[space]\n\
                    dropout = { type = \"float\", low = 0.0, high = 0.5 }\n";
        let spec = from_text(file).unwrap().spec;
        let summary = super::super::price::tests::summary();
        let drawn = draw(&spec, Path::new("/elsewhere"), &summary, &[(1.0, 0..6)], 2).unwrap();
        let frozen: Vec<f64> = drawn.iter().map(|d| d.frozen).collect();
        assert!(frozen[0] > 0.0 && frozen[1] == 0.0, "{frozen:?}");
    }

    #[test]
    fn original_validation_images_and_views_of_training_images_take_disk() {
        let file = "[data]\nsynthetic = {}\nsize = 75\n[network]\nweights = \"random\"\n[augment]\nviews = 3\n\
                    [budget]\nn_trials = 64\n[space]\nstrength = { choices = [0.5, 1.0] }\n\
                    dropout = { type = \"float\", low = 0.0, high = 0.5 }\n";
        let spec = from_text(file).unwrap().spec;
        let summary = super::super::price::tests::summary();
        let drawn = draw(&spec, Path::new("."), &summary, &[(1.0, 0..6)], 64).unwrap();
        let network = &drawn[0].settings.network;
        let shape = feature_shape(network, summary.size).unwrap();
        let bytes = |images, views| predicted_bytes(&shape, images, views, network.cache);
        assert_eq!(features(&drawn, &summary), (bytes(400, 1) + 2 * bytes(1200, 3), 2));
    }
}
