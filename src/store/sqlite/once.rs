//! Write-once records: the images, and the opening of the test images.

use super::{Fault, read};
use crate::ids::{Epoch, TrialNumber};
use crate::store::{Chosen, ImagesOnRecord, OpenedMean, OpenedTrial, Opening, StoreError};
use rusqlite::{Connection, OptionalExtension, Transaction, params};
use std::path::PathBuf;

/// Created when the images are recorded; studies of other runners have no such table.
const IMAGES: &str = "
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

/// Created at the opening, so databases of studies whose test images are still locked have no such tables.
const OPENING: &str = "
CREATE TABLE IF NOT EXISTS test_opening (
    opening    INTEGER PRIMARY KEY CHECK (opening = 1), -- there is only one
    opened_ms  INTEGER NOT NULL,
    unfinished INTEGER NOT NULL                         -- 1: the study was not over
) STRICT;
CREATE TABLE IF NOT EXISTS test_choice (                -- of trials, before any image was scored
    trial     INTEGER PRIMARY KEY REFERENCES trial,
    place     INTEGER NOT NULL,                         -- rank on validation, from 0
    epoch     INTEGER NOT NULL,                         -- after which it is judged
    threshold REAL                                      -- fixed on validation; NULL: undefined there
) STRICT;
CREATE TABLE IF NOT EXISTS test_result (
    trial     INTEGER PRIMARY KEY REFERENCES trial,
    place     INTEGER NOT NULL,                         -- rank on validation, from 0
    threshold REAL,                                     -- fixed on validation before; NULL: undefined there
    path      TEXT    NOT NULL,                         -- predictions of the test images
    digest    TEXT    NOT NULL,
    bytes     INTEGER NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS test_mean (                  -- of the scores of all these trials
    one       INTEGER PRIMARY KEY CHECK (one = 1),
    threshold REAL                                      -- fixed on validation before; NULL: undefined there
) STRICT;
CREATE TRIGGER IF NOT EXISTS test_opening_is_final BEFORE UPDATE ON test_opening
    BEGIN SELECT RAISE(ABORT, 'the opening of the test images is never changed'); END;
CREATE TRIGGER IF NOT EXISTS test_opening_stays BEFORE DELETE ON test_opening
    BEGIN SELECT RAISE(ABORT, 'the opening of the test images is never changed'); END;
CREATE TRIGGER IF NOT EXISTS test_choice_is_final BEFORE UPDATE ON test_choice
    BEGIN SELECT RAISE(ABORT, 'the opening of the test images is never changed'); END;
CREATE TRIGGER IF NOT EXISTS test_choice_stays BEFORE DELETE ON test_choice
    BEGIN SELECT RAISE(ABORT, 'the opening of the test images is never changed'); END;
CREATE TRIGGER IF NOT EXISTS test_result_is_final BEFORE UPDATE ON test_result
    BEGIN SELECT RAISE(ABORT, 'the opening of the test images is never changed'); END;
CREATE TRIGGER IF NOT EXISTS test_mean_is_final BEFORE UPDATE ON test_mean
    BEGIN SELECT RAISE(ABORT, 'the opening of the test images is never changed'); END;
CREATE TRIGGER IF NOT EXISTS test_mean_stays BEFORE DELETE ON test_mean
    BEGIN SELECT RAISE(ABORT, 'the opening of the test images is never changed'); END;
CREATE TRIGGER IF NOT EXISTS test_result_stays BEFORE DELETE ON test_result
    BEGIN SELECT RAISE(ABORT, 'the opening of the test images is never changed'); END;";

pub(super) fn images(connection: &Connection) -> rusqlite::Result<Option<ImagesOnRecord>> {
    if !read::has_table(connection, "images")? {
        return Ok(None);
    }
    let images = |row: &rusqlite::Row<'_>| {
        let folder = PathBuf::from(row.get::<_, String>(0)?);
        Ok(ImagesOnRecord { folder, digest: read::digest(row, 1)?, summary: row.get(2)? })
    };
    connection.query_row("SELECT folder, digest, summary FROM images", [], images).optional()
}

