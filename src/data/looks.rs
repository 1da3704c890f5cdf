//! Images of a study, looked at again from outside.

use super::decode::{Appearance, decode_and_look};
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
