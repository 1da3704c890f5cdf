//! What a micro-kernel computes, and the choice of one.

use super::{Isa, LANES, TILE, micro_portable};
#[cfg(target_arch = "x86_64")]
use super::{micro_avx2, micro_avx512};

/// Source pointers of one tap of a tile; unused places repeat a used one.
pub(super) type Rows = [*const f32; TILE];

/// `out[r][j] (+)= act(scale[j] * sum over taps t and channels c of rows[t][r][c] * panel[taps[t] + c][j] + bias[j])`.
pub(super) struct Tile<'a> {
    /// Source rows by tap: `depth` floats behind each pointer.
    pub rows: &'a [Rows],
    /// First weight row of each tap in the panel.
    pub taps: &'a [usize],
    /// Input channels.
    pub depth: usize,
    /// The panel's weights, `LANES` a row.
    pub panel: *const f32,
    /// `LANES` factors.
    pub scale: *const f32,
    /// `LANES` summands.
    pub bias: *const f32,
    /// Whether negative results become zero.
    pub relu: bool,
    /// Whether results are added to what is there, instead of replacing it.
    pub add: bool,
    /// Destination rows.
    pub out: [*mut f32; TILE],
    /// Rows in use, 1 to `TILE`.
    pub pixels: usize,
    /// Lanes in use, 1 to `LANES`.
    pub width: usize,
}

/// `sums[r][j] += sum over p of rows[p][r] * grads[p * stride + j]`: one block of a weight gradient.
pub(super) struct Outer<'a> {
    /// A pointer for each pixel to the `depth` input channels in hand.
    pub rows: &'a [*const f32],
    /// The first pixel's output gradient at the panel's first channel.
    pub grads: *const f32,
    /// Floats between pixels in `grads`.
    pub stride: usize,
    /// `depth` rows of `LANES` sums.
    pub sums: *mut f32,
    /// Input channels, 1 to `TILE`.
    pub depth: usize,
    /// Lanes in use, 1 to `LANES`.
    pub width: usize,
}

/// Computes a tile.
///
/// # Safety
/// The pointers must be valid for what the fields say, `isa` available, and no other thread may touch `out`.
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
