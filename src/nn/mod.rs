//! Networks: backbones that can be cut, heads, losses, optimisers, and the operations candle lacks.
//!
//! Feature maps are channels-last everywhere: `[N, H, W, C]`, contiguous f32.

mod backbone;
pub mod checkpoint;
#[cfg(test)]
mod figures;
pub mod head;
pub(crate) mod host;
pub mod hub;
pub mod init;
pub mod loss;
pub mod optimiser;
pub mod schedule;
pub mod weights;
pub mod whole;

pub use backbone::{Backbone, BackboneError, Mode, StageInfo, Suffix, SuffixOptions};
