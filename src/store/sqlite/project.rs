//! The rows for people, written in the transaction of their event.

use super::Fault;
use crate::engine::{EpochReport, Event, FailureClass, FileRef, Outcome, TrialState, WorkOrder};
use crate::ids::{Epoch, OrderId};
use crate::space::{Params, Value};
use rusqlite::types::ToSqlOutput;
use rusqlite::{Transaction, params};

/// Writes what `event` (number `seq`) means; `full`: epochs of a whole trial.
pub(super) fn project(t: &Transaction<'_>, seq: u64, event: &Event, full: u32) -> Result<(), Fault> {
    match event {
        Event::OrderIssued { order } => order_issued(t, order),
        &Event::AttemptStarted { order, attempt, worker, unix_ms } => {
            t.prepare_cached(
                "INSERT OR REPLACE INTO attempt (work_order, attempt, worker, started_ms) VALUES (?, ?, ?, ?)",
            )?
            .execute(params![order.0, attempt, worker, unix_ms as i64])?;
            t.prepare_cached("UPDATE trial SET state = 'running', issued_ms = coalesce(issued_ms, ?) WHERE trial = (SELECT trial FROM work_order WHERE work_order = ?)")?
                .execute(params![unix_ms as i64, order.0])?;
            Ok(())
        }
        Event::EpochReported { order, attempt, report, unix_ms } => {
            epoch_reported(t, *order, *attempt, report, *unix_ms)
        }
        Event::AttemptLost { order, attempt, class, reason, unix_ms } => {
            let class = class_name(*class);
            let trial = trial_of(t, *order)?;
            t.prepare_cached("INSERT INTO failure (seq, trial, work_order, attempt, class, reason, final, at_ms) VALUES (?, ?, ?, ?, ?, ?, 0, ?)")?
                .execute(params![seq as i64, trial, order.0, attempt, class, reason, *unix_ms as i64])?;
            t.prepare_cached("UPDATE attempt SET ended = ?, ended_ms = ? WHERE work_order = ? AND attempt = ?")?
                .execute(params![class, *unix_ms as i64, order.0, attempt])?;
            t.prepare_cached("UPDATE trial SET state = 'waiting' WHERE trial = ?")?.execute([trial])?;
            Ok(())
        }
        Event::EarlierResults { warm, .. } => {
            let mut insert = t.prepare_cached(
                "INSERT INTO earlier_result (seq, study, trial, epoch, value, params) VALUES (?, ?, ?, ?, ?, ?)",
            )?;
            for result in &warm.results {
                let params = params_text(&result.params)?;
                insert.execute(params![
                    seq as i64,
                    warm.study,
                    result.trial.0,
                    result.epoch.0,
                    result.value,
                    params
                ])?;
            }
            Ok(())
        }
        Event::Enqueued { params, unix_ms } => {
            t.prepare_cached("INSERT INTO enqueued (seq, params, at_ms) VALUES (?, ?, ?)")?.execute(params![
                seq as i64,
                params_text(params)?,
                *unix_ms as i64
            ])?;
            Ok(())
        }
        Event::OrderFinished { order, outcome, unix_ms } => order_finished(t, seq, *order, outcome, *unix_ms, full),
    }
}

fn order_issued(t: &Transaction<'_>, order: &WorkOrder) -> Result<(), Fault> {
    let fresh = t
        .prepare_cached(
            "INSERT OR IGNORE INTO trial (trial, state, bracket, rung, params) VALUES (?, 'waiting', ?, ?, ?)",
        )?
        .execute(params![order.trial.0, order.bracket, order.rung, params_text(&order.params)?])?;
    if fresh == 1 {
        let mut insert = t.prepare_cached("INSERT INTO trial_param (trial, name, value) VALUES (?, ?, ?)")?;
        for (name, value) in &order.params.0 {
            insert.execute(params![order.trial.0, name, sql(value)])?;
        }
    } else {
        t.prepare_cached(
            "UPDATE trial SET state = 'waiting', rung = coalesce(?, rung), finished_ms = NULL WHERE trial = ?",
        )?
        .execute(params![order.rung, order.trial.0])?;
    }
    t.prepare_cached(
        "INSERT INTO work_order (work_order, trial, from_epoch, to_epoch, bracket, rung) VALUES (?, ?, ?, ?, ?, ?)",
    )?
    .execute(params![order.order.0, order.trial.0, order.from.0, order.to.0, order.bracket, order.rung])?;
    Ok(())
}

