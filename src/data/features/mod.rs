//! The prefix cache: the output of a frozen network, computed once.
//!
//! [`crate::nn::Backbone::prefix`] is a pure function, so its output is keyed by its inputs (network, preprocessing,
//! image, cut, view, number format) and shared by epochs, trials, rungs, worker processes and later studies. The
//! features of one image are a *row*. Rows of one network cut, preprocessing and view form a *shelf* (a folder) of
//! *segments* (immutable, memory-mapped files), in which they are found by the digest of their image. Several processes
//! build a shelf together; a process killed at any time leaves at worst an unfinished file. A torn or corrupted segment
//! is detected when it is first opened, and its rows are computed again.

mod build;
mod claim;
mod compute;
mod error;
mod number;
mod request;
mod room;
mod rows;
mod segment;
mod shelf;
#[cfg(test)]
mod tests;

pub use compute::global_average;
pub use error::FeatureError;
pub use request::{FeatureRequest, Shelved, network_digest, predicted_bytes};
pub use room::{CacheStats, Collected, ShelfStats};
pub use rows::Features;

use crate::data::Watch;
use build::Builder;
use request::value_bytes;
use room::Room;
use rows::Memory;
use shelf::{Shelf, Verified};
use std::fs;
use std::path::Path;

/// Default limit, in bytes, of small rows held in memory.
const DEFAULT_MEMORY: u64 = 256 << 20;

/// Cached features in a folder that any number of threads and processes share.
#[derive(Debug)]
pub struct FeatureCache {
    room: Room,
    memory: Memory,
    verified: Verified,
}

impl FeatureCache {
    /// Opens the cache in `cache_dir/features`, creating the folder if needed. `disk_limit`: bytes that cached features
    /// may take; the least recently used are removed first.
    ///
    /// # Errors
    /// If the folder cannot be created.
    pub fn open(cache_dir: &Path, disk_limit: Option<u64>) -> Result<Self, FeatureError> {
        let room = Room { root: cache_dir.join("features"), limit: disk_limit };
        let locks = room.locks();
        fs::create_dir_all(&locks).map_err(FeatureError::io("create the folder", &locks))?;
        Ok(Self { room, memory: Memory::new(DEFAULT_MEMORY), verified: Verified::default() })
    }

    /// The same cache, holding at most `limit` bytes of small rows in memory; all others are mapped.
    #[must_use]
    pub fn with_memory(self, limit: u64) -> Self {
        Self { memory: Memory::new(limit), ..self }
    }

    /// Bytes of rows held in memory now.
    #[cfg(test)]
    pub(crate) fn memory_used(&self) -> u64 {
        self.memory.used()
    }

    /// The features of a request's images: read if cached, awaited if another process is computing them, else computed
    /// and cached.
    ///
    /// # Errors
    /// [`FeatureError::Fresh`] for a view that cannot be shared; if there is no room
    /// ([`FeatureError::is_lack_of_room`]), the network or the file system fails, or `watch` interrupts. Rows computed
    /// until then are kept.
    pub fn features(&self, request: &FeatureRequest<'_>, watch: &dyn Watch) -> Result<Features, FeatureError> {
        let about = request.shelved()?;
        let shape = request.shape()?;
        let wanted = request.wanted(request.images)?;
        let row_bytes = shape.iter().product::<usize>() * value_bytes(request.precision);
        let mut shelf = Shelf::open(&self.room.root, &about, row_bytes)?;
        shelf.refresh(&self.verified, watch)?;
        let builder = Builder { request, about: &about, room: &self.room, verified: &self.verified, watch };
        builder.fill(&mut shelf, &wanted)?;
        let row =
            |digest| shelf.row(digest).cloned().ok_or_else(|| FeatureError::Unreadable { path: shelf.folder.clone() });
        let rows = wanted.iter().map(|(digest, _)| row(digest)).collect::<Result<Vec<_>, _>>()?;
        Ok(Features::new(shape, request.precision, rows, shelf, &self.memory))
    }

    /// What the cache holds.
    ///
    /// # Errors
    /// If its folder cannot be read.
    pub fn stats(&self) -> Result<CacheStats, FeatureError> {
        self.room.stats()
    }

    /// Removes unfinished files of killed processes, shelves that are empty or of another version of this program, and,
    /// while the disk limit is exceeded, the least recently used shelves. Shelves in use are kept. With `dry_run`, only
    /// reports what would be removed.
    ///
    /// # Errors
    /// If the folder cannot be read, or something in it cannot be removed.
    pub fn collect(&self, dry_run: bool) -> Result<Collected, FeatureError> {
        self.room.collect(dry_run)
    }
}
