//! Keeping studies: their events are the truth, the rows beside them are what [`History`](crate::history::History) made of
//! these.
//!
//! A [`Backend`] holds many studies by name. Who wants to write one [`claims`](Backend::claim) it, which keeps every other
//! writer out, and opens a [`Store`]: an append-only log with an expected position, in which all of a transaction is kept
//! or none. A [`Reader`] sees one moment, and never waits for the writer nor it for the reader. Nothing outside this module
//! knows what a backend is made of: [`in_folder`] keeps each study in a SQLite database of its own that people can ask in
//! plain SQL (`docs/database.md`), [`in_memory`] forgets.

mod error;
mod memory;
mod record;
mod sqlite;

#[cfg(test)]
pub(crate) mod conformance;

pub use error::StoreError;
pub use record::{ImagesOnRecord, OpenedTrial, Opening, RunEnd, RunRow, RunStart};

use crate::engine::Event;
use crate::fsx::Holder;
use crate::history::{FileRow, Row, Tables};
use crate::spec::StudySpec;
use std::path::Path;

/// Studies in the folder `state`: `STATE/<name>/study.db`.
pub fn in_folder(state: &Path) -> Box<dyn Backend> {
    Box::new(sqlite::Folder::new(state))
}

/// The study in one database file, for reading.
///
/// # Errors
/// If there is none, or it cannot be read.
pub fn read_file(database: &Path) -> Result<Box<dyn Reader>, StoreError> {
    Ok(Box::new(sqlite::SqliteReader::open(database)?))
}

/// Studies that are forgotten with the last handle on them.
pub fn in_memory() -> Box<dyn Backend> {
    Box::new(memory::Memory::default())
}

/// A place of studies.
pub trait Backend: Send + Sync {
    /// Names of the studies here, in order.
    fn names(&self) -> Vec<String>;

    /// Whether there is a study of this name.
    fn exists(&self, name: &str) -> bool;

    /// The right to write a study, whether it exists or not; nobody else has it until it is dropped, however this process
    /// ends.
    ///
    /// # Errors
    /// [`StoreError::Locked`] while another has it.
    fn claim(&self, name: &str) -> Result<Box<dyn Claim>, StoreError>;

    /// Who has the right to write a study now, if anyone has.
    fn holder(&self, name: &str) -> Option<Holder>;

    /// A study for reading, also while somebody writes it.
    ///
    /// # Errors
    /// If there is none, or it cannot be read.
    fn read(&self, name: &str) -> Result<Box<dyn Reader>, StoreError>;
}

/// The right to write a study.
pub trait Claim: Send {
    /// Opens the study, brought to today's format; `None` if there is none.
    ///
    /// # Errors
    /// If it cannot be read or written.
    fn open(&self) -> Result<Option<Box<dyn Store>>, StoreError>;

    /// Makes the study.
    ///
    /// # Errors
    /// If there is one already, or it cannot be written.
    fn create(&self, spec: &StudySpec) -> Result<Box<dyn Store>, StoreError>;

    /// Deletes the study's events and rows; files beside them are not its business.
    ///
    /// # Errors
    /// If that fails.
    fn remove(&self) -> Result<(), StoreError>;
}

/// A study for writing.
///
/// Once a method has returned, what it wrote survives any end of the process or the machine (in memory: of neither).
pub trait Store: Send {
    /// The study as it was last agreed on.
    fn spec(&self) -> &StudySpec;

    /// Replaces the stored study, with the rows that this changes: for a raised budget and for settings of the run. The
    /// caller has checked that nothing else differs.
    fn replace_spec(&mut self, spec: &StudySpec, rows: &[Row]) -> Result<(), StoreError>;

    /// How many events are kept.
    fn len(&self) -> u64;

    /// Whether nothing has happened yet.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Hands over the events after the first `after` ones, in order.
    fn events(&self, after: u64, each: &mut dyn FnMut(Event)) -> Result<(), StoreError>;

    /// Appends all of `events`, with the rows that they change, or nothing; refused unless exactly `expected` events are
    /// kept so far.
    fn append(&mut self, expected: u64, events: &[Event], rows: &[Row]) -> Result<(), StoreError>;

    /// Notes the beginning of a run: one that an earlier process left open was killed. `rows`: of attempts that it left
    /// open.
    fn begin_run(&mut self, run: &RunStart, rows: &[Row]) -> Result<(), StoreError>;

    /// Notes that the current run has lasted `seconds`, and its end with the rows that this changes.
    fn note_run(&mut self, seconds: f64, end: Option<(RunEnd, &[Row])>) -> Result<(), StoreError>;

    /// All runs, in order.
    fn runs(&self) -> Result<Vec<RunRow>, StoreError>;

    /// Paths of files noted as kept.
    fn kept_files(&self) -> Result<Vec<String>, StoreError>;

    /// Notes that files (paths as in [`FileRef`](crate::engine::FileRef)) are no longer kept. Called before they are
    /// deleted, so that a file on record as kept exists.
    fn forget_files(&mut self, paths: &[String]) -> Result<(), StoreError>;

    /// What the images were when training began, for a study of images that has begun.
    fn images(&self) -> Result<Option<ImagesOnRecord>, StoreError>;

    /// Puts on record, for good, what the images are.
    ///
    /// # Errors
    /// If that is on record already.
    fn record_images(&mut self, images: &ImagesOnRecord) -> Result<(), StoreError>;

    /// The opening of the test images, if it has happened.
    fn opening(&self) -> Result<Option<Opening>, StoreError>;

    /// Puts on record, for good and before the first of them is looked at, that the test images are being opened.
    ///
    /// # Errors
    /// If they have been opened before.
    fn begin_opening(&mut self, unix_ms: u64, unfinished: bool) -> Result<(), StoreError>;

    /// Puts on record what the opening gave, best on validation first.
    ///
    /// # Errors
    /// If that is on record already, or they were not opened.
    fn record_tested(&mut self, results: &[OpenedTrial]) -> Result<(), StoreError>;
}

/// A study for reading. Every method sees one moment; two calls may see different ones.
pub trait Reader: Send {
    /// The study as it was last agreed on.
    fn spec(&self) -> Result<StudySpec, StoreError>;

    /// Hands over the events after the first `after` ones, in order.
    fn events(&self, after: u64, each: &mut dyn FnMut(Event)) -> Result<(), StoreError>;

    /// All rows.
    fn tables(&self) -> Result<Tables, StoreError>;

    /// All runs, in order.
    fn runs(&self) -> Result<Vec<RunRow>, StoreError>;

    /// All files on record, and whether they are still kept.
    fn files(&self) -> Result<Vec<(FileRow, bool)>, StoreError>;

    /// As [`Store::images`].
    fn images(&self) -> Result<Option<ImagesOnRecord>, StoreError>;

    /// As [`Store::opening`].
    fn opening(&self) -> Result<Option<Opening>, StoreError>;
}
