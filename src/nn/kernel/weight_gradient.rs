//! The gradient of a convolution's weights: sums of outer products over pixels.

mod pairs;

use super::arithmetic::{Arithmetic, Factors};
use super::geometry::{Class, ConvShape, Gather, Tap};
use super::micro;
use super::tile::{OUTER_PIXELS, Outer};
use super::{Isa, LANES, TILE, panel};
use rayon::prelude::*;
use std::ops::Range;

/// Pixels summed in registers at a time where gradients are not copied; they (64 KiB a panel) stay in the second-level
/// cache.
const BLOCK: usize = 512;
/// With copied gradients, tasks for each thread below which taps are distributed too.
const TASKS_PER_THREAD: usize = 4;
/// Number of tasks to aim for. A constant, not the number of threads, because it fixes the order of summation.
const TASKS: usize = 24;
/// Pixels of a split below which another buffer is not worth it.
const LEAST_PIXELS: usize = 4 * BLOCK;

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
    match arithmetic.factors() {
        Factors::F32 => of_floats(arithmetic.isa, shape, x, grad, sums),
        Factors::Rounded => {
            let (x, grad) = (arithmetic.mapped(x, shape.cin), arithmetic.mapped(grad, shape.cout));
            of_floats(arithmetic.isa, shape, &x, &grad, sums);
        }
        Factors::Pairs => pairs::weight_gradient(arithmetic, shape, x, grad, sums),
    }
}

/// The parts into which the pixels are split: as many as fixed numbers say, so that the order of summation does not depend
/// on threads. Each begins at a multiple of [`BLOCK`].
fn splits(shape: &ConvShape) -> Vec<Range<usize>> {
    let pixels = shape.output_pixels();
    let parts = TASKS.div_ceil(panel::panels(shape.cout) * shape.window.taps());
    let parts = parts.min(pixels.div_ceil(LEAST_PIXELS)).max(1);
    let each = pixels.div_ceil(parts).next_multiple_of(BLOCK);
    (0..parts).map(|part| (part * each).min(pixels)..((part + 1) * each).min(pixels)).collect()
}

/// Adds the sums of each part, one buffer after another, to `sums`.
fn add_parts(parts: &[f32], sums: &mut [f32]) {
    for part in parts.chunks_exact(sums.len()) {
        for (sum, part) in sums.iter_mut().zip(part) {
            *sum += part;
        }
    }
}

/// Appends pointers to the sources of `pixels` at a tap; those in the padding lead to `zeros`.
fn locate(
    (gather, class): (&Gather, &Class),
    tap: Tap,
    pixels: Range<usize>,
    (x, cin): (&[f32], usize),
    zeros: &[f32],
    rows: &mut Vec<*const f32>,
) {
    class.each_run(pixels, |place, length| {
        let from = rows.len();
        rows.resize(from + length, zeros.as_ptr());
        let Some((pixel, inside)) = gather.source_run(class, place, length, tap) else { return };
        let mut at = x[pixel * cin..].as_ptr();
        for row in &mut rows[from + inside.start..from + inside.end] {
            *row = at;
            at = at.wrapping_add(class.source_step * cin);
        }
    });
}

