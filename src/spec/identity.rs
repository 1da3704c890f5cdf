//! The identity of a study: its canonical form, and which changes of the study file keep it.

use super::{Needs, StudySpec};
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
                // No bound counts as infinite.
                let bound = |value: Option<&Json>| value.and_then(Json::as_f64).unwrap_or(f64::INFINITY);
                if bound(after) >= bound(before) { Change::Allowed } else { Change::Lowered }
            }
            _ => Change::Forbidden,
        }
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
