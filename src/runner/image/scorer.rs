//! An exported model at work: pixels in, scores out.

use super::ImageError;
use crate::data::augment::{Renderer, ViewDraw};
use crate::digest::Digest;
use crate::ids::TrialNumber;
use crate::nn::attribution::{self, HeatMap, Weighing};
use crate::nn::head::{self, DropoutKey, Head};
use crate::nn::tensor::little_endian;
use crate::nn::{Backbone, Lattice, Mode, Suffix, SuffixOptions, build};
use crate::spec::{BatchNormMode, HeadSpec, NetworkSpec, SettingsError, WeightSource};
use candle_core::{DType, Device, Tensor};
use candle_nn::ops::softmax;
use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;

/// Images that are scored at once.
pub const AT_ONCE: usize = 16;

/// Values a side from which on a map of a late stage counts as fine enough: a choice made before docs/explain.md was measured.
pub const FINE_ENOUGH: usize = 16;

/// The stage from which on Grad-CAM pointed best, in the measurements of docs/explain.md.
pub const SPOKEN: &str = "Mixed_6d";

/// The stage at which LayerCAM pointed best where those from `SPOKEN` on are too coarse; the one after it is read with a
/// stride, so that its places take part in unequally many sums.
pub const EARLY: &str = "Mixed_5c";

/// The name of a head's tensor in an exported file. timm's ConvNeXt has tensors of its own under `head`.
pub(super) fn exported(name: &str) -> String {
    name.strip_prefix("head.").map_or_else(|| name.to_owned(), |rest| format!("top.{rest}"))
}

/// One network with its head, or those of a trial's folds, whose mean score counts.
pub struct Scorer {
    models: Vec<Loaded>,
    network: NetworkSpec,
    renderer: Renderer,
    /// How many pixels of an image make one of the network's input, along each axis.
    reduction: f64,
    device: Device,
}

/// A network with its head.
struct Loaded {
    backbone: Box<dyn Backbone>,
    head: Head,
    /// What the stages up to the tap compute, by their weights: equal ones of several models are computed once. Empty: of no
    /// interest, as there is one model.
    stages: Vec<Digest>,
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
    /// Loads models from files as `hpsearch export` writes them. `size` and `channels`: of the pixels to come. `among`: of how many
    /// models these are some.
    ///
    /// # Errors
    /// If a file cannot be read, or its tensors are not those of such a network and head.
    pub fn load(
        files: &[PathBuf],
        network: &NetworkSpec,
        head: &HeadSpec,
        classes: usize,
        (size, channels): (usize, usize),
        among: usize,
        device: crate::spec::Device,
    ) -> Result<Self, ImageError> {
        let device = &super::device(device)?;
        let side = network.side(size);
        if side > size {
            return Err(ImageError::Settings(SettingsError::Side { side: side as u32, size: size as u32 }));
        }
        let mut models = Vec::new();
        for file in files {
            let spec = NetworkSpec { weights: WeightSource::File(file.clone()), ..network.clone() };
            let backbone = build::exact(&spec, 0, device)?.backbone;
            let tap = network.tap_position();
            if backbone.side_at(tap, side).is_none() {
                return Err(ImageError::TooSmall { tap: network.tap.clone(), size: side });
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
            let stages = if among > 1 { stages(network, &tensors)? } else { Vec::new() };
            models.push(Loaded { backbone, head: own, stages });
        }
        Ok(Self {
            models,
            network: network.clone(),
            renderer: Renderer::new((size, channels), side, network.scaling),
            reduction: size as f64 / side as f64,
            device: device.clone(),
        })
    }

    /// Scores images of the scorer's size and channels, in u8, row-major, channels last.
    ///
    /// # Errors
    /// If an operation fails.
    ///
    /// # Panics
    /// If an image has another number of bytes.
    pub fn score(&self, images: &[&[u8]]) -> Result<Vec<Scored>, ImageError> {
        mean_score(std::slice::from_ref(self), images)
    }

    fn rendered(&self, images: &[&[u8]]) -> candle_core::Result<Tensor> {
        let side = self.renderer.side();
        let length = side * side * 3;
        let mut pixels = vec![0f32; images.len() * length];
        for (image, out) in images.iter().zip(pixels.chunks_exact_mut(length)) {
            self.renderer.render(image, &ViewDraw::original(), out);
        }
        Tensor::from_vec(pixels, (images.len(), side, side, 3), &self.device)
    }

    /// Which network it is, and where its head sits.
    pub fn network(&self) -> &NetworkSpec {
        &self.network
    }

    /// Side in pixels of what it sees of an image.
    pub fn side(&self) -> usize {
        self.renderer.side()
    }

    /// The stage at which [`Scorer::explainer`] takes maps by default: the deepest from `SPOKEN` to the tap whose map has at
    /// least 16 values a side; else `EARLY`, if the tap's map is coarser than its; else the tap. `None`: the network
    /// gives no maps.
    pub fn explained_stage(&self) -> Option<&'static str> {
        let Loaded { backbone, .. } = self.models.first()?;
        let (kind, tap) = (self.network.backbone, self.network.tap_position());
        let input = self.renderer.side();
        let side = |position: usize| backbone.lattice(position).and_then(|_| backbone.side_at(position, input));
        let coarsest = side(tap)?;
        let fine = |position: &usize| side(*position).is_some_and(|side| side >= FINE_ENOUGH);
        let late = kind.position(SPOKEN).and_then(|spoken| (spoken..=tap).rev().find(fine));
        let early = || kind.position(EARLY).filter(|&early| early < tap && side(early) > Some(coarsest));
        Some(kind.stages()[late.or_else(early).unwrap_or(tap) - 1])
    }

