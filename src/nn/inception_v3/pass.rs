//! The trained part on the CPU: its forward and backward pass as one operation of candle.
//!
//! With separate operations, candle would clear and add a buffer for each gradient, and branches would be concatenated
//! and split by copies: a quarter of a step's time. Here branches write into their slice of a stage's output, each
//! kernel adds the gradient it computes directly to its destination, and buffers are reused ([`Arena`]).

use super::arena::{Arena, Arenas};
use super::convolve::{self, Map, convolve, formed};
use super::topology::{Branch, Stage, Step};
use super::unit::Unit;
use super::{EPS, InceptionV3};
use crate::nn::Mode;
use crate::nn::kernel::conv_cpu::{Epilogue, Write};
use crate::nn::kernel::norm_cpu::{self, Fitted, Moments};
use crate::nn::kernel::pool_cpu::{self, Divisor};
use crate::nn::kernel::winograd::Taps;
use crate::nn::kernel::{Arithmetic, ConvShape, Isa, Source, Target, Window, in_pool, panel, target, weight_gradient};
use crate::nn::tensor::{dims4, elements, with_elements};
use crate::spec::BatchNormMode;
use candle_core::backprop::GradStore;
use candle_core::{CpuStorage, CustomOp2, Device, Layout, Result, Shape, Tensor, Var, bail};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What a node computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Convolution, batch norm, ReLU; `pooled`: with an average pool before it, which is computed after the
    /// convolution: the result is the same (both are linear, one over pixels, one over channels), on fewer channels.
    Unit {
        index: usize,
        pooled: bool,
    },
    MaxPool,
    AveragePool,
}

/// One step of a stage.
#[derive(Clone, Copy, Debug)]
struct Node {
    kind: Kind,
    window: Window,
    /// The node whose output it reads; `None` for the stage's input.
    from: Option<usize>,
    cin: usize,
    cout: usize,
    /// Its first channel in the stage's output; `None` if it writes into its own buffer.
    place: Option<usize>,
}

/// A stage's steps, each after those it reads.
struct StagePlan {
    name: &'static str,
    cin: usize,
    cout: usize,
    nodes: Vec<Node>,
}

impl StagePlan {
    fn new(network: &InceptionV3, stage: &Stage) -> Self {
        let mut plan = Self { name: stage.name, cin: stage.cin, cout: stage.cout, nodes: Vec::new() };
        let mut place = 0;
        for branch in &stage.branches {
            plan.branch(network, branch, &mut place);
        }
        plan
    }

    fn branch(&mut self, network: &InceptionV3, branch: &Branch, place: &mut usize) {
        let unit = |index: usize, pooled| {
            let unit = &network.topology.units[index];
            (Kind::Unit { index, pooled }, unit.window, Some(unit.cout))
        };
        let pool = |step, kind| (kind, network.topology.window(step), None);
        let mut from = None;
        let mut channels = self.cin;
        let mut steps = branch.chain.as_slice();
        while let Some((&step, rest)) = steps.split_first() {
            steps = rest;
            let (kind, window, cout) = match (step, rest.first()) {
                (Step::AveragePool, Some(&Step::Unit(index))) if network.topology.units[index].window.taps() == 1 => {
                    steps = &rest[1..];
                    unit(index, true)
                }
                (Step::Unit(index), _) => unit(index, false),
                (Step::MaxPool, _) => pool(step, Kind::MaxPool),
                (Step::AveragePool, _) => pool(step, Kind::AveragePool),
            };
            let cout = cout.unwrap_or(channels);
            let last = steps.is_empty() && branch.fan.is_empty();
            let end = last.then_some(*place);
            self.nodes.push(Node { kind, window, from, cin: channels, cout, place: end });
            (from, channels) = (Some(self.nodes.len() - 1), cout);
            *place += if last { cout } else { 0 };
        }
        for &index in &branch.fan {
            let (kind, window, cout) = unit(index, false);
            let cout = cout.unwrap_or(channels);
            self.nodes.push(Node { kind, window, from, cin: channels, cout, place: Some(*place) });
            *place += cout;
        }
    }
}