fn epoch_reported(
    t: &Transaction<'_>,
    order: OrderId,
    attempt: u32,
    report: &EpochReport,
    unix_ms: u64,
) -> Result<(), Fault> {
    let trial = trial_of(t, order)?;
    let epoch = report.epoch;
    // An epoch trained again (its checkpoint was damaged) takes the place of its first report, and of what followed it.
    let known: u32 =
        t.prepare_cached("SELECT epochs FROM trial WHERE trial = ?")?.query_row([trial], |row| row.get(0))?;
    if epoch.0 <= known {
        t.prepare_cached("DELETE FROM epoch WHERE trial = ? AND epoch >= ?")?.execute(params![trial, epoch.0])?;
        t.prepare_cached("DELETE FROM metric WHERE trial = ? AND epoch >= ?")?.execute(params![trial, epoch.0])?;
    }
    t.prepare_cached("INSERT INTO epoch (trial, epoch, value, train_loss, seconds, data_wait_seconds, images, work_order, attempt, reported_ms) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)")?
        .execute(params![
            trial,
            epoch.0,
            report.value,
            report.train_loss,
            report.seconds,
            report.data_wait_seconds,
            i64::try_from(report.images).unwrap_or(i64::MAX),
            order.0,
            attempt,
            unix_ms as i64
        ])?;
    let mut metric = t.prepare_cached("INSERT INTO metric (trial, epoch, name, value) VALUES (?, ?, ?, ?)")?;
    for (name, value) in report.metrics.iter().filter(|(_, value)| !value.is_nan()) {
        metric.execute(params![trial, epoch.0, name, value])?;
    }
    for (kind, file) in [("checkpoint", &report.checkpoint), ("predictions", &report.predictions)] {
        if let Some(file) = file {
            keep_file(t, kind, trial, epoch, file)?;
        }
    }
    t.prepare_cached("UPDATE trial SET seconds = seconds + ?, value = ?, epochs = ? WHERE trial = ?")?
        .execute(params![report.seconds, report.value, epoch.0, trial])?;
    Ok(())
}

fn keep_file(t: &Transaction<'_>, kind: &str, trial: i64, epoch: Epoch, file: &FileRef) -> Result<(), Fault> {
    t.prepare_cached(
        "INSERT OR REPLACE INTO file (path, kind, trial, epoch, digest, bytes, kept) VALUES (?, ?, ?, ?, ?, ?, 1)",
    )?
    .execute(params![
        file.path,
        kind,
        trial,
        epoch.0,
        file.digest.to_string(),
        i64::try_from(file.bytes).unwrap_or(i64::MAX)
    ])?;
    Ok(())
}

fn order_finished(
    t: &Transaction<'_>,
    seq: u64,
    order: OrderId,
    outcome: &Outcome,
    unix_ms: u64,
    full: u32,
) -> Result<(), Fault> {
    let at_ms = unix_ms as i64;
    let trial = trial_of(t, order)?;
    let mut finish = t.prepare_cached("UPDATE work_order SET outcome = ?, at_epoch = coalesce(?, to_epoch), value = ?, finished_ms = ? WHERE work_order = ?")?;
    let state = match outcome {
        Outcome::Reached { value } => {
            finish.execute(params!["reached", None::<u32>, value, at_ms, order.0])?;
            let to: u32 = t
                .prepare_cached("SELECT to_epoch FROM work_order WHERE work_order = ?")?
                .query_row([order.0], |row| row.get(0))?;
            if to >= full { "complete" } else { "paused" }
        }
        Outcome::Stopped { at, value } => {
            finish.execute(params!["stopped", at.0, value, at_ms, order.0])?;
            "stopped"
        }
        Outcome::Failed { class, reason } => {
            let epochs: u32 =
                t.prepare_cached("SELECT epochs FROM trial WHERE trial = ?")?.query_row([trial], |r| r.get(0))?;
            finish.execute(params!["failed", epochs, None::<f64>, at_ms, order.0])?;
            t.prepare_cached("INSERT INTO failure (seq, trial, work_order, attempt, class, reason, final, at_ms) VALUES (?, ?, ?, (SELECT max(attempt) FROM attempt WHERE work_order = ?), ?, ?, 1, ?)")?
                .execute(params![seq as i64, trial, order.0, order.0, class_name(*class), reason, at_ms])?;
            t.prepare_cached("UPDATE trial SET value = NULL WHERE trial = ?")?.execute([trial])?;
            "failed"
        }
    };
    t.prepare_cached("UPDATE trial SET state = ?, finished_ms = ? WHERE trial = ?")?
        .execute(params![state, at_ms, trial])?;
    t.prepare_cached("UPDATE attempt SET ended = 'done', ended_ms = ? WHERE work_order = ? AND ended IS NULL")?
        .execute(params![at_ms, order.0])?;
    Ok(())
}

fn trial_of(t: &Transaction<'_>, order: OrderId) -> Result<i64, Fault> {
    Ok(t.prepare_cached("SELECT trial FROM work_order WHERE work_order = ?")?.query_row([order.0], |row| row.get(0))?)
}

fn params_text(params: &Params) -> Result<String, Fault> {
    Ok(serde_json::to_string(params)
        .map_err(|source| super::StoreError::Codec { what: "a new configuration".to_owned(), source })?)
}

fn sql(value: &Value) -> ToSqlOutput<'_> {
    match value {
        Value::Bool(b) => ToSqlOutput::from(*b),
        Value::Int(i) => ToSqlOutput::from(*i),
        Value::Float(x) => ToSqlOutput::from(*x),
        Value::Text(text) => ToSqlOutput::from(text.as_str()),
    }
}

/// The class as the tables have it, equal to its name in JSON.
pub(super) fn class_name(class: FailureClass) -> &'static str {
    match class {
        FailureClass::Oom => "oom",
        FailureClass::Diverged => "diverged",
        FailureClass::Timeout => "timeout",
        FailureClass::Crashed => "crashed",
        FailureClass::Lost => "lost",
        FailureClass::BadInput => "bad_input",
    }
}

/// The state as the tables have it.
pub(super) fn state_name(state: TrialState) -> &'static str {
    match state {
        TrialState::Waiting => "waiting",
        TrialState::Running => "running",
        TrialState::Paused => "paused",
        TrialState::Complete => "complete",
        TrialState::Stopped => "stopped",
        TrialState::Failed => "failed",
    }
}
