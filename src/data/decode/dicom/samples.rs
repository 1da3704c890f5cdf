//! How the pixels of a file are stored, and what is left when they are decoded.

use super::DicomError;
use super::object::{self, Object, text, whole};
use crate::data::decode::MAX_PIXELS;

/// What the header says of the pixels.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    pub width: u32,
    pub height: u32,
    /// 1 or 3 a pixel.
    pub samples: usize,
    /// Bytes of a stored sample: 1 or 2.
    pub bytes: usize,
    /// Bits of a value.
    pub stored: u32,
    /// Unused bits below a value.
    pub shift: u32,
    /// Whether values are two's complement.
    pub signed: bool,
    /// Whether one plane follows another.
    pub planar: bool,
    pub photometric: String,
}

/// Decoded samples, pixel by pixel.
pub(super) struct Samples {
    /// The lowest `bits` bits are the value.
    pub codes: Vec<u16>,
    pub bits: u32,
    /// Whether the value is two's complement.
    pub signed: bool,
    /// Whether colours are luminance and chrominance, not RGB.
    pub ycc: bool,
}

impl Layout {
    /// Checks all that does not need the pixels.
    pub fn of(object: &Object) -> Result<Self, DicomError> {
        if object.get(object::PIXELS).is_none() {
            if object.get(object::FLOAT_PIXELS).is_some() {
                return Err(DicomError::Bits(32));
            }
            if object.get(object::DOUBLE_PIXELS).is_some() {
                return Err(DicomError::Bits(64));
            }
            let modality = text(object, object::MODALITY).map(|m| object::printable(&m, 16));
            return Err(DicomError::NoPixels(modality.unwrap_or_else(|| "no modality".to_owned())));
        }
        if let Some(frames) = whole(object, object::FRAMES).filter(|&n| n > 1) {
            return Err(DicomError::Frames(frames));
        }
        let needed = |tag, name| whole(object, tag).ok_or(DicomError::Missing(name));
        let side = |tag, name| needed(tag, name).map(|n| u32::try_from(n).unwrap_or_default());
        let (width, height) = (side(object::COLUMNS, "Columns")?, side(object::ROWS, "Rows")?);
        let pixels = u64::from(width) * u64::from(height);
        if pixels == 0 || pixels > MAX_PIXELS {
            return Err(DicomError::Size { width, height });
        }
        let allocated = needed(object::BITS_ALLOCATED, "Bits Allocated")?;
        let bytes = match allocated {
            8 => 1,
            16 => 2,
            other => return Err(DicomError::Bits(other)),
        };
        let stored = whole(object, object::BITS_STORED).unwrap_or(allocated);
        if !(1..=allocated).contains(&stored) {
            return Err(DicomError::Missing("Bits Stored"));
        }
        let high = whole(object, object::HIGH_BIT).filter(|high| (stored - 1..allocated).contains(high));
        let photometric = text(object, object::PHOTOMETRIC).ok_or(DicomError::Missing("Photometric Interpretation"))?;
        let samples = match photometric.as_str() {
            "MONOCHROME1" | "MONOCHROME2" => 1,
            "RGB" | "YBR_FULL" | "YBR_FULL_422" | "YBR_ICT" | "YBR_RCT" => 3,
            other => return Err(DicomError::Photometric(object::printable(other, 20))),
        };
        if whole(object, object::SAMPLES).unwrap_or(1) != samples {
            return Err(DicomError::Missing("Samples per Pixel"));
        }
        Ok(Self {
            width,
            height,
            samples: samples as usize,
            bytes,
            stored: stored as u32,
            shift: (high.unwrap_or(stored - 1) + 1 - stored) as u32,
            signed: whole(object, object::REPRESENTATION) == Some(1),
            planar: whole(object, object::PLANAR) == Some(1),
            photometric,
        })
    }

    pub fn pixels(&self) -> usize {
        self.width as usize * self.height as usize
    }

