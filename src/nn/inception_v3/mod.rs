//! InceptionV3 (Szegedy et al. 2016) with torchvision's topology and names: on the CPU the
//! frozen and the trained part are one operation each, on a GPU sequences of operations.

mod arena;
mod convolve;
mod frozen;
mod graph;
mod init;
mod on_device;
mod pass;
#[cfg(test)]
mod recorded;
mod topology;
mod trained;
mod unit;

pub(super) use graph::add_stages;
pub use init::random;

use super::conv::Conv;
use super::cuda::precision;
use super::kernel::norm_cpu;
use super::kernel::pool_cpu::Divisor;
use super::kernel::{ConvShape, Isa, panel, winograd};
use super::operation::forward1;
use super::tensor::values;
use super::{Backbone, BackboneError, Lattice, StageInfo, Suffix, SuffixOptions};
use crate::spec::{PoolPadding, Precision};
use candle_core::{DType, Device, Tensor};
use on_device::OnDevice;
use rayon::prelude::*;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use topology::Topology;

/// Added to a variance before the square root.
const EPS: f32 = 1e-3;
/// Share of the new batch in running statistics (torch's meaning of momentum).
const MOMENTUM: f64 = 0.1;

/// Names and torch shapes of all tensors of the network at a width, in the order of the network.
pub fn parameters(width: f64) -> Vec<(String, Vec<usize>)> {
    topology(width).units.iter().flat_map(|unit| unit.tensors()).collect()
}

/// The topology at a width, made once: what a trial costs is asked for thousands of times.
fn topology(width: f64) -> Arc<Topology> {
    static MADE: Mutex<BTreeMap<u64, Arc<Topology>>> = Mutex::new(BTreeMap::new());
    let mut made = MADE.lock().unwrap_or_else(PoisonError::into_inner);
    Arc::clone(made.entry(width.to_bits()).or_insert_with(|| Arc::new(Topology::new(width))))
}

/// Stage names and channels at a width.
pub fn stages(width: f64) -> Vec<StageInfo> {
    topology(width).stages.iter().map(|s| StageInfo { name: s.name.to_owned(), channels: s.cout }).collect()
}

/// The cost of stages for one image, without the arithmetic of pools and batch norms.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Multiply-adds of all convolutions, by their definition.
    pub multiply_adds: u64,
    /// Of these, those of convolutions that are computed by Winograd's minimal filtering on the CPU.
    pub winograd: u64,
    /// Values in the outputs of convolutions and pools.
    pub activations: u64,
    /// Values in the weights of convolutions.
    pub weights: u64,
}

/// The work of stages `from..to` at a width for one square image of `side` pixels; `None` if that is too small.
pub fn work(width: f64, side: usize, from: usize, to: usize) -> Option<Work> {
    topology(width).work(side, from, to)
}

/// See [`Backbone::side_at`].
pub fn side_at(width: f64, side: usize, position: usize) -> Option<usize> {
    topology(width).side_at(side, position)
}

/// A tensor whose shape is not the network's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misshapen {
    pub name: String,
    pub expected: Vec<usize>,
    pub found: Vec<usize>,
}

