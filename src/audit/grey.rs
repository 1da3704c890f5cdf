//! Grey levels of pictures.

use crate::data::{DataSet, PixelSource};

/// Grey levels of an image, row after row.
pub fn grey(images: &DataSet, i: usize) -> Vec<u8> {
    let channels = images.channels();
    let mean = |p: &[u8]| (p.iter().map(|&v| u32::from(v)).sum::<u32>() / p.len() as u32) as u8;
    images.pixels(i).chunks_exact(channels).map(mean).collect()
}