fn of_floats(isa: Isa, shape: &ConvShape, x: &[f32], grad: &[f32], sums: &mut [f32]) {
    let taps = shape.window.taps();
    let panels = panel::panels(shape.cout);
    let splits = splits(shape);
    let zeros = vec![0f32; shape.cin];
    // Taps of one task, which share copied gradients. The order of summation does not depend on it.
    let group = if copies(isa) {
        let enough = TASKS_PER_THREAD * rayon::current_num_threads();
        (1..=taps).rev().find(|g| taps.is_multiple_of(*g) && panels * splits.len() * taps / g >= enough).unwrap_or(1)
    } else {
        1
    };
    let (groups, per_group) = (taps / group, group * shape.cin * LANES);
    let tasks = panels * groups;
    let sum = |sums: &mut [f32], task: usize, split: usize| {
        let first = task % groups * group;
        add_pixels(isa, shape, x, grad, &zeros, task / groups, first..first + group, splits[split].clone(), sums);
    };
    if splits.len() == 1 {
        sums.par_chunks_mut(per_group).enumerate().for_each(|(task, sums)| sum(sums, task, 0));
        return;
    }
    let mut parts = vec![0f32; splits.len() * sums.len()];
    parts.par_chunks_mut(per_group).enumerate().for_each(|(i, sums)| sum(sums, i % tasks, i / tasks));
    add_parts(&parts, sums);
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

/// Whether a panel's gradients are copied first, row after row, as the AVX2 kernel does with its inputs: it passes over
/// both four times a block, and where they lie far apart they evict each other from the first-level cache.
fn copies(isa: Isa) -> bool {
    isa == Isa::Avx2
}

/// Adds a range of pixels to some taps of one panel.
#[allow(clippy::too_many_arguments)]
fn add_pixels(
    isa: Isa,
    shape: &ConvShape,
    x: &[f32],
    grad: &[f32],
    zeros: &[f32],
    panel: usize,
    taps: Range<usize>,
    pixels: Range<usize>,
    sums: &mut [f32],
) {
    let gather = shape.forward();
    let class = &gather.classes[0];
    let block = if copies(isa) { OUTER_PIXELS } else { BLOCK };
    let width = LANES.min(shape.cout - panel * LANES);
    let mut copied = if copies(isa) { vec![[0f32; LANES]; block] } else { Vec::new() };
    let mut rows: Vec<*const f32> = Vec::with_capacity(block);
    let mut shifted: Vec<*const f32> = Vec::with_capacity(block);
    for start in pixels.clone().step_by(block) {
        let end = pixels.end.min(start + block);
        let (grads, stride) = if copies(isa) {
            let pixels = grad[start * shape.cout..end * shape.cout].chunks_exact(shape.cout);
            for (to, from) in copied.iter_mut().zip(pixels) {
                to[..width].copy_from_slice(&from[panel * LANES..][..width]);
            }
            (copied.as_ptr().cast(), LANES)
        } else {
            (grad[start * shape.cout + panel * LANES..].as_ptr(), shape.cout)
        };
        for (&tap, sums) in class.taps[taps.clone()].iter().zip(sums.chunks_exact_mut(shape.cin * LANES)) {
            rows.clear();
            locate((&gather, class), tap, start..end, (x, shape.cin), zeros, &mut rows);
            for first in (0..shape.cin).step_by(TILE) {
                shifted.clear();
                shifted.extend(rows.iter().map(|r| r.wrapping_add(first)));
                // SAFETY: rows have `cin` floats, `depth` of them from `first` on; gradients of pixels `start..end`
                // have `width` channels from the panel's first on, copied ones LANES, with zeros beyond; `sums` has `cin`
                // rows and is this task's alone.
                unsafe {
                    micro::outer(
                        isa,
                        &Outer {
                            rows: &shifted,
                            grads,
                            stride,
                            sums: sums[first * LANES..].as_mut_ptr(),
                            depth: TILE.min(shape.cin - first),
                            width,
                        },
                    );
                }
            }
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
    fn operands_in_bf16_are_multiplied_exactly_for_any_number_of_threads() {
        for (input, cout, window) in CASES {
            let shape = ConvShape::new(input, cout, window).unwrap();
            let (taps, cin) = (window.taps(), shape.cin);
            let (x, grad) = (numbers(1, shape.input_pixels() * cin), numbers(2, shape.output_pixels() * cout));
            let expected = conv_weight_gradient(&shape, &bf16s(&x), &bf16s(&grad));
            for arithmetic in narrow() {
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
                assert_close(&sums, &expected, 3e-6, &what);
            }
        }
    }
}
