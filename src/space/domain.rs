//! Domains of parameters, and the space they span.

use super::Value;
use super::value::list;
use serde::{Deserialize, Serialize};
use std::fmt;

/// The set of values a parameter may take. Validated: `low <= high`, `low > 0` where `log`, `step > 0`,
/// never `step` with `log`, at least one choice, choices distinct.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Domain {
    /// A real number in `[low, high]`; with `step` one of `low, low + step, ...`; with `log` uniform in the logarithm.
    Float { low: f64, high: f64, step: Option<f64>, log: bool },
    /// A whole number in `low..=high`, every `step`-th from `low`; with `log` uniform in the logarithm.
    Int { low: i64, high: i64, step: i64, log: bool },
    /// One of some values without an order.
    Categorical { choices: Vec<Value> },
    /// One of some values in their given order: neighbours are alike.
    Ordinal { choices: Vec<Value> },
    /// Always this value: part of every configuration, never searched.
    Fixed { value: Value },
}

impl Domain {
    /// The values of a categorical, ordinal or fixed parameter; empty for a number.
    pub fn choices(&self) -> &[Value] {
        match self {
            Self::Categorical { choices } | Self::Ordinal { choices } => choices,
            Self::Fixed { value } => std::slice::from_ref(value),
            Self::Float { .. } | Self::Int { .. } => &[],
        }
    }
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Float { low, high, step, log } => {
                write!(f, "float {} to {}", Value::Float(*low), Value::Float(*high))?;
                if let Some(step) = step {
                    write!(f, ", step {}", Value::Float(*step))?;
                }
                f.write_str(if *log { ", log" } else { "" })
            }
            Self::Int { low, high, step, log } => {
                write!(f, "int {low} to {high}")?;
                if *step != 1 {
                    write!(f, ", step {step}")?;
                }
                f.write_str(if *log { ", log" } else { "" })
            }
            Self::Categorical { choices } => f.write_str(&list(choices)),
            Self::Ordinal { choices } => write!(f, "ordered: {}", list(choices)),
            Self::Fixed { value } => write!(f, "always {value}"),
        }
    }
}

/// A condition: the parameter exists only while another one (declared earlier) has one of these values.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Condition {
    /// The parameter that decides.
    pub parameter: String,
    /// The values with which this one exists.
    pub values: Vec<Value>,
}

/// A named dimension of the search.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Parameter {
    /// Its name: a setting of the image runner (`learning_rate`, `freeze`, ...) or any name for other runners.
    pub name: String,
    /// What values it may take.
    pub domain: Domain,
    /// When it exists at all; `None`: always.
    pub when: Option<Condition>,
}

/// The space a study searches: parameters in an order in which every condition refers to an earlier one.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SearchSpace {
    /// The parameters, each after the one that its condition refers to.
    pub parameters: Vec<Parameter>,
}
