//! A segment: an immutable file of rows, each keyed by its image's digest and protected by a digest of its bytes.
//!
//! It is written under a temporary name and renamed when complete. It is not synced: after a power cut it may be torn,
//! which the digests reveal; its rows are then computed again.
//!
//! Layout, little-endian: a head of [`HEAD`] bytes (magic 24, key of the shelf 32, rows 8, bytes of a row 8, offset of
//! the first row 8, zeros 16, digest 32 of the bytes before it and of the table), a table of [`ENTRY`] bytes per row
//! (digest of the image 32, digest of the row 32), padding, the rows.

use super::FeatureError;
use crate::digest::Digest;
use memmap2::Mmap;
use rayon::prelude::*;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

const MAGIC: &[u8; 24] = b"hpsearch features v1\n\0\0\0";
const HEAD: usize = 128;
const SIGNED: usize = HEAD - 32;
/// Bytes per row in the table.
pub(super) const ENTRY: usize = 64;

/// A mapped segment with intact rows.
#[derive(Debug)]
pub(super) struct Segment {
    map: Mmap,
    row_bytes: usize,
    data: usize,
    images: Vec<Digest>,
}

/// The head of a segment.
struct Head {
    rows: usize,
    row_bytes: usize,
    data: usize,
}

fn head(bytes: &[u8], key: &Digest) -> Option<Head> {
    let number = |at: usize| usize::try_from(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?)).ok();
    let found = Head { rows: number(56)?, row_bytes: number(64)?, data: number(72)? };
    let table = HEAD.checked_add(found.rows.checked_mul(ENTRY)?)?;
    let end = found.data.checked_add(found.rows.checked_mul(found.row_bytes)?)?;
    let sound = bytes.starts_with(MAGIC)
        && bytes[24..56] == *key.as_bytes()
        && table <= found.data
        && end == bytes.len()
        && bytes[SIGNED..HEAD] == *signature(&bytes[..SIGNED], &bytes[HEAD..table]).as_bytes();
    sound.then_some(found)
}

fn signature(head: &[u8], table: &[u8]) -> Digest {
    Digest::of_parts([("head", head), ("table", table)])
}

impl Segment {
    /// Maps a file and, unless `trusted`, verifies the digests of all its rows. `None` if it is torn, corrupted, of
    /// another shelf, or missing; an error if that cannot be seen.
    pub(super) fn open(path: &Path, key: &Digest, row_bytes: usize, trusted: bool) -> io::Result<Option<Self>> {
        // SAFETY: a segment is written under another name and renamed; this program never changes or shortens a file
        // that has a segment's name, only unlinks it, so the mapped bytes stay as they are while the map exists.
        let map = match unsafe { crate::shared::map(path) } {
            // On a network's file system another machine may have removed it meanwhile.
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::StaleNetworkFileHandle) => {
                return Ok(None);
            }
            mapped => mapped?,
        };
        let Some(found) = head(&map, key).filter(|h| h.row_bytes == row_bytes) else { return Ok(None) };
        let entry = |row: usize| HEAD + row * ENTRY;
        let image = |row: usize| Digest::from_bytes(std::array::from_fn(|i| map[entry(row) + i]));
        let images = (0..found.rows).map(image).collect();
        let segment = Self { row_bytes, data: found.data, images, map };
        let right = |row: usize| Digest::of(segment.row(row)).as_bytes()[..] == segment.map[entry(row) + 32..][..32];
        let sound = trusted || (0..found.rows).into_par_iter().all(right);
        Ok(sound.then_some(segment))
    }

    /// Number of rows according to a file's head, which is not verified.
    pub(super) fn count(path: &Path) -> Option<u64> {
        let mut bytes = [0; HEAD];
        File::open(path).ok()?.read_exact_at(&mut bytes, 0).ok()?;
        bytes.starts_with(MAGIC).then(|| u64::from_le_bytes(std::array::from_fn(|i| bytes[56 + i])))
    }

    /// The images whose rows it holds.
    pub(super) fn images(&self) -> &[Digest] {
        &self.images
    }

    /// The bytes of a row.
    pub(super) fn row(&self, row: usize) -> &[u8] {
        &self.map[self.data + row * self.row_bytes..][..self.row_bytes]
    }
}

