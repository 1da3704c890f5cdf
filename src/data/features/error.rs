//! What can go wrong with cached features.

use std::io;
use std::path::PathBuf;

/// Why features could not be had.
#[derive(Debug, thiserror::Error)]
pub enum FeatureError {
    /// A view that is drawn anew every epoch has nothing to be shared.
    #[error(
        "cache a fresh view: it is drawn anew every epoch\n\
         hint: compute it with FeatureRequest::compute, or let the study use a bank of views"
    )]
    Fresh,
    /// The cut lies beyond the network's last stage.
    #[error("cut the network after {cut} stages: it has {stages}")]
    NoSuchStage { cut: usize, stages: usize },
    /// The network's pools leave nothing of so small an image.
    #[error("reach stage {cut} with images of {size} px\nhint: choose a larger size, or an earlier stage")]
    ImageTooSmall { cut: usize, size: usize },
    /// An index beyond the records.
    #[error("find image {index}: the data set has {count}")]
    NoSuchImage { index: usize, count: usize },
    /// The network's operations failed.
    #[error("compute frozen features")]
    Compute(#[from] candle_core::Error),
    /// The network returned something of another shape than its stages promise.
    #[error("use frozen features of shape {found:?}: {expected:?} was expected")]
    Shape { expected: Vec<usize>, found: Vec<usize> },
    /// A finite feature beyond 65504.
    #[error(
        "keep the feature {value:e} of `{image}` in f16: the largest number there is 65504\n\
         hint: set cache = \"f32\""
    )]
    TooLargeForF16 { value: f32, image: String },
    /// The budget cannot hold what is wanted, even without all that nobody uses.
    #[error(
        "keep frozen features within the cache's {limit_mb} MiB: {needed_mb} MiB more are needed, {used_mb} MiB are \
         in use\nhint: raise cache_size, set cache = \"f16\", or take fewer views or a smaller size"
    )]
    OverBudget { needed_mb: u64, used_mb: u64, limit_mb: u64 },
    /// The file system has no room, even without all that nobody uses.
    #[error(
        "keep frozen features in `{}`: {needed_mb} MiB are needed, {free_mb} MiB are free\n\
         hint: free some space, choose another folder with --state, set cache = \"f16\", or take fewer views",
        folder.display()
    )]
    NoRoom { folder: PathBuf, needed_mb: u64, free_mb: u64 },
    /// The file system refused.
    #[error("{action} `{}`", path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    /// Written, and yet wrong when read.
    #[error("read back `{}`, which was just written: the disk may be failing", path.display())]
    Unreadable { path: PathBuf },
    /// Called off; what was computed is kept.
    #[error("finish: interrupted")]
    Interrupted,
}

impl FeatureError {
    /// Whether the features could still be computed, but not kept: a caller may do without the cache.
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
