//! Files that are whole or absent: atomic writes, locks that die with their holder, free space.

use crate::crash::{self, Point};
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Names of unfinished files begin so; whoever finds one without a living writer may delete it.
pub const TEMPORARY_PREFIX: &str = ".tmp-";

static COUNTER: AtomicU64 = AtomicU64::new(0);

/// A file under construction: readers see it under its name only once [`AtomicFile::commit`] has returned.
/// Dropped without that, it is deleted.
#[derive(Debug)]
pub struct AtomicFile {
    file: Option<File>,
    temporary: PathBuf,
    target: PathBuf,
}

impl AtomicFile {
    /// Begins a file that will be called `target`; its folder must exist.
    pub fn create(target: &Path) -> io::Result<Self> {
        let folder = folder_of(target);
        let name = target.file_name().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        let unique = COUNTER.fetch_add(1, Ordering::Relaxed);
        let temporary =
            folder.join(format!("{TEMPORARY_PREFIX}{}-{unique}-{}", std::process::id(), name.to_string_lossy()));
        let file = OpenOptions::new().write(true).read(true).create(true).truncate(true).open(&temporary)?;
        Ok(Self { file: Some(file), temporary, target: target.to_owned() })
    }

    /// The path of the unfinished file.
    pub fn temporary(&self) -> &Path {
        &self.temporary
    }

    /// The open file.
    pub fn file(&mut self) -> &mut File {
        self.file.as_mut().expect("the file is open until commit consumes it")
    }

    /// Makes the contents durable, gives the file its name, makes the name durable.
    pub fn commit(mut self) -> io::Result<()> {
        if let Some(file) = self.file.take() {
            file.sync_all()?;
        }
        crash::at(Point::FileDrafted);
        std::fs::rename(&self.temporary, &self.target)?;
        let folder = folder_of(&self.target);
        self.temporary = PathBuf::new(); // nothing to clean up any more
        sync_folder(folder)?;
        crash::at(Point::FileNamed);
        Ok(())
    }
}

impl Write for AtomicFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file().write(bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.file().flush()
    }
}

impl Drop for AtomicFile {
    fn drop(&mut self) {
        self.file.take();
        if !self.temporary.as_os_str().is_empty() {
            let _ = std::fs::remove_file(&self.temporary);
        }
    }
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Writes `bytes` to `target` so that after a crash it holds either the old contents or all of the new.
pub fn write_atomic(target: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = AtomicFile::create(target)?;
    file.write_all(bytes)?;
    file.commit()
}

/// Makes the names in a folder durable.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    // Only Unix lets a folder be opened and synced; elsewhere the rename itself has to do.
    if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
}

/// Bytes that an ordinary user may still write to the file system of `path`.
pub fn free_bytes(path: &Path) -> io::Result<u64> {
    let stat = rustix::fs::statvfs(path)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// Who holds a lock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// Process.
    pub pid: u32,
    /// Machine.
    pub host: String,
    /// Milliseconds since 1970.
    pub since_ms: u64,
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "process {} on {} since {}", self.pid, self.host, crate::clock::utc(self.since_ms))
    }
}

/// An exclusive lock of the operating system on a file: gone with its process, however that ends.
#[derive(Debug)]
pub struct FileLock {
    file: File,
}

/// Why a lock was not had.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process has it.
    #[error("it is held by {}", .0.as_ref().map_or_else(|| "another process".to_owned(), Holder::to_string))]
    Held(Option<Holder>),
    /// The lock file cannot be opened, locked or written.
    #[error("lock file `{path}`")]
    Io { path: PathBuf, source: io::Error },
}

impl FileLock {
    /// Takes the lock, and writes who has it into the file for others to read.
    pub fn acquire(path: &Path) -> Result<Self, LockError> {
        let io = |source| LockError::Io { path: path.to_owned(), source };
        let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).map_err(io)?;
        // Tried a few times: someone who asks who the holder is has a shared lock for an instant.
        let mut tries = 5;
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if tries > 0 => {
                    tries -= 1;
                    std::thread::sleep(std::time::Duration::from_millis(20));
                }
                Err(TryLockError::WouldBlock) => return Err(LockError::Held(holder(&mut file))),
                Err(TryLockError::Error(source)) => return Err(io(source)),
            }
        }
        let me = Holder { pid: std::process::id(), host: host(), since_ms: crate::clock::unix_ms() };
        let text = serde_json::to_vec(&me).map_err(|e| io(e.into()))?;
        file.set_len(0).and_then(|()| file.rewind()).and_then(|()| file.write_all(&text)).map_err(io)?;
        Ok(Self { file })
    }

    /// Who holds the lock at `path` now, if anyone does.
    pub fn holder(path: &Path) -> Option<Holder> {
        let mut file = OpenOptions::new().read(true).open(path).ok()?;
        // A shared attempt: it fails while a writer holds the lock, and does not disturb other readers.
        match file.try_lock_shared() {
            Err(TryLockError::WouldBlock) => {
                holder(&mut file).or(Some(Holder { pid: 0, host: "?".to_owned(), since_ms: 0 }))
            }
            _ => None,
        }
    }
}

impl Drop for FileLock {
    fn drop(&mut self) {
        let _ = self.file.unlock();
    }
}

fn holder(file: &mut File) -> Option<Holder> {
    let mut text = String::new();
    file.rewind().ok()?;
    file.read_to_string(&mut text).ok()?;
    serde_json::from_str(&text).ok()
}

/// The name of this machine.
pub fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Whether an error means that the disk is full.
pub fn is_disk_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_not_committed_leaves_the_old_one_and_no_trace() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("a");
        write_atomic(&target, b"old").unwrap();
        let mut file = AtomicFile::create(&target).unwrap();
        file.write_all(b"half").unwrap();
        drop(file);
        assert_eq!(std::fs::read(&target).unwrap(), b"old");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        write_atomic(&target, b"new").unwrap();
        assert_eq!(std::fs::read(&target).unwrap(), b"new");
    }

    #[test]
    fn the_second_to_ask_for_a_lock_is_told_who_holds_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        assert_eq!(FileLock::holder(&path), None);
        let lock = FileLock::acquire(&path).unwrap();
        let Err(LockError::Held(Some(holder))) = FileLock::acquire(&path) else { panic!("taken twice") };
        assert_eq!(holder.pid, std::process::id());
        assert!(holder.to_string().contains(&host()), "{holder}");
        assert_eq!(FileLock::holder(&path), Some(holder));
        drop(lock);
        assert_eq!(FileLock::holder(&path), None, "a stale text in the file is not a holder");
        FileLock::acquire(&path).unwrap();
    }
}