/// What the backward pass needs of a node.
#[derive(Default)]
struct Trace {
    /// Its output, unless that is part of the stage's.
    own: Vec<f32>,
    /// Batch norm in training mode: its input and its statistics.
    normed: Option<(Vec<f32>, Moments)>,
}

/// What the backward pass needs of a stage.
struct StageTrace {
    /// Height and width of its input.
    size: [usize; 2],
    /// Its input; `None` for the first stage, whose input is the operation's operand.
    input: Option<Vec<f32>>,
    nodes: Vec<Trace>,
}

/// The trained stages as plain buffers and kernels.
pub(super) struct Pass {
    plans: Vec<StagePlan>,
    units: Arc<BTreeMap<usize, Unit>>,
    divisor: Divisor,
    arithmetic: Arithmetic,
    batch_norm: BatchNormMode,
    average_pool: Window,
    arenas: Arenas,
    /// Parameter gradients of the last backward pass, until they are collected.
    gradients: Mutex<Vec<(Var, Tensor)>>,
    /// A variable on which the output depends, so that candle always runs the backward pass.
    anchor: Var,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Batch norm in inference mode as scale and shift, padded to whole panels.
struct Affine {
    scale: Vec<f32>,
    bias: Vec<f32>,
    mean: Vec<f32>,
    rstd: Vec<f32>,
}

impl Pass {
    pub(super) fn new(
        network: &InceptionV3,
        stages: &[Stage],
        units: Arc<BTreeMap<usize, Unit>>,
        batch_norm: BatchNormMode,
    ) -> Result<Self> {
        Ok(Self {
            plans: stages.iter().map(|stage| StagePlan::new(network, stage)).collect(),
            units,
            divisor: network.divisor,
            arithmetic: Arithmetic::trained(network.isa, network.precision),
            batch_norm,
            average_pool: network.topology.window(Step::AveragePool),
            arenas: Arenas::default(),
            gradients: Mutex::default(),
            anchor: Var::zeros(1, candle_core::DType::F32, &Device::Cpu)?,
        })
    }

    /// The output for `x`; in training mode with a backward pass, whose parameter gradients [`Pass::collect`] hands
    /// out.
    pub(super) fn apply(self: &Arc<Self>, x: &Tensor, mode: Mode) -> Result<Tensor> {
        let op = Recorded { pass: Arc::clone(self), mode, traces: Mutex::default() };
        match mode {
            Mode::Train => {
                // Gradients of an earlier backward pass that were not collected.
                lock(&self.gradients).clear();
                x.apply_op2(&self.anchor, op)
            }
            Mode::Eval => x.apply_op2_no_bwd(self.anchor.as_tensor(), &op),
        }
    }

    /// Moves the parameter gradients of the last backward pass into `store`.
    pub(super) fn collect(&self, store: &mut GradStore) -> Result<()> {
        for (var, gradient) in lock(&self.gradients).drain(..) {
            let sum = match store.get(&var) {
                Some(other) => (other + gradient)?,
                None => gradient,
            };
            store.insert(&var, sum);
        }
        Ok(())
    }

    fn isa(&self) -> Isa {
        self.arithmetic.isa()
    }

    fn shape(&self, plan: &StagePlan, node: &Node, batch: usize, size: [usize; 2]) -> Result<ConvShape> {
        match ConvShape::new([batch, size[0], size[1], node.cin], node.cout, node.window) {
            Some(shape) => Ok(shape),
            None => bail!("{}: an image of {}x{} is too small", plan.name, size[0], size[1]),
        }
    }

    /// The shape of every node of a stage.
    fn shapes(&self, plan: &StagePlan, batch: usize, size: [usize; 2]) -> Result<Vec<ConvShape>> {
        let mut shapes: Vec<ConvShape> = Vec::with_capacity(plan.nodes.len());
        for node in &plan.nodes {
            let size = node.from.map_or(size, |from| shapes[from].output);
            shapes.push(self.shape(plan, node, batch, size)?);
        }
        Ok(shapes)
    }

    /// The shape of a pooled unit's average pool, which follows its convolution of this shape.
    fn pool_after(&self, shape: &ConvShape) -> ConvShape {
        ConvShape { cin: shape.cout, window: self.average_pool, ..*shape }
    }

