//! The gradient of a convolution's weights: sums of outer products over pixels.

use super::geometry::ConvShape;
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
/// (unscaled) output, added to `sums`.
///
/// # Panics
/// If a length does not fit the shape.
pub fn weight_gradient(isa: Isa, shape: &ConvShape, x: &[f32], grad: &[f32], sums: &mut [f32]) {
    assert_eq!(sums.len(), panel::panels(shape.cout) * shape.window.taps() * shape.cin * LANES);
    assert_eq!(x.len(), shape.input_pixels() * shape.cin);
    assert_eq!(grad.len(), shape.output_pixels() * shape.cout);
    let isa = isa.checked();
    let taps = shape.window.taps();
    let pixels = shape.output_pixels();
    let panels = panel::panels(shape.cout);
    let splits = TASKS.div_ceil(panels * taps).min(pixels.div_ceil(LEAST_PIXELS)).max(1);
    let per_split = pixels.div_ceil(splits).next_multiple_of(BLOCK);
    let zeros = vec![0f32; shape.cin];
    // Taps of one task, which share copied gradients. The order of summation does not depend on it.
    let group = if copies(isa) {
        let enough = TASKS_PER_THREAD * rayon::current_num_threads();
        (1..=taps).rev().find(|g| taps.is_multiple_of(*g) && panels * splits * taps / g >= enough).unwrap_or(1)
    } else {
        1
    };
    let (groups, per_group) = (taps / group, group * shape.cin * LANES);
    let tasks = panels * groups;
    let sum = |sums: &mut [f32], task: usize, split: usize| {
        let range = (split * per_split).min(pixels)..((split + 1) * per_split).min(pixels);
        let first = task % groups * group;
        add_pixels(isa, shape, x, grad, &zeros, task / groups, first..first + group, range, sums);
    };
    if splits == 1 {
        sums.par_chunks_mut(per_group).enumerate().for_each(|(task, sums)| sum(sums, task, 0));
        return;
    }
    let mut parts = vec![0f32; splits * sums.len()];
    parts.par_chunks_mut(per_group).enumerate().for_each(|(i, sums)| sum(sums, i % tasks, i / tasks));
    for part in parts.chunks_exact(sums.len()) {
        for (sum, part) in sums.iter_mut().zip(part) {
            *sum += part;
        }
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
            class.each_run(start..end, |place, length| {
                let from = rows.len();
                rows.resize(from + length, zeros.as_ptr());
                let Some((pixel, inside)) = gather.source_run(class, place, length, tap) else { return };
                let mut at = x[pixel * shape.cin..].as_ptr();
                for row in &mut rows[from + inside.start..from + inside.end] {
                    *row = at;
                    at = at.wrapping_add(class.source_step * shape.cin);
                }
            });
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
