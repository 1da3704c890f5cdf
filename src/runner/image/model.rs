//! The trained part of one fold: suffix, head, optimiser, schedule, loss.
//!
//! At the start of some trials only the head is trained, on features that are cached at the tap (probing): then the
//! suffix is passed over, and a checkpoint holds the head alone.

use super::losses;
use super::pieces;
use crate::ids::{Epoch, TrialNumber};
use crate::nn::average::WeightAverage;
use crate::nn::checkpoint::{Checkpoint, CheckpointError};
use crate::nn::head::{DropoutKey, Head, Population};
use crate::nn::loss::Loss;
use crate::nn::optimiser::{Group, Optimiser};
use crate::nn::schedule::Schedule;
use crate::nn::{Backbone, BackboneError, Mode, Suffix, SuffixOptions, backward};
use crate::spec::TrialSettings;
use candle_core::backprop::GradStore;
use candle_core::{Device, Result, Tensor, Var};
use candle_nn::ops::softmax;
use std::collections::{BTreeMap, BTreeSet};

/// One model in training.
pub struct Model {
    fold: u32,
    suffix: Option<Box<dyn Suffix>>,
    head: Head,
    optimiser: Optimiser,
    schedule: Schedule,
    loss: Loss,
    key: DropoutKey,
    at_once: Option<usize>,
    /// Whether only the head is trained for now.
    probing: bool,
    /// The weights that are judged, if not those of the last step.
    average: Option<WeightAverage>,
}

/// What a new model needs besides the trial's settings.
pub struct InitialState<'a> {
    pub backbone: &'a dyn Backbone,
    pub classes: usize,
    pub seed: u64,
    pub trial: TrialNumber,
    pub fold: u32,
    /// Steps per epoch.
    pub steps: usize,
    /// Weights of the classes in the loss; empty: all 1.
    pub class_weights: Vec<f64>,
    pub device: &'a Device,
    /// Micro-batch size of the trained layers where memory is short; `None`: the whole batch.
    pub at_once: Option<usize>,
}

impl Model {
    /// An untrained model.
    pub fn new(settings: &TrialSettings, initial: InitialState<'_>) -> std::result::Result<Self, BackboneError> {
        let (cut, tap) = (settings.network.cut(), settings.network.tap_position());
        let options = SuffixOptions { batch_norm: settings.network.batch_norm };
        let suffix = if cut < tap { Some(initial.backbone.suffix(cut, tap, options)?) } else { None };
        let channels = tap.checked_sub(1).map_or(3, |stage| initial.backbone.stages()[stage].channels);
        let place = (initial.trial, initial.fold);
        let head = Head::new(&settings.head, channels, initial.classes, initial.seed, place, initial.device)?;
        let probing = settings.probing_epochs();
        // The step after which the suffix is trained.
        let since = u64::from(probing) * initial.steps as u64;
        let mut groups = vec![Group { multiplier: 1.0, parameters: head.parameters(), since: 0 }];
        if let Some(suffix) = &suffix {
            groups.extend(Group::by_stage(suffix.parameters(), &settings.training, since));
        }
        let mut model = Self {
            fold: initial.fold,
            optimiser: Optimiser::new(&settings.training, groups)?,
            schedule: Schedule::new(&settings.training, probing, initial.steps),
            loss: Loss::new(&settings.training, initial.class_weights),
            key: DropoutKey {
                seed: initial.seed,
                trial: initial.trial,
                epoch: Epoch(0),
                fold: initial.fold,
                first_sample: 0,
            },
            at_once: initial.at_once,
            probing: false,
            average: None,
            suffix,
            head,
        };
        let horizon = settings.training.average_epochs * initial.steps as f64;
        if horizon > 0.0 {
            let of_head = model.head.parameters().len() + model.head.buffers().len();
            let all = model.variables().into_iter().enumerate();
            let variables = all.map(|(i, (name, var))| (name, var, if i < of_head { 0 } else { since }));
            model.average = Some(WeightAverage::new(horizon, variables)?);
        }
        model.probing = probing > 0;
        Ok(model)
    }

    /// Exchanges the weights that are trained and those that are judged, where these are averages; again to exchange them
    /// back.
    pub fn swap(&mut self) -> Result<()> {
        self.average.as_mut().map_or(Ok(()), WeightAverage::swap)
    }

