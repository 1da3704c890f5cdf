//! Heat maps over images, as PNG.

use super::render::DrawError;
use crate::nn::attribution::HeatMap;
use image::imageops::{self, FilterType};
use image::{ImageFormat, Rgb, RgbImage};
use plotters::style::colors::colormaps::ViridisRGB;
use std::io::Cursor;

/// Smaller images are enlarged by a whole factor to at least this side, in pixels.
const SMALLEST: usize = 256;
/// Between the image and the overlay, in pixels.
const GAP: u32 = 8;
/// The largest share of colour in a pixel, and the share of the largest contribution at which it is reached: where nothing
/// speaks for the class, the image stays as it is.
const COLOUR: f32 = 0.6;
const FULL: f32 = 0.5;

/// Draws an image of `side` pixels with 1 or 3 `channels`, and beside it the same image under the map's positive part: the
/// colours are viridis (perceptually uniform, and safe for the colour-blind), from 0 to the map's largest contribution,
/// which a ring marks. Nothing is drawn over the image if nothing speaks for the class.
///
/// # Errors
/// If encoding fails.
///
/// # Panics
/// If `pixels` is not `side * side * channels` long.
pub fn heat_map(pixels: &[u8], (side, channels): (usize, usize), map: &HeatMap) -> Result<Vec<u8>, DrawError> {
    assert_eq!(pixels.len(), side * side * channels, "pixels of a {side} px image with {channels} channels");
    let picture = RgbImage::from_fn(side as u32, side as u32, |x, y| {
        let pixel = &pixels[(y as usize * side + x as usize) * channels..][..channels];
        Rgb([0, 1, 2].map(|c| pixel[c % channels]))
    });
    let factor = SMALLEST.div_ceil(side);
    let shown = (side * factor) as u32;
    let picture = imageops::resize(&picture, shown, shown, FilterType::Triangle);
    let mut sheet = RgbImage::from_pixel(2 * shown + GAP, shown, Rgb([255; 3]));
    imageops::replace(&mut sheet, &picture, 0, 0);
    imageops::replace(&mut sheet, &picture, i64::from(shown + GAP), 0);
    if let Some((peak, largest)) = map.peak() {
        let radius = f64::from(shown) / 40.0;
        for y in 0..shown {
            for x in 0..shown {
                let place = [x, y].map(|v| (f64::from(v) + 0.5) / factor as f64);
                let from_peak = (place[0] - peak[0]).hypot(place[1] - peak[1]) * factor as f64;
                let pixel = sheet.get_pixel_mut(shown + GAP + x, y);
                match (from_peak - radius).abs() {
                    off if off < 1.0 => *pixel = Rgb([255; 3]),
                    off if off < 2.0 => *pixel = Rgb([0; 3]),
                    _ => tint(pixel, (map.at(place[0], place[1]) / largest).max(0.0)),
                }
            }
        }
    }
    let mut png = Cursor::new(Vec::new());
    sheet.write_to(&mut png, ImageFormat::Png).map_err(DrawError::Png)?;
    Ok(png.into_inner())
}

fn tint(pixel: &mut Rgb<u8>, strength: f32) {
    let colour = ViridisRGB::get_color_normalized(strength, 0.0, 1.0);
    let share = COLOUR * (strength / FULL).min(1.0);
    for (value, colour) in pixel.0.iter_mut().zip([colour.0, colour.1, colour.2]) {
        *value = (f32::from(*value) * (1.0 - share) + f32::from(colour) * share).round() as u8;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::Lattice;

    fn drawn(values: [f32; 4], side: usize, channels: usize) -> RgbImage {
        let map = HeatMap {
            values: values.into(),
            side: 2,
            lattice: Lattice { first: side as f64 / 4.0, step: side as f64 / 2.0 },
        };
        let pixels: Vec<u8> = (0..side * side * channels).map(|i| [90, 100, 110][i % channels]).collect();
        image::load_from_memory(&heat_map(&pixels, (side, channels), &map).unwrap()).unwrap().into_rgb8()
    }

    #[test]
    fn the_overlay_shows_what_speaks_for_the_class_and_marks_the_peak() {
        for (side, factor) in [(300, 1), (64, 4)] {
            let sheet = drawn([0.5, -3.0, 0.0, 2.0], side, 3);
            let shown = (side * factor) as u32;
            assert_eq!(sheet.dimensions(), (2 * shown + GAP, shown));
            let at = |x: u32, y: u32| sheet.get_pixel(x, y).0;
            let grey = [90, 100, 110];
            // The image is left alone, and so is the overlay where nothing speaks for the class.
            for (x, y) in [(0, 0), (shown / 2, shown / 2), (shown - 1, shown - 1), (2 * shown + GAP - 1, 0)] {
                assert_eq!(at(x, y), grey, "{x} {y}");
            }
            // At the peak the colour map's end, yellow; at the weaker place its lower part, blue.
            let peak = at(shown + GAP + 3 * shown / 4, 3 * shown / 4);
            assert!(peak[0] > 170 && peak[1] > 160 && peak[2] < 80, "{peak:?}");
            let weak = at(shown + GAP + 2, 2);
            assert!(weak[2] > weak[0] + 20 && weak[2] > weak[1] + 10, "{weak:?}");
            let ring = at(shown + GAP + 3 * shown / 4 + shown / 40, 3 * shown / 4);
            assert_eq!(ring, [255; 3]);
        }
    }

    #[test]
    fn a_map_without_anything_for_the_class_draws_nothing() {
        let sheet = drawn([-1.0, 0.0, -2.0, 0.0], 300, 1);
        let overlay = imageops::crop_imm(&sheet, 300 + GAP, 0, 300, 300).to_image();
        assert!(overlay.pixels().all(|p| p.0 == [90; 3]));
        let weaker = drawn([1.0, 0.0, 0.5, 0.0], 300, 1);
        assert_eq!(weaker, drawn([10.0, 0.0, 5.0, 0.0], 300, 1), "colours are relative to the largest contribution");
    }
}