    fn affine(&self, unit: &Unit) -> Result<Affine> {
        let read = |var: &Var| with_elements("batch norm", var, |values| Ok(values.to_vec()));
        let (gamma, beta, mean) = (read(&unit.gamma)?, read(&unit.beta)?, read(&unit.mean)?);
        let rstd = norm_cpu::rstd(&read(&unit.variance)?, EPS);
        let scale: Vec<f32> = gamma.iter().zip(&rstd).map(|(g, r)| g * r).collect();
        let bias: Vec<f32> = beta.iter().zip(&mean).zip(&scale).map(|((b, m), s)| b - m * s).collect();
        Ok(Affine { scale: panel::padded(&scale), bias: panel::padded(&bias), mean, rstd })
    }

    fn forward(&self, x: &[f32], dims: [usize; 4], mode: Mode) -> Result<(Vec<f32>, Shape, Vec<StageTrace>)> {
        let [batch, height, width, channels] = dims;
        if self.plans.first().is_some_and(|plan| plan.cin != channels) {
            bail!("inception-v3-pass: {channels} channels, expected {}", self.plans[0].cin);
        }
        self.arenas.with(|arena| {
            let mut traces: Vec<StageTrace> = Vec::new();
            let mut held: Option<Vec<f32>> = None;
            let (mut size, mut channels) = ([height, width], channels);
            for (i, plan) in self.plans.iter().enumerate() {
                let shapes = self.shapes(plan, batch, size)?;
                let after = shapes.last().map_or(size, |shape| shape.output);
                let length = batch * after[0] * after[1] * plan.cout;
                // The last output becomes a tensor and does not return to the arena.
                let mut out = if i + 1 < self.plans.len() { arena.take(length) } else { target::zeroed(length) };
                let nodes = self.stage(arena, plan, &shapes, held.as_deref().unwrap_or(x), mode, &mut out)?;
                let trace = StageTrace { size, input: held.replace(out), nodes };
                match mode {
                    Mode::Train => traces.push(trace),
                    Mode::Eval => {
                        let before = trace.give(arena);
                        before.into_iter().for_each(|old| arena.give(old));
                    }
                }
                (size, channels) = (after, plan.cout);
            }
            let out = held.unwrap_or_else(|| x.to_vec());
            Ok((out, (batch, size[0], size[1], channels).into(), traces))
        })
    }

    fn stage(
        &self,
        arena: &mut Arena,
        plan: &StagePlan,
        shapes: &[ConvShape],
        input: &[f32],
        mode: Mode,
        out: &mut [f32],
    ) -> Result<Vec<Trace>> {
        let mut traces: Vec<Trace> = Vec::with_capacity(plan.nodes.len());
        let input = Map::new(input, plan.cin);
        for (node, shape) in plan.nodes.iter().zip(shapes) {
            let mut own = match node.place {
                Some(_) => Vec::new(),
                None => arena.take(shape.output_pixels() * node.cout),
            };
            let target = match node.place {
                Some(place) => Target::columns(out, plan.cout, place, node.cout),
                None => Target::columns(&mut own, node.cout, 0, node.cout),
            };
            let inner = node.from.map(|from| Map::new(&traces[from].own, node.cin));
            let source = inner.as_ref().unwrap_or(&input);
            let normed = match node.kind {
                Kind::MaxPool => {
                    pool_cpu::max(self.isa(), shape, source.data, &target);
                    None
                }
                Kind::AveragePool => {
                    pool_cpu::average(self.isa(), shape, self.divisor, source.data, None, &target);
                    None
                }
                Kind::Unit { index, pooled } => {
                    self.unit(arena, &self.units[&index], pooled, shape, source, mode, &target)?
                }
            };
            if let Some(inner) = inner {
                inner.give(arena);
            }
            traces.push(Trace { own, normed });
        }
        input.give(arena);
        Ok(traces)
    }

