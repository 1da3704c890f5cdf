//! What the images were when training began: on record for good, so that nothing is trained or tested on others.

use super::{Fault, SqliteReader, SqliteStore};
use crate::clock;
use crate::digest::Digest;
use crate::store::StoreError;
use rusqlite::{OptionalExtension, params};
use std::path::PathBuf;

/// Made when the images are first seen: other runners have none.
const TABLE: &str = "
CREATE TABLE IF NOT EXISTS images (
    one     INTEGER PRIMARY KEY CHECK (one = 1),
    seen_ms INTEGER NOT NULL,
    folder  TEXT    NOT NULL, -- of the study file: paths in it are relative to this
    digest  TEXT    NOT NULL, -- of names, classes, bytes and split
    summary TEXT    NOT NULL  -- counts of classes and splits, JSON
) STRICT;
CREATE TRIGGER IF NOT EXISTS images_are_final BEFORE UPDATE ON images
    BEGIN SELECT RAISE(ABORT, 'the images of a study are never changed'); END;
CREATE TRIGGER IF NOT EXISTS images_stay BEFORE DELETE ON images
    BEGIN SELECT RAISE(ABORT, 'the images of a study are never changed'); END;";

/// The images of a study, as they are stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImagesOnRecord {
    /// The study file's folder when they were first seen.
    pub folder: PathBuf,
    /// Digest of names, classes, bytes and split.
    pub digest: Digest,
    /// What they are, as JSON (`data::DataSummary`).
    pub summary: String,
}

impl SqliteStore {
    /// Records what the images are, durably.
    ///
    /// # Errors
    /// If that is on record already, or the database fails.
    pub fn record_images(&mut self, images: &ImagesOnRecord) -> Result<(), StoreError> {
        self.transact(|t| {
            t.execute_batch(TABLE)?;
            t.execute(
                "INSERT INTO images (one, seen_ms, folder, digest, summary) VALUES (1, ?, ?, ?, ?)",
                params![
                    clock::unix_ms() as i64,
                    images.folder.to_string_lossy(),
                    images.digest.to_string(),
                    images.summary
                ],
            )?;
            Ok(())
        })
    }
}

impl SqliteReader {
    /// The images of the study; `None` before its first run, and where nothing is trained on images.
    ///
    /// # Errors
    /// If the database cannot be read.
    pub fn images(&self) -> Result<Option<ImagesOnRecord>, StoreError> {
        let read = || -> rusqlite::Result<_> {
            if !self.has_table("images")? {
                return Ok(None);
            }
            self.connection
                .query_row("SELECT folder, digest, summary FROM images", [], |row| {
                    let folder = PathBuf::from(row.get::<_, String>(0)?);
                    Ok(ImagesOnRecord { folder, digest: super::digest(row, 1)?, summary: row.get(2)? })
                })
                .optional()
        };
        read().map_err(|e| Fault::from(e).at(&self.path))
    }

    pub(super) fn has_table(&self, name: &str) -> rusqlite::Result<bool> {
        let named = "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = ?";
        self.connection.query_row(named, [name], |row| row.get::<_, i64>(0)).map(|n| n > 0)
    }
}
