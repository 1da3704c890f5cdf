//! The gradient of a convolution's weights: sums of outer products over pixels.
//!
//! Output gradients are packed once, panel by panel. Inputs are packed where they are used, a tap's of a block of pixels at a
//! time, and multiplied with the gradients of all panels. A packed row belongs to a pixel, or, where operands are pairs of bf16,
//! to two. Only the kernel of floats for AVX-512 reads both where they lie: it passes over a block once for each 12 x 32
//! sums, so that packing costs more than it saves.

use super::arithmetic::{Arithmetic, Factors};
use super::geometry::{Class, ConvShape, Gather, Tap};
use super::micro;
use super::tile::{INPUT_STRIDE, Inputs, OUTER_ROWS, Outer};
use super::{Isa, LANES, TILE, Target, panel};
use rayon::prelude::*;
use std::borrow::Cow;
use std::ops::Range;

/// Pixels summed in registers at a time where operands are read in place, and rows of weights by [`scaled`].
const BLOCK: usize = 512;
/// Number of parts to aim for, with panels and taps. A constant, not the number of threads, because it fixes the order of
/// summation.
const TASKS: usize = 24;
/// With fewer tasks for each thread, they are made smaller; the order of summation does not depend on it. Large ones pass
/// over the gradients less often.
const TASKS_PER_THREAD: usize = 4;
/// Most sums of a task: a quarter of a megabyte, which with a block's operands stays in the second-level cache.
const SUMS: usize = 1 << 16;
/// Floats or words of a block's packed inputs.
const PACKED: usize = OUTER_ROWS * INPUT_STRIDE;
/// Each part of the pixels begins at a multiple of this, which is one of a block.
const PART: usize = 512;
const _: () = assert!(PART.is_multiple_of(2 * OUTER_ROWS) && PART.is_multiple_of(BLOCK));
/// Pixels of a part below which another buffer is not worth it.
const LEAST_PIXELS: usize = 4 * PART;

/// The gradient of the packed weights, `[panels, taps * cin, LANES]`, from the input and the gradient of the
/// (unscaled) output, added to `sums`. Both are f32; where `arithmetic` rounds operands, that is done here.
///
/// # Panics
/// If a length does not fit the shape.
pub fn weight_gradient(
    arithmetic: impl Into<Arithmetic>,
    shape: &ConvShape,
    x: &[f32],
    grad: &[f32],
    sums: &mut [f32],
) {
    let arithmetic = arithmetic.into();
    assert_eq!(sums.len(), panel::panels(shape.cout) * shape.window.taps() * shape.cin * LANES);
    assert_eq!(x.len(), shape.input_pixels() * shape.cin);
    assert_eq!(grad.len(), shape.output_pixels() * shape.cout);
    if arithmetic.factors() == Factors::Rounded {
        let (x, grad) = (arithmetic.mapped(x, shape.cin), arithmetic.mapped(grad, shape.cout));
        return add_products(arithmetic.isa.into(), shape, &x, &grad, sums);
    }
    add_products(arithmetic, shape, x, grad, sums);
}

