//! Keeping a study: its events are the truth, everything else can be rebuilt from them.
//!
//! [`EventStore`] is an append-only log with an expected position, so two writers cannot interleave.
//! [`MemoryStore`] serves the library and tests; [`SqliteStore`] is the durable one, a database that people can
//! ask in plain SQL (`docs/database.md`). One process writes; readers never block it.

mod memory;
mod sqlite;

pub use memory::MemoryStore;
pub use sqlite::{
    FORMAT_VERSION, FileRow, ImagesOnRecord, OpenedTrial, Opening, RunRow, SqliteReader, SqliteStore, TrialRow,
    WorkerRow,
};

use crate::engine::{Event, TrialState};
use crate::ids::TrialNumber;
use crate::spec::StudySpec;
use std::path::PathBuf;

/// A log of a study's events, with what a run has to remember besides.
///
/// Once [`append`](Self::append) has returned, its events survive any end of the process or the machine
/// (memory: of neither). All of them are kept, or none.
pub trait EventStore: Send {
    /// The study as it was last agreed on.
    fn spec(&self) -> &StudySpec;

    /// Replaces the stored study: for a raised budget and for settings of the run. The caller has checked that
    /// nothing else differs.
    fn replace_spec(&mut self, spec: &StudySpec) -> Result<(), StoreError>;

    /// How many events are kept.
    fn len(&self) -> u64;

    /// Whether nothing has happened yet.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Hands over the events after the first `after` ones, in order.
    fn read(&self, after: u64, each: &mut dyn FnMut(Event)) -> Result<(), StoreError>;

    /// Appends all of `events`, durably, or none; refused unless exactly `expected` events are kept so far.
    fn append(&mut self, expected: u64, events: &[Event]) -> Result<(), StoreError>;

    /// Notes the beginning of a run: whatever an earlier run left open is closed as interrupted.
    fn begin_run(&mut self, run: &RunStart) -> Result<(), StoreError>;

    /// Notes that the current run has lasted `seconds`; `ended` says how, when it ends.
    fn note_run(&mut self, seconds: f64, ended: Option<&str>) -> Result<(), StoreError>;

    /// Seconds of all runs together, as far as noted.
    fn run_seconds(&self) -> Result<f64, StoreError>;

    /// Notes where trials stand as the engine sees it: a trial that waits at its rung may be out of the race without
    /// an event of its own.
    fn note_states(&mut self, states: &[(TrialNumber, TrialState)]) -> Result<(), StoreError>;

    /// Paths of files noted as kept.
    fn kept_files(&self) -> Result<Vec<String>, StoreError>;

    /// Notes that files (paths as in [`FileRef`](crate::engine::FileRef)) are no longer kept. Called before they
    /// are deleted, so that a file on record as kept exists.
    fn forget_files(&mut self, paths: &[String]) -> Result<(), StoreError>;
}

/// What is known when a run begins.
#[derive(Clone, Debug, PartialEq)]
pub struct RunStart {
    /// Milliseconds since 1970.
    pub unix_ms: u64,
    /// Version of this program.
    pub program: String,
    /// Worker processes; 0 when a library user trains by himself.
    pub workers: u32,
    /// Device as asked for.
    pub device: String,
}

/// Why the store cannot do what it is asked to do.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Someone else has written.
    #[error("append at event {expected}: the store holds {found}")]
    Conflict { expected: u64, found: u64 },
    /// A study of that name is there already.
    #[error("create study database `{0}`: it exists")]
    Exists(PathBuf),
    /// No study there.
    #[error(
        "open study database `{0}`: there is none\nhint: `hpsearch run STUDY.toml` makes it; `--state DIR` says where studies are kept"
    )]
    Missing(PathBuf),
    /// A file, but not ours.
    #[error("read `{0}`: it is not a study database")]
    NotAStudy(PathBuf),
    /// Written by a later version of this program.
    #[error(
        "read study database of format {found}: this program knows formats up to {known}\nhint: use a newer hpsearch"
    )]
    Newer { found: i64, known: i64 },
    /// The disk is full.
    #[error(
        "write to `{path}`: the disk is full\nhint: nothing on record is lost; free some space (`hpsearch gc` removes what no trial needs) and run again"
    )]
    DiskFull { path: PathBuf, source: rusqlite::Error },
    /// The file or its folder cannot be written.
    #[error("write to `{path}`: it is read-only\nhint: make the folder writable or choose another with `--state`")]
    ReadOnly { path: PathBuf, source: rusqlite::Error },
    /// Damaged.
    #[error(
        "read `{path}`: the database is damaged\nhint: restore it from a backup; checkpoints alone cannot rebuild it"
    )]
    Corrupt { path: PathBuf, source: rusqlite::Error },
    /// Something else in SQLite.
    #[error("use study database `{path}`")]
    Sqlite { path: PathBuf, source: rusqlite::Error },
    /// An event or study on record cannot be understood, or one cannot be written as text.
    #[error("understand {what} in the study database")]
    Codec { what: String, source: serde_json::Error },
    /// A kind of event that this version does not know.
    #[error("understand event {seq}: unknown kind `{kind}`")]
    UnknownEvent { seq: u64, kind: String },
    /// Folders cannot be made or read.
    #[error("use `{path}`")]
    Io { path: PathBuf, source: std::io::Error },
}

#[cfg(test)]
pub(crate) mod conformance;