    /// Whether colours are stored as luminance and chrominance, unless the stream knows of it.
    pub fn ycc(&self) -> bool {
        self.photometric.starts_with("YBR_FULL")
    }
}

/// How the pixel data element is coded.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Coding {
    Native,
    /// In fragments, yet not compressed.
    Encapsulated,
    RunLength,
    Jpeg,
    Jpeg2000,
}

/// `None`: a transfer syntax that is not read.
pub(super) fn coding(syntax: &str) -> Option<Coding> {
    Some(match syntax.strip_prefix("1.2.840.10008.1.2")? {
        "" | ".1" | ".1.99" | ".2" => Coding::Native,
        ".1.98" => Coding::Encapsulated,
        ".5" => Coding::RunLength,
        ".4.50" | ".4.51" | ".4.57" | ".4.70" => Coding::Jpeg,
        ".4.90" | ".4.91" | ".4.201" | ".4.202" | ".4.203" => Coding::Jpeg2000,
        _ => return None,
    })
}

/// Whether pixels in this transfer syntax are read.
pub(super) fn is_read(syntax: &str) -> bool {
    coding(syntax).is_some()
}

impl Samples {
    /// No samples yet, of the kind that the header announces.
    pub fn of(layout: &Layout) -> Self {
        Self { codes: Vec::new(), bits: layout.stored, signed: layout.signed, ycc: layout.ycc() }
    }

    /// The value of a code.
    pub fn value(&self, code: u16) -> i32 {
        let (code, bits) = (i32::from(code), self.bits);
        if self.signed && code >> (bits - 1) & 1 == 1 { code - (1 << bits) } else { code }
    }
}

impl Layout {
    /// A stored sample without the bits around its value.
    pub fn code(&self, raw: u16) -> u16 {
        (u32::from(raw) >> self.shift & ((1 << self.stored) - 1)) as u16
    }
}

/// A transfer syntax in words (PS3.6 table A-1).
pub(super) fn syntax_name(uid: &str) -> String {
    let name = match uid {
        "1.2.840.10008.1.2" => "Implicit VR Little Endian",
        "1.2.840.10008.1.2.1" => "Explicit VR Little Endian",
        "1.2.840.10008.1.2.1.98" => "Encapsulated Uncompressed",
        "1.2.840.10008.1.2.1.99" => "Deflated Explicit VR Little Endian",
        "1.2.840.10008.1.2.2" => "Explicit VR Big Endian",
        "1.2.840.10008.1.2.5" => "RLE Lossless",
        "1.2.840.10008.1.2.4.50" => "JPEG Baseline",
        "1.2.840.10008.1.2.4.51" => "JPEG Extended",
        "1.2.840.10008.1.2.4.57" => "JPEG Lossless",
        "1.2.840.10008.1.2.4.70" => "JPEG Lossless SV1",
        "1.2.840.10008.1.2.4.80" => "JPEG-LS Lossless",
        "1.2.840.10008.1.2.4.81" => "JPEG-LS Near-Lossless",
        "1.2.840.10008.1.2.4.90" => "JPEG 2000 Lossless",
        "1.2.840.10008.1.2.4.91" => "JPEG 2000",
        "1.2.840.10008.1.2.4.92" | "1.2.840.10008.1.2.4.93" => "JPEG 2000 Multi-component",
        "1.2.840.10008.1.2.4.110" | "1.2.840.10008.1.2.4.111" | "1.2.840.10008.1.2.4.112" => "JPEG XL",
        "1.2.840.10008.1.2.4.201" | "1.2.840.10008.1.2.4.202" => "HTJ2K Lossless",
        "1.2.840.10008.1.2.4.203" => "HTJ2K",
        uid if uid.starts_with("1.2.840.10008.1.2.4.10") => "MPEG video",
        uid => return object::printable(uid, 64),
    };
    name.to_owned()
}
