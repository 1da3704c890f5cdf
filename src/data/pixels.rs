//! What the training loop needs to know about images.

use crate::digest::Digest;
use crate::spec::Window;

/// One usable image of a data set.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ImageRecord {
    /// Path relative to the data set's root, `/`-separated: its name in predictions.
    pub path: String,
    /// Index of its class.
    pub class: u32,
    /// Its patient, where known: a name from the manifest or the file name, or for DICOM a digest that says only which
    /// files have the same patient.
    pub patient: Option<String>,
    /// Digest of the file's bytes (synthetic images: of the pixels).
    pub digest: Digest,
}

/// Decoded images: `size x size`, one or three channels, u8, in memory or memory-mapped.
pub trait PixelSource: Send + Sync {
    /// The images, in a fixed order.
    fn records(&self) -> &[ImageRecord];
    /// Side in pixels.
    fn size(&self) -> usize;
    /// 1 (grey) or 3.
    fn channels(&self) -> usize;
    /// Which values of images of more than 8 bits became black and white.
    fn window(&self) -> Window;
    /// The pixels of image `index`, row-major, channels last.
    fn pixels(&self, index: usize) -> &[u8];
}
