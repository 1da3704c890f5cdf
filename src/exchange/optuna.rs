//! A study of Optuna as plain data, whatever it was read from.

use crate::space::Value;
use crate::spec::Direction;
use serde::Deserialize;
use std::collections::BTreeMap;

/// A study of Optuna.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OptunaStudy {
    /// Its name.
    pub name: String,
    /// The direction of each objective; `None`: not set.
    pub directions: Vec<Option<Direction>>,
    /// Its user attributes, each as JSON.
    pub user_attributes: BTreeMap<String, serde_json::Value>,
    /// Names of its objectives, where it has any (`Study.set_metric_names`).
    pub metric_names: Vec<String>,
    /// Its trials, by number.
    pub trials: Vec<OptunaTrial>,
}

/// A trial of Optuna. Numbers that are not finite are `None`.
#[derive(Clone, Debug, PartialEq)]
pub struct OptunaTrial {
    /// Its state.
    pub state: OptunaState,
    /// The value of each objective; empty where there is none.
    pub values: Vec<Option<f64>>,
    /// Its parameters.
    pub params: BTreeMap<String, Value>,
    /// Its intermediate values, by step.
    pub reports: BTreeMap<i64, Option<f64>>,
}

/// The state of a trial of Optuna, with the number that a journal has for it and the name that a database has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::EnumString, strum::FromRepr)]
#[strum(serialize_all = "UPPERCASE")]
#[repr(u8)]
pub enum OptunaState {
    Running = 0,
    Complete = 1,
    Pruned = 2,
    Fail = 3,
    Waiting = 4,
}

impl OptunaState {
    /// Whether no operation may change the trial any more.
    pub fn is_finished(self) -> bool {
        matches!(self, Self::Complete | Self::Pruned | Self::Fail)
    }
}

/// The system attribute that holds the names of a study's objectives.
pub const METRIC_NAMES: &str = "study:metric_names";
/// The user attribute that marks a study which this program exported: the program's version.
pub(super) const MARK: &str = "hpsearch";

impl OptunaStudy {
    /// The metric of a study that this program exported; `None` for any other, whose names of objectives mean nothing
    /// here.
    pub fn metric(&self) -> Option<&str> {
        let exported = self.user_attributes.contains_key(MARK);
        self.metric_names.first().filter(|_| exported).map(String::as_str)
    }
}

/// A distribution as Optuna writes it, `{"name": "FloatDistribution", "attributes": {...}}`.
#[derive(Deserialize)]
struct Distribution {
    name: String,
    attributes: Attributes,
}

#[derive(Deserialize)]
struct Attributes {
    #[serde(default)]
    choices: Vec<serde_json::Value>,
}

/// A parameter's value from Optuna's internal number and the JSON of its distribution: whole numbers and floats are the
/// number itself, a choice is its index. A choice of `None` becomes the text `None`.
///
/// # Errors
/// In words, if the distribution is not one of Optuna's, or has no such choice.
pub fn parameter(internal: f64, distribution: &str) -> Result<Value, String> {
    let parsed: Distribution =
        serde_json::from_str(distribution).map_err(|e| format!("`{distribution}` is no distribution: {e}"))?;
    // With the names of before Optuna 3: UniformDistribution, IntLogUniformDistribution, ...
    match parsed.name.as_str() {
        name if name.starts_with("Int") => Ok(Value::Int(internal as i64)),
        "CategoricalDistribution" => {
            let index = (internal >= 0.0 && internal.fract() == 0.0).then_some(internal as usize);
            let choice = index.and_then(|i| parsed.attributes.choices.get(i));
            match choice {
                Some(serde_json::Value::Null) => Ok(Value::Text("None".to_owned())),
                Some(value) => serde_json::from_value(value.clone())
                    .map_err(|_| format!("the choice {value} is neither a number, a text nor true or false")),
                None => Err(format!("`{distribution}` has no choice {internal}")),
            }
        }
        name if name.ends_with("UniformDistribution") || name == "FloatDistribution" => Ok(Value::Float(internal)),
        name => Err(format!("`{name}` is not a distribution of Optuna")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_the_type_of_their_distribution() {
        let choices = r#"{"name": "CategoricalDistribution", "attributes": {"choices": [true, 3, 0.5, "a", null]}}"#;
        let chosen: Vec<Value> = (0..5).map(|i| parameter(f64::from(i), choices).unwrap()).collect();
        let text = |t: &str| Value::Text(t.to_owned());
        assert_eq!(chosen, [Value::Bool(true), Value::Int(3), Value::Float(0.5), text("a"), text("None")]);
        assert!(parameter(5.0, choices).is_err() && parameter(0.5, choices).is_err());
        let named = |name: &str| parameter(4.0, &format!(r#"{{"name": "{name}", "attributes": {{"low": 1}}}}"#));
        for name in ["IntDistribution", "IntUniformDistribution", "IntLogUniformDistribution"] {
            assert_eq!(named(name), Ok(Value::Int(4)));
        }
        for name in ["FloatDistribution", "LogUniformDistribution", "DiscreteUniformDistribution"] {
            assert_eq!(named(name), Ok(Value::Float(4.0)));
        }
        assert!(named("NormalDistribution").is_err() && parameter(1.0, "x").is_err());
    }
}