    #[allow(clippy::too_many_arguments)]
    fn unit(
        &self,
        arena: &mut Arena,
        unit: &Unit,
        pooled: bool,
        shape: &ConvShape,
        x: &Map<'_>,
        mode: Mode,
        target: &Target<'_>,
    ) -> Result<Option<(Vec<f32>, Moments)>> {
        let length = shape.output_pixels() * shape.cout;
        let lanes = panel::panels(shape.cout) * crate::nn::kernel::LANES;
        let conv = |arena: &mut Arena, scale: &[f32], bias: &[f32], relu: bool, out: &Target<'_>| {
            let epilogue = Epilogue { scale, bias, relu };
            with_elements("conv", &unit.weight, |weights| {
                let formed = formed(self.arithmetic, arena, weights, shape, Taps::Forward);
                convolve(self.arithmetic, arena, shape, x, formed.as_deref().unwrap_or(weights), epilogue, out);
                if let Some(formed) = formed {
                    arena.give(formed);
                }
                Ok(())
            })
        };
        let pool = |sums: &[f32], bias: Option<&[f32]>, out: &Target<'_>| {
            pool_cpu::average(self.isa(), &self.pool_after(shape), self.divisor, sums, bias, out);
        };
        if (mode, self.batch_norm) != (Mode::Train, BatchNormMode::Train) {
            let affine = self.affine(unit)?;
            if pooled {
                let mut sums = arena.take(length);
                let columns = Target::columns(&mut sums, shape.cout, 0, shape.cout);
                conv(arena, &affine.scale, &vec![0.0; lanes], false, &columns)?;
                pool(&sums, Some(&affine.bias), target);
                arena.give(sums);
            } else {
                conv(arena, &affine.scale, &affine.bias, true, target)?;
            }
            return Ok(None);
        }
        let mut sums = arena.take(length);
        let columns = Target::columns(&mut sums, shape.cout, 0, shape.cout);
        conv(arena, &vec![1.0; lanes], &vec![0.0; lanes], false, &columns)?;
        if pooled {
            let mut means = arena.take(length);
            pool(&sums, None, &Target::columns(&mut means, shape.cout, 0, shape.cout));
            arena.give(std::mem::replace(&mut sums, means));
        }
        let moments = norm_cpu::moments(self.isa(), &sums, shape.cout);
        with_elements("batch norm", &unit.gamma, |gamma| {
            with_elements("batch norm", &unit.beta, |beta| {
                let scale: Vec<f32> = gamma
                    .iter()
                    .zip(norm_cpu::rstd(&moments.variance, EPS))
                    .map(|(gamma, rstd)| gamma * rstd)
                    .collect();
                norm_cpu::normalise_relu(self.isa(), &sums, &moments.mean, &scale, beta, target);
                Ok(())
            })
        })?;
        unit.blend(&moments, shape.output_pixels())?;
        Ok(Some((sums, moments)))
    }

    /// The gradient of the input, if wanted; those of the parameters are stored in `gradients`.
    fn backward(
        &self,
        x: &[f32],
        y: &[f32],
        grad: &[f32],
        batch: usize,
        mut traces: Vec<StageTrace>,
        wanted: bool,
    ) -> Result<Option<Vec<f32>>> {
        self.arenas.with(|arena| {
            let mut output: Option<Vec<f32>> = None;
            let mut gradient: Option<Vec<f32>> = None;
            while let Some(trace) = traces.pop() {
                let plan = &self.plans[traces.len()];
                let wanted = wanted || !traces.is_empty();
                let io = Ends {
                    input: trace.input.as_deref().unwrap_or(x),
                    output: output.as_deref().unwrap_or(y),
                    gradient: gradient.as_deref().unwrap_or(grad),
                };
                let before = self.stage_backward(arena, plan, &trace, io, batch, wanted)?;
                for old in [output.take(), std::mem::replace(&mut gradient, before)].into_iter().flatten() {
                    arena.give(old);
                }
                output = trace.give(arena);
            }
            if let Some(first) = output {
                arena.give(first);
            }
            Ok(gradient)
        })
    }

    fn stage_backward(
        &self,
        arena: &mut Arena,
        plan: &StagePlan,
        trace: &StageTrace,
        ends: Ends<'_>,
        batch: usize,
        wanted: bool,
    ) -> Result<Option<Vec<f32>>> {
        let shapes = self.shapes(plan, batch, trace.size)?;
        let mut inner: Vec<Option<Vec<f32>>> = plan.nodes.iter().map(|_| None).collect();
        let mut before: Option<Vec<f32>> = None;
        for (i, (node, shape)) in plan.nodes.iter().zip(&shapes).enumerate().rev() {
            let own = inner[i].take();
            let columns = |data, place| Source::columns(data, plan.cout, place, node.cout);
            let (y, grad) = match (node.place, &own) {
                (Some(place), _) => (columns(ends.output, place), columns(ends.gradient, place)),
                (None, Some(grad)) => (Source::whole(&trace.nodes[i].own, node.cout), Source::whole(grad, node.cout)),
                (None, None) => bail!("{}: a step that nothing reads", plan.name),
            };
            let x = node.from.map_or(ends.input, |from| &trace.nodes[from].own);
            let slot = node.from.map_or(&mut before, |from| &mut inner[from]);
            let mut sink = (node.from.is_some() || wanted).then(|| Sink::new(arena, slot, x.len()));
            match node.kind {
                Kind::MaxPool | Kind::AveragePool => {
                    if let Some(sink) = &mut sink {
                        let out = sink.cleared();
                        match node.kind {
                            Kind::MaxPool => pool_cpu::add_max_gradient(self.isa(), shape, x, y, grad, out),
                            _ => pool_cpu::add_average_gradient(self.isa(), shape, self.divisor, grad, out),
                        }
                    }
                }
                Kind::Unit { index, pooled } => {
                    let unit = &self.units[&index];
                    self.unit_backward(arena, unit, pooled, shape, &trace.nodes[i], x, y, grad, sink.as_mut())?;
                }
            }
            if let Some(sink) = sink {
                *slot = Some(sink.data);
            }
            if let Some(own) = own {
                arena.give(own);
            }
        }
        Ok(before)
    }

    #[allow(clippy::too_many_arguments)]
    fn unit_backward(
        &self,
        arena: &mut Arena,
        unit: &Unit,
        pooled: bool,
        shape: &ConvShape,
        trace: &Trace,
        x: &[f32],
        y: Source<'_>,
        grad: Source<'_>,
        sink: Option<&mut Sink>,
    ) -> Result<()> {
        let c = shape.cout;
        let mut sums = arena.take(shape.output_pixels() * c);
        let out = Target::columns(&mut sums, c, 0, c);
        // The gradients of gamma and beta; for frozen batch norm only that of beta.
        let (norm, affine) = match &trace.normed {
            Some((before, moments)) => with_elements("batch norm", &unit.gamma, |gamma| {
                with_elements("batch norm", &unit.beta, |beta| {
                    let rstd = norm_cpu::rstd(&moments.variance, EPS);
                    let fitted = Fitted { gamma, beta, mean: &moments.mean, rstd: &rstd };
                    Ok((norm_cpu::norm_gradients(self.isa(), before, grad, fitted, &out), None))
                })
            })?,
            None => {
                let beta = norm_cpu::relu_gradient_sums(self.isa(), y, grad, &out);
                ([Vec::new(), beta], Some(self.affine(unit)?))
            }
        };
        if pooled {
            let mut spread = arena.take(sums.len());
            spread.fill(0.0);
            let pool = self.pool_after(shape);
            pool_cpu::add_average_gradient(self.isa(), &pool, self.divisor, Source::whole(&sums, c), &mut spread);
            arena.give(std::mem::replace(&mut sums, spread));
        }
        let scale = affine.as_ref().map(|affine| &affine.scale[..c]);
        let taps = shape.window.taps();
        let (weight, scale_gradient) = with_elements("conv", &unit.weight, |weights| {
            if let Some(sink) = sink {
                let mut transposed = arena.take(panel::packed_shape(taps, c, shape.cin).iter().product());
                panel::transpose_into(weights, taps, shape.cin, c, scale, &mut transposed);
                let write = if sink.fresh { Write::Replace } else { Write::Add };
                let target = Target::columns(&mut sink.data, shape.cin, 0, shape.cin);
                convolve::input_gradient(self.arithmetic, arena, shape, &sums, &transposed, write, &target);
                arena.give(transposed);
            }
            let mut gradient = target::zeroed(weights.len());
            weight_gradient::weight_gradient(self.arithmetic, shape, x, &sums, &mut gradient);
            let of_scale = scale.map(|scale| weight_gradient::scaled(self.isa(), &mut gradient, weights, scale));
            Ok((gradient, of_scale))
        })?;
        arena.give(sums);
        let [mut gamma, beta] = norm;
        if let (Some(of_scale), Some(affine)) = (scale_gradient, affine) {
            // y = scale * sum + (beta - mean * scale), scale = gamma * rstd
            let both = of_scale.iter().zip(&beta).zip(affine.mean.iter().zip(&affine.rstd));
            gamma = both.map(|((scale, beta), (mean, rstd))| (scale - mean * beta) * rstd).collect();
        }
        let mut gradients = lock(&self.gradients);
        for (var, values) in [(&unit.weight, weight), (&unit.gamma, gamma), (&unit.beta, beta)] {
            gradients.push((var.clone(), Tensor::from_vec(values, var.dims(), &Device::Cpu)?));
        }
        Ok(())
    }
}

