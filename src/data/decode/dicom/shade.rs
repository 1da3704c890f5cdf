//! Grey: from stored values to what a viewer shows (PS3.3 C.11): modality, values of interest, presentation.

use super::DicomError;
use super::object::{self, Object, item, reals, text, whole};
use super::samples::{Layout, Samples};
use crate::data::decode::window::{Curve, grey16};
use crate::spec::Window;
use dicom_object::InMemDicomObject;
use image::DynamicImage;

/// How a file's values become grey.
pub(super) struct Shading {
    modality: Modality,
    /// The file's own choice of values of interest.
    voi: Option<Curve>,
    /// Whether high values are dark.
    inverted: bool,
    /// Stored values that mean "no measurement", from first to last.
    padding: Option<(i32, i32)>,
}

/// Stored values to values with a meaning, such as Hounsfield units.
enum Modality {
    Linear { slope: f64, intercept: f64 },
    Table(Table),
}

/// A lookup table; values beyond its ends take those of its ends.
struct Table {
    first: i32,
    entries: Vec<u16>,
    /// Bits of an entry.
    bits: u32,
}

impl Shading {
    pub fn of(object: &Object, layout: &Layout, samples: &Samples) -> Result<Self, DicomError> {
        let modality = match item(object, object::MODALITY_LUT) {
            Some(item) => Modality::Table(Table::of(item, samples.signed).ok_or(DicomError::Table("modality"))?),
            None => {
                let number = |tag| reals(object, tag).first().copied();
                let slope = number(object::RESCALE_SLOPE).filter(|slope| *slope != 0.0);
                let intercept = number(object::RESCALE_INTERCEPT).unwrap_or(0.0);
                Modality::Linear { slope: slope.unwrap_or(1.0), intercept }
            }
        };
        let negative = samples.signed || matches!(modality, Modality::Linear { intercept, .. } if intercept < 0.0);
        let voi = match item(object, object::VOI_LUT) {
            Some(item) => {
                let Table { first, entries, bits } =
                    Table::of(item, negative).ok_or(DicomError::Table("values-of-interest"))?;
                Some(Curve::Table { first, entries, bits })
            }
            None => window(object),
        };
        // In X-ray images INVERSE repeats what MONOCHROME1 says (PS3.3 C.8.11.1.1.1); in others it stands for itself.
        let inverse = text(object, object::PRESENTATION_SHAPE).is_some_and(|shape| shape == "INVERSE");
        let inverted = layout.photometric == "MONOCHROME1" || inverse;
        // Written as signed or unsigned, whatever the pixels are: compared as a code.
        let value = |tag| {
            let code = whole(object, tag)? as u32 & ((1 << samples.bits) - 1);
            Some(samples.value(code as u16))
        };
        let padding = value(object::PADDING).map(|first| {
            let last = value(object::PADDING_LIMIT).unwrap_or(first);
            (first.min(last), first.max(last))
        });
        Ok(Self { modality, voi, inverted, padding })
    }

    /// The picture in 16-bit grey. Padding is black.
    pub fn image(&self, samples: &Samples, layout: &Layout, window: Window) -> DynamicImage {
        let value = |code: u16| {
            let stored = samples.value(code);
            let padded = self.padding.is_some_and(|(first, last)| (first..=last).contains(&stored));
            (!padded).then(|| self.modality.value(stored))
        };
        // Few bits without a window were meant to be shown as they are.
        let whole = || (samples.bits <= 8).then(|| self.whole_range(samples));
        let curve = match window {
            Window::File => self.voi.clone().or_else(whole),
            Window::Range => None,
            Window::Level { center, width } => Some(Curve::Linear { center, width }),
        };
        let pixels = grey16(&samples.codes, samples.bits, value, curve, self.inverted);
        let picture = image::ImageBuffer::from_raw(layout.width, layout.height, pixels);
        picture.map(DynamicImage::ImageLuma16).unwrap_or_default()
    }

    /// All values that the stored bits can hold.
    fn whole_range(&self, samples: &Samples) -> Curve {
        let codes = 0..=((1u32 << samples.bits) - 1) as u16;
        let values = codes.map(|code| self.modality.value(samples.value(code)));
        Curve::spanning(values)
    }
}

impl Modality {
    fn value(&self, stored: i32) -> f64 {
        match self {
            Self::Linear { slope, intercept } => slope * f64::from(stored) + intercept,
            Self::Table(table) => {
                let last = table.entries.len() as i64 - 1;
                let index = (i64::from(stored) - i64::from(table.first)).clamp(0, last);
                f64::from(table.entries[index as usize])
            }
        }
    }
}

impl Table {
    /// Reads descriptor and data; `signed`: whether the first value mapped may be negative.
    fn of(item: &InMemDicomObject, signed: bool) -> Option<Self> {
        let descriptor: Vec<i32> = item.get(object::LUT_DESCRIPTOR)?.to_multi_int().ok()?;
        let [count, first, bits] = descriptor[..] else { return None };
        let count = match count & 0xFFFF {
            0 => 1 << 16,
            count => count as usize,
        };
        let first = if signed && first > i32::from(i16::MAX) { first - (1 << 16) } else { first };
        let bytes = item.get(object::LUT_DATA)?.to_bytes().ok()?;
        let entries: Vec<u16> = if bytes.len() >= 2 * count {
            bytes[..2 * count].chunks_exact(2).map(|b| u16::from_le_bytes([b[0], b[1]])).collect()
        } else {
            bytes.get(..count)?.iter().map(|&b| b.into()).collect()
        };
        // The standard allows 8 or 16 bits, and 10 to 16 where a table is for display.
        let bits = u32::try_from(bits).ok().filter(|bits| (8..=16).contains(bits))?;
        Some(Self { first, entries, bits })
    }
}

/// The file's first window; `None` if there is none, or if its width is of no use.
fn window(object: &Object) -> Option<Curve> {
    let first = |tag| reals(object, tag).first().copied();
    let (center, width) = (first(object::WINDOW_CENTER)?, first(object::WINDOW_WIDTH)?);
    match text(object, object::VOI_FUNCTION).as_deref() {
        Some("SIGMOID") => (width > 0.0).then_some(Curve::Sigmoid { center, width }),
        Some("LINEAR_EXACT") => (width > 0.0).then_some(Curve::LinearExact { center, width }),
        _ => (width >= 1.0).then_some(Curve::Linear { center, width }),
    }
}
