//! What can go wrong with cached features.

use std::io;
use std::path::PathBuf;

/// Why features could not be obtained.
#[derive(Debug, thiserror::Error)]
pub enum FeatureError {
    /// A fresh view is drawn again every epoch, so its features cannot be shared.
    #[error(
        "cache a fresh view: it is drawn anew every epoch\n\
         hint: compute it with FeatureRequest::compute, or let the study use a bank of views"
    )]
    Fresh,
    /// The cut lies beyond the network's last stage.
    #[error("cut the network after {cut} stages: it has {stages}")]
    NoSuchStage { cut: usize, stages: usize },
    /// The image is too small for the network's pooling.
    #[error(
        "reach stage {cut} with images of {size} px\nhint: let the network see more of them, or choose an earlier stage"
    )]
    ImageTooSmall { cut: usize, size: usize },
    /// An index beyond the records.
    #[error("find image {index}: the data set has {count}")]
    NoSuchImage { index: usize, count: usize },
    /// The network's operations failed.
    #[error("compute frozen features")]
    Compute(#[from] candle_core::Error),
    /// The network's output has another shape than its stages declare.
    #[error("use frozen features of shape {found:?}: {expected:?} was expected")]
    Shape { expected: Vec<usize>, found: Vec<usize> },
    /// A finite feature too large for f16.
    #[error(
        "keep the feature {value:e} of `{image}` in f16: the largest number there is 65504\n\
         hint: set cache = \"f32\""
    )]
    TooLargeForF16 { value: f32, image: String },
    /// The disk limit cannot hold the request, even without all shelves that are not in use.
    #[error(
        "keep frozen features within the cache's {limit_mb} MiB: {needed_mb} MiB more are needed, {used_mb} MiB are \
         in use\nhint: raise cache_size, set cache = \"f16\", or take fewer views or a smaller size"
    )]
    OverBudget { needed_mb: u64, used_mb: u64, limit_mb: u64 },
    /// The file system has no room for the request, even without all shelves that are not in use.
    #[error(
        "keep frozen features in `{}`: {needed_mb} MiB are needed, {free_mb} MiB are free\n\
         hint: free some space, choose another folder with --state, set cache = \"f16\", or take fewer views",
        folder.display()
    )]
    NoRoom { folder: PathBuf, needed_mb: u64, free_mb: u64 },
    /// A file operation failed.
    #[error("{action} `{}`", path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    /// A file just written reads back wrong.
    #[error("read back `{}`, which was just written: the disk may be failing", path.display())]
    Unreadable { path: PathBuf },
    /// Interrupted by the caller; what was computed is kept.
    #[error("finish: interrupted")]
    Interrupted,
}

impl FeatureError {
    /// Whether the features could be computed but not stored, so that a caller can do without the cache.
    pub fn is_lack_of_room(&self) -> bool {
        match self {
            Self::OverBudget { .. } | Self::NoRoom { .. } => true,
            Self::Io { source, .. } => {
                matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
            }
            _ => false,
        }
    }

    pub(super) fn io(action: &'static str, path: &std::path::Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }
}
