//! Reading a database of Optuna (`RDBStorage`, schema 12: Optuna 3 to 5).

use super::{BUSY, Fault, read::misfit};
use crate::exchange::{METRIC_NAMES, OptunaState, OptunaStudy, OptunaTrial, parameter};
use crate::spec::Direction;
use crate::store::StoreError;
use rusqlite::{Connection, OpenFlags, Params, Row};
use std::collections::BTreeMap;
use std::path::Path;

/// The studies in a database, oldest first.
pub(in crate::store) fn optuna_studies(path: &Path) -> Result<Vec<OptunaStudy>, StoreError> {
    let read = || -> Result<_, Fault> {
        let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        connection.busy_timeout(BUSY)?;
        let snapshot = connection.unchecked_transaction()?;
        let studies = rows(&snapshot, "SELECT study_id, study_name FROM studies ORDER BY study_id", [], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?))
        })?;
        studies.into_iter().map(|(id, name)| study(&snapshot, id, name)).collect()
    };
    read().map_err(|e: Fault| e.at(path))
}

fn rows<T>(
    connection: &Connection,
    sql: &str,
    params: impl Params,
    each: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
) -> Result<Vec<T>, Fault> {
    let mut statement = connection.prepare_cached(sql)?;
    let rows = statement.query_map(params, each)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn study(connection: &Connection, id: i64, name: String) -> Result<OptunaStudy, Fault> {
    let directions = rows(
        connection,
        "SELECT direction FROM study_directions WHERE study_id = ? ORDER BY objective",
        [id],
        |row| {
            Ok(match row.get_ref(0)?.as_str()? {
                "MINIMIZE" => Some(Direction::Minimize),
                "MAXIMIZE" => Some(Direction::Maximize),
                _ => None,
            })
        },
    )?;
    let attributes = |table: &str| {
        let sql = format!("SELECT key, value_json FROM {table} WHERE study_id = ?");
        rows(connection, &sql, [id], |row| {
            let value = serde_json::from_str(row.get_ref(1)?.as_str()?).map_err(|e| misfit(1, e))?;
            Ok((row.get::<_, String>(0)?, value))
        })
    };
    let system: BTreeMap<String, serde_json::Value> = attributes("study_system_attributes")?.into_iter().collect();
    let metric_names = system.get(METRIC_NAMES).and_then(|names| serde_json::from_value(names.clone()).ok());
    let mut trials = Vec::new();
    let ids =
        rows(connection, "SELECT trial_id, state FROM trials WHERE study_id = ? ORDER BY trial_id", [id], |row| {
            let state: OptunaState = row.get_ref(1)?.as_str()?.parse().map_err(|e| misfit(1, e))?;
            Ok((row.get::<_, i64>(0)?, state))
        })?;
    for (id, state) in ids {
        trials.push(trial(connection, id, state)?);
    }
    Ok(OptunaStudy {
        name,
        directions,
        user_attributes: attributes("study_user_attributes")?.into_iter().collect(),
        metric_names: metric_names.unwrap_or_default(),
        trials,
    })
}

fn trial(connection: &Connection, id: i64, state: OptunaState) -> Result<OptunaTrial, Fault> {
    // Numbers that are not finite are NULL, with their kind in another column.
    let values = "SELECT value FROM trial_values WHERE trial_id = ? ORDER BY objective";
    let params = "SELECT param_name, param_value, distribution_json FROM trial_params WHERE trial_id = ?";
    let reports = "SELECT step, intermediate_value FROM trial_intermediate_values WHERE trial_id = ?";
    Ok(OptunaTrial {
        state,
        values: rows(connection, values, [id], |row| row.get(0))?,
        params: rows(connection, params, [id], |row| {
            let value = parameter(row.get(1)?, row.get_ref(2)?.as_str()?);
            Ok((row.get(0)?, value.map_err(|reason| misfit(2, Misfit(reason)))?))
        })?
        .into_iter()
        .collect(),
        reports: rows(connection, reports, [id], |row| Ok((row.get(0)?, row.get(1)?)))?.into_iter().collect(),
    })
}

/// What is wrong with a distribution.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Misfit(String);
