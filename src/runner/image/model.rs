//! The trained part of one fold: suffix, head, optimiser, schedule, loss.

use crate::ids::{Epoch, TrialNumber};
use crate::nn::checkpoint::{Checkpoint, CheckpointError};
use crate::nn::head::{DropoutKey, Head};
use crate::nn::loss::Loss;
use crate::nn::optimiser::{Group, Optimiser};
use crate::nn::schedule::Schedule;
use crate::nn::{Backbone, BackboneError, Mode, Suffix, SuffixOptions, backward};
use crate::spec::TrialSettings;
use candle_core::{Device, Result, Tensor, Var};
use candle_nn::ops::softmax;
use std::collections::BTreeMap;

/// One model in training.
pub struct Model {
    fold: u32,
    suffix: Option<Box<dyn Suffix>>,
    head: Head,
    optimiser: Optimiser,
    schedule: Schedule,
    loss: Loss,
    key: DropoutKey,
}

/// What a new model needs to know beside the trial's settings.
pub struct Birth<'a> {
    pub backbone: &'a dyn Backbone,
    pub classes: usize,
    pub seed: u64,
    pub trial: TrialNumber,
    pub fold: u32,
    /// Steps of an epoch.
    pub steps: usize,
    /// Weights of the classes in the loss; empty: all 1.
    pub class_weights: Vec<f64>,
    pub device: &'a Device,
}

impl Model {
    /// An untrained model.
    pub fn new(settings: &TrialSettings, birth: Birth<'_>) -> std::result::Result<Self, BackboneError> {
        let (cut, tap) = (settings.network.cut(), settings.network.tap_position());
        let options = SuffixOptions { batch_norm: settings.network.batch_norm };
        let suffix = if cut < tap { Some(birth.backbone.suffix(cut, tap, options)?) } else { None };
        let channels = tap.checked_sub(1).map_or(3, |stage| birth.backbone.stages()[stage].channels);
        let place = (birth.trial, birth.fold);
        let head = Head::new(&settings.head, channels, birth.classes, birth.seed, place, birth.device)?;
        let mut groups = vec![Group { rate: 1.0, parameters: head.parameters() }];
        if let Some(suffix) = &suffix {
            groups.push(Group { rate: settings.training.backbone_rate, parameters: suffix.parameters() });
        }
        Ok(Self {
            fold: birth.fold,
            optimiser: Optimiser::new(&settings.training, groups)?,
            schedule: Schedule::new(&settings.training, birth.steps),
            loss: Loss::new(&settings.training, birth.class_weights),
            key: DropoutKey {
                seed: birth.seed,
                trial: birth.trial,
                epoch: Epoch(0),
                fold: birth.fold,
                first_sample: 0,
            },
            suffix,
            head,
        })
    }

    /// Steps taken.
    pub fn steps(&self) -> u64 {
        self.optimiser.steps()
    }

    /// One step on a batch whose first sample is the `first_sample`-th of the epoch. Returns the loss before it;
    /// after a loss that is not finite nothing is changed.
    pub fn step(&mut self, x: &Tensor, labels: &[u32], epoch: Epoch, first_sample: u64) -> Result<f32> {
        let key = DropoutKey { epoch, first_sample, ..self.key };
        let logits = self.logits(x, Mode::Train, &key)?;
        let loss = self.loss.forward(&logits, labels)?;
        let value = loss.to_scalar::<f32>()?;
        if value.is_finite() {
            let rate = self.schedule.rate(self.optimiser.steps());
            self.optimiser.step(&backward(&loss, self.suffix.as_deref())?, rate)?;
        }
        Ok(value)
    }

    /// The classes' softmax scores, a row a sample.
    pub fn scores(&self, x: &Tensor) -> Result<Vec<Vec<f32>>> {
        softmax(&self.logits(x, Mode::Eval, &self.key)?.detach(), 1)?.to_vec2()
    }

    fn logits(&self, x: &Tensor, mode: Mode, key: &DropoutKey) -> Result<Tensor> {
        match &self.suffix {
            Some(suffix) => self.head.forward(&suffix.forward(x, mode)?, mode, key),
            None => self.head.forward(x, mode, key),
        }
    }

    /// Every variable with its name in a checkpoint.
    fn variables(&self) -> Vec<(String, Var)> {
        let (mut parameters, mut buffers) = (self.head.parameters(), self.head.buffers());
        if let Some(suffix) = &self.suffix {
            parameters.extend(suffix.parameters());
            buffers.extend(suffix.buffers());
        }
        let fold = self.fold;
        let named = |kind: &'static str| move |(name, var): (String, Var)| (format!("{fold}/{kind}/{name}"), var);
        parameters.into_iter().map(named("parameter")).chain(buffers.into_iter().map(named("buffer"))).collect()
    }

    /// Adds this model's tensors to those of a checkpoint.
    pub fn save(&self, tensors: &mut BTreeMap<String, Tensor>) {
        let fold = self.fold;
        tensors.extend(self.variables().into_iter().map(|(name, var)| (name, var.as_detached_tensor())));
        tensors.extend(self.optimiser.state().into_iter().map(|(name, t)| (format!("{fold}/optimiser/{name}"), t)));
    }

    /// Takes up where a checkpoint left off.
    pub fn restore(&mut self, checkpoint: &Checkpoint) -> std::result::Result<(), CheckpointError> {
        for (name, var) in self.variables() {
            var.set(&checkpoint.tensor(&name, var.dims())?)?;
        }
        let fold = self.fold;
        let steps = checkpoint.note.steps.get(fold as usize).copied();
        let steps = steps.ok_or_else(|| CheckpointError::Foreign {
            found: format!("{} folds", checkpoint.note.steps.len()),
            wanted: format!("more than {fold}"),
        })?;
        self.optimiser.restore(steps, |name, shape| checkpoint.tensor(&format!("{fold}/optimiser/{name}"), shape))
    }
}
