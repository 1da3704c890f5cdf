//! Which kind of store a study in a state folder has: a study must not be begun a second time in another one because a flag
//! was forgotten.

use super::StoreError;
use std::path::{Path, PathBuf};

/// The database of a study in SQLite, in the study's folder.
pub(super) const DATABASE: &str = "study.db";

/// The file of a study's folder that names the server which has the study.
const MARK: &str = "study.server";

fn mark_of(state: &Path, name: &str) -> PathBuf {
    state.join(name).join(MARK)
}

/// The server that has a study of the state folder: where it is, and its id.
fn server_of(state: &Path, name: &str) -> Option<(String, String)> {
    let text = std::fs::read_to_string(mark_of(state, name)).ok()?;
    let mut lines = text.lines();
    Some((lines.next()?.to_owned(), lines.next()?.to_owned()))
}

fn elsewhere(name: &str, place: String, hint: &'static str) -> StoreError {
    StoreError::Elsewhere { name: name.to_owned(), place, hint }
}

/// Refuses a study that a server has.
///
/// # Errors
/// [`StoreError::Elsewhere`] if it has.
pub(super) fn refuse_server(state: &Path, name: &str) -> Result<(), StoreError> {
    let Some((place, _)) = server_of(state, name) else { return Ok(()) };
    Err(elsewhere(name, place, "name that database with `--database` or HPSEARCH_DATABASE"))
}

/// Refuses a study that a server with another id has.
///
/// # Errors
/// [`StoreError::Elsewhere`] if it has.
#[cfg(feature = "postgres")]
pub(super) fn refuse_other_server(state: &Path, name: &str, id: &str) -> Result<(), StoreError> {
    let Some((place, _)) = server_of(state, name).filter(|(_, known)| known != id) else { return Ok(()) };
    Err(elsewhere(
        name,
        place,
        "name that database with `--database` or HPSEARCH_DATABASE, or choose another `--state`",
    ))
}

/// Refuses a study of the server whose files are in another folder.
///
/// # Errors
/// [`StoreError::Elsewhere`] if they are.
#[cfg(feature = "postgres")]
pub(super) fn refuse_unmarked(state: &Path, name: &str, place: &str) -> Result<(), StoreError> {
    if server_of(state, name).is_some() {
        return Ok(());
    }
    let place = format!("{place}, with its files in another folder than `{}`", state.join(name).display());
    Err(elsewhere(
        name,
        place,
        "name the folder in which it was begun with `--state`, or give this study another `name`",
    ))
}

/// Refuses a study that has a database of its own in the state folder.
///
/// # Errors
/// [`StoreError::Elsewhere`] if it has.
#[cfg(feature = "postgres")]
pub(super) fn refuse_folder(state: &Path, name: &str) -> Result<(), StoreError> {
    let own = state.join(name).join(DATABASE);
    if !own.exists() {
        return Ok(());
    }
    let hint = "leave out `--database` and HPSEARCH_DATABASE, or choose another `--state`";
    Err(elsewhere(name, format!("`{}`", own.display()), hint))
}

/// Takes the mark away.
///
/// # Errors
/// If the folder cannot be written.
#[cfg(feature = "postgres")]
pub(super) fn unmark(state: &Path, name: &str) -> Result<(), StoreError> {
    let path = mark_of(state, name);
    match std::fs::remove_file(&path) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => Err(StoreError::Io { path, source }),
        _ => Ok(()),
    }
}

/// Marks a study of the state folder as the server's.
///
/// # Errors
/// If the folder cannot be written.
#[cfg(feature = "postgres")]
pub(super) fn mark(state: &Path, name: &str, place: &str, id: &str) -> Result<(), StoreError> {
    let path = mark_of(state, name);
    let io = |source| StoreError::Io { path: path.clone(), source };
    std::fs::create_dir_all(state.join(name)).map_err(io)?;
    crate::fsx::write_atomic(&path, format!("{place}\n{id}\n").as_bytes()).map_err(io)
}
