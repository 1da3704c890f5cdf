//! A shelf: the folder of all rows of one network cut, preprocessing and view.
//!
//! Rows are found by the digest of their image, so a data set with one more image, another split or another fold
//! reuses all other rows. The file `use` is locked (shared) by every process that reads or builds the shelf and
//! (exclusive) by the one that removes it; its modification time is when the shelf was last requested.

use super::FeatureError;
use super::request::Shelved;
use super::segment::Segment;
use crate::data::Watch;
use crate::digest::Digest;
use crate::fsx::Locked;
use std::collections::{HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

/// Prefix of the names of unfinished files and of shelves being removed.
pub(super) const TEMPORARY: &str = ".tmp-";
/// Suffix of the names of segments.
pub(super) const ROWS: &str = ".rows";
/// Lock file of a shelf.
pub(super) const USE: &str = "use";
/// Description of the shelf: [`Shelved`] as JSON.
pub(super) const ABOUT: &str = "about.json";

/// Where a row is.
#[derive(Clone, Debug)]
pub(super) struct Row {
    segment: Arc<Segment>,
    at: usize,
}

impl Row {
    pub(super) fn bytes(&self) -> &[u8] {
        self.segment.row(self.at)
    }
}

/// Files that this process has verified, and need not verify again.
#[derive(Debug, Default)]
pub(super) struct Verified(Mutex<HashSet<[i64; 7]>>);

impl Verified {
    /// Identifies a file's present content by its metadata.
    fn name(path: &Path) -> Option<[i64; 7]> {
        let m = fs::metadata(path).ok()?;
        let [dev, ino, len] = [m.dev(), m.ino(), m.len()].map(u64::cast_signed);
        Some([dev, ino, len, m.mtime(), m.mtime_nsec(), m.ctime(), m.ctime_nsec()])
    }

    fn open(&self, path: &Path, key: &Digest, row_bytes: usize) -> io::Result<Option<Segment>> {
        let Some(name) = Self::name(path) else { return Ok(None) };
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(&name);
        let segment = Segment::open(path, key, row_bytes, known)?;
        if segment.is_some() {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(name);
        }
        Ok(segment)
    }
}

/// An open shelf, which cannot be removed while this exists.
#[derive(Debug)]
pub(super) struct Shelf {
    pub(super) folder: PathBuf,
    pub(super) key: Digest,
    pub(super) row_bytes: usize,
    rows: HashMap<Digest, Row>,
    known: HashSet<OsString>,
    _in_use: Locked,
}

impl Shelf {
    /// The folder of a shelf.
    pub(super) fn place(root: &Path, key: &Digest) -> PathBuf {
        root.join(key.short())
    }

    /// Opens a shelf, creating it if needed. No rows are found until [`Shelf::refresh`].
    pub(super) fn open(root: &Path, about: &Shelved, row_bytes: usize) -> Result<Self, FeatureError> {
        let key = about.key();
        let folder = Self::place(root, &key);
        let in_use = loop {
            match fs::create_dir_all(&folder) {
                Ok(()) => {}
                // It was there, and was removed before that could be seen.
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists && is_away_or_folder(&folder) => continue,
                Err(e) => return Err(FeatureError::io("create the folder", &folder)(e)),
            }
            match hold(&folder) {
                Ok(Some(file)) => break file,
                Ok(None) => {}
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(FeatureError::io("lock", &folder.join(USE))(e)),
            }
        };
        // Failure is harmless: only the order of removal depends on this time.
        let _ = in_use.set_modified(SystemTime::now());
        let described = folder.join(ABOUT);
        if !described.exists() {
            let draft = folder.join(unfinished("about"));
            let text = serde_json::to_vec_pretty(about).unwrap_or_default();
            fs::write(&draft, text)
                .and_then(|()| fs::rename(&draft, &described))
                .map_err(FeatureError::io("write", &described))?;
        }
        Ok(Self { folder, key, row_bytes, rows: HashMap::new(), known: HashSet::new(), _in_use: in_use })
    }

    /// Opens a shelf if it exists.
    pub(super) fn existing(root: &Path, about: &Shelved, row_bytes: usize) -> Result<Option<Self>, FeatureError> {
        if Self::place(root, &about.key()).join(USE).exists() {
            Self::open(root, about, row_bytes).map(Some)
        } else {
            Ok(None)
        }
    }

    /// Adds the segments that have appeared since the last call. A damaged one is removed, with a warning.
    pub(super) fn refresh(&mut self, verified: &Verified, watch: &dyn Watch) -> Result<(), FeatureError> {
        let listing = fs::read_dir(&self.folder).map_err(FeatureError::io("list", &self.folder))?;
        for entry in listing {
            let entry = entry.map_err(FeatureError::io("list", &self.folder))?;
            let name = entry.file_name();
            if !is_rows(&name) || self.known.contains(&name) {
                continue;
            }
            if watch.interrupted() {
                return Err(FeatureError::Interrupted);
            }
            let path = entry.path();
            let opened = verified.open(&path, &self.key, self.row_bytes);
            if let Some(segment) = opened.map_err(FeatureError::io("open", &path))? {
                let segment = Arc::new(segment);
                for (at, image) in segment.images().iter().enumerate() {
                    self.rows.entry(*image).or_insert_with(|| Row { segment: Arc::clone(&segment), at });
                }
                self.known.insert(name);
            } else {
                match fs::remove_file(&path) {
                    Ok(()) => watch.warn(&format!("cached features in `{}` are damaged: made again", path.display())),
                    // Another process has removed it already.
                    Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                    Err(e) => return Err(FeatureError::io("remove the damaged file", &path)(e)),
                }
            }
        }
        Ok(())
    }

    /// The images whose rows a shelf has according to its segments' tables; rows are not verified.
    #[cfg(test)]
    pub(super) fn listing(root: &Path, key: &Digest, row_bytes: usize) -> HashSet<Digest> {
        let files = fs::read_dir(Self::place(root, key)).into_iter().flatten().flatten();
        files
            .filter(|file| is_rows(&file.file_name()))
            .filter_map(|file| Segment::open(&file.path(), key, row_bytes, true).unwrap())
            .flat_map(|segment| segment.images().to_vec())
            .collect()
    }

    /// The row of an image.
    pub(super) fn row(&self, image: &Digest) -> Option<&Row> {
        self.rows.get(image)
    }

    /// Whether there is a row of this image.
    pub(super) fn has(&self, image: &Digest) -> bool {
        self.rows.contains_key(image)
    }
}

/// Whether there is nothing or a folder, as opposed to a file or a link.
fn is_away_or_folder(path: &Path) -> bool {
    fs::symlink_metadata(path).map_or_else(|e| e.kind() == io::ErrorKind::NotFound, |found| found.is_dir())
}

/// Locks the shelf in this folder for use; `None` if it was removed meanwhile.
fn hold(folder: &Path) -> io::Result<Option<Locked>> {
    let path = folder.join(USE);
    let file = File::options().read(true).write(true).create(true).truncate(false).open(&path)?;
    file.lock_shared()?;
    let file = Locked::new(file);
    // The shelf may have been removed, and created again, while this waited for the lock.
    let (held, there) = (file.metadata()?, fs::metadata(&path)?);
    Ok(((held.dev(), held.ino()) == (there.dev(), there.ino())).then_some(file))
}

/// A unique temporary name.
pub(super) fn unfinished(what: &str) -> String {
    format!("{TEMPORARY}{what}-{}-{}", crate::shared::machine(), unique())
}

/// Different for every call on this machine; with [`crate::shared::machine`], on any.
pub(super) fn unique() -> String {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let time = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_nanos());
    format!("{time:x}-{:x}-{:x}", std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed))
}

/// Whether this names a segment.
pub(super) fn is_rows(name: &OsStr) -> bool {
    name.as_encoded_bytes().ends_with(ROWS.as_bytes()) && !is_temporary(name)
}

/// Whether this names something unfinished.
pub(super) fn is_temporary(name: &OsStr) -> bool {
    name.as_encoded_bytes().starts_with(TEMPORARY.as_bytes())
}
