//! Augmentation: what may happen to a training image.

use serde::{Deserialize, Serialize};

/// Ranges at strength 1; every range is multiplied by `strength`.
///
/// Later ranges are left out of records where they are 0, so that studies from before they existed keep their identity.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AugmentSpec {
    /// 0: off, 1: the full ranges below.
    pub strength: f64,
    /// Probability of a horizontal flip, 0..=1.
    pub flip: f64,
    /// Largest rotation either way, in degrees, 0..=20 by default, up to 180.
    pub rotation: f64,
    /// Largest relative change of brightness either way, 0..1.
    pub brightness: f64,
    /// Largest weight of the edge image (Sobel magnitude) added to the image, 0..1.
    pub edges: f64,
    /// Probability of a vertical flip, 0..=1; for images without an up or down.
    #[serde(default, skip_serializing_if = "crate::spec::is_default")]
    pub vertical_flip: f64,
    /// Probability of a turn by 90, 180 or 270 degrees, 0..=1; for images without an up or down.
    #[serde(default, skip_serializing_if = "crate::spec::is_default")]
    pub quarter_turns: f64,
    /// Largest relative change of size either way, 0..1.
    #[serde(default, skip_serializing_if = "crate::spec::is_default")]
    pub zoom: f64,
    /// Largest displacement either way along each axis, as a share of the side, 0..1.
    #[serde(default, skip_serializing_if = "crate::spec::is_default")]
    pub shift: f64,
    /// Largest relative change of contrast about the mean either way, 0..1.
    #[serde(default, skip_serializing_if = "crate::spec::is_default")]
    pub contrast: f64,
    /// Largest standard deviation of Gaussian noise, as a share of the range of values, 0..=1.
    #[serde(default, skip_serializing_if = "crate::spec::is_default")]
    pub noise: f64,
    /// Where views come from.
    pub views: Views,
}

impl Default for AugmentSpec {
    /// What a study file without `[augment]` says.
    fn default() -> Self {
        Self {
            strength: 0.0,
            flip: 0.5,
            rotation: 20.0,
            brightness: 0.2,
            edges: 0.3,
            vertical_flip: 0.0,
            quarter_turns: 0.0,
            zoom: 0.0,
            shift: 0.0,
            contrast: 0.0,
            noise: 0.0,
            views: Views::Bank(8),
        }
    }
}

impl AugmentSpec {
    /// The ranges that `strength` scales, in the order of keys on disk: new ones are appended.
    pub fn ranges(&self) -> [f64; 10] {
        let &Self {
            strength: _,
            flip,
            rotation,
            brightness,
            edges,
            vertical_flip,
            quarter_turns,
            zoom,
            shift,
            contrast,
            noise,
            views: _,
        } = self;
        [flip, rotation, brightness, edges, vertical_flip, quarter_turns, zoom, shift, contrast, noise]
    }

    /// Whether every view is the original image.
    pub fn is_off(&self) -> bool {
        self.strength == 0.0 || self.ranges().iter().all(|range| *range == 0.0)
    }
}

/// Where augmented views of an image come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Views {
    /// A bank of this many views per image, shared by epochs and by trials of equal strength; cacheable.
    Bank(u32),
    /// New draws for every image, epoch and trial; never cached.
    Fresh,
}
