//! The network on a GPU: stages operation by operation ([`crate::nn::cuda::ops`]), frozen without gradients or trained
//! with them.

use super::topology::{AVERAGE_POOL, Branch, MAX_POOL, Stage, Step, Topology};
use super::{EPS, MOMENTUM};
use crate::nn::conv::Conv;
use crate::nn::cuda::{Precision, ops, precision};
use crate::nn::kernel::Window;
use crate::nn::kernel::pool_cpu::Divisor;
use crate::nn::pool::PoolKind;
use crate::nn::{Mode, Suffix};
use crate::spec::BatchNormMode;
use candle_core::{DType, Device, Result, Tensor, Var, bail};
use std::collections::BTreeMap;

/// From torch's `[O, I, KH, KW]` to a device's `[O, KH, KW, I]`.
fn rows(weights: &Tensor) -> Result<Tensor> {
    weights.permute((0, 2, 3, 1))?.contiguous()
}

/// The inverse of [`rows`].
fn torch_order(weights: &Tensor) -> Result<Tensor> {
    weights.permute((0, 3, 1, 2))?.contiguous()
}

/// Batch norm in inference mode as scale and shift.
fn affine([gamma, beta, mean, variance]: [&Tensor; 4]) -> Result<(Tensor, Tensor)> {
    let scale = (gamma * (variance + f64::from(EPS))?.sqrt()?.recip()?)?;
    let bias = (beta - (mean * &scale)?)?;
    Ok((scale, bias))
}

/// One unit's tensors on the device, in f32.
struct UnitTensors {
    /// `[O, KH, KW, I]`.
    weight: Tensor,
    /// gamma, beta, mean, variance.
    norm: [Tensor; 4],
    /// Weights and bias with the batch norm folded in, in the frozen part's type.
    folded: (Tensor, Tensor),
}

/// The weights of the whole network on a device.
pub(super) struct OnDevice {
    units: Vec<UnitTensors>,
    divisor: Divisor,
    precision: Precision,
}

/// The type of feature maps, and of the weights and biases applied to them.
fn dtype(bf16: bool) -> DType {
    if bf16 { DType::BF16 } else { DType::F32 }
}

impl OnDevice {
    /// Moves the weights, which have been checked, to `device`, for use in the process's arithmetic.
    pub(super) fn new(
        topology: &Topology,
        tensors: &BTreeMap<String, Tensor>,
        divisor: Divisor,
        device: &Device,
    ) -> Result<Self> {
        Self::with_precision(topology, tensors, divisor, device, precision())
    }

    fn with_precision(
        topology: &Topology,
        tensors: &BTreeMap<String, Tensor>,
        divisor: Divisor,
        device: &Device,
        precision: Precision,
    ) -> Result<Self> {
        let dtype = dtype(precision.of_frozen() == Precision::Bf16);
        let units = topology.units.iter().map(|unit| {
            let [weight, norm @ ..] = unit.tensors().map(|(name, _)| name);
            let take = |name: &String| tensors[name].to_dtype(DType::F32)?.to_device(device);
            let weight = rows(&take(&weight)?)?;
            let [gamma, beta, mean, variance] = norm.each_ref().map(take);
            let norm = [gamma?, beta?, mean?, variance?];
            let (scale, bias) = affine(norm.each_ref())?;
            let folded = weight.broadcast_mul(&scale.reshape((unit.cout, 1, 1, 1))?)?;
            Ok(UnitTensors { folded: (folded.to_dtype(dtype)?, bias.to_dtype(dtype)?), weight, norm })
        });
        Ok(Self { units: units.collect::<Result<_>>()?, divisor, precision })
    }

