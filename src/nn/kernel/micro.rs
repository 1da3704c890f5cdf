//! Calls the micro-kernel of an instruction set.

use super::tile::{Outer, OuterPairs, Tile};
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
            Isa::Avx512 if arithmetic.factors() == super::arithmetic::Factors::Pairs => micro_avx512::pairs::tile(t),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => micro_avx512::floats::tile(t),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => micro_avx2::tile(t),
            _ => micro_portable::tile(t),
        }
    }
}

/// Adds a block to a weight gradient.
///
/// # Safety
/// As [`tile`], for `sums`; `isa` must be available.
#[inline]
pub(super) unsafe fn outer(isa: Isa, o: &Outer<'_>) {
    debug_assert!((1..=TILE).contains(&o.depth) && (1..=LANES).contains(&o.width));
    // SAFETY: passed on from the caller.
    unsafe {
        match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => micro_avx512::outer(o),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => micro_avx2::outer(o),
            _ => micro_portable::outer(o),
        }
    }
}

/// Gathers the inputs of an [`OuterPairs`]: for each pair of `rows`, words of the `depth` channels from `first` on, in
/// rows of [`super::tile::PAIR_STRIDE`].
///
/// # Safety
/// Each row must be valid for reading those channels, `to` for writing; the processor must have pairs
/// ([`super::arithmetic::has_pairs`]).
pub(super) unsafe fn gather_pairs(rows: &[[*const f32; 2]], first: usize, depth: usize, to: *mut f32) {
    debug_assert!((1..=TILE).contains(&depth));
    #[cfg(target_arch = "x86_64")]
    // SAFETY: passed on from the caller.
    unsafe {
        micro_avx512::gather_pairs(rows, first, depth, to);
    }
    #[cfg(not(target_arch = "x86_64"))]
    unreachable!("only x86-64 has pairs: {rows:?} {first} {depth} {to:?}");
}

/// Adds a block of pairs to a weight gradient.
///
/// # Safety
/// As [`outer`]; the processor must have pairs.
pub(super) unsafe fn outer_pairs(o: &OuterPairs) {
    debug_assert!((1..=TILE).contains(&o.depth) && (1..=LANES).contains(&o.width));
    #[cfg(target_arch = "x86_64")]
    // SAFETY: passed on from the caller.
    unsafe {
        micro_avx512::outer_pairs(o);
    }
    #[cfg(not(target_arch = "x86_64"))]
    unreachable!("only x86-64 has pairs: {} of depth {}", o.pairs, o.depth);
}
