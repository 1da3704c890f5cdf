//! Storage of studies: the event log, from which everything follows, and the rows that
//! [`History`](crate::history::History) derived from it.
//!
//! A [`Backend`] holds studies by name. A writer first [`claims`](Backend::claim) a study, which keeps every other
//! writer out, and then opens a [`Store`]: an append-only log with atomic transactions, each of which states at which
//! position it expects the log to end. A [`Reader`] sees a consistent snapshot; readers and writer never wait for each
//! other. Nothing outside this module depends on the kind of backend: [`in_folder`] keeps each study in its own SQLite
//! database, which people can query in plain SQL (`docs/database.md`); [`in_server`] keeps them in PostgreSQL;
//! [`in_memory`] loses them when dropped.

mod codec;
mod elsewhere;
mod error;
mod memory;
#[cfg(feature = "postgres")]
mod postgres;
mod record;
mod sqlite;

#[cfg(test)]
pub(crate) mod conformance;

pub use error::StoreError;
pub use record::{Chosen, ImagesOnRecord, OpenedMean, OpenedTrial, Opening, RunEnd, RunRow, RunStart};

use crate::engine::Event;
use crate::exchange::OptunaStudy;
use crate::fsx::Holder;
use crate::history::{FileRow, Row, Tables};
use crate::spec::StudySpec;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Ignores poisoning: a thread that panicked with the lock had made a whole change or none, and a session with a server knows
/// by itself what it has written.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Studies in the folder `state`: `STATE/<name>/study.db`.
pub fn in_folder(state: &Path) -> Box<dyn Backend> {
    Box::new(sqlite::Folder::new(state))
}

/// Studies in a PostgreSQL database, whose files are in the folder `state`. `address`: a URL
/// (`postgresql://user@host:5432/database`) or key-value pairs, as for libpq; without a password in it, that comes from
/// `PGPASSWORD`, `PGPASSFILE` or `~/.pgpass`. Does not connect yet.
///
/// # Errors
/// If the address cannot be understood, or this program was built without the feature `postgres`.
pub fn in_server(address: &str, state: &Path) -> Result<Box<dyn Backend>, StoreError> {
    #[cfg(feature = "postgres")]
    {
        Ok(Box::new(postgres::Server::new(address, state)?))
    }
    #[cfg(not(feature = "postgres"))]
    {
        let (_, _) = (address, state);
        Err(StoreError::NotBuilt)
    }
}

/// The study in one database file, for reading.
///
/// # Errors
/// If there is none, or it cannot be read.
pub fn read_file(database: &Path) -> Result<Box<dyn Reader>, StoreError> {
    Ok(Box::new(sqlite::SqliteReader::open(database)?))
}

/// The studies in a SQLite database of Optuna (`RDBStorage`), oldest first.
///
/// # Errors
/// If the file cannot be read, or is no such database.
pub fn optuna_studies(database: &Path) -> Result<Vec<OptunaStudy>, StoreError> {
    sqlite::optuna_studies(database)
}

/// Studies in memory, lost when the last handle is dropped.
pub fn in_memory() -> Box<dyn Backend> {
    Box::new(memory::Memory::default())
}

/// A collection of studies by name.
pub trait Backend: Send + Sync {
    /// Names of the studies here, in order.
    ///
    /// # Errors
    /// If a server cannot be asked.
    fn names(&self) -> Result<Vec<String>, StoreError>;

    /// Whether there is a study of this name.
    ///
    /// # Errors
    /// If a server cannot be asked.
    fn exists(&self, name: &str) -> Result<bool, StoreError>;

    /// Where the study of this name is, or would be, for people: in a folder, the path of its database.
    fn place(&self, name: &str) -> String;

    /// The exclusive right to write a study, whether it exists yet or not; held until it is dropped or this process
    /// ends in any way.
    ///
    /// # Errors
    /// [`StoreError::Locked`] while another has it.
    fn claim(&self, name: &str) -> Result<Box<dyn Claim>, StoreError>;

    /// Who has the right to write a study now, if anyone has.
    ///
    /// # Errors
    /// If a server cannot be asked.
    fn holder(&self, name: &str) -> Result<Option<Holder>, StoreError>;

    /// A study for reading, also while somebody writes it.
    ///
    /// # Errors
    /// If there is none, or it cannot be read.
    fn read(&self, name: &str) -> Result<Box<dyn Reader>, StoreError>;
}

/// The right to write a study.
pub trait Claim: Send {
    /// Opens the study, migrated to the current format; `None` if there is none.
    ///
    /// # Errors
    /// If it cannot be read or written.
    fn open(&self) -> Result<Option<Box<dyn Store>>, StoreError>;

