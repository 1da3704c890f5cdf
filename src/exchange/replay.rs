//! Reading a journal file of Optuna: its operations, replayed as `JournalStorage` does.

use super::optuna::{METRIC_NAMES, OptunaState, OptunaStudy, OptunaTrial, parameter};
use crate::spec::Direction;
use serde::Deserialize;
use std::borrow::Cow;
use std::collections::BTreeMap;

/// Numbers of operations.
pub(super) mod operation {
    pub const CREATE_STUDY: u8 = 0;
    pub const DELETE_STUDY: u8 = 1;
    pub const SET_STUDY_USER_ATTR: u8 = 2;
    pub const SET_STUDY_SYSTEM_ATTR: u8 = 3;
    pub const CREATE_TRIAL: u8 = 4;
    pub const SET_TRIAL_PARAM: u8 = 5;
    pub const SET_TRIAL_STATE_VALUES: u8 = 6;
    pub const SET_TRIAL_INTERMEDIATE_VALUE: u8 = 7;
}

/// Why a journal cannot be read.
#[derive(Debug, PartialEq, thiserror::Error)]
#[error("line {line} of the journal: {reason}\nhint: a journal file is what Optuna's `JournalFileBackend` writes")]
pub struct JournalError {
    /// From 1.
    pub line: usize,
    /// What is wrong with it.
    pub reason: String,
}

/// An operation; each has some of these fields.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Record {
    op_code: Option<u8>,
    study_name: Option<String>,
    directions: Vec<u8>,
    study_id: Option<usize>,
    user_attr: BTreeMap<String, serde_json::Value>,
    system_attr: BTreeMap<String, serde_json::Value>,
    trial_id: Option<usize>,
    state: Option<u8>,
    value: Option<f64>,
    values: Option<Vec<Option<f64>>>,
    distributions: BTreeMap<String, String>,
    params: BTreeMap<String, f64>,
    intermediate_values: BTreeMap<i64, Option<f64>>,
    param_name: Option<String>,
    param_value_internal: Option<f64>,
    distribution: Option<String>,
    step: Option<i64>,
    intermediate_value: Option<f64>,
}

/// The studies in a journal, oldest first, without those that were deleted. A last line without its end, which a
/// process is writing or was killed over, counts for nothing, as in Optuna.
///
/// # Errors
/// If a line is no operation of a journal.
pub fn replay(journal: &str) -> Result<Vec<OptunaStudy>, JournalError> {
    let mut replayed = Replayed::default();
    for (i, line) in journal.split_inclusive('\n').filter(|line| line.ends_with('\n')).enumerate() {
        let wrong = |reason| JournalError { line: i + 1, reason };
        let record: Record = serde_json::from_str(&without_nan(line)).map_err(|e| wrong(format!("{e}")))?;
        replayed.apply(record).map_err(wrong)?;
    }
    let Replayed { mut studies, trials, .. } = replayed;
    for (study, trial) in trials {
        if let Some(study) = &mut studies[study] {
            study.trials.push(trial);
        }
    }
    Ok(studies.into_iter().flatten().collect())
}

#[derive(Default)]
struct Replayed {
    /// By id; `None`: deleted.
    studies: Vec<Option<OptunaStudy>>,
    /// By id, with the id of their study.
    trials: Vec<(usize, OptunaTrial)>,
}

impl Replayed {
    fn apply(&mut self, record: Record) -> Result<(), String> {
        match record.op_code.ok_or("it has no `op_code`")? {
            operation::CREATE_STUDY => self.create_study(record),
            operation::CREATE_TRIAL => self.create_trial(record),
            operation::DELETE_STUDY => {
                if let Some(study) = record.study_id.and_then(|id| self.studies.get_mut(id)) {
                    *study = None;
                }
                Ok(())
            }
            operation::SET_STUDY_USER_ATTR => {
                if let Some(study) = self.study(&record) {
                    study.user_attributes.extend(record.user_attr);
                }
                Ok(())
            }
            operation::SET_STUDY_SYSTEM_ATTR => {
                if let (Some(study), Some(names)) = (self.study(&record), record.system_attr.get(METRIC_NAMES)) {
                    study.metric_names = Vec::deserialize(names).map_err(|e| format!("`{METRIC_NAMES}`: {e}"))?;
                }
                Ok(())
            }
            operation::SET_TRIAL_PARAM
            | operation::SET_TRIAL_STATE_VALUES
            | operation::SET_TRIAL_INTERMEDIATE_VALUE => self.change_trial(record),
            // Attributes of trials, and trials that other storages no longer keep.
            8..=10 => Ok(()),
            unknown => Err(format!("no operation has the number {unknown}")),
        }
    }

    fn study(&mut self, record: &Record) -> Option<&mut OptunaStudy> {
        self.studies.get_mut(record.study_id?)?.as_mut()
    }

    fn create_study(&mut self, record: Record) -> Result<(), String> {
        let name = record.study_name.ok_or("it has no `study_name`")?;
        // The first of two processes that create a study creates it.
        if self.studies.iter().flatten().all(|known| known.name != name) {
            let direction = |number: &u8| match number {
                1 => Some(Direction::Minimize),
                2 => Some(Direction::Maximize),
                _ => None,
            };
            let directions = record.directions.iter().map(direction).collect();
            self.studies.push(Some(OptunaStudy { name, directions, ..OptunaStudy::default() }));
        }
        Ok(())
    }

