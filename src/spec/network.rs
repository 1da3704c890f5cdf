//! The network of a trial.

use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use strum::{Display, EnumString, IntoStaticStr, VariantNames};

/// Backbone, weights, frozen depth, tap.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NetworkSpec {
    /// Which architecture.
    pub backbone: BackboneKind,
    /// Channel counts are multiplied by this (rounded to multiples of 8); 1 is the published network.
    pub width: f64,
    /// Where the weights come from.
    pub weights: WeightSource,
    /// The pixel scaling that the weights expect.
    pub scaling: PixelScaling,
    /// Whether average pooling counts padding.
    pub pool_padding: PoolPadding,
    /// The stage whose output the head takes; later stages are not computed. By default the last.
    pub tap: String,
    /// The last frozen stage.
    pub freeze: FreezeTo,
    /// How batch norm of the pretrained, unfrozen layers behaves.
    pub batch_norm: BatchNormMode,
    /// Number format of cached features.
    pub cache: CachePrecision,
    /// Side in pixels of the images as the network sees them, reduced from what is kept; `None`: as they are kept. Left out
    /// of records then, so that studies from before it existed keep their identity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input_size: Option<u32>,
}

impl NetworkSpec {
    /// Side in pixels of what the network sees of images that are kept with `size` pixels a side.
    pub fn side(&self, size: usize) -> usize {
        self.input_size.map_or(size, |side| side as usize)
    }
}

/// A known architecture.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, Display, EnumString, IntoStaticStr, VariantNames,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case", const_into_str)]
pub enum BackboneKind {
    InceptionV3,
    #[serde(rename = "resnet18")]
    #[strum(serialize = "resnet18")]
    ResNet18,
    #[serde(rename = "resnet50")]
    #[strum(serialize = "resnet50")]
    ResNet50,
    #[serde(rename = "convnext_tiny")]
    #[strum(serialize = "convnext_tiny")]
    ConvNextTiny,
}

/// Where weights come from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WeightSource {
    /// A safetensors file with torchvision or timm names, f32 or f16.
    File(PathBuf),
    /// A repository of the Hugging Face Hub, such as `timm/inception_v3.tv_in1k`, with an optional revision.
    Hub { repo: String, revision: Option<String> },
    /// Random initial weights, seeded by the study.
    Random,
}

/// How a pixel x in 0..=255 is scaled for the network.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, Display, EnumString, IntoStaticStr, VariantNames,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case", const_into_str)]
pub enum PixelScaling {
    /// x/255.
    Unit,
    /// x/127.5 - 1.
    Symmetric,
    /// (x/255 - mean) / deviation with ImageNet's channel means .485 .456 .406 and standard deviations .229 .224 .225.
    Imagenet,
}

impl PixelScaling {
    /// Divisor, means and standard deviations by channel, in this order: `(x / divisor - mean) / deviation`.
    pub fn constants(self) -> (f32, [f32; 3], [f32; 3]) {
        match self {
            Self::Unit => (255.0, [0.0; 3], [1.0; 3]),
            Self::Symmetric => (127.5, [1.0; 3], [1.0; 3]),
            Self::Imagenet => (255.0, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        }
    }
}

/// Whether average pooling divides by the full window.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, Display, EnumString, IntoStaticStr, VariantNames,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case", const_into_str)]
pub enum PoolPadding {
    /// Divide by the window's size (torchvision, timm).
    Counted,
    /// Divide by the number of pixels inside the image (Keras).
    Excluded,
}

/// How deep the backbone is frozen.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FreezeTo {
    /// Everything is trained.
    None,
    /// Frozen up to and including this stage; if it is the tap or a later one, only the head is trained.
    Stage(String),
    /// Only the head is trained.
    All,
}

/// Batch norm in unfrozen pretrained layers.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, Display, EnumString, IntoStaticStr, VariantNames,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case", const_into_str)]
pub enum BatchNormMode {
    /// Inference mode: running statistics are used and stay as they are; scale and shift are trained.
    Frozen,
    /// Batch statistics in training, running statistics updated.
    Train,
}

/// Number format of the feature cache.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, Display, EnumString, IntoStaticStr, VariantNames,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case", const_into_str)]
pub enum CachePrecision {
    F32,
    F16,
}

/// The head of a trial.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HeadSpec {
    /// Which head.
    pub kind: HeadKind,
    /// Dropout probability before each dense layer, 0..1.
    pub dropout: f64,
    /// Units of the hidden layer ([`HeadKind::Hidden`] only).
    pub hidden_units: u32,
}

/// A head's shape; both begin with global average pooling and batch norm.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, Display, EnumString, IntoStaticStr, VariantNames,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case", const_into_str)]
pub enum HeadKind {
    /// Pool, batch norm, dropout, dense.
    Linear,
    /// Pool, batch norm, dropout, dense, ReLU, dropout, dense.
    Hidden,
}
