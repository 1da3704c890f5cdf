//! Reading rows from SQL.

use super::Fault;
use crate::digest::Digest;
use crate::engine::{Event, FileRef, Greeting};
use crate::history::{
    AttemptRow, ConfigurationRow, EarlierRow, EnqueuedRow, EpochRow, FailureRow, FileRow, OrderRow, Row, Tables,
    TrialRow, WorkerRow,
};
use crate::ids::{Epoch, OrderId, TrialNumber};
use crate::space::Params;
use crate::store::{RunRow, codec};
use rusqlite::types::Type;
use rusqlite::{Connection, Error, OptionalExtension, Row as SqlRow};
use std::collections::BTreeMap;

/// Calls `each` with the events after the first `after` ones.
pub(super) fn events(connection: &Connection, after: u64, each: &mut dyn FnMut(Event)) -> Result<(), Fault> {
    let mut statement = connection.prepare("SELECT seq, kind, body FROM event WHERE seq > ? ORDER BY seq")?;
    let mut rows = statement.query([i64::try_from(after).unwrap_or(i64::MAX)])?;
    while let Some(row) = rows.next()? {
        let seq: i64 = row.get(0)?;
        let text = |i| row.get_ref(i).and_then(|v| v.as_str().map_err(Into::into));
        each(codec::decode(seq as u64, text(1)?, text(2)?)?);
    }
    Ok(())
}

/// How much of the rows is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Detail {
    /// Everything.
    All,
    /// No files, and no metrics of epochs.
    Outline,
}

/// The rows of a database of the current format. The caller holds a transaction, so that they are of one snapshot.
pub(super) fn tables(connection: &Connection, detail: Detail) -> Result<Tables, Fault> {
    let mut tables = Tables::default();
    let mut read = |sql: &str, map: &dyn Fn(&SqlRow<'_>) -> rusqlite::Result<Row>| -> Result<(), Fault> {
        let mut statement = connection.prepare(sql)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            tables.put(map(row)?);
        }
        Ok(())
    };
    read("SELECT trial, params FROM trial", &|row| {
        Ok(Row::Configuration(ConfigurationRow { trial: trial(row, 0)?, params: json(row, 1)? }))
    })?;
    read(
        "SELECT trial, state, value, epochs, result, result_epochs, bracket, rung, seconds, issued_ms, finished_ms FROM trial",
        &|row| {
            Ok(Row::Trial(TrialRow {
                trial: trial(row, 0)?,
                state: word(row, 1)?,
                value: row.get(2)?,
                epochs: row.get(3)?,
                result: row.get(4)?,
                result_epochs: row.get(5)?,
                bracket: row.get(6)?,
                rung: row.get(7)?,
                seconds: row.get(8)?,
                issued_ms: time(row, 9)?,
                finished_ms: time(row, 10)?,
            }))
        },
    )?;
    read(
        "SELECT work_order, trial, from_epoch, to_epoch, bracket, rung, outcome, at_epoch, value, finished_ms FROM work_order",
        &|row| {
            Ok(Row::Order(OrderRow {
                order: OrderId(row.get(0)?),
                trial: trial(row, 1)?,
                from: Epoch(row.get(2)?),
                to: Epoch(row.get(3)?),
                bracket: row.get(4)?,
                rung: row.get(5)?,
                outcome: optional_word(row, 6)?,
                at: row.get::<_, Option<u32>>(7)?.map(Epoch),
                value: row.get(8)?,
                finished_ms: time(row, 9)?,
            }))
        },
    )?;
    read("SELECT work_order, attempt, worker, started_ms, ended_ms, ended FROM attempt", &|row| {
        Ok(Row::Attempt(AttemptRow {
            order: OrderId(row.get(0)?),
            attempt: row.get(1)?,
            worker: row.get(2)?,
            started_ms: count(row, 3)?,
            ended_ms: time(row, 4)?,
            ended: optional_word(row, 5)?,
        }))
    })?;
    read("SELECT worker, host, job, program, arithmetic, ready_ms FROM worker", &|row| {
        let greeting = Greeting { host: row.get(1)?, job: row.get(2)?, program: row.get(3)?, arithmetic: row.get(4)? };
        Ok(Row::Worker(WorkerRow { worker: row.get(0)?, greeting, ready_ms: count(row, 5)? }))
    })?;
    read("SELECT seq, trial, work_order, attempt, class, reason, final, at_ms FROM failure", &|row| {
        Ok(Row::Failure(FailureRow {
            seq: count(row, 0)?,
            trial: trial(row, 1)?,
            order: OrderId(row.get(2)?),
            attempt: row.get(3)?,
            class: word(row, 4)?,
            reason: row.get(5)?,
            is_final: row.get(6)?,
            at_ms: count(row, 7)?,
        }))
    })?;
    if detail == Detail::All {
        read("SELECT path, digest, bytes, kind, trial, epoch FROM file", &|row| Ok(Row::File(file(row)?)))?;
    }
    read("SELECT seq, study, trial, epoch, value, params FROM earlier_result", &|row| {
        Ok(Row::Earlier(EarlierRow {
            seq: count(row, 0)?,
            study: row.get(1)?,
            trial: trial(row, 2)?,
            epoch: Epoch(row.get(3)?),
            value: row.get(4)?,
            params: json(row, 5)?,
        }))
    })?;
    read("SELECT seq, params, at_ms FROM enqueued", &|row| {
        Ok(Row::Enqueued(EnqueuedRow { seq: count(row, 0)?, params: json(row, 1)?, at_ms: count(row, 2)? }))
    })?;
    let mut metrics = if detail == Detail::All { metrics(connection)? } else { BTreeMap::new() };
    let mut statement = connection.prepare(
        "SELECT trial, epoch, value, train_loss, seconds, data_wait_seconds, images, work_order, attempt, reported_ms FROM epoch",
    )?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let key = (trial(row, 0)?, Epoch(row.get(1)?));
        tables.put(Row::Epoch(EpochRow {
            trial: key.0,
            epoch: key.1,
            value: row.get(2)?,
            train_loss: row.get(3)?,
            seconds: row.get(4)?,
            data_wait_seconds: row.get(5)?,
            images: count(row, 6)?,
            order: OrderId(row.get(7)?),
            attempt: row.get(8)?,
            reported_ms: count(row, 9)?,
            metrics: metrics.remove(&key).unwrap_or_default(),
        }));
    }
    Ok(tables)
}