    /// Stages without gradients.
    pub(super) fn prefix(&self, topology: &Topology, stages: &[Stage], x: &Tensor) -> Result<Tensor> {
        let mut x = x.detach().to_dtype(dtype(self.precision.of_frozen() == Precision::Bf16))?;
        for stage in stages {
            x = by_stage(stage, &x, self.divisor, &|unit, x| {
                let (weight, bias) = &self.units[unit].folded;
                ops::conv_bias_relu(topology.units[unit].window, x, weight, bias)
            })?;
        }
        x.to_dtype(DType::F32)
    }

    /// A trainable copy of stages.
    pub(super) fn suffix(&self, topology: &Topology, stages: &[Stage], batch_norm: BatchNormMode) -> Result<Trained> {
        let mut units = BTreeMap::new();
        for branch in stages.iter().flat_map(|s| &s.branches) {
            let chain = branch.chain.iter().filter_map(|s| if let Step::Unit(unit) = s { Some(unit) } else { None });
            for &index in chain.chain(&branch.fan) {
                let (unit, tensors) = (&topology.units[index], &self.units[index]);
                let [gamma, beta, mean, variance] = tensors.norm.each_ref().map(Var::from_tensor);
                units.insert(
                    index,
                    Unit {
                        name: unit.name.clone(),
                        window: unit.window,
                        weight: Var::from_tensor(&tensors.weight)?,
                        gamma: gamma?,
                        beta: beta?,
                        mean: mean?,
                        variance: variance?,
                    },
                );
            }
        }
        let dtype = dtype(self.precision == Precision::Amp);
        Ok(Trained { stages: stages.to_vec(), units, divisor: self.divisor, batch_norm, dtype })
    }
}

/// All branches of a stage, concatenated. `unit` computes one convolution with its norm and ReLU.
fn by_stage(
    stage: &Stage,
    x: &Tensor,
    divisor: Divisor,
    unit: &dyn Fn(usize, &Tensor) -> Result<Tensor>,
) -> Result<Tensor> {
    if x.dims().last() != Some(&stage.cin) {
        bail!("{} takes {} channels, not {:?}", stage.name, stage.cin, x.dims());
    }
    let branch = |branch: &Branch| {
        let mut x = x.clone();
        for step in &branch.chain {
            x = match step {
                Step::Unit(index) => unit(*index, &x)?,
                Step::MaxPool => ops::pool(MAX_POOL, PoolKind::Max, &x)?,
                Step::AveragePool => ops::pool(AVERAGE_POOL, PoolKind::Average(divisor), &x)?,
            };
        }
        match branch.fan.as_slice() {
            [] => Ok(vec![x]),
            fan => fan.iter().map(|&index| unit(index, &x)).collect(),
        }
    };
    let pieces = stage.branches.iter().map(branch).collect::<Result<Vec<_>>>()?;
    ops::concat(&pieces.concat())
}

/// Convolution, batch norm and ReLU with trainable weights.
struct Unit {
    name: String,
    window: Window,
    weight: Var,
    gamma: Var,
    beta: Var,
    mean: Var,
    variance: Var,
}

/// See [`Suffix`].
pub(super) struct Trained {
    stages: Vec<Stage>,
    /// By index in the whole network, and so in network order.
    units: BTreeMap<usize, Unit>,
    divisor: Divisor,
    batch_norm: BatchNormMode,
    /// The type of feature maps; weights are kept in f32.
    dtype: DType,
}

impl Unit {
    fn forward(&self, x: &Tensor, mode: Mode, batch_norm: BatchNormMode) -> Result<Tensor> {
        let running = [self.mean.as_detached_tensor(), self.variance.as_detached_tensor()];
        let folded = |weight: &Tensor, gamma: &Tensor, beta: &Tensor| {
            let (scale, bias) = affine([gamma, beta, &running[0], &running[1]])?;
            ops::conv_affine_relu(self.window, x, weight, &scale, &bias)
        };
        match (mode, batch_norm) {
            (Mode::Train, BatchNormMode::Train) => {
                let sums = ops::conv(self.window, x, &self.weight)?;
                let (y, moments) = ops::batch_norm_relu(&sums, &self.gamma, &self.beta, EPS)?;
                let blend = |old: &Var, kept: &Tensor, new: &Tensor| {
                    old.set(&((kept * (1.0 - MOMENTUM))? + (new * MOMENTUM)?)?)
                };
                blend(&self.mean, &running[0], &moments.mean)?;
                blend(&self.variance, &running[1], &moments.variance)?;
                Ok(y)
            }
            (Mode::Train, BatchNormMode::Frozen) => folded(&self.weight, &self.gamma, &self.beta),
            (Mode::Eval, _) => folded(
                &self.weight.as_detached_tensor(),
                &self.gamma.as_detached_tensor(),
                &self.beta.as_detached_tensor(),
            ),
        }
    }

