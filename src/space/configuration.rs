//! Configurations of a space: which parameters exist, drawing, checking, counting.

use super::value::list;
use super::{Domain, Parameter, Params, SearchSpace, Value};
use crate::digest::Digest;
use std::collections::BTreeMap;

/// Why a configuration does not belong to a space.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum NotInSpace {
    /// The space has no such parameter.
    #[error("`{name}` is not a parameter of this search space")]
    Unknown { name: String },
    /// The parameter exists in this configuration, but has no value.
    #[error("`{name}` has no value")]
    Missing { name: String },
    /// The parameter has a value, but its condition is not met.
    #[error("`{name}` exists only while `{parameter}` is {values}")]
    Inactive { name: String, parameter: String, values: String },
    /// The value is outside the parameter's domain.
    #[error("{value} is not a value of `{name}` ({domain})")]
    Outside { name: String, value: String, domain: String },
}

impl NotInSpace {
    /// The parameter that it is about.
    pub fn name(&self) -> &str {
        match self {
            Self::Unknown { name }
            | Self::Missing { name }
            | Self::Inactive { name, .. }
            | Self::Outside { name, .. } => name,
        }
    }
}

impl SearchSpace {
    /// The parameter of this name.
    pub fn get(&self, name: &str) -> Option<&Parameter> {
        self.parameters.iter().find(|p| p.name == name)
    }

    /// The parameters that are searched: all but the fixed ones, in the space's order. Their positions are the
    /// dimensions of the unit cube.
    pub fn searched(&self) -> impl Iterator<Item = &Parameter> {
        self.parameters.iter().filter(|p| !matches!(p.domain, Domain::Fixed { .. }))
    }

    /// Whether a parameter exists, given the values of those before it.
    pub fn is_active(&self, parameter: &Parameter, params: &Params) -> bool {
        parameter
            .when
            .as_ref()
            .is_none_or(|when| params.get(&when.parameter).is_some_and(|v| when.values.iter().any(|w| w.same(v))))
    }

    /// A configuration from one number in [0, 1) per parameter. `unit` is called only for parameters that exist and
    /// are searched.
    pub fn sample(&self, mut unit: impl FnMut(&str) -> f64) -> Params {
        let mut params = Params::default();
        for parameter in &self.parameters {
            if self.is_active(parameter, &params) {
                let value = match &parameter.domain {
                    Domain::Fixed { value } => value.clone(),
                    domain => domain.from_unit(unit(&parameter.name)),
                };
                params.0.insert(parameter.name.clone(), value);
            }
        }
        params
    }

    /// A configuration from a point of the unit cube, one coordinate for each of [`SearchSpace::searched`];
    /// coordinates of parameters that do not exist are ignored, missing ones count as 0.
    pub fn from_unit(&self, point: &[f64]) -> Params {
        let dimension: BTreeMap<&str, f64> =
            self.searched().map(|p| p.name.as_str()).zip(point.iter().copied()).collect();
        self.sample(|name| dimension.get(name).copied().unwrap_or(0.0))
    }

    /// The point of a configuration: one coordinate for each of [`SearchSpace::searched`], `None` where the
    /// parameter does not exist in it.
    pub fn to_unit(&self, params: &Params) -> Vec<Option<f64>> {
        self.searched().map(|p| params.get(&p.name).and_then(|v| p.domain.to_unit(v))).collect()
    }

