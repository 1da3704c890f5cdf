//! Disk use of the cache: statistics, removal of the least recently used shelves, and removal of leftovers.

use super::FeatureError;
use super::request::Shelved;
use super::segment::Segment;
use super::shelf::{self, ABOUT, USE, is_temporary, unfinished};
use crate::fsx::Locked;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Bytes to leave free on the cache's file system.
const SPARE: u64 = 64 << 20;

/// One shelf of the cache: rows of one network cut, preprocessing and view.
#[derive(Clone, Debug)]
pub struct ShelfStats {
    /// Its folder.
    pub folder: PathBuf,
    /// What it holds, if its description can be read.
    pub holds: Option<Shelved>,
    /// Segments.
    pub files: u64,
    /// Rows: one per image.
    pub rows: u64,
    /// Bytes of all its files.
    pub bytes: u64,
    /// When it was last requested.
    pub last_used: SystemTime,
    /// Whether a process uses it now.
    pub in_use: bool,
}

/// What the cache holds.
#[derive(Clone, Debug, Default)]
pub struct CacheStats {
    /// Its shelves, least recently used first.
    pub shelves: Vec<ShelfStats>,
}

impl CacheStats {
    /// Bytes of all shelves.
    pub fn bytes(&self) -> u64 {
        self.shelves.iter().map(|s| s.bytes).sum()
    }
    /// Segments of all shelves.
    pub fn files(&self) -> u64 {
        self.shelves.iter().map(|s| s.files).sum()
    }
    /// Rows of all shelves.
    pub fn rows(&self) -> u64 {
        self.shelves.iter().map(|s| s.rows).sum()
    }
}

/// What a garbage collection removed or, in a dry run, would remove.
#[derive(Clone, Debug, Default)]
pub struct Collected {
    /// Files and folders that killed processes left unfinished.
    pub unfinished: Vec<PathBuf>,
    /// Shelves that are empty, of another version of the program, or over the disk limit.
    pub shelves: Vec<ShelfStats>,
    /// Bytes of all these.
    pub bytes: u64,
}

/// A cache folder and its disk limit.
#[derive(Clone, Debug)]
pub(super) struct Room {
    pub(super) root: PathBuf,
    pub(super) limit: Option<u64>,
}

impl Room {
    pub(super) fn locks(&self) -> PathBuf {
        self.root.join("locks")
    }

    /// Exclusive right to remove shelves, until dropped.
    fn alone(&self) -> Result<Locked, FeatureError> {
        let path = self.locks().join("room");
        let lock = File::options().write(true).create(true).truncate(false).open(&path);
        let lock = lock.map_err(FeatureError::io("open the lock file", &path))?;
        lock.lock().map_err(FeatureError::io("lock", &path))?;
        Ok(Locked::new(lock))
    }

