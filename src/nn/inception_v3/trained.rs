//! The trained part: the same stages with gradients, on variables of its own. On the CPU a pass is one operation
//! ([`super::pass`]); elsewhere it is recorded operation by operation.

use super::pass::Pass;
use super::topology::{Branch, Stage, Step};
use super::{EPS, InceptionV3, MOMENTUM};
use crate::nn::concat::concat;
use crate::nn::conv::Conv;
use crate::nn::kernel::norm_cpu::Moments;
use crate::nn::norm::BatchNormRelu;
use crate::nn::pool::{Pool, PoolKind};
use crate::nn::{Mode, Suffix, SuffixOptions};
use crate::spec::BatchNormMode;
use candle_core::backprop::GradStore;
use candle_core::{Device, Result, Tensor, Var};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Convolution, batch norm and ReLU with weights that train.
pub(super) struct Unit {
    name: String,
    conv: Conv,
    pub weight: Var,
    pub gamma: Var,
    pub beta: Var,
    pub mean: Var,
    pub variance: Var,
}

/// See [`Suffix`].
pub(super) struct Trained {
    stages: Vec<Stage>,
    /// By their index in the whole network, so in its order.
    units: Arc<BTreeMap<usize, Unit>>,
    max_pool: Pool,
    average_pool: Pool,
    batch_norm: BatchNormMode,
    pass: Arc<Pass>,
}

impl Trained {
    pub(super) fn new(network: &InceptionV3, from: usize, to: usize, options: SuffixOptions) -> Result<Self> {
        let stages = network.topology.stages[from..to].to_vec();
        let mut units = BTreeMap::new();
        for branch in stages.iter().flat_map(|s| &s.branches) {
            let chain = branch.chain.iter().filter_map(|s| if let Step::Unit(unit) = s { Some(unit) } else { None });
            for &unit in chain.chain(&branch.fan) {
                units.insert(unit, Unit::new(network, unit)?);
            }
        }
        let pool = |step, kind| Pool { window: network.topology.window(step), kind, isa: network.isa };
        let units = Arc::new(units);
        Ok(Self {
            pass: Arc::new(Pass::new(network, &stages, Arc::clone(&units), options.batch_norm)?),
            stages,
            units,
            max_pool: pool(Step::MaxPool, PoolKind::Max),
            average_pool: pool(Step::AveragePool, PoolKind::Average(network.divisor)),
            batch_norm: options.batch_norm,
        })
    }

    fn branch(&self, branch: &Branch, x: &Tensor, mode: Mode) -> Result<Tensor> {
        let mut x = x.clone();
        for step in &branch.chain {
            x = match step {
                Step::Unit(unit) => self.units[unit].forward(&x, mode, self.batch_norm)?,
                Step::MaxPool => self.max_pool.apply(&x)?,
                Step::AveragePool => self.average_pool.apply(&x)?,
            };
        }
        if branch.fan.is_empty() {
            return Ok(x);
        }
        let fan = branch.fan.iter().map(|unit| self.units[unit].forward(&x, mode, self.batch_norm));
        concat(&fan.collect::<Result<Vec<_>>>()?)
    }
}

impl Trained {
    /// Operation by operation.
    pub(super) fn by_operations(&self, x: &Tensor, mode: Mode) -> Result<Tensor> {
        let mut x = x.contiguous()?;
        for stage in &self.stages {
            let branches = stage.branches.iter().map(|b| self.branch(b, &x, mode));
            x = concat(&branches.collect::<Result<Vec<_>>>()?)?;
        }
        Ok(x)
    }
}

impl Suffix for Trained {
    fn forward(&self, x: &Tensor, mode: Mode) -> Result<Tensor> {
        if x.device().is_cpu() { self.pass.apply(&x.contiguous()?, mode) } else { self.by_operations(x, mode) }
    }

    fn collect(&self, gradients: &mut GradStore) -> Result<()> {
        self.pass.collect(gradients)
    }

    fn to_file(&self, name: &str, own: &Tensor) -> Result<Tensor> {
        self.conv(name).map_or_else(|| Ok(own.clone()), |conv| conv.unpack(own))
    }

