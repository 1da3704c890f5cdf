//! One SQLite database per study, `STATE/<name>/study.db`.
//!
//! WAL mode, so that readers and writer never wait for each other; `BEGIN IMMEDIATE` and `synchronous=FULL`, so that a
//! returned append is on the disk. The rows of a history are written in the transaction of their events.

mod folder;
mod format;
mod once;
mod optuna;
mod read;
mod reader;
mod write;

pub(super) use folder::Folder;
pub(super) use optuna::optuna_studies;
pub(super) use reader::SqliteReader;

use super::{ImagesOnRecord, OpenedTrial, Opening, RunEnd, RunRow, RunStart, Store, StoreError, codec};
use crate::crash::{self, Point};
use crate::engine::Event;
use crate::history::Row;
use crate::spec::StudySpec;
use rusqlite::{Connection, ErrorCode, OpenFlags, Transaction, TransactionBehavior, params};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a statement waits for another connection (a reader that checkpoints, a backup) before it gives up.
const BUSY: Duration = Duration::from_secs(20);

/// The writer of a study's database. It is made only under the claim to the study.
#[derive(Debug)]
struct SqliteStore {
    path: PathBuf,
    connection: Connection,
    spec: StudySpec,
    len: u64,
    run: Option<i64>,
}

/// Removes the files that SQLite keeps beside a database.
fn remove_beside(database: &Path) -> Result<(), StoreError> {
    for suffix in ["-wal", "-shm", "-journal"] {
        let mut path = database.as_os_str().to_owned();
        path.push(suffix);
        remove(&PathBuf::from(path))?;
    }
    Ok(())
}

/// Removes a file that may not be there.
fn remove(path: &Path) -> Result<(), StoreError> {
    match std::fs::remove_file(path) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            Err(StoreError::Io { path: path.to_owned(), source })
        }
        _ => Ok(()),
    }
}

impl SqliteStore {
    /// Creates the database of a new study. The file appears under its name only once it is complete.
    fn create(path: &Path, spec: &StudySpec) -> Result<Self, StoreError> {
        if path.exists() {
            return Err(StoreError::Exists(path.display().to_string()));
        }
        let draft = path.with_extension("db.draft");
        let io = |source| StoreError::Io { path: path.to_owned(), source };
        remove(&draft)?;
        format::draft(&draft, spec).map_err(|e| e.at(&draft))?;
        std::fs::File::open(&draft).and_then(|f| f.sync_all()).map_err(io)?;
        crash::at(Point::DatabaseDrafted);
        // A log that was left of a deleted database would be taken for this one's.
        remove_beside(path)?;
        std::fs::rename(&draft, path).map_err(io)?;
        crate::fsx::sync_folder(path.parent().unwrap_or(Path::new("."))).map_err(io)?;
        crash::at(Point::DatabaseMade);
        Self::open(path)
    }

    /// Opens the database of a study for writing, migrating an older one to the current format.
    fn open(path: &Path) -> Result<Self, StoreError> {
        if !path.exists() {
            return Err(StoreError::Missing(path.display().to_string()));
        }
        let open = || -> Result<_, Fault> {
            let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
            let mut connection = Connection::open_with_flags(path, flags)?;
            let version = format::check(&connection, path)?;
            connection.busy_timeout(BUSY)?;
            // A write-ahead log needs memory that all processes share, so a network's file systems cannot have one
            // (https://sqlite.org/wal.html, "Overview").
            let journal = if crate::shared::is_network(path) { "truncate" } else { "wal" };
            connection.pragma_update(None, "journal_mode", journal)?;
            connection.pragma_update(None, "synchronous", "full")?;
            connection.pragma_update(None, "temp_store", "memory")?;
            connection.set_prepared_statement_cache_capacity(64);
            // Fails now if the folder cannot be written, rather than after the first trained epoch.
            connection.execute_batch("BEGIN IMMEDIATE; UPDATE study SET name = name; COMMIT;")?;
            if version < format::FORMAT_VERSION {
                format::migrate(&mut connection, path)?;
            }
            let spec = format::stored_spec(&connection)?;
            let len = connection.query_row("SELECT coalesce(max(seq), 0) FROM event", [], |r| r.get::<_, i64>(0))?;
            Ok((connection, spec, len as u64))
        };
        let (connection, spec, len) = open().map_err(|e| e.at(path))?;
        Ok(Self { path: path.to_owned(), connection, spec, len, run: None })
    }

    fn transact(&mut self, work: impl FnOnce(&Transaction<'_>) -> Result<(), Fault>) -> Result<(), StoreError> {
        let go = || {
            let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            work(&transaction)?;
            crash::at(Point::EventsWritten);
            transaction.commit()?;
            Ok(())
        };
        go().map_err(|e: Fault| e.at(&self.path))
    }

    fn ask<T>(&self, read: impl FnOnce(&Connection) -> Result<T, Fault>) -> Result<T, StoreError> {
        read(&self.connection).map_err(|e| e.at(&self.path))
    }
}

impl Store for SqliteStore {
    fn spec(&self) -> &StudySpec {
        &self.spec
    }

    fn replace_spec(&mut self, spec: &StudySpec, rows: &[Row]) -> Result<(), StoreError> {
        let text = codec::spec_text(spec)?;
        self.transact(|t| {
            t.execute("UPDATE study SET spec = ?", [&text])?;
            write::put_all(t, rows)
        })?;
        self.spec = spec.clone();
        Ok(())
    }

    fn len(&self) -> u64 {
        self.len
    }