/// A stage's input, output, and the gradient of the output.
#[derive(Clone, Copy)]
struct Ends<'a> {
    input: &'a [f32],
    output: &'a [f32],
    gradient: &'a [f32],
}

/// Where the gradient of a feature map is summed.
struct Sink {
    data: Vec<f32>,
    /// Nothing has been written yet: the content is arbitrary.
    fresh: bool,
}

impl Sink {
    fn new(arena: &mut Arena, slot: &mut Option<Vec<f32>>, length: usize) -> Self {
        match slot.take() {
            Some(data) => Self { data, fresh: false },
            None => Self { data: arena.take(length), fresh: true },
        }
    }

    /// The gradient so far, zeros at first.
    fn cleared(&mut self) -> &mut [f32] {
        if self.fresh {
            self.data.fill(0.0);
        }
        &mut self.data
    }
}

impl StageTrace {
    /// Returns the buffers to `arena`, except the input, which is the output of the stage before.
    fn give(self, arena: &mut Arena) -> Option<Vec<f32>> {
        for node in self.nodes {
            let normed = node.normed.map(|(sums, _)| sums);
            for buffer in [Some(node.own), normed].into_iter().flatten().filter(|b| b.capacity() > 0) {
                arena.give(buffer);
            }
        }
        self.input
    }
}

