//! Micro-kernels for AVX2 with FMA: 6 x 16 sums in 12 registers; a tile is up to four of them.

// Register blocks are indexed: iterators over them hide which register is meant.
#![allow(clippy::needless_range_loop)]

use super::tile::{OUTER_PIXELS, Outer, Tile};
use super::{BLOCK, LANES, TILE};
use std::arch::x86_64::*;
use std::mem::MaybeUninit;

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
pub(super) unsafe fn outer(o: &Outer<'_>) {
    let mut copied = [MaybeUninit::uninit(); OUTER_PIXELS];
    // SAFETY: the caller's promise: each row has `depth` floats, at most TILE.
    let inputs = unsafe { copy(o.rows, o.depth, &mut copied) };
    for first in (0..o.depth).step_by(ROWS) {
        for lane in (0..o.width).step_by(WIDTH) {
            // SAFETY: the caller's promise; the row count is what remains of `depth`, and so many inputs of each pixel
            // are initialised from `first` on.
            unsafe {
                match o.depth - first {
                    1 => block::<1>(o, inputs, first, lane),
                    2 => block::<2>(o, inputs, first, lane),
                    3 => block::<3>(o, inputs, first, lane),
                    4 => block::<4>(o, inputs, first, lane),
                    5 => block::<5>(o, inputs, first, lane),
                    _ => block::<ROWS>(o, inputs, first, lane),
                }
            }
        }
    }
}

/// The input channels of a block for one pixel; those beyond the block's depth are not initialised.
type Inputs = MaybeUninit<[f32; TILE]>;

/// Copies the first `depth` floats of each row, one row after another: the rows themselves may lie so far apart that
/// they evict each other from the first-level cache between two register blocks.
///
/// # Safety
/// The rows have them, and `depth` is at most TILE.
#[target_feature(enable = "avx2,fma")]
unsafe fn copy<'a>(rows: &[*const f32], depth: usize, to: &'a mut [Inputs; OUTER_PIXELS]) -> &'a [Inputs] {
    let to = &mut to[..rows.len()];
    for (to, &row) in to.iter_mut().zip(rows) {
        let to: *mut f32 = to.as_mut_ptr().cast();
        // SAFETY: the caller's promise.
        unsafe {
            if depth == TILE {
                _mm256_storeu_ps(to, _mm256_loadu_ps(row));
                _mm_storeu_ps(to.add(8), _mm_loadu_ps(row.add(8)));
            } else {
                for c in 0..depth {
                    *to.add(c) = *row.add(c);
                }
            }
        }
    }
    to
}

#[target_feature(enable = "avx2,fma")]
unsafe fn block<const R: usize>(o: &Outer<'_>, inputs: &[Inputs], first: usize, lane: usize) {
    let mut sums = [[_mm256_setzero_ps(); 2]; R];
    // SAFETY: of each pixel R inputs from `first` on are initialised, and its gradients are LANES floats; `sums` has
    // `depth >= first + R` rows of LANES.
    unsafe {
        let mut grads = o.grads.wrapping_add(lane);
        for pixel in inputs {
            let g = [_mm256_loadu_ps(grads), _mm256_loadu_ps(grads.add(8))];
            let x = pixel.as_ptr().cast::<f32>().add(first);
            for r in 0..R {
                let x = _mm256_set1_ps(*x.add(r));
                sums[r][0] = _mm256_fmadd_ps(x, g[0], sums[r][0]);
                sums[r][1] = _mm256_fmadd_ps(x, g[1], sums[r][1]);
            }
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
