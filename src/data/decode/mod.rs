//! From a file's bytes to a square of u8 pixels: decoding, luminance, antialiased resizing, orientation.
//!
//! The whole image is taken, whatever its shape, and scaled to the square. Grey is Pillow's `convert("L")` (Rec. 601
//! in 16-bit fixed point), resizing Pillow's `BILINEAR` (a triangle filter as wide as the reduction), so features of
//! networks trained with either agree. 16 bits are brought to 8 after the resizing, over their full range. Alpha
//! is left out, as Pillow does.

mod jpeg;
mod pace;
mod resize;

use crate::spec::ColourMode;
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader};
use pace::MEMORY;
use std::io::Cursor;
use std::path::Path;

/// Raised whenever the same bytes would give other pixels: part of the name of every stored set.
pub const DECODER_VERSION: u32 = 1;

/// Images of more pixels than this are refused as decompression bombs: Pillow's limit, twice 2^30 / 4 / 3 pixels.
pub const MAX_PIXELS: u64 = 178_956_970;

/// Decodes a JPEG or PNG file, recognised by content, into `size * size` pixels of one (grey) or three channels.
///
/// # Errors
/// Whatever the bytes hold, the reason why they are no usable image; never a panic.
pub fn decode(bytes: &[u8], size: usize, colour: ColourMode) -> Result<Vec<u8>, DecodeError> {
    let format = recognise(bytes)?;
    if format == ImageFormat::Jpeg {
        jpeg::check_complete(bytes)?;
    }
    let broken = |source: image::ImageError| DecodeError::Broken { format: name(format), source };
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    // The limit on pixels is ours, below; the reader's own, on bytes, would refuse large 16-bit images.
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
    let _turn = MEMORY.wait_for(decoder.total_bytes());
    let image = DynamicImage::from_decoder(decoder).map_err(broken)?;
    let square = resize::to_square(image, size, colour);
    // A square may be turned after the resizing as well as before, and has fewer pixels.
    Ok(resize::oriented(square, size, colour, orientation))
}

/// Width and height that the head of a file gives, in pixels; `None` if it is no image that is read.
pub fn dimensions(file: &Path) -> Option<(u32, u32)> {
    ImageReader::open(file).ok()?.with_guessed_format().ok()?.into_dimensions().ok()
}

/// Channels of pixels read in this mode.
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
        Err(_) if bytes.get(128..132) == Some(b"DICM") => Err(DecodeError::OtherFormat { format: "DICOM" }),
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
    /// Neither JPEG nor PNG nor anything known, whatever its name.
    #[error("is not an image")]
    NotAnImage,
    /// A known format that is not read.
    #[error("is a {format} file: convert it to PNG or JPEG")]
    OtherFormat { format: &'static str },
    /// A side of length 0.
    #[error("has {width} x {height} pixels")]
    NoPixels { width: u32, height: u32 },
    /// A decompression bomb, or a mistake.
    #[error("has {width} x {height} pixels, more than the {MAX_PIXELS} that are read: make it smaller")]
    TooLarge { width: u32, height: u32 },
    /// The JPEG stream ends early.
    #[error("is a truncated JPEG: {0}")]
    Truncated(&'static str),
    /// The decoder gave up.
    #[error("is a broken {format}: {source}")]
    Broken { format: &'static str, source: image::ImageError },
}
