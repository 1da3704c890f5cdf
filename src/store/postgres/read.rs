//! Reading rows.

use super::Fault;
use crate::digest::Digest;
use crate::engine::{Event, FileRef, Greeting};
use crate::history::{
    AttemptRow, ConfigurationRow, EarlierRow, EnqueuedRow, EpochRow, FailureRow, FileRow, OrderRow, Row, Tables,
    TrialRow, WorkerRow,
};
use crate::ids::{Epoch, OrderId, TrialNumber};
use crate::space::Params;
use crate::spec::StudySpec;
use crate::store::{Chosen, ImagesOnRecord, OpenedMean, OpenedTrial, Opening, RunRow, codec};
use postgres::fallible_iterator::FallibleIterator;
use postgres::{GenericClient, types::FromSql};
use std::collections::BTreeMap;
use std::str::FromStr;

/// A row's columns as the types of this program.
struct Columns(postgres::Row);

impl Columns {
    fn get<'a, T: FromSql<'a>>(&'a self, column: usize) -> Result<T, Fault> {
        Ok(self.0.try_get(column)?)
    }

    fn int<T: TryFrom<i64, Error: std::error::Error + Send + Sync + 'static>>(
        &self,
        column: usize,
    ) -> Result<T, Fault> {
        T::try_from(self.get::<i64>(column)?).map_err(|e| Fault::Misfit(e.into()))
    }

    fn optional_int<T>(&self, column: usize) -> Result<Option<T>, Fault>
    where
        T: TryFrom<i64, Error: std::error::Error + Send + Sync + 'static>,
    {
        self.get::<Option<i64>>(column)?.map(|n| T::try_from(n).map_err(|e| Fault::Misfit(e.into()))).transpose()
    }

    fn trial(&self, column: usize) -> Result<TrialNumber, Fault> {
        self.int(column).map(TrialNumber)
    }

    fn word<T: FromStr<Err = strum::ParseError>>(&self, column: usize) -> Result<T, Fault> {
        self.get::<&str>(column)?.parse().map_err(|e: strum::ParseError| Fault::Misfit(e.into()))
    }

    fn optional_word<T: FromStr<Err = strum::ParseError>>(&self, column: usize) -> Result<Option<T>, Fault> {
        let text = self.get::<Option<&str>>(column)?;
        text.map(|text| text.parse().map_err(|e: strum::ParseError| Fault::Misfit(e.into()))).transpose()
    }

    fn params(&self, column: usize) -> Result<Params, Fault> {
        serde_json::from_str(self.get(column)?).map_err(|e| Fault::Misfit(e.into()))
    }

    fn digest(&self, column: usize) -> Result<Digest, Fault> {
        Digest::try_from(self.get::<String>(column)?).map_err(|e| Fault::Misfit(e.into()))
    }

    /// From the columns path, digest, bytes, which come first.
    fn file_ref(&self) -> Result<FileRef, Fault> {
        Ok(FileRef { path: self.get(0)?, digest: self.digest(1)?, bytes: self.int(2)? })
    }

    /// [`Columns::file_ref`], then kind, trial, epoch.
    fn file(&self) -> Result<FileRow, Fault> {
        Ok(FileRow { file: self.file_ref()?, kind: self.word(3)?, trial: self.trial(4)?, epoch: Epoch(self.int(5)?) })
    }
}

/// Calls `each` with the rows that `sql` finds of a study, its only parameter, as they come.
fn rows(
    client: &mut impl GenericClient,
    sql: &str,
    study: i64,
    each: &mut dyn FnMut(Columns) -> Result<(), Fault>,
) -> Result<(), Fault> {
    let mut rows = client.query_raw(sql, [study])?;
    while let Some(row) = rows.next()? {
        each(Columns(row))?;
    }
    Ok(())
}

fn first<T>(
    client: &mut impl GenericClient,
    sql: &str,
    study: i64,
    map: impl Fn(Columns) -> Result<T, Fault>,
) -> Result<Option<T>, Fault> {
    client.query_opt(sql, &[&study])?.map(|row| map(Columns(row))).transpose()
}

/// The number and the specification of a study, if there is one.
pub(super) fn study(client: &mut impl GenericClient, name: &str) -> Result<Option<(i64, StudySpec)>, Fault> {
    let row = client.query_opt("SELECT study, spec FROM hpsearch.study WHERE name = $1", &[&name])?;
    row.map(|row| Ok((row.try_get(0)?, codec::spec(row.try_get(1)?)?))).transpose()
}

/// How many events there are.
pub(super) fn len(client: &mut impl GenericClient, study: i64) -> Result<u64, Fault> {
    let len = "SELECT coalesce(max(seq), 0) FROM hpsearch.event WHERE study = $1";
    Columns(client.query_one(len, &[&study])?).int(0)
}

