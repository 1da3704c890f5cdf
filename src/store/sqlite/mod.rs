//! The durable store: one SQLite database a study, `STATE/<name>/study.db`.
//!
//! WAL, so that readers never wait for the writer nor it for them; `BEGIN IMMEDIATE` and `synchronous=FULL`, so
//! that a returned append is on the disk. The rows for people are written in the transaction of their event.

mod codec;
mod images;
mod opening;
mod project;
mod reader;

pub use images::ImagesOnRecord;
pub use opening::{OpenedTrial, Opening};
pub use reader::{FileRow, RunRow, SqliteReader, TrialRow, WorkerRow};

use super::{EventStore, RunStart, StoreError};
use crate::crash::{self, Point};
use crate::engine::{Event, TrialState};
use crate::ids::TrialNumber;
use crate::spec::{Direction, StudySpec};
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, Transaction, TransactionBehavior, params};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The format this program writes, kept in `PRAGMA user_version`.
pub const FORMAT_VERSION: i64 = 1;

/// `PRAGMA application_id`: `hpse` in ASCII. `file(1)` and we recognise a study by it.
const APPLICATION_ID: i64 = 0x6870_7365;

const SCHEMA: &str = include_str!("schema.sql");

/// How long a statement waits for another connection (a reader that checkpoints, a backup) before it gives up.
const BUSY: Duration = Duration::from_secs(20);

/// The writer of a study's database. Whoever makes one holds the study's lock (`Study` does).
#[derive(Debug)]
pub struct SqliteStore {
    path: PathBuf,
    connection: Connection,
    spec: StudySpec,
    len: u64,
    run: Option<i64>,
}

impl SqliteStore {
    /// Makes the database of a new study. It appears under its name complete, or not at all.
    pub fn create(path: &Path, spec: &StudySpec) -> Result<Self, StoreError> {
        if path.exists() {
            return Err(StoreError::Exists(path.to_owned()));
        }
        let draft = path.with_extension("db.draft");
        let io = |source| StoreError::Io { path: path.to_owned(), source };
        match std::fs::remove_file(&draft) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(io(e)),
            _ => {}
        }
        draft_database(&draft, spec).map_err(|e| e.at(&draft))?;
        std::fs::File::open(&draft).and_then(|f| f.sync_all()).map_err(io)?;
        crash::at(Point::DatabaseDrafted);
        std::fs::rename(&draft, path).map_err(io)?;
        crate::fsx::sync_folder(path.parent().unwrap_or(Path::new("."))).map_err(io)?;
        crash::at(Point::DatabaseMade);
        Self::open(path)
    }

    /// Opens the database of a study for writing.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        if !path.exists() {
            return Err(StoreError::Missing(path.to_owned()));
        }
        let open = || -> Result<_, Fault> {
            let connection =
                Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
            check_format(&connection, path)?;
            connection.busy_timeout(BUSY)?;
            connection.pragma_update(None, "journal_mode", "wal")?;
            connection.pragma_update(None, "synchronous", "full")?;
            connection.pragma_update(None, "temp_store", "memory")?;
            connection.set_prepared_statement_cache_capacity(64);
            // A folder that cannot be written is better found out now than after the first trained epoch.
            connection.execute_batch("BEGIN IMMEDIATE; UPDATE study SET name = name; COMMIT;")?;
            let spec = stored_spec(&connection)?;
            let len = connection.query_row("SELECT coalesce(max(seq), 0) FROM event", [], |r| r.get::<_, i64>(0))?;
            Ok((connection, spec, len as u64))
        };
        let (connection, spec, len) = open().map_err(|e| e.at(path))?;
        Ok(Self { path: path.to_owned(), connection, spec, len, run: None })
    }

    /// Where the database is.
    pub fn path(&self) -> &Path {
        &self.path
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
}

impl EventStore for SqliteStore {
    fn spec(&self) -> &StudySpec {
        &self.spec
    }

    fn replace_spec(&mut self, spec: &StudySpec) -> Result<(), StoreError> {
        let text = spec_text(spec)?;
        self.transact(|t| Ok(t.execute("UPDATE study SET spec = ?", [&text]).map(drop)?))?;
        self.spec = spec.clone();
        Ok(())
    }

    fn len(&self) -> u64 {
        self.len
    }

    fn read(&self, after: u64, each: &mut dyn FnMut(Event)) -> Result<(), StoreError> {
        read_events(&self.connection, after, each).map_err(|e| e.at(&self.path))
    }

