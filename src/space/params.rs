//! A configuration: the values of the parameters that exist in it.

use super::Value;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A configuration. Ordered by name, so equal configurations are equal texts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Params(pub BTreeMap<String, Value>);

impl Params {
    /// The value of a parameter, if it exists in this configuration.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }
}
