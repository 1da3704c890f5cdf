//! Images: manifest, split, decoding, augmentation, prefetching, and the prefix cache.

pub mod augment;
mod pixels;

pub use pixels::{ImageRecord, PixelSource};
