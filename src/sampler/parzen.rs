//! Parzen estimators over a space with conditions: a mixture of products of one-dimensional kernels.
//!
//! Every observed configuration is a component of the mixture, and so is a prior broad enough to cover the whole space.
//! In a dimension that its configuration does not have, a component has the prior's kernel. A configuration's density
//! is the sum over components of the product over the dimensions that exist *in it*, so configurations with different
//! parameters share one joint density. To draw from a component, the parameters are drawn in their order.
//!
//! Kernels after Bergstra et al. (2011) with the bandwidths of Optuna 5.0: the larger gap to a neighbour, at least
//! 1 / min(100, kernels + 1) of the range; truncated to the range, integrated over a cell where values are discrete.
//! The gaps are those of each dimension, however many there are. Optuna 4 has them in its univariate estimator only,
//! where older versions count the prior's mean as a neighbour too; in its multivariate one all kernels of a dimension
//! have one bandwidth, which falls with their number.

use crate::rng::StreamRng;
use crate::space::{Domain, Params, SearchSpace, Value};
use crate::stats::{cdf, quantile};
use std::collections::BTreeMap;

/// Weight of the prior, against 1 for a full observation.
const PRIOR_WEIGHT: f64 = 1.0;
/// Number of newest observations with full weight; the weights of older ones fall linearly (Optuna's default).
const FULL_WEIGHT: usize = 25;

/// Cells below this width, in standard deviations, count as narrow.
const NARROW: f64 = 0.05;
/// A cell counts as far if its nearer edge is more than this many standard deviations from the mean.
const FAR: f64 = 6.0;

/// A density over the configurations of a space.
pub(super) struct Parzen<'a> {
    space: &'a SearchSpace,
    /// Log weights of the components, the prior last.
    log_weights: Vec<f64>,
    /// Running sums of the weights.
    cumulative: Vec<f64>,
    /// One per parameter of the space.
    dimensions: Vec<Dimension>,
}

enum Dimension {
    /// The distinct kernels on the unit range, and which of them each component has. Discrete values have few distinct
    /// kernels, however many observations there are.
    Range { kernels: Vec<Kernel>, of: Vec<u32> },
    /// The observed choice of each component (`None`: the prior), the number of choices, and the probabilities that
    /// a component gives to its own choice and to each other one.
    Choice { observed: Vec<Option<usize>>, n: usize, own: f64, other: f64 },
    /// Always the same value.
    Fixed,
}

/// A normal distribution truncated to [0, 1].
#[derive(Clone, Copy)]
struct Kernel {
    mean: f64,
    deviation: f64,
    /// The untruncated distribution function at 0.
    below: f64,
    /// The untruncated mass on [0, 1].
    mass: f64,
    /// Logarithm of 1 / (mass * deviation * sqrt(2 pi)).
    log_scale: f64,
}

impl Kernel {
    fn new(mean: f64, deviation: f64) -> Self {
        let below = cdf(-mean / deviation);
        let mass = cdf((1.0 - mean) / deviation) - below;
        let log_scale = -(mass * deviation * std::f64::consts::TAU.sqrt()).ln();
        Self { mean, deviation, below, mass, log_scale }
    }

    fn prior() -> Self {
        Self::new(0.5, 1.0)
    }

    fn draw(&self, u: f64) -> f64 {
        let x = self.mean + self.deviation * quantile(self.below + u * self.mass);
        if x.is_finite() { x.clamp(0.0, 1.0) } else { self.mean }
    }

    fn log_density(&self, at: Place) -> f64 {
        match at {
            Place::Point(x) => {
                let z = (x - self.mean) / self.deviation;
                self.log_scale - 0.5 * z * z
            }
            Place::Cell(low, high) => {
                let (width, z) = ((high - low) / self.deviation, (0.5 * (low + high) - self.mean) / self.deviation);
                if width < NARROW || z.abs() - 0.5 * width > FAR {
                    // The density at the middle times the width, for a narrow cell with the second-order term.
                    // A far cell needs no better: the prior's component outweighs this one a millionfold there.
                    let bend = if width < NARROW { (width * width * (z * z - 1.0) / 24.0).ln_1p() } else { 0.0 };
                    return self.log_scale - 0.5 * z * z + (high - low).ln() + bend;
                }
                let to = |x: f64| cdf((x - self.mean) / self.deviation);
                ((to(high) - to(low)).max(f64::MIN_POSITIVE) / self.mass).ln()
            }
        }
    }
}

/// The centre of a value's kernel on the unit range: the value itself, which for whole numbers on a logarithmic scale
/// is not quite the middle of its cell.
fn mean(domain: &Domain, value: &Value) -> Option<f64> {
    match domain {
        Domain::Int { low, high, log: true, .. } => {
            let (a, b) = log_edges(*low, *high);
            Some((value.as_f64()?.ln() - a) / (b - a))
        }
        _ => domain.to_unit(value),
    }
}