    /// Bytes that can be written to the file system; `None` if unknown.
    pub(super) fn free(&self) -> Option<u64> {
        let stat = rustix::fs::statvfs(&self.root).ok()?;
        Some(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    /// Makes room for `needed` more bytes by removing shelves that are not in use, least recently used first. If that
    /// cannot free enough, nothing is removed.
    pub(super) fn make(&self, needed: u64) -> Result<(), FeatureError> {
        let _alone = self.alone()?;
        let stats = self.survey()?;
        let used = stats.bytes();
        let free = self.free();
        let over_budget = self.limit.map_or(0, |limit| used.saturating_add(needed).saturating_sub(limit));
        let over_disk = free.map_or(0, |free| needed.saturating_add(SPARE).saturating_sub(free));
        let mut wanted = over_budget.max(over_disk);
        let mut going = Vec::new();
        for shelf in &stats.shelves {
            if wanted == 0 {
                break;
            }
            if shelf.bytes > 0
                && let Some(held) = hold(&shelf.folder)
            {
                wanted = wanted.saturating_sub(shelf.bytes);
                going.push((shelf, held));
            }
        }
        if wanted > 0 {
            let gone: u64 = going.iter().map(|(shelf, _)| shelf.bytes).sum();
            return Err(match self.limit {
                Some(limit) if over_budget > gone => FeatureError::OverBudget {
                    needed_mb: mebibytes(needed),
                    used_mb: mebibytes(used - gone),
                    limit_mb: limit >> 20,
                },
                _ => FeatureError::NoRoom {
                    folder: self.root.clone(),
                    needed_mb: mebibytes(needed.saturating_add(SPARE)),
                    free_mb: free.unwrap_or(0).saturating_add(gone) >> 20,
                },
            });
        }
        for (shelf, held) in going {
            self.remove(&shelf.folder, held)?;
        }
        Ok(())
    }

    /// The shelves with their sizes, least recently used first.
    pub(super) fn survey(&self) -> Result<CacheStats, FeatureError> {
        let mut shelves = Vec::new();
        for folder in entries(&self.root)? {
            if folder.is_dir() && folder.join(USE).exists() && !is_unfinished(&folder) {
                shelves.push(look(folder)?);
            }
        }
        shelves.sort_by(|a, b| (a.last_used, &a.folder).cmp(&(b.last_used, &b.folder)));
        Ok(CacheStats { shelves })
    }

    /// [`Room::survey`] with all fields filled in: also the rows and contents of each shelf, and whether it is in use.
    pub(super) fn stats(&self) -> Result<CacheStats, FeatureError> {
        let mut stats = self.survey()?;
        for shelf in &mut stats.shelves {
            describe(shelf)?;
            shelf.in_use = hold(&shelf.folder).is_none();
        }
        Ok(stats)
    }

    /// Removes unfinished files of killed processes, shelves that are empty or of another version of the program, and,
    /// while the disk limit is exceeded, the least recently used shelves. Shelves in use are kept.
    pub(super) fn collect(&self, dry_run: bool) -> Result<Collected, FeatureError> {
        let mut collected = Collected::default();
        let _alone = self.alone()?;
        for left in entries(&self.root)?.into_iter().filter(|f| is_unfinished(f)) {
            collected.bytes += size(&left)?;
            if !dry_run {
                fs::remove_dir_all(&left).or_else(absent).map_err(FeatureError::io("remove", &left))?;
            }
            collected.unfinished.push(left);
        }
        let stats = self.survey()?;
        let mut over = self.limit.map_or(0, |limit| stats.bytes().saturating_sub(limit));
        for shelf in stats.shelves {
            let Some(held) = hold(&shelf.folder) else { continue };
            // It may have been filled since.
            let surveyed = shelf.bytes;
            let mut shelf = look(shelf.folder)?;
            describe(&mut shelf)?;
            over += self.limit.map_or(0, |_| shelf.bytes.saturating_sub(surveyed));
            let stale = shelf.rows == 0 || !shelf.holds.as_ref().is_some_and(Shelved::is_current);
            if stale || over > 0 {
                over = over.saturating_sub(shelf.bytes);
                collected.bytes += shelf.bytes;
                if !dry_run {
                    self.remove(&shelf.folder, held)?;
                }
                collected.shelves.push(shelf);
                continue;
            }
            // The shelf is not in use, so nothing is writing here.
            for left in entries(&shelf.folder)?.into_iter().filter(|f| is_unfinished(f)) {
                let bytes = size(&left)?;
                over = over.saturating_sub(bytes);
                collected.bytes += bytes;
                if !dry_run {
                    fs::remove_file(&left).or_else(absent).map_err(FeatureError::io("remove", &left))?;
                }
                collected.unfinished.push(left);
            }
        }
        Ok(collected)
    }

    /// Removes a shelf that `held` locks exclusively.
    fn remove(&self, folder: &Path, held: Locked) -> Result<(), FeatureError> {
        // Renamed first, so that an interrupted removal leaves no incomplete shelf.
        let going = self.root.join(unfinished("removed"));
        fs::rename(folder, &going).map_err(FeatureError::io("rename", folder))?;
        drop(held);
        // Who was about to open the shelf may still create its lock file in the renamed folder; each does so once, and then sees
        // that the folder is not the shelf any more.
        let mut outcome = fs::remove_dir_all(&going);
        for _ in 0..100 {
            match outcome {
                Err(e) if e.kind() == io::ErrorKind::DirectoryNotEmpty => outcome = fs::remove_dir_all(&going),
                _ => break,
            }
        }
        outcome.or_else(absent).map_err(FeatureError::io("remove", &going))
    }
}

/// Locks a shelf exclusively; `None` if it is in use. To remove the shelf, hold [`Room::alone`] first: otherwise the
/// folder could be removed and created again between opening and locking, and the lock would be that of the old one.
fn hold(folder: &Path) -> Option<Locked> {
    let file = File::options().read(true).write(true).open(folder.join(USE)).ok()?;
    file.try_lock().ok()?;
    Some(Locked::new(file))
}

/// Fills in the rows and contents of a shelf.
fn describe(shelf: &mut ShelfStats) -> Result<(), FeatureError> {
    let files = entries(&shelf.folder)?.into_iter().filter(|f| is_rows(f));
    shelf.rows = files.filter_map(|f| Segment::count(&f)).sum();
    shelf.holds = fs::read(shelf.folder.join(ABOUT)).ok().and_then(|text| serde_json::from_slice(&text).ok());
    Ok(())
}

fn look(folder: PathBuf) -> Result<ShelfStats, FeatureError> {
    let (mut files, mut bytes) = (0, 0);
    for file in entries(&folder)? {
        bytes += size(&file)?;
        files += u64::from(is_rows(&file));
    }
    let last_used = fs::metadata(folder.join(USE)).and_then(|m| m.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
    Ok(ShelfStats { folder, holds: None, files, rows: 0, bytes, last_used, in_use: false })
}

/// The paths in a folder; none if it has been removed meanwhile.
fn entries(folder: &Path) -> Result<Vec<PathBuf>, FeatureError> {
    let listed = match fs::read_dir(folder) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        listed => listed.and_then(|entries| entries.map(|e| Ok(e?.path())).collect::<io::Result<Vec<_>>>()),
    };
    let mut listed = listed.map_err(FeatureError::io("list", folder))?;
    listed.sort();
    Ok(listed)
}

/// Bytes of a file, or of the files in a folder; 0 if it has been removed meanwhile.
fn size(path: &Path) -> Result<u64, FeatureError> {
    match fs::symlink_metadata(path) {
        Ok(m) if m.is_dir() => entries(path)?.iter().map(|file| size(file)).sum(),
        Ok(m) => Ok(m.len()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(e) => Err(FeatureError::io("look at", path)(e)),
    }
}

fn absent(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

fn is_unfinished(path: &Path) -> bool {
    path.file_name().is_some_and(is_temporary)
}

fn is_rows(path: &Path) -> bool {
    path.file_name().is_some_and(shelf::is_rows)
}

fn mebibytes(bytes: u64) -> u64 {
    bytes.div_ceil(1 << 20)
}
