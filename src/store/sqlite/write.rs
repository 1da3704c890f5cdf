//! Writing rows to SQL. Rows that change replace the one with their key; those that never change are inserted.

use super::Fault;
use crate::history::{Row, WorkerRow};
use crate::space::{Params, Value};
use crate::store::StoreError;
use rusqlite::types::ToSqlOutput;
use rusqlite::{Transaction, params};

/// A count as SQLite's signed integer.
fn int(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

/// Writes a row.
pub(super) fn put(t: &Transaction<'_>, row: &Row) -> Result<(), Fault> {
    match row {
        Row::Configuration(row) => {
            t.prepare_cached("INSERT INTO trial (trial, state, bracket, params) VALUES (?, 'waiting', 0, ?)")?
                .execute(params![row.trial.0, params_text(&row.params)?])?;
            let mut insert = t.prepare_cached("INSERT INTO trial_param (trial, name, value) VALUES (?, ?, ?)")?;
            for (name, value) in &row.params.0 {
                insert.execute(params![row.trial.0, name, sql(value)])?;
            }
        }
        Row::Trial(row) => {
            t.prepare_cached(
                "UPDATE trial SET state = ?, value = ?, epochs = ?, result = ?, result_epochs = ?, bracket = ?, rung = ?, \
                 seconds = ?, issued_ms = ?, finished_ms = ? WHERE trial = ?",
            )?
            .execute(params![
                row.state.as_ref(),
                row.value,
                row.epochs,
                row.result,
                row.result_epochs,
                row.bracket,
                row.rung,
                row.seconds,
                row.issued_ms.map(int),
                row.finished_ms.map(int),
                row.trial.0
            ])?;
        }
        Row::Order(row) => {
            t.prepare_cached(
                "INSERT OR REPLACE INTO work_order (work_order, trial, from_epoch, to_epoch, bracket, rung, outcome, \
                 at_epoch, value, finished_ms) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            )?
            .execute(params![
                row.order.0,
                row.trial.0,
                row.from.0,
                row.to.0,
                row.bracket,
                row.rung,
                row.outcome.as_ref().map(AsRef::as_ref),
                row.at.map(|at| at.0),
                row.value,
                row.finished_ms.map(int)
            ])?;
        }
        Row::Worker(WorkerRow { worker, greeting, ready_ms }) => {
            t.prepare_cached(
                "INSERT OR REPLACE INTO worker (worker, host, job, program, arithmetic, ready_ms) \
                 VALUES (?, ?, ?, ?, ?, ?)",
            )?
            .execute(params![
                worker,
                greeting.host,
                greeting.job,
                greeting.program,
                greeting.arithmetic,
                int(*ready_ms)
            ])?;
        }
        Row::Attempt(row) => {
            t.prepare_cached(
                "INSERT OR REPLACE INTO attempt (work_order, attempt, worker, started_ms, ended_ms, ended) \
                 VALUES (?, ?, ?, ?, ?, ?)",
            )?
            .execute(params![
                row.order.0,
                row.attempt,
                row.worker,
                int(row.started_ms),
                row.ended_ms.map(int),
                row.ended.as_ref().map(|ended| ended.name())
            ])?;
        }
        Row::Retrained { trial, from } => {
            for table in ["epoch", "metric"] {
                t.prepare_cached(&format!("DELETE FROM {table} WHERE trial = ? AND epoch >= ?"))?
                    .execute(params![trial.0, from.0])?;
            }
        }
        Row::Epoch(row) => {
            t.prepare_cached(
                "INSERT INTO epoch (trial, epoch, value, train_loss, seconds, data_wait_seconds, images, work_order, \
                 attempt, reported_ms) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            )?
            .execute(params![
                row.trial.0,
                row.epoch.0,
                row.value,
                row.train_loss,
                row.seconds,
                row.data_wait_seconds,
                int(row.images),
                row.order.0,
                row.attempt,
                int(row.reported_ms)
            ])?;
            let mut metric = t.prepare_cached("INSERT INTO metric (trial, epoch, name, value) VALUES (?, ?, ?, ?)")?;
            for (name, value) in &row.metrics {
                metric.execute(params![row.trial.0, row.epoch.0, name, value])?;
            }
        }
        Row::Failure(row) => {
            t.prepare_cached(
                "INSERT INTO failure (seq, trial, work_order, attempt, class, reason, final, at_ms) \
                 VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            )?
            .execute(params![
                int(row.seq),
                row.trial.0,
                row.order.0,
                row.attempt,
                row.class.as_ref(),
                row.reason,
                row.is_final,
                int(row.at_ms)
            ])?;
        }
        Row::File(row) => {
            t.prepare_cached(
                "INSERT OR REPLACE INTO file (path, kind, trial, epoch, digest, bytes, kept) VALUES (?, ?, ?, ?, ?, ?, 1)",
            )?
            .execute(params![
                row.file.path,
                row.kind.as_ref(),
                row.trial.0,
                row.epoch.0,
                row.file.digest.to_string(),
                int(row.file.bytes)
            ])?;
        }
        Row::Earlier(row) => {
            t.prepare_cached(
                "INSERT INTO earlier_result (seq, study, trial, epoch, value, params) VALUES (?, ?, ?, ?, ?, ?)",
            )?
            .execute(params![
                int(row.seq),
                row.study,
                row.trial.0,
                row.epoch.0,
                row.value,
                params_text(&row.params)?
            ])?;
        }
        Row::Enqueued(row) => {
            t.prepare_cached("INSERT INTO enqueued (seq, params, at_ms) VALUES (?, ?, ?)")?.execute(params![
                int(row.seq),
                params_text(&row.params)?,
                int(row.at_ms)
            ])?;
        }
    }
    Ok(())
}

/// Writes rows in their order.
pub(super) fn put_all(t: &Transaction<'_>, rows: &[Row]) -> Result<(), Fault> {
    rows.iter().try_for_each(|row| put(t, row))
}

fn params_text(params: &Params) -> Result<String, Fault> {
    let codec = |source| StoreError::Codec { what: "a new configuration".to_owned(), source };
    Ok(serde_json::to_string(params).map_err(codec)?)
}

fn sql(value: &Value) -> ToSqlOutput<'_> {
    match value {
        Value::Bool(b) => ToSqlOutput::from(*b),
        Value::Int(i) => ToSqlOutput::from(*i),
        Value::Float(x) => ToSqlOutput::from(*x),
        Value::Text(text) => ToSqlOutput::from(text.as_str()),
    }
}
