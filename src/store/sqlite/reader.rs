//! Reading a study without blocking its writer.

use super::read::Detail;
use super::{BUSY, Fault, format, once, read};
use crate::engine::Event;
use crate::history::{FileRow, Tables};
use crate::spec::StudySpec;
use crate::store::{ImagesOnRecord, Opening, Reader, RunRow, StoreError};
use rusqlite::{Connection, ErrorCode, OpenFlags};
use std::path::{Path, PathBuf};

/// A read-only connection. It never blocks the writer, works while a run is going and on a read-only medium. What a killed
/// writer left half-written is undone first, where the folder can be written.
#[derive(Debug)]
pub(crate) struct SqliteReader {
    path: PathBuf,
    connection: Connection,
    version: i64,
}

impl SqliteReader {
    /// Opens the database of a study for reading.
    pub(crate) fn open(path: &Path) -> Result<Self, StoreError> {
        if !path.exists() {
            return Err(StoreError::Missing(path.display().to_string()));
        }
        let open = |target: &str, flags| -> Result<(Connection, i64), Fault> {
            let connection = Connection::open_with_flags(target, OpenFlags::SQLITE_OPEN_READ_ONLY | flags)?;
            connection.busy_timeout(BUSY)?;
            let version = format::check(&connection, path)?;
            Ok((connection, version))
        };
        let plain = || open(&path.to_string_lossy(), OpenFlags::empty());
        let (connection, version) = match plain() {
            // A writer was killed in a transaction that a rollback journal covers; a reader may not undo it.
            Err(Fault::Sqlite(e)) if is_half_written(&e) => {
                if super::folder_is_read_only(path) {
                    return Err(StoreError::HalfWritten { place: path.display().to_string(), source: e.into() });
                }
                undo(path).map_err(|e| Fault::from(e).at(path))?;
                plain()
            }
            // A write-ahead log cannot be opened in a read-only folder; as nobody writes there, it is not needed
            // either.
            Err(Fault::Sqlite(e))
                if matches!(e.sqlite_error_code(), Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly))
                    && super::folder_is_read_only(path) =>
            {
                open(&immutable_uri(path), OpenFlags::SQLITE_OPEN_URI)
            }
            other => other,
        }
        .map_err(|e| e.at(path))?;
        Ok(Self { path: path.to_owned(), connection, version })
    }

    fn rows(&self, detail: Detail) -> Result<Tables, StoreError> {
        self.in_snapshot(|c| {
            if self.version == format::FORMAT_VERSION {
                return read::tables(c, detail);
            }
            let mut tables = Tables::default();
            format::replay(c, &self.path, &mut |row| {
                tables.put(row);
                Ok(())
            })?;
            if detail == Detail::Outline {
                tables.files.clear();
                tables.epochs.values_mut().for_each(|epoch| epoch.metrics.clear());
            }
            Ok(tables)
        })
    }

    /// Reads in one transaction, so from one snapshot.
    fn in_snapshot<T>(&self, read: impl FnOnce(&Connection) -> Result<T, Fault>) -> Result<T, StoreError> {
        let go = || {
            let transaction = self.connection.unchecked_transaction()?;
            read(&transaction)
        };
        go().map_err(|e: Fault| e.at(&self.path))
    }
}

impl Reader for SqliteReader {
    fn spec(&self) -> Result<StudySpec, StoreError> {
        self.in_snapshot(format::stored_spec)
    }

    fn events(&self, after: u64, each: &mut dyn FnMut(Event)) -> Result<(), StoreError> {
        self.in_snapshot(|c| read::events(c, after, each))
    }

    fn tables(&self) -> Result<Tables, StoreError> {
        self.rows(Detail::All)
    }

    fn outline(&self) -> Result<Tables, StoreError> {
        self.rows(Detail::Outline)
    }

    fn version(&self) -> Result<u64, StoreError> {
        // SQLite's own count of the commits of others, as this connection sees them.
        self.in_snapshot(|c| Ok(c.pragma_query_value(None, "data_version", |row| row.get::<_, i64>(0))? as u64))
    }

    fn runs(&self) -> Result<Vec<RunRow>, StoreError> {
        self.in_snapshot(read::runs)
    }

    fn files(&self) -> Result<Vec<(FileRow, bool)>, StoreError> {
        self.in_snapshot(read::files)
    }

    fn images(&self) -> Result<Option<ImagesOnRecord>, StoreError> {
        self.in_snapshot(|c| Ok(once::images(c)?))
    }

    fn opening(&self) -> Result<Option<Opening>, StoreError> {
        self.in_snapshot(|c| Ok(once::opening(c)?))
    }
}

/// Whether a read-only connection found what only one that may write can undo.
fn is_half_written(error: &rusqlite::Error) -> bool {
    error.sqlite_error().is_some_and(|e| e.extended_code == rusqlite::ffi::SQLITE_READONLY_ROLLBACK)
}

/// Undoes the transaction of a killed writer. A living one is waited for: its locks say that its journal is in use.
fn undo(path: &Path) -> rusqlite::Result<()> {
    let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    connection.busy_timeout(BUSY)?;
    // Any reading does it (https://sqlite.org/lockingv3.html, "Dealing with hot journals").
    connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))
}

/// `file:...?immutable=1`, percent-encoded.
fn immutable_uri(path: &Path) -> String {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let mut uri = String::from("file:");
    for byte in absolute.to_string_lossy().bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'-' | b'_' | b'.' | b'~' => uri.push(byte as char),
            _ => uri.push_str(&format!("%{byte:02X}")),
        }
    }
    uri + "?immutable=1"
}