pub(super) fn record_images(t: &Transaction<'_>, images: &ImagesOnRecord) -> Result<(), Fault> {
    if self::images(t)?.is_some() {
        return Err(StoreError::Recorded { what: "what the images are" }.into());
    }
    t.execute_batch(IMAGES)?;
    t.execute(
        "INSERT INTO images (one, seen_ms, folder, digest, summary) VALUES (1, ?, ?, ?, ?)",
        params![
            crate::clock::unix_ms() as i64,
            images.folder.to_string_lossy(),
            images.digest.to_string(),
            images.summary
        ],
    )?;
    Ok(())
}

pub(super) fn opening(connection: &Connection) -> rusqlite::Result<Option<Opening>> {
    if !read::has_table(connection, "test_opening")? {
        return Ok(None);
    }
    let head = connection
        .query_row("SELECT opened_ms, unfinished FROM test_opening", [], |row| Ok((row.get::<_, i64>(0)?, row.get(1)?)))
        .optional()?;
    let Some((unix_ms, unfinished)) = head else { return Ok(None) };
    let mut rows =
        connection.prepare("SELECT path, digest, bytes, trial, threshold FROM test_result ORDER BY place")?;
    let result = |row: &rusqlite::Row<'_>| {
        let trial = TrialNumber(row.get(3)?);
        Ok(OpenedTrial { trial, threshold: row.get(4)?, predictions: read::file_ref(row)? })
    };
    let results = rows.query_map([], result)?.collect::<rusqlite::Result<_>>()?;
    // Openings by earlier versions have no such tables.
    let chosen = if read::has_table(connection, "test_choice")? {
        let mut rows = connection.prepare("SELECT trial, epoch, threshold FROM test_choice ORDER BY place")?;
        let choice = |row: &rusqlite::Row<'_>| {
            Ok(Chosen { trial: TrialNumber(row.get(0)?), epoch: Epoch(row.get(1)?), threshold: row.get(2)? })
        };
        rows.query_map([], choice)?.collect::<rusqlite::Result<_>>()?
    } else {
        Vec::new()
    };
    let mean = if read::has_table(connection, "test_mean")? {
        let threshold = |row: &rusqlite::Row<'_>| Ok(OpenedMean { threshold: row.get(0)? });
        connection.query_row("SELECT threshold FROM test_mean", [], threshold).optional()?
    } else {
        None
    };
    Ok(Some(Opening { unix_ms: unix_ms as u64, unfinished, chosen, mean, results }))
}

pub(super) fn begin_opening(t: &Transaction<'_>, opening: &Opening) -> Result<(), Fault> {
    if self::opening(t)?.is_some() {
        return Err(StoreError::Recorded { what: "the opening of the test images" }.into());
    }
    t.execute_batch(OPENING)?;
    t.execute(
        "INSERT INTO test_opening (opening, opened_ms, unfinished) VALUES (1, ?, ?)",
        params![opening.unix_ms as i64, opening.unfinished],
    )?;
    for (place, choice) in opening.chosen.iter().enumerate() {
        t.execute(
            "INSERT INTO test_choice (trial, place, epoch, threshold) VALUES (?, ?, ?, ?)",
            params![choice.trial.0, place as i64, choice.epoch.0, choice.threshold],
        )?;
    }
    if let Some(mean) = opening.mean {
        t.execute("INSERT INTO test_mean (one, threshold) VALUES (1, ?)", params![mean.threshold])?;
    }
    Ok(())
}

pub(super) fn record_tested(t: &Transaction<'_>, results: &[OpenedTrial]) -> Result<(), Fault> {
    match opening(t)? {
        Some(opening) if opening.results.is_empty() => {}
        _ => return Err(StoreError::Recorded { what: "results of the test images" }.into()),
    }
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
}
