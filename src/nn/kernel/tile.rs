//! What a micro-kernel computes.

use super::TILE;

/// Source pointers of one tap of a tile; unused entries repeat a used one.
pub(super) type Rows = [*const f32; TILE];

/// `out[r][j] (+)= act(scale[j] * sum over taps t and channels c of rows[t][r][c] * panel[taps[t] + c][j] + bias[j])`.
///
/// Where operands are pairs of bf16 ([`super::arithmetic`]), a word stands for two channels: `depth` counts words, and a
/// product of two words is the sum of two products.
pub(super) struct Tile<'a> {
    /// Source rows by tap: each pointer leads to `depth` floats or words.
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
    /// Whether results are added to the destination instead of replacing it.
    pub add: bool,
    /// Destination rows.
    pub out: [*mut f32; TILE],
    /// Rows in use, 1 to `TILE`.
    pub pixels: usize,
    /// Lanes in use, 1 to `LANES`.
    pub width: usize,
}

/// Most pixels of an [`Outer`] for AVX2: their gradients (16 KiB) and inputs (6 KiB) stay in the first-level cache.
pub(super) const OUTER_PIXELS: usize = 128;

/// `sums[r][j] += sum over p of rows[p][r] * grads[p * stride + j]`: one block of a weight gradient.
pub(super) struct Outer<'a> {
    /// For each pixel, a pointer to the `depth` input channels of this block; for AVX2 up to [`OUTER_PIXELS`].
    pub rows: &'a [*const f32],
    /// The first pixel's output gradient at the panel's first channel: `width` floats a pixel; for AVX2 LANES, zeros
    /// beyond `width`.
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

/// Words of a pair in the inputs of an [`OuterPairs`].
pub(super) const PAIR_STRIDE: usize = 16;
const _: () = assert!(TILE <= PAIR_STRIDE);

/// The same in pairs of pixels, each word of `inputs` and `grads` that of both.
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
pub(super) struct OuterPairs {
    /// For each pair, a word for each of the `depth` input channels, in rows of [`PAIR_STRIDE`].
    pub inputs: *const f32,
    /// For each pair, `LANES` words of output gradients; zeros beyond `width`.
    pub grads: *const f32,
    /// Their number.
    pub pairs: usize,
    /// `depth` rows of `LANES` sums.
    pub sums: *mut f32,
    /// Input channels, 1 to `TILE`.
    pub depth: usize,
    /// Lanes in use, 1 to `LANES`.
    pub width: usize,
}