    /// What makes heat maps at `stage`, weighed by `weighing`; `None`: by Grad-CAM from `SPOKEN` on, else by LayerCAM, and at
    /// the tap, whose activations the head reads, by HiResCAM.
    ///
    /// # Errors
    /// If the network has no such stage, or none whose values have places in the image, or the stage lies beyond the tap.
    pub fn explainer(&self, stage: &str, weighing: Option<Weighing>) -> Result<Explainer<'_>, ImageError> {
        let NetworkSpec { backbone: kind, tap, .. } = &self.network;
        if !kind.trainable() {
            return Err(ImageError::NoMaps { network: *kind });
        }
        let unknown = || ImageError::NoStage {
            stage: stage.to_owned(),
            known: kind.stages()[..self.network.tap_position()].join(", "),
        };
        let from = kind.position(stage).ok_or_else(unknown)?;
        let to = self.network.tap_position();
        if from > to {
            return Err(ImageError::BeyondTap { stage: stage.to_owned(), tap: tap.clone() });
        }
        let mut parts: Vec<Option<Box<dyn Suffix>>> = Vec::new();
        for Loaded { backbone, .. } in &self.models {
            let options = SuffixOptions { batch_norm: BatchNormMode::Frozen };
            parts.push(if from < to { Some(backbone.suffix(from, to, options)?) } else { None });
        }
        let lattice = self.models.first().and_then(|model| model.backbone.lattice(from));
        let Lattice { first, step } = lattice.ok_or(ImageError::NoMaps { network: *kind })?;
        // From the network's input to the image.
        let lattice = Lattice { first: (first + 0.5) * self.reduction - 0.5, step: step * self.reduction };
        let fitting = || match kind.position(SPOKEN) {
            Some(late) if from >= late => Weighing::GradCam,
            _ if from < to => Weighing::LayerCam,
            _ => Weighing::HiResCam,
        };
        let weighing = weighing.unwrap_or_else(fitting);
        Ok(Explainer { scorer: self, parts, from, lattice, weighing })
    }
}

