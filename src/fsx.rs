//! Atomic writes of files, and locks that are released when their process ends.

use crate::crash::{self, Point};
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};

/// Prefix of the names of unfinished files; a random part follows. One whose writer no longer runs may be deleted.
const UNFINISHED: &str = ".tmp-";

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Writes `bytes` to `target` so that after a crash it holds either the old contents or all of the new. Links are followed;
/// devices and pipes, which have no contents to keep, are written to.
pub fn write_atomic(target: &Path, bytes: &[u8]) -> io::Result<()> {
    // A new name would put a file in the place of the device or the link.
    let there = std::fs::metadata(target).ok();
    let special = ["/dev", "/proc"].iter().any(|folder| target.starts_with(folder));
    if there.as_ref().is_some_and(|there| !there.is_dir() && (special || !there.is_file())) {
        return OpenOptions::new().write(true).open(target)?.write_all(bytes);
    }
    let followed = std::fs::canonicalize(target).ok();
    let target = followed.as_deref().unwrap_or(target);
    let folder = folder_of(target);
    // Permissions as for any new file, subject to the umask: temporary files are otherwise unreadable to others.
    let mut builder = tempfile::Builder::new();
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let mut file = builder.prefix(UNFINISHED).tempfile_in(folder)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    crash::at(Point::FileDrafted);
    file.persist(target).map_err(|e| e.error)?;
    sync_folder(folder)?;
    crash::at(Point::FileNamed);
    Ok(())
}

/// A folder for files that will be renamed into `parent` when they are complete. What is left in it goes when it is dropped.
///
/// # Errors
/// If it cannot be made.
pub fn draft_folder(parent: &Path) -> io::Result<DraftFolder> {
    tempfile::Builder::new().prefix(UNFINISHED).tempdir_in(parent).map(DraftFolder)
}

/// See [`draft_folder`].
#[derive(Debug)]
pub struct DraftFolder(tempfile::TempDir);

impl DraftFolder {
    /// Its path.
    pub fn path(&self) -> &Path {
        self.0.path()
    }
}

/// Makes the names in a folder durable: new files, renamed files.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    // Only Unix lets a folder be opened and synced; elsewhere the rename itself has to suffice.
    if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
}

/// Who holds a lock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// Its process id.
    pub pid: u32,
    /// Its machine.
    pub host: String,
    /// When it took the lock, in milliseconds since 1970.
    pub since_ms: u64,
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "process {} on {} since {}", self.pid, self.host, crate::clock::utc(self.since_ms))
    }
}

/// A file that is locked, shared or exclusively, until this is dropped. Closing it would not be enough: a process that another
/// thread is starting has the file too, until it runs its program.
#[derive(Debug)]
pub(crate) struct Locked(File);

impl Locked {
    /// Of a file that has been locked.
    pub(crate) fn new(file: File) -> Self {
        Self(file)
    }
}

impl std::ops::Deref for Locked {
    type Target = File;

    fn deref(&self) -> &File {
        &self.0
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        let _ = self.0.unlock();
    }
}

/// An exclusive lock of the operating system on a file, released when its process ends, however that happens.
#[derive(Debug)]
pub struct FileLock {
    _file: Locked,
}

/// Why a lock could not be taken.
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
        // Tried a few times: `FileLock::holder` in another process takes a shared lock for an instant.
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
        Ok(Self { _file: Locked(file) })
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

/// Whether an error says that a file system can no longer be used, for whatever it is asked: it is full, read only, gone or broken.
pub fn is_fault_of_disk(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let lost = [Errno::IO, Errno::STALE, Errno::NOTCONN].map(Errno::raw_os_error);
    is_disk_full(error)
        || error.kind() == io::ErrorKind::ReadOnlyFilesystem
        || error.raw_os_error().is_some_and(|code| lost.contains(&code))
}

/// Whether an error means that the disk is full.
pub fn is_disk_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_as_a_whole_and_no_temporary_file_remains() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("a");
        write_atomic(&target, b"old").unwrap();
        write_atomic(&target, b"new").unwrap();
        assert_eq!(std::fs::read(&target).unwrap(), b"new");
        assert!(write_atomic(&folder.path().join("no/folder"), b"x").is_err());
        // A target that cannot be replaced stays as it was.
        std::fs::create_dir(folder.path().join("taken")).unwrap();
        assert!(write_atomic(&folder.path().join("taken"), b"x").is_err());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
    }

    #[cfg(unix)]
    #[test]
    fn links_and_devices_are_written_to_and_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("a");
        write_atomic(&target, b"old").unwrap();
        for (to, name) in [(target.as_path(), "link"), (Path::new("/dev/null"), "device")] {
            let link = folder.path().join(name);
            std::os::unix::fs::symlink(to, &link).unwrap();
            write_atomic(&link, b"through").unwrap();
            assert!(link.is_symlink() && !Path::new("/dev/null").is_file(), "{name}");
        }
        assert_eq!(std::fs::read(&target).unwrap(), b"through");
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
