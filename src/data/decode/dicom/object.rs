//! Attributes of a DICOM data set.

pub(super) use super::guard::{FLOAT_PIXELS, PIXELS};
use super::{DicomError, guard};
use dicom_object::{FileDicomObject, InMemDicomObject, OpenFileOptions, Tag};
use std::io::{Read, Seek, SeekFrom};

pub(super) type Object = FileDicomObject<InMemDicomObject>;

pub(super) const BURNED_IN: Tag = Tag(0x0028, 0x0301);
pub(super) const BITS_ALLOCATED: Tag = Tag(0x0028, 0x0100);
pub(super) const BITS_STORED: Tag = Tag(0x0028, 0x0101);
pub(super) const COLUMNS: Tag = Tag(0x0028, 0x0011);
pub(super) const DOUBLE_PIXELS: Tag = Tag(0x7FE0, 0x0009);
pub(super) const FRAMES: Tag = Tag(0x0028, 0x0008);
pub(super) const HIGH_BIT: Tag = Tag(0x0028, 0x0102);
pub(super) const ISSUER: Tag = Tag(0x0010, 0x0021);
pub(super) const LUT_DATA: Tag = Tag(0x0028, 0x3006);
pub(super) const LUT_DESCRIPTOR: Tag = Tag(0x0028, 0x3002);
pub(super) const MODALITY: Tag = Tag(0x0008, 0x0060);
pub(super) const MODALITY_LUT: Tag = Tag(0x0028, 0x3000);
pub(super) const PADDING: Tag = Tag(0x0028, 0x0120);
pub(super) const PADDING_LIMIT: Tag = Tag(0x0028, 0x0121);
pub(super) const PATIENT: Tag = Tag(0x0010, 0x0020);
pub(super) const PHOTOMETRIC: Tag = Tag(0x0028, 0x0004);
pub(super) const PLANAR: Tag = Tag(0x0028, 0x0006);
pub(super) const PRESENTATION_SHAPE: Tag = Tag(0x2050, 0x0020);
pub(super) const REPRESENTATION: Tag = Tag(0x0028, 0x0103);
pub(super) const RESCALE_INTERCEPT: Tag = Tag(0x0028, 0x1052);
pub(super) const RESCALE_SLOPE: Tag = Tag(0x0028, 0x1053);
pub(super) const ROWS: Tag = Tag(0x0028, 0x0010);
pub(super) const SAMPLES: Tag = Tag(0x0028, 0x0002);
pub(super) const VIEW: Tag = Tag(0x0018, 0x5101);
pub(super) const VOI_FUNCTION: Tag = Tag(0x0028, 0x1056);
pub(super) const VOI_LUT: Tag = Tag(0x0028, 0x3010);
pub(super) const WINDOW_CENTER: Tag = Tag(0x0028, 0x1050);
pub(super) const WINDOW_WIDTH: Tag = Tag(0x0028, 0x1051);

/// Reads a whole file.
pub(super) fn open(bytes: &[u8]) -> Result<Object, DicomError> {
    guard::check(bytes, false)?;
    OpenFileOptions::new().from_reader(bytes).map_err(broken)
}

/// Reads all that precedes the pixels, from the beginning of a file.
pub(super) fn open_header(mut file: impl Read + Seek) -> Result<Object, DicomError> {
    let start = |file: &mut dyn Seek| file.seek(SeekFrom::Start(0)).map_err(|e| DicomError::Broken(e.to_string()));
    start(&mut file)?;
    guard::check(&mut file, true)?;
    start(&mut file)?;
    OpenFileOptions::new().read_until(FLOAT_PIXELS).from_reader(file).map_err(broken)
}

/// The innermost cause: the outer ones say only that a file could not be read.
fn broken(error: dicom_object::ReadError) -> DicomError {
    let mut cause: &dyn std::error::Error = &error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    DicomError::Broken(printable(&cause.to_string(), 120))
}

/// The text's first value without its padding; `None` if nothing is left.
pub(super) fn text(object: &InMemDicomObject, tag: Tag) -> Option<String> {
    let text = object.get(tag)?.to_str().ok()?;
    let first = text.split('\\').next().unwrap_or_default().trim_matches([' ', '\0']);
    (!first.is_empty()).then(|| first.to_owned())
}

/// The first whole number.
pub(super) fn whole(object: &InMemDicomObject, tag: Tag) -> Option<i64> {
    object.get(tag)?.to_int().ok()
}

/// All numbers that are finite; none if one cannot be read.
pub(super) fn reals(object: &InMemDicomObject, tag: Tag) -> Vec<f64> {
    let values = object.get(tag).and_then(|e| e.to_multi_float64().ok()).unwrap_or_default();
    if values.iter().all(|v| v.is_finite()) { values } else { Vec::new() }
}

/// The first item of a sequence.
pub(super) fn item(object: &InMemDicomObject, tag: Tag) -> Option<&InMemDicomObject> {
    object.get(tag)?.value().items()?.first()
}

/// Text of a file as it may be shown in a terminal: no control characters, `most` characters at most.
pub(super) fn printable(text: &str, most: usize) -> String {
    text.chars().filter(|c| !c.is_control()).take(most).collect()
}
