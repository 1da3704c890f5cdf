//! The images of a study: recorded when the first run sees them, and checked to be the same from then on.

use super::{PICTURES, Study, StudyError};
use crate::data::{DataSet, DataSummary, sheet};
use crate::digest::Digest;
use crate::engine::Event;
use crate::fsx;
use crate::report::{DrawError, contact_sheet};
use crate::runner::Materials;
use crate::runner::image::ImagePrices;
use crate::spec::RunnerSpec;
use crate::store::{ImagesOnRecord, StoreError};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Why a study cannot use images.
#[derive(Debug, thiserror::Error)]
pub enum ImagesError {
    /// They are not those on record.
    #[error("the images are not those it was trained on: {}\nhint: restore them, or give the study of these another `name`", .0.join("; "))]
    Others(Vec<String>),
    /// The weights are not those on record.
    #[error(
        "the weights of {backbone} are not those that its trials began with\nhint: put them back (those of the hub lie in the cache `HF_HOME`), or give the study of these another `name`; `hub:OWNER/NAME@REVISION` never changes"
    )]
    OtherWeights { backbone: String },
    /// The record of the images cannot be read from JSON or written as such.
    #[error("read what the images were")]
    Codec(#[from] serde_json::Error),
    /// The store fails.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The study cannot be written to.
    #[error(transparent)]
    Study(#[from] Box<StudyError>),
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
    /// Records which images the study has, or checks that they are still the same, and prices its trials. `base`: the folder at which their
    /// paths start.
    ///
    /// # Errors
    /// If they differ from those on record, or the store fails.
    pub fn identify_images(&mut self, images: &DataSummary, base: &Path) -> Result<(), ImagesError> {
        match self.store.images()? {
            Some(on_record) => same(&on_record, images)?,
            None => {
                let absolute = std::path::absolute(base);
                let folder = absolute.map_err(|source| ImagesError::Io { path: base.to_owned(), source })?;
                let summary = serde_json::to_string(images)?;
                self.store.record_images(&ImagesOnRecord { folder, digest: images.digest, summary })?;
            }
        }
        self.price_trials(images);
        Ok(())
    }

    /// Records which weights the networks of the study begin with, or checks that they are still the same, once an epoch is on record.
    ///
    /// # Errors
    /// [`ImagesError::OtherWeights`] if they differ from those on record, or the store fails.
    pub fn identify_weights(&mut self, weights: BTreeMap<String, Digest>) -> Result<(), ImagesError> {
        let known = self.engine().weights();
        let other = weights.iter().find(|(name, digest)| known.get(*name).is_some_and(|k| k != *digest));
        if let (Some((backbone, _)), true) = (other, self.engine().has_epochs()) {
            return Err(ImagesError::OtherWeights { backbone: backbone.clone() });
        }
        if other.is_some() || weights.keys().any(|name| !known.contains_key(name)) {
            let event = Event::WeightsIdentified { weights, unix_ms: crate::clock::unix_ms() };
            self.apply(event).and_then(|()| self.flush()).map_err(Box::new)?;
        }
        Ok(())
    }

    /// What is on record of what its trials are made of.
    ///
    /// # Errors
    /// If the store fails.
    pub fn materials(&self) -> Result<Materials, StoreError> {
        let images = self.store.images()?.map(|images| images.digest);
        Ok(Materials { images, weights: self.engine().weights().clone() })
    }

    /// Prices trials on images: without, a budget of work is never spent.
    pub(super) fn price_trials(&mut self, images: &DataSummary) {
        self.history.set_prices(Arc::new(ImagePrices::new(&self.spec().runner, images)));
    }

    /// Whether the budget of work is given as time and this machine's pace has yet to be measured.
    pub fn wants_pace(&self) -> bool {
        self.spec().budget.work.is_some() && self.engine().work_budget().is_none()
    }

    /// Puts on record how fast this machine is, in mega-operations a second: what a budget of work given as time is
    /// converted by, from now on.
    ///
    /// # Errors
    /// If a pace is on record, if it is not positive, or if the store fails.
    pub fn record_pace(&mut self, pace: f64) -> Result<(), StudyError> {
        self.apply(Event::PaceMeasured { pace, unix_ms: crate::clock::unix_ms() })?;
        self.flush()
    }

    /// Draws the pictures of the study's images that its reports show, unless they exist.
    ///
    /// # Errors
    /// If they cannot be drawn or written.
    pub fn keep_pictures(&self, data: &DataSet) -> Result<(), ImagesError> {
        let RunnerSpec::Image { network, augment, .. } = &self.spec().runner else { return Ok(()) };
        let [samples, augmentation] = PICTURES.map(|(file, ..)| self.dir().join(file));
        if augmentation.exists() {
            return Ok(()); // written last
        }
        let (spec, side) = (self.spec(), network.side(data.summary().size));
        let keep = |path: PathBuf, strips: &[sheet::Strip]| {
            let picture = contact_sheet(&spec.name, strips)?;
            fsx::write_atomic(&path, &picture).map_err(|source| ImagesError::Io { path, source })
        };
        keep(samples, &sheet::samples(data, 6, side, spec.seed))?;
        keep(augmentation, &sheet::strengths(data, augment, 3, side, spec.seed))
    }

    /// When the test images were opened, if they were: milliseconds since 1970.
    ///
    /// # Errors
    /// If the store fails.
    pub fn tested_ms(&self) -> Result<Option<u64>, StoreError> {
        Ok(self.store.opening()?.map(|opening| opening.unix_ms))
    }
}
