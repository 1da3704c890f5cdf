//! The frozen part: stages on plain buffers, reused from call to call. Each branch writes into its slice of the
//! concatenated output.

use super::InceptionV3;
use super::arena::Arena;
use super::convolve::{Map, convolve, formed};
use super::topology::{Stage, Step};
use crate::nn::kernel::conv_cpu::Epilogue;
use crate::nn::kernel::winograd::Taps;
use crate::nn::kernel::{Arithmetic, ConvShape, Target, in_pool, pool_cpu, target};
use crate::nn::operation::{Host, Operation};
use crate::nn::tensor::dims4;
use candle_core::{Result, Shape, bail};
use rayon::prelude::*;

/// Feature maps larger than this (pixels of one image) are computed image by image, so that they stay in the cache;
/// smaller ones over the whole batch, so that tiles fill and weights are read once.
const LARGE: usize = 600;

/// Stages `from..to` without gradients.
pub(super) struct Prefix<'a> {
    pub network: &'a InceptionV3,
    pub from: usize,
    pub to: usize,
}

impl Operation<1> for Prefix<'_> {
    fn name(&self) -> &'static str {
        "inception-v3-prefix"
    }

    fn on_host(&self, [x]: [Host<'_>; 1]) -> Result<(Vec<f32>, Shape)> {
        in_pool(|| self.compute(x))
    }
}

impl Prefix<'_> {
    fn compute(&self, x: Host<'_>) -> Result<(Vec<f32>, Shape)> {
        let [batch, height, width, channels] = dims4(self.name(), x.dims)?;
        let x = x.values;
        let stages = &self.network.topology.stages[self.from..self.to];
        if channels != stages[0].cin {
            bail!("{}: {channels} channels before {}, expected {}", self.name(), stages[0].name, stages[0].cin);
        }
        let mut sizes = vec![[height, width]];
        for stage in stages {
            match self.network.topology.size_after(stage, sizes[sizes.len() - 1]) {
                Some(size) => sizes.push(size),
                None => bail!("{}: an image of {height}x{width} is too small for {}", self.name(), stage.name),
            }
        }
        let (size, channels) = (sizes[stages.len()], stages[stages.len() - 1].cout);
        // The stages before this one are computed image by image.
        let split = stages.len().min(sizes.iter().take_while(|s| s[0] * s[1] > LARGE).count());
        let split = if batch > 1 { split } else { 0 };
        let run = |stages: &[Stage], x: &[f32], batch: usize, size: [usize; 2], out: &mut [f32]| {
            self.network.arenas.with(|arena| self.network.run(arena, stages, x, batch, size, out));
        };
        let by_image = |out: &mut [f32]| {
            let length = out.len() / batch;
            out.par_chunks_mut(length).zip(x.par_chunks(x.len() / batch)).for_each(|(out, x)| {
                run(&stages[..split], x, 1, sizes[0], out);
            });
        };
        let mut out = target::zeroed(batch * size[0] * size[1] * channels);
        if split == 0 {
            run(stages, x, batch, sizes[0], &mut out);
        } else if split == stages.len() {
            by_image(&mut out);
        } else {
            let length = batch * sizes[split][0] * sizes[split][1] * stages[split].cin;
            let mut middle = self.network.arenas.with(|arena| arena.take(length));
            by_image(&mut middle);
            run(&stages[split..], &middle, batch, sizes[split], &mut out);
            self.network.arenas.with(|arena| arena.give(middle));
        }
        Ok((out, (batch, size[0], size[1], channels).into()))
    }
}

impl InceptionV3 {
    /// Runs stages one after another; sizes have been checked.
    fn run(&self, arena: &mut Arena, stages: &[Stage], x: &[f32], batch: usize, mut size: [usize; 2], out: &mut [f32]) {
        let Some((last, before)) = stages.split_last() else { return };
        let mut held: Option<Vec<f32>> = None;
        for stage in before {
            let after = self.topology.size_after(stage, size).unwrap_or(size);
            let mut next = arena.take(batch * after[0] * after[1] * stage.cout);
            self.stage(arena, stage, held.as_deref().unwrap_or(x), batch, size, &mut next);
            if let Some(old) = held.replace(next) {
                arena.give(old);
            }
            size = after;
        }
        self.stage(arena, last, held.as_deref().unwrap_or(x), batch, size, out);
        if let Some(old) = held {
            arena.give(old);
        }
    }

