//! Decoded images in one memory-mapped file: decoded once, shared by all processes.
//!
//! The file is named by the digest of everything that determines its contents, so an existing file is the right one.
//! One process builds at a time, under a file lock; the others wait and then map what it built. The file is renamed to
//! its final name only when complete and synced. It is nevertheless verified on opening, picture by picture, and
//! rebuilt if a byte is wrong.
//!
//! Layout: header ([`MAGIC`]), `count * slot` bytes of pixels, a JSON trailer ([`Trailer`]), then a footer: the
//! trailer's length (u64, little-endian), its digest, and the digest by which the file is named.

use super::watch::{Task, Watch};
use crate::digest::Digest;
use memmap2::Mmap;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const MAGIC: &[u8; 64] =
    b"hpsearch pixels, version 1\n\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
const FOOTER: usize = 8 + 32 + 32;

/// What the file records about its pictures.
#[derive(Serialize, Deserialize)]
struct Trailer {
    count: usize,
    slot: usize,
    /// Digest of each picture's pixels.
    digests: Vec<Digest>,
    /// Pictures that could not be made, and why; their pixels are 0.
    faults: BTreeMap<usize, String>,
}

/// A mapped, verified file of pictures of equal size.
pub(super) struct PixelFile {
    map: Mmap,
    trailer: Trailer,
}

/// The set of pictures to open or build.
pub(super) struct Wanted<'a> {
    /// Folder of pixel files.
    pub folder: &'a Path,
    /// Digest of all that determines the pixels.
    pub key: Digest,
    /// Number of pictures.
    pub count: usize,
    /// Bytes of one picture.
    pub slot: usize,
    /// What making them is called in progress messages.
    pub task: Task,
}

impl PixelFile {
    /// Maps the wanted pictures, making them first if need be: `make(i)` returns `slot` bytes, or why it cannot.
    pub(super) fn open(
        wanted: &Wanted<'_>,
        watch: &dyn Watch,
        make: impl Fn(usize) -> Result<Vec<u8>, String> + Sync,
    ) -> Result<Self, StoreError> {
        let path = wanted.folder.join(format!("{}.pixels", wanted.key.short()));
        if let Some(found) = Self::map(&path, wanted) {
            return Ok(found);
        }
        let failed = |action| move |path: &Path, source| StoreError::Io { action, path: path.to_owned(), source };
        fs::create_dir_all(wanted.folder).map_err(|e| failed("create the folder")(wanted.folder, e))?;
        let lock_path = path.with_extension("lock");
        let lock = File::options().create(true).truncate(false).write(true).open(&lock_path);
        let lock = lock.map_err(|e| failed("open the lock file")(&lock_path, e))?;
        wait_for(&lock, watch).map_err(|e| e.into_store_error(&lock_path))?;
        // The process that held the lock has probably built the file.
        if let Some(found) = Self::map(&path, wanted) {
            return Ok(found);
        }
        // A machine whose locks do not reach another's builds the same file beside it.
        let partial = path.with_extension(format!("{}.partial", crate::shared::machine()));
        tidy(&path);
        let built = build(wanted, &partial, watch, make).and_then(|()| {
            fs::rename(&partial, &path).map_err(|e| failed("rename")(&partial, e))?;
            File::open(wanted.folder)
                .and_then(|f| f.sync_all())
                .map_err(|e| failed("sync the folder")(wanted.folder, e))
        });
        if built.is_err() {
            let _ = fs::remove_file(&partial);
        }
        built?;
        Self::map(&path, wanted).ok_or(StoreError::Unreadable { path })
    }

    /// Maps the file if it exists, complete and intact.
    fn map(path: &Path, wanted: &Wanted<'_>) -> Option<Self> {
        // SAFETY: files of this folder are written under another name and renamed; this program never changes or
        // shortens one that has its final name, so the mapped bytes stay as they are while the map exists.
        let map = unsafe { crate::shared::map(path) }.ok()?;
        let body = MAGIC.len() + wanted.count * wanted.slot;
        let footer = map.len().checked_sub(FOOTER).filter(|&at| at >= body)?;
        let (length, digests) = map[footer..].split_at(8);
        let length = usize::try_from(u64::from_le_bytes(length.try_into().ok()?)).ok()?;
        let text = &map[body..footer];
        let right = map.starts_with(MAGIC)
            && length == text.len()
            && digests[..32] == *Digest::of(text).as_bytes()
            && digests[32..] == *wanted.key.as_bytes();
        let trailer: Trailer = serde_json::from_slice(right.then_some(text)?).ok()?;
        if (trailer.count, trailer.slot, trailer.digests.len()) != (wanted.count, wanted.slot, wanted.count) {
            return None;
        }
        let found = Self { map, trailer };
        let intact = |i| Digest::of(found.pixels(i)) == found.trailer.digests[i];
        (0..wanted.count).into_par_iter().all(intact).then_some(found)
    }

    /// The pixels of picture `i`.
    pub(super) fn pixels(&self, i: usize) -> &[u8] {
        &self.map[MAGIC.len() + i * self.trailer.slot..][..self.trailer.slot]
    }

    /// The digest of those pixels.
    pub(super) fn digest(&self, i: usize) -> Digest {
        self.trailer.digests[i]
    }

