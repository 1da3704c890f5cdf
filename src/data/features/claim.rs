//! Division of work between builders: buckets of images, claimed by file locks, which end with the process that holds
//! them.
//!
//! Images fall into 256 buckets by their digest, in whatever list they appear. A builder claims as many free buckets as
//! it takes to fill a segment; other builders claim other buckets.

use super::FeatureError;
use super::shelf::{TEMPORARY, is_temporary, unique};
use crate::digest::Digest;
use crate::fsx::Locked;
use crate::shared;
use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::path::Path;

/// Exclusive right to build the rows of some buckets of a shelf, until dropped.
pub(super) struct Claim {
    /// Held for their locks, never read.
    locks: Vec<Locked>,
    buckets: Vec<u8>,
}

/// An image whose row is wanted: its digest and its index in the source.
pub(super) type Wanted = (Digest, usize);

impl Claim {
    /// Claims buckets with up to `most` missing rows. `None` if other builders hold all of them.
    pub(super) fn take(
        locks: &Path,
        shelf: &Digest,
        missing: &[Wanted],
        most: usize,
    ) -> Result<Option<(Self, Vec<Wanted>)>, FeatureError> {
        // All shelves share the lock files, so there are only 256 of them, at the cost of a rare needless wait. Buckets
        // are tried in the order of their locks, which differs between shelves: builders of shelves that fill each
        // other then tend to work on different images.
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
            claim.locks.push(Locked::new(file));
            claim.buckets.push(lock ^ shelf.as_bytes()[0]);
            chosen.extend(images);
            if chosen.len() >= most {
                chosen.truncate(most);
                break;
            }
        }
        Ok(held.map(|claim| (claim, chosen)))
    }

    /// A temporary name for this claim's segment. While the claim is held, no other builder of this machine has files named after
    /// one of its buckets; whether one of another machine has, depends on how far its locks reach.
    pub(super) fn unfinished(&self) -> String {
        format!("{}{}", prefix(self.buckets.first().copied().unwrap_or_default()), unique())
    }

    /// Removes files that killed builders left unfinished in these buckets.
    pub(super) fn tidy(&self, folder: &Path) {
        let prefixes: Vec<String> = self.buckets.iter().map(|b| prefix(*b)).collect();
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let own = prefixes.iter().any(|p| name.as_encoded_bytes().starts_with(p.as_bytes()));
            if own || (is_temporary(&name) && shared::is_abandoned(&entry.path())) {
                // A file that cannot be removed is harmless.
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}

fn prefix(bucket: u8) -> String {
    format!("{TEMPORARY}{bucket:02x}-{}-", shared::machine())
}

fn bucket(image: &Digest) -> u8 {
    image.as_bytes()[0]
}