    /// Checks a configuration that a person wrote, fills in fixed values and brings every value into its domain's
    /// own form (see [`Domain::coerce`]).
    ///
    /// # Errors
    /// Everything that is wrong, in the space's order, unknown names last.
    pub fn complete(&self, given: &Params) -> Result<Params, Vec<NotInSpace>> {
        let mut params = Params::default();
        let mut wrong = Vec::new();
        for parameter in &self.parameters {
            let name = parameter.name.clone();
            let value = given.get(&name);
            if !self.is_active(parameter, &params) {
                if let (Some(_), Some(when)) = (value, &parameter.when) {
                    let values = list(&when.values);
                    wrong.push(NotInSpace::Inactive { name, parameter: when.parameter.clone(), values });
                }
                continue;
            }
            match (value, &parameter.domain) {
                (None, Domain::Fixed { value }) => {
                    params.0.insert(name, value.clone());
                }
                (None, _) => wrong.push(NotInSpace::Missing { name }),
                (Some(value), domain) => match domain.coerce(value) {
                    Some(value) => {
                        params.0.insert(name, value);
                    }
                    None => {
                        let (value, domain) = (value.to_string(), domain.to_string());
                        wrong.push(NotInSpace::Outside { name, value, domain });
                    }
                },
            }
        }
        let unknown = given.0.keys().filter(|name| self.get(name).is_none());
        wrong.extend(unknown.map(|name| NotInSpace::Unknown { name: name.clone() }));
        if wrong.is_empty() { Ok(params) } else { Err(wrong) }
    }

    /// The exact number of distinct configurations, with conditions taken into account; `None` if infinite. Saturates
    /// at `u128::MAX`.
    pub fn cardinality(&self) -> Option<u128> {
        self.parameters
            .iter()
            .filter(|p| p.when.is_none())
            .try_fold(1u128, |product, p| Some(product.saturating_mul(self.subtree(p)?)))
    }

    /// The number of configurations of a parameter together with all that depend on it: the sum over its values of the
    /// product over the children that exist with that value.
    fn subtree(&self, parameter: &Parameter) -> Option<u128> {
        let children: Vec<(&Parameter, &[Value])> = self
            .parameters
            .iter()
            .filter_map(|c| c.when.as_ref().filter(|w| w.parameter == parameter.name).map(|w| (c, w.values.as_slice())))
            .collect();
        let cells = u128::from(parameter.domain.cells()?);
        let mut named: Vec<&Value> = Vec::new();
        for value in children.iter().flat_map(|(_, values)| values.iter()) {
            if parameter.domain.contains(value) && !named.iter().any(|n| n.same(value)) {
                named.push(value);
            }
        }
        let mut total = cells - (named.len() as u128).min(cells);
        for value in named {
            let present = children.iter().filter(|(_, values)| values.iter().any(|v| v.same(value)));
            let product = present
                .map(|(child, _)| self.subtree(child))
                .try_fold(1u128, |product, n| Some(product.saturating_mul(n?)))?;
            total = total.saturating_add(product);
        }
        Some(total)
    }
}