    fn events(&self, after: u64, each: &mut dyn FnMut(Event)) -> Result<(), StoreError> {
        self.ask(|c| read::events(c, after, each))
    }

    fn append(&mut self, expected: u64, events: &[Event], rows: &[Row]) -> Result<(), StoreError> {
        if events.is_empty() {
            return Ok(());
        }
        self.transact(|t| {
            let found = t
                .prepare_cached("SELECT coalesce(max(seq), 0) FROM event")?
                .query_row([], |row| row.get::<_, i64>(0))? as u64;
            if found != expected {
                return Err(Fault::Store(StoreError::Conflict { expected, found }));
            }
            let mut insert = t.prepare_cached("INSERT INTO event (seq, kind, body) VALUES (?, ?, ?)")?;
            for (seq, event) in (expected + 1..).zip(events) {
                let (kind, body) = codec::encode(event)?;
                insert.execute(params![seq as i64, kind, body])?;
            }
            write::put_all(t, rows)
        })?;
        self.len = expected + events.len() as u64;
        crash::at(Point::EventsCommitted);
        Ok(())
    }

    fn begin_run(&mut self, run: &RunStart, rows: &[Row]) -> Result<(), StoreError> {
        let mut number = 0;
        self.transact(|t| {
            t.execute("UPDATE run SET ended = ? WHERE ended IS NULL", [RunEnd::Killed.as_ref()])?;
            write::put_all(t, rows)?;
            t.execute(
                "INSERT INTO run (started_ms, seconds, pid, host, program, workers, device) VALUES (?, 0, ?, ?, ?, ?, ?)",
                params![run.unix_ms as i64, std::process::id(), crate::fsx::host(), run.program, run.workers, run.device],
            )?;
            number = t.last_insert_rowid();
            Ok(())
        })?;
        self.run = Some(number);
        Ok(())
    }

    fn note_run(&mut self, seconds: f64, end: Option<(RunEnd, &[Row])>) -> Result<(), StoreError> {
        let Some(run) = self.run else { return Ok(()) };
        self.transact(|t| {
            let ended = end.as_ref().map(|(end, _)| end.as_ref());
            t.execute("UPDATE run SET seconds = ?, ended = ? WHERE run = ?", params![seconds, ended, run])?;
            write::put_all(t, end.map_or(&[], |(_, rows)| rows))
        })
    }

    fn runs(&self) -> Result<Vec<RunRow>, StoreError> {
        self.ask(read::runs)
    }

    fn kept_files(&self) -> Result<Vec<String>, StoreError> {
        self.ask(|c| {
            let mut statement = c.prepare("SELECT path FROM file WHERE kept = 1")?;
            let rows = statement.query_map([], |row| row.get(0))?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }

    fn forget_files(&mut self, paths: &[String]) -> Result<(), StoreError> {
        self.transact(|t| {
            let mut statement = t.prepare_cached("UPDATE file SET kept = 0 WHERE path = ?")?;
            for path in paths {
                statement.execute([path])?;
            }
            Ok(())
        })
    }

    fn images(&self) -> Result<Option<ImagesOnRecord>, StoreError> {
        self.ask(|c| Ok(once::images(c)?))
    }

    fn record_images(&mut self, images: &ImagesOnRecord) -> Result<(), StoreError> {
        self.transact(|t| once::record_images(t, images))
    }

    fn opening(&self) -> Result<Option<Opening>, StoreError> {
        self.ask(|c| Ok(once::opening(c)?))
    }

    fn begin_opening(&mut self, opening: &Opening) -> Result<(), StoreError> {
        self.transact(|t| once::begin_opening(t, opening))
    }

    fn record_tested(&mut self, results: &[OpenedTrial]) -> Result<(), StoreError> {
        self.transact(|t| once::record_tested(t, results))
    }
}

/// A failure in a statement, not yet mapped to a [`StoreError`].
#[derive(Debug)]
enum Fault {
    Sqlite(rusqlite::Error),
    Store(StoreError),
}

impl From<rusqlite::Error> for Fault {
    fn from(e: rusqlite::Error) -> Self {
        Self::Sqlite(e)
    }
}

impl From<rusqlite::types::FromSqlError> for Fault {
    fn from(e: rusqlite::types::FromSqlError) -> Self {
        Self::Sqlite(e.into())
    }
}

impl From<StoreError> for Fault {
    fn from(e: StoreError) -> Self {
        Self::Store(e)
    }
}

impl Fault {
    /// Maps the failure to a [`StoreError`], by SQLite's error code.
    fn at(self, path: &Path) -> StoreError {
        let place = path.display().to_string();
        let source = match self {
            Self::Store(e) => return e,
            Self::Sqlite(e) => e,
        };
        match source.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => StoreError::DiskFull { place, source: source.into() },
            Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => {
                StoreError::ReadOnly { place, source: source.into() }
            }
            Some(ErrorCode::DatabaseCorrupt) => StoreError::Corrupt { place, source: source.into() },
            Some(ErrorCode::NotADatabase) => StoreError::NotAStudy(place),
            // Without the right to create the write-ahead log beside it, the database itself "cannot be opened".
            Some(ErrorCode::CannotOpen) if folder_is_read_only(path) => {
                StoreError::ReadOnly { place, source: source.into() }
            }
            _ => StoreError::Backend { place, source: source.into() },
        }
    }
}

fn folder_is_read_only(path: &Path) -> bool {
    path.parent().is_some_and(|folder| {
        rustix::fs::access(folder, rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK).is_err()
    })
}

#[cfg(test)]
mod tests;
