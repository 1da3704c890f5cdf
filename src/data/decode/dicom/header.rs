//! What the header of a DICOM file says, without its pixels.

use super::guarded;
use super::object::{self, Object, printable, text, whole};
use super::samples::{is_read, syntax_name};
use crate::digest::Digest;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::BufReader;

/// Attributes by which films differ in ways that matter to training. Nothing in it names a person.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// Width and height in pixels.
    pub dimensions: Option<(u32, u32)>,
    /// Modality, such as `DX`.
    pub modality: Option<String>,
    /// View position, such as `PA`.
    pub view: Option<String>,
    /// Photometric interpretation.
    pub photometric: Option<String>,
    /// The transfer syntax in words, marked if it is not read.
    pub transfer_syntax: String,
    /// Whether annotations are burned into the pixels: `YES` or `NO`.
    pub burned_in: Option<String>,
    /// Digest of a salt, the issuer and the patient's identifier; `None`: the identifier is blank. The identifier itself is
    /// kept nowhere.
    pub patient: Option<Digest>,
}

/// A transfer syntax in words, with a remark if it is not read.
fn described(uid: &str) -> String {
    let name = syntax_name(uid);
    if is_read(uid) { name } else { format!("{name} (not read)") }
}

impl Header {
    /// The header of an open file; `None` if it cannot be read.
    pub(in crate::data) fn read(file: &mut File, salt: &Digest) -> Option<Self> {
        guarded(|| object::open_header(BufReader::new(file)).map(|object| Self::of(&object, salt))).ok()
    }

    fn of(object: &Object, salt: &Digest) -> Self {
        let short = |tag| text(object, tag).map(|t| printable(&t, 16));
        let side = |tag| whole(object, tag).and_then(|n| u32::try_from(n).ok());
        let issuer = text(object, object::ISSUER).unwrap_or_default();
        let patient = text(object, object::PATIENT).map(|id| {
            Digest::of_parts([
                ("salt", salt.as_bytes().as_slice()),
                ("issuer", issuer.as_bytes()),
                ("patient", id.as_bytes()),
            ])
        });
        Self {
            dimensions: side(object::COLUMNS).zip(side(object::ROWS)),
            modality: short(object::MODALITY),
            view: short(object::VIEW),
            photometric: short(object::PHOTOMETRIC),
            transfer_syntax: described(object.meta().transfer_syntax.trim_end_matches(['\0', ' '])),
            burned_in: short(object::BURNED_IN),
            patient,
        }
    }
}
