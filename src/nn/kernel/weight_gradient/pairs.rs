//! The same with operands rounded to bf16, in pairs of pixels.
//!
//! Output gradients are paired once, panel by panel. Inputs are paired where they are used, a few channels of a block of
//! pixels at a time, and multiplied with the gradients of all panels.

use super::super::geometry::{Class, ConvShape, Gather};
use super::super::micro;
use super::super::tile::{OuterPairs, PAIR_STRIDE};
use super::super::{Arithmetic, LANES, TILE, Target, panel};
use super::{add_parts, locate, splits};
use rayon::prelude::*;
use std::ops::Range;

/// Pixels of a block: their inputs (8 KiB) and the gradients of a panel (16 KiB) stay in the first-level cache.
const BLOCK: usize = 256;

pub(super) fn weight_gradient(arithmetic: Arithmetic, shape: &ConvShape, x: &[f32], grad: &[f32], sums: &mut [f32]) {
    let splits = splits(shape);
    let gather = shape.forward();
    let grads = paired(arithmetic, shape, grad);
    let zeros = vec![0f32; shape.cin];
    let job = Job { shape, gather: &gather, class: &gather.classes[0], x, grads: &grads, zeros: &zeros };
    let groups = shape.cin.div_ceil(TILE);
    let tasks = shape.window.taps() * groups;
    if let [all] = splits.as_slice() {
        let target = Target::columns(sums, LANES, 0, LANES);
        return (0..tasks).into_par_iter().for_each(|i| job.run(i / groups, i % groups, all.clone(), &target));
    }
    let mut parts = vec![0f32; splits.len() * sums.len()];
    let targets: Vec<Target<'_>> =
        parts.chunks_exact_mut(sums.len()).map(|part| Target::columns(part, LANES, 0, LANES)).collect();
    (0..splits.len() * tasks).into_par_iter().for_each(|i| {
        let (part, task) = (i / tasks, i % tasks);
        job.run(task / groups, task % groups, splits[part].clone(), &targets[part]);
    });
    drop(targets);
    add_parts(&parts, sums);
}

/// `[panels, pairs of pixels, LANES]` words; an odd last pixel is paired with zeros, as are lanes beyond the channels.
fn paired(arithmetic: Arithmetic, shape: &ConvShape, grad: &[f32]) -> Vec<f32> {
    let (pixels, c) = (shape.output_pixels(), shape.cout);
    let pairs = pixels.div_ceil(2);
    let zeros = vec![0f32; c];
    let mut out = vec![0f32; panel::panels(c) * pairs * LANES];
    out.par_chunks_mut((pairs * LANES).max(1)).enumerate().for_each(|(panel, out)| {
        let first = panel * LANES;
        let width = LANES.min(c - first);
        for (rows, out) in grad.chunks(2 * c).zip(out.chunks_exact_mut(LANES)) {
            let (even, odd) = rows.split_at(c);
            let odd = if odd.is_empty() { &zeros } else { odd };
            arithmetic.interleave(&even[first..][..width], &odd[first..][..width], &mut out[..width]);
        }
    });
    out
}

struct Job<'a> {
    shape: &'a ConvShape,
    gather: &'a Gather,
    class: &'a Class,
    x: &'a [f32],
    /// See [`paired`].
    grads: &'a [f32],
    /// As long as a pixel: the source of taps in the padding.
    zeros: &'a [f32],
}

impl Job<'_> {
    /// Adds the products of `pixels`, which begin at an even one, for some input channels of a tap. `sums` has a row for
    /// each panel, tap and input channel.
    fn run(&self, tap: usize, group: usize, pixels: Range<usize>, sums: &Target<'_>) {
        let cin = self.shape.cin;
        let first = group * TILE;
        let depth = TILE.min(cin - first);
        let pairs_in_all = self.shape.output_pixels().div_ceil(2);
        let mut rows: Vec<*const f32> = Vec::with_capacity(BLOCK);
        let mut inputs = [0f32; BLOCK / 2 * PAIR_STRIDE];
        for start in pixels.clone().step_by(BLOCK) {
            let end = pixels.end.min(start + BLOCK);
            let pairs = (end - start).div_ceil(2);
            rows.clear();
            let of_tap = self.class.taps[tap];
            locate((self.gather, self.class), of_tap, start..end, (self.x, cin), self.zeros, &mut rows);
            rows.resize(2 * pairs, self.zeros.as_ptr());
            // SAFETY: rows lead to pixels of `cin` channels; `inputs` has room for the pairs of a block.
            unsafe { micro::gather_pairs(rows.as_chunks().0, first, depth, inputs.as_mut_ptr()) };
            for panel in 0..panel::panels(self.shape.cout) {
                let row = (panel * self.class.taps.len() + tap) * cin + first;
                let grads = &self.grads[(panel * pairs_in_all + start / 2) * LANES..][..pairs * LANES];
                // SAFETY: `inputs` and `grads` have `pairs` rows; `sums` has `depth` rows from `row` on, which are this
                // task's alone.
                unsafe {
                    micro::outer_pairs(&OuterPairs {
                        inputs: inputs.as_ptr(),
                        grads: grads.as_ptr(),
                        pairs,
                        sums: sums.row(row),
                        depth,
                        width: LANES.min(self.shape.cout - panel * LANES),
                    });
                }
            }
        }
    }
}