    /// Creates the study.
    ///
    /// # Errors
    /// If there is one already, or it cannot be written.
    fn create(&self, spec: &StudySpec) -> Result<Box<dyn Store>, StoreError>;

    /// Deletes the study's events and rows, but not its other files.
    ///
    /// # Errors
    /// If that fails.
    fn remove(&self) -> Result<(), StoreError>;

    /// The study for reading.
    ///
    /// # Errors
    /// As [`Backend::read`].
    fn read(&self) -> Result<Box<dyn Reader>, StoreError>;
}

/// A study for writing.
///
/// What a method wrote is durable once it has returned: it survives a crash of the process or the machine (unless kept
/// in memory).
pub trait Store: Send {
    /// The stored specification.
    fn spec(&self) -> &StudySpec;

    /// Replaces the stored specification, and writes the rows that this changes: for a raised budget or settings of the
    /// run. The caller has checked that nothing else differs.
    fn replace_spec(&mut self, spec: &StudySpec, rows: &[Row]) -> Result<(), StoreError>;

    /// How many events there are.
    fn len(&self) -> u64;

    /// Whether there are no events yet.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Calls `each` with the events after the first `after` ones, in order.
    fn events(&self, after: u64, each: &mut dyn FnMut(Event)) -> Result<(), StoreError>;

    /// Appends all of `events`, with the rows that they change, or nothing; refused unless there are exactly `expected`
    /// events so far.
    fn append(&mut self, expected: u64, events: &[Event], rows: &[Row]) -> Result<(), StoreError>;

    /// Records the start of a run, and that a run still open was killed. `rows`: those of attempts it left open.
    fn begin_run(&mut self, run: &RunStart, rows: &[Row]) -> Result<(), StoreError>;

    /// Records that the current run has lasted `seconds` and, at its end, how it ended and the rows that this changes.
    fn note_run(&mut self, seconds: f64, end: Option<(RunEnd, &[Row])>) -> Result<(), StoreError>;

    /// All runs, in order.
    fn runs(&self) -> Result<Vec<RunRow>, StoreError>;

    /// Paths of files recorded as kept.
    fn kept_files(&self) -> Result<Vec<String>, StoreError>;

    /// Records that files (paths as in [`FileRef`](crate::engine::FileRef)) are no longer kept. Called before they are
    /// deleted, so that a file on record as kept exists.
    fn forget_files(&mut self, paths: &[String]) -> Result<(), StoreError>;

    /// The images of the study when training began; `None` before that, and for other runners.
    fn images(&self) -> Result<Option<ImagesOnRecord>, StoreError>;

    /// Records, once and permanently, which images the study has.
    ///
    /// # Errors
    /// If that is on record already.
    fn record_images(&mut self, images: &ImagesOnRecord) -> Result<(), StoreError>;

    /// The opening of the test images, if it has happened.
    fn opening(&self) -> Result<Option<Opening>, StoreError>;

    /// Records, once and permanently, that the test images are being opened, for which trials, and what was fixed for them
    /// and for their mean; called before the first of the images is scored. There are no results yet.
    ///
    /// # Errors
    /// If they have been opened before.
    fn begin_opening(&mut self, opening: &Opening) -> Result<(), StoreError>;

    /// Records the results of the opening, best on validation first.
    ///
    /// # Errors
    /// If that is on record already, or they were not opened.
    fn record_tested(&mut self, results: &[OpenedTrial]) -> Result<(), StoreError>;
}

/// A study for reading. Every call sees a consistent snapshot; two calls may see different ones.
pub trait Reader: Send {
    /// The stored specification.
    fn spec(&self) -> Result<StudySpec, StoreError>;

    /// Calls `each` with the events after the first `after` ones, in order.
    fn events(&self, after: u64, each: &mut dyn FnMut(Event)) -> Result<(), StoreError>;

    /// All rows.
    fn tables(&self) -> Result<Tables, StoreError>;

    /// The rows without files and without the metrics of epochs: several times quicker to read in a long study, for
    /// those who look again and again.
    fn outline(&self) -> Result<Tables, StoreError>;

    /// A number that is the same at two calls only if nothing was written between them.
    fn version(&self) -> Result<u64, StoreError>;

    /// All runs, in order.
    fn runs(&self) -> Result<Vec<RunRow>, StoreError>;

    /// All files on record, and whether they are still kept.
    fn files(&self) -> Result<Vec<(FileRow, bool)>, StoreError>;

    /// As [`Store::images`].
    fn images(&self) -> Result<Option<ImagesOnRecord>, StoreError>;

    /// As [`Store::opening`].
    fn opening(&self) -> Result<Option<Opening>, StoreError>;
}
