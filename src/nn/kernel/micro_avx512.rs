//! Micro-kernels for AVX-512F: 12 x 32 sums in 24 registers; with AVX512-BF16, those of pairs
//! ([`super::arithmetic`]).
//!
//! No closures passed to functions of the standard library: those are not compiled for AVX-512, and a call spills the
//! registers.

// Register blocks are indexed: iterators over them hide which register is meant.
#![allow(clippy::needless_range_loop)]

use super::tile::{INPUT_STRIDE, Inputs};
use std::arch::x86_64::*;
use std::mem::transmute;

/// Where a kernel of weight gradients finds its inputs.
trait Rows: Copy {
    fn of(inputs: Inputs) -> Self;

    /// The inputs of a row.
    ///
    /// # Safety
    /// There must be such a row.
    unsafe fn row(self, row: usize) -> *const f32;
}

/// See [`Inputs::Packed`].
#[derive(Clone, Copy)]
struct Packed(*const f32);

impl Rows for Packed {
    fn of(inputs: Inputs) -> Self {
        let Inputs::Packed(first) = inputs else { unreachable!("inputs are packed for pairs") };
        Self(first)
    }

    #[inline(always)]
    unsafe fn row(self, row: usize) -> *const f32 {
        // SAFETY: the caller's promise.
        unsafe { self.0.add(row * INPUT_STRIDE) }
    }
}

/// See [`Inputs::At`].
#[derive(Clone, Copy)]
struct At(*const *const f32, usize);

impl Rows for At {
    fn of(inputs: Inputs) -> Self {
        let Inputs::At(rows, channel) = inputs else { unreachable!("inputs are not packed for floats") };
        Self(rows, channel)
    }

    #[inline(always)]
    unsafe fn row(self, row: usize) -> *const f32 {
        // SAFETY: the caller's promise.
        unsafe { (*self.0.add(row)).add(self.1) }
    }
}

/// Calls the kernel of a weight gradient that is compiled for its depth and width.
macro_rules! by_depth {
    ($o:ident, $rows:ident, $kernel:ident: $($depth:literal)*) => {
        match ($o.depth, $o.width > 16) {
            $(($depth, false) => $kernel::<$depth, 1>($o, $rows), ($depth, true) => $kernel::<$depth, 2>($o, $rows),)*
            _ => unreachable!("depth is 1 to TILE"),
        }
    };
}