    fn stage(&self, arena: &mut Arena, stage: &Stage, x: &[f32], batch: usize, size: [usize; 2], out: &mut [f32]) {
        let input = Map::new(x, stage.cin);
        let mut offset = 0;
        for branch in &stage.branches {
            let ends: Vec<Vec<Step>> = match branch.fan.as_slice() {
                [] => vec![],
                fan => fan.iter().map(|&unit| vec![Step::Unit(unit)]).collect(),
            };
            // The last step of a branch writes into the output; an average pool and its 1x1 convolution count as one.
            let tail = match branch.chain.as_slice() {
                [.., Step::AveragePool, Step::Unit(_)] => 2,
                _ if ends.is_empty() => 1,
                _ => 0,
            };
            let (chain, tail) = branch.chain.split_at(branch.chain.len() - tail);
            let mut held: Option<Vec<f32>> = None;
            let mut dims = [batch, size[0], size[1], stage.cin];
            for &step in chain {
                let shape = self.shape(step, dims);
                let mut next = arena.take(shape.output_pixels() * shape.cout);
                let own = held.as_deref().map(|data| Map::new(data, dims[3]));
                let target = Target::columns(&mut next, shape.cout, 0, shape.cout);
                self.step(arena, step, own.as_ref().unwrap_or(&input), &shape, &target);
                if let Some(own) = own {
                    own.give(arena);
                }
                dims = [batch, shape.output[0], shape.output[1], shape.cout];
                if let Some(old) = held.replace(next) {
                    arena.give(old);
                }
            }
            let own = held.as_deref().map(|data| Map::new(data, dims[3]));
            let map = own.as_ref().unwrap_or(&input);
            let ends = if ends.is_empty() { vec![tail.to_vec()] } else { ends };
            for end in ends {
                let cout = match end.last() {
                    Some(&Step::Unit(unit)) => self.topology.units[unit].cout,
                    _ => dims[3],
                };
                let target = Target::columns(out, stage.cout, offset, cout);
                match *end.as_slice() {
                    [Step::AveragePool, Step::Unit(unit)] => self.pooled_unit(arena, unit, map, dims, &target),
                    [step] => self.step(arena, step, map, &self.shape(step, dims), &target),
                    _ => unreachable!("a branch ends with one step, or a pool and a unit"),
                }
                offset += cout;
            }
            if let Some(own) = own {
                own.give(arena);
            }
            if let Some(old) = held {
                arena.give(old);
            }
        }
        input.give(arena);
    }

    /// The shape of a step for an input of `[batch, height, width, channels]`.
    fn shape(&self, step: Step, input: [usize; 4]) -> ConvShape {
        let cout = match step {
            Step::Unit(unit) => self.topology.units[unit].cout,
            _ => input[3],
        };
        ConvShape::new(input, cout, self.topology.window(step)).expect("the sizes of all stages were checked")
    }

    fn step(&self, arena: &mut Arena, step: Step, map: &Map<'_>, shape: &ConvShape, target: &Target<'_>) {
        match step {
            Step::MaxPool => pool_cpu::max(self.isa, shape, map.data, target),
            Step::AveragePool => pool_cpu::average(self.isa, shape, self.divisor, map.data, None, target),
            Step::Unit(unit) => {
                let w = &self.weights[unit];
                let epilogue = Epilogue { scale: &w.scale, bias: &w.bias, relu: true };
                self.convolve(arena, unit, map, shape, epilogue, target);
            }
        }
    }

    fn convolve(
        &self,
        arena: &mut Arena,
        unit: usize,
        map: &Map<'_>,
        shape: &ConvShape,
        epilogue: Epilogue<'_>,
        target: &Target<'_>,
    ) {
        let (arithmetic, w) = (Arithmetic::frozen(self.isa, self.precision), &self.weights[unit]);
        let kept = w.formed(shape);
        if kept.get().is_none() {
            // Not within the cell: this is computed in parallel, and a thread that waits for the others' part may take up
            // another image, which needs the same weights. Two threads may form them, with the same result. They are kept
            // with the network, so do not come from the arena.
            let _ = kept.set(formed(arithmetic, &mut Arena::default(), &w.packed, shape, Taps::Forward));
        }
        let weights = kept.get().and_then(Option::as_deref).unwrap_or(&w.packed);
        convolve(arithmetic, arena, shape, map, weights, epilogue, target);
    }

    /// An average pool followed by a 1x1 convolution, computed in the opposite order: the result is the same (both are
    /// linear, one over pixels, one over channels), and fewer channels are pooled.
    fn pooled_unit(&self, arena: &mut Arena, unit: usize, map: &Map<'_>, dims: [usize; 4], target: &Target<'_>) {
        let shape = self.shape(Step::Unit(unit), dims);
        let w = &self.weights[unit];
        let mut sums = arena.take(shape.output_pixels() * shape.cout);
        let zeros = vec![0.0; w.bias.len()];
        let epilogue = Epilogue { scale: &w.scale, bias: &zeros, relu: false };
        let columns = Target::columns(&mut sums, shape.cout, 0, shape.cout);
        self.convolve(arena, unit, map, &shape, epilogue, &columns);
        let pool = self.shape(Step::AveragePool, [dims[0], shape.output[0], shape.output[1], shape.cout]);
        pool_cpu::average(self.isa, &pool, self.divisor, &sums, Some(&w.bias), target);
        arena.give(sums);
    }
}