/// Adds the products of all pixels, whose operands are f32 or become pairs.
fn add_products(arithmetic: Arithmetic, shape: &ConvShape, x: &[f32], grad: &[f32], sums: &mut [f32]) {
    let parts = parts(shape);
    let gather = shape.forward();
    let layout = Layout::of(arithmetic);
    let grads = match layout {
        Layout::Packed(1) if shape.cout == LANES => Cow::Borrowed(grad),
        Layout::Packed(per_row) => Cow::Owned(packed_gradients(arithmetic, per_row, shape, grad)),
        Layout::InPlace => Cow::Borrowed(grad),
    };
    let zeros = vec![0f32; shape.cin];
    let job =
        Job { arithmetic, layout, shape, gather: &gather, class: &gather.classes[0], x, grads: &grads, zeros: &zeros };
    let units = shape.window.taps() * shape.cin.div_ceil(TILE);
    let enough = (TASKS_PER_THREAD * rayon::current_num_threads()).div_ceil(parts.len());
    let most = (SUMS / (TILE * panel::panels(shape.cout) * LANES)).max(1);
    let per_task = (units / enough).clamp(1, most);
    let tasks = units.div_ceil(per_task);
    let run = |task: usize, part: usize, sums: &Target<'_>| {
        job.run(task * per_task..units.min((task + 1) * per_task), parts[part].clone(), sums);
    };
    if parts.len() == 1 {
        let target = Target::columns(sums, LANES, 0, LANES);
        return (0..tasks).into_par_iter().for_each(|task| run(task, 0, &target));
    }
    let mut buffers = vec![0f32; parts.len() * sums.len()];
    let targets: Vec<Target<'_>> =
        buffers.chunks_exact_mut(sums.len()).map(|buffer| Target::columns(buffer, LANES, 0, LANES)).collect();
    (0..parts.len() * tasks).into_par_iter().for_each(|i| run(i % tasks, i / tasks, &targets[i / tasks]));
    drop(targets);
    // In the order of the parts, whichever thread summed them.
    let each = sums.len().div_ceil(TASKS);
    let length = sums.len();
    sums.par_chunks_mut(each).enumerate().for_each(|(chunk, sums)| {
        for buffer in buffers.chunks_exact(length) {
            for (sum, part) in sums.iter_mut().zip(&buffer[chunk * each..]) {
                *sum += part;
            }
        }
    });
}

/// The parts into which the pixels are split: as many as fixed numbers say, so that the order of summation does not depend
/// on threads.
fn parts(shape: &ConvShape) -> Vec<Range<usize>> {
    let pixels = shape.output_pixels();
    let parts = TASKS.div_ceil(panel::panels(shape.cout) * shape.window.taps());
    let parts = parts.min(pixels.div_ceil(LEAST_PIXELS)).max(1);
    let each = pixels.div_ceil(parts).next_multiple_of(PART);
    (0..parts).map(|part| (part * each).min(pixels)..((part + 1) * each).min(pixels)).collect()
}

/// How operands are given to the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layout {
    /// Where they lie.
    InPlace,
    /// In rows of so many pixels.
    Packed(usize),
}

impl Layout {
    fn of(arithmetic: Arithmetic) -> Self {
        match (arithmetic.isa, arithmetic.factors()) {
            (_, Factors::Pairs) => Self::Packed(2),
            (Isa::Avx512, _) => Self::InPlace,
            _ => Self::Packed(1),
        }
    }

    fn pixels_per_row(self) -> usize {
        if let Self::Packed(pixels) = self { pixels } else { 1 }
    }

    /// Rows summed in registers at a time.
    fn block(self) -> usize {
        if self == Self::InPlace { BLOCK } else { OUTER_ROWS }
    }
}

/// `[panels, packed rows, LANES]`; an odd last pixel is paired with zeros, as are lanes beyond the channels.
fn packed_gradients(arithmetic: Arithmetic, per_row: usize, shape: &ConvShape, grad: &[f32]) -> Vec<f32> {
    let c = shape.cout;
    let rows = shape.output_pixels().div_ceil(per_row);
    let zeros = vec![0f32; c];
    let mut out = vec![0f32; panel::panels(c) * rows * LANES];
    out.par_chunks_mut((rows * LANES).max(1)).enumerate().for_each(|(panel, out)| {
        let first = panel * LANES;
        let width = LANES.min(c - first);
        let channels = first..first + width;
        for (pixels, out) in grad.chunks(per_row * c).zip(out.chunks_exact_mut(LANES)) {
            if per_row == 1 {
                out[..width].copy_from_slice(&pixels[channels.clone()]);
                continue;
            }
            let (even, odd) = pixels.split_at(c);
            let odd = if odd.is_empty() { &zeros } else { odd };
            arithmetic.interleave(&even[channels.clone()], &odd[channels.clone()], &mut out[..width]);
        }
    });
    out
}

struct Job<'a> {
    arithmetic: Arithmetic,
    layout: Layout,
    shape: &'a ConvShape,
    gather: &'a Gather,
    class: &'a Class,
    x: &'a [f32],
    /// As they are, or [`packed_gradients`].
    grads: &'a [f32],
    /// As long as a pixel: the source of taps in the padding.
    zeros: &'a [f32],
}

