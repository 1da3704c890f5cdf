//! The identity of a study: its canonical form, and which changes of the study file keep it.

use super::{Needs, SchedulerSpec, StudySpec, rungs};
use crate::digest::Digest;
use serde_json::Value as Json;
use std::collections::BTreeMap;
use std::fmt;

/// A difference between two versions of a study.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Where, as a dotted path: `runner.training.batch_size`.
    pub path: String,
    /// The stored value as JSON; `None`: there was none.
    pub before: Option<String>,
    /// The value of the file as JSON; `None`: there is none.
    pub after: Option<String>,
    /// Whether a stored study may be continued with it.
    pub change: Change,
}

/// Whether a study may be continued after a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// No result depends on it, or it raises the budget.
    Allowed,
    /// A budget may be raised, never lowered.
    Lowered,
    /// It would be another study.
    Forbidden,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |value: &Option<String>| value.clone().unwrap_or_else(|| String::from("nothing"));
        write!(f, "{}: {} -> {}", self.path, text(&self.before), text(&self.after))?;
        if self.change == Change::Lowered { f.write_str(" (a budget may only be raised)") } else { Ok(()) }
    }
}

impl StudySpec {
    /// The identity of the study: a digest of everything but how it is run on this machine, its budget, limits and
    /// failure policies.
    pub fn identity(&self) -> Digest {
        let mut json = self.json();
        if let Some(table) = json.as_object_mut() {
            for part in ["run", "budget", "limits", "failures"] {
                table.remove(part);
            }
            if self.learns() {
                table.insert("virtual_workers".to_owned(), self.run.virtual_workers.into());
            }
        }
        Digest::of(sorted(&json).to_string().as_bytes())
    }

    /// Whether suggestions or promotions depend on the order of results, and so on the number of virtual workers.
    pub fn learns(&self) -> bool {
        self.sampler.learns() || self.scheduler.needs() == Needs::Order
    }

    /// Everything in which this study (as the file has it now) differs from the stored one, in the order of paths.
    pub fn difference(&self, stored: &Self) -> Vec<Difference> {
        let (before, after) = (flat(&stored.json()), flat(&self.json()));
        let mut paths: Vec<&String> = before.keys().chain(after.keys()).collect();
        paths.sort_unstable();
        paths.dedup();
        paths
            .into_iter()
            .filter(|path| before.get(*path) != after.get(*path))
            .map(|path| {
                let (old, new) = (before.get(path), after.get(path));
                let text = |value: Option<&Json>| value.filter(|v| !v.is_null()).map(Json::to_string);
                Difference {
                    path: path.clone(),
                    before: text(old),
                    after: text(new),
                    change: self.change(path, old, new),
                }
            })
            .collect()
    }

    fn change(&self, path: &str, before: Option<&Json>, after: Option<&Json>) -> Change {
        match path.split('.').next().unwrap_or_default() {
            "run" if path == "run.virtual_workers" && self.learns() => Change::Forbidden,
            "run" | "limits" | "failures" => Change::Allowed,
            "budget" => {
                // No bound counts as infinite, but no number of trials as one round where the scheduler has rounds.
                let missing = if path == "budget.n_trials" { self.round() } else { None };
                let bound = |value: Option<&Json>| value.and_then(Json::as_f64).or(missing).unwrap_or(f64::INFINITY);
                if bound(after) >= bound(before) { Change::Allowed } else { Change::Lowered }
            }
            _ => Change::Forbidden,
        }
    }

    /// Trials of one round of Hyperband, which are planned where the study names no number.
    fn round(&self) -> Option<f64> {
        let SchedulerSpec::Hyperband { min_resource, reduction_factor, algorithm1 } = self.scheduler else {
            return None;
        };
        let entrants = rungs::round(min_resource, self.runner.epochs(), reduction_factor, algorithm1);
        Some(entrants.into_iter().map(f64::from).sum())
    }

    fn json(&self) -> Json {
        // Cannot fail: floats of a validated study are finite and map keys are texts.
        serde_json::to_value(self).unwrap_or_default()
    }
}

/// The same JSON with the keys of every table sorted, whichever features serde_json is built with.
fn sorted(json: &Json) -> Json {
    match json {
        Json::Object(table) => {
            let ordered: BTreeMap<&String, Json> = table.iter().map(|(k, v)| (k, sorted(v))).collect();
            ordered.into_iter().map(|(k, v)| (k.clone(), v)).collect::<serde_json::Map<_, _>>().into()
        }
        Json::Array(items) => items.iter().map(sorted).collect::<Vec<_>>().into(),
        other => other.clone(),
    }
}

/// Leaves by dotted path. Parameters of the space are listed by name, so that adding one does not shift the others.
fn flat(json: &Json) -> BTreeMap<String, Json> {
    fn walk(path: String, json: &Json, leaves: &mut BTreeMap<String, Json>) {
        let below = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
        match json {
            Json::Object(table) if !table.is_empty() => {
                table.iter().for_each(|(key, value)| walk(below(key), value, leaves));
            }
            Json::Array(items) if items.iter().any(Json::is_object) => {
                for (i, item) in items.iter().enumerate() {
                    let name = item.get("name").and_then(Json::as_str).map_or_else(|| i.to_string(), str::to_owned);
                    walk(below(&name), item, leaves);
                }
            }
            other => {
                leaves.insert(path, other.clone());
            }
        }
    }
    let mut leaves = BTreeMap::new();
    walk(String::new(), json, &mut leaves);
    leaves
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::planned_trials;
    use crate::space::{Domain, Parameter, SearchSpace};

    #[test]
    fn a_round_of_hyperband_is_raised_by_more_trials_and_more_trials_are_lowered_to_it() {
        let domain = Domain::Float { low: 0.0, high: 1.0, step: None, log: false };
        let space = SearchSpace { parameters: vec![Parameter { name: "x".to_owned(), domain, when: None }] };
        for (epochs, min_resource, reduction_factor) in [(9, 1, 3), (8, 1, 3), (81, 2, 3), (27, 1, 2), (5, 3, 4)] {
            for algorithm1 in [false, true] {
                let mut round = StudySpec::external("round", space.clone(), epochs, 1);
                round.scheduler = SchedulerSpec::Hyperband { min_resource, reduction_factor, algorithm1 };
                round.budget.n_trials = None;
                let n = planned_trials(&round).unwrap();
                let of = |n_trials| {
                    let mut spec = round.clone();
                    spec.budget.n_trials = Some(n_trials);
                    spec
                };
                let change = |to: &StudySpec, from: &StudySpec| to.difference(from)[0].change;
                let raised = [of(n), of(n + 1)].map(|to| change(&to, &round));
                assert_eq!(raised, [Change::Allowed; 2], "{epochs} {n}");
                assert_eq!(change(&of(n - 1), &round), Change::Lowered, "{epochs} {n}");
                let without = [of(n - 1), of(n)].map(|from| change(&round, &from));
                assert_eq!(without, [Change::Allowed; 2], "{epochs} {n}");
                assert_eq!(change(&round, &of(n + 1)), Change::Lowered, "{epochs} {n}");
            }
        }
        let mut endless = StudySpec::external("endless", space, 9, 5);
        let few = endless.clone();
        endless.budget.n_trials = None;
        assert_eq!(few.difference(&endless)[0].change, Change::Lowered);
    }
}
