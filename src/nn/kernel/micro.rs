//! Calls the micro-kernel of an instruction set.

use super::arithmetic::Factors;
use super::tile::{Outer, Tile};
use super::{Arithmetic, Isa, LANES, TILE, micro_portable};
#[cfg(target_arch = "x86_64")]
use super::{micro_avx2, micro_avx512};

/// Computes a tile.
///
/// # Safety
/// Counts must lie within the limits that the fields state, the pointers be valid for what they say, and no other thread
/// may touch `out`.
#[inline]
pub(super) unsafe fn tile(arithmetic: Arithmetic, t: &Tile<'_>) {
    debug_assert!((1..=TILE).contains(&t.pixels) && (1..=LANES).contains(&t.width) && t.rows.len() == t.taps.len());
    // SAFETY: passed on from the caller.
    unsafe {
        match arithmetic.isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 if arithmetic.factors() == Factors::Pairs => micro_avx512::pairs::tile(t),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => micro_avx512::floats::tile(t),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => micro_avx2::tile(t),
            _ => micro_portable::tile(t),
        }
    }
}

/// Packs inputs for an [`Outer`]: of each source the `depth` channels from `first` on, in rows of
/// [`super::tile::INPUT_STRIDE`]; with pairs, a row has the words of two sources.
///
/// # Safety
/// Each source must be valid for reading those channels, `to` for writing the rows; with pairs the number of sources must be
/// even.
#[inline]
pub(super) unsafe fn gather(arithmetic: Arithmetic, sources: &[*const f32], first: usize, depth: usize, to: *mut f32) {
    debug_assert!((1..=TILE).contains(&depth));
    // SAFETY: passed on from the caller.
    unsafe {
        match (arithmetic.isa, arithmetic.factors()) {
            #[cfg(target_arch = "x86_64")]
            (Isa::Avx512, Factors::Pairs) => micro_avx512::gather_pairs(sources.as_chunks().0, first, depth, to),
            _ => micro_portable::gather(sources, first, depth, to),
        }
    }
}

/// Adds a block to a weight gradient.
///
/// # Safety
/// As [`tile`], for `sums`.
#[inline]
pub(super) unsafe fn outer(arithmetic: Arithmetic, o: &Outer) {
    debug_assert!((1..=TILE).contains(&o.depth) && (1..=LANES).contains(&o.width));
    // SAFETY: passed on from the caller.
    unsafe {
        match (arithmetic.isa, arithmetic.factors()) {
            #[cfg(target_arch = "x86_64")]
            (Isa::Avx512, Factors::Pairs) => micro_avx512::pairs::outer(o),
            #[cfg(target_arch = "x86_64")]
            (Isa::Avx512, _) => micro_avx512::floats::outer(o),
            #[cfg(target_arch = "x86_64")]
            (Isa::Avx2, _) => micro_avx2::outer(o),
            _ => micro_portable::outer(o),
        }
    }
}
