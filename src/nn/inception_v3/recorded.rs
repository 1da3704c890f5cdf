//! The trained part as separate operations: the reference with which the fused pass is compared.

use super::topology::{Branch, Stage, Step};
use super::trained::Trained;
use super::unit::Unit;
use super::{EPS, InceptionV3};
use crate::nn::Mode;
use crate::nn::pool::PoolKind;
use crate::nn::recorded::concat::concat;
use crate::nn::recorded::norm::BatchNormRelu;
use crate::nn::recorded::pool::Pool;
use crate::spec::BatchNormMode;
use candle_core::{Result, Tensor};

/// A trained part computed operation by operation.
pub(super) struct Recorded<'a> {
    trained: &'a Trained,
    stages: Vec<Stage>,
    max_pool: Pool,
    average_pool: Pool,
    batch_norm: BatchNormMode,
}

impl<'a> Recorded<'a> {
    pub(super) fn new(
        network: &InceptionV3,
        trained: &'a Trained,
        (from, to): (usize, usize),
        batch_norm: BatchNormMode,
    ) -> Self {
        let pool = |step, kind| Pool { window: network.topology.window(step), kind, isa: network.isa };
        Self {
            trained,
            stages: network.topology.stages[from..to].to_vec(),
            max_pool: pool(Step::MaxPool, PoolKind::Max),
            average_pool: pool(Step::AveragePool, PoolKind::Average(network.divisor)),
            batch_norm,
        }
    }

    fn branch(&self, branch: &Branch, x: &Tensor, mode: Mode) -> Result<Tensor> {
        let mut x = x.clone();
        for step in &branch.chain {
            x = match step {
                Step::Unit(unit) => self.trained.units[unit].forward(&x, mode, self.batch_norm)?,
                Step::MaxPool => self.max_pool.apply(&x)?,
                Step::AveragePool => self.average_pool.apply(&x)?,
            };
        }
        if branch.fan.is_empty() {
            return Ok(x);
        }
        let fan = branch.fan.iter().map(|unit| self.trained.units[unit].forward(&x, mode, self.batch_norm));
        concat(&fan.collect::<Result<Vec<_>>>()?)
    }
}

impl Recorded<'_> {
    pub(super) fn forward(&self, x: &Tensor, mode: Mode) -> Result<Tensor> {
        let mut x = x.contiguous()?;
        for stage in &self.stages {
            let branches = stage.branches.iter().map(|b| self.branch(b, &x, mode));
            x = concat(&branches.collect::<Result<Vec<_>>>()?)?;
        }
        Ok(x)
    }
}

impl Unit {
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

    /// Batch norm in inference mode as scale and shift.
    fn affine(&self, gamma: &Tensor, beta: &Tensor) -> Result<Tensor> {
        let rstd = (self.variance.as_detached_tensor() + f64::from(EPS))?.sqrt()?.recip()?;
        let scale = (gamma * rstd)?;
        let shift = (beta - (self.mean.as_detached_tensor() * &scale)?)?;
        Tensor::stack(&[scale, shift], 0)
    }
}
