//! Results of a study of Optuna.

use super::{WarmStartError, fit, scaled};
use crate::engine::WarmStart;
use crate::exchange::{OptunaState, OptunaStudy, OptunaTrial, replay};
use crate::ids::{Epoch, TrialNumber};
use crate::ledger::EarlierResult;
use crate::space::Params;
use crate::spec::StudySpec;
use crate::store::optuna_studies;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What a source begins with that is a file of Optuna.
pub(super) const PREFIX: &str = "optuna:";

/// What every SQLite database begins with.
const SQLITE: &[u8] = b"SQLite format 3\0";

/// The results of a study of Optuna in the file that `source` names: a journal, or a SQLite database.
pub(super) fn read(source: &str, base: &Path, spec: &StudySpec) -> Result<WarmStart, WarmStartError> {
    let (path, name) = place(source, base)?;
    let study = chosen(studies(&path)?, name, &path)?;
    same_objective(&study, spec)?;
    Ok(fitting(source, &study, spec))
}

/// The file, and the study in it if one is named: `optuna:FILE` or `optuna:FILE#STUDY`.
fn place<'a>(source: &'a str, base: &Path) -> Result<(PathBuf, Option<&'a str>), WarmStartError> {
    let given = source.strip_prefix(PREFIX).unwrap_or(source);
    let given = given.strip_prefix("sqlite:///").unwrap_or(given);
    let whole = base.join(given);
    if whole.is_file() {
        return Ok((whole, None));
    }
    let sought = match given.rsplit_once('#') {
        Some((file, name)) if base.join(file).is_file() => return Ok((base.join(file), Some(name))),
        Some((file, _)) => vec![whole, base.join(file)],
        None => vec![whole],
    };
    Err(WarmStartError::NoFile { source_name: source.to_owned(), sought })
}

fn studies(path: &Path) -> Result<Vec<OptunaStudy>, WarmStartError> {
    let bytes = std::fs::read(path).map_err(|source| WarmStartError::File { path: path.to_owned(), source })?;
    if bytes.starts_with(SQLITE) {
        return optuna_studies(path).map_err(|source| WarmStartError::Database { path: path.to_owned(), source });
    }
    let text = String::from_utf8_lossy(&bytes);
    replay(&text).map_err(|source| WarmStartError::Journal { path: path.to_owned(), source })
}

fn chosen(mut studies: Vec<OptunaStudy>, name: Option<&str>, path: &Path) -> Result<OptunaStudy, WarmStartError> {
    let known: Vec<String> = studies.iter().map(|study| format!("`{}`", study.name)).collect();
    let found = match name {
        Some(name) => studies.iter().position(|study| study.name == name),
        None => (studies.len() == 1).then_some(0),
    };
    match found {
        Some(i) => Ok(studies.swap_remove(i)),
        None => Err(WarmStartError::WhichStudy { path: path.to_owned(), known }),
    }
}

fn same_objective(study: &OptunaStudy, spec: &StudySpec) -> Result<(), WarmStartError> {
    let ours = &spec.objective;
    let [direction] = study.directions[..] else {
        return Err(WarmStartError::Objectives { study: study.name.clone(), n: study.directions.len() });
    };
    let differs = |what, theirs: String, ours: String| {
        if theirs == ours {
            return Ok(());
        }
        Err(WarmStartError::Objective { study: study.name.clone(), what, theirs, ours })
    };
    let direction = direction.map_or_else(|| "not set".to_owned(), |direction| direction.to_string());
    differs("direction", direction, ours.direction.to_string())?;
    study.metric().map_or(Ok(()), |theirs| differs("metric", theirs.to_owned(), ours.metric.to_string()))
}

/// The finished trials that have a value and whose configuration is in this study's space; the others are counted by
/// reason.
fn fitting(source: &str, study: &OptunaStudy, spec: &StudySpec) -> WarmStart {
    let full = full(study);
    let mut left_out = BTreeMap::new();
    let mut results = Vec::new();
    for (number, trial) in (0..).zip(&study.trials) {
        let fitted = result(trial, full).and_then(|(reports, value)| {
            let params = fit(&spec.space, &Params(trial.params.clone()))?;
            let epoch = scaled(Epoch(reports), full, spec.runner.epochs());
            Ok(EarlierResult { trial: TrialNumber(number), params, epoch, value })
        });
        match fitted {
            Ok(result) => results.push(result),
            Err(reason) => *left_out.entry(reason).or_insert(0) += 1,
        }
    }
    WarmStart { source: source.to_owned(), study: study.name.clone(), results, left_out }
}

/// How many reports of intermediate values make a complete trial: as many as the complete trial with the most made, and
/// more than any other trial made.
fn full(study: &OptunaStudy) -> u32 {
    let reports = study.trials.iter().map(|trial| {
        let n = u32::try_from(trial.reports.len()).unwrap_or(u32::MAX);
        if trial.state == OptunaState::Complete { n } else { n.saturating_add(1) }
    });
    reports.max().unwrap_or(0).max(1)
}

/// How many reports a trial's value stands for, and the value: its own, or its last intermediate one.
fn result(trial: &OptunaTrial, full: u32) -> Result<(u32, f64), String> {
    let own = trial.values.first().copied().flatten();
    let last = || trial.reports.values().next_back().copied().flatten();
    let (reports, value) = match trial.state {
        OptunaState::Fail => return Err("it failed".to_owned()),
        OptunaState::Running | OptunaState::Waiting => return Err("it is not finished".to_owned()),
        // An infinite result must not become the last report, which may be finite.
        OptunaState::Complete => (full, own),
        OptunaState::Pruned => (trial.reports.len() as u32, own.or_else(last)),
    };
    Ok((reports, value.filter(|v| v.is_finite()).ok_or("it has no finite value")?))
}
