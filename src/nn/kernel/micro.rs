//! Calls the micro-kernel of an instruction set.

use super::tile::{Outer, Tile};
use super::{Isa, LANES, TILE, micro_portable};
#[cfg(target_arch = "x86_64")]
use super::{micro_avx2, micro_avx512};

/// Computes a tile.
///
/// # Safety
/// Counts must lie within the limits that the fields state, the pointers be valid for what they say, `isa` available,
/// and no other thread may touch `out`.
#[inline]
pub(super) unsafe fn tile(isa: Isa, t: &Tile<'_>) {
    debug_assert!((1..=TILE).contains(&t.pixels) && (1..=LANES).contains(&t.width) && t.rows.len() == t.taps.len());
    // SAFETY: passed on from the caller.
    unsafe {
        match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => micro_avx512::tile(t),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => micro_avx2::tile(t),
            _ => micro_portable::tile(t),
        }
    }
}

/// Adds a block to a weight gradient.
///
/// # Safety
/// As [`tile`], for `sums`.
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
