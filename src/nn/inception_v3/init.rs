//! Random initial weights.

use super::topology::Topology;
use crate::rng::{Purpose, StreamRng};
use candle_core::{Device, Result, Tensor};
use rayon::prelude::*;
use std::collections::BTreeMap;

/// Random tensors of the network under torchvision's names: convolutions uniform with variance `2 / fan_in` (He et al.
/// 2015, which keeps the variance through a ReLU), batch norm the identity. Each tensor has a stream of its own, keyed
/// by `seed` and its name.
///
/// # Errors
/// If the device is out of memory.
pub fn random(width: f64, seed: u64, device: &Device) -> Result<BTreeMap<String, Tensor>> {
    let tensors: Vec<_> = Topology::new(width).units.iter().flat_map(|unit| unit.tensors()).collect();
    tensors
        .into_par_iter()
        .map(|(name, shape)| {
            let count = shape.iter().product::<usize>();
            let values: Vec<f32> = if name.ends_with("conv.weight") {
                let fan_in = count / shape[0];
                let bound = (6.0 / fan_in as f64).sqrt();
                let mut rng = StreamRng::named(seed, Purpose::Init, &name, &[]);
                (0..count).map(|_| ((2.0 * rng.unit() - 1.0) * bound) as f32).collect()
            } else if name.ends_with("bn.weight") || name.ends_with("running_var") {
                vec![1.0; count]
            } else {
                vec![0.0; count]
            };
            Tensor::from_vec(values, shape, device).map(|tensor| (name, tensor))
        })
        .collect()
}
