//! Unit-cube coding of domains.

use crate::digest::Digest;
use crate::space::{Domain, Parameter, Params, SearchSpace, Value};

/// How many values a domain has; `None`: a continuum.
pub(super) fn levels(domain: &Domain) -> Option<u64> {
    match domain {
        Domain::Float { low, high, .. } if low == high => Some(1),
        Domain::Float { low, high, step: Some(step), .. } => Some(((high - low) / step + 1e-9).floor() as u64 + 1),
        Domain::Float { step: None, .. } => None,
        Domain::Int { low, high, step, .. } => Some((high.abs_diff(*low)) / step.unsigned_abs().max(1) + 1),
        Domain::Categorical { choices } | Domain::Ordinal { choices } => Some(choices.len() as u64),
        Domain::Fixed { .. } => Some(1),
    }
}

/// The value at a point of the unit interval.
pub(super) fn from_unit(domain: &Domain, u: f64) -> Value {
    let pick = |n: u64| ((u * n as f64) as u64).min(n - 1);
    match domain {
        Domain::Float { low, step: Some(step), .. } => {
            Value::Float(low + step * pick(levels(domain).unwrap_or(1)) as f64)
        }
        Domain::Float { low, high, log: true, .. } => {
            Value::Float((low.ln() + u * (high.ln() - low.ln())).exp().clamp(*low, *high))
        }
        Domain::Float { low, high, .. } => Value::Float((low + u * (high - low)).clamp(*low, *high)),
        Domain::Int { low, high, log: true, .. } => {
            let (a, b) = ((*low as f64 - 0.5).ln(), (*high as f64 + 0.5).ln());
            Value::Int(((a + u * (b - a)).exp().round() as i64).clamp(*low, *high))
        }
        Domain::Int { low, step, .. } => Value::Int(low + step * pick(levels(domain).unwrap_or(1)) as i64),
        Domain::Categorical { choices } | Domain::Ordinal { choices } => {
            choices[pick(choices.len() as u64) as usize].clone()
        }
        Domain::Fixed { value } => value.clone(),
    }
}

/// Whether a parameter exists beside the values chosen so far.
pub(super) fn exists(parameter: &Parameter, params: &Params) -> bool {
    parameter.when.as_ref().is_none_or(|when| params.get(&when.parameter).is_some_and(|v| when.values.contains(v)))
}

/// A configuration from one number in [0, 1) per existing parameter.
pub(super) fn sample(space: &SearchSpace, mut u: impl FnMut(&str) -> f64) -> Params {
    let mut params = Params::default();
    for parameter in &space.parameters {
        if exists(parameter, &params) {
            params.0.insert(parameter.name.clone(), from_unit(&parameter.domain, u(&parameter.name)));
        }
    }
    params
}

/// The name of a configuration: equal ones have equal digests.
pub(crate) fn digest(params: &Params) -> Digest {
    Digest::of(serde_json::to_string(params).unwrap_or_default().as_bytes())
}