/// Logarithms of the outer edges of the cells of whole numbers.
fn log_edges(low: i64, high: i64) -> (f64, f64) {
    ((low as f64 - 0.5).ln(), (high as f64 + 0.5).ln())
}

/// Where a value lies in a dimension: at a point, or in a cell if values are discrete.
#[derive(Clone, Copy)]
enum Place {
    Point(f64),
    Cell(f64, f64),
}

/// The place of a value on the unit range of an ordered domain.
fn place(domain: &Domain, value: &Value) -> Option<Place> {
    let u = domain.to_unit(value)?;
    Some(match (domain, domain.cells()) {
        (Domain::Int { low, high, log: true, .. }, _) => {
            let (a, b) = log_edges(*low, *high);
            let x = value.as_f64()?;
            Place::Cell(((x - 0.5).ln() - a) / (b - a), ((x + 0.5).ln() - a) / (b - a))
        }
        (_, Some(cells)) => {
            let half = 0.5 / cells as f64;
            Place::Cell(u - half, u + half)
        }
        (_, None) => Place::Point(u),
    })
}

impl<'a> Parzen<'a> {
    /// The density estimated from configurations, oldest first.
    pub(super) fn new(space: &'a SearchSpace, observed: &[&Params]) -> Self {
        let mut weights = fading(observed.len());
        weights.push(PRIOR_WEIGHT);
        let total: f64 = weights.iter().sum();
        let cumulative = weights
            .iter()
            .scan(0.0, |sum, w| {
                *sum += w / total;
                Some(*sum)
            })
            .collect();
        let log_weights = weights.iter().map(|w| (w / total).ln()).collect();
        let dimensions = space.parameters.iter().map(|p| Dimension::new(&p.name, &p.domain, observed)).collect();
        Self { space, log_weights, cumulative, dimensions }
    }

    /// Draws a configuration.
    pub(super) fn draw(&self, rng: &mut StreamRng) -> Params {
        let u = rng.unit();
        let component = self.cumulative.partition_point(|&sum| sum <= u).min(self.cumulative.len() - 1);
        let mut params = Params::default();
        for (parameter, dimension) in self.space.parameters.iter().zip(&self.dimensions) {
            // Drawn even where not needed, so that whether a parameter exists does not change the others' draws.
            let u = rng.unit();
            if self.space.is_active(parameter, &params) {
                params.0.insert(parameter.name.clone(), dimension.draw(&parameter.domain, component, u));
            }
        }
        params
    }

    /// Logarithm of the density of a configuration.
    pub(super) fn log_density(&self, params: &Params) -> f64 {
        let mut logs = self.log_weights.clone();
        for (parameter, dimension) in self.space.parameters.iter().zip(&self.dimensions) {
            if let Some(value) = params.get(&parameter.name) {
                dimension.add_log_density(&parameter.domain, value, &mut logs);
            }
        }
        let most = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        most + logs.iter().map(|log| (log - most).exp()).sum::<f64>().ln()
    }
}

impl Dimension {
    fn new(name: &str, domain: &Domain, observed: &[&Params]) -> Self {
        let values = || observed.iter().map(|params| params.get(name));
        match domain {
            Domain::Fixed { .. } => Self::Fixed,
            Domain::Categorical { choices } => {
                let index = |value: &Value| domain.index_of(value).map(|i| i as usize);
                let mut observed: Vec<Option<usize>> = values().map(|v| v.and_then(index)).collect();
                observed.push(None);
                let n = choices.len();
                // A kernel is 1 at its own choice plus the prior's share at every choice, normalised.
                let share = PRIOR_WEIGHT / observed.len() as f64;
                let whole = 1.0 + share * n as f64;
                Self::Choice { observed, n, own: ((1.0 + share) / whole), other: share / whole }
            }
            _ => {
                let means: Vec<Option<f64>> = values().map(|v| v.and_then(|v| mean(domain, v))).collect();
                let mut shapes: Vec<Option<(f64, f64)>> =
                    means.iter().zip(deviations(&means)).map(|(mean, deviation)| mean.zip(Some(deviation))).collect();
                shapes.push(None);
                Self::range(&shapes, domain.cells().is_some())
            }
        }
    }

