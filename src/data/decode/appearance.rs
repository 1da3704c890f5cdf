//! What a picture looks like from outside: its size, whether it has colour, and how its brightness is distributed. By these
//! images of another kind than those of a study are told, before any network sees them.

use image::{DynamicImage, GenericImageView};

/// Quantiles of the grey level that are kept.
pub const QUANTILES: usize = 16;

/// Points along each side at which colour is looked at.
const POINTS: u32 = 128;

/// What a picture looks like from outside.
#[derive(Clone, Debug, PartialEq)]
pub struct Appearance {
    /// Its own width and height in pixels, as it is shown.
    pub size: [u32; 2],
    /// The mean over its places of the difference between the largest and smallest of the three channels, 0..=1: 0 for grey.
    pub colour: f64,
    /// Quantiles of the grey level of the network's input, 0..=255, in the middle of each of [`QUANTILES`] equal shares.
    pub grey: [f32; QUANTILES],
}

impl Appearance {
    /// That of a decoded picture of this size.
    pub(in crate::data) fn new(size: [u32; 2], colour: f64, pixels: &[u8], channels: usize) -> Self {
        let mut counts = [0usize; 256];
        for pixel in pixels.chunks_exact(channels) {
            let sum: usize = pixel.iter().map(|&v| usize::from(v)).sum();
            counts[sum / channels] += 1;
        }
        let all = counts.iter().sum::<usize>() as f64;
        let (mut level, mut below) = (0, 0.0);
        let grey = std::array::from_fn(|i| {
            let rank = (i as f64 + 0.5) / QUANTILES as f64 * all;
            while level < 255 && below + counts[level] as f64 <= rank {
                below += counts[level] as f64;
                level += 1;
            }
            level as f32
        });
        Self { size, colour, grey }
    }

    /// Width over height.
    pub fn aspect(&self) -> f64 {
        f64::from(self.size[0]) / f64::from(self.size[1])
    }

    /// Wasserstein's distance between the grey levels of this picture and a distribution given by its quantiles, in grey
    /// levels: by how much its pixels would have to change on average.
    pub fn shift(&self, quantiles: &[f32; QUANTILES]) -> f64 {
        let each = self.grey.iter().zip(quantiles).map(|(a, b)| f64::from((a - b).abs()));
        each.sum::<f64>() / QUANTILES as f64
    }
}

/// See [`Appearance::colour`]; of a large picture, at evenly spaced places.
pub(super) fn colourfulness(image: &DynamicImage) -> f64 {
    if !image.color().has_color() {
        return 0.0;
    }
    let (width, height) = image.dimensions();
    let (columns, rows) = (width.min(POINTS), height.min(POINTS));
    let mut sum = 0.0;
    for row in 0..rows {
        for column in 0..columns {
            let place =
                |i: u32, of: u32, side: u32| (u64::from(2 * i + 1) * u64::from(side) / u64::from(2 * of)) as u32;
            let [r, g, b, _] = image.get_pixel(place(column, columns, width), place(row, rows, height)).0;
            sum += f64::from(r.max(g).max(b) - r.min(g).min(b)) / 255.0;
        }
    }
    sum / f64::from(columns * rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::{GrayImage, RgbImage};

    #[test]
    fn quantiles_and_their_shift_are_those_of_the_pixels() {
        let ramp: Vec<u8> = (0..=255).collect();
        let seen = Appearance::new([16, 16], 0.0, &ramp, 1);
        let expected: [f32; QUANTILES] = std::array::from_fn(|i| 8.0 + 16.0 * i as f32);
        assert_eq!(seen.grey, expected);
        let brighter: Vec<u8> = ramp.iter().map(|v| v.saturating_add(40)).collect();
        // The upper 40 levels are cut off: 40 on average, less 40 * 41 / 2 / 256.
        let shift = Appearance::new([16, 16], 0.0, &brighter, 1).shift(&expected);
        assert!((shift - 36.8).abs() < 0.5, "{shift}");
        let constant = Appearance::new([2, 2], 0.0, &[7; 12], 3);
        assert_eq!(constant.grey, [7.0; QUANTILES]);
        assert_eq!(constant.shift(&constant.grey), 0.0);
    }

    #[test]
    fn grey_pictures_have_no_colour_whatever_their_format() {
        assert_eq!(colourfulness(&GrayImage::new(3, 3).into()), 0.0);
        assert_eq!(colourfulness(&RgbImage::from_pixel(300, 2, image::Rgb([9, 9, 9])).into()), 0.0);
        let half = RgbImage::from_fn(600, 10, |x, _| image::Rgb(if x < 300 { [255, 0, 51] } else { [80, 80, 80] }));
        assert!((colourfulness(&half.into()) - 0.5).abs() < 0.01);
    }
}
