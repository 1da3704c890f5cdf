//! The finite set of configurations that a grid, or a space without continua, holds: counted, numbered, walked.

use super::coding;
use crate::space::{Domain, Params, SearchSpace, Value};
use std::collections::HashMap;
use std::sync::Mutex;

/// The configurations of a space whose every parameter takes finitely many values, numbered from 0 with the last
/// parameter changing fastest. A conditional parameter multiplies only where it exists.
#[derive(Debug)]
pub struct Lattice {
    axes: Vec<Axis>,
    len: u128,
    /// Sizes of subtrees, by depth and by those earlier choices that later conditions ask for.
    sizes: Mutex<HashMap<(usize, Vec<Option<usize>>), u128>>,
}

#[derive(Debug)]
struct Axis {
    name: String,
    values: Vec<Value>,
    /// The axis that decides whether this one exists, and its deciding indices.
    when: Option<(usize, Vec<usize>)>,
    /// Earlier axes that this or a later axis asks for.
    asked: Vec<usize>,
}

/// More values than this on one axis count as a continuum.
const MOST_VALUES: u64 = 1 << 16;

impl Lattice {
    /// The lattice of a space; a continuum is cut into `points` values, or makes it `None` without `points`.
    pub fn new(space: &SearchSpace, points: Option<u32>) -> Option<Self> {
        let mut axes: Vec<Axis> = Vec::new();
        for parameter in &space.parameters {
            let values = values(&parameter.domain, points)?;
            let when = match &parameter.when {
                None => None,
                Some(when) => {
                    let decider = axes.iter().position(|a| a.name == when.parameter)?;
                    let deciding = 0..axes[decider].values.len();
                    Some((decider, deciding.filter(|&i| when.values.contains(&axes[decider].values[i])).collect()))
                }
            };
            axes.push(Axis { name: parameter.name.clone(), values, when, asked: Vec::new() });
        }
        for depth in 0..axes.len() {
            let mut asked: Vec<usize> =
                axes[depth..].iter().filter_map(|a| a.when.as_ref().map(|w| w.0)).filter(|&d| d < depth).collect();
            asked.sort_unstable();
            asked.dedup();
            axes[depth].asked = asked;
        }
        let mut lattice = Self { axes, len: 0, sizes: Mutex::default() };
        lattice.len = lattice.size(0, &mut Vec::new());
        Some(lattice)
    }

    /// How many configurations there are.
    pub fn len(&self) -> u128 {
        self.len
    }

    /// Whether there are none (never: a space has at least the empty configuration).
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The configuration of a number below [`Lattice::len`].
    pub fn get(&self, mut number: u128) -> Params {
        let mut params = Params::default();
        let mut chosen = Vec::new();
        for (depth, axis) in self.axes.iter().enumerate() {
            if !self.exists(depth, &chosen) {
                chosen.push(None);
                continue;
            }
            for index in 0..axis.values.len() {
                chosen.push(Some(index));
                let size = self.size(depth + 1, &mut chosen);
                if number < size {
                    params.0.insert(axis.name.clone(), axis.values[index].clone());
                    break;
                }
                number -= size;
                chosen.pop();
            }
        }
        params
    }

    /// Whether a configuration lies on the lattice.
    pub fn contains(&self, params: &Params) -> bool {
        let mut chosen = Vec::new();
        let mut found = 0;
        for (depth, axis) in self.axes.iter().enumerate() {
            if !self.exists(depth, &chosen) {
                chosen.push(None);
                continue;
            }
            let index = params.get(&axis.name).and_then(|value| axis.values.iter().position(|v| v == value));
            if index.is_none() {
                return false;
            }
            found += 1;
            chosen.push(index);
        }
        found == params.0.len()
    }

    fn exists(&self, depth: usize, chosen: &[Option<usize>]) -> bool {
        match &self.axes[depth].when {
            None => true,
            Some((decider, deciding)) => chosen[*decider].is_some_and(|index| deciding.contains(&index)),
        }
    }

    /// Configurations below `chosen`.
    fn size(&self, depth: usize, chosen: &mut Vec<Option<usize>>) -> u128 {
        if depth == self.axes.len() {
            return 1;
        }
        let key = (depth, self.axes[depth].asked.iter().map(|&i| chosen[i]).collect());
        if let Some(&size) = self.sizes.lock().unwrap_or_else(std::sync::PoisonError::into_inner).get(&key) {
            return size;
        }
        let mut size = 0u128;
        let later =
            |lattice: &Self| lattice.axes[depth + 1..].iter().any(|a| a.when.as_ref().is_some_and(|w| w.0 == depth));
        if !self.exists(depth, chosen) {
            chosen.push(None);
            size = self.size(depth + 1, chosen);
            chosen.pop();
        } else if later(self) {
            for index in 0..self.axes[depth].values.len() {
                chosen.push(Some(index));
                size = size.saturating_add(self.size(depth + 1, chosen));
                chosen.pop();
            }
        } else {
            chosen.push(Some(0));
            size = self.size(depth + 1, chosen).saturating_mul(self.axes[depth].values.len() as u128);
            chosen.pop();
        }
        self.sizes.lock().unwrap_or_else(std::sync::PoisonError::into_inner).insert(key, size);
        size
    }
}

/// The values of a domain, or of its cut.
fn values(domain: &Domain, points: Option<u32>) -> Option<Vec<Value>> {
    let n = match coding::levels(domain) {
        Some(n) if n <= MOST_VALUES => {
            return Some(match domain {
                Domain::Int { low, step, .. } => (0..n as i64).map(|i| Value::Int(low + step * i)).collect(),
                _ => (0..n).map(|i| coding::from_unit(domain, (i as f64 + 0.5) / n as f64)).collect(),
            });
        }
        _ => points?.max(1),
    };
    // Ends included; a single point sits in the middle.
    let at = |i: u32| if n == 1 { 0.5 } else { f64::from(i) / f64::from(n - 1) };
    let mut values: Vec<Value> = (0..n).map(|i| coding::from_unit(domain, at(i))).collect();
    values.dedup();
    Some(values)
}
