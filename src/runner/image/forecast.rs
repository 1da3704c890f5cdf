//! What a trial will cost, measured on a few images before it begins.

use super::ImageError;
use super::feed::arithmetic;
use super::model::{InitialState, Model};
use crate::ids::{Epoch, TrialNumber};
use crate::nn::build::build;
use crate::nn::{Backbone, head};
use crate::rng::{Purpose, StreamRng};
use crate::spec::{TrainingSpec, TrialSettings};
use candle_core::{Device, Tensor};
use std::time::Instant;

/// Images per measurement.
pub(super) const IMAGES: usize = 4;

/// Measured costs of one image on this machine.
#[derive(Clone, Debug, PartialEq)]
pub struct Forecast {
    /// Where it was measured, such as `cpu avx512`.
    pub arithmetic: String,
    /// Seconds per image in the frozen layers, spent once for each image and view in the cache.
    pub frozen_seconds: f64,
    /// Seconds per image of a training step, without the frozen layers.
    pub train_seconds: f64,
    /// Seconds to score an image, without the frozen layers.
    pub judge_seconds: f64,
    /// Bytes of a checkpoint.
    pub checkpoint_bytes: u64,
}

/// Measures what images that are kept with `size` pixels a side cost with these settings, in a second or two of computing, when all layers are
/// trained that ever are. Relative weight paths start at the current folder; resolve them first with
/// [`located`](super::located).
///
/// # Errors
/// If the network cannot be built, or images of this size do not reach the head.
pub fn forecast(
    settings: &TrialSettings,
    size: usize,
    classes: usize,
    seed: u64,
    device: &Device,
) -> Result<Forecast, ImageError> {
    // A model that begins with its head alone would be measured, and saved, as that.
    let training = TrainingSpec { probe_epochs: 0, ..settings.training.clone() };
    let settings = &TrialSettings { training, ..settings.clone() };
    let network = &settings.network;
    let size = network.side(size);
    let (cut, tap) = (network.cut(), network.tap_position());
    let built = build(network, seed, device)?;
    let backbone = built.backbone.as_ref();
    let too_small = || ImageError::TooSmall { tap: network.tap.clone(), size };
    backbone.side_at(tap, size).ok_or_else(too_small)?;
    let initial = InitialState {
        backbone,
        classes,
        seed,
        trial: TrialNumber(0),
        fold: 0,
        steps: 1,
        class_weights: Vec::new(),
        device,
        at_once: None,
    };
    let mut model = Model::new(settings, initial)?;
    let mut rng = StreamRng::keyed(seed, Purpose::Test, &[]);
    let pixels: Vec<f32> = (0..IMAGES * size * size * 3).map(|_| rng.unit() as f32).collect();
    let images = Tensor::from_vec(pixels, (IMAGES, size, size, 3), device)?;
    let labels: Vec<u32> = (0..IMAGES as u32).map(|i| i % classes.max(1) as u32).collect();

    let features = frozen(backbone, cut, &images, network.head_only())?;
    let frozen_seconds =
        if cut == 0 { 0.0 } else { timed(device, || frozen(backbone, cut, &images, network.head_only()).map(drop))? };
    let judge_seconds = timed(device, || {
        model.scores(&features)?;
        Ok(())
    })?;
    let train_seconds = timed(device, || {
        model.step(&features, &labels, Epoch(1), 0)?;
        Ok(())
    })?;
    let mut tensors = std::collections::BTreeMap::new();
    model.save(&mut tensors)?;
    Ok(Forecast {
        arithmetic: arithmetic(device, settings.network.backbone),
        frozen_seconds,
        train_seconds,
        judge_seconds,
        checkpoint_bytes: tensors.values().map(|t| 4 * t.elem_count() as u64).sum(),
    })
}

/// [`forecast`] on a device given by its name.
///
/// # Errors
/// As [`forecast`], and if there is no such device.
pub fn forecast_on(
    settings: &TrialSettings,
    size: usize,
    classes: usize,
    seed: u64,
    device: crate::spec::Device,
) -> Result<Forecast, ImageError> {
    forecast(settings, size, classes, seed, &super::device(device)?)
}

fn frozen(backbone: &dyn Backbone, cut: usize, images: &Tensor, pooled: bool) -> Result<Tensor, ImageError> {
    let x = backbone.prefix(0, cut, images)?;
    Ok(if pooled { head::pool(&x)? } else { x })
}

/// Seconds per image: the faster of two runs after a warm-up run.
fn timed(device: &Device, mut work: impl FnMut() -> Result<(), ImageError>) -> Result<f64, ImageError> {
    work()?;
    let mut best = f64::INFINITY;
    for _ in 0..2 {
        device.synchronize()?;
        let began = Instant::now();
        work()?;
        device.synchronize()?;
        best = best.min(began.elapsed().as_secs_f64());
    }
    Ok(best / IMAGES as f64)
}
