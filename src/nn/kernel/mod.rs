//! CPU kernels: the loops behind the operations of [`crate::nn`], on plain slices, without candle.
//!
//! Feature maps are `[N, H, W, C]`. Products are computed in *tiles*: up to [`TILE`] pixels times a *panel* of
//! [`LANES`] output channels, with all sums in registers and the source rows given by pointers (the indirect
//! convolution of Dukhan 2019), so padding, stride and the gaps of a strided input gradient cost a pointer and no copy.
//!
//! Every element of a result is summed in an order that depends only on the shape and the [`Arithmetic`], partial sums
//! of several threads included; the number of threads, the other images of a batch and tile boundaries do not change
//! a bit.

pub mod arithmetic;
pub mod conv_cpu;
pub mod geometry;
pub mod isa;
mod micro;
#[cfg(target_arch = "x86_64")]
mod micro_avx2;
#[cfg(target_arch = "x86_64")]
mod micro_avx512;
mod micro_portable;
pub mod norm_cpu;
pub mod panel;
pub mod pool_cpu;
pub mod target;
mod tile;
pub mod weight_gradient;
pub mod winograd;

pub use arithmetic::Arithmetic;
pub use geometry::{ConvShape, Window};
pub use isa::Isa;
pub use target::{Source, Target};

/// Pixels of a tile.
pub const TILE: usize = 12;
/// Output channels of a panel.
pub const LANES: usize = 32;
/// Products summed in registers before they are added to the total: summing in blocks keeps rounding errors small
/// (Higham 1993), at a cost of well under 1 % of the time.
const BLOCK: usize = 256;

/// Runs `f` on a thread of rayon's pool, so that the kernels' parallel loops begin and end without waking another
/// thread: started from outside the pool, each loop costs some 20 microseconds.
pub fn in_pool<R: Send>(f: impl FnOnce() -> R + Send) -> R {
    rayon::scope(|_| f())
}
