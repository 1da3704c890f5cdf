//! Looking at a study without disturbing who writes it.

use super::{Fault, check_format, read_events, stored_spec};
use crate::engine::Event;
use crate::ids::TrialNumber;
use crate::space::Params;
use crate::spec::StudySpec;
use crate::store::StoreError;
use rusqlite::{Connection, ErrorCode, OpenFlags, Row};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A read-only connection. It never blocks the writer, works while a run is going and on a read-only medium.
#[derive(Debug)]
pub struct SqliteReader {
    pub(super) path: PathBuf,
    pub(super) connection: Connection,
}

/// A trial as the tables have it.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct TrialRow {
    pub trial: TrialNumber,
    /// `waiting`, `running`, `paused`, `complete`, `stopped` or `failed`.
    pub state: String,
    /// The objective after the latest epoch; `None` if failed.
    pub value: Option<f64>,
    /// Epochs trained.
    pub epochs: u32,
    pub bracket: u32,
    pub rung: Option<u32>,
    /// Seconds of all its epochs.
    pub seconds: f64,
    pub params: Params,
    /// Metrics after the latest epoch.
    pub metrics: BTreeMap<String, f64>,
    /// Class and reason of its final failure.
    pub failure: Option<(String, String)>,
}

/// A run as the tables have it.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct RunRow {
    pub started_ms: u64,
    pub seconds: f64,
    /// How it ended; `None`: it is going on, or was killed.
    pub ended: Option<String>,
    pub pid: u32,
    pub host: String,
    pub workers: u32,
    pub device: String,
}

/// An attempt that is going on (or was, when the run was killed).
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct WorkerRow {
    pub worker: u32,
    pub trial: TrialNumber,
    /// Epochs the trial has.
    pub epochs: u32,
    /// Epochs it is sent to.
    pub to: u32,
    pub started_ms: u64,
    /// The objective after its latest epoch.
    pub value: Option<f64>,
}

/// A file on record.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct FileRow {
    /// Relative to the study's folder.
    pub path: String,
    /// `checkpoint` or `predictions`.
    pub kind: String,
    pub trial: TrialNumber,
    pub bytes: u64,
    /// Whether it is still needed.
    pub kept: bool,
}

