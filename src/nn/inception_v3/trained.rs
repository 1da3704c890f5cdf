//! The trained part on the CPU: the same stages with gradients, on variables of its own. A pass is one operation
//! ([`super::pass`]).

use super::InceptionV3;
use super::pass::Pass;
use super::topology::Step;
use super::unit::Unit;
use crate::nn::conv::Conv;
use crate::nn::{Mode, Suffix, SuffixOptions};
use candle_core::backprop::GradStore;
use candle_core::{Result, Tensor, Var};
use std::collections::BTreeMap;
use std::sync::Arc;

/// See [`Suffix`].
pub(super) struct Trained {
    /// By index in the whole network, and so in network order.
    pub units: Arc<BTreeMap<usize, Unit>>,
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
        let units = Arc::new(units);
        Ok(Self { pass: Arc::new(Pass::new(network, &stages, Arc::clone(&units), options.batch_norm)?), units })
    }
}

impl Suffix for Trained {
    fn forward(&self, x: &Tensor, mode: Mode) -> Result<Tensor> {
        self.pass.apply(&x.contiguous()?, mode)
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