/// One application of a [`Pass`].
struct Recorded {
    pass: Arc<Pass>,
    mode: Mode,
    traces: Mutex<Option<Vec<StageTrace>>>,
}

impl CustomOp2 for Recorded {
    fn name(&self) -> &'static str {
        "inception-v3-pass"
    }

    fn cpu_fwd(&self, s: &CpuStorage, l: &Layout, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        let (x, dims) = (elements(self.name(), s, l)?, dims4(self.name(), l.dims())?);
        let (out, shape, traces) = in_pool(|| self.pass.forward(x, dims, self.mode))?;
        *lock(&self.traces) = Some(traces);
        Ok((CpuStorage::F32(out), shape))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, y: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let Some(traces) = lock(&self.traces).take() else { bail!("{}: a way back goes once", self.name()) };
        let batch = x.dims()[0];
        let gradient = with_elements(self.name(), x, |input| {
            with_elements(self.name(), y, |output| {
                with_elements(self.name(), &grad.contiguous()?, |grad| {
                    in_pool(|| self.pass.backward(input, output, grad, batch, traces, x.track_op()))
                })
            })
        })?;
        Ok((gradient.map(|g| Tensor::from_vec(g, x.dims(), &Device::Cpu)).transpose()?, None))
    }
}

impl Drop for Recorded {
    /// A forward pass without a backward pass returns its buffers.
    fn drop(&mut self) {
        let traces = lock(&self.traces).take().unwrap_or_default();
        self.pass.arenas.with(|arena| {
            for trace in traces {
                if let Some(input) = trace.give(arena) {
                    arena.give(input);
                }
            }
        });
    }
}