impl Params {
    /// The digest that identifies this configuration: equal exactly for equal configurations, on every platform. Floats
    /// are hashed by their bits (-0 as 0), so two learning rates that print alike still differ.
    pub fn digest(&self) -> Digest {
        let parts: Vec<(&str, Vec<u8>)> = self.0.iter().map(|(name, v)| (name.as_str(), v.canonical_bytes())).collect();
        Digest::of_parts(parts.iter().map(|(name, bytes)| (*name, bytes.as_slice())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::space::Condition;

    fn text(t: &str) -> Value {
        Value::Text(t.into())
    }

    fn parameter(name: &str, domain: Domain, when: Option<(&str, &[Value])>) -> Parameter {
        let when = when.map(|(p, values)| Condition { parameter: p.into(), values: values.to_vec() });
        Parameter { name: name.into(), domain, when }
    }

    /// head linear: 1; head hidden: 3 units x (act relu: 1, act swish: 4 betas) = 15; times 2 optimisers.
    fn conditional() -> SearchSpace {
        let choice = |names: &[&str]| Domain::Categorical { choices: names.iter().map(|n| text(n)).collect() };
        SearchSpace {
            parameters: vec![
                parameter("head", choice(&["linear", "hidden"]), None),
                parameter(
                    "units",
                    Domain::Int { low: 1, high: 3, step: 1, log: false },
                    Some(("head", &[text("hidden")])),
                ),
                parameter("act", choice(&["relu", "swish"]), Some(("head", &[text("hidden")]))),
                parameter(
                    "beta",
                    Domain::Int { low: 1, high: 4, step: 1, log: false },
                    Some(("act", &[text("swish")])),
                ),
                parameter("optimiser", choice(&["adamw", "sgd"]), None),
                parameter("epochs", Domain::Fixed { value: Value::Int(3) }, None),
            ],
        }
    }

    #[test]
    fn cardinality_counts_conditions_exactly() {
        let space = conditional();
        assert_eq!(space.cardinality(), Some((1 + 3 * (1 + 4)) * 2));
        // The same by drawing: every configuration is found, and no more.
        let mut seen = std::collections::BTreeSet::new();
        let mut rng = crate::rng::StreamRng::keyed(1, crate::rng::Purpose::Test, &[]);
        for _ in 0..5000 {
            seen.insert(space.sample(|_| rng.unit()).digest());
        }
        assert_eq!(seen.len(), 32);
        let mut endless = conditional();
        endless.parameters[3].domain = Domain::Float { low: 0.0, high: 1.0, step: None, log: false };
        assert_eq!(endless.cardinality(), None);
    }

    #[test]
    fn only_parameters_that_exist_are_asked_for() {
        let space = conditional();
        let mut asked = Vec::new();
        let params = space.sample(|name| {
            asked.push(name.to_owned());
            0.0
        });
        assert_eq!(asked, ["head", "optimiser"]);
        assert_eq!(params.0.keys().collect::<Vec<_>>(), ["epochs", "head", "optimiser"]);
        assert_eq!(space.to_unit(&params), [Some(0.25), None, None, None, Some(0.25)]);
        assert_eq!(space.from_unit(&[0.25, 0.9, 0.9, 0.9, 0.25]), params);
    }

    #[test]
    fn a_written_configuration_is_completed_or_every_fault_is_named() {
        let space = conditional();
        let given = |pairs: &[(&str, Value)]| Params(pairs.iter().map(|(n, v)| ((*n).to_owned(), v.clone())).collect());
        let good = space
            .complete(&given(&[
                ("head", text("hidden")),
                ("units", Value::Float(2.0)),
                ("act", text("relu")),
                ("optimiser", text("sgd")),
            ]))
            .unwrap();
        assert_eq!(good.get("units"), Some(&Value::Int(2)));
        assert_eq!(good.get("epochs"), Some(&Value::Int(3)));
        let wrong = space
            .complete(&given(&[
                ("head", text("linear")),
                ("units", Value::Int(2)),
                ("optimiser", text("lion")),
                ("x", Value::Int(1)),
            ]))
            .unwrap_err();
        let texts: Vec<String> = wrong.iter().map(ToString::to_string).collect();
        assert_eq!(
            texts,
            [
                "`units` exists only while `head` is hidden",
                "lion is not a value of `optimiser` (adamw or sgd)",
                "`x` is not a parameter of this search space",
            ]
        );
    }

    #[test]
    fn digests_tell_configurations_apart_and_nothing_else() {
        let one = |v: Value| Params([("a".to_owned(), v)].into()).digest();
        assert_eq!(one(Value::Float(0.0)), one(Value::Float(-0.0)));
        assert_ne!(one(Value::Float(0.1)), one(Value::Float(0.1 + f64::EPSILON)));
        assert_ne!(one(Value::Int(1)), one(Value::Text("1".into())));
        assert_ne!(one(Value::Int(1)), one(Value::Bool(true)));
        assert_ne!(one(Value::Int(1)), Params([("b".to_owned(), Value::Int(1))].into()).digest());
        // Pinned: such digests are stored in databases.
        assert_eq!(one(Value::Float(0.5)).short(), "afbfb70059660b09");
    }
}