/// Calls `each` with the events after the first `after` ones, which it counts on.
pub(super) fn events(
    client: &mut impl GenericClient,
    study: i64,
    after: &mut u64,
    each: &mut dyn FnMut(Event),
) -> Result<(), Fault> {
    let from = i64::try_from(*after).unwrap_or(i64::MAX);
    let sql = "SELECT seq, kind, body FROM hpsearch.event WHERE study = $1 AND seq > $2 ORDER BY seq";
    let mut rows = client.query_raw(sql, [study, from])?;
    while let Some(row) = rows.next()? {
        let row = Columns(row);
        let seq = row.int(0)?;
        each(codec::decode(seq, row.get(1)?, row.get(2)?)?);
        *after = seq;
    }
    Ok(())
}

/// The rows of a study; in outline: without files and metrics of epochs. The caller holds a transaction, so that they are of
/// one snapshot.
pub(super) fn tables(client: &mut impl GenericClient, study: i64, outline: bool) -> Result<Tables, Fault> {
    let mut tables = Tables::default();
    let mut read = |sql: &str, map: &dyn Fn(&Columns) -> Result<Row, Fault>| {
        rows(client, sql, study, &mut |row| {
            tables.put(map(&row)?);
            Ok(())
        })
    };
    read("SELECT trial, params FROM hpsearch.trial WHERE study = $1", &|row| {
        Ok(Row::Configuration(ConfigurationRow { trial: row.trial(0)?, params: row.params(1)? }))
    })?;
    read(
        "SELECT trial, state, value, epochs, result, result_epochs, bracket, rung, seconds, issued_ms, finished_ms \
         FROM hpsearch.trial WHERE study = $1",
        &|row| {
            Ok(Row::Trial(TrialRow {
                trial: row.trial(0)?,
                state: row.word(1)?,
                value: row.get(2)?,
                epochs: row.int(3)?,
                result: row.get(4)?,
                result_epochs: row.int(5)?,
                bracket: row.int(6)?,
                rung: row.optional_int(7)?,
                seconds: row.get(8)?,
                issued_ms: row.optional_int(9)?,
                finished_ms: row.optional_int(10)?,
            }))
        },
    )?;
    read(
        "SELECT work_order, trial, from_epoch, to_epoch, bracket, rung, outcome, at_epoch, value, finished_ms \
         FROM hpsearch.work_order WHERE study = $1",
        &|row| {
            Ok(Row::Order(OrderRow {
                order: OrderId(row.int(0)?),
                trial: row.trial(1)?,
                from: Epoch(row.int(2)?),
                to: Epoch(row.int(3)?),
                bracket: row.int(4)?,
                rung: row.optional_int(5)?,
                outcome: row.optional_word(6)?,
                at: row.optional_int(7)?.map(Epoch),
                value: row.get(8)?,
                finished_ms: row.optional_int(9)?,
            }))
        },
    )?;
    read(
        "SELECT work_order, attempt, worker, started_ms, ended_ms, ended FROM hpsearch.attempt WHERE study = $1",
        &|row| {
            Ok(Row::Attempt(AttemptRow {
                order: OrderId(row.int(0)?),
                attempt: row.int(1)?,
                worker: row.int(2)?,
                started_ms: row.int(3)?,
                ended_ms: row.optional_int(4)?,
                ended: row.optional_word(5)?,
            }))
        },
    )?;
    read("SELECT worker, host, job, program, arithmetic, ready_ms FROM hpsearch.worker WHERE study = $1", &|row| {
        let greeting = Greeting { host: row.get(1)?, job: row.get(2)?, program: row.get(3)?, arithmetic: row.get(4)? };
        Ok(Row::Worker(WorkerRow { worker: row.int(0)?, greeting, ready_ms: row.int(5)? }))
    })?;
    read(
        "SELECT seq, trial, work_order, attempt, class, reason, final, at_ms FROM hpsearch.failure WHERE study = $1",
        &|row| {
            Ok(Row::Failure(FailureRow {
                seq: row.int(0)?,
                trial: row.trial(1)?,
                order: OrderId(row.int(2)?),
                attempt: row.optional_int(3)?,
                class: row.word(4)?,
                reason: row.get(5)?,
                is_final: row.get(6)?,
                at_ms: row.int(7)?,
            }))
        },
    )?;
    if !outline {
        read("SELECT path, digest, bytes, kind, trial, epoch FROM hpsearch.file WHERE study = $1", &|row| {
            Ok(Row::File(row.file()?))
        })?;
    }
    read("SELECT seq, earlier, trial, epoch, value, params FROM hpsearch.earlier_result WHERE study = $1", &|row| {
        Ok(Row::Earlier(EarlierRow {
            seq: row.int(0)?,
            study: row.get(1)?,
            trial: row.trial(2)?,
            epoch: Epoch(row.int(3)?),
            value: row.get(4)?,
            params: row.params(5)?,
        }))
    })?;
    read("SELECT seq, params, at_ms FROM hpsearch.enqueued WHERE study = $1", &|row| {
        Ok(Row::Enqueued(EnqueuedRow { seq: row.int(0)?, params: row.params(1)?, at_ms: row.int(2)? }))
    })?;
    let mut metrics: BTreeMap<_, BTreeMap<String, f64>> = BTreeMap::new();
    if !outline {
        rows(client, "SELECT trial, epoch, name, value FROM hpsearch.metric WHERE study = $1", study, &mut |row| {
            let epoch = (row.trial(0)?, Epoch(row.int(1)?));
            metrics.entry(epoch).or_default().insert(row.get(2)?, row.get(3)?);
            Ok(())
        })?;
    }
    rows(
        client,
        "SELECT trial, epoch, value, train_loss, seconds, data_wait_seconds, images, work_order, attempt, reported_ms \
         FROM hpsearch.epoch WHERE study = $1",
        study,
        &mut |row| {
            let key = (row.trial(0)?, Epoch(row.int(1)?));
            tables.put(Row::Epoch(EpochRow {
                trial: key.0,
                epoch: key.1,
                value: row.get(2)?,
                train_loss: row.get(3)?,
                seconds: row.get(4)?,
                data_wait_seconds: row.get(5)?,
                images: row.int(6)?,
                order: OrderId(row.int(7)?),
                attempt: row.int(8)?,
                reported_ms: row.int(9)?,
                metrics: metrics.remove(&key).unwrap_or_default(),
            }));
            Ok(())
        },
    )?;
    Ok(tables)
}

