//! Lists the images of a folder tree or a CSV file, in the order of names.

mod folder;
mod patient;
mod table;

pub use patient::KERMANY_PATIENT;

use crate::spec::{DataSource, DataSpec};
use crate::wording::counted;
use patient::PatientPattern;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// The set that the data assign an image to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum GivenSet {
    Train,
    Validation,
    Test,
}

impl GivenSet {
    /// Reads `train`, `val`, `valid`, `validation`, `test` and their like, in any case.
    pub fn named(name: &str) -> Option<Self> {
        match name.to_ascii_lowercase().as_str() {
            "train" | "training" => Some(Self::Train),
            "val" | "valid" | "validation" => Some(Self::Validation),
            "test" | "testing" => Some(Self::Test),
            _ => None,
        }
    }
}

/// A file listed as an image, not yet opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Where it is.
    pub file: PathBuf,
    /// Its name in predictions and reports: relative to the root, `/`-separated.
    pub name: String,
    /// Its class.
    pub label: String,
    /// Its patient, from the manifest or the study's pattern; that of a DICOM header comes later.
    pub patient: Option<String>,
    /// The set the data put it in.
    pub set: Option<GivenSet>,
}

/// The files found, in the order of their names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// The files.
    pub images: Vec<Listed>,
    /// Every class that has a folder or a row, even without files.
    pub classes: BTreeSet<String>,
    /// Notes for the user, each a sentence without a full stop.
    pub notes: Vec<String>,
}

/// Lists the images of a folder or a manifest. Relative paths are resolved against `base`.
/// [`DataSource::Synthetic`] has no files: its listing is empty.
///
/// # Errors
/// If the folder or the manifest is missing, unreadable or malformed; all bad rows are reported at once.
pub fn list(spec: &DataSpec, base: &Path) -> Result<Listing, ManifestError> {
    let pattern = spec.patient.as_deref().map(PatientPattern::new).transpose()?;
    let mut listing = match &spec.source {
        DataSource::Folder(path) => folder::list(&base.join(path))?,
        DataSource::Manifest(path) => table::list(&base.join(path))?,
        DataSource::Synthetic(_) => return Ok(Listing::default()),
    };
    listing.images.sort_by(|a, b| a.name.cmp(&b.name));
    if let Some(pattern) = pattern {
        let mut unmatched = Vec::new();
        for image in listing.images.iter_mut().filter(|image| image.patient.is_none()) {
            image.patient = pattern.patient(&image.name);
            if image.patient.is_none() {
                unmatched.push(image.name.as_str());
            }
        }
        if let Some(first) = unmatched.first() {
            let files = counted(unmatched.len(), "file");
            let note = format!("no patient in the name of {files}, such as `{first}`: each counts as its own");
            listing.notes.push(note);
        }
    }
    Ok(listing)
}

/// Why images could not be listed.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// The folder is not there.
    #[error(
        "find the data folder `{}`\nhint: unpack the data there, or change `data.folder` in the study file; \
         a relative path starts at the study file",
        path.display()
    )]
    NoFolder { path: PathBuf },
    /// The manifest is not there.
    #[error("find the manifest `{}`\nhint: a relative path starts at the study file", path.display())]
    NoManifest { path: PathBuf },
    /// A folder could not be read.
    #[error("read the folder `{}`", path.display())]
    Walk { path: PathBuf, source: walkdir::Error },
    /// A folder holds neither sets nor classes.
    #[error(
        "find images in `{}`: it has no class folders\n\
         hint: expected train/CLASS/*, val/CLASS/* and test/CLASS/*, or CLASS/*",
        path.display()
    )]
    NoClasses { path: PathBuf },
    /// There are set folders, but no training set.
    #[error("find training images in `{}`: there is no `train` folder beside {found}", path.display())]
    NoTraining { path: PathBuf, found: String },
    /// The same set twice, as in `val` and `validation`.
    #[error("tell the sets in `{}` apart: {names} mean the same\nhint: merge or rename them", path.display())]
    SetTwice { path: PathBuf, names: String },
    /// Rows of a manifest are wrong; each line says file, line and mistake.
    #[error("read the manifest `{}`:\n{}", path.display(), mistakes.join("\n"))]
    Rows { path: PathBuf, mistakes: Vec<String> },
    /// The manifest could not be read at all.
    #[error("read the manifest `{}`", path.display())]
    Csv { path: PathBuf, source: csv::Error },
    /// The pattern for patients is not a regular expression.
    #[error("understand the pattern for patients")]
    Pattern { source: Box<regex::Error> },
}
