//! Micro-kernels for AVX2 with FMA: 6 x 16 sums in 12 registers; a tile is up to four of them.

// Register blocks are indexed: iterators over them hide which register is meant.
#![allow(clippy::needless_range_loop)]

use super::tile::{INPUT_STRIDE, Inputs, Outer, Tile};
use super::{BLOCK, LANES};
use std::arch::x86_64::*;

const ROWS: usize = 6;
const WIDTH: usize = 16;

/// See [`super::micro::tile`].
///
/// # Safety
/// As there; AVX2 and FMA are needed.
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn tile(t: &Tile<'_>) {
    for first in (0..t.pixels).step_by(ROWS) {
        for lane in (0..t.width).step_by(WIDTH) {
            // SAFETY: the caller's promise; `first + ROWS` stays inside TILE.
            unsafe { quarter(t, first, lane) }
        }
    }
}

#[target_feature(enable = "avx2,fma")]
unsafe fn quarter(t: &Tile<'_>, first: usize, lane: usize) {
    let mut sums = [[_mm256_setzero_ps(); 2]; ROWS];
    let mut totals = sums;
    let mut summed = 0;
    // SAFETY: each row pointer has `depth` floats, the panel a row of LANES for each; `out` and the epilogue's
    // vectors are valid for `width` and LANES floats; `out` is written by whole vectors only where they lie inside
    // `width`, else accessed under a mask.
    unsafe {
        for (rows, &tap) in t.rows.iter().zip(t.taps) {
            let mut from = [rows[0]; ROWS];
            from.copy_from_slice(&rows[first..first + ROWS]);
            let mut weights = t.panel.add(tap * LANES + lane);
            let mut done = 0;
            while done < t.depth {
                let last = t.depth.min(done + BLOCK - summed);
                for c in done..last {
                    let w = [_mm256_loadu_ps(weights), _mm256_loadu_ps(weights.add(8))];
                    for r in 0..ROWS {
                        let x = _mm256_set1_ps(*from[r].add(c));
                        sums[r][0] = _mm256_fmadd_ps(x, w[0], sums[r][0]);
                        sums[r][1] = _mm256_fmadd_ps(x, w[1], sums[r][1]);
                    }
                    weights = weights.add(LANES);
                }
                summed += last - done;
                done = last;
                if summed == BLOCK {
                    summed = 0;
                    for r in 0..ROWS {
                        for v in 0..2 {
                            totals[r][v] = _mm256_add_ps(totals[r][v], sums[r][v]);
                            sums[r][v] = _mm256_setzero_ps();
                        }
                    }
                }
            }
        }
        // Loops of fixed length access `sums`: an index known only at run time would force it into memory.
        for r in 0..ROWS {
            for v in 0..2 {
                totals[r][v] = _mm256_add_ps(totals[r][v], sums[r][v]);
            }
        }
        let used = ROWS.min(t.pixels - first);
        let floor = _mm256_set1_ps(if t.relu { 0.0 } else { f32::NEG_INFINITY });
        for v in 0..2 {
            let at = lane + 8 * v;
            let scale = _mm256_loadu_ps(t.scale.add(at));
            let bias = _mm256_loadu_ps(t.bias.add(at));
            let mask = mask(t.width.saturating_sub(at));
            for r in 0..used {
                // The second operand wins when one is NaN: a NaN sum stays NaN.
                let mut y = _mm256_max_ps(floor, _mm256_fmadd_ps(totals[r][v], scale, bias));
                let out = t.out[first + r].wrapping_add(at);
                if t.add {
                    y = _mm256_add_ps(_mm256_maskload_ps(out, mask), y);
                }
                // Without a mask where it can be: AMD's processors take a dozen cycles for a masked store.
                if t.width >= at + 8 {
                    _mm256_storeu_ps(out, y);
                } else {
                    _mm256_maskstore_ps(out, mask, y);
                }
            }
        }
    }
}

/// All bits set in the first `n` of 8 lanes.
#[target_feature(enable = "avx2")]
fn mask(n: usize) -> __m256i {
    let n = _mm256_set1_epi32(n.min(8) as i32);
    _mm256_cmpgt_epi32(n, _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7))
}

/// See [`super::micro::outer`].
///
/// # Safety
/// As there; AVX2 and FMA are needed.
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn outer(o: &Outer) {
    for first in (0..o.depth).step_by(ROWS) {
        for lane in (0..o.width).step_by(WIDTH) {
            // SAFETY: the caller's promise; the row count is what remains of `depth`.
            unsafe {
                match o.depth - first {
                    1 => block::<1>(o, first, lane),
                    2 => block::<2>(o, first, lane),
                    3 => block::<3>(o, first, lane),
                    4 => block::<4>(o, first, lane),
                    5 => block::<5>(o, first, lane),
                    _ => block::<ROWS>(o, first, lane),
                }
            }
        }
    }
}

#[target_feature(enable = "avx2,fma")]
unsafe fn block<const R: usize>(o: &Outer, first: usize, lane: usize) {
    let mut sums = [[_mm256_setzero_ps(); 2]; R];
    // SAFETY: each row has `depth >= first + R` inputs and LANES gradients; `sums` has `depth` rows of LANES.
    unsafe {
        let Inputs::Packed(inputs) = o.inputs else { unreachable!("inputs are packed for AVX2") };
        let (mut inputs, mut grads) = (inputs.add(first), o.grads.add(lane));
        for _ in 0..o.rows {
            let g = [_mm256_loadu_ps(grads), _mm256_loadu_ps(grads.add(8))];
            for r in 0..R {
                let x = _mm256_set1_ps(*inputs.add(r));
                sums[r][0] = _mm256_fmadd_ps(x, g[0], sums[r][0]);
                sums[r][1] = _mm256_fmadd_ps(x, g[1], sums[r][1]);
            }
            inputs = inputs.wrapping_add(INPUT_STRIDE);
            grads = grads.wrapping_add(o.stride);
        }
        for r in 0..R {
            for v in 0..2 {
                let at = o.sums.add((first + r) * LANES + lane + 8 * v);
                _mm256_storeu_ps(at, _mm256_add_ps(_mm256_loadu_ps(at), sums[r][v]));
            }
        }
    }
}
