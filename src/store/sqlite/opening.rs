//! The opening of the locked test images: once in a study, on record for good.

use super::{SqliteReader, SqliteStore};
use crate::engine::FileRef;
use crate::ids::TrialNumber;
use crate::store::StoreError;
use rusqlite::{OptionalExtension, params};

/// Made at the first opening, so databases of studies whose test images are still locked have no such tables.
const TABLES: &str = "
CREATE TABLE IF NOT EXISTS test_opening (
    opening    INTEGER PRIMARY KEY CHECK (opening = 1), -- there is only one
    opened_ms  INTEGER NOT NULL,
    unfinished INTEGER NOT NULL                         -- 1: the study was not over
) STRICT;
CREATE TABLE IF NOT EXISTS test_result (
    trial     INTEGER PRIMARY KEY REFERENCES trial,
    place     INTEGER NOT NULL,                         -- rank on validation, from 0
    threshold REAL,                                     -- fixed on validation before; NULL: undefined there
    path      TEXT    NOT NULL,                         -- predictions of the test images
    digest    TEXT    NOT NULL,
    bytes     INTEGER NOT NULL
) STRICT;
CREATE TRIGGER IF NOT EXISTS test_opening_is_final BEFORE UPDATE ON test_opening
    BEGIN SELECT RAISE(ABORT, 'the opening of the test images is never changed'); END;
CREATE TRIGGER IF NOT EXISTS test_opening_stays BEFORE DELETE ON test_opening
    BEGIN SELECT RAISE(ABORT, 'the opening of the test images is never changed'); END;
CREATE TRIGGER IF NOT EXISTS test_result_is_final BEFORE UPDATE ON test_result
    BEGIN SELECT RAISE(ABORT, 'the opening of the test images is never changed'); END;
CREATE TRIGGER IF NOT EXISTS test_result_stays BEFORE DELETE ON test_result
    BEGIN SELECT RAISE(ABORT, 'the opening of the test images is never changed'); END;";

/// The one look at the test images, as it is stored.
#[derive(Clone, Debug, PartialEq)]
pub struct Opening {
    /// When, milliseconds since 1970.
    pub unix_ms: u64,
    /// Whether the study was still going on.
    pub unfinished: bool,
    /// The trials that were evaluated, best on validation first; none if that was cut short.
    pub results: Vec<OpenedTrial>,
}

/// A trial that was evaluated on the test images.
#[derive(Clone, Debug, PartialEq)]
pub struct OpenedTrial {
    /// Which trial.
    pub trial: TrialNumber,
    /// The threshold fixed on validation images before the opening.
    pub threshold: Option<f64>,
    /// Its predictions of the test images, relative to the study's folder.
    pub predictions: FileRef,
}

impl SqliteStore {
    /// Records that the test images are being opened, durably, before the first of them is looked at.
    ///
    /// # Errors
    /// If the test images have been opened before, or the database fails.
    pub fn begin_opening(&mut self, unix_ms: u64, unfinished: bool) -> Result<(), StoreError> {
        self.transact(|t| {
            t.execute_batch(TABLES)?;
            t.execute(
                "INSERT INTO test_opening (opening, opened_ms, unfinished) VALUES (1, ?, ?)",
                params![unix_ms as i64, unfinished],
            )?;
            Ok(())
        })
    }

    /// Records what the opening gave, best on validation first.
    ///
    /// # Errors
    /// If that is on record already, or the database fails.
    pub fn record_tested(&mut self, results: &[OpenedTrial]) -> Result<(), StoreError> {
        self.transact(|t| {
            for (place, result) in results.iter().enumerate() {
                let file = &result.predictions;
                t.execute(
                    "INSERT INTO test_result (trial, place, threshold, path, digest, bytes) VALUES (?, ?, ?, ?, ?, ?)",
                    params![
                        result.trial.0,
                        place as i64,
                        result.threshold,
                        file.path,
                        file.digest.to_string(),
                        file.bytes as i64
                    ],
                )?;
            }
            Ok(())
        })
    }
}

impl SqliteReader {
    /// The opening of the test images, if it has happened.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn opening(&self) -> Result<Option<Opening>, StoreError> {
        self.read_opening().map_err(|e| super::Fault::from(e).at(&self.path))
    }

    fn read_opening(&self) -> rusqlite::Result<Option<Opening>> {
        if !self.has_table("test_opening")? {
            return Ok(None);
        }
        let head = self
            .connection
            .query_row("SELECT opened_ms, unfinished FROM test_opening", [], |row| {
                Ok((row.get::<_, i64>(0)?, row.get(1)?))
            })
            .optional()?;
        let Some((unix_ms, unfinished)) = head else { return Ok(None) };
        let mut rows =
            self.connection.prepare("SELECT trial, threshold, path, digest, bytes FROM test_result ORDER BY place")?;
        let results = rows
            .query_map([], |row| {
                let bytes = row.get::<_, i64>(4)? as u64;
                let predictions = FileRef { path: row.get(2)?, digest: super::digest(row, 3)?, bytes };
                Ok(OpenedTrial { trial: TrialNumber(row.get(0)?), threshold: row.get(1)?, predictions })
            })?
            .collect::<rusqlite::Result<_>>()?;
        Ok(Some(Opening { unix_ms: unix_ms as u64, unfinished, results }))
    }
}
