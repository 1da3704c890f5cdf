//! A study as a journal file of Optuna.
//!
//! | here | in Optuna |
//! |---|---|
//! | complete | `COMPLETE`, with its value |
//! | stopped, paused | `PRUNED`, with the value after its latest epoch, as Optuna itself keeps it |
//! | failed | `FAIL`, with `failure` and `reason` among the user attributes |
//! | running; waiting for its next rung | `RUNNING` |
//! | waiting for its first epoch | `WAITING` |
//! | float, int | `FloatDistribution`, `IntDistribution` with their step or logarithm |
//! | categorical, ordinal, fixed | `CategoricalDistribution`, choices in their order |
//! | the objective after each epoch | intermediate values, by epoch; undefined: NaN |
//! | state, epochs, seconds, metrics of the latest epoch | user attributes, named like the columns of the CSV |

use super::optuna::{MARK, METRIC_NAMES, OptunaState};
use super::replay::{operation, without_nan};
use crate::clock::iso;
use crate::engine::TrialState;
use crate::history::{Tables, TrialRow};
use crate::space::{Domain, Params, SearchSpace, Value};
use crate::spec::{Direction, StudySpec};
use serde_json::{Map, json};

/// Names of user attributes that are no metrics; a metric of that name is called `metric.NAME`.
const FIXED: [&str; 5] = ["state", "epochs", "seconds", "failure", "reason"];

/// Who wrote a record: Optuna puts a unique name of the process here.
const WORKER: &str = "hpsearch";

/// The study as the text of a journal file, one JSON object a line.
pub fn journal(spec: &StudySpec, tables: &Tables) -> String {
    let direction = match spec.objective.direction {
        Direction::Minimize => 1,
        Direction::Maximize => 2,
    };
    let mut lines = vec![
        json!({
            "op_code": operation::CREATE_STUDY, "worker_id": WORKER, "study_name": spec.name, "directions": [direction],
        })
        .to_string(),
    ];
    let metric = json!([spec.objective.metric.to_string()]);
    lines.push(
        json!({
            "op_code": operation::SET_STUDY_SYSTEM_ATTR, "worker_id": WORKER, "study_id": 0,
            "system_attr": { METRIC_NAMES: metric },
        })
        .to_string(),
    );
    let about =
        [(MARK, json!(env!("CARGO_PKG_VERSION"))), ("seed", json!(spec.seed)), ("epochs", json!(spec.runner.epochs()))];
    for (name, value) in about {
        let line = json!({
            "op_code": operation::SET_STUDY_USER_ATTR, "worker_id": WORKER, "study_id": 0, "user_attr": { name: value },
        });
        lines.push(line.to_string());
    }
    lines.extend(tables.trials.values().map(|row| trial(&spec.space, tables, row)));
    lines.join("\n") + "\n"
}

/// Whether a file's contents are an export and nothing that Optuna has added since.
pub fn is_export(journal: &str) -> bool {
    let by_us = |line: &str| {
        let parsed: Result<Map<String, serde_json::Value>, _> = serde_json::from_str(&without_nan(line));
        parsed.is_ok_and(|record| record.get("worker_id").is_some_and(|worker| worker == WORKER))
    };
    !journal.is_empty() && journal.lines().all(by_us)
}

