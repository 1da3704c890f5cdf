//! Folder trees: `{train,val,test}/{CLASS}/*`, or `{CLASS}/*`.

use super::{GivenSet, Listed, Listing, ManifestError};
use crate::wording::counted;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use walkdir::{DirEntry, WalkDir};

pub(super) fn list(root: &Path) -> Result<Listing, ManifestError> {
    if !root.is_dir() {
        return Err(ManifestError::NoFolder { path: root.to_owned() });
    }
    let mut listing = Listing::default();
    let top = folders(root, &mut listing)?;
    let mut sets: BTreeMap<GivenSet, Vec<&DirEntry>> = BTreeMap::new();
    for entry in &top {
        if let Some(set) = GivenSet::named(&name_of(entry)) {
            sets.entry(set).or_default().push(entry);
        }
    }
    // Folders that differ only in case are one class, spelt as the first of them in the order of sets and names.
    let mut spelling: BTreeMap<String, String> = BTreeMap::new();
    if sets.is_empty() {
        for class in &top {
            read_class(root, class, None, &mut spelling, &mut listing)?;
        }
    } else {
        check_sets(root, &sets)?;
        let strays: Vec<String> = top.iter().map(name_of).filter(|n| GivenSet::named(n).is_none()).collect();
        if !strays.is_empty() {
            listing.notes.push(format!("folders beside the sets were left out: {}", strays.join(", ")));
        }
        for (&set, folder) in &sets {
            for class in folders(folder[0].path(), &mut listing)? {
                read_class(root, &class, Some(set), &mut spelling, &mut listing)?;
            }
        }
    }
    if listing.classes.is_empty() {
        return Err(ManifestError::NoClasses { path: root.to_owned() });
    }
    Ok(listing)
}

fn check_sets(root: &Path, sets: &BTreeMap<GivenSet, Vec<&DirEntry>>) -> Result<(), ManifestError> {
    let names = |entries: &[&DirEntry]| entries.iter().map(|e| format!("`{}`", name_of(e))).collect::<Vec<_>>();
    for entries in sets.values() {
        if entries.len() > 1 {
            let names = names(entries).join(" and ");
            return Err(ManifestError::SetTwice { path: root.to_owned(), names });
        }
    }
    if !sets.contains_key(&GivenSet::Train) {
        let found = sets.values().flat_map(|e| names(e)).collect::<Vec<_>>().join(" and ");
        return Err(ManifestError::NoTraining { path: root.to_owned(), found });
    }
    Ok(())
}

/// The visible subfolders, sorted by name; files beside them are mentioned in the notes.
fn folders(path: &Path, listing: &mut Listing) -> Result<Vec<DirEntry>, ManifestError> {
    let (mut found, mut files) = (Vec::new(), 0u32);
    for entry in WalkDir::new(path).min_depth(1).max_depth(1).follow_links(true).sort_by_file_name() {
        let entry = entry.map_err(|source| ManifestError::Walk { path: path.to_owned(), source })?;
        if hidden(&entry) {
            continue;
        }
        if entry.file_type().is_dir() {
            found.push(entry);
        } else {
            files += 1;
        }
    }
    if files > 0 && !found.is_empty() {
        let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
        listing.notes.push(format!("{} outside every class in `{name}` left out", counted(files, "file")));
    }
    Ok(found)
}

fn read_class(
    root: &Path,
    class: &DirEntry,
    set: Option<GivenSet>,
    spelling: &mut BTreeMap<String, String>,
    listing: &mut Listing,
) -> Result<(), ManifestError> {
    let label = spelling.entry(name_of(class).to_lowercase()).or_insert_with(|| name_of(class)).clone();
    listing.classes.insert(label.clone());
    let files = WalkDir::new(class.path()).min_depth(1).follow_links(true).sort_by_file_name();
    for entry in files.into_iter().filter_entry(|e| !hidden(e)) {
        let entry = match entry {
            Ok(entry) if entry.file_type().is_dir() => continue,
            Ok(entry) => entry.into_path(),
            // A dangling link is a bad file like any other: reported later, when it cannot be opened.
            Err(e) if e.io_error().is_some() && e.path().is_some_and(Path::is_symlink) => {
                e.path().map(Path::to_owned).unwrap_or_default()
            }
            Err(source) => return Err(ManifestError::Walk { path: class.path().to_owned(), source }),
        };
        listing.images.push(Listed {
            name: relative(root, &entry),
            file: entry,
            label: label.clone(),
            patient: None,
            set,
        });
    }
    Ok(())
}

fn relative(root: &Path, file: &Path) -> String {
    let inner: PathBuf = file.strip_prefix(root).unwrap_or(file).to_owned();
    inner.components().map(|c| c.as_os_str().to_string_lossy()).collect::<Vec<_>>().join("/")
}

fn name_of(entry: &DirEntry) -> String {
    entry.file_name().to_string_lossy().into_owned()
}

/// Whether this is a hidden file, one that an operating system left (`.DS_Store`, `__MACOSX`, thumbnails), or the index of a
/// DICOM medium.
fn hidden(entry: &DirEntry) -> bool {
    let name = name_of(entry);
    name.starts_with('.') || ["__MACOSX", "Thumbs.db", "desktop.ini", "DICOMDIR"].contains(&name.as_str())
}
