//! Images: manifest, split, decoding, augmentation, prefetching, and the prefix cache.

mod pixels;

pub use pixels::{ImageRecord, PixelSource};
