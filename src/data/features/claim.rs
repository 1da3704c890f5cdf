//! Who computes which rows: buckets of images, claimed by file locks that die with their holder.
//!
//! Images fall into 256 buckets by their digest, whatever list they come from. A builder claims as many free buckets as
//! it takes to fill a segment; others claim others, and thereby help.

use super::FeatureError;
use super::shelf::TEMPORARY;
use crate::digest::Digest;
use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::path::Path;

/// Sole right to build the rows of some buckets of a shelf, until dropped.
pub(super) struct Claim {
    _locks: Vec<File>,
    first: u8,
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
        let mut buckets: BTreeMap<u8, Vec<Wanted>> = BTreeMap::new();
        for wanted in missing {
            buckets.entry(bucket(&wanted.0)).or_default().push(*wanted);
        }
        let mut held: Option<Self> = None;
        let mut chosen = Vec::new();
        for (bucket, images) in buckets {
            // Locks are shared by all shelves: a few files for good, and rarely a needless wait.
            let path = locks.join(format!("{:02x}", bucket ^ shelf.as_bytes()[0]));
            let file = File::options().write(true).create(true).truncate(false).open(&path);
            let file = file.map_err(FeatureError::io("open the lock file", &path))?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => continue,
                Err(TryLockError::Error(e)) => return Err(FeatureError::io("lock", &path)(e)),
            }
            match &mut held {
                None => held = Some(Self { _locks: vec![file], first: bucket }),
                Some(claim) => claim._locks.push(file),
            }
            chosen.extend(images);
            if chosen.len() >= most {
                chosen.truncate(most);
                break;
            }
        }
        Ok(held.map(|claim| (claim, chosen)))
    }

    /// How names of this claim's unfinished segments begin. No one else has such files while the claim lives.
    pub(super) fn prefix(&self) -> String {
        format!("{TEMPORARY}{:02x}-", self.first)
    }

    /// Removes what killed builders left under this claim.
    pub(super) fn tidy(&self, folder: &Path) {
        let prefix = self.prefix();
        let left = fs::read_dir(folder).into_iter().flatten().flatten();
        for entry in left.filter(|e| e.file_name().as_encoded_bytes().starts_with(prefix.as_bytes())) {
            // Harmless where it cannot be removed.
            let _ = fs::remove_file(entry.path());
        }
    }
}

fn bucket(image: &Digest) -> u8 {
    image.as_bytes()[0]
}