    fn create_trial(&mut self, record: Record) -> Result<(), String> {
        if self.study(&record).is_none() {
            return Ok(()); // of a deleted study
        }
        let mut params = BTreeMap::new();
        for (name, internal) in record.params {
            let distribution = record.distributions.get(&name).ok_or(format!("`{name}` has no distribution"))?;
            params.insert(name, parameter(internal, distribution)?);
        }
        let trial = OptunaTrial {
            state: record.state.map_or(Ok(OptunaState::Running), state)?,
            values: record.values.unwrap_or_else(|| record.value.map(Some).into_iter().collect()),
            params,
            reports: record.intermediate_values,
        };
        self.trials.push((record.study_id.unwrap_or_default(), trial));
        Ok(())
    }

    /// Changes a trial, unless it is finished.
    fn change_trial(&mut self, record: Record) -> Result<(), String> {
        let id = record.trial_id.ok_or("it has no `trial_id`")?;
        let Some((_, trial)) = self.trials.get_mut(id).filter(|(_, trial)| !trial.state.is_finished()) else {
            return Ok(());
        };
        match record.op_code {
            Some(operation::SET_TRIAL_PARAM) => {
                let name = record.param_name.ok_or("it has no `param_name`")?;
                let internal = record.param_value_internal.ok_or("it has no `param_value_internal`")?;
                let distribution = record.distribution.ok_or("it has no `distribution`")?;
                trial.params.insert(name, parameter(internal, &distribution)?);
            }
            Some(operation::SET_TRIAL_INTERMEDIATE_VALUE) => {
                trial.reports.insert(record.step.ok_or("it has no `step`")?, record.intermediate_value);
            }
            _ => {
                trial.state = state(record.state.ok_or("it has no `state`")?)?;
                if let Some(values) = record.values {
                    trial.values = values;
                }
            }
        }
        Ok(())
    }
}

fn state(number: u8) -> Result<OptunaState, String> {
    OptunaState::from_repr(number).ok_or_else(|| format!("no state has the number {number}"))
}

/// A line of JSON as Python writes it, in which numbers may be `NaN`, `Infinity` and `-Infinity`, as JSON that has
/// `null` for these.
pub(super) fn without_nan(line: &str) -> Cow<'_, str> {
    const NAMES: [&str; 3] = ["NaN", "Infinity", "-Infinity"];
    if !line.contains("NaN") && !line.contains("Infinity") {
        return Cow::Borrowed(line);
    }
    let (mut out, mut rest) = (String::with_capacity(line.len()), line);
    let (mut quoted, mut escaped) = (false, false);
    while let Some(c) = rest.chars().next() {
        let name = NAMES.iter().find(|name| !quoted && rest.starts_with(**name));
        if let Some(name) = name {
            out.push_str("null");
            rest = &rest[name.len()..];
            continue;
        }
        quoted ^= c == '"' && !escaped;
        escaped = quoted && c == '\\' && !escaped;
        out.push(c);
        rest = &rest[c.len_utf8()..];
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_json_does_not_have_become_null_outside_of_texts_only() {
        let line = r#"{"a\"NaN":[NaN,-Infinity,Infinity,1.5],"é\\":"Infinity NaN"}"#;
        assert_eq!(without_nan(line), r#"{"a\"NaN":[null,null,null,1.5],"é\\":"Infinity NaN"}"#);
    }

    #[test]
    fn what_a_journal_may_not_hold_is_named_with_its_line() {
        let fault = |text: &str| replay(text).unwrap_err();
        let first = "{\"op_code\":0,\"study_name\":\"s\",\"directions\":[1]}\n";
        assert_eq!(fault(&format!("{first}x\n")).line, 2);
        assert_eq!(fault("{}\n").reason, "it has no `op_code`");
        assert_eq!(fault("{\"op_code\":77}\n").reason, "no operation has the number 77");
        let trial = "{\"op_code\":4,\"study_id\":0,\"state\":9}\n";
        assert_eq!(fault(&format!("{first}{trial}")).reason, "no state has the number 9");
        assert_eq!(replay(&format!("{first}{{\"op_code\":4,")).unwrap()[0].trials, [], "half a line is none");
    }

    #[test]
    fn deleted_studies_and_finished_trials_stay_as_they_are() {
        let lines = [
            r#"{"op_code":0,"study_name":"gone","directions":[2]}"#,
            r#"{"op_code":4,"study_id":0,"datetime_start":null}"#,
            r#"{"op_code":1,"study_id":0}"#,
            r#"{"op_code":0,"study_name":"s","directions":[1]}"#,
            r#"{"op_code":0,"study_name":"s","directions":[2]}"#,
            r#"{"op_code":4,"study_id":1,"datetime_start":null}"#,
            r#"{"op_code":7,"trial_id":1,"step":1,"intermediate_value":NaN}"#,
            r#"{"op_code":6,"trial_id":1,"state":1,"values":[0.5]}"#,
            r#"{"op_code":6,"trial_id":1,"state":3,"values":null}"#,
            r#"{"op_code":9,"trial_id":1,"system_attr":{"a":1}}"#,
        ];
        let studies = replay(&(lines.join("\n") + "\n")).unwrap();
        assert_eq!(studies.len(), 1);
        assert_eq!((studies[0].name.as_str(), &studies[0].directions[..]), ("s", &[Some(Direction::Minimize)][..]));
        let trial = &studies[0].trials[0];
        assert_eq!((trial.state, &trial.values[..]), (OptunaState::Complete, &[Some(0.5)][..]));
        assert_eq!(trial.reports, BTreeMap::from([(1, None)]));
    }
}
