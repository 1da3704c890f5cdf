//! JPEG streams: baseline and extended of 8 bits, lossless of up to 16.

use super::DicomError;
use super::samples::{Layout, Samples};
use crate::data::decode::jpeg::check_complete;
use jpeg_decoder::{ColorTransform, Decoder, PixelFormat};

/// The samples of a stream; `ycc`: whether the file's header says that its colours are luminance and chrominance.
pub(super) fn decoded(stream: &[u8], layout: &Layout, ycc: bool) -> Result<Samples, DicomError> {
    let broken = |what: String| DicomError::Stream { format: "JPEG", what };
    if !stream.starts_with(&[0xFF, 0xD8]) {
        return Err(broken("it does not begin like one".to_owned()));
    }
    check_complete(stream).map_err(|e| broken(e.to_string()))?;
    let mut decoder = Decoder::new(stream);
    let failed = |error| match error {
        jpeg_decoder::Error::Unsupported(jpeg_decoder::UnsupportedFeature::SamplePrecision(bits)) => {
            DicomError::Syntax(format!("{bits}-bit lossy JPEG"))
        }
        other => broken(other.to_string()),
    };
    decoder.read_info().map_err(failed)?;
    let info = decoder.info().ok_or_else(|| broken("it has no frame".to_owned()))?;
    let (samples, wide) = match info.pixel_format {
        PixelFormat::L8 => (1, false),
        PixelFormat::L16 => (1, true),
        PixelFormat::RGB24 => (3, false),
        PixelFormat::CMYK32 => (4, false),
    };
    if (u32::from(info.width), u32::from(info.height), samples) != (layout.width, layout.height, layout.samples) {
        let (width, height) = (info.width, info.height);
        return Err(broken(format!("it has {width} x {height} pixels of {samples} samples, unlike the header")));
    }
    if wide && layout.bytes == 1 {
        return Err(broken("it has more than 8 bits, unlike the header".to_owned()));
    }
    let lossless = info.coding_process == jpeg_decoder::CodingProcess::Lossless;
    // As they are: `RGB` transforms nothing (`None` does not even interleave them).
    decoder.set_color_transform(if samples == 1 { ColorTransform::Grayscale } else { ColorTransform::RGB });
    let bytes = decoder.decode().map_err(failed)?;
    let codes: Vec<u16> = if wide {
        bytes.chunks_exact(2).map(|b| layout.code(u16::from_ne_bytes([b[0], b[1]]))).collect()
    } else {
        bytes.iter().map(|&b| layout.code(b.into())).collect()
    };
    if codes.len() != layout.pixels() * samples {
        return Err(broken("it decodes to another number of pixels".to_owned()));
    }
    // Lossless streams are never transformed by the coder: what the header says holds.
    let ycc = if lossless { ycc } else { transformed(stream).unwrap_or(ycc) };
    Ok(Samples { codes, ycc, ..Samples::of(layout) })
}

/// Whether the stream itself says that its colours are luminance and chrominance: in Adobe's marker, or by being JFIF.
fn transformed(stream: &[u8]) -> Option<bool> {
    let (mut at, mut jfif) = (2, None);
    loop {
        let head = stream.get(at..at + 4)?;
        if head[0] != 0xFF || matches!(head[1], 0xDA | 0xD9) {
            return jfif;
        }
        let length = usize::from(u16::from_be_bytes([head[2], head[3]])).max(2);
        let body = stream.get(at + 4..at + 2 + length)?;
        match head[1] {
            0xEE if body.starts_with(b"Adobe") => return body.get(11).map(|&transform| transform != 0),
            0xE0 if body.starts_with(b"JFIF\0") => jfif = Some(true),
            _ => {}
        }
        at += 2 + length;
    }
}
