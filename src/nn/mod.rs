//! Networks: backbones that can be cut, heads, losses, optimisers, and the operations candle lacks.
//!
//! Feature maps are channels-last everywhere: `[N, H, W, C]`, contiguous f32.

pub mod attribution;
pub mod average;
mod backbone;
pub mod build;
pub mod checkpoint;
pub mod conv;
pub mod cuda;
#[cfg(test)]
pub(crate) mod figures;
pub mod frozen_backbone;
pub mod graph;
pub mod graphs;
pub mod head;
pub mod hub;
pub mod inception_v3;
pub mod init;
pub mod kernel;
pub mod loss;
pub mod memory;
pub mod onnx;
mod operation;
pub mod optimiser;
pub mod pool;
#[cfg(test)]
mod recorded;
#[cfg(test)]
mod reference;
pub mod schedule;
pub(crate) mod tensor;
pub mod weights;

pub use backbone::{Backbone, BackboneError, Lattice, Mode, StageInfo, Suffix, SuffixOptions, backward};
pub use inception_v3::InceptionV3;
