//! Augmentation: what may happen to a training image.

use serde::{Deserialize, Serialize};

/// Ranges at strength 1; every range is multiplied by `strength`.
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
    /// Where views come from.
    pub views: Views,
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