impl Job<'_> {
    /// Adds the products of `pixels`, which begin at a packed row, for some units: groups of [`TILE`] input channels of a tap,
    /// counted over the taps. `sums` has a row for each panel, tap and input channel.
    fn run(&self, units: Range<usize>, pixels: Range<usize>, sums: &Target<'_>) {
        let groups = self.shape.cin.div_ceil(TILE);
        let per_row = self.layout.pixels_per_row();
        let block = self.layout.block() * per_row;
        let mut sources: Vec<*const f32> = Vec::with_capacity(block);
        let mut packed =
            if self.layout != Layout::InPlace { vec![[0f32; PACKED]; groups.min(units.len())] } else { Vec::new() };
        for start in pixels.clone().step_by(block) {
            let end = pixels.end.min(start + block);
            let rows = (end - start).div_ceil(per_row);
            for tap in units.start / groups..units.end.div_ceil(groups) {
                let first = tap * groups;
                let groups = units.start.max(first) - first..units.end.min(first + groups) - first;
                sources.clear();
                self.locate(self.class.taps[tap], start..end, &mut sources);
                sources.resize(rows * per_row, self.zeros.as_ptr());
                for (group, packed) in groups.clone().zip(&mut packed) {
                    // SAFETY: sources lead to pixels of `cin` channels; `packed` has room for the rows of a block.
                    unsafe {
                        micro::gather(self.arithmetic, &sources, group * TILE, self.depth(group), packed.as_mut_ptr());
                    }
                }
                for panel in 0..panel::panels(self.shape.cout) {
                    for (i, group) in groups.clone().enumerate() {
                        let inputs = match packed.get(i) {
                            Some(packed) => Inputs::Packed(packed.as_ptr()),
                            None => Inputs::At(sources.as_ptr(), group * TILE),
                        };
                        self.add(tap, group, panel, start / per_row, rows, inputs, sums);
                    }
                }
            }
        }
    }

    /// Adds the products of some packed rows for a group and a panel.
    #[allow(clippy::too_many_arguments)]
    fn add(
        &self,
        tap: usize,
        group: usize,
        panel: usize,
        first: usize,
        rows: usize,
        inputs: Inputs,
        sums: &Target<'_>,
    ) {
        let row = (panel * self.class.taps.len() + tap) * self.shape.cin + group * TILE;
        let (grads, stride) = match self.layout {
            Layout::InPlace => (&self.grads[first * self.shape.cout + panel * LANES..], self.shape.cout),
            Layout::Packed(per_row) => {
                let rows_in_all = self.shape.output_pixels().div_ceil(per_row);
                (&self.grads[(panel * rows_in_all + first) * LANES..][..rows * LANES], LANES)
            }
        };
        let (depth, width) = (self.depth(group), LANES.min(self.shape.cout - panel * LANES));
        // SAFETY: `inputs` and `grads` have `rows` rows; `sums` has `depth` rows from `row` on, which are this task's alone.
        unsafe {
            let sums = sums.row(row);
            micro::outer(self.arithmetic, &Outer { inputs, grads: grads.as_ptr(), stride, rows, sums, depth, width });
        }
    }

    /// Input channels of a group.
    fn depth(&self, group: usize) -> usize {
        TILE.min(self.shape.cin - group * TILE)
    }

    /// Appends pointers to the sources of `pixels` at a tap; those in the padding lead to `zeros`.
    fn locate(&self, tap: Tap, pixels: Range<usize>, sources: &mut Vec<*const f32>) {
        let cin = self.shape.cin;
        self.class.each_run(pixels, |place, length| {
            let from = sources.len();
            sources.resize(from + length, self.zeros.as_ptr());
            let Some((pixel, inside)) = self.gather.source_run(self.class, place, length, tap) else { return };
            let mut at = self.x[pixel * cin..].as_ptr();
            for source in &mut sources[from + inside.start..from + inside.end] {
                *source = at;
                at = at.wrapping_add(self.class.source_step * cin);
            }
        });
    }
}

