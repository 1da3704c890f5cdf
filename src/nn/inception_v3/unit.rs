//! One convolution of the trained part with its batch norm.

use super::{InceptionV3, MOMENTUM};
use crate::nn::conv::Conv;
use crate::nn::kernel::norm_cpu::Moments;
use candle_core::{Device, Result, Tensor, Var};

/// Convolution, batch norm and ReLU with trainable weights.
pub(super) struct Unit {
    pub name: String,
    pub conv: Conv,
    pub weight: Var,
    pub gamma: Var,
    pub beta: Var,
    pub mean: Var,
    pub variance: Var,
}

impl Unit {
    pub(super) fn new(network: &InceptionV3, index: usize) -> Result<Self> {
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
}
