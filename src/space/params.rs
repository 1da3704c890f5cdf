//! A configuration: the values of the parameters that exist in it.

use super::Value;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A configuration. Ordered by name, so equal configurations have equal serialised forms.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Params(pub BTreeMap<String, Value>);

impl Params {
    /// The value of a parameter, if it exists in this configuration.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    /// The value of a parameter as a number. `None` if the parameter does not exist in this configuration, or is not a
    /// number.
    pub fn float(&self, name: &str) -> Option<f64> {
        self.get(name)?.as_f64()
    }

    /// The value of a parameter as a whole number, likewise.
    pub fn int(&self, name: &str) -> Option<i64> {
        self.get(name)?.as_i64()
    }

    /// The value of a parameter as a text, likewise.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.get(name)?.as_str()
    }
}
