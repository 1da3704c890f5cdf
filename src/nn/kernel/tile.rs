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

/// Most rows of an [`Outer`] with packed inputs: those (8 KiB) and the gradients of a panel (16 KiB) stay in the first-level
/// cache.
pub(super) const OUTER_ROWS: usize = 128;
/// Floats or words of a row of inputs of an [`Outer`]: room for `TILE`, aligned with a vector.
pub(super) const INPUT_STRIDE: usize = 16;
const _: () = assert!(TILE <= INPUT_STRIDE);

/// Where the inputs of an [`Outer`] lie; a kernel takes one of these.
#[derive(Clone, Copy)]
pub(super) enum Inputs {
    /// For each row `depth` channels, [`INPUT_STRIDE`] apart.
    Packed(*const f32),
    /// A pointer for each row, and the first of its `depth` channels: for the kernel of floats for AVX-512.
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
    At(*const *const f32, usize),
}

/// `sums[c][j] += sum over rows r of inputs[r][c] * grads[r][j]`: one block of a weight gradient.
///
/// A row is a pixel. Where operands are pairs of bf16, it is two, and each word has an element of both.
pub(super) struct Outer {
    /// The input channels of each row.
    pub inputs: Inputs,
    /// The first row's output gradients: `width` for each row; with packed inputs `LANES`, zeros beyond `width`.
    pub grads: *const f32,
    /// Floats or words between rows in `grads`.
    pub stride: usize,
    /// Their number.
    pub rows: usize,
    /// `depth` rows of `LANES` sums.
    pub sums: *mut f32,
    /// Input channels, 1 to `TILE`.
    pub depth: usize,
    /// Lanes in use, 1 to `LANES`; others may be computed, too.
    pub width: usize,
}
