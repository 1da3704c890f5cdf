//! Who computes which rows: buckets of images, claimed by file locks that die with their holder.
//!
//! Images fall into 256 buckets by their digest, whatever list they come from. A builder claims as many free buckets as
//! it takes to fill a segment; others claim others, and thereby help.

use super::FeatureError;
use super::shelf::{TEMPORARY, unique};
use crate::digest::Digest;
use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::path::Path;

/// Sole right to build the rows of some buckets of a shelf, until dropped.
pub(super) struct Claim {
    /// Held, never read.
    locks: Vec<File>,
    buckets: Vec<u8>,
}

/// An image whose row is wanted: its digest and its index in the source.
pub(super) type Wanted = (Digest, usize);

impl Claim {
    /// Claims buckets with up to `most` missing rows. `None`: others are at work on every one of them.
    pub(super) fn take(
        locks: &Path,
        shelf: &Digest,
        missing: &[Wanted],
        most: usize,
    ) -> Result<Option<(Self, Vec<Wanted>)>, FeatureError> {
        // Locks are shared by all shelves: a few files for good, and rarely a needless wait. Buckets go in the order of
        // their locks, which differs from shelf to shelf: builders of shelves that fill each other do not run abreast.
        let mut buckets: BTreeMap<u8, Vec<Wanted>> = BTreeMap::new();
        for wanted in missing {
            buckets.entry(bucket(&wanted.0) ^ shelf.as_bytes()[0]).or_default().push(*wanted);
        }
        let mut held: Option<Self> = None;
        let mut chosen = Vec::new();
        for (lock, images) in buckets {
            let path = locks.join(format!("{lock:02x}"));
            let file = File::options().write(true).create(true).truncate(false).open(&path);
            let file = file.map_err(FeatureError::io("open the lock file", &path))?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => continue,
                Err(TryLockError::Error(e)) => return Err(FeatureError::io("lock", &path)(e)),
            }
            let claim = held.get_or_insert_with(|| Self { locks: Vec::new(), buckets: Vec::new() });
            claim.locks.push(file);
            claim.buckets.push(lock ^ shelf.as_bytes()[0]);
            chosen.extend(images);
            if chosen.len() >= most {
                chosen.truncate(most);
                break;
            }
        }
        Ok(held.map(|claim| (claim, chosen)))
    }

    /// A name for this claim's unfinished segment. While the claim lives, no one else has files that are called
    /// after one of its buckets.
    pub(super) fn unfinished(&self) -> String {
        format!("{}{}", prefix(self.buckets.first().copied().unwrap_or_default()), unique())
    }

    /// Removes what killed builders left under this claim.
    pub(super) fn tidy(&self, folder: &Path) {
        let prefixes: Vec<String> = self.buckets.iter().map(|b| prefix(*b)).collect();
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let name = entry.file_name();
            if prefixes.iter().any(|p| name.as_encoded_bytes().starts_with(p.as_bytes())) {
                // Harmless where it cannot be removed.
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}

fn prefix(bucket: u8) -> String {
    format!("{TEMPORARY}{bucket:02x}-")
}

fn bucket(image: &Digest) -> u8 {
    image.as_bytes()[0]
}
