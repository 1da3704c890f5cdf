//! Colour samples to RGB.

use super::samples::{Layout, Samples};
use image::{DynamicImage, RgbImage};

/// The picture: 8 bits a channel, or 16 where the samples have more than 8.
pub(super) fn image(samples: &Samples, layout: &Layout) -> DynamicImage {
    let (width, height) = (layout.width, layout.height);
    let top = f64::from((1u32 << samples.bits) - 1);
    let rgb = |code: &[u16]| -> [f64; 3] {
        let values = [0, 1, 2].map(|c| f64::from(code[c]));
        if samples.ycc { from_ycc(values, top) } else { values }
    };
    let pixels = samples.codes.chunks_exact(3).map(rgb);
    if samples.bits <= 8 {
        let channel = |v: f64| (v * 255.0 / top).round() as u8;
        let picture = RgbImage::from_raw(width, height, pixels.flat_map(|p| p.map(channel)).collect());
        picture.map(DynamicImage::from).unwrap_or_default()
    } else {
        let channel = |v: f64| (v * 65535.0 / top).round() as u16;
        let data: Vec<u16> = pixels.flat_map(|p| p.map(channel)).collect();
        image::ImageBuffer::from_raw(width, height, data).map(DynamicImage::ImageRgb16).unwrap_or_default()
    }
}

/// YBR_FULL to RGB (PS3.3 C.7.6.3.1.2, the inverse of Rec. 601 over the full range).
fn from_ycc([y, cb, cr]: [f64; 3], top: f64) -> [f64; 3] {
    let (cb, cr) = (cb - (top + 1.0) / 2.0, cr - (top + 1.0) / 2.0);
    let rgb = [y + 1.402 * cr, y - 0.114 * 1.772 / 0.587 * cb - 0.299 * 1.402 / 0.587 * cr, y + 1.772 * cb];
    rgb.map(|v| v.clamp(0.0, top))
}
