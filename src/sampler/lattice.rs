//! The finite set of configurations of a grid, or of a space without continuous parameters: counted and numbered.

use crate::space::{Domain, Params, SearchSpace, Value};
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// The configurations of a space whose every parameter takes finitely many values, numbered from 0 with the last
/// parameter changing fastest. A conditional parameter multiplies their number only where it exists.
#[derive(Debug)]
pub struct Lattice {
    axes: Vec<Axis>,
    len: u128,
    /// Sizes of subtrees, by depth and by the earlier choices that later conditions refer to.
    sizes: Mutex<HashMap<Branch, u128>>,
}

/// A depth, and the earlier choices that matter from there on.
type Branch = (usize, Vec<Option<u64>>);

#[derive(Debug)]
struct Axis {
    name: String,
    points: Points,
    /// The axis that decides whether this one exists, and the positions on it with which this one does.
    when: Option<(usize, Vec<u64>)>,
    /// Whether the condition of a later axis refers to this one.
    decides: bool,
    /// Earlier axes that the condition of this or a later axis refers to.
    asked: Vec<usize>,
}

/// The values of an axis.
#[derive(Debug)]
enum Points {
    /// All values of a finite domain, and their number.
    Cells(Domain, u64),
    /// Evenly spaced values of a continuous domain.
    Cut(Vec<Value>),
}

impl Points {
    /// All values of a finite domain, or `points` evenly spaced ones of a continuous domain, ends included (one: the
    /// middle).
    fn new(domain: &Domain, points: Option<u32>) -> Option<Self> {
        if let Some(cells) = domain.cells() {
            return Some(Self::Cells(domain.clone(), cells));
        }
        let n = points?.max(1);
        let at = |i: u32| if n == 1 { 0.5 } else { f64::from(i) / f64::from(n - 1) };
        let mut values: Vec<Value> = (0..n).map(|i| domain.from_unit(at(i))).collect();
        // The ends exactly, despite rounding of the logarithm.
        if let (Domain::Float { low, high, .. }, [first, .., last]) = (domain, values.as_mut_slice()) {
            (*first, *last) = (Value::Float(*low), Value::Float(*high));
        }
        values.dedup();
        Some(Self::Cut(values))
    }

    fn len(&self) -> u64 {
        match self {
            Self::Cells(_, cells) => *cells,
            Self::Cut(values) => values.len() as u64,
        }
    }

    fn get(&self, position: u64) -> Option<Value> {
        match self {
            Self::Cells(domain, _) => domain.nth(position),
            Self::Cut(values) => values.get(position as usize).cloned(),
        }
    }

    fn position(&self, value: &Value) -> Option<u64> {
        match self {
            Self::Cells(domain, _) => domain.index_of(value),
            Self::Cut(values) => values.iter().position(|v| v.same(value)).map(|i| i as u64),
        }
    }
}

impl Lattice {
    /// The lattice of a space. A continuous parameter takes `points` values; `None` if there is one and no `points`.
    pub fn new(space: &SearchSpace, points: Option<u32>) -> Option<Self> {
        let mut axes: Vec<Axis> = Vec::new();
        for parameter in &space.parameters {
            let when = match &parameter.when {
                None => None,
                Some(when) => {
                    let decider = axes.iter().position(|axis| axis.name == when.parameter)?;
                    axes[decider].decides = true;
                    let positions = when.values.iter().filter_map(|value| axes[decider].points.position(value));
                    Some((decider, positions.collect()))
                }
            };
            let points = Points::new(&parameter.domain, points)?;
            axes.push(Axis { name: parameter.name.clone(), points, when, decides: false, asked: Vec::new() });
        }
        for depth in 0..axes.len() {
            let deciders = axes[depth..].iter().filter_map(|axis| axis.when.as_ref().map(|when| when.0));
            let mut asked: Vec<usize> = deciders.filter(|&decider| decider < depth).collect();
            asked.sort_unstable();
            asked.dedup();
            axes[depth].asked = asked;
        }
        let mut lattice = Self { axes, len: 0, sizes: Mutex::default() };
        lattice.len = lattice.size(&mut Vec::new());
        Some(lattice)
    }

    /// How many configurations there are; saturates at the largest number.
    pub fn len(&self) -> u128 {
        self.len
    }

    /// Whether there are no configurations (never: even a space without parameters has the empty one).
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The configuration with a number below [`Lattice::len`].
    pub fn get(&self, mut number: u128) -> Params {
        let mut params = Params::default();
        let mut chosen = Vec::new();
        for (depth, axis) in self.axes.iter().enumerate() {
            if !self.exists(depth, &chosen) {
                chosen.push(None);
                continue;
            }
            let mut position = 0;
            while position < axis.points.len() {
                chosen.push(Some(position));
                let size = self.size(&mut chosen).max(1);
                if number < size {
                    break;
                }
                chosen.pop();
                // Where no condition refers to the axis, all its positions have subtrees of the same size.
                let skip = if axis.decides { 1 } else { u64::try_from(number / size).unwrap_or(u64::MAX) };
                number -= size * u128::from(skip);
                position += skip;
            }
            chosen.truncate(depth);
            chosen.push(Some(position));
            if let Some(value) = axis.points.get(position) {
                params.0.insert(axis.name.clone(), value);
            }
        }
        params
    }

