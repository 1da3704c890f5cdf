//! A trial's model taken out of its checkpoint, complete and by torchvision's names.

use super::model::averaged;
use super::scorer::exported;
use super::{ImageError, ImageRunner, located};
use crate::data::augment::Reduction;
use crate::data::{DataSet, PixelSource};
use crate::digest::Digest;
use crate::engine::FileRef;
use crate::ids::{Epoch, TrialNumber};
use crate::nn::{build, graphs, onnx};
use crate::runner::{DeviceSlot, EpochSink};
use crate::space::Params;
use crate::spec::TrialSettings;
use candle_core::{Device, Tensor};
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

/// A trial's models, one for each fold.
pub struct ExportedTrial {
    /// For each fold all tensors of the network (by torchvision's or timm's names) and of the head (under `top.`).
    models: Vec<BTreeMap<String, Tensor>>,
    /// The trial's settings, as they counted in the epoch of its checkpoint.
    pub settings: TrialSettings,
    /// Digest of the weights that training began with.
    pub weights: Digest,
}

impl ExportedTrial {
    /// The number of models.
    pub fn folds(&self) -> usize {
        self.models.len()
    }

    /// Writes the model of a fold as a safetensors file.
    ///
    /// # Errors
    /// If there is no such fold, or the file cannot be written.
    pub fn write(&self, fold: usize, path: &Path) -> Result<(), ImageError> {
        let Some(model) = self.models.get(fold) else { return Err(ImageError::NotImages) };
        let tensors: HashMap<String, Tensor> = model.iter().map(|(n, t)| (n.clone(), t.clone())).collect();
        Ok(candle_core::safetensors::save(&tensors, path)?)
    }
}

/// The models of several trials, with all their folds, as one ONNX file: from pixels, u8 `[N, channels, side, side]`, to scores
/// `[N, classes]`, the mean over all. `image`: side and channels. `about`: what the file says of itself.
///
/// # Errors
/// If a tensor cannot be read, or the file would be larger than the format allows.
pub fn to_onnx(
    trials: &[ExportedTrial],
    image: (usize, usize),
    classes: usize,
    about: &BTreeMap<String, String>,
) -> Result<Vec<u8>, ImageError> {
    let mut members = Vec::new();
    for ExportedTrial { models, settings: TrialSettings { network, .. }, .. } in trials {
        let nodes = graphs::graph(network.backbone, network.width, network.pool_padding, &network.tap);
        let (size, side) = (image.0, network.side(image.0));
        members.push(onnx::Member {
            nodes: nodes.unwrap_or_default(),
            models,
            scaling: network.scaling.constants(),
            reduction: (side < size).then(|| Reduction::new(size, side).matrix()),
        });
    }
    let description = onnx::Description {
        name: "hpsearch",
        metadata: about,
        producer: ("hpsearch", env!("CARGO_PKG_VERSION")),
        members: &members,
        image,
        classes,
    };
    Ok(onnx::bytes(&description)?)
}

impl ImageRunner {
    /// The models of a trial's checkpoint: frozen layers from the study's weights, all else as it was judged.
    ///
    /// # Errors
    /// If the network or the images cannot be had, or the checkpoint is gone, damaged or another trial's.
    pub fn export(
        &mut self,
        (number, params): (TrialNumber, &Params),
        checkpoint: &FileRef,
        slot: &DeviceSlot,
        sink: &mut dyn EpochSink,
    ) -> Result<ExportedTrial, ImageError> {
        let plan = self.trial_plan(params)?;
        let (base, seed) = (self.base.clone(), self.study.seed);
        let (trained, reached) = {
            let (_, trial) = self.restored(number, &plan, checkpoint, slot, sink)?;
            (trial.checkpoint(Epoch(0))?, trial.reached())
        };
        let folds = trained.note.steps.len();
        let pretrained = build::tensors(&located(&plan.settings.network, &base), seed, &Device::Cpu)?;
        let mut models = vec![pretrained.tensors; folds];
        for (name, tensor) in &trained.tensors {
            // What was judged, where that is an average.
            let tensor = trained.tensors.get(&averaged(name)).unwrap_or(tensor);
            let mut parts = name.splitn(3, '/');
            let (Some(fold), Some(kind), Some(name)) = (parts.next(), parts.next(), parts.next()) else { continue };
            let model = fold.parse().ok().and_then(|fold: usize| models.get_mut(fold));
            if let (Some(model), "parameter" | "buffer") = (model, kind) {
                model.insert(exported(name), tensor.to_device(&Device::Cpu)?);
            }
        }
        Ok(ExportedTrial { models, settings: plan.settings.in_epoch(reached), weights: pretrained.digest })
    }

    /// The study's images, which the first call opens.
    ///
    /// # Errors
    /// If the images or the device cannot be opened.
    pub fn images(&mut self, slot: &DeviceSlot, sink: &mut dyn EpochSink) -> Result<&DataSet, ImageError> {
        self.open_data(slot, sink).map(|opened| &opened.data)
    }
}

/// The set to which each image of a data set belongs: `training`, `validation` (of any fold), `test`, or none.
pub fn sets(data: &DataSet) -> Vec<Option<&'static str>> {
    let mut sets = vec![None; data.records().len()];
    let split = data.split();
    for fold in &split.folds {
        fold.train.iter().for_each(|&i| sets[i] = Some("training"));
    }
    if let [fold] = split.folds.as_slice() {
        fold.validation.iter().for_each(|&i| sets[i] = Some("validation"));
    }
    split.test.iter().for_each(|&i| sets[i] = Some("test"));
    sets
}