/// Digests of what the stages up to the tap compute: of their weights, and of what else makes the network.
fn stages(network: &NetworkSpec, tensors: &HashMap<String, Tensor>) -> candle_core::Result<Vec<Digest>> {
    let NetworkSpec { backbone: kind, width, pool_padding, scaling, .. } = network;
    let names: BTreeSet<&String> = tensors.keys().filter(|name| !name.starts_with(&exported("head."))).collect();
    let of = |stage: &str| -> candle_core::Result<Digest> {
        let made = format!("{kind} {width} {pool_padding:?} {scaling:?} {stage}");
        let mut parts = vec![(made, Vec::new())];
        // A network that is taken whole is compared whole: its tensors have names that tell nothing of stages.
        let own = |name: &&&String| !kind.trainable() || name.split('.').next() == Some(stage);
        for name in names.iter().filter(own) {
            let values: Vec<f32> = tensors[*name].to_dtype(DType::F32)?.flatten_all()?.to_vec1()?;
            parts.push(((*name).clone(), little_endian(&values)));
        }
        Ok(Digest::of_parts(parts.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice()))))
    };
    kind.stages()[..network.tap_position()].iter().map(|stage| of(stage)).collect()
}

/// The mean of what several trials say of images, given as to [`Scorer::score`]. Stages with the same weights are computed once
/// for all models that begin with them.
///
/// # Errors
/// If an operation fails.
///
/// # Panics
/// If an image has another number of bytes.
pub fn mean_score(scorers: &[Scorer], images: &[&[u8]]) -> Result<Vec<Scored>, ImageError> {
    let mut all = Vec::with_capacity(images.len());
    for batch in images.chunks(AT_ONCE) {
        let mut said: Vec<Vec<Vec<Scored>>> = scorers.iter().map(|s| vec![Vec::new(); s.models.len()]).collect();
        let mut left: Vec<usize> = (0..scorers.len()).collect();
        while let Some(&first) = left.first() {
            // Those that see the same pixels.
            let seen = |i: usize| (scorers[i].network.scaling, scorers[i].renderer.side());
            let same = |i: &usize| seen(*i) == seen(first);
            let (together, others): (Vec<usize>, Vec<usize>) = left.into_iter().partition(same);
            left = others;
            let of = |i: usize| (0..scorers[i].models.len()).map(move |k| (i, k));
            let group: Vec<(usize, usize)> = together.into_iter().flat_map(of).collect();
            walk(scorers, &group, 0, &scorers[first].rendered(batch)?, &mut said)?;
        }
        all.extend(mean_of(said.into_iter().map(mean_of).collect()));
    }
    Ok(all)
}

/// Computes the models of a group, each given by its scorer and its place there, from the output `x` of the stage before `from`,
/// which they have in common.
fn walk(
    scorers: &[Scorer],
    group: &[(usize, usize)],
    from: usize,
    x: &Tensor,
    said: &mut [Vec<Vec<Scored>>],
) -> Result<(), ImageError> {
    let model = |&(i, k): &(usize, usize)| &scorers[i].models[k];
    let tap = |&(i, _): &(usize, usize)| scorers[i].network.tap_position();
    let Some(first) = group.first() else { return Ok(()) };
    let stage = |one: &(usize, usize), at: usize| model(one).stages.get(at).copied();
    let alike = |at: usize| group.iter().all(|one| stage(one, at) == stage(first, at));
    let nearest = group.iter().map(tap).min().unwrap_or(from);
    let to = (from..nearest).find(|&at| !alike(at)).unwrap_or(nearest);
    let y = if to > from { model(first).backbone.prefix(from, to, x)? } else { x.clone() };
    let mut branches: Vec<Vec<(usize, usize)>> = Vec::new();
    for one in group {
        if tap(one) == to {
            said[one.0][one.1] = model(one).judged(&y)?;
            continue;
        }
        match branches.iter_mut().find(|branch| stage(&branch[0], to) == stage(one, to)) {
            Some(branch) => branch.push(*one),
            None => branches.push(vec![*one]),
        }
    }
    branches.iter().try_for_each(|branch| walk(scorers, branch, to, &y, said))
}