/// All runs, in order.
pub(super) fn runs(client: &mut impl GenericClient, study: i64) -> Result<Vec<RunRow>, Fault> {
    let sql =
        "SELECT started_ms, seconds, ended, pid, host, workers, device FROM hpsearch.run WHERE study = $1 ORDER BY run";
    let mut runs = Vec::new();
    rows(client, sql, study, &mut |row| {
        runs.push(RunRow {
            started_ms: row.int(0)?,
            seconds: row.get(1)?,
            ended: row.optional_word(2)?,
            pid: row.int(3)?,
            host: row.get(4)?,
            workers: row.int(5)?,
            device: row.get(6)?,
        });
        Ok(())
    })?;
    Ok(runs)
}

/// All files on record by path, and whether they are kept.
pub(super) fn files(client: &mut impl GenericClient, study: i64) -> Result<Vec<(FileRow, bool)>, Fault> {
    let sql = "SELECT path, digest, bytes, kind, trial, epoch, kept FROM hpsearch.file WHERE study = $1 \
               ORDER BY path COLLATE \"C\"";
    let mut files = Vec::new();
    rows(client, sql, study, &mut |row| {
        files.push((row.file()?, row.get(6)?));
        Ok(())
    })?;
    Ok(files)
}

/// The images of a study, if they are on record.
pub(super) fn images(client: &mut impl GenericClient, study: i64) -> Result<Option<ImagesOnRecord>, Fault> {
    first(client, "SELECT folder, digest, summary FROM hpsearch.images WHERE study = $1", study, |row| {
        Ok(ImagesOnRecord { folder: row.get::<String>(0)?.into(), digest: row.digest(1)?, summary: row.get(2)? })
    })
}

/// The opening of the test images, if it has happened.
pub(super) fn opening(client: &mut impl GenericClient, study: i64) -> Result<Option<Opening>, Fault> {
    let head =
        first(client, "SELECT opened_ms, unfinished FROM hpsearch.test_opening WHERE study = $1", study, |row| {
            Ok((row.int(0)?, row.get(1)?))
        })?;
    let Some((unix_ms, unfinished)) = head else { return Ok(None) };
    let mut results = Vec::new();
    let sql = "SELECT path, digest, bytes, trial, threshold FROM hpsearch.test_result WHERE study = $1 ORDER BY place";
    rows(client, sql, study, &mut |row| {
        results.push(OpenedTrial { trial: row.trial(3)?, threshold: row.get(4)?, predictions: row.file_ref()? });
        Ok(())
    })?;
    let mean = first(client, "SELECT threshold FROM hpsearch.test_mean WHERE study = $1", study, |row| {
        Ok(OpenedMean { threshold: row.get(0)? })
    })?;
    let mut chosen = Vec::new();
    // A server that no run of this version has reached lacks it.
    if client.query_one("SELECT to_regclass('hpsearch.test_choice') IS NOT NULL", &[])?.try_get(0)? {
        let sql = "SELECT trial, epoch, threshold FROM hpsearch.test_choice WHERE study = $1 ORDER BY place";
        rows(client, sql, study, &mut |row| {
            chosen.push(Chosen { trial: row.trial(0)?, epoch: row.int(1).map(Epoch)?, threshold: row.get(2)? });
            Ok(())
        })?;
    }
    Ok(Some(Opening { unix_ms, unfinished, chosen, mean, results }))
}