    fn conv(&self) -> Result<Conv> {
        Ok(Conv::new(self.window, self.weight.dim(0)?))
    }
}

impl Trained {
    fn unit(&self, name: &str) -> Option<&Unit> {
        let owner = name.strip_suffix(".conv.weight")?;
        self.units.values().find(|unit| unit.name == owner)
    }
}

impl Suffix for Trained {
    fn forward(&self, x: &Tensor, mode: Mode) -> Result<Tensor> {
        let unit = |index: usize, x: &Tensor| self.units[&index].forward(x, mode, self.batch_norm);
        let y =
            self.stages.iter().try_fold(x.to_dtype(self.dtype)?, |x, stage| by_stage(stage, &x, self.divisor, &unit));
        y?.to_dtype(DType::F32)
    }

    fn parameters(&self) -> Vec<(String, Var)> {
        let of = |u: &Unit| [("conv.weight", &u.weight), ("bn.weight", &u.gamma), ("bn.bias", &u.beta)].map(named(u));
        self.units.values().flat_map(of).collect()
    }

    fn buffers(&self) -> Vec<(String, Var)> {
        let of = |u: &Unit| [("bn.running_mean", &u.mean), ("bn.running_var", &u.variance)].map(named(u));
        self.units.values().flat_map(of).collect()
    }

    fn to_file(&self, name: &str, own: &Tensor) -> Result<Tensor> {
        if self.unit(name).is_some() { torch_order(own) } else { Ok(own.clone()) }
    }

    fn from_file(&self, name: &str, stored: &Tensor) -> Result<Tensor> {
        match (self.unit(name), stored.rank()) {
            (Some(_), 4) => rows(stored),
            // Older files hold the CPU's panels.
            (Some(unit), 3) => {
                rows(&unit.conv()?.unpack(&stored.to_device(&Device::Cpu)?)?.to_device(stored.device())?)
            }
            _ => Ok(stored.clone()),
        }
    }
}

fn named(unit: &Unit) -> impl Fn((&str, &Var)) -> (String, Var) {
    |(suffix, var)| (format!("{}.{suffix}", unit.name), var.clone())
}

#[cfg(test)]
mod tests {
    use super::super::{InceptionV3, random};
    use super::*;
    use crate::nn::reference::{elements, numbers};
    use crate::nn::{Backbone, SuffixOptions, backward};
    use crate::spec::PoolPadding;

    const WIDTH: f64 = 0.02;

    struct Both {
        cpu: InceptionV3,
        topology: Topology,
        device: OnDevice,
        tensors: BTreeMap<String, Tensor>,
    }

    /// A narrow network on the CPU's kernels, and on the device's operations with naive primitives.
    fn both(padding: PoolPadding) -> Both {
        let mut tensors = random(WIDTH, 5, &Device::Cpu).unwrap();
        // Statistics and scales that are not the identity.
        for (i, (name, t)) in tensors.iter_mut().enumerate() {
            if name.contains(".bn.") {
                let values = numbers(i as u64, t.elem_count()).iter().map(|v| v as &f64).map(|&v| v as f32).collect();
                let moved = Tensor::from_vec(values, t.dims(), &Device::Cpu).unwrap();
                *t = (&*t + (moved * 0.3).unwrap()).unwrap();
            }
        }
        let topology = Topology::new(WIDTH);
        let device = OnDevice::new(&topology, &tensors, padding.into(), &Device::Cpu).unwrap();
        Both { cpu: InceptionV3::new(&tensors, WIDTH, padding, &Device::Cpu).unwrap(), topology, device, tensors }
    }

