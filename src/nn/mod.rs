//! Networks: backbones that can be cut, heads, losses, optimisers, and the operations candle lacks.
//!
//! Feature maps are channels-last everywhere: `[N, H, W, C]`, contiguous f32.

mod backbone;
pub mod concat;
pub mod conv;
pub mod inception_v3;
pub mod kernel;
pub mod memory;
pub mod norm;
pub mod pool;
#[cfg(test)]
mod reference;
mod tensor;

pub use backbone::{Backbone, BackboneError, Mode, StageInfo, Suffix, SuffixOptions};
pub use inception_v3::InceptionV3;