/// A segment being written.
pub(super) struct Draft {
    file: File,
    path: PathBuf,
    key: Digest,
    row_bytes: usize,
    data: usize,
    table: Vec<u8>,
    finished: bool,
}

impl Draft {
    /// Creates a file whose table has room for `capacity` rows.
    pub(super) fn create(path: PathBuf, key: Digest, row_bytes: usize, capacity: usize) -> Result<Self, FeatureError> {
        let file = File::create(&path).map_err(FeatureError::io("create", &path))?;
        let data = (HEAD + capacity * ENTRY).next_multiple_of(4096);
        file.set_len(data as u64).map_err(FeatureError::io("write", &path))?;
        Ok(Self { file, path, key, row_bytes, data, table: Vec::new(), finished: false })
    }

    /// Appends rows.
    pub(super) fn push(&mut self, images: &[Digest], rows: &[u8]) -> Result<(), FeatureError> {
        debug_assert_eq!(rows.len(), images.len() * self.row_bytes);
        let at = self.data + self.table.len() / ENTRY * self.row_bytes;
        self.file.write_all_at(rows, at as u64).map_err(FeatureError::io("write", &self.path))?;
        for (image, row) in images.iter().zip(rows.chunks_exact(self.row_bytes)) {
            self.table.extend_from_slice(image.as_bytes());
            self.table.extend_from_slice(Digest::of(row).as_bytes());
        }
        Ok(())
    }

    /// Number of rows so far.
    pub(super) fn rows(&self) -> usize {
        self.table.len() / ENTRY
    }

    /// Digests of the rows' images.
    pub(super) fn images(&self) -> impl Iterator<Item = Digest> + '_ {
        self.table.as_chunks::<ENTRY>().0.iter().map(|entry| Digest::from_bytes(std::array::from_fn(|i| entry[i])))
    }

    /// Completes the file and renames it to `target`.
    pub(super) fn commit(mut self, target: &Path) -> Result<(), FeatureError> {
        let mut head = Vec::with_capacity(HEAD + self.table.len());
        head.extend_from_slice(MAGIC);
        head.extend_from_slice(self.key.as_bytes());
        for number in [self.rows(), self.row_bytes, self.data] {
            head.extend_from_slice(&(number as u64).to_le_bytes());
        }
        head.resize(SIGNED, 0);
        let digest = signature(&head, &self.table);
        head.extend_from_slice(digest.as_bytes());
        head.extend_from_slice(&self.table);
        // A partly written batch may have left bytes after the last row.
        let length = self.data + self.rows() * self.row_bytes;
        self.file
            .set_len(length as u64)
            .and_then(|()| self.file.write_all_at(&head, 0))
            .map_err(FeatureError::io("write", &self.path))?;
        std::fs::rename(&self.path, target).map_err(FeatureError::io("rename", &self.path))?;
        self.finished = true;
        Ok(())
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.finished {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partly_written_batch_does_not_damage_the_rows_before_it() {
        let folder = tempfile::tempdir().unwrap();
        let (draft, path) = (folder.path().join("draft"), folder.path().join("a.rows"));
        let key = Digest::of(b"shelf");
        let mut segment = Draft::create(draft.clone(), key, 3, 4).unwrap();
        segment.push(&[Digest::of(b"x"), Digest::of(b"y")], b"abcdef").unwrap();
        // Half a batch arrives, then writing fails.
        File::options().write(true).open(&draft).unwrap().write_all_at(b"gh", segment.data as u64 + 6).unwrap();
        segment.commit(&path).unwrap();
        let found = Segment::open(&path, &key, 3, false).unwrap().unwrap();
        assert_eq!(found.images(), [Digest::of(b"x"), Digest::of(b"y")]);
        assert_eq!((found.row(0), found.row(1)), (&b"abc"[..], &b"def"[..]));
        assert_eq!(Segment::count(&path), Some(2));
        assert!(Segment::open(&path, &key, 6, false).unwrap().is_none(), "rows of another length");
        assert!(!draft.exists());
    }

    #[test]
    fn a_draft_that_is_dropped_leaves_no_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("draft");
        let segment = Draft::create(path.clone(), Digest::of(b""), 1, 1).unwrap();
        assert!(path.exists());
        drop(segment);
        assert!(!path.exists());
    }
}
