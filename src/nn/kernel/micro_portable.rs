//! Micro-kernels in plain Rust, for processors without kernels of their own.

use super::tile::{INPUT_STRIDE, Inputs, Outer, Tile};
use super::{BLOCK, LANES, TILE};

const ROWS: usize = 4;
const WIDTH: usize = 8;

/// `a * b + c`, fused only where the target surely has the instruction: elsewhere `mul_add` is a library call.
#[inline(always)]
fn multiply_add(a: f32, b: f32, c: f32) -> f32 {
    if cfg!(any(target_arch = "aarch64", target_feature = "fma")) { a.mul_add(b, c) } else { a * b + c }
}

fn add(totals: &mut [[f32; WIDTH]; ROWS], sums: &[[f32; WIDTH]; ROWS]) {
    for (total, sum) in totals.as_flattened_mut().iter_mut().zip(sums.as_flattened()) {
        *total += sum;
    }
}

/// See [`super::micro::tile`].
///
/// # Safety
/// As there.
pub(super) unsafe fn tile(t: &Tile<'_>) {
    for first in (0..t.pixels).step_by(ROWS) {
        for lane in (0..t.width).step_by(WIDTH) {
            let mut sums = [[0f32; WIDTH]; ROWS];
            let mut totals = sums;
            let mut summed = 0;
            // SAFETY: each row pointer has `depth` floats, the panel a row of LANES for each; `first + ROWS` stays
            // inside TILE and `lane + WIDTH` inside LANES; stores keep to `pixels` and `width`.
            unsafe {
                for (rows, &tap) in t.rows.iter().zip(t.taps) {
                    for c in 0..t.depth {
                        let w = &*t.panel.add((tap + c) * LANES + lane).cast::<[f32; WIDTH]>();
                        for (r, sums) in sums.iter_mut().enumerate() {
                            let x = *rows[first + r].add(c);
                            for (sum, w) in sums.iter_mut().zip(w) {
                                *sum = multiply_add(x, *w, *sum);
                            }
                        }
                        summed += 1;
                        if summed == BLOCK {
                            summed = 0;
                            add(&mut totals, &sums);
                            sums = Default::default();
                        }
                    }
                }
                add(&mut totals, &sums);
                for (r, sums) in totals.iter().enumerate().take(t.pixels - first) {
                    for (j, sum) in sums.iter().enumerate().take(t.width - lane) {
                        let y = multiply_add(*sum, *t.scale.add(lane + j), *t.bias.add(lane + j));
                        let y = if t.relu && y < 0.0 { 0.0 } else { y };
                        let out = t.out[first + r].add(lane + j);
                        *out = if t.add { *out + y } else { y };
                    }
                }
            }
        }
    }
}

/// See [`super::micro::gather`].
///
/// # Safety
/// As there.
pub(super) unsafe fn gather(sources: &[*const f32], first: usize, depth: usize, to: *mut f32) {
    for (i, source) in sources.iter().enumerate() {
        // SAFETY: the caller's promise. The most frequent length is a constant, so that vectors are copied.
        unsafe {
            let (from, to) = (source.add(first), to.add(i * INPUT_STRIDE));
            if depth == TILE {
                std::ptr::copy_nonoverlapping(from, to, TILE);
            } else {
                std::ptr::copy_nonoverlapping(from, to, depth);
            }
        }
    }
}

/// See [`super::micro::outer`].
///
/// # Safety
/// As there.
pub(super) unsafe fn outer(o: &Outer) {
    let Inputs::Packed(inputs) = o.inputs else { unreachable!("inputs are packed for this kernel") };
    for first in (0..o.depth).step_by(ROWS) {
        for lane in (0..o.width).step_by(WIDTH) {
            let (depth, width) = (ROWS.min(o.depth - first), WIDTH.min(o.width - lane));
            let mut sums = [[0f32; WIDTH]; ROWS];
            // SAFETY: each row has `depth` inputs and LANES gradients; `sums` has `depth` rows of LANES.
            unsafe {
                for row in 0..o.rows {
                    let grads = std::slice::from_raw_parts(o.grads.add(row * o.stride + lane), width);
                    for (r, sums) in sums.iter_mut().enumerate().take(depth) {
                        let x = *inputs.add(row * INPUT_STRIDE + first + r);
                        for (sum, g) in sums.iter_mut().zip(grads) {
                            *sum = multiply_add(x, *g, *sum);
                        }
                    }
                }
                for (r, sums) in sums.iter().enumerate().take(depth) {
                    for (j, sum) in sums.iter().enumerate().take(width) {
                        *o.sums.add((first + r) * LANES + lane + j) += sum;
                    }
                }
            }
        }
    }
}
