//! Patients of DICOM files, from their headers.
//!
//! Neither the identifiers nor their digests go on record: a patient is named by the digest of the first of his files, in
//! the order of digests. So the same files give the same names, and a name says which files belong together and no more.

use super::decode::Header;
use super::index::Contents;
use super::manifest::Listed;
use crate::digest::Digest;
use crate::wording::counted;
use std::collections::HashMap;

/// Of so many files one patient may have one, before his identifier is taken for a placeholder.
const SHARE: usize = 5;

/// Why the patients of DICOM files cannot be told apart. Messages fit after "failed to ...".
#[derive(Debug, thiserror::Error)]
pub enum PatientError {
    /// Blank identifiers.
    #[error(
        "know the patients of {}: the Patient ID is blank, as in `{example}`\n\
         hint: name patients in a column `patient` of a manifest, or by a pattern over file names, such as \
         `patient = \"^([^_]+)_\"` in `[data]`; `patient = \".+\"` makes every file a patient of its own",
        counted(*files, "DICOM file")
    )]
    Blank { files: usize, example: String },
    /// One identifier for more than a fifth of the files.
    #[error(
        "tell the patients of DICOM files apart: {files} of {of} have the same Patient ID, as `{example}`: it looks like \
         a placeholder\n\
         hint: name patients in a column `patient` of a manifest, or by a pattern over file names, such as \
         `patient = \"^([^_]+)_\"` in `[data]`; `patient = \".+\"` makes every file a patient of its own"
    )]
    OneForMany { files: usize, of: usize, example: String },
}

/// Names the patient of every DICOM image that has none from the manifest or the study's pattern.
///
/// # Errors
/// If an identifier is blank, or if one covers more than a fifth of these images.
pub(super) fn identify(images: &mut [(Listed, Contents)]) -> Result<(), PatientError> {
    let headers = images.iter().filter(|(image, _)| image.patient.is_none());
    let headers = headers.filter_map(|(image, contents)| Some((image.name.as_str(), contents.kind.header()?)));
    check(&headers.collect::<Vec<_>>())?;
    let mut first: HashMap<Digest, Digest> = HashMap::new();
    let patient =
        |image: &Listed, contents: &Contents| contents.kind.header()?.patient.filter(|_| image.patient.is_none());
    for (image, contents) in images.iter() {
        if let Some(patient) = patient(image, contents) {
            let least = first.entry(patient).or_insert(contents.digest);
            *least = contents.digest.min(*least);
        }
    }
    for (image, contents) in images.iter_mut() {
        if let Some(patient) = patient(image, contents) {
            image.patient = Some(format!("dicom-{}", first[&patient].short()));
        }
    }
    Ok(())
}

/// Checks that identifiers, by name of the file, can be those of patients.
pub(super) fn check(headers: &[(&str, &Header)]) -> Result<(), PatientError> {
    let blank: Vec<&str> = headers.iter().filter(|(_, h)| h.patient.is_none()).map(|(name, _)| *name).collect();
    if let Some(example) = blank.first() {
        return Err(PatientError::Blank { files: blank.len(), example: (*example).to_owned() });
    }
    let mut files: HashMap<Digest, (usize, &str)> = HashMap::new();
    for (name, header) in headers {
        if let Some(patient) = header.patient {
            files.entry(patient).or_insert((0, name)).0 += 1;
        }
    }
    let of = headers.len();
    match files.into_values().max_by_key(|&(n, name)| (n, std::cmp::Reverse(name))) {
        Some((files, example)) if files > 1 && files * SHARE > of => {
            Err(PatientError::OneForMany { files, of, example: example.to_owned() })
        }
        _ => Ok(()),
    }
}
