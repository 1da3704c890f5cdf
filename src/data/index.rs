//! Index of file digests and headers, keyed by path, length and modification time, so that a worker need not read every
//! image again to know that nothing has changed.

use super::decode::{Kind, Salt, probe};
use super::watch::{Task, Watch};
use crate::digest::Digest;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

/// A file modified less than this before it was read may change again without a different modification time, as clocks
/// are coarse: its digest is not stored.
const SETTLED: Duration = Duration::from_secs(2);

/// What a file looked like when it was read.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
struct Seen {
    bytes: u64,
    changed_ns: u128,
    contents: Contents,
}

/// What is known of a file before it is decoded.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Contents {
    pub digest: Digest,
    /// What its header says.
    pub kind: Kind,
}

/// The index file.
#[derive(Deserialize)]
struct Known {
    /// Under which patients of DICOM files are known.
    salt: Salt,
    files: HashMap<PathBuf, Seen>,
}

/// The same, borrowed for writing.
#[derive(Serialize)]
struct Now<'a> {
    salt: Salt,
    files: HashMap<&'a PathBuf, &'a Seen>,
}

/// The digest and header of each file, or why it cannot be read. Reads only files that are new or changed since the
/// index file `index` was written, and updates it; failing to do so is no error.
pub(super) fn contents(files: &[PathBuf], index: &Path, watch: &dyn Watch) -> Vec<Result<Contents, io::Error>> {
    let known: Option<Known> = std::fs::read(index).ok().and_then(|text| serde_json::from_slice(&text).ok());
    let Known { salt, files: known } = known.unwrap_or_else(|| Known { salt: Salt::fresh(), files: HashMap::new() });
    let done = AtomicU64::new(0);
    let total = files.len() as u64;
    let seen: Vec<io::Result<(Seen, bool)>> = files
        .par_iter()
        .map(|file| {
            let found = look(file, known.get(file), &salt);
            watch.progress(Task::Reading, done.fetch_add(1, Ordering::Relaxed) + 1, total);
            found
        })
        .collect();
    let settled = files.iter().zip(&seen).filter_map(|(f, s)| s.as_ref().ok().filter(|s| s.1).map(|s| (f, &s.0)));
    let now = Now { salt, files: settled.collect() };
    if now.files.len() != known.len() || now.files.iter().any(|(file, seen)| known.get(*file) != Some(*seen)) {
        // Failing to write it only means reading the images again.
        let _ = remember(&now, index);
    }
    seen.into_iter().map(|s| s.map(|(seen, _)| seen.contents)).collect()
}

/// The file's digest and header, and whether they may be stored in the index.
fn look(file: &Path, known: Option<&Seen>, salt: &Salt) -> io::Result<(Seen, bool)> {
    let meta = std::fs::metadata(file)?;
    if !meta.is_file() {
        // Opening a pipe would block until another process writes to it.
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "no regular file"));
    }
    let changed = meta.modified()?;
    let changed_ns = changed.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_nanos());
    if let Some(seen) = known.filter(|s| (s.bytes, s.changed_ns) == (meta.len(), changed_ns)) {
        return Ok((seen.clone(), true));
    }
    let settled = changed.elapsed().is_ok_and(|age| age > SETTLED);
    let contents = Contents { digest: Digest::of_file(file)?, kind: probe(file, salt)? };
    Ok((Seen { bytes: meta.len(), changed_ns, contents }, settled))
}

fn remember(now: &Now<'_>, index: &Path) -> io::Result<()> {
    let folder = index.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)?;
    // A temporary name per process, as several workers may write at once; the last rename wins, and all contents agree.
    let partial = index.with_extension(format!("{}-{}.partial", crate::shared::machine(), std::process::id()));
    let mut file = std::fs::File::create(&partial)?;
    let written = file.write_all(&serde_json::to_vec(now)?).and_then(|()| std::fs::rename(&partial, index));
    if written.is_err() {
        let _ = std::fs::remove_file(&partial);
    }
    written
}