    fn update(&mut self, gradients: &GradStore) -> Result<()> {
        self.optimiser.step(gradients, self.schedule.rate(self.optimiser.steps()))?;
        self.average.as_ref().map_or(Ok(()), |average| average.update(self.optimiser.steps()))
    }

    /// Whether only the head is trained from now on, and inputs are pooled features of the tap.
    pub fn set_probing(&mut self, probing: bool) {
        self.probing = probing;
    }

    /// What is trained below the head for now.
    fn trained(&self) -> Option<&dyn Suffix> {
        self.suffix.as_deref().filter(|_| !self.probing)
    }

    /// Steps taken.
    pub fn steps(&self) -> u64 {
        self.optimiser.steps()
    }

    /// One optimiser step on a batch whose first sample is the `first_sample`-th of the epoch. Returns the loss before
    /// the step; if that is known and not finite, no step is taken.
    pub fn step(&mut self, x: &Tensor, labels: &[u32], epoch: Epoch, first_sample: u64) -> Result<losses::StepLoss> {
        let key = DropoutKey { epoch, first_sample, ..self.key };
        if let (Some(suffix), Some(at_once)) = (self.trained(), self.at_once.filter(|&n| n < labels.len())) {
            let (value, gradients) = pieces::gradients(suffix, x, at_once, |pooled| {
                self.loss.forward(&self.head.forward(pooled, Mode::Train, &key)?, labels)
            })?;
            if let Some(gradients) = gradients {
                self.update(&gradients)?;
            }
            return Ok(losses::StepLoss::Known(value));
        }
        let logits = self.logits(x, Mode::Train, &key)?;
        let loss = self.loss.forward(&logits, labels)?;
        let known = if loss.device().is_cpu() { Some(loss.to_scalar::<f32>()?) } else { None };
        if known.is_none_or(f32::is_finite) {
            let gradients = backward(&loss, self.trained())?;
            self.update(&gradients)?;
        }
        Ok(known.map_or_else(|| losses::StepLoss::Waiting(loss.detach()), losses::StepLoss::Known))
    }

    /// Whether all parameters and buffers are finite. Some GPU operations turn NaN into 0, so scores need not show it.
    pub fn is_finite(&self) -> Result<bool> {
        // Flat, because candle asks for no bytes at all to sum a scalar, which GPUs without memory pools refuse.
        let sums = self.variables().into_iter().map(|(_, var)| var.as_detached_tensor().flatten_all()?.sum_all());
        let sums = Tensor::stack(&sums.collect::<Result<Vec<_>>>()?, 0)?;
        Ok(sums.to_vec1::<f32>()?.iter().all(|sum| sum.is_finite()))
    }

    /// The classes' softmax scores, one row per sample.
    pub fn scores(&self, x: &Tensor) -> Result<Vec<Vec<f32>>> {
        softmax(&self.logits(x, Mode::Eval, &self.key)?.detach(), 1)?.to_vec2()
    }

    /// An empty population of pooled features, for [`Model::add_to`] to fill.
    pub fn population(&self) -> Population {
        Population::new(&self.head)
    }

    /// Adds the head's input features to a population.
    pub fn add_to(&self, population: &mut Population, x: &Tensor) -> Result<()> {
        population.add(&self.features(x, Mode::Eval)?)
    }

    /// Sets the head's batch norm, in evaluation mode, to the statistics of a population.
    pub fn set_statistics(&self, population: &Population) -> Result<()> {
        self.head.set_statistics(population)
    }

    fn features(&self, x: &Tensor, mode: Mode) -> Result<Tensor> {
        self.trained().map_or_else(|| Ok(x.clone()), |suffix| suffix.forward(x, mode))
    }

    fn logits(&self, x: &Tensor, mode: Mode, key: &DropoutKey) -> Result<Tensor> {
        self.head.forward(&self.features(x, mode)?, mode, key)
    }

    /// Every variable that is or was trained, the head's first, with its name in a checkpoint.
    fn variables(&self) -> Vec<(String, Var)> {
        let fold = self.fold;
        let named = |kind: &'static str| move |(name, var): (String, Var)| (format!("{fold}/{kind}/{name}"), var);
        let all = |parameters: Vec<(String, Var)>, buffers: Vec<(String, Var)>| {
            parameters.into_iter().map(named("parameter")).chain(buffers.into_iter().map(named("buffer")))
        };
        let mut variables: Vec<_> = all(self.head.parameters(), self.head.buffers()).collect();
        if let Some(suffix) = self.trained() {
            variables.extend(all(suffix.parameters(), suffix.buffers()));
        }
        variables
    }