    fn images(batch: usize) -> Tensor {
        let values: Vec<f32> = numbers(3, batch * 75 * 75 * 3).iter().map(|&v| v as f32).collect();
        Tensor::from_vec(values, (batch, 75, 75, 3), &Device::Cpu).unwrap()
    }

    #[track_caller]
    fn close(a: &Tensor, b: &Tensor, tolerance: f32, what: &str) {
        assert_eq!(a.dims(), b.dims(), "{what}");
        let (a, b) = (elements(a), elements(b));
        let scale = b.iter().fold(1e-12f32, |m, v| m.max(v.abs()));
        let worst = a.iter().zip(&b).fold(0f32, |m, (a, b)| m.max((a - b).abs()));
        assert!(worst <= tolerance * scale, "{what}: off by {} of the largest", worst / scale);
    }

    #[test]
    fn the_devices_network_computes_what_the_cpus_does() {
        for padding in [PoolPadding::Counted, PoolPadding::Excluded] {
            let both = both(padding);
            let x = images(1);
            let expected = both.cpu.prefix(0, 18, &x).unwrap();
            let ours = both.device.prefix(&both.topology, &both.topology.stages, &x).unwrap();
            close(&ours, &expected, 1e-5, &format!("{padding:?}"));
        }
    }

    #[test]
    fn a_training_step_of_the_devices_network_has_the_cpus_gradients_and_statistics() {
        let both = both(PoolPadding::Counted);
        let x = both.cpu.prefix(0, 14, &images(3)).unwrap();
        for batch_norm in [BatchNormMode::Frozen, BatchNormMode::Train] {
            let theirs = both.cpu.suffix(14, 18, SuffixOptions { batch_norm }).unwrap();
            let ours = both.device.suffix(&both.topology, &both.topology.stages[14..18], batch_norm).unwrap();
            let loss = |suffix: &dyn Suffix| {
                let y = suffix.forward(&x, Mode::Train).unwrap();
                let loss = y.sqr().unwrap().mean_all().unwrap();
                (y, backward(&loss, Some(suffix)).unwrap())
            };
            let ((y, gradients), (expected, wanted)) = (loss(&ours), loss(theirs.as_ref()));
            // One pixel per image: statistics of three values amplify rounding errors.
            let tolerance = if batch_norm == BatchNormMode::Train { 5e-3 } else { 1e-4 };
            close(&y, &expected, tolerance, "output");
            for ((name, a), (other, b)) in ours.parameters().iter().zip(theirs.parameters()) {
                assert_eq!(*name, other);
                let a = ours.to_file(name, gradients.get(a).unwrap()).unwrap();
                let b = theirs.to_file(name, wanted.get(&b).unwrap()).unwrap();
                close(&a, &b, tolerance, &format!("{batch_norm:?} {name}"));
            }
            for ((name, a), (other, b)) in ours.buffers().iter().zip(theirs.buffers()) {
                assert_eq!(*name, other);
                close(a, &b, 1e-4, name);
            }
            let y = ours.forward(&x, Mode::Eval).unwrap();
            close(&y, &theirs.forward(&x, Mode::Eval).unwrap(), 2e-3, "inference");
        }
    }

    /// `|a - b| / |b|`.
    fn distance(a: &Tensor, b: &Tensor) -> f64 {
        assert_eq!((a.dims(), a.dtype()), (b.dims(), DType::F32));
        let norm = |t: &Tensor| elements(t).iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
        norm(&(a - b).unwrap()) / norm(b).max(1e-12)
    }

