//! JPEG 2000 streams, with or without high throughput, of up to 16 bits.

use super::DicomError;
use super::samples::{Layout, Samples};
use jpeg2k::{DecodeParameters, Image};

/// The samples of a stream; `ycc`: whether the file's header says that its colours are luminance and chrominance which the
/// stream does not know of.
pub(super) fn decoded(stream: &[u8], layout: &Layout, ycc: bool) -> Result<Samples, DicomError> {
    let broken = |what: String| DicomError::Stream { format: "JPEG 2000", what };
    check(stream, layout).map_err(|what| broken(what.to_owned()))?;
    // Strict: a truncated stream is an error, not a picture with holes.
    let parameters = DecodeParameters::new().strict(true);
    let image = Image::from_bytes_with(stream, parameters).map_err(|e| broken(e.to_string()))?;
    let components = image.components();
    let (Some(first), true) = (components.first(), components.len() == layout.samples) else {
        return Err(broken(format!("it has {} components, unlike the header", components.len())));
    };
    let (bits, signed) = (first.precision(), first.is_signed());
    let alike = |c: &jpeg2k::ImageComponent| {
        (c.width(), c.height(), c.precision(), c.is_signed()) == (layout.width, layout.height, bits, signed)
    };
    if !components.iter().all(alike) || !(1..=16).contains(&bits) {
        return Err(broken("its components differ in size or precision".to_owned()));
    }
    let planes: Vec<&[i32]> = components.iter().map(|c| c.data()).collect();
    let mask = (1 << bits) - 1;
    let pixels = 0..layout.pixels();
    let codes = pixels.flat_map(|p| planes.iter().map(move |plane| (plane[p] & mask) as u16)).collect();
    // Some writers code signed values as unsigned ones: then the header says what they are.
    Ok(Samples { codes, bits, signed: signed || layout.signed, ycc })
}

/// Checks, before the decoder allocates for it, the size in the codestream's SIZ segment; and the numbers of tile-parts,
/// because where they are wrong the decoder leaves out the last ones and says nothing.
fn check(stream: &[u8], layout: &Layout) -> Result<(), &'static str> {
    let start = stream.windows(4).position(|w| w == [0xFF, 0x4F, 0xFF, 0x51]).ok_or("it has no codestream")?;
    let number = |at: usize| -> Result<u32, &str> {
        let bytes = stream.get(start + at..start + at + 4).ok_or("its header is cut off")?;
        Ok(u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    };
    // After SOC, SIZ, its length and capabilities: far corner, then near corner of the image on the reference grid.
    let side = |far: usize, near: usize| Ok::<u32, &str>(number(far)?.wrapping_sub(number(near)?));
    if (side(8, 16)?, side(12, 20)?) != (layout.width, layout.height) {
        return Err("its size is not that of the header");
    }
    // SOT: marker, length, tile, length of the tile-part from the marker on, its number, how many there are or 0.
    let mut at = start + stream[start..].windows(4).position(|w| w == [0xFF, 0x90, 0, 10]).ok_or("it has no tiles")?;
    while let Some(&[0xFF, 0x90, _, _, _, _, a, b, c, d, number, of]) = stream.get(at..at + 12) {
        if of != 0 && number >= of {
            return Err("it has more tile-parts than it says");
        }
        // 0: the tile-part lasts until the end.
        match u32::from_be_bytes([a, b, c, d]) as usize {
            length @ 12.. => at += length,
            _ => break,
        }
    }
    Ok(())
}
