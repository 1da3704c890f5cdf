//! What a whole study of images will cost, before it has run.

use super::{Forecast, ImageError, forecast_on, located};
use crate::data::DataSummary;
use crate::engine::{RungTable, planned_trials};
use crate::rng::{Purpose, StreamRng};
use crate::spec::{DataSpec, Device, NetworkKey, StudySpec, TrialSettings, Views};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// The most configurations drawn for a prediction.
const DRAWN: u32 = 256;
/// The most networks measured: each takes a second or two.
const MEASURED: usize = 6;

/// What determines a trial's cost per image: network, tap, cut, head.
type Network = (NetworkKey, usize, usize, &'static str);

/// Predicted time and disk space.
#[derive(Clone, Debug, Serialize)]
pub struct StudyCost {
    /// Where costs were measured, such as `cpu Avx512`.
    pub measured_on: String,
    /// Distinct networks measured, and distinct networks among the drawn trials.
    pub networks_measured: usize,
    pub networks_drawn: usize,
    /// Seconds of computing in frozen layers: once per cached image and view, in every epoch for fresh views.
    pub frozen_seconds: f64,
    /// Seconds of computing in all epochs, without the frozen layers.
    pub epoch_seconds: f64,
    /// Bytes of cached features, ignoring the study's limit.
    pub feature_bytes: u64,
    /// Bytes of decoded images.
    pub pixel_bytes: u64,
    /// Bytes of one checkpoint, the largest.
    pub checkpoint_bytes: u64,
    /// Distinct sets of cached features among the drawn trials.
    pub feature_sets: usize,
    /// Trials drawn for the prediction.
    pub drawn: u32,
}

/// Draws the study's trials, groups them by network, measures the most frequent and adds up.
///
/// `base`: the folder at which paths of the study file start.
///
/// # Errors
/// If a configuration cannot be run, a network cannot be built, or a device is not available.
pub fn study_cost(
    spec: &StudySpec,
    base: &Path,
    data: &DataSpec,
    summary: &DataSummary,
    rungs: &RungTable,
    device: Device,
) -> Result<StudyCost, ImageError> {
    crate::nn::cuda::set_precision(spec.run.precision);
    let drawn = planned_trials(spec).unwrap_or(DRAWN).clamp(1, DRAWN);
    let mut networks: BTreeMap<Network, (TrialSettings, u32)> = BTreeMap::new();
    let mut sets = BTreeMap::new();
    for trial in 0..drawn {
        let params = spec
            .space
            .sample(|name| StreamRng::named(spec.seed, Purpose::Parameter, name, &[u64::from(trial), 0]).unit());
        let mut settings = spec.runner.settings(&params).map_err(ImageError::Settings)?;
        settings.network = located(&settings.network, base);
        let n = &settings.network;
        let name = (n.key(), n.tap_position(), n.cut(), settings.head.kind.into_str());
        if n.cut() > 0 {
            let key = n.frozen_key(&settings.augment);
            sets.entry(key).or_insert_with(|| (name.clone(), views(&settings)));
        }
        networks.entry(name).or_insert((settings, 0)).1 += 1;
    }
    let mut order: Vec<(&Network, &(TrialSettings, u32))> = networks.iter().collect();
    order.sort_by_key(|(name, (_, n))| (std::cmp::Reverse(*n), (*name).clone()));
    let mut measured: BTreeMap<&Network, Forecast> = BTreeMap::new();
    for (name, (settings, _)) in order.iter().take(MEASURED) {
        let cost = forecast_on(settings, data.size as usize, summary.classes.len(), spec.seed, device)?;
        measured.insert(name, cost);
    }
    let sum = |counts: &dyn Fn(&crate::data::FoldCounts) -> u64| summary.folds.iter().map(counts).sum::<u64>() as f64;
    let train = sum(&|f| f.train.iter().sum());
    let validation = sum(&|f| f.validation.iter().sum());
    // Folds share images: features are cached once per image.
    let development: f64 =
        summary.folds.first().map_or(0.0, |f| f.train.iter().chain(&f.validation).sum::<u64>() as f64);
    let weight = |name: &Network| f64::from(networks[name].1);
    let total: f64 = measured.keys().map(|name| weight(name)).sum();
    let mean = |each: &dyn Fn(&Forecast) -> f64| {
        measured.iter().map(|(name, cost)| weight(name) / total * each(cost)).sum::<f64>()
    };
    let epoch = mean(&|c| train * c.train_seconds + validation * c.judge_seconds);
    let (mut frozen_seconds, mut feature_bytes) = (0.0, 0.0);
    for (name, views) in sets.values() {
        let (seconds, bytes) = match measured.get(name) {
            Some(cost) => (cost.frozen_seconds, cost.feature_bytes as f64),
            None => (mean(&|c| c.frozen_seconds), mean(&|c| c.feature_bytes as f64)),
        };
        // Fresh views are computed in every epoch and never cached.
        let kept = development * f64::from(views.unwrap_or(1));
        frozen_seconds += seconds * kept;
        feature_bytes += bytes * kept;
        if views.is_none() {
            frozen_seconds += seconds * train * rungs.epochs_resuming as f64 / sets.len() as f64;
        }
    }
    let images: u64 = summary.images.iter().sum();
    Ok(StudyCost {
        measured_on: measured.values().next().map(|c| c.arithmetic.clone()).unwrap_or_default(),
        networks_measured: measured.len(),
        networks_drawn: networks.len(),
        frozen_seconds,
        epoch_seconds: epoch * rungs.epochs_resuming as f64,
        feature_bytes: feature_bytes as u64,
        pixel_bytes: images * (summary.size * summary.size * summary.channels) as u64,
        checkpoint_bytes: measured.values().map(|c| c.checkpoint_bytes).max().unwrap_or(0),
        feature_sets: sets.keys().collect::<BTreeSet<_>>().len(),
        drawn,
    })
}

/// Cached views of a training image, including the original; `None`: every epoch draws fresh views.
fn views(settings: &TrialSettings) -> Option<u32> {
    match settings.augment.views {
        _ if settings.augment.ranges_key().is_none() => Some(1),
        Views::Bank(n) => Some(n + 1),
        Views::Fresh => None,
    }
}
