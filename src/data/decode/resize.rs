//! Luminance, resizing, orientation.

use crate::spec::ColourMode;
use fast_image_resize::images::{TypedImage, TypedImageRef};
use fast_image_resize::pixels::{U8, U8x3, U16, U16x3};
use fast_image_resize::{FilterType, PixelTrait, ResizeAlg, ResizeOptions, Resizer};
use image::metadata::Orientation;
use image::{DynamicImage, GrayImage, ImageBuffer, Luma, Pixel, Rgb, RgbImage};
use std::cell::RefCell;

thread_local! {
    /// Keeps its coefficient and intermediate buffers from image to image.
    static RESIZER: RefCell<Resizer> = RefCell::new(Resizer::new());
}

/// The image resized to `width * height` pixels of one or three channels.
pub(super) fn resize(image: DynamicImage, size: (u32, u32), colour: ColourMode) -> Vec<u8> {
    use image::ColorType::{L16, La16, Rgb16, Rgba16};
    let wide = matches!(image.color(), L16 | La16 | Rgb16 | Rgba16);
    match (colour, wide) {
        (ColourMode::Grey, false) => {
            let grey = match image {
                DynamicImage::ImageLuma8(_) => image,
                other => luminance(&other.into_rgb8()).into(),
            };
            resized::<U8, 1>(&grey, size, |p| [p.0])
        }
        (ColourMode::Grey, true) => {
            let grey = match image {
                DynamicImage::ImageLuma16(_) => image,
                other => luminance(&other.into_rgb16()).into(),
            };
            resized::<U16, 1>(&grey, size, |p| [narrow(p.0)])
        }
        (ColourMode::Rgb, false) => resized::<U8x3, 3>(&image.into_rgb8().into(), size, |p| p.0),
        (ColourMode::Rgb, true) => resized::<U16x3, 3>(&image.into_rgb16().into(), size, |p| p.0.map(narrow)),
    }
}

/// 16 bits to 8 over the full range, rounded to the nearest.
fn narrow(value: u16) -> u8 {
    ((u32::from(value) + 128) / 257) as u8
}

/// Rec. 601 luminance in 16-bit fixed point, bit-identical to Pillow's `convert("L")`.
fn luminance<S>(image: &ImageBuffer<Rgb<S>, Vec<S>>) -> ImageBuffer<Luma<S>, Vec<S>>
where
    Rgb<S>: Pixel<Subpixel = S>,
    S: image::Primitive + Into<u64> + TryFrom<u64> + 'static,
    Luma<S>: Pixel<Subpixel = S>,
{
    let grey = |p: &Rgb<S>| {
        let [r, g, b] = p.0.map(Into::<u64>::into);
        // The weights sum to 2^16, so the result always fits.
        S::try_from((r * 19_595 + g * 38_470 + b * 7_471 + 0x8000) >> 16).unwrap_or(S::DEFAULT_MAX_VALUE)
    };
    let pixels = image.pixels().map(grey).collect();
    ImageBuffer::from_raw(image.width(), image.height(), pixels).unwrap_or_default()
}

fn resized<P: PixelTrait + Default, const N: usize>(
    image: &DynamicImage,
    size: (u32, u32),
    finish: impl Fn(&P) -> [u8; N],
) -> Vec<u8> {
    let (width, height) = (image.width(), image.height());
    let source = TypedImageRef::<P>::from_buffer(width, height, image.as_bytes()).expect("pixels of this very type");
    if (width, height) == size {
        return source.pixels().iter().flat_map(finish).collect();
    }
    let mut target = TypedImage::<P>::new(size.0, size.1);
    let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::Bilinear)).use_alpha(false);
    RESIZER.with_borrow_mut(|resizer| {
        resizer.resize_typed(&source, &mut target, &options).expect("whole images have no crop box to be wrong")
    });
    target.pixels().iter().flat_map(finish).collect()
}

/// The square rotated and mirrored according to its EXIF orientation.
pub(super) fn oriented(pixels: Vec<u8>, size: usize, colour: ColourMode, orientation: Orientation) -> Vec<u8> {
    if orientation == Orientation::NoTransforms {
        return pixels;
    }
    let side = size as u32;
    let image = match colour {
        ColourMode::Grey => GrayImage::from_raw(side, side, pixels).map(DynamicImage::from),
        ColourMode::Rgb => RgbImage::from_raw(side, side, pixels).map(DynamicImage::from),
    };
    let mut image = image.expect("as many pixels as the square has");
    image.apply_orientation(orientation);
    image.into_bytes()
}
