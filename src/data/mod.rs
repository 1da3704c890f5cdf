//! Images: manifest, split, decoding, augmentation, prefetching, and the prefix cache.

pub mod augment;
mod dataset;
pub mod decode;
pub mod features;
mod index;
pub mod loader;
mod looks;
mod manifest;
mod patients;
mod pixels;
pub mod sheet;
mod split;
mod store;
mod summary;
mod survey;
pub mod synthetic;
mod watch;

pub use dataset::{DataError, DataSet};
pub use looks::{FileFacts, appearances, file_facts};
pub use manifest::{GivenSet, KERMANY_PATIENT, ManifestError};
pub use patients::PatientError;
pub use pixels::{ImageRecord, PixelSource};
pub use split::{ENOUGH_TO_VALIDATE, Fold, GivenValidation, Split, SplitError, groups};
pub use store::StoreError;
pub use summary::{DataSummary, FoldCounts, PatientCounts, SkippedFile};
pub use survey::{Survey, survey};
pub use watch::{Quiet, Task, Watch};