impl SqliteReader {
    /// Opens the database of a study for reading.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        if !path.exists() {
            return Err(StoreError::Missing(path.to_owned()));
        }
        let open = |target: &str, flags| -> Result<Connection, Fault> {
            let connection = Connection::open_with_flags(target, OpenFlags::SQLITE_OPEN_READ_ONLY | flags)?;
            connection.busy_timeout(Duration::from_secs(20))?;
            check_format(&connection, path)?;
            Ok(connection)
        };
        let plain = open(&path.to_string_lossy(), OpenFlags::empty());
        let connection = match plain {
            // A write-ahead log cannot be opened where nothing may be written; nobody writes there either.
            Err(Fault::Sqlite(e))
                if matches!(e.sqlite_error_code(), Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly))
                    && super::folder_is_read_only(path) =>
            {
                open(&immutable_uri(path), OpenFlags::SQLITE_OPEN_URI)
            }
            other => other,
        }
        .map_err(|e| e.at(path))?;
        Ok(Self { path: path.to_owned(), connection })
    }

    /// The study as last agreed on.
    pub fn spec(&self) -> Result<StudySpec, StoreError> {
        stored_spec(&self.connection).map_err(|e| e.at(&self.path))
    }

    /// Hands over the events after the first `after`, in order, all from one moment.
    pub fn events(&self, after: u64, each: &mut dyn FnMut(Event)) -> Result<(), StoreError> {
        read_events(&self.connection, after, each).map_err(|e| e.at(&self.path))
    }

    /// All trials, in order.
    pub fn trials(&self) -> Result<Vec<TrialRow>, StoreError> {
        let mut trials = self.rows(
            "SELECT trial, state, value, epochs, bracket, rung, seconds, params, \
             (SELECT class FROM failure f WHERE f.trial = t.trial AND final ORDER BY seq DESC LIMIT 1), \
             (SELECT reason FROM failure f WHERE f.trial = t.trial AND final ORDER BY seq DESC LIMIT 1) \
             FROM trial t ORDER BY trial",
            |row| {
                let params: String = row.get(7)?;
                let class: Option<String> = row.get(8)?;
                let reason: Option<String> = row.get(9)?;
                Ok(TrialRow {
                    trial: TrialNumber(row.get(0)?),
                    state: row.get(1)?,
                    value: row.get(2)?,
                    epochs: row.get(3)?,
                    bracket: row.get(4)?,
                    rung: row.get(5)?,
                    seconds: row.get(6)?,
                    params: serde_json::from_str(&params).map_err(|e| {
                        rusqlite::Error::FromSqlConversionFailure(7, rusqlite::types::Type::Text, Box::new(e))
                    })?,
                    metrics: BTreeMap::new(),
                    failure: class.zip(reason),
                })
            },
        )?;
        let metrics = self.rows("SELECT trial, name, value FROM final_metric", |row| {
            Ok((TrialNumber(row.get(0)?), row.get::<_, String>(1)?, row.get::<_, f64>(2)?))
        })?;
        for (trial, name, value) in metrics {
            if let Ok(at) = trials.binary_search_by_key(&trial, |t| t.trial) {
                trials[at].metrics.insert(name, value);
            }
        }
        Ok(trials)
    }

    /// All runs, in order.
    pub fn runs(&self) -> Result<Vec<RunRow>, StoreError> {
        self.rows("SELECT started_ms, seconds, ended, pid, host, workers, device FROM run ORDER BY run", |row| {
            Ok(RunRow {
                started_ms: row.get::<_, i64>(0)? as u64,
                seconds: row.get(1)?,
                ended: row.get(2)?,
                pid: row.get(3)?,
                host: row.get(4)?,
                workers: row.get(5)?,
                device: row.get(6)?,
            })
        })
    }

    /// Attempts that have not ended, by worker.
    pub fn workers(&self) -> Result<Vec<WorkerRow>, StoreError> {
        self.rows(
            "SELECT a.worker, w.trial, t.epochs, w.to_epoch, a.started_ms, t.value FROM attempt a \
             JOIN work_order w USING (work_order) JOIN trial t USING (trial) WHERE a.ended IS NULL ORDER BY a.worker",
            |row| {
                Ok(WorkerRow {
                    worker: row.get(0)?,
                    trial: TrialNumber(row.get(1)?),
                    epochs: row.get(2)?,
                    to: row.get(3)?,
                    started_ms: row.get::<_, i64>(4)? as u64,
                    value: row.get(5)?,
                })
            },
        )
    }

    /// All files on record.
    pub fn files(&self) -> Result<Vec<FileRow>, StoreError> {
        self.rows("SELECT path, kind, trial, bytes, kept FROM file ORDER BY path", |row| {
            Ok(FileRow {
                path: row.get(0)?,
                kind: row.get(1)?,
                trial: TrialNumber(row.get(2)?),
                bytes: row.get::<_, i64>(3)? as u64,
                kept: row.get(4)?,
            })
        })
    }

    fn rows<T>(&self, sql: &str, mut map: impl FnMut(&Row<'_>) -> rusqlite::Result<T>) -> Result<Vec<T>, StoreError> {
        let read = || -> Result<Vec<T>, Fault> {
            let mut statement = self.connection.prepare(sql)?;
            let rows = statement.query_map([], |row| map(row))?;
            Ok(rows.collect::<Result<_, _>>()?)
        };
        let mut read = read;
        read().map_err(|e| e.at(&self.path))
    }
}

/// `file:...?immutable=1` with what a URI cannot hold escaped.
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