/// A trial as one record.
fn trial(space: &SearchSpace, tables: &Tables, row: &TrialRow) -> String {
    let params = tables.configurations.get(&row.trial).cloned().unwrap_or_default();
    let state = match row.state {
        TrialState::Complete => OptunaState::Complete,
        TrialState::Stopped | TrialState::Paused => OptunaState::Pruned,
        TrialState::Failed => OptunaState::Fail,
        TrialState::Waiting if row.epochs == 0 => OptunaState::Waiting,
        TrialState::Running | TrialState::Waiting => OptunaState::Running,
    };
    let has_value = matches!(state, OptunaState::Complete | OptunaState::Pruned);
    let (distributions, internal) = parameters(space, &params);
    // Optuna has no start of a trial that waits for it.
    let start = row.issued_ms.filter(|_| state != OptunaState::Waiting).map(iso);
    let mut record = json!({
        "op_code": operation::CREATE_TRIAL, "worker_id": WORKER, "study_id": 0,
        "state": state as u8,
        "datetime_start": start,
        "value": row.value.filter(|_| has_value),
        "values": null,
        "distributions": distributions,
        "params": internal,
        "user_attrs": attributes(tables, row),
        "system_attrs": {},
    });
    if let Some(ms) = row.finished_ms.filter(|_| state.is_finished()) {
        record["datetime_complete"] = iso(ms).into();
    }
    // Python writes and reads NaN, which JSON does not have.
    let number = |value: Option<f64>| value.map_or_else(|| "NaN".to_owned(), |v| json!(v).to_string());
    let reports: Vec<String> =
        tables.epochs_of(row.trial).map(|e| format!("\"{}\":{}", e.epoch, number(e.value))).collect();
    let record = record.to_string();
    let open = record.strip_suffix('}').unwrap_or(&record);
    format!("{open},\"intermediate_values\":{{{}}}}}", reports.join(","))
}

/// Distributions as JSON texts and internal values, of the parameters that exist in a configuration.
fn parameters(
    space: &SearchSpace,
    params: &Params,
) -> (Map<String, serde_json::Value>, Map<String, serde_json::Value>) {
    let (mut distributions, mut internal) = (Map::new(), Map::new());
    for parameter in &space.parameters {
        let Some(value) = params.get(&parameter.name) else { continue };
        let position = || parameter.domain.index_of(value).map(|i| i as f64);
        let number = match &parameter.domain {
            Domain::Float { .. } | Domain::Int { .. } => value.as_f64(),
            Domain::Categorical { .. } | Domain::Ordinal { .. } | Domain::Fixed { .. } => position(),
        };
        let Some(number) = number else { continue };
        distributions.insert(parameter.name.clone(), distribution(&parameter.domain).to_string().into());
        internal.insert(parameter.name.clone(), number.into());
    }
    (distributions, internal)
}

fn distribution(domain: &Domain) -> serde_json::Value {
    // Optuna wants the largest value that the steps reach.
    let last = || domain.cells().and_then(|n| domain.nth(n - 1));
    match domain {
        Domain::Float { low, high, step, log } => {
            let high = step.and_then(|_| last()?.as_f64()).unwrap_or(*high);
            let attributes = json!({ "low": low, "high": high, "log": log, "step": step });
            json!({ "name": "FloatDistribution", "attributes": attributes })
        }
        Domain::Int { low, high, step, log } => {
            let high = last().and_then(|v| v.as_i64()).unwrap_or(*high);
            let attributes = json!({ "low": low, "high": high, "log": log, "step": if *log { 1 } else { *step } });
            json!({ "name": "IntDistribution", "attributes": attributes })
        }
        Domain::Categorical { choices } | Domain::Ordinal { choices } => categorical(choices),
        Domain::Fixed { value } => categorical(std::slice::from_ref(value)),
    }
}

fn categorical(choices: &[Value]) -> serde_json::Value {
    json!({ "name": "CategoricalDistribution", "attributes": { "choices": choices } })
}

/// What Optuna has no field for.
fn attributes(tables: &Tables, row: &TrialRow) -> Map<String, serde_json::Value> {
    let mut attributes = Map::new();
    let mut put = |name: &str, value: serde_json::Value| drop(attributes.insert(name.to_owned(), value));
    put("state", json!(row.state));
    put("epochs", json!(row.epochs));
    put("seconds", json!(row.seconds));
    if let Some(failure) = tables.failure_of(row.trial) {
        put("failure", json!(failure.class));
        put("reason", json!(failure.reason));
    }
    for (name, value) in tables.epochs_of(row.trial).next_back().into_iter().flat_map(|epoch| &epoch.metrics) {
        if FIXED.contains(&name.as_str()) {
            put(&format!("metric.{name}"), json!(value));
        } else {
            put(name, json!(value));
        }
    }
    attributes
}