/// The kernels of a tile and of a weight gradient, for floats and for pairs of bf16: they differ in one
/// instruction and in where a weight gradient finds its inputs.
macro_rules! tiles {
    ($name:ident, $features:literal, $rows:ident, |$sum:ident, $x:ident, $w:ident| $product:expr) => {
        pub(super) mod $name {
            use super::super::tile::{Outer, Tile};
            use super::super::{BLOCK, LANES};
            use super::{$rows, Rows, mask};
            use std::arch::x86_64::*;

            #[inline]
            #[target_feature(enable = $features)]
            fn multiply_add($sum: __m512, $x: __m512, $w: __m512) -> __m512 {
                $product
            }

            /// See `micro::tile`.
            ///
            /// # Safety
            /// As there; the processor must have the features.
            #[target_feature(enable = $features)]
            pub(in super::super) unsafe fn tile(t: &Tile<'_>) {
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
            #[target_feature(enable = $features)]
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
                                        sums[r][v] = multiply_add(sums[r][v], x, w[v]);
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

            /// See `micro::outer`.
            ///
            /// # Safety
            /// As there; the processor must have the features.
            #[target_feature(enable = $features)]
            pub(in super::super) unsafe fn outer(o: &Outer) {
                let rows = $rows::of(o.inputs);
                // SAFETY: the caller's promise.
                unsafe { by_depth!(o, rows, outer_of: 1 2 3 4 5 6 7 8 9 10 11 12) }
            }

            #[target_feature(enable = $features)]
            unsafe fn outer_of<const R: usize, const V: usize>(o: &Outer, rows: $rows) {
                let mut sums = [[_mm512_setzero_ps(); V]; R];
                // SAFETY: each row has R inputs, and gradients that are read under the mask of `width`;
                // `sums` has R rows of LANES.
                unsafe {
                    let mut masks = [0; V];
                    for v in 0..V {
                        masks[v] = mask(o.width, v);
                    }
                    let mut grads = o.grads;
                    for row in 0..o.rows {
                        let inputs = rows.row(row);
                        let mut g = [_mm512_setzero_ps(); V];
                        for v in 0..V {
                            g[v] = _mm512_maskz_loadu_ps(masks[v], grads.wrapping_add(16 * v));
                        }
                        for r in 0..R {
                            let x = _mm512_set1_ps(*inputs.add(r));
                            for v in 0..V {
                                sums[r][v] = multiply_add(sums[r][v], x, g[v]);
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
        }
    };
}

tiles!(floats, "avx512f,avx512vl,avx2,fma", At, |sum, x, w| _mm512_fmadd_ps(x, w, sum));
tiles!(pairs, "avx512f,avx512vl,avx512bw,avx512bf16,avx2,fma", Packed, |sum, x, w| {
    // SAFETY: both are 512 bits.
    let (x, w) = unsafe { (std::mem::transmute::<__m512, __m512bh>(x), std::mem::transmute::<__m512, __m512bh>(w)) };
    _mm512_dpbf16_ps(sum, x, w)
});

/// Lanes of vector `v` that lie inside `width`.
fn mask(width: usize, v: usize) -> __mmask16 {
    match width.saturating_sub(16 * v) {
        n @ 0..16 => (1u16 << n) - 1,
        _ => u16::MAX,
    }
}

/// Rounds `n` floats to bf16: `n / 2` words, rounded up, the last one with a zero if `n` is odd.
///
/// # Safety
/// The pointers must be valid for that many; the processor must have the features.
#[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512bf16")]
pub(super) unsafe fn pair_row(from: *const f32, n: usize, to: *mut f32) {
    let mut at = 0;
    while at < n {
        // SAFETY: the caller's promise; masked lanes are not accessed.
        unsafe {
            let (low, high) =
                (masked(n - at, from.add(at)), masked((n - at).saturating_sub(16), from.wrapping_add(at + 16)));
            let words = transmute::<__m512bh, __m512>(_mm512_cvtne2ps_pbh(high, low));
            _mm512_mask_storeu_ps(to.add(at / 2), first((n - at).div_ceil(2)), words);
        }
        at += 32;
    }
}

/// Rounds two rows of `n` floats to bf16: words of an element of `even` and one of `odd`.
///
/// # Safety
/// The pointers must be valid for `n` elements; the processor must have the features.
#[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512bf16")]
pub(super) unsafe fn interleave(even: *const f32, odd: *const f32, n: usize, to: *mut f32) {
    for at in (0..n).step_by(16) {
        // SAFETY: the caller's promise; masked lanes are not accessed.
        unsafe {
            let words = interleaved(masked(n - at, even.add(at)), masked(n - at, odd.add(at)));
            _mm512_mask_storeu_ps(to.add(at), first(n - at), words);
        }
    }
}

/// The first `n` floats from `from` on, at most 16, and zeros.
///
/// # Safety
/// `from` must be valid for them.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn masked(n: usize, from: *const f32) -> __m512 {
    // SAFETY: the caller's promise; masked lanes are not accessed.
    unsafe { _mm512_maskz_loadu_ps(first(n), from) }
}

/// The first `n` of 16 lanes.
fn first(n: usize) -> __mmask16 {
    mask(n, 0)
}

/// Words of an element of each.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
fn interleaved(even: __m512, odd: __m512) -> __m512 {
    const ORDER: [u16; 32] = {
        let mut order = [0; 32];
        let mut i = 0;
        while i < 16 {
            order[2 * i] = i as u16;
            order[2 * i + 1] = 16 + i as u16;
            i += 1;
        }
        order
    };
    // SAFETY: all are 512 bits.
    unsafe {
        let halves = transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(odd, even));
        transmute::<__m512i, __m512>(_mm512_permutexvar_epi16(transmute::<[u16; 32], __m512i>(ORDER), halves))
    }
}

/// See [`super::micro::gather`].
///
/// # Safety
/// As there.
#[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512bf16")]
pub(super) unsafe fn gather_pairs(rows: &[[*const f32; 2]], first_channel: usize, depth: usize, to: *mut f32) {
    for (i, &[even, odd]) in rows.iter().enumerate() {
        // SAFETY: the caller's promise; masked lanes are not accessed.
        unsafe {
            let words = interleaved(masked(depth, even.add(first_channel)), masked(depth, odd.add(first_channel)));
            _mm512_storeu_ps(to.add(i * INPUT_STRIDE), words);
        }
    }
}
