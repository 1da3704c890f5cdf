//! File systems that several machines share: which ones, files of which must not be mapped, names that machines do not share.

use memmap2::Mmap;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::OnceLock;

/// Says whether files are on a network (`1`) or not (`0`), for file systems that are not known here.
pub const VARIABLE: &str = "HPSEARCH_NETWORK_FILES";

/// `statfs` types: NFS, SMB and CIFS, Lustre, GPFS, Ceph, BeeGFS, AFS, FUSE, 9P, GFS2, OCFS2, PanFS.
const NETWORK: [u32; 14] = [
    0x0000_6969,
    0x0000_517B,
    0xFE53_4D42,
    0xFF53_4D42,
    0x0BD0_0BD0,
    0x4750_4653,
    0x00C3_6400,
    0x1983_0326,
    0x5346_414F,
    0x6573_5546,
    0x0102_1997,
    0x0116_1970,
    0x7461_636F,
    0xAAD7_AAEA,
];

/// Whether a file or folder is on a file system of the network: another machine may remove a file while it is mapped here, and
/// memory is not shared. A path that is not there counts as its folder.
pub fn is_network(path: &Path) -> bool {
    match std::env::var(VARIABLE).as_deref() {
        Ok("1") => return true,
        Ok("0") => return false,
        _ => {}
    }
    let there = path.ancestors().find(|path| path.exists()).unwrap_or(Path::new("."));
    let there = if there.as_os_str().is_empty() { Path::new(".") } else { there };
    kind(there).is_some_and(|kind| NETWORK.contains(&kind))
}

#[cfg(target_os = "linux")]
fn kind(path: &Path) -> Option<u32> {
    // The type is 32 bits wide, in a field whose width differs.
    Some(rustix::fs::statfs(path).ok()?.f_type as u32)
}

#[cfg(not(target_os = "linux"))]
fn kind(_: &Path) -> Option<u32> {
    None
}

/// Maps a file for reading. One on the network is copied to the folder of temporary files (`TMPDIR`) first, where nobody can take
/// it away; the copy has no name, and goes with the map. Where there is no room for a copy the file itself is mapped.
///
/// # Safety
/// No process of this machine may change or shorten the file while the map exists.
///
/// # Errors
/// If it cannot be read, copied or mapped.
pub unsafe fn map(path: &Path) -> io::Result<Mmap> {
    let mut file = File::open(path)?;
    if is_network(path) {
        let copy = tempfile::tempfile().and_then(|mut copy| io::copy(&mut file, &mut copy).map(|_| copy));
        file = copy.unwrap_or(file);
    }
    // SAFETY: the caller's promise, or a file that only this process knows.
    unsafe { Mmap::map(&file) }
}

/// A part of a file's name that is this machine's own: of its name and of when it started.
pub fn machine() -> &'static str {
    static MACHINE: OnceLock<String> = OnceLock::new();
    MACHINE.get_or_init(|| {
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let digest = crate::digest::Digest::of(format!("{}\n{boot}", crate::fsx::host()).as_bytes());
        digest.to_string()[..8].to_owned()
    })
}

/// Whether a file has not been written to for a day: what another machine, or this one before it was started again, has left
/// unfinished then is nobody's.
pub fn is_abandoned(path: &Path) -> bool {
    const DAY: std::time::Duration = std::time::Duration::from_secs(86_400);
    std::fs::metadata(path).and_then(|meta| meta.modified()).is_ok_and(|at| at.elapsed().is_ok_and(|age| age > DAY))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_has_one_name_and_a_local_file_is_mapped() {
        assert_eq!(machine().len(), 8);
        assert_eq!(machine(), machine());
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        std::fs::write(&path, b"bytes").unwrap();
        // SAFETY: the file is the test's own.
        assert_eq!(&unsafe { map(&path) }.unwrap()[..], b"bytes");
        assert!(!is_abandoned(&path));
        assert_eq!(is_network(&path), is_network(&folder.path().join("none/at/all")));
        let old = std::time::SystemTime::now() - std::time::Duration::from_secs(100_000);
        File::options().write(true).open(&path).unwrap().set_modified(old).unwrap();
        assert!(is_abandoned(&path));
    }
}