    /// Whether a configuration lies on the lattice.
    pub fn contains(&self, params: &Params) -> bool {
        let mut chosen = Vec::new();
        for (depth, axis) in self.axes.iter().enumerate() {
            let exists = self.exists(depth, &chosen);
            let position = params.get(&axis.name).and_then(|value| axis.points.position(value));
            if exists != position.is_some() {
                return false;
            }
            chosen.push(position);
        }
        chosen.iter().flatten().count() == params.0.len()
    }

    fn exists(&self, depth: usize, chosen: &[Option<u64>]) -> bool {
        match &self.axes[depth].when {
            None => true,
            Some((decider, deciding)) => chosen[*decider].is_some_and(|position| deciding.contains(&position)),
        }
    }

    /// The number of configurations that begin with `chosen`.
    fn size(&self, chosen: &mut Vec<Option<u64>>) -> u128 {
        let depth = chosen.len();
        let Some(axis) = self.axes.get(depth) else { return 1 };
        let branch = (depth, axis.asked.iter().map(|&i| chosen[i]).collect());
        if let Some(&size) = self.sizes.lock().unwrap_or_else(PoisonError::into_inner).get(&branch) {
            return size;
        }
        let mut below = |choice| {
            chosen.push(choice);
            let size = self.size(chosen);
            chosen.pop();
            size
        };
        let exists = match &axis.when {
            None => true,
            Some((decider, deciding)) => {
                let at = axis.asked.binary_search(decider).ok().and_then(|i| branch.1[i]);
                at.is_some_and(|position| deciding.contains(&position))
            }
        };
        let size = if !exists {
            below(None)
        } else if axis.decides {
            (0..axis.points.len()).fold(0u128, |sum, position| sum.saturating_add(below(Some(position))))
        } else {
            below(Some(0)).saturating_mul(u128::from(axis.points.len()))
        };
        self.sizes.lock().unwrap_or_else(PoisonError::into_inner).insert(branch, size);
        size
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::space::{Condition, Parameter};
    use std::collections::BTreeSet;

    fn text(t: &str) -> Value {
        Value::Text(t.into())
    }

    fn parameter(name: &str, domain: Domain, when: Option<(&str, &[&str])>) -> Parameter {
        let when =
            when.map(|(p, values)| Condition { parameter: p.into(), values: values.iter().map(|v| text(v)).collect() });
        Parameter { name: name.into(), domain, when }
    }

    fn choice(names: &[&str]) -> Domain {
        Domain::Categorical { choices: names.iter().map(|n| text(n)).collect() }
    }

    fn conditional() -> SearchSpace {
        SearchSpace {
            parameters: vec![
                parameter("head", choice(&["linear", "hidden"]), None),
                parameter("units", Domain::Int { low: 1, high: 3, step: 1, log: false }, Some(("head", &["hidden"]))),
                parameter("act", choice(&["relu", "swish"]), Some(("head", &["hidden"]))),
                parameter("beta", Domain::Int { low: 1, high: 4, step: 1, log: false }, Some(("act", &["swish"]))),
                parameter("optimiser", choice(&["adamw", "sgd"]), None),
                parameter("fixed", Domain::Fixed { value: Value::Int(3) }, None),
            ],
        }
    }

    #[test]
    fn numbers_and_configurations_correspond_one_to_one() {
        let space = conditional();
        let lattice = Lattice::new(&space, None).unwrap();
        assert_eq!(Some(lattice.len()), space.cardinality());
        let all: BTreeSet<_> = (0..lattice.len()).map(|i| lattice.get(i).digest()).collect();
        assert_eq!(all.len() as u128, lattice.len());
        for i in 0..lattice.len() {
            let params = lattice.get(i);
            assert!(lattice.contains(&params));
            assert_eq!(space.complete(&params).as_ref(), Ok(&params));
        }
    }

    #[test]
    fn a_continuous_parameter_takes_its_ends_and_evenly_spaced_values_on_its_own_scale() {
        let float = |log| Domain::Float { low: 1e-4, high: 1.0, step: None, log };
        let space = SearchSpace { parameters: vec![parameter("rate", float(true), None)] };
        assert!(Lattice::new(&space, None).is_none());
        let lattice = Lattice::new(&space, Some(5)).unwrap();
        let rates: Vec<f64> = (0..5).map(|i| lattice.get(i).get("rate").unwrap().as_f64().unwrap()).collect();
        for (rate, expected) in rates.iter().zip([1e-4, 1e-3, 1e-2, 1e-1, 1.0]) {
            assert!((rate / expected - 1.0).abs() < 1e-9, "{rate} {expected}");
        }
        assert_eq!((rates[0], rates[4]), (1e-4, 1.0));
        assert!(!lattice.contains(&Params([("rate".to_owned(), Value::Float(0.02))].into())));
    }

    #[test]
    fn a_space_of_a_trillion_is_numbered_without_being_listed() {
        let wide = || Domain::Int { low: 1, high: 1_000_000, step: 1, log: false };
        let space = SearchSpace { parameters: vec![parameter("a", wide(), None), parameter("b", wide(), None)] };
        let lattice = Lattice::new(&space, None).unwrap();
        assert_eq!(lattice.len(), 1_000_000_000_000);
        let params = lattice.get(123_456_654_320);
        assert_eq!((params.get("a"), params.get("b")), (Some(&Value::Int(123_457)), Some(&Value::Int(654_321))));
    }
}