    #[test]
    fn in_mixed_precision_maps_are_rounded_and_parameters_and_gradients_are_f32() {
        let Both { topology, tensors, .. } = both(PoolPadding::Counted);
        let of = |p| OnDevice::with_precision(&topology, &tensors, Divisor::Window, &Device::Cpu, p).unwrap();
        let (exact, bf16, amp) = (of(Precision::F32), of(Precision::Bf16), of(Precision::Amp));
        let prefix = |network: &OnDevice, to| network.prefix(&topology, &topology.stages[..to], &images(3)).unwrap();
        let error = distance(&prefix(&amp, 14), &prefix(&exact, 14));
        assert!((1e-4..5e-2).contains(&error), "features are off by {error}");
        assert_eq!(elements(&prefix(&amp, 14)), elements(&prefix(&bf16, 14)), "frozen layers are those of bf16");
        // Statistics of few values amplify rounding errors, so batch norm is trained in stages of many pixels.
        for (batch_norm, range) in [(BatchNormMode::Frozen, 14..18), (BatchNormMode::Train, 7..9)] {
            let x = prefix(&exact, range.start);
            let suffix = |network: &OnDevice| network.suffix(&topology, &topology.stages[range.clone()], batch_norm);
            let step = |suffix: &Trained| {
                let y = suffix.forward(&x, Mode::Train).unwrap();
                let gradients = backward(&y.sqr().unwrap().mean_all().unwrap(), Some(suffix)).unwrap();
                (y, gradients)
            };
            let (theirs, ours) = (suffix(&exact).unwrap(), suffix(&amp).unwrap());
            let ((y, found), (expected, wanted)) = (step(&ours), step(&theirs));
            let error = distance(&y, &expected);
            assert!((1e-4..5e-2).contains(&error), "{batch_norm:?}: the output is off by {error}");
            let mut errors = Vec::new();
            for ((_, a), (_, b)) in ours.parameters().iter().zip(theirs.parameters()) {
                assert_eq!(a.dtype(), DType::F32);
                errors.push(distance(found.get(a).unwrap(), wanted.get(&b).unwrap()));
            }
            errors.sort_by(f64::total_cmp);
            let (median, worst) = (errors[errors.len() / 2], errors[errors.len() - 1]);
            // Eight bits of mantissa, ten layers deep; the batch's statistics amplify them.
            assert!(median < 0.1 && worst < 0.5, "{batch_norm:?}: gradients are off by {median} and {worst}");
            // With `bf16` the trained part is computed in f32.
            assert_eq!(elements(&step(&suffix(&bf16).unwrap()).0), elements(&expected));
        }
    }

    #[test]
    fn weights_move_between_the_layouts_without_losing_a_bit() {
        let both = both(PoolPadding::Counted);
        let options = SuffixOptions { batch_norm: BatchNormMode::Frozen };
        let cpu = both.cpu.suffix(12, 18, options).unwrap();
        let device = both.device.suffix(&both.topology, &both.topology.stages[12..18], BatchNormMode::Frozen).unwrap();
        for ((name, a), (_, b)) in cpu.parameters().iter().zip(device.parameters()) {
            let stored = cpu.to_file(name, a).unwrap();
            assert_eq!(elements(&stored), elements(&device.to_file(name, &b).unwrap()), "{name}");
            assert_eq!(elements(a), elements(&cpu.from_file(name, &stored).unwrap()), "{name}");
            let (there, old) = (device.from_file(name, &stored).unwrap(), device.from_file(name, a).unwrap());
            assert_eq!((there.dims(), elements(&there)), (b.dims(), elements(&b)), "{name}");
            assert_eq!((old.dims(), elements(&old)), (b.dims(), elements(&b)), "{name} of an older file");
            // The CPU takes an older file's panels as they are.
            assert_eq!(elements(a), elements(&cpu.from_file(name, a).unwrap()), "{name}");
        }
    }
}