    /// Why picture `i` could not be made; `None` if it could.
    pub(super) fn fault(&self, i: usize) -> Option<&str> {
        self.trailer.faults.get(&i).map(String::as_str)
    }
}

/// Why waiting for the lock failed.
enum Waiting {
    Io(io::Error),
    Interrupted,
}

impl Waiting {
    fn into_store_error(self, path: &Path) -> StoreError {
        match self {
            Self::Io(source) => StoreError::Io { action: "lock", path: path.to_owned(), source },
            Self::Interrupted => StoreError::Interrupted,
        }
    }
}

fn wait_for(lock: &File, watch: &dyn Watch) -> Result<(), Waiting> {
    loop {
        match lock.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::Error(e)) => return Err(Waiting::Io(e)),
            Err(TryLockError::WouldBlock) if watch.interrupted() => return Err(Waiting::Interrupted),
            Err(TryLockError::WouldBlock) => {
                watch.progress(Task::WaitingForImages, 0, 1);
                std::thread::sleep(Duration::from_millis(50));
            }
        }
    }
}

/// Removes what other machines have left unfinished of a file long ago.
fn tidy(path: &Path) {
    let (Some(folder), Some(stem)) = (path.parent(), path.file_stem()) else { return };
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let own = name.as_encoded_bytes().starts_with(stem.as_encoded_bytes());
        if own && name.as_encoded_bytes().ends_with(b".partial") && crate::shared::is_abandoned(&entry.path()) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

fn build(
    wanted: &Wanted<'_>,
    partial: &Path,
    watch: &dyn Watch,
    make: impl Fn(usize) -> Result<Vec<u8>, String> + Sync,
) -> Result<(), StoreError> {
    let failed = |action| move |source| StoreError::Io { action, path: partial.to_owned(), source };
    let needed = (MAGIC.len() + wanted.count * (wanted.slot + 80) + FOOTER) as u64;
    check_room(wanted.folder, needed)?;
    let mut file = File::create(partial).map_err(failed("create"))?;
    file.write_all(MAGIC).map_err(failed("write"))?;
    let shared = Mutex::new(file);
    let done = AtomicU64::new(0);
    let made: Vec<(Digest, Option<String>)> = (0..wanted.count)
        .into_par_iter()
        .map(|i| {
            if watch.interrupted() {
                return Err(StoreError::Interrupted);
            }
            let (pixels, fault) = match make(i) {
                Ok(pixels) => (pixels, None),
                Err(reason) => (vec![0; wanted.slot], Some(reason)),
            };
            assert_eq!(pixels.len(), wanted.slot, "a picture of the wanted size");
            let digest = Digest::of(&pixels);
            {
                let mut file = shared.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                let at = SeekFrom::Start((MAGIC.len() + i * wanted.slot) as u64);
                file.seek(at).and_then(|_| file.write_all(&pixels)).map_err(failed("write"))?;
            }
            watch.progress(wanted.task, done.fetch_add(1, Ordering::Relaxed) + 1, wanted.count as u64);
            Ok((digest, fault))
        })
        .collect::<Result<_, _>>()?;
    let mut file = shared.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    let mut trailer = Trailer { count: wanted.count, slot: wanted.slot, digests: Vec::new(), faults: BTreeMap::new() };
    for (i, (digest, fault)) in made.into_iter().enumerate() {
        trailer.digests.push(digest);
        trailer.faults.extend(fault.map(|reason| (i, reason)));
    }
    let mut text = serde_json::to_vec(&trailer).map_err(|e| failed("describe")(e.into()))?;
    let (length, digest) = ((text.len() as u64).to_le_bytes(), Digest::of(&text));
    text.extend_from_slice(&length);
    text.extend_from_slice(digest.as_bytes());
    text.extend_from_slice(wanted.key.as_bytes());
    file.seek(SeekFrom::Start((MAGIC.len() + wanted.count * wanted.slot) as u64)).map_err(failed("write"))?;
    file.write_all(&text).and_then(|()| file.sync_all()).map_err(failed("write"))
}

fn check_room(folder: &Path, needed: u64) -> Result<(), StoreError> {
    // If the free space is unknown, a full disk shows as an error of writing.
    let Ok(room) = rustix::fs::statvfs(folder) else { return Ok(()) };
    let free = room.f_bavail.saturating_mul(room.f_frsize);
    if needed > free {
        return Err(StoreError::NoRoom {
            folder: folder.to_owned(),
            needed_mb: needed.div_ceil(1 << 20),
            free_mb: free >> 20,
        });
    }
    Ok(())
}

/// Why decoded images could not be stored.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A file operation failed.
    #[error("{action} `{}`", path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    /// Not enough space.
    #[error(
        "keep decoded images in `{}`: {needed_mb} MiB are needed, {free_mb} MiB are free\n\
         hint: free some space, or choose another folder with --state", folder.display()
    )]
    NoRoom { folder: PathBuf, needed_mb: u64, free_mb: u64 },
    /// A file just written reads back wrong.
    #[error("read back `{}`, which was just written: the disk may be failing", path.display())]
    Unreadable { path: PathBuf },
    /// Interrupted by the caller.
    #[error("finish: interrupted")]
    Interrupted,
}
