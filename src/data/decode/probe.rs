//! What a file is, from its first bytes or its header: read without decoding it.

use super::dicom::{self, Header};
use crate::digest::Digest;
use image::{ColorType, ImageDecoder, ImageReader};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::Path;

/// Makes digests of patients' identifiers useless to whoever does not have it: a list of likely identifiers cannot be
/// tried against them. Equal identifiers are recognised under the same salt only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Salt(pub(super) Digest);

impl Salt {
    /// A salt that nobody has seen: from the random keys that the operating system gives to hash tables. No result
    /// depends on it.
    pub fn fresh() -> Self {
        let keys = RandomState::new();
        let words: Vec<u8> = (0..4u64).flat_map(|i| keys.hash_one(i).to_le_bytes()).collect();
        Self(Digest::of(&words))
    }
}

/// What kind of image a file is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// DICOM, with its header unless that is broken.
    Dicom(Option<Header>),
    /// JPEG, PNG or anything else. Width and height, if it begins like an image; whether it is grey of 16 bits.
    Picture { dimensions: Option<(u32, u32)>, wide: bool },
}

impl Kind {
    /// The header of a DICOM file.
    pub fn header(&self) -> Option<&Header> {
        match self {
            Self::Dicom(header) => header.as_ref(),
            Self::Picture { .. } => None,
        }
    }

    /// Whether this is no DICOM file, and no picture whose header makes sense either.
    pub fn is_broken_picture(&self) -> bool {
        matches!(self, Self::Picture { dimensions: None, .. })
    }

    /// Whether a DICOM header says that annotations are burned into the picture.
    pub fn says_burned_in(&self) -> bool {
        matches!(self, Self::Dicom(Some(header)) if header.burned_in.as_deref() == Some("YES"))
    }

    /// Width and height in pixels, where the header has them.
    pub fn dimensions(&self) -> Option<(u32, u32)> {
        match self {
            Self::Dicom(header) => header.as_ref()?.dimensions,
            Self::Picture { dimensions, .. } => *dimensions,
        }
    }
}

/// Reads a file's header.
pub(in crate::data) fn probe(path: &Path, salt: &Salt) -> std::io::Result<Kind> {
    let mut file = File::open(path)?;
    if begins_as_dicom(&mut file)? {
        return Ok(Kind::Dicom(Header::read(&mut file, &salt.0)));
    }
    file.seek(SeekFrom::Start(0))?;
    let reader = ImageReader::new(BufReader::new(file)).with_guessed_format()?;
    let decoder = reader.into_decoder().ok();
    let wide = decoder.as_ref().is_some_and(|d| matches!(d.color_type(), ColorType::L16 | ColorType::La16));
    Ok(Kind::Picture { dimensions: decoder.map(|d| d.dimensions()), wide })
}

/// Whether a file begins like DICOM.
pub fn is_dicom(path: &Path) -> bool {
    File::open(path).and_then(|mut file| begins_as_dicom(&mut file)).unwrap_or(false)
}

fn begins_as_dicom(file: &mut File) -> std::io::Result<bool> {
    let mut head = Vec::new();
    file.by_ref().take(132).read_to_end(&mut head)?;
    Ok(dicom::recognised(&head))
}

/// The smallest and the largest value of a grey PNG of 16 bits; `None` if it cannot be decoded.
pub(in crate::data) fn wide_range(path: &Path) -> Option<(u16, u16)> {
    let image = ImageReader::open(path).ok()?.with_guessed_format().ok()?.decode().ok()?.into_luma16();
    Some((*image.iter().min()?, *image.iter().max()?))
}
