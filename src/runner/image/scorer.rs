//! An exported model at work: pixels in, scores out.

use super::ImageError;
use crate::data::augment::{ViewDraw, render};
use crate::ids::TrialNumber;
use crate::nn::head::{self, DropoutKey, Head};
use crate::nn::{Backbone, Mode, build};
use crate::spec::{HeadSpec, NetworkSpec, WeightSource};
use candle_core::{Device, Tensor};
use candle_nn::ops::softmax;
use std::path::PathBuf;

/// Images that are scored at once.
pub const AT_ONCE: usize = 16;

/// The name of a head's tensor in an exported file. timm's ConvNeXt has tensors of its own under `head`.
pub(super) fn exported(name: &str) -> String {
    name.strip_prefix("head.").map_or_else(|| name.to_owned(), |rest| format!("top.{rest}"))
}

/// One network with its head, or those of a trial's folds, whose mean score counts.
pub struct Scorer {
    models: Vec<(Box<dyn Backbone>, Head)>,
    network: NetworkSpec,
    size: usize,
    channels: usize,
    device: Device,
}

/// What a model says of an image.
#[derive(Clone, Debug, PartialEq)]
pub struct Scored {
    /// Softmax score of each class.
    pub scores: Vec<f32>,
    /// How unlike the training images its features are: the mean over the head's channels of the squared distance from the
    /// training mean in units of the training variance, about 1 for images like them.
    pub distance: f64,
}

impl Scorer {
    /// Loads models from files as `hpsearch export` writes them. `size` and `channels`: of the pixels to come.
    ///
    /// # Errors
    /// If a file cannot be read, or its tensors are not those of such a network and head.
    pub fn load(
        files: &[PathBuf],
        network: &NetworkSpec,
        head: &HeadSpec,
        classes: usize,
        (size, channels): (usize, usize),
        device: crate::spec::Device,
    ) -> Result<Self, ImageError> {
        let device = &super::device(device)?;
        let mut models = Vec::new();
        for file in files {
            let spec = NetworkSpec { weights: WeightSource::File(file.clone()), ..network.clone() };
            let backbone = build::build(&spec, 0, device)?.backbone;
            let tap = network.tap_position();
            if backbone.side_at(tap, size).is_none() {
                return Err(ImageError::TooSmall { tap: network.tap.clone(), size });
            }
            let width = tap.checked_sub(1).map_or(3, |stage| backbone.stages()[stage].channels);
            let own = Head::new(head, width, classes, 0, (TrialNumber(0), 0), device)?;
            let tensors = candle_core::safetensors::load(file, device)?;
            for (name, var) in own.parameters().into_iter().chain(own.buffers()) {
                let name = exported(&name);
                let stored = tensors.get(&name).filter(|tensor| tensor.dims() == var.dims());
                let Some(stored) = stored else {
                    let shape = var.dims().to_vec();
                    return Err(crate::nn::checkpoint::CheckpointError::Tensor { name, shape }.into());
                };
                var.set(stored)?;
            }
            models.push((backbone, own));
        }
        Ok(Self { models, network: network.clone(), size, channels, device: device.clone() })
    }

    /// Scores images of the scorer's size and channels, in u8, row-major, channels last.
    ///
    /// # Errors
    /// If an operation fails.
    ///
    /// # Panics
    /// If an image has another number of bytes.
    pub fn score(&self, images: &[&[u8]]) -> Result<Vec<Scored>, ImageError> {
        let mut all = Vec::with_capacity(images.len());
        for batch in images.chunks(AT_ONCE) {
            let length = self.size * self.size * 3;
            let mut pixels = vec![0f32; batch.len() * length];
            for (image, out) in batch.iter().zip(pixels.chunks_exact_mut(length)) {
                render(image, self.size, self.channels, &ViewDraw::original(), self.network.scaling, out);
            }
            let x = Tensor::from_vec(pixels, (batch.len(), self.size, self.size, 3), &self.device)?;
            all.extend(self.batch(&x)?);
        }
        Ok(all)
    }

    fn batch(&self, x: &Tensor) -> Result<Vec<Scored>, ImageError> {
        let key = DropoutKey { seed: 0, trial: TrialNumber(0), epoch: Default::default(), fold: 0, first_sample: 0 };
        let mut sums: Vec<Scored> = Vec::new();
        for (backbone, head) in &self.models {
            let features = head::pool(&backbone.prefix(0, self.network.tap_position(), x)?)?;
            let scores: Vec<Vec<f32>> = softmax(&head.forward(&features, Mode::Eval, &key)?.detach(), 1)?.to_vec2()?;
            let distances = head.distances(&features)?;
            for (i, (scores, distance)) in scores.into_iter().zip(distances).enumerate() {
                match sums.get_mut(i) {
                    Some(sum) => {
                        sum.scores.iter_mut().zip(scores).for_each(|(sum, score)| *sum += score);
                        sum.distance += distance;
                    }
                    None => sums.push(Scored { scores, distance }),
                }
            }
        }
        let n = self.models.len() as f32;
        for sum in &mut sums {
            sum.scores.iter_mut().for_each(|score| *score /= n);
            sum.distance /= f64::from(n);
        }
        Ok(sums)
    }
}
