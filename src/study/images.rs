//! The images of a study: recorded when the first run sees them, and checked to be the same from then on.

use super::{PICTURES, Study};
use crate::data::{DataSet, DataSummary, sheet};
use crate::fsx;
use crate::report::{DrawError, contact_sheet};
use crate::spec::AugmentSpec;
use crate::store::{ImagesOnRecord, StoreError};
use std::io;
use std::path::{Path, PathBuf};

/// Why a study cannot use images.
#[derive(Debug, thiserror::Error)]
pub enum ImagesError {
    /// They are not those on record.
    #[error("the images are not those it was trained on: {}\nhint: restore them, or give the study of these another `name`", .0.join("; "))]
    Others(Vec<String>),
    /// The record of the images cannot be read from JSON or written as such.
    #[error("read what the images were")]
    Codec(#[from] serde_json::Error),
    /// The store fails.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A picture cannot be drawn.
    #[error("draw samples")]
    Draw(#[from] DrawError),
    /// A file cannot be written, or a path cannot be followed.
    #[error("write `{}`", path.display())]
    Io { path: PathBuf, source: io::Error },
}

/// Checks that images are those on record.
///
/// # Errors
/// [`ImagesError::Others`], with what differs.
pub(super) fn same(on_record: &ImagesOnRecord, now: &DataSummary) -> Result<(), ImagesError> {
    if on_record.digest == now.digest {
        return Ok(());
    }
    let before = serde_json::from_str(&on_record.summary)?;
    Err(ImagesError::Others(now.difference(&before)))
}

impl Study {
    /// Records which images the study has, or checks that they are still the same. `base`: the folder at which their
    /// paths start.
    ///
    /// # Errors
    /// If they differ from those on record, or the store fails.
    pub fn identify_images(&mut self, images: &DataSummary, base: &Path) -> Result<(), ImagesError> {
        if let Some(on_record) = self.store.images()? {
            return same(&on_record, images);
        }
        let folder = std::path::absolute(base).map_err(|source| ImagesError::Io { path: base.to_owned(), source })?;
        let summary = serde_json::to_string(images)?;
        Ok(self.store.record_images(&ImagesOnRecord { folder, digest: images.digest, summary })?)
    }

    /// Draws the pictures of the study's images that its reports show, unless they exist.
    ///
    /// # Errors
    /// If they cannot be drawn or written.
    pub fn keep_pictures(&self, data: &DataSet, augment: &AugmentSpec) -> Result<(), ImagesError> {
        let [samples, augmentation] = PICTURES.map(|(file, ..)| self.dir().join(file));
        if augmentation.exists() {
            return Ok(()); // written last
        }
        let spec = self.spec();
        let keep = |path: PathBuf, strips: &[sheet::Strip]| {
            let picture = contact_sheet(&spec.name, strips)?;
            fsx::write_atomic(&path, &picture).map_err(|source| ImagesError::Io { path, source })
        };
        keep(samples, &sheet::samples(data, 6, spec.seed))?;
        keep(augmentation, &sheet::strengths(data, augment, 3, spec.seed))
    }

    /// When the test images were opened, if they were: milliseconds since 1970.
    ///
    /// # Errors
    /// If the store fails.
    pub fn tested_ms(&self) -> Result<Option<u64>, StoreError> {
        Ok(self.store.opening()?.map(|opening| opening.unix_ms))
    }
}
