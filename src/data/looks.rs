//! Images of a study, looked at again from outside.

use super::decode::{Appearance, Kind, Salt, decode_and_look, probe};
use super::manifest::{ManifestError, list};
use super::{DataSet, PixelSource};
use crate::digest::Digest;
use crate::spec::{DataSource, DataSpec};
use rayon::prelude::*;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// Looks at some images of a study, which are decoded again; those that are gone or no longer the same are left out.
///
/// # Errors
/// If the study's files cannot be listed.
pub fn appearances(
    spec: &DataSpec,
    base: &Path,
    data: &DataSet,
    images: &[usize],
) -> Result<Vec<Appearance>, ManifestError> {
    let size = data.size();
    if let DataSource::Synthetic(_) = spec.source {
        let side = size as u32;
        let own = |&i: &usize| Appearance::new([side, side], 0.0, data.pixels(i), data.channels());
        return Ok(images.par_iter().map(own).collect());
    }
    let files: HashMap<String, PathBuf> = list(spec, base)?.images.into_iter().map(|i| (i.name, i.file)).collect();
    let look = |&i: &usize| {
        let record = &data.records()[i];
        let bytes = std::fs::read(files.get(&record.path)?).ok().filter(|bytes| Digest::of(bytes) == record.digest)?;
        decode_and_look(&bytes, size, spec.colour, spec.window).ok().map(|(_, appearance)| appearance)
    };
    Ok(images.par_iter().filter_map(look).collect())
}

/// What is known of an image's file without its picture.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FileFacts {
    /// Numbers, such as `width` in pixels and `bytes`.
    pub numbers: Vec<(&'static str, f64)>,
    /// Words, such as the ending of its name, or attributes of a DICOM header. Never anything that names a patient.
    pub words: Vec<(&'static str, String)>,
}

/// What is known of the files of some images; `None`: they are synthetic, and there are no files. Of an image whose file is gone
/// or cannot be read, nothing is known.
///
/// # Errors
/// If the study's files cannot be listed.
pub fn file_facts(
    spec: &DataSpec,
    base: &Path,
    data: &DataSet,
    images: &[usize],
) -> Result<Option<Vec<FileFacts>>, ManifestError> {
    if let DataSource::Synthetic(_) = spec.source {
        return Ok(None);
    }
    let files: HashMap<String, PathBuf> = list(spec, base)?.images.into_iter().map(|i| (i.name, i.file)).collect();
    let salt = Salt::fresh();
    let facts = |&i: &usize| {
        let file = files.get(&data.records()[i].path)?;
        let bytes = std::fs::metadata(file).ok()?.len() as f64;
        let kind = probe(file, &salt).ok()?;
        let (w, h) = kind.dimensions().map(|(w, h)| (f64::from(w), f64::from(h)))?;
        let ending = file.extension().map_or_else(String::new, |e| e.to_string_lossy().to_lowercase());
        let mut facts = FileFacts {
            numbers: vec![
                ("width", w),
                ("height", h),
                ("width over height", w / h),
                ("bytes", bytes),
                ("bytes a pixel", bytes / (w * h)),
            ],
            words: vec![("ending", ending), ("size", format!("{w} x {h}"))],
        };
        match &kind {
            Kind::Dicom(header) => {
                let header = header.as_ref()?;
                let attributes = [
                    ("modality", header.modality.clone()),
                    ("view position", header.view.clone()),
                    ("photometric interpretation", header.photometric.clone()),
                    ("transfer syntax", Some(header.transfer_syntax.clone())),
                    ("burned-in annotation", header.burned_in.clone()),
                ];
                facts.words.extend(attributes.map(|(name, value)| (name, value.unwrap_or_default())));
            }
            Kind::Picture { wide, .. } => facts.words.push(("bits", if *wide { "16" } else { "8" }.to_owned())),
        }
        Some(facts)
    };
    Ok(Some(images.par_iter().map(|i| facts(i).unwrap_or_default()).collect()))
}