    /// Kernels with these means and standard deviations; `None`: the prior's. `alike`: many are the same.
    fn range(shapes: &[Option<(f64, f64)>], alike: bool) -> Self {
        let kernel = |shape: &Option<(f64, f64)>| {
            shape.map_or_else(Kernel::prior, |(mean, deviation)| Kernel::new(mean, deviation))
        };
        if !alike {
            return Self::Range {
                kernels: shapes.iter().map(kernel).collect(),
                of: (0..shapes.len() as u32).collect(),
            };
        }
        let mut kernels = Vec::new();
        let mut known: BTreeMap<Option<(u64, u64)>, u32> = BTreeMap::new();
        let of = shapes
            .iter()
            .map(|shape| {
                let bits = shape.map(|(mean, deviation)| (mean.to_bits(), deviation.to_bits()));
                *known.entry(bits).or_insert_with(|| {
                    kernels.push(kernel(shape));
                    kernels.len() as u32 - 1
                })
            })
            .collect();
        Self::Range { kernels, of }
    }

    fn draw(&self, domain: &Domain, component: usize, u: f64) -> Value {
        match self {
            Self::Fixed => domain.from_unit(0.0),
            Self::Range { kernels, of } => domain.from_unit(kernels[of[component] as usize].draw(u)),
            Self::Choice { observed, n, own, other } => {
                let Some(choice) = observed[component] else { return domain.from_unit(u) };
                // First the extra weight of its own choice, then all choices equally.
                let extra = own - other;
                if u < extra {
                    domain.from_unit((choice as f64 + 0.5) / *n as f64)
                } else {
                    domain.from_unit((u - extra) / (1.0 - extra))
                }
            }
        }
    }

    /// Adds each component's log density of a value to `logs`.
    fn add_log_density(&self, domain: &Domain, value: &Value, logs: &mut [f64]) {
        match self {
            Self::Fixed => {}
            Self::Range { kernels, of } => {
                let Some(place) = place(domain, value) else { return };
                let densities: Vec<f64> = kernels.iter().map(|kernel| kernel.log_density(place)).collect();
                for (log, &kernel) in logs.iter_mut().zip(of) {
                    *log += densities[kernel as usize];
                }
            }
            Self::Choice { observed, n, own, other } => {
                let index = domain.index_of(value).map(|i| i as usize);
                let (own, other, even) = (own.ln(), other.ln(), -(*n as f64).ln());
                for (log, choice) in logs.iter_mut().zip(observed) {
                    *log += match choice {
                        None => even,
                        Some(_) if *choice == index => own,
                        Some(_) => other,
                    };
                }
            }
        }
    }
}

/// Weights by age, oldest first: 1 for the newest 25, falling linearly to 1 / n for the oldest (Optuna's default).
fn fading(n: usize) -> Vec<f64> {
    let ramp = n.saturating_sub(FULL_WEIGHT);
    let low = 1.0 / n.max(1) as f64;
    (0..n)
        .map(|i| match ramp {
            _ if i >= ramp => 1.0,
            1 => low,
            _ => low + (1.0 - low) * i as f64 / (ramp - 1) as f64,
        })
        .collect()
}

