//! Requests to the cache, and the keys under which features are stored.

use super::FeatureError;
use crate::data::augment::View;
use crate::data::decode::DECODER_VERSION;
use crate::data::{ImageRecord, PixelSource};
use crate::digest::Digest;
use crate::nn::Backbone;
use crate::spec::{AugmentSpec, CachePrecision, NetworkSpec, PixelScaling, Window};
use candle_core::Device;
use serde::Serialize;

/// Part of every key: raised whenever rendering, pooling or the files change, so that old rows are never used for new
/// requests.
const VERSION: &str = "hpsearch features 3";

/// A request for the frozen features of some images in one view.
#[derive(Clone, Copy)]
pub struct FeatureRequest<'a> {
    /// The network.
    pub backbone: &'a dyn Backbone,
    /// The device that the network runs on.
    pub device: &'a Device,
    /// Digest of all that determines the network's output for a given input: see [`network_digest`].
    pub weights: Digest,
    /// How many stages are frozen. At cut 0 the features are the scaled image.
    pub cut: usize,
    /// Averages over height and width instead of whole feature maps.
    pub pooled: bool,
    /// Other cuts whose averages of the same images and view will be requested: if averages have to be computed, one
    /// forward pass stores those of all these cuts.
    pub also: &'a [usize],
    /// Number format on disk. Features are returned as f32; under `F16` every value is rounded to the nearest f16,
    /// cached or not.
    pub precision: CachePrecision,
    /// The images.
    pub source: &'a dyn PixelSource,
    /// Side in pixels at which the network sees them: that of the source, or a smaller one, to which they are reduced.
    pub side: usize,
    /// The pixel scaling that the weights expect.
    pub scaling: PixelScaling,
    /// Which images, by index into the source's records; the features come in this order. May repeat.
    pub images: &'a [usize],
    /// Which view of them.
    pub view: View,
    /// Ranges of augmented views; ignored for [`View::Original`].
    pub augment: &'a AugmentSpec,
    /// The study's seed; ignored for [`View::Original`].
    pub seed: u64,
}

/// The digest of all that determines a frozen network's output: tensors (by their digest), architecture, width, pool
/// padding, and the `arithmetic` (device and instruction set, such as `cpu avx512`), since equal formulas round
/// differently on different hardware.
pub fn network_digest(tensors: Digest, network: &NetworkSpec, arithmetic: &str) -> Digest {
    Digest::of_parts([
        ("tensors", tensors.as_bytes().as_slice()),
        ("architecture", network.architecture_key().as_bytes()),
        ("arithmetic", arithmetic.as_bytes()),
    ])
}

/// What a shelf of the cache holds; its digest is the shelf's key.
#[derive(Clone, Debug, PartialEq, Serialize, serde::Deserialize)]
pub struct Shelved {
    /// Version of the cache and of decoding.
    version: (String, String, u32),
    /// See [`network_digest`].
    pub network: Digest,
    /// Frozen stages.
    pub cut: usize,
    /// Whether the features are averages, not whole maps.
    pub pooled: bool,
    /// Number format.
    pub precision: CachePrecision,
    /// Side of the images in pixels.
    pub size: usize,
    /// To what side they are reduced for the network, if they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reduced: Option<usize>,
    /// Their channels.
    pub channels: usize,
    /// Which of their values became black and white.
    #[serde(default, skip_serializing_if = "Window::is_file")]
    pub window: Window,
    /// Scaling of their pixels.
    pub scaling: PixelScaling,
    /// Seed, number of the view, and [`AugmentSpec::ranges_key`]; `None` for the original.
    pub view: Option<(u64, u32, Vec<u64>)>,
}

fn version() -> (String, String, u32) {
    (VERSION.to_owned(), env!("CARGO_PKG_VERSION").to_owned(), DECODER_VERSION)
}

impl Shelved {
    /// The key: equal for equal contents.
    pub(super) fn key(&self) -> Digest {
        // A struct of plain values always serialises.
        Digest::of(serde_json::to_string(self).unwrap_or_default().as_bytes())
    }

    /// Whether this version of the program can still request it.
    pub(super) fn is_current(&self) -> bool {
        self.version == version()
    }

    /// The same images and view at another cut or in another form.
    pub(super) fn at(&self, cut: usize, pooled: bool, precision: CachePrecision) -> Self {
        Self { cut, pooled, precision, ..self.clone() }
    }
}

impl FeatureRequest<'_> {
    /// The description of the shelf that holds this request's features.
    ///
    /// # Errors
    /// [`FeatureError::Fresh`] for a view that cannot be shared.
    pub(super) fn shelved(&self) -> Result<Shelved, FeatureError> {
        let view = match self.view {
            View::Fresh { .. } => return Err(FeatureError::Fresh),
            View::Original => None,
            View::Bank { view } => self.augment.ranges_key().map(|ranges| (self.seed, view, ranges)),
        };
        Ok(Shelved {
            version: version(),
            network: self.weights,
            cut: self.cut,
            pooled: self.pooled,
            precision: self.precision,
            size: self.source.size(),
            reduced: (self.side != self.source.size()).then_some(self.side),
            channels: self.source.channels(),
            window: self.source.window(),
            scaling: self.scaling,
            view,
        })
    }

    /// Shape of one image's features: `[C]` if pooled, else `[H, W, C]`.
    ///
    /// # Errors
    /// If the network has no such stage, or the images are too small for it.
    pub fn shape(&self) -> Result<Vec<usize>, FeatureError> {
        let [side, _, channels] = self.map_at(self.cut)?;
        Ok(if self.pooled { vec![channels] } else { vec![side, side, channels] })
    }

    /// Shape of one image's feature map after `cut` stages.
    pub(super) fn map_at(&self, cut: usize) -> Result<[usize; 3], FeatureError> {
        let stages = self.backbone.stages();
        let channels = match cut.checked_sub(1) {
            None => 3,
            Some(last) => stages.get(last).ok_or(FeatureError::NoSuchStage { cut, stages: stages.len() })?.channels,
        };
        let size = self.side;
        let side = self.backbone.side_at(cut, size).ok_or(FeatureError::ImageTooSmall { cut, size })?;
        Ok([side, side, channels])
    }

    pub(super) fn record(&self, index: usize) -> Result<&ImageRecord, FeatureError> {
        let records = self.source.records();
        records.get(index).ok_or(FeatureError::NoSuchImage { index, count: records.len() })
    }
}

/// Bytes of one value.
pub(super) fn value_bytes(precision: CachePrecision) -> usize {
    match precision {
        CachePrecision::F32 => 4,
        CachePrecision::F16 => 2,
    }
}

/// Bytes on disk of `views` views of `images` different images whose features have this shape. Accurate to a few
/// KiB per segment.
pub fn predicted_bytes(shape: &[usize], images: usize, views: usize, precision: CachePrecision) -> u64 {
    let row = shape.iter().product::<usize>() * value_bytes(precision) + super::segment::ENTRY;
    (row * images * views) as u64
}