/// Why an InceptionV3 cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum InceptionV3Error {
    /// Tensors are missing or have another shape.
    #[error("build InceptionV3 of width {width}: {}\nhint: names and shapes are those of torchvision's inception_v3; \
             `width` must be the one the weights were made with", describe(.missing, .misshapen))]
    Tensors { width: f64, missing: Vec<String>, misshapen: Vec<Misshapen> },
    /// The width multiplier is not a positive number.
    #[error("build InceptionV3: width {0} is not a positive number")]
    Width(f64),
    /// There are no kernels for the device.
    #[error("build InceptionV3 on {0}: its operations run on the CPU, and on NVIDIA GPUs with the feature `cuda`")]
    Device(&'static str),
    /// A tensor could not be read.
    #[error("build InceptionV3")]
    Candle(#[from] candle_core::Error),
}

/// How many names a message shows.
const SHOWN: usize = 5;

fn describe(missing: &[String], misshapen: &[Misshapen]) -> String {
    let list = |names: Vec<String>| match names.len().checked_sub(SHOWN) {
        Some(more @ 1..) => format!("{} and {more} more", names[..SHOWN].join(", ")),
        _ => names.join(", "),
    };
    let mut parts = Vec::new();
    if !missing.is_empty() {
        parts.push(format!("missing {}", list(missing.to_vec())));
    }
    if !misshapen.is_empty() {
        let shapes = misshapen.iter().map(|m| format!("{} is {:?}, not {:?}", m.name, m.found, m.expected));
        parts.push(list(shapes.collect()));
    }
    parts.join("; ")
}

/// One unit's weights in host memory, ready for the kernels.
#[derive(Debug)]
struct UnitWeights {
    /// Packed convolution weights.
    packed: Vec<f32>,
    /// The same as the kernels read them, direct ones and Winograd's, made when first used; with
    /// bf16 on top of those above, half as large in pairs, as large where they are only rounded.
    formed: [OnceLock<Option<Vec<f32>>>; 2],
    /// Batch norm in inference mode as scale and shift, padded to whole panels.
    scale: Vec<f32>,
    bias: Vec<f32>,
    gamma: Vec<f32>,
    beta: Vec<f32>,
    mean: Vec<f32>,
    variance: Vec<f32>,
}

impl UnitWeights {
    fn new(packed: Vec<f32>, [gamma, beta, mean, variance]: [Vec<f32>; 4]) -> Self {
        let scale: Vec<f32> = gamma.iter().zip(norm_cpu::rstd(&variance, EPS)).map(|(g, r)| g * r).collect();
        let bias: Vec<f32> = beta.iter().zip(&mean).zip(&scale).map(|((b, m), s)| b - m * s).collect();
        let (scale, bias) = (panel::padded(&scale), panel::padded(&bias));
        Self { packed, formed: Default::default(), scale, bias, gamma, beta, mean, variance }
    }

    /// Where the weights are kept in the form for a shape: the size of an image decides which kernel is used.
    fn formed(&self, shape: &ConvShape) -> &OnceLock<Option<Vec<f32>>> {
        &self.formed[usize::from(winograd::pays(shape))]
    }
}

/// The network without its classifier.
pub struct InceptionV3 {
    topology: Topology,
    stages: Vec<StageInfo>,
    /// For the CPU; empty if the network is on another device.
    weights: Vec<UnitWeights>,
    on_device: Option<OnDevice>,
    divisor: Divisor,
    isa: Isa,
    precision: Precision,
    unused: Vec<String>,
    arenas: arena::Arenas,
}

impl InceptionV3 {
    /// The network from tensors under torchvision's names ([`parameters`]), of any float type.
    ///
    /// # Errors
    /// All tensors that are missing or misshapen are named at once.
    pub fn new(
        tensors: &BTreeMap<String, Tensor>,
        width: f64,
        padding: PoolPadding,
        device: &Device,
    ) -> Result<Self, InceptionV3Error> {
        if !(width.is_finite() && width > 0.0) {
            return Err(InceptionV3Error::Width(width));
        }
        if !device.is_cpu() && !device.is_cuda() {
            return Err(InceptionV3Error::Device("this device"));
        }
        let topology = Topology::new(width);
        let wanted: Vec<_> = topology.units.iter().flat_map(|unit| unit.tensors()).collect();
        let mut missing = Vec::new();
        let mut misshapen = Vec::new();
        for (name, shape) in &wanted {
            match tensors.get(name) {
                None => missing.push(name.clone()),
                Some(t) if t.dims() != shape => {
                    misshapen.push(Misshapen { name: name.clone(), expected: shape.clone(), found: t.dims().to_vec() });
                }
                Some(_) => {}
            }
        }
        if !missing.is_empty() || !misshapen.is_empty() {
            return Err(InceptionV3Error::Tensors { width, missing, misshapen });
        }
        let on_device = match device {
            Device::Cpu => None,
            _ => Some(OnDevice::new(&topology, tensors, padding.into(), device)?),
        };
        let read = |name: &str| values(&tensors[name].to_dtype(DType::F32)?);
        let on_cpu = if on_device.is_none() { topology.units.as_slice() } else { &[] };
        let weights = on_cpu
            .par_iter()
            .map(|unit| {
                let [weight, norm @ ..] = unit.tensors().map(|(name, _)| name);
                let packed = panel::pack(&read(&weight)?, unit.window.taps(), unit.cin, unit.cout);
                let [gamma, beta, mean, variance] = norm.map(|name| read(&name));
                Ok(UnitWeights::new(packed, [gamma?, beta?, mean?, variance?]))
            })
            .collect::<candle_core::Result<Vec<_>>>()?;
        let known: std::collections::BTreeSet<_> = wanted.into_iter().map(|(name, _)| name).collect();
        let unused = tensors.keys().filter(|name| !known.contains(*name) && !is_ignored(name)).cloned().collect();
        Ok(Self {
            topology,
            stages: stages(width),
            weights,
            on_device,
            divisor: padding.into(),
            isa: Isa::best(),
            precision: precision(),
            unused,
            arenas: arena::Arenas::default(),
        })
    }

    /// Tensors that were given and belong to no part of the network: neither to what is built here, nor to the
    /// classifier and the auxiliary head, which are ignored.
    pub fn unused_tensors(&self) -> &[String] {
        &self.unused
    }

    /// The same network in another precision on the CPU; [`InceptionV3::new`] takes that of the process
    /// ([`super::cuda::precision`]).
    #[must_use]
    pub fn with_precision(mut self, precision: Precision) -> Self {
        self.precision = precision;
        self.forget_formed();
        self
    }

    /// Formed weights are those of one arithmetic.
    fn forget_formed(&mut self) {
        self.weights.iter_mut().for_each(|weights| weights.formed = Default::default());
    }

    /// The same network with the kernels of `isa`.
    #[must_use]
    #[cfg(test)]
    pub(crate) fn with_isa(mut self, isa: Isa) -> Self {
        self.isa = isa;
        self.forget_formed();
        self
    }
}

/// Whether a tensor of torchvision's files is not part of the backbone.
fn is_ignored(name: &str) -> bool {
    name.starts_with("AuxLogits.") || name.starts_with("fc.") || name.ends_with(".num_batches_tracked")
}

impl Backbone for InceptionV3 {
    fn stages(&self) -> &[StageInfo] {
        &self.stages
    }

    fn side_at(&self, position: usize, side: usize) -> Option<usize> {
        self.topology.side_at(side, position)
    }

    fn lattice(&self, position: usize) -> Option<Lattice> {
        self.topology.lattice(position)
    }

    fn prefix(&self, from: usize, to: usize, x: &Tensor) -> candle_core::Result<Tensor> {
        if from > to || to > self.stages.len() {
            candle_core::bail!("InceptionV3 has no stages {from}..{to}");
        }
        if from == to {
            return Ok(x.detach());
        }
        if let Some(device) = &self.on_device {
            return device.prefix(&self.topology, &self.topology.stages[from..to], x);
        }
        forward1(frozen::Prefix { network: self, from, to }, &x.contiguous()?)
    }

    fn suffix(&self, from: usize, to: usize, options: SuffixOptions) -> Result<Box<dyn Suffix>, BackboneError> {
        if from > to || to > self.stages.len() {
            return Err(candle_core::Error::Msg(format!("InceptionV3 has no stages {from}..{to}")).into());
        }
        if let Some(device) = &self.on_device {
            let stages = &self.topology.stages[from..to];
            return Ok(Box::new(device.suffix(&self.topology, stages, options.batch_norm)?));
        }
        Ok(Box::new(trained::Trained::new(self, from, to, options)?))
    }
}

impl InceptionV3 {
    fn conv(&self, unit: usize) -> Conv {
        let unit = &self.topology.units[unit];
        Conv { window: unit.window, cout: unit.cout, isa: self.isa }
    }
}

/// The convolution weight `name` (as in [`parameters`]) from the packed layout of [`Suffix::parameters`] to torch's
/// `[O, I, KH, KW]`.
///
/// # Errors
/// If there is no such weight or its shape does not fit.
pub fn plain_weight(width: f64, name: &str, packed: &Tensor) -> candle_core::Result<Tensor> {
    match topology(width).units.iter().find(|u| name.strip_suffix(".conv.weight") == Some(u.name.as_str())) {
        Some(unit) => Conv::new(unit.window, unit.cout).unpack(packed),
        None => candle_core::bail!("InceptionV3 has no convolution weight {name}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::reference::{elements, numbers};
    use crate::nn::{Mode, backward};
    use crate::spec::BatchNormMode;

    /// A narrow network, built by the same code as the published one.
    const WIDTH: f64 = 0.125;

    fn network(isa: Isa) -> InceptionV3 {
        let tensors = random(WIDTH, 5, &Device::Cpu).unwrap();
        InceptionV3::new(&tensors, WIDTH, PoolPadding::Counted, &Device::Cpu).unwrap().with_isa(isa)
    }

    fn images(batch: usize, side: usize) -> Tensor {
        let values: Vec<f32> = numbers(3, batch * side * side * 3).iter().map(|&v| v as f32).collect();
        Tensor::from_vec(values, (batch, side, side, 3), &Device::Cpu).unwrap()
    }

    fn in_pool<R: Send>(threads: usize, f: impl FnOnce() -> R + Send) -> R {
        rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(f)
    }

    #[test]
    fn the_published_network_has_the_published_size() {
        let all = parameters(1.0);
        assert_eq!(all.len(), 470);
        // torchvision's documentation: 27,161,264 with the auxiliary head; 23,834,568 without; less fc's 2,049,000.
        let trained = all.iter().filter(|(name, _)| !name.contains("running"));
        assert_eq!(trained.map(|(_, shape)| shape.iter().product::<usize>()).sum::<usize>(), 23_834_568 - 2_049_000);
        let stages = stages(1.0);
        assert_eq!(stages.len(), 18);
        assert_eq!(stages[17], StageInfo { name: "Mixed_7c".to_owned(), channels: 2048 });
    }

    #[test]
    fn the_published_network_has_the_published_work() {
        // torchvision's documentation: 5.71 GFLOPS (multiply-adds) at 299 px, fc's 2 M among them.
        let work = work(1.0, 299, 0, 18).unwrap();
        assert!((5.70e9..5.72e9).contains(&(work.multiply_adds as f64)), "{work:?}");
        let norms: u64 = Topology::new(1.0).units.iter().map(|unit| 2 * unit.cout as u64).sum();
        assert_eq!(work.weights + norms, 23_834_568 - 2_049_000);
        assert_eq!(super::work(1.0, 74, 0, 18), None);
    }

    #[test]
    fn widths_round_to_multiples_of_eight() {
        for width in [0.01, 0.125, 0.3, 0.5, 1.3] {
            assert!(parameters(width).iter().all(|(_, shape)| shape[0] % 8 == 0 && shape[0] > 0));
        }
    }

    #[test]
    fn seventy_five_pixels_are_enough_and_seventy_four_are_not() {
        let network = network(Isa::best());
        assert_eq!(network.side_at(18, 75), Some(1));
        assert_eq!(network.side_at(18, 299), Some(8));
        assert_eq!(network.side_at(18, 74), None);
        assert!(network.prefix(0, 18, &images(1, 74)).is_err());
        assert_eq!(network.prefix(0, 18, &images(1, 75)).unwrap().dims()[1..3], [1, 1]);
    }

    #[test]
    fn the_prefix_has_the_same_bits_for_any_threads_batch_and_cut() {
        let precisions = [Precision::F32, Precision::Bf16];
        for (isa, precision) in Isa::all_available().flat_map(|isa| precisions.map(|precision| (isa, precision))) {
            let network = network(isa).with_precision(precision);
            let x = images(8, 107);
            let whole = in_pool(1, || network.prefix(0, 18, &x).unwrap());
            assert_eq!(
                elements(&whole),
                elements(&in_pool(2, || network.prefix(0, 18, &x).unwrap())),
                "{isa:?} {precision}"
            );
            let alone = (0..8).map(|i| network.prefix(0, 18, &x.narrow(0, i, 1).unwrap()).unwrap());
            let alone = Tensor::cat(&alone.collect::<Vec<_>>(), 0).unwrap();
            assert_eq!(elements(&whole), elements(&alone), "{isa:?}");
            let cut = network.prefix(11, 18, &network.prefix(0, 11, &x).unwrap()).unwrap();
            assert_eq!(elements(&whole), elements(&cut), "{isa:?}");
        }
    }

    /// Weights take their form in parallel when they are first used; with images in parallel too, a thread that forms
    /// them may come upon another image that needs them, and must not wait for itself.
    #[test]
    fn weights_may_be_formed_by_images_that_are_computed_at_the_same_time() {
        // Wide enough for two panels in a convolution by Winograd's filtering.
        const WIDE: f64 = 0.625;
        let (sender, done) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let tensors = random(WIDE, 5, &Device::Cpu).unwrap();
            let mut network = InceptionV3::new(&tensors, WIDE, PoolPadding::Counted, &Device::Cpu).unwrap();
            let x = images(16, 75);
            for precision in [Precision::F32, Precision::Bf16] {
                network = network.with_precision(precision);
                let first = elements(&in_pool(1, || network.prefix(0, 3, &x).unwrap()));
                for _ in 0..20 {
                    network = network.with_precision(precision); // which forgets the forms
                    assert!(first == elements(&in_pool(8, || network.prefix(0, 3, &x).unwrap())));
                }
            }
            sender.send(()).unwrap();
        });
        done.recv_timeout(std::time::Duration::from_secs(120)).expect("a thread waits for itself, or results differ");
    }

    #[test]
    fn all_kernels_agree() {
        let x = images(2, 75);
        let results: Vec<_> =
            Isa::all_available().map(|isa| elements(&network(isa).prefix(0, 18, &x).unwrap())).collect();
        let largest = results[0].iter().fold(0f32, |m, v| m.max(v.abs()));
        assert!(largest > 0.0);
        for other in &results[1..] {
            assert!(results[0].iter().zip(other).all(|(a, b)| (a - b).abs() < 1e-5 * largest));
        }
    }

    #[test]
    fn the_suffix_in_inference_mode_continues_the_prefix() {
        let network = network(Isa::best());
        let x = network.prefix(0, 10, &images(2, 75)).unwrap();
        let expected = elements(&network.prefix(10, 18, &x).unwrap());
        let largest = expected.iter().fold(0f32, |m, v| m.max(v.abs()));
        for batch_norm in [BatchNormMode::Frozen, BatchNormMode::Train] {
            let suffix = network.suffix(10, 18, SuffixOptions { batch_norm }).unwrap();
            let y = elements(&suffix.forward(&x, Mode::Eval).unwrap());
            assert!(y.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-5 * largest));
        }
    }

    #[test]
    fn the_fused_pass_agrees_with_separate_operations() {
        // Whole networks, and parts: batch statistics of one pixel per image would amplify rounding errors too much.
        let cases = [
            (BatchNormMode::Frozen, 0, 18),
            (BatchNormMode::Frozen, 15, 18),
            (BatchNormMode::Train, 0, 9),
            (BatchNormMode::Train, 10, 13),
            (BatchNormMode::Train, 15, 18),
        ];
        for isa in Isa::all_available() {
            let network = network(isa);
            for (batch_norm, from, to) in cases {
                let x = network.prefix(0, from, &images(2, 139)).unwrap();
                let run = |whole: bool| {
                    let suffix = trained::Trained::new(&network, from, to, SuffixOptions { batch_norm }).unwrap();
                    let recorded = recorded::Recorded::new(&network, &suffix, (from, to), batch_norm);
                    let x = candle_core::Var::from_tensor(&x).unwrap();
                    let forward =
                        |mode| if whole { suffix.forward(&x, mode) } else { recorded.forward(&x, mode) }.unwrap();
                    let y = forward(Mode::Train);
                    let store = backward(&y.sqr().unwrap().sum_all().unwrap(), Some(&suffix)).unwrap();
                    let grads =
                        suffix.parameters().into_iter().map(|(name, v)| (name, elements(store.get(&v).unwrap())));
                    let mut all: Vec<(String, Vec<f32>)> = grads.collect();
                    all.extend(suffix.buffers().into_iter().map(|(name, v)| (name, elements(&v))));
                    all.push(("input".to_owned(), elements(store.get(&x).unwrap())));
                    all.push(("output".to_owned(), elements(&y)));
                    all.push(("inference".to_owned(), elements(&forward(Mode::Eval))));
                    all
                };
                for ((name, ours), (_, expected)) in run(true).iter().zip(run(false)) {
                    let scale = expected.iter().fold(1e-20f32, |m, v| m.max(v.abs()));
                    let tolerance = if batch_norm == BatchNormMode::Train { 2e-3 } else { 2e-4 };
                    let worst = ours.iter().zip(&expected).fold(0f32, |m, (a, b)| m.max((a - b).abs()));
                    assert!(
                        ours.len() == expected.len() && worst < tolerance * scale,
                        "{isa:?} {batch_norm:?} {from} {name}: {}",
                        worst / scale
                    );
                }
            }
        }
    }

    fn distance(a: &[f32], b: &[f32]) -> f64 {
        let sum = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>();
        let off = sum(&mut a.iter().zip(b).map(|(a, b)| f64::from(a - b)));
        (off / sum(&mut b.iter().map(|&b| f64::from(b))).max(1e-30)).sqrt()
    }

    #[test]
    fn bf16_is_near_f32_and_amp_rounds_in_the_trained_part_too() {
        let (x, all) = (images(2, 107), 18);
        let of = |precision| network(Isa::best()).with_precision(precision);
        let prefix = |precision| elements(&of(precision).prefix(0, all, &x).unwrap());
        let exact = prefix(Precision::F32);
        assert_eq!(exact, prefix(Precision::Tf32), "the CPU has no TF32");
        let narrow = prefix(Precision::Bf16);
        assert_eq!(narrow, prefix(Precision::Amp));
        let error = distance(&narrow, &exact);
        assert!(error > 1e-4 && error < 2e-2, "{error:e}");

        let step = |precision| {
            let options = SuffixOptions { batch_norm: BatchNormMode::Frozen };
            let suffix = of(precision).suffix(10, all, options).unwrap();
            let x = network(Isa::best()).prefix(0, 10, &x).unwrap();
            let y = suffix.forward(&x, Mode::Train).unwrap();
            let store = backward(&y.sqr().unwrap().sum_all().unwrap(), Some(&*suffix)).unwrap();
            let gradients = suffix.parameters().into_iter().map(|(name, v)| (name, elements(store.get(&v).unwrap())));
            gradients.chain([("output".to_owned(), elements(&y))]).collect::<Vec<_>>()
        };
        let exact = step(Precision::F32);
        assert!(exact == step(Precision::Bf16), "only frozen layers are bf16");
        let narrow = step(Precision::Amp);
        let mut errors: Vec<f64> = exact.iter().zip(&narrow).map(|((_, a), (_, b))| distance(b, a)).collect();
        errors.sort_by(f64::total_cmp);
        let (least, median, worst) = (errors[0], errors[errors.len() / 2], errors[errors.len() - 1]);
        // As on a GPU: eight bits of mantissa, ten layers deep.
        assert!(least > 1e-5 && median < 0.1 && worst < 0.5, "{least:e} {median:e} {worst:e}");
    }

    #[test]
    fn two_passes_in_one_loss_add_their_gradients() {
        let network = network(Isa::best());
        let suffix = network.suffix(16, 18, SuffixOptions { batch_norm: BatchNormMode::Frozen }).unwrap();
        let x = network.prefix(0, 16, &images(2, 75)).unwrap();
        let run = |times: usize| {
            let losses = (0..times).map(|_| suffix.forward(&x, Mode::Train).unwrap().sum_all().unwrap());
            let loss = losses.reduce(|a, b| (a + b).unwrap()).unwrap();
            let store = backward(&loss, Some(&*suffix)).unwrap();
            suffix.parameters().iter().flat_map(|(_, v)| elements(store.get(v).unwrap())).collect::<Vec<_>>()
        };
        assert!(run(1).iter().zip(run(2)).all(|(one, two)| 2.0 * one == two));
    }

    #[test]
    fn a_training_step_has_the_same_bits_for_any_number_of_threads() {
        let precisions = [Precision::F32, Precision::Amp];
        let modes = [BatchNormMode::Frozen, BatchNormMode::Train];
        for (batch_norm, precision) in modes.into_iter().flat_map(|mode| precisions.map(|precision| (mode, precision)))
        {
            let step = |threads| {
                in_pool(threads, || {
                    let network = network(Isa::best()).with_precision(precision);
                    let suffix = network.suffix(0, 18, SuffixOptions { batch_norm }).unwrap();
                    let y = suffix.forward(&images(3, 75), Mode::Train).unwrap();
                    let store = backward(&y.sqr().unwrap().sum_all().unwrap(), Some(&*suffix)).unwrap();
                    let grads = suffix.parameters().into_iter().map(|(_, v)| elements(store.get(&v).unwrap()));
                    let buffers = suffix.buffers().into_iter().map(|(_, v)| elements(&v));
                    grads.chain(buffers).collect::<Vec<_>>()
                })
            };
            assert!(step(1) == step(2), "{batch_norm:?} {precision}");
        }
    }

    #[test]
    fn random_weights_are_keyed_by_seed_and_name_and_keep_the_variance() {
        let one = random(WIDTH, 1, &Device::Cpu).unwrap();
        let values = |t: &BTreeMap<String, Tensor>, name: &str| elements(&t[name]);
        let name = "Mixed_7c.branch1x1.conv.weight";
        assert_eq!(values(&one, name), values(&random(WIDTH, 1, &Device::Cpu).unwrap(), name));
        assert_ne!(values(&one, name), values(&random(WIDTH, 2, &Device::Cpu).unwrap(), name));
        let weights = values(&one, name);
        let fan_in = one[name].dims()[1] as f32;
        let variance = weights.iter().map(|w| w * w).sum::<f32>() / weights.len() as f32;
        assert!((variance * fan_in / 2.0 - 1.0).abs() < 0.1, "{variance}");
    }

    #[test]
    fn missing_and_misshapen_tensors_are_all_named_and_extra_ones_are_reported() {
        let mut tensors = random(WIDTH, 1, &Device::Cpu).unwrap();
        let extra = Tensor::zeros(3, DType::F32, &Device::Cpu).unwrap();
        for name in ["fc.weight", "AuxLogits.fc.bias", "Conv2d_1a_3x3.bn.num_batches_tracked", "other.weight"] {
            tensors.insert(name.to_owned(), extra.clone());
        }
        let build = |t: &BTreeMap<_, _>| InceptionV3::new(t, WIDTH, PoolPadding::Counted, &Device::Cpu);
        assert_eq!(build(&tensors).unwrap().unused_tensors(), ["other.weight"]);
        tensors.remove("Mixed_5b.branch1x1.bn.bias");
        tensors.insert("Mixed_6e.branch1x1.bn.weight".to_owned(), extra);
        let Err(error) = build(&tensors) else { panic!("built from broken tensors") };
        let message = error.to_string();
        assert!(message.contains("missing Mixed_5b.branch1x1.bn.bias"), "{message}");
        assert!(message.contains("Mixed_6e.branch1x1.bn.weight is [3], not [24]"), "{message}");
        assert!(InceptionV3::new(&tensors, f64::NAN, PoolPadding::Counted, &Device::Cpu).is_err());
    }

    #[test]
    fn half_precision_weights_are_read_as_floats() {
        let tensors = random(WIDTH, 1, &Device::Cpu).unwrap();
        let half = tensors.iter().map(|(n, t)| (n.clone(), t.to_dtype(DType::F16).unwrap())).collect();
        let back: BTreeMap<_, _> = BTreeMap::iter(&half)
            .map(|(n, t): (&String, &Tensor)| (n.clone(), t.to_dtype(DType::F32).unwrap()))
            .collect();
        let run = |t| {
            let network = InceptionV3::new(t, WIDTH, PoolPadding::Excluded, &Device::Cpu).unwrap();
            elements(&network.prefix(0, 18, &images(1, 75)).unwrap())
        };
        assert_eq!(run(&half), run(&back));
    }
}
