//! Networks: backbones that can be cut, heads, losses, optimisers, and the operations candle lacks.
//!
//! Feature maps are channels-last everywhere: `[N, H, W, C]`, contiguous f32.

mod backbone;

pub use backbone::{Backbone, BackboneError, Mode, StageInfo, Suffix, SuffixOptions};
