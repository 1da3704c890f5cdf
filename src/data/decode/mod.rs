//! From a file's bytes to a square of u8 pixels: decoding, luminance, antialiased resizing, orientation.
//!
//! The whole image is scaled to the square, whatever its aspect ratio. Grey is Pillow's `convert("L")` (Rec. 601 in
//! 16-bit fixed point) and resizing Pillow's `BILINEAR` (a triangle filter as wide as the reduction), so that the input
//! agrees with that of networks trained with Pillow. 16-bit values, after their window, are reduced to 8 bits after
//! resizing. Alpha is ignored, as in Pillow.

mod appearance;
mod dicom;
mod jpeg;
mod pace;
mod probe;
mod resize;
mod window;

pub use appearance::{Appearance, QUANTILES};
pub use dicom::{DicomError, Header};
pub use probe::{Kind, Salt, is_dicom};
pub(super) use probe::{probe, wide_range};

use crate::spec::{ColourMode, Window};
use appearance::colourfulness;
use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader};
use pace::{MEMORY, Permit};
use std::io::Cursor;
use window::{Curve, grey16};

/// Raised whenever the same bytes would give other pixels: part of the key of all cached pixels and features.
pub const DECODER_VERSION: u32 = 2;

/// Images of more pixels than this are refused as decompression bombs: Pillow's limit, twice 2^30 / 4 / 3 pixels.
pub const MAX_PIXELS: u64 = 178_956_970;

/// Decodes a JPEG, PNG or DICOM file, recognised by content, into `size * size` pixels of one (grey) or three channels.
/// `window` says which values of more than 8 bits become black and white.
///
/// # Errors
/// The reason why the bytes are not a usable image. Never panics, whatever the bytes.
pub fn decode(bytes: &[u8], size: usize, colour: ColourMode, window: Window) -> Result<Vec<u8>, DecodeError> {
    Ok(decode_and_look(bytes, size, colour, window)?.0)
}

/// The same, and what the picture looked like before it was resized.
///
/// # Errors
/// As [`decode`].
pub fn decode_and_look(
    bytes: &[u8],
    size: usize,
    colour: ColourMode,
    window: Window,
) -> Result<(Vec<u8>, Appearance), DecodeError> {
    let (image, orientation, _permit) = picture(bytes, window)?;
    let shown = match orientation {
        Orientation::Rotate90 | Orientation::Rotate270 | Orientation::Rotate90FlipH | Orientation::Rotate270FlipH => {
            [image.height(), image.width()]
        }
        _ => [image.width(), image.height()],
    };
    let colourful = colourfulness(&image);
    let square = resize::resize(image, (size as u32, size as u32), colour);
    // A square can be oriented after resizing as well as before, and then has fewer pixels.
    let pixels = resize::oriented(square, size, colour, orientation);
    let appearance = Appearance::new(shown, colourful, &pixels, channels(colour));
    Ok((pixels, appearance))
}

/// The same in the image's own size and, for JPEG, without its orientation: width, height and pixels, to compare with other
/// decoders.
///
/// # Errors
/// As [`decode`].
pub fn decode_whole(bytes: &[u8], colour: ColourMode, window: Window) -> Result<(u32, u32, Vec<u8>), DecodeError> {
    let (image, _, _permit) = picture(bytes, window)?;
    let (width, height) = (image.width(), image.height());
    Ok((width, height, resize::resize(image, (width, height), colour)))
}

/// The picture in its own size, how it must be turned, and its share of memory.
fn picture(bytes: &[u8], window: Window) -> Result<(DynamicImage, Orientation, Permit<'static>), DecodeError> {
    if dicom::recognised(bytes) {
        let (image, permit) = dicom::decode(bytes, window)?;
        return Ok((image, Orientation::NoTransforms, permit));
    }
    let format = recognise(bytes)?;
    if format == ImageFormat::Jpeg {
        jpeg::check_complete(bytes)?;
    }
    let broken = |source: image::ImageError| DecodeError::Broken { format: name(format), source };
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    // `MAX_PIXELS` is checked below; the reader's own limit, on bytes, would refuse large 16-bit images.
    reader.no_limits();
    let mut decoder = reader.into_decoder().map_err(broken)?;
    let (width, height) = decoder.dimensions();
    let pixels = u64::from(width) * u64::from(height);
    if pixels == 0 {
        return Err(DecodeError::NoPixels { width, height });
    }
    if pixels > MAX_PIXELS {
        return Err(DecodeError::TooLarge { width, height });
    }
    let orientation = decoder.orientation().map_err(broken)?;
    let permit = MEMORY.wait_for(decoder.total_bytes());
    let image = DynamicImage::from_decoder(decoder).map_err(broken)?;
    Ok((windowed(image, window), orientation, permit))
}

/// A grey picture of 16 bits with its window applied; any other as it is.
fn windowed(image: DynamicImage, window: Window) -> DynamicImage {
    let curve = match window {
        Window::File => return image,
        Window::Range => None,
        Window::Level { center, width } => Some(Curve::Linear { center, width }),
    };
    if !matches!(image, DynamicImage::ImageLuma16(_) | DynamicImage::ImageLumaA16(_)) {
        return image;
    }
    let mut grey = image.into_luma16();
    let pixels = grey16(grey.as_raw(), 16, |code| Some(code.into()), curve, false);
    grey.copy_from_slice(&pixels);
    grey.into()
}

/// Channels per pixel in this colour mode.
pub fn channels(colour: ColourMode) -> usize {
    match colour {
        ColourMode::Grey => 1,
        ColourMode::Rgb => 3,
    }
}

fn recognise(bytes: &[u8]) -> Result<ImageFormat, DecodeError> {
    if bytes.is_empty() {
        return Err(DecodeError::Empty);
    }
    match image::guess_format(bytes) {
        Ok(format @ (ImageFormat::Jpeg | ImageFormat::Png)) => Ok(format),
        Ok(other) => Err(DecodeError::OtherFormat { format: name(other) }),
        Err(_) => Err(DecodeError::NotAnImage),
    }
}

fn name(format: ImageFormat) -> &'static str {
    match format {
        ImageFormat::Jpeg => "JPEG",
        ImageFormat::Png => "PNG",
        other => other.extensions_str().first().copied().unwrap_or("unknown"),
    }
}

/// Why a file is no usable image. The words follow the file's name: `x.png: is empty`.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// No bytes.
    #[error("is empty")]
    Empty,
    /// Neither JPEG nor PNG nor DICOM nor anything known, whatever its name.
    #[error("is not an image")]
    NotAnImage,
    /// A known format that is not supported.
    #[error("is a {format} file: convert it to PNG or JPEG")]
    OtherFormat { format: &'static str },
    /// A side of length 0.
    #[error("has {width} x {height} pixels")]
    NoPixels { width: u32, height: u32 },
    /// More than [`MAX_PIXELS`]: a decompression bomb, or a mistake.
    #[error("has {width} x {height} pixels, more than the {MAX_PIXELS} that are read: make it smaller")]
    TooLarge { width: u32, height: u32 },
    /// The JPEG stream ends early.
    #[error("is a truncated JPEG: {0}")]
    Truncated(&'static str),
    /// A DICOM file that cannot be read, or should not be.
    #[error(transparent)]
    Dicom(#[from] DicomError),
    /// The decoder failed.
    #[error("is a broken {format}: {source}")]
    Broken { format: &'static str, source: image::ImageError },
}
