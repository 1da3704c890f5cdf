//! The format of the database: creation, and migration from older formats.

use super::{Fault, read, write};
use crate::history::History;
use crate::spec::StudySpec;
use crate::store::{RunEnd, StoreError, codec};
use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};
use std::path::Path;

/// The format this program writes, kept in `PRAGMA user_version`.
///
/// - 1: rows were written event by event; a trial not promoted from its rung stayed `paused` until the run ended.
/// - 2: rows are those of [`History`]; `trial` has `result` and `result_epochs`.
/// - 3: `ranking` goes by the latest epoch.
/// - 4: `worker`, and its event `worker_ready`.
/// - 5: the event `weights_identified`.
pub const FORMAT_VERSION: i64 = 5;

/// `PRAGMA application_id`: `hpse` in ASCII. It identifies a study database, also to `file(1)`.
const APPLICATION_ID: i64 = 0x6870_7365;

/// Tables of the study, its events and its runs.
const TRUTH: &str = include_str!("truth.sql");
/// Tables derived from events, which are rebuilt for an older database.
const ROWS: &str = include_str!("rows.sql");

/// Creates the database of a study without events.
pub(super) fn draft(path: &Path, spec: &StudySpec) -> Result<(), Fault> {
    let mut connection = Connection::open(path)?;
    let transaction = connection.transaction()?;
    transaction.execute_batch(TRUTH)?;
    transaction.execute_batch(ROWS)?;
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.pragma_update(None, "user_version", FORMAT_VERSION)?;
    transaction.execute(
        "INSERT INTO study (name, seed, metric, direction, epochs, spec, program, created_ms) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        params![
            spec.name,
            spec.seed.to_string(),
            spec.objective.metric.to_string(),
            spec.objective.direction.to_string(),
            spec.runner.epochs(),
            codec::spec_text(spec)?,
            env!("CARGO_PKG_VERSION"),
            crate::clock::unix_ms() as i64
        ],
    )?;
    transaction.commit()?;
    connection.close().map_err(|(_, e)| e)?;
    Ok(())
}

pub(super) fn stored_spec(connection: &Connection) -> Result<StudySpec, Fault> {
    let text: String = connection.query_row("SELECT spec FROM study", [], |row| row.get(0))?;
    Ok(codec::spec(&text)?)
}

/// The format of a database; an error if it is not a study database, or of a later format.
pub(super) fn check(connection: &Connection, path: &Path) -> Result<i64, Fault> {
    let pragma = |name: &str| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).optional();
    let version = pragma("user_version")?.unwrap_or(0);
    if pragma("application_id")? != Some(APPLICATION_ID) || version < 1 {
        return Err(Fault::Store(StoreError::NotAStudy(path.display().to_string())));
    }
    if version > FORMAT_VERSION {
        return Err(Fault::Store(StoreError::Newer { found: version, known: FORMAT_VERSION }));
    }
    Ok(version)
}

/// Replays the events of a database of any format, and calls `each` with the rows; attempts that were open when its
/// last run recorded its end are interrupted.
pub(super) fn replay(
    connection: &Connection,
    path: &Path,
    each: &mut dyn FnMut(crate::history::Row) -> Result<(), Fault>,
) -> Result<(), Fault> {
    let mut history = History::new(&stored_spec(connection)?);
    let (mut rows, mut fault) = (Vec::new(), None);
    read::events(connection, 0, &mut |event| {
        if fault.is_none() {
            let applied = history
                .apply(&event, &mut rows)
                .map_err(|source| Fault::Store(StoreError::Inconsistent { place: path.display().to_string(), source }));
            fault = applied.and_then(|()| rows.drain(..).try_for_each(&mut *each)).err();
        }
    })?;
    if let Some(fault) = fault {
        return Err(fault);
    }
    if let Some(run) = read::runs(connection)?.last()
        && run.ended.is_some_and(|end| end != RunEnd::Killed)
    {
        history.interrupt(run.started_ms + (run.seconds * 1000.0) as u64, &mut rows);
        rows.drain(..).try_for_each(each)?;
    }
    Ok(())
}

/// Migrates an older database to the current format in one transaction: its rows are rebuilt from its events.
pub(super) fn migrate(connection: &mut Connection, path: &Path) -> Result<(), Fault> {
    // Rows of test results refer to trials, whose table is rebuilt with the same numbers.
    connection.pragma_update(None, "foreign_keys", false)?;
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let forgotten: Vec<String> =
        read::files(&transaction)?.into_iter().filter(|(_, kept)| !kept).map(|(row, _)| row.file.path).collect();
    drop_rows(&transaction)?;
    transaction.execute_batch(ROWS)?;
    replay(&transaction, path, &mut |row| write::put(&transaction, &row))?;
    for path in forgotten {
        transaction.execute("UPDATE file SET kept = 0 WHERE path = ?", [path])?;
    }
    transaction.pragma_update(None, "user_version", FORMAT_VERSION)?;
    transaction.commit()?;
    connection.pragma_update(None, "foreign_keys", true)?;
    Ok(())
}

fn drop_rows(transaction: &Transaction<'_>) -> Result<(), Fault> {
    for view in ["ranking", "learning_curve", "final_metric"] {
        transaction.execute_batch(&format!("DROP VIEW IF EXISTS {view}"))?;
    }
    let tables = [
        "file",
        "enqueued",
        "earlier_result",
        "failure",
        "metric",
        "epoch",
        "worker",
        "attempt",
        "work_order",
        "trial_param",
        "trial",
    ];
    for table in tables {
        transaction.execute_batch(&format!("DROP TABLE IF EXISTS {table}"))?;
    }
    Ok(())
}