/// Bandwidths on the unit range: the larger gap to a neighbour (the ends of the range are neighbours only of a single
/// observation, the prior's mean of none); at least 1 / min(100, kernels + 1), the prior's among the kernels; at most
/// 1. Observations without a value get 1.
fn deviations(means: &[Option<f64>]) -> Vec<f64> {
    let mut sorted: Vec<(f64, usize)> = means.iter().enumerate().filter_map(|(i, m)| m.map(|m| (m, i))).collect();
    sorted.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    let least = 1.0 / (sorted.len() as f64 + 2.0).min(100.0);
    let mut deviations = vec![1.0; means.len()];
    let n = sorted.len();
    for (at, &(mean, index)) in sorted.iter().enumerate() {
        let left = if at > 0 { mean - sorted[at - 1].0 } else { mean };
        let right = if at + 1 < n { sorted[at + 1].0 - mean } else { 1.0 - mean };
        let gap = match (at, n) {
            (_, 1) => left.max(right),
            (0, _) => right,
            (last, _) if last == n - 1 => left,
            _ => left.max(right),
        };
        deviations[index] = gap.clamp(least, 1.0);
    }
    deviations
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Purpose;
    use crate::space::{Condition, Parameter};

    fn parameter(name: &str, domain: Domain, when: Option<(&str, &str)>) -> Parameter {
        let when = when.map(|(parameter, value)| Condition {
            parameter: parameter.into(),
            values: vec![Value::Text(value.into())],
        });
        Parameter { name: name.into(), domain, when }
    }

    fn choice(names: &[&str]) -> Domain {
        Domain::Categorical { choices: names.iter().map(|&n| Value::Text(n.into())).collect() }
    }

    #[derive(serde::Deserialize)]
    struct Case {
        observed: Vec<Params>,
        samples: Vec<Params>,
        log_pdf: Vec<f64>,
    }

    #[test]
    fn densities_are_those_of_optuna() {
        let space = SearchSpace {
            parameters: vec![
                parameter("x", Domain::Float { low: 0.0, high: 1.0, step: None, log: false }, None),
                parameter("rate", Domain::Float { low: 1.0, high: std::f64::consts::E, step: None, log: true }, None),
                parameter("layers", Domain::Int { low: 1, high: 9, step: 2, log: false }, None),
                parameter("units", Domain::Int { low: 8, high: 512, step: 1, log: true }, None),
                parameter("dropout", Domain::Float { low: 0.0, high: 0.5, step: Some(0.1), log: false }, None),
                parameter("act", choice(&["relu", "swish", "tanh"]), None),
            ],
        };
        let cases: Vec<Case> = serde_json::from_str(include_str!("../../tests/data/parzen.json")).unwrap();
        assert_eq!(cases.len(), 5);
        for case in cases {
            let parzen = Parzen::new(&space, &case.observed.iter().collect::<Vec<_>>());
            for (params, expected) in case.samples.iter().zip(&case.log_pdf) {
                let found = parzen.log_density(params);
                assert!((found - expected).abs() < 1e-6, "{} observed: {found} {expected}", case.observed.len());
            }
        }
    }

    fn conditional() -> SearchSpace {
        SearchSpace {
            parameters: vec![
                parameter("head", choice(&["linear", "hidden"]), None),
                parameter("units", Domain::Int { low: 1, high: 40, step: 1, log: true }, Some(("head", "hidden"))),
                parameter("act", choice(&["relu", "swish"]), Some(("head", "hidden"))),
                parameter("beta", Domain::Int { low: 1, high: 4, step: 1, log: false }, Some(("act", "swish"))),
                parameter("layers", Domain::Int { low: 1, high: 7, step: 3, log: false }, None),
            ],
        }
    }

    /// Every configuration of the finite conditional space.
    fn all(space: &SearchSpace) -> Vec<Params> {
        let lattice = crate::sampler::Lattice::new(space, None).unwrap();
        (0..lattice.len()).map(|i| lattice.get(i)).collect()
    }

    #[test]
    fn the_density_of_a_conditional_space_sums_to_one_and_matches_the_draws() {
        let space = conditional();
        let all = all(&space);
        let observed: Vec<&Params> = all.iter().step_by(31).collect();
        let parzen = Parzen::new(&space, &observed);
        let density: Vec<f64> = all.iter().map(|params| parzen.log_density(params).exp()).collect();
        let total: f64 = density.iter().sum();
        // Narrow and far cells are approximated at their middle, which is accurate to this.
        assert!((total - 1.0).abs() < 1e-6, "{total}");
        let mut rng = StreamRng::keyed(3, Purpose::Test, &[]);
        let (n, mut hits) = (40_000, std::collections::HashMap::new());
        for _ in 0..n {
            *hits.entry(parzen.draw(&mut rng).digest()).or_insert(0u32) += 1;
        }
        // Pearson's statistic over the configurations expected at least 20 times: its mean is their number.
        let (mut statistic, mut cells) = (0.0, 0.0);
        for (params, density) in all.iter().zip(density) {
            let expected = density * f64::from(n);
            if expected >= 20.0 {
                let found = f64::from(hits.get(&params.digest()).copied().unwrap_or(0));
                statistic += (found - expected).powi(2) / expected;
                cells += 1.0;
            }
        }
        assert!(cells > 50.0 && statistic < cells + 5.0 * (2.0 * f64::sqrt(cells)), "{statistic} {cells}");
    }

    #[test]
    fn draws_stay_in_the_space() {
        let space = conditional();
        let all = all(&space);
        let parzen = Parzen::new(&space, &all.iter().take(20).collect::<Vec<_>>());
        let mut rng = StreamRng::keyed(4, Purpose::Test, &[]);
        for _ in 0..2000 {
            let params = parzen.draw(&mut rng);
            assert_eq!(space.complete(&params).as_ref(), Ok(&params));
        }
    }

    #[test]
    fn old_observations_fade() {
        assert_eq!(fading(3), [1.0; 3]);
        let weights = fading(45);
        // numpy.linspace(1 / 45, 1, 20), then 25 ones.
        assert!((weights[0] - 1.0 / 45.0).abs() < 1e-15 && (weights[19] - 1.0).abs() < 1e-15);
        assert!(weights[20..].iter().all(|&w| w == 1.0));
        assert!((weights[1] - (1.0 / 45.0 + 44.0 / 45.0 / 19.0)).abs() < 1e-15);
        assert!((fading(26)[0] - 1.0 / 26.0).abs() < 1e-15);
    }
}