    fn append(&mut self, expected: u64, events: &[Event]) -> Result<(), StoreError> {
        if events.is_empty() {
            return Ok(());
        }
        let full = self.spec.runner.epochs();
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
                project::project(t, seq, event, full)?;
            }
            Ok(())
        })?;
        self.len = expected + events.len() as u64;
        crash::at(Point::EventsCommitted);
        Ok(())
    }

    fn begin_run(&mut self, run: &RunStart) -> Result<(), StoreError> {
        let mut number = 0;
        self.transact(|t| {
            t.execute("UPDATE run SET ended = 'killed' WHERE ended IS NULL", [])?;
            t.execute("UPDATE attempt SET ended = 'interrupted', ended_ms = ? WHERE ended IS NULL", [run.unix_ms as i64])?;
            t.execute("UPDATE trial SET state = 'waiting' WHERE state = 'running'", [])?;
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

    fn note_run(&mut self, seconds: f64, ended: Option<&str>) -> Result<(), StoreError> {
        let Some(run) = self.run else { return Ok(()) };
        self.transact(|t| {
            t.execute("UPDATE run SET seconds = ?, ended = ? WHERE run = ?", params![seconds, ended, run])?;
            if ended.is_some() {
                t.execute(
                    "UPDATE attempt SET ended = 'interrupted', ended_ms = ? WHERE ended IS NULL",
                    [crate::clock::unix_ms() as i64],
                )?;
                t.execute("UPDATE trial SET state = 'waiting' WHERE state = 'running'", [])?;
            }
            Ok(())
        })
    }

    fn run_seconds(&self) -> Result<f64, StoreError> {
        self.connection
            .query_row("SELECT coalesce(sum(seconds), 0.0) FROM run", [], |row| row.get(0))
            .map_err(|e| Fault::from(e).at(&self.path))
    }

    fn note_states(&mut self, states: &[(TrialNumber, TrialState)]) -> Result<(), StoreError> {
        self.transact(|t| {
            let mut statement = t.prepare_cached("UPDATE trial SET state = ?1 WHERE trial = ?2 AND state <> ?1")?;
            for (trial, state) in states {
                statement.execute(params![project::state_name(*state), trial.0])?;
            }
            Ok(())
        })
    }

    fn kept_files(&self) -> Result<Vec<String>, StoreError> {
        let read = || -> Result<Vec<String>, Fault> {
            let mut statement = self.connection.prepare("SELECT path FROM file WHERE kept = 1")?;
            let rows = statement.query_map([], |row| row.get(0))?;
            Ok(rows.collect::<Result<_, _>>()?)
        };
        read().map_err(|e| e.at(&self.path))
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
}

/// A column that holds a digest.
fn digest(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<crate::digest::Digest> {
    crate::digest::Digest::try_from(row.get::<_, String>(column)?)
        .map_err(|e| rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, Box::new(e)))
}

/// A failure inside a statement, not yet told apart.
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

impl From<StoreError> for Fault {
    fn from(e: StoreError) -> Self {
        Self::Store(e)
    }
}

impl Fault {
    /// Names the cause, as far as SQLite's code tells it.
    fn at(self, path: &Path) -> StoreError {
        let path = path.to_owned();
        let source = match self {
            Self::Store(e) => return e,
            Self::Sqlite(e) => e,
        };
        match source.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => StoreError::DiskFull { path, source },
            Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => StoreError::ReadOnly { path, source },
            Some(ErrorCode::DatabaseCorrupt) => StoreError::Corrupt { path, source },
            Some(ErrorCode::NotADatabase) => StoreError::NotAStudy(path),
            // Without the right to create the write-ahead log beside it, the database itself "cannot be opened".
            Some(ErrorCode::CannotOpen) if folder_is_read_only(&path) => StoreError::ReadOnly { path, source },
            _ => StoreError::Sqlite { path, source },
        }
    }
}

fn folder_is_read_only(path: &Path) -> bool {
    path.parent().is_some_and(|folder| {
        rustix::fs::access(folder, rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK).is_err()
    })
}

fn draft_database(path: &Path, spec: &StudySpec) -> Result<(), Fault> {
    let mut connection = Connection::open(path)?;
    let transaction = connection.transaction()?;
    transaction.execute_batch(SCHEMA)?;
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.pragma_update(None, "user_version", FORMAT_VERSION)?;
    let direction = match spec.objective.direction {
        Direction::Maximize => "maximize",
        Direction::Minimize => "minimize",
    };
    transaction.execute(
        "INSERT INTO study (name, seed, metric, direction, epochs, spec, program, created_ms) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        params![
            spec.name,
            spec.seed.to_string(),
            spec.objective.metric.to_string(),
            direction,
            spec.runner.epochs(),
            spec_text(spec)?,
            env!("CARGO_PKG_VERSION"),
            crate::clock::unix_ms() as i64
        ],
    )?;
    transaction.commit()?;
    connection.close().map_err(|(_, e)| e)?;
    Ok(())
}

fn spec_text(spec: &StudySpec) -> Result<String, StoreError> {
    serde_json::to_string(spec).map_err(|source| StoreError::Codec { what: "the study".to_owned(), source })
}

fn stored_spec(connection: &Connection) -> Result<StudySpec, Fault> {
    let text: String = connection.query_row("SELECT spec FROM study", [], |row| row.get(0))?;
    Ok(serde_json::from_str(&text).map_err(|source| StoreError::Codec { what: "the study".to_owned(), source })?)
}

fn check_format(connection: &Connection, path: &Path) -> Result<(), Fault> {
    let pragma = |name: &str| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).optional();
    let version = pragma("user_version")?.unwrap_or(0);
    if pragma("application_id")? != Some(APPLICATION_ID) || version < 1 {
        return Err(Fault::Store(StoreError::NotAStudy(path.to_owned())));
    }
    if version > FORMAT_VERSION {
        return Err(Fault::Store(StoreError::Newer { found: version, known: FORMAT_VERSION }));
    }
    Ok(())
}

fn read_events(connection: &Connection, after: u64, each: &mut dyn FnMut(Event)) -> Result<(), Fault> {
    let mut statement = connection.prepare("SELECT seq, kind, body FROM event WHERE seq > ? ORDER BY seq")?;
    let mut rows = statement.query([i64::try_from(after).unwrap_or(i64::MAX)])?;
    while let Some(row) = rows.next()? {
        let seq: i64 = row.get(0)?;
        let text = |i| row.get_ref(i).and_then(|v| v.as_str().map_err(Into::into));
        each(codec::decode(seq as u64, text(1)?, text(2)?)?);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