/// For a convolution whose output was multiplied by `scale`: turns the gradient of the unscaled weights into that of
/// the weights, and returns the gradient of the scale, `sum over rows of gradient * weight`.
///
/// # Panics
/// If lengths differ.
pub fn scaled(isa: Isa, sums: &mut [f32], packed: &[f32], scale: &[f32]) -> Vec<f32> {
    assert_eq!(sums.len(), packed.len());
    let panels = panel::panels(scale.len());
    let per_panel = (sums.len() / panels.max(1)).max(1);
    let lanes: Vec<[f64; LANES]> = sums
        .par_chunks_mut(per_panel)
        .zip(packed.par_chunks(per_panel))
        .enumerate()
        .map(|(p, (sums, weights))| {
            let mut total = [0f64; LANES];
            let mut factor = [0f32; LANES];
            for (factor, scale) in factor.iter_mut().zip(&scale[p * LANES..]) {
                *factor = *scale;
            }
            isa.vectorised((sums, weights, &factor, &mut total), scale_and_sum);
            total
        })
        .collect();
    lanes.iter().flatten().take(scale.len()).map(|&v| v as f32).collect()
}

/// The rows of one panel for [`scaled`]. Indexed loops over fixed lengths make no calls.
#[inline(always)]
#[allow(clippy::needless_range_loop)]
fn scale_and_sum((sums, weights, factor, total): (&mut [f32], &[f32], &[f32; LANES], &mut [f64; LANES])) {
    let (sums, weights) = (sums.as_chunks_mut::<LANES>().0, weights.as_chunks::<LANES>().0);
    let rows = sums.len().min(weights.len());
    for start in (0..rows).step_by(BLOCK) {
        let mut part = [0f32; LANES];
        for row in start..rows.min(start + BLOCK) {
            for i in 0..LANES {
                part[i] += sums[row][i] * weights[row][i];
                sums[row][i] *= factor[i];
            }
        }
        for i in 0..LANES {
            total[i] += f64::from(part[i]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::kernel::Window;
    use crate::nn::reference::{assert_close, bf16s, conv_weight_gradient, f32s, narrow, numbers};

    /// Odd numbers of pixels, in one part and in several, of channels and of lanes; strides; padding.
    const CASES: [([usize; 4], usize, Window); 7] = [
        ([1, 3, 3, 5], 2, Window::new([1, 3], 1, [0, 1])),
        ([2, 5, 7, 13], 33, Window::new([3, 3], 2, [1, 1])),
        ([3, 21, 19, 3], 40, Window::new([3, 3], 2, [0, 0])),
        ([1, 1, 1, 24], 64, Window::new([1, 1], 1, [0, 0])),
        ([2, 50, 43, 4], 17, Window::new([3, 3], 1, [1, 1])),
        ([1, 61, 47, 12], 8, Window::new([1, 1], 1, [0, 0])),
        ([1, 17, 17, 26], 70, Window::new([7, 1], 1, [3, 0])),
    ];

    #[test]
    fn gradients_are_those_of_the_definition_for_any_number_of_threads() {
        for (input, cout, window) in CASES {
            let shape = ConvShape::new(input, cout, window).unwrap();
            let (taps, cin) = (window.taps(), shape.cin);
            let (x, grad) = (numbers(1, shape.input_pixels() * cin), numbers(2, shape.output_pixels() * cout));
            let exact = conv_weight_gradient(&shape, &x, &grad);
            let rounded = conv_weight_gradient(&shape, &bf16s(&x), &bf16s(&grad));
            for arithmetic in narrow().chain(Isa::all_available().map(Arithmetic::from)) {
                let expected = if arithmetic.rounds() { &rounded } else { &exact };
                let [one, two] = [1, 2].map(|threads| {
                    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                    let mut sums = vec![1.0; panel::packed_shape(taps, cin, cout).iter().product()];
                    pool.install(|| weight_gradient(arithmetic, &shape, &f32s(&x), &f32s(&grad), &mut sums));
                    sums
                });
                let what = format!("{input:?} -> {cout}, {window:?}, {arithmetic:?}");
                assert!(one == two, "{what}");
                let lanes_beyond = one.chunks(LANES).enumerate().filter(|(row, _)| row / (taps * cin) == cout / LANES);
                assert!(lanes_beyond.flat_map(|(_, row)| &row[cout % LANES..]).all(|v| *v == 1.0), "{what}");
                let sums: Vec<f32> = panel::unpack(&one, taps, cin, cout).iter().map(|v| v - 1.0).collect();
                assert_close(&sums, expected, 3e-6, &what);
            }
        }
    }
}