impl Loaded {
    /// What the head says of the feature maps before it.
    fn judged(&self, maps: &Tensor) -> Result<Vec<Scored>, ImageError> {
        let key = DropoutKey { seed: 0, trial: TrialNumber(0), epoch: Default::default(), fold: 0, first_sample: 0 };
        let features = head::pool(maps)?;
        let scores: Vec<Vec<f32>> = softmax(&self.head.forward(&features, Mode::Eval, &key)?.detach(), 1)?.to_vec2()?;
        let distances = self.head.distances(&features)?;
        Ok(scores.into_iter().zip(distances).map(|(scores, distance)| Scored { scores, distance }).collect())
    }
}

/// The sums, image by image, of what several models have of the same images; `add` adds one model's to the sum.
pub fn summed<T>(models: Vec<Vec<T>>, add: impl Fn(&mut T, T)) -> Vec<T> {
    let mut models = models.into_iter();
    let mut sums = models.next().unwrap_or_default();
    models.for_each(|model| sums.iter_mut().zip(model).for_each(|(sum, one)| add(sum, one)));
    sums
}

/// The mean, image by image, of what several models say of the same images.
pub fn mean_of(models: Vec<Vec<Scored>>) -> Vec<Scored> {
    let n = models.len() as f32;
    let mut sums = summed(models, |sum, one| {
        sum.scores.iter_mut().zip(one.scores).for_each(|(sum, score)| *sum += score);
        sum.distance += one.distance;
    });
    for sum in &mut sums {
        sum.scores.iter_mut().for_each(|score| *score /= n);
        sum.distance /= f64::from(n);
    }
    sums
}

/// Makes heat maps of images: see [`crate::nn::attribution`].
pub struct Explainer<'a> {
    scorer: &'a Scorer,
    /// For each model the layers between the stage and the tap, in a form that can be differentiated.
    parts: Vec<Option<Box<dyn Suffix>>>,
    from: usize,
    lattice: Lattice,
    weighing: Weighing,
}

impl Explainer<'_> {
    /// Where the values of its maps lie in the image.
    pub fn lattice(&self) -> Lattice {
        self.lattice
    }

    /// How activations are weighed.
    pub fn weighing(&self) -> Weighing {
        self.weighing
    }

    /// For each image, given as to [`Scorer::score`], the map for one class; of several models the mean.
    ///
    /// # Errors
    /// If an operation fails.
    ///
    /// # Panics
    /// If an image has another number of bytes, or there is no such class.
    pub fn maps(&self, images: &[&[u8]], classes: &[usize]) -> Result<Vec<HeatMap>, ImageError> {
        let mut all = Vec::with_capacity(images.len());
        for (images, classes) in images.chunks(AT_ONCE).zip(classes.chunks(AT_ONCE)) {
            let x = self.scorer.rendered(images)?;
            let mut sum: Option<Tensor> = None;
            for (Loaded { backbone, head, .. }, part) in self.scorer.models.iter().zip(&self.parts) {
                let maps = backbone.prefix(0, self.from, &x)?;
                let one = attribution::contributions(&maps, part.as_deref(), head, classes, self.weighing)?;
                sum = Some(match sum {
                    Some(sum) => (sum + one)?,
                    None => one,
                });
            }
            let Some(sum) = sum else { continue };
            let mean = (sum / self.parts.len() as f64)?;
            let (_, side, _) = mean.dims3()?;
            let rows: Vec<Vec<f32>> = mean.flatten_from(1)?.to_vec2()?;
            all.extend(rows.into_iter().map(|values| HeatMap { values, side, lattice: self.lattice }));
        }
        Ok(all)
    }
}
