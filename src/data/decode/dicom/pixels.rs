//! From the pixel data element in its transfer syntax to one code a sample.

use super::object::{self, Object};
use super::samples::{Coding, Layout, Samples, coding, syntax_name};
use super::{DicomError, jpeg, jpeg2000, rle};
use std::borrow::Cow;

/// Decodes the pixel data element.
pub(super) fn decoded(object: &Object, layout: &Layout) -> Result<Samples, DicomError> {
    let syntax = object.meta().transfer_syntax.trim_end_matches(['\0', ' ']);
    match coding(syntax).ok_or_else(|| DicomError::Syntax(syntax_name(syntax)))? {
        Coding::Native => {
            let element = object.get(object::PIXELS).ok_or(DicomError::Missing("Pixel Data"))?;
            let bytes = element.to_bytes().map_err(|_| DicomError::Missing("Pixel Data"))?;
            native(&bytes, layout)
        }
        Coding::Encapsulated => native(&stream(object)?, layout),
        Coding::RunLength => {
            let planes = rle::decoded(&stream(object)?, layout.pixels(), layout.samples * layout.bytes)?;
            Ok(Samples { codes: rle::joined(&planes, layout), ..Samples::of(layout) })
        }
        Coding::Jpeg => jpeg::decoded(&stream(object)?, layout, layout.ycc()),
        Coding::Jpeg2000 => jpeg2000::decoded(&stream(object)?, layout, layout.ycc()),
    }
}

/// The compressed stream: all fragments, as there is one frame.
fn stream(object: &Object) -> Result<Cow<'_, [u8]>, DicomError> {
    let fragments = object.get(object::PIXELS).and_then(|e| e.value().fragments());
    match fragments.ok_or(DicomError::Missing("Pixel Data"))? {
        [one] => Ok(Cow::Borrowed(one)),
        many => Ok(Cow::Owned(many.concat())),
    }
}

fn native(bytes: &[u8], layout: &Layout) -> Result<Samples, DicomError> {
    let pixels = layout.pixels();
    let halved = layout.photometric == "YBR_FULL_422";
    // Two pixels share their chrominances: Y Y Cb Cr.
    let wanted = if halved { pixels.next_multiple_of(2) * 2 } else { pixels * layout.samples } * layout.bytes;
    let bytes = bytes.get(..wanted).ok_or(DicomError::Short { found: bytes.len(), wanted })?;
    let mut codes: Vec<u16> = if layout.bytes == 1 {
        bytes.iter().map(|&b| layout.code(b.into())).collect()
    } else {
        bytes.chunks_exact(2).map(|b| layout.code(u16::from_le_bytes([b[0], b[1]]))).collect()
    };
    if halved {
        codes = codes.chunks_exact(4).flat_map(|c| [c[0], c[2], c[3], c[1], c[2], c[3]]).collect();
        codes.truncate(pixels * 3);
    } else if layout.samples == 3 && layout.planar {
        codes = (0..pixels).flat_map(|i| [codes[i], codes[pixels + i], codes[2 * pixels + i]]).collect();
    }
    Ok(Samples { codes, ..Samples::of(layout) })
}