    /// The bare names of these variables.
    fn trained_names(&self) -> BTreeSet<String> {
        self.variables().iter().map(|(name, _)| parameter(name).to_owned()).collect()
    }

    /// The averages of these variables, by their names in a checkpoint.
    fn averages(&self) -> impl Iterator<Item = (String, Tensor)> {
        let (trained, all) = (self.trained_names(), self.average.iter().flat_map(WeightAverage::state));
        let all = all.filter(move |(name, _)| trained.contains(parameter(name)));
        all.map(|(name, average)| (averaged(name), average.clone()))
    }

    /// The optimiser's state for these variables, by its name in a checkpoint.
    fn moments(&self) -> impl Iterator<Item = (String, Tensor)> {
        let (trained, state) = (self.trained_names(), self.optimiser.state().into_iter());
        let fold = self.fold;
        let state = state.filter(move |(name, _)| trained.contains(parameter(name)));
        state.map(move |(name, tensor)| (format!("{fold}/optimiser/{name}"), tensor))
    }

    /// Adds this model's tensors to those of a checkpoint, in the layout of files.
    pub fn save(&self, tensors: &mut BTreeMap<String, Tensor>) -> Result<()> {
        let own = self.variables().into_iter().map(|(name, var)| (name, var.as_detached_tensor()));
        for (name, tensor) in own.chain(self.moments()).chain(self.averages()) {
            let stored = match &self.suffix {
                Some(suffix) => suffix.to_file(parameter(&name), &tensor)?,
                None => tensor,
            };
            tensors.insert(name, stored);
        }
        Ok(())
    }

    /// A checkpoint's tensor, in the layout of this model's device.
    fn stored(
        &self,
        checkpoint: &Checkpoint,
        name: &str,
        dims: &[usize],
    ) -> std::result::Result<Tensor, CheckpointError> {
        let misfit = || CheckpointError::Tensor { name: name.to_owned(), shape: dims.to_vec() };
        let stored = checkpoint.tensors.get(name).ok_or_else(misfit)?;
        let own = match &self.suffix {
            Some(suffix) => suffix.from_file(parameter(name), stored).map_err(|_| misfit())?,
            None => stored.clone(),
        };
        if own.dims() == dims { Ok(own) } else { Err(misfit()) }
    }

    /// Restores the state in a checkpoint, which is one of the head alone while probing.
    pub fn restore(&mut self, checkpoint: &Checkpoint) -> std::result::Result<(), CheckpointError> {
        for (name, var) in self.variables() {
            var.set(&self.stored(checkpoint, &name, var.dims())?)?;
        }
        let fold = self.fold;
        let steps = checkpoint.note.steps.get(fold as usize).copied();
        let steps = steps.ok_or_else(|| CheckpointError::Foreign {
            found: format!("{} folds", checkpoint.note.steps.len()),
            wanted: format!("more than {fold}"),
        })?;
        let mut moments = BTreeMap::new();
        for (name, own) in self.moments() {
            let stored = self.stored(checkpoint, &name, own.dims())?;
            moments.insert(name, stored);
        }
        self.optimiser.restore(steps, |name| moments.remove(&format!("{fold}/optimiser/{name}")));
        let own: Vec<(String, Tensor)> = self.averages().collect();
        let stored = own.into_iter().map(|(name, own)| Ok((name.clone(), self.stored(checkpoint, &name, own.dims())?)));
        let mut averages = stored.collect::<std::result::Result<BTreeMap<_, _>, CheckpointError>>()?;
        if let Some(average) = &mut self.average {
            average.restore(|name| averages.remove(&averaged(name)));
        }
        Ok(())
    }
}

/// The name in a checkpoint of the average of the variable that is called `variable` there: `0/buffer/x` has
/// `0/average/x`.
pub(super) fn averaged(variable: &str) -> String {
    variable.replacen("/parameter/", "/average/", 1).replacen("/buffer/", "/average/", 1)
}

/// The parameter's part of a name in a checkpoint, such as `0/optimiser/first/Mixed_7a.branch3x3_1.conv.weight`.
fn parameter(name: &str) -> &str {
    name.rsplit('/').next().unwrap_or(name)
}

#[cfg(test)]
mod tests;
