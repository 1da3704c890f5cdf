//! DICOM files of one frame: from stored values to grey or colour, as a viewer shows them.
//!
//! [`dicom_object`] reads the file; the compressed streams are decoded here, by `jpeg-decoder`, OpenJPEG and a run-length
//! decoder, each checked against the header before it may allocate. Grey values then take the standard's three steps
//! (PS3.3 C.11): modality (rescale or table), values of interest (window or table), presentation (inversion), in 16
//! bits, so that the precision lasts until after resizing.

mod colour;
mod error;
mod guard;
mod header;
mod jpeg;
mod jpeg2000;
mod object;
mod pixels;
mod rle;
mod samples;
mod shade;

pub use error::DicomError;
pub use header::Header;

use super::pace::{MEMORY, Permit};
use crate::spec::Window;
use image::DynamicImage;

/// Whether a file that begins with these bytes (at least 132 of them) is a DICOM file.
pub(super) fn recognised(head: &[u8]) -> bool {
    head.get(128..132) == Some(b"DICM")
}

/// Runs what reads a file with other people's code: should it panic, that is an error of the file.
fn guarded<T>(read: impl FnOnce() -> Result<T, DicomError>) -> Result<T, DicomError> {
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(read));
    caught.unwrap_or_else(|_| Err(DicomError::Broken(UNFORESEEN.to_owned())))
}

/// In the reason of a file that made a decoder panic.
const UNFORESEEN: &str = "it is damaged in an unforeseen way";

/// The picture in a DICOM file, 16-bit grey or RGB, and its share of memory.
pub(super) fn decode(bytes: &[u8], window: Window) -> Result<(DynamicImage, Permit<'static>), DicomError> {
    guarded(|| decode_any(bytes, window))
}

fn decode_any(bytes: &[u8], window: Window) -> Result<(DynamicImage, Permit<'static>), DicomError> {
    let object = object::open(bytes)?;
    let layout = samples::Layout::of(&object)?;
    // Codes, and 16-bit output or its equal in 8-bit colours, beside the file's values.
    let permit = MEMORY.wait_for(bytes.len() as u64 + layout.pixels() as u64 * layout.samples as u64 * 6);
    let samples = pixels::decoded(&object, &layout)?;
    if layout.samples == 3 {
        return Ok((colour::image(&samples, &layout), permit));
    }
    let shading = shade::Shading::of(&object, &layout, &samples)?;
    Ok((shading.image(&samples, &layout, window), permit))
}