fn metrics(connection: &Connection) -> Result<BTreeMap<(TrialNumber, Epoch), BTreeMap<String, f64>>, Fault> {
    let mut all: BTreeMap<_, BTreeMap<String, f64>> = BTreeMap::new();
    let mut statement = connection.prepare("SELECT trial, epoch, name, value FROM metric")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        all.entry((trial(row, 0)?, Epoch(row.get(1)?))).or_default().insert(row.get(2)?, row.get(3)?);
    }
    Ok(all)
}

/// All runs, in order.
pub(super) fn runs(connection: &Connection) -> Result<Vec<RunRow>, Fault> {
    let mut statement =
        connection.prepare("SELECT started_ms, seconds, ended, pid, host, workers, device FROM run ORDER BY run")?;
    let rows = statement.query_map([], |row| {
        Ok(RunRow {
            started_ms: count(row, 0)?,
            seconds: row.get(1)?,
            ended: optional_word(row, 2)?,
            pid: row.get(3)?,
            host: row.get(4)?,
            workers: row.get(5)?,
            device: row.get(6)?,
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// All files on record, and whether they are kept.
pub(super) fn files(connection: &Connection) -> Result<Vec<(FileRow, bool)>, Fault> {
    let mut statement =
        connection.prepare("SELECT path, digest, bytes, kind, trial, epoch, kept FROM file ORDER BY path")?;
    let rows = statement.query_map([], |row| Ok((file(row)?, row.get(6)?)))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn file(row: &SqlRow<'_>) -> rusqlite::Result<FileRow> {
    Ok(FileRow { file: file_ref(row)?, kind: word(row, 3)?, trial: trial(row, 4)?, epoch: Epoch(row.get(5)?) })
}

/// A file from the columns path, digest, bytes, which come first.
pub(super) fn file_ref(row: &SqlRow<'_>) -> rusqlite::Result<FileRef> {
    Ok(FileRef { path: row.get(0)?, digest: digest(row, 1)?, bytes: count(row, 2)? })
}

/// A column that holds a digest.
pub(super) fn digest(row: &SqlRow<'_>, column: usize) -> rusqlite::Result<Digest> {
    Digest::try_from(row.get::<_, String>(column)?).map_err(|e| misfit(column, e))
}

/// Whether there is a table of this name.
pub(super) fn has_table(connection: &Connection, name: &str) -> rusqlite::Result<bool> {
    let named = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?";
    connection.query_row(named, [name], |_| Ok(())).optional().map(|found| found.is_some())
}

fn trial(row: &SqlRow<'_>, column: usize) -> rusqlite::Result<TrialNumber> {
    row.get(column).map(TrialNumber)
}

fn count(row: &SqlRow<'_>, column: usize) -> rusqlite::Result<u64> {
    row.get::<_, i64>(column).map(|n| n as u64)
}

fn time(row: &SqlRow<'_>, column: usize) -> rusqlite::Result<Option<u64>> {
    row.get::<_, Option<i64>>(column).map(|ms| ms.map(|ms| ms as u64))
}

fn word<T: std::str::FromStr<Err = strum::ParseError>>(row: &SqlRow<'_>, column: usize) -> rusqlite::Result<T> {
    row.get_ref(column)?.as_str()?.parse().map_err(|e| misfit(column, e))
}

fn optional_word<T: std::str::FromStr<Err = strum::ParseError>>(
    row: &SqlRow<'_>,
    column: usize,
) -> rusqlite::Result<Option<T>> {
    let text = row.get_ref(column)?.as_str_or_null()?;
    text.map(|text| text.parse().map_err(|e| misfit(column, e))).transpose()
}

fn json(row: &SqlRow<'_>, column: usize) -> rusqlite::Result<Params> {
    serde_json::from_str(row.get_ref(column)?.as_str()?).map_err(|e| misfit(column, e))
}

pub(super) fn misfit(column: usize, error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::FromSqlConversionFailure(column, Type::Text, Box::new(error))
}
