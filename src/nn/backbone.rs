//! The trait that every network implements.

use crate::spec::BatchNormMode;
use candle_core::backprop::GradStore;
use candle_core::{Tensor, Var};

/// A named stage of a backbone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StageInfo {
    /// The network's own name for it, such as `Mixed_6e`.
    pub name: String,
    /// Channels of its output.
    pub channels: usize,
}

/// Where the values of a feature map lie in a square image: value `i` of a row or column has a receptive field whose
/// middle is at `first + i * step`, in pixels from the edge (the middle of the first pixel is at .5).
///
/// Layers without padding move the first middle away from the edge, so that a map stretched over the whole image would
/// be off by a cell near the edges.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Lattice {
    /// The middle of the first value's receptive field.
    pub first: f64,
    /// From one value's middle to the next.
    pub step: f64,
}

/// Training or inference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Train,
    Eval,
}

/// How the trained part behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SuffixOptions {
    /// Batch norm of the unfrozen pretrained layers.
    pub batch_norm: BatchNormMode,
}

/// A pretrained network as a sequence of stages, cut anywhere into a frozen and a trained part.
///
/// A position is a count of stages: 0 is the (scaled) image, `n` the output of the `n`-th stage. The image is
/// `[N, H, W, 3]`, scaled as the weights expect it; every other feature map is `[N, H', W', C]`.
pub trait Backbone: Send + Sync {
    /// The stages in order.
    fn stages(&self) -> &[StageInfo];

    /// Height and width of the output at `position` for a square image of `side` pixels; `None` if the image is
    /// too small.
    fn side_at(&self, position: usize, side: usize) -> Option<usize>;

    /// Where the values of the feature map at `position` lie in the image; `None` if they have no places there, as those
    /// of pooled features.
    fn lattice(&self, position: usize) -> Option<Lattice>;

    /// Runs the frozen stages between two positions: without gradients, batch norm in inference mode. On the CPU the
    /// result has the same bits for every batch composition and number of threads.
    fn prefix(&self, from: usize, to: usize, x: &Tensor) -> candle_core::Result<Tensor>;

    /// A trainable copy of the stages between two positions, with weights of its own.
    ///
    /// # Errors
    /// [`BackboneError::CannotTrain`] where the architecture cannot be trained from `from`.
    fn suffix(&self, from: usize, to: usize, options: SuffixOptions) -> Result<Box<dyn Suffix>, BackboneError>;
}

/// The trained part of a backbone.
pub trait Suffix: Send {
    /// Feature map to feature map; recorded for gradients in `Mode::Train`. `Mode::Eval` uses running statistics.
    fn forward(&self, x: &Tensor, mode: Mode) -> candle_core::Result<Tensor>;
    /// Moves the parameter gradients that a backward pass computed outside candle's graph into `gradients`; called by
    /// [`backward`].
    ///
    /// # Errors
    /// If gradients cannot be added.
    fn collect(&self, _gradients: &mut GradStore) -> candle_core::Result<()> {
        Ok(())
    }
    /// Converts a parameter, or a tensor of its shape (a gradient, a moment), to the layout of files: convolution
    /// weights to torch's `[O, I, KH, KW]`, all else unchanged.
    ///
    /// # Errors
    /// If its shape is not the parameter's.
    fn to_file(&self, _name: &str, own: &Tensor) -> candle_core::Result<Tensor> {
        Ok(own.clone())
    }
    /// The inverse of [`Suffix::to_file`]; also accepts the packed panels of older files.
    ///
    /// # Errors
    /// If its shape is not the parameter's.
    #[allow(clippy::wrong_self_convention)] // converts from the layout of files; not a constructor
    fn from_file(&self, _name: &str, stored: &Tensor) -> candle_core::Result<Tensor> {
        Ok(stored.clone())
    }
    /// Parameters by name, in a fixed order, in the device's layout.
    fn parameters(&self) -> Vec<(String, Var)>;
    /// State updated without gradients (running statistics), by name, in a fixed order; part of a checkpoint.
    fn buffers(&self) -> Vec<(String, Var)>;
}

/// The gradients of `loss`, including those of the parameters of `suffix`. Call it at most once for each forward pass.
///
/// # Errors
/// If an operation of the backward pass fails.
pub fn backward(loss: &Tensor, suffix: Option<&dyn Suffix>) -> candle_core::Result<GradStore> {
    let mut gradients = loss.backward()?;
    if let Some(suffix) = suffix {
        suffix.collect(&mut gradients)?;
    }
    Ok(gradients)
}

/// Why a backbone cannot do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum BackboneError {
    /// The architecture's public interface gives no access to layers this deep.
    #[error("{network} can be trained from {first} on, not from {asked}")]
    CannotTrain { network: String, first: String, asked: String },
    /// An operation failed.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
}