    fn from_file(&self, name: &str, stored: &Tensor) -> Result<Tensor> {
        match self.conv(name) {
            Some(conv) if stored.rank() == 4 => conv.pack(stored),
            _ => Ok(stored.clone()),
        }
    }

    fn parameters(&self) -> Vec<(String, Var)> {
        let of = |u: &Unit| [("conv.weight", &u.weight), ("bn.weight", &u.gamma), ("bn.bias", &u.beta)].map(named(u));
        self.units.values().flat_map(of).collect()
    }

    fn buffers(&self) -> Vec<(String, Var)> {
        let of = |u: &Unit| [("bn.running_mean", &u.mean), ("bn.running_var", &u.variance)].map(named(u));
        self.units.values().flat_map(of).collect()
    }
}

impl Trained {
    /// The convolution whose weight has this name.
    fn conv(&self, name: &str) -> Option<&Conv> {
        let owner = name.strip_suffix(".conv.weight")?;
        self.units.values().find(|unit| unit.name == owner).map(|unit| &unit.conv)
    }
}

fn named(unit: &Unit) -> impl Fn((&str, &Var)) -> (String, Var) {
    |(suffix, var)| (format!("{}.{suffix}", unit.name), var.clone())
}

impl Unit {
    fn new(network: &InceptionV3, index: usize) -> Result<Self> {
        let unit = &network.topology.units[index];
        let w = &network.weights[index];
        let shape = crate::nn::kernel::panel::packed_shape(unit.window.taps(), unit.cin, unit.cout);
        let channels = |values: &[f32]| Var::from_slice(values, values.len(), &Device::Cpu);
        Ok(Self {
            name: unit.name.clone(),
            conv: network.conv(index),
            weight: Var::from_slice(&w.packed, shape.as_slice(), &Device::Cpu)?,
            gamma: channels(&w.gamma)?,
            beta: channels(&w.beta)?,
            mean: channels(&w.mean)?,
            variance: channels(&w.variance)?,
        })
    }

    fn forward(&self, x: &Tensor, mode: Mode, batch_norm: BatchNormMode) -> Result<Tensor> {
        match (mode, batch_norm) {
            (Mode::Train, BatchNormMode::Train) => {
                let sums = self.conv.apply(x, &self.weight)?;
                let (y, moments) = BatchNormRelu::new(EPS, self.conv.isa).apply(&sums, &self.gamma, &self.beta)?;
                self.blend(&moments, sums.elem_count() / self.conv.cout)?;
                Ok(y)
            }
            (Mode::Train, BatchNormMode::Frozen) => {
                self.conv.apply_affine(x, &self.weight, &self.affine(&self.gamma, &self.beta)?)
            }
            (Mode::Eval, _) => {
                let affine = self.affine(&self.gamma.as_detached_tensor(), &self.beta.as_detached_tensor())?;
                self.conv.apply_affine(x, &self.weight.as_detached_tensor(), &affine)
            }
        }
    }

    /// Moves the running statistics towards those of a batch of `n` values a channel.
    pub(super) fn blend(&self, moments: &Moments, n: usize) -> Result<()> {
        // torch keeps the unbiased variance.
        let unbiased = n as f64 / (n.max(2) - 1) as f64;
        let blend = |old: &Var, new: &[f32], factor: f64| -> Result<()> {
            let new = Tensor::from_slice(new, self.conv.cout, old.device())?;
            let kept = (old.as_detached_tensor() * (1.0 - MOMENTUM))?;
            old.set(&(kept + (new * (MOMENTUM * factor))?)?)
        };
        blend(&self.mean, &moments.mean, 1.0)?;
        blend(&self.variance, &moments.variance, unbiased)
    }

    /// Batch norm in inference mode as factor and summand.
    fn affine(&self, gamma: &Tensor, beta: &Tensor) -> Result<Tensor> {
        let rstd = (self.variance.as_detached_tensor() + f64::from(EPS))?.sqrt()?.recip()?;
        let scale = (gamma * rstd)?;
        let shift = (beta - (self.mean.as_detached_tensor() * &scale)?)?;
        Tensor::stack(&[scale, shift], 0)
    }
}
