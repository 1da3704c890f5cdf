//! Progress and interruption of long work on images.

use serde::{Deserialize, Serialize};

/// Work on images that is done once and shared by trials, processes and studies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, strum::Display)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "lowercase")]
pub enum Task {
    /// Reading files, for their digests.
    Reading,
    /// Decoding and resizing them.
    Decoding,
    /// Drawing synthetic ones.
    Drawing,
    /// Waiting for another process that decodes the same ones.
    #[strum(to_string = "waiting for another process that decodes")]
    WaitingForImages,
    /// Computing the features of frozen layers.
    #[strum(to_string = "computing frozen features")]
    Features,
    /// Waiting for another process that computes the same features.
    #[strum(to_string = "waiting for another process that computes features")]
    WaitingForFeatures,
}

/// An observer of such work; called from any thread.
pub trait Watch: Sync {
    /// `done` of `total` items are finished.
    fn progress(&self, _task: Task, _done: u64, _total: u64) {}
    /// Something was wrong and has been repaired, such as a damaged file that is built again.
    fn warn(&self, _message: &str) {}
    /// Whether to stop as soon as possible.
    fn interrupted(&self) -> bool {
        false
    }
}

/// Ignores all progress and never interrupts.
#[derive(Clone, Copy, Debug, Default)]
pub struct Quiet;

impl Watch for Quiet {}
