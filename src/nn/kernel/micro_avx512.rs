//! Micro-kernels for AVX-512F: 12 x 32 sums in 24 registers.
//!
//! No closures passed to functions of the standard library: those are not compiled for AVX-512, and a call spills the
//! registers.

// Register blocks are indexed: iterators over them hide which register is meant.
#![allow(clippy::needless_range_loop)]

use super::tile::{Outer, Tile};
use super::{BLOCK, LANES};
use std::arch::x86_64::*;

/// See [`super::micro::tile`].
///
/// # Safety
/// As there; AVX-512F and AVX-512VL are needed.
#[target_feature(enable = "avx512f,avx512vl,avx2,fma")]
pub(super) unsafe fn tile(t: &Tile<'_>) {
    // SAFETY: the caller's promise; the row count is rounded up to a kernel's, which reads repeated pointers and
    // stores `pixels` rows only.
    unsafe {
        match (t.pixels.div_ceil(4), t.width.div_ceil(16), t.taps.len() * t.depth <= BLOCK) {
            (1, 1, false) => tile_of::<4, 1, false>(t),
            (1, 1, true) => tile_of::<4, 1, true>(t),
            (1, _, false) => tile_of::<4, 2, false>(t),
            (1, _, true) => tile_of::<4, 2, true>(t),
            (2, 1, false) => tile_of::<8, 1, false>(t),
            (2, 1, true) => tile_of::<8, 1, true>(t),
            (2, _, false) => tile_of::<8, 2, false>(t),
            (2, _, true) => tile_of::<8, 2, true>(t),
            (_, 1, false) => tile_of::<12, 1, false>(t),
            (_, 1, true) => tile_of::<12, 1, true>(t),
            (_, _, false) => tile_of::<12, 2, false>(t),
            (_, _, true) => tile_of::<12, 2, true>(t),
        }
    }
}

/// `SHORT`: all products make one block, so that there are no totals to keep.
#[target_feature(enable = "avx512f,avx512vl,avx2,fma")]
unsafe fn tile_of<const R: usize, const V: usize, const SHORT: bool>(t: &Tile<'_>) {
    let mut sums = [[_mm512_setzero_ps(); V]; R];
    let mut totals = sums;
    let mut summed = 0;
    // SAFETY: each row pointer has `depth` floats, the panel a row of LANES for each; `out` and the epilogue's
    // vectors are valid for `width` and LANES floats.
    unsafe {
        for (rows, &tap) in t.rows.iter().zip(t.taps) {
            let mut from = [rows[0]; R];
            from.copy_from_slice(&rows[..R]);
            let mut weights = t.panel.add(tap * LANES);
            let mut first = 0;
            while first < t.depth {
                let last = if SHORT { t.depth } else { t.depth.min(first + BLOCK - summed) };
                for c in first..last {
                    let mut w = [_mm512_setzero_ps(); V];
                    for v in 0..V {
                        w[v] = _mm512_loadu_ps(weights.add(16 * v));
                    }
                    for r in 0..R {
                        let x = _mm512_set1_ps(*from[r].add(c));
                        for v in 0..V {
                            sums[r][v] = _mm512_fmadd_ps(x, w[v], sums[r][v]);
                        }
                    }
                    weights = weights.add(LANES);
                }
                summed += last - first;
                first = last;
                if !SHORT && summed == BLOCK {
                    summed = 0;
                    for r in 0..R {
                        for v in 0..V {
                            totals[r][v] = _mm512_add_ps(totals[r][v], sums[r][v]);
                            sums[r][v] = _mm512_setzero_ps();
                        }
                    }
                }
            }
        }
        // Loops of fixed length access `sums`: an index known only at run time would force it into memory.
        for r in 0..R {
            for v in 0..V {
                totals[r][v] = if SHORT { sums[r][v] } else { _mm512_add_ps(totals[r][v], sums[r][v]) };
            }
        }
        let floor = _mm512_set1_ps(if t.relu { 0.0 } else { f32::NEG_INFINITY });
        for v in 0..V {
            let scale = _mm512_loadu_ps(t.scale.add(16 * v));
            let bias = _mm512_loadu_ps(t.bias.add(16 * v));
            let mask = mask(t.width, v);
            for r in 0..R.min(t.pixels) {
                // The second operand wins when one is NaN: a NaN sum stays NaN.
                let mut y = _mm512_max_ps(floor, _mm512_fmadd_ps(totals[r][v], scale, bias));
                let out = t.out[r].wrapping_add(16 * v);
                if t.add {
                    y = _mm512_add_ps(_mm512_maskz_loadu_ps(mask, out), y);
                }
                _mm512_mask_storeu_ps(out, mask, y);
            }
        }
    }
}

/// Lanes of vector `v` that lie inside `width`.
fn mask(width: usize, v: usize) -> __mmask16 {
    match width.saturating_sub(16 * v) {
        n @ 0..16 => (1u16 << n) - 1,
        _ => u16::MAX,
    }
}

/// See [`super::micro::outer`].
///
/// # Safety
/// As there; AVX-512F and AVX-512VL are needed.
#[target_feature(enable = "avx512f,avx512vl,avx2,fma")]
pub(super) unsafe fn outer(o: &Outer<'_>) {
    macro_rules! of {
        ($($depth:literal)*) => {
            match (o.depth, o.width > 16) {
                $(($depth, false) => outer_of::<$depth, 1>(o), ($depth, true) => outer_of::<$depth, 2>(o),)*
                _ => unreachable!("depth is 1 to TILE"),
            }
        };
    }
    // SAFETY: the caller's promise.
    unsafe { of!(1 2 3 4 5 6 7 8 9 10 11 12) }
}

#[target_feature(enable = "avx512f,avx512vl,avx2,fma")]
unsafe fn outer_of<const R: usize, const V: usize>(o: &Outer<'_>) {
    let mut sums = [[_mm512_setzero_ps(); V]; R];
    // SAFETY: each row pointer has R = `depth` floats; gradients are read under the mask of `width`; `sums` has R
    // rows of LANES.
    unsafe {
        let mut masks = [0; V];
        for v in 0..V {
            masks[v] = mask(o.width, v);
        }
        let mut grads = o.grads;
        for &row in o.rows {
            let mut g = [_mm512_setzero_ps(); V];
            for v in 0..V {
                g[v] = _mm512_maskz_loadu_ps(masks[v], grads.wrapping_add(16 * v));
            }
            for r in 0..R {
                let x = _mm512_set1_ps(*row.add(r));
                for v in 0..V {
                    sums[r][v] = _mm512_fmadd_ps(x, g[v], sums[r][v]);
                }
            }
            grads = grads.wrapping_add(o.stride);
        }
        for r in 0..R {
            for v in 0..V {
                let at = o.sums.add(r * LANES + 16 * v);
                _mm512_storeu_ps(at, _mm512_add_ps(_mm512_loadu_ps(at), sums[r][v]));
            }
        }
    }
}
