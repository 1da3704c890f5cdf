//! Networks as graphs of plain operations, for programs that compute them elsewhere ([`super::onnx`]); those of the known networks are in [`super::graphs`].
//!
//! Feature maps are channels first here, `[N, C, H, W]`, as PyTorch and ONNX have them.

use super::kernel::Window;

/// An operation. Names are those of tensors in the network's file, without their last part.
#[derive(Clone, Debug, PartialEq)]
pub enum Operation {
    /// Cross-correlation with `NAME.weight`, and `NAME.bias` if `bias`. Weights of two dimensions are those of a window of one
    /// pixel.
    Conv { name: String, bias: bool, window: Window, groups: usize },
    /// Batch norm in inference mode with `NAME.weight`, `.bias`, `.running_mean`, `.running_var`.
    BatchNorm { name: String, epsilon: f64 },
    /// Layer norm over the channels of each pixel with `NAME.weight` and `.bias`.
    LayerNorm { name: String, epsilon: f64 },
    /// Each channel times its value in the tensor of this very name.
    Scale { name: String },
    /// max(x, 0).
    Relu,
    /// x times the distribution function of a standard normal at x.
    Gelu,
    /// The largest value of each window.
    MaxPool(Window),
    /// The mean of each window; pixels of the padding are zeros that count, or do not exist.
    AveragePool { window: Window, counted: bool },
    /// Joins feature maps along the channels.
    Concat,
    /// The sum of two feature maps.
    Add,
    /// The mean over all pixels: `[N, C, 1, 1]`.
    GlobalAveragePool,
}

/// An operation with the values it takes: 0 is the image, `i + 1` the output of node `i`.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// What is computed.
    pub operation: Operation,
    /// Of which values.
    pub inputs: Vec<usize>,
}

/// A graph under construction.
#[derive(Debug, Default)]
pub(super) struct Builder {
    pub(super) nodes: Vec<Node>,
}

impl Builder {
    /// Adds an operation; returns its output.
    pub(super) fn add(&mut self, operation: Operation, inputs: &[usize]) -> usize {
        self.nodes.push(Node { operation, inputs: inputs.to_vec() });
        self.nodes.len()
    }

    /// Adds a convolution without bias.
    pub(super) fn conv(&mut self, name: String, window: Window, x: usize) -> usize {
        self.add(Operation::Conv { name, bias: false, window, groups: 1 }, &[x])
    }

    /// Adds max(x, 0).
    pub(super) fn relu(&mut self, x: usize) -> usize {
        self.add(Operation::Relu, &[x])
    }
}
