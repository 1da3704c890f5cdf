//! Bayesian optimisation: a Gaussian process of the results, and the configuration with the largest expected improvement
//! (Jones et al. 1998) of it.
//!
//! Values are warped before: those below the median count by their rank only, so that how bad the worst are does not blur the
//! differences between the best (the half-rank warping of Song et al. 2024). Improvement is over the best mean of the process
//! among the trials, not over the best value, which is in part luck. Values of trials that were stopped early are told apart by
//! an axis of the process for the epochs; what is proposed is to be good after all of them. Failed trials count as the worst.
//! Trials without any result yet count as what the process expects of them, so that workers that ask at the same time are not sent
//! to the same place.
//!
//! Candidates are drawn from the whole space and around the best trials; the most promising are then varied in ever smaller
//! steps.

use super::gaussian::{Axis, MOST_FITTED, Process};
use super::random::Random;
use super::{Costs, Exhausted, Lattice, Sampler};
use crate::ids::TrialNumber;
use crate::ledger::{Ledger, Score};
use crate::rng::{Purpose, StreamRng};
use crate::space::{Domain, Params, SearchSpace};
use crate::stats::{cdf, quantile};
use std::cmp::Reverse;
use std::f64::consts::TAU;

/// Most observations that the process is given: the best half of them, and of the others the newest.
const MOST: usize = 300;
/// Candidates from the whole space.
const ANYWHERE: usize = 500;
/// The best trials, and the candidates around each.
const AROUND: (usize, usize) = (10, 50);
/// Candidates that are varied, and variations of each and step.
const VARIED: (usize, usize) = (5, 40);
/// Standard deviations of variations of a coordinate.
const STEPS: [f64; 3] = [0.1, 0.05, 0.02];
/// The share of coordinates that a variation changes.
const CHANGED: f64 = 0.5;

#[derive(Debug)]
pub(super) struct Gp {
    seed: u64,
    n_startup: usize,
    random: Random,
}

/// What is known of a configuration.
struct Known<'a> {
    params: &'a Params,
    /// Epochs that it was trained for.
    epoch: u32,
    /// The objective there; the worst where it failed.
    score: Score,
}

impl Gp {
    pub(super) fn new(space: &SearchSpace, seed: u64, n_startup: u32) -> Self {
        Self { seed, n_startup: n_startup.max(1) as usize, random: Random::new(space, seed) }
    }

    /// The process of the results so far; `None` before there are `n_startup`.
    fn model<'a>(&self, space: &'a SearchSpace, ledger: &'a Ledger) -> Option<Model<'a>> {
        let (mut known, mut unknown) = (Vec::new(), Vec::new());
        for earlier in ledger.earlier() {
            let score = Score::new(ledger.direction, Some(earlier.value));
            known.push(Known { params: &earlier.params, epoch: earlier.epoch.0, score });
        }
        for trial in ledger.trials() {
            let params = &*trial.params;
            let value = trial.value.filter(|_| !trial.failed);
            match Score::new(ledger.direction, value) {
                score if trial.epoch.0 > 0 && score.is_finite() => {
                    known.push(Known { params, epoch: trial.epoch.0, score });
                }
                score if trial.failed => known.push(Known { params, epoch: ledger.max_epochs, score }),
                _ => unknown.push(params),
            }
        }
        if known.iter().filter(|known| known.score.is_finite()).count() < self.n_startup {
            return None;
        }
        let known = chosen(known);
        let unit_of_epoch = |epoch: u32| f64::from(epoch.max(1)).ln() / f64::from(ledger.max_epochs.max(2)).ln();
        let coding = Coding { space, epochs: known.iter().any(|known| known.epoch < ledger.max_epochs) };
        let points: Vec<Vec<f64>> =
            known.iter().map(|known| coding.point(known.params, unit_of_epoch(known.epoch))).collect();
        let gains = warped(&known.iter().map(|known| -known.score.cost()).collect::<Vec<_>>());
        let mut process = Process::new(coding.axes(), points, &gains, MOST_FITTED);
        let mean = |params: &Params| process.mean(&coding.point(params, 1.0));
        let mut best: Vec<(f64, &Params)> = known.iter().map(|known| (mean(known.params), known.params)).collect();
        best.sort_by(|a, b| b.0.total_cmp(&a.0));
        best.truncate(AROUND.0);
        for params in unknown {
            process.believe(coding.point(params, 1.0));
        }
        Some(Model { process, coding, best })
    }
}

/// At most [`MOST`] of what is known, so that any first ones of them are half the best ones and half the newest others.
fn chosen(known: Vec<Known<'_>>) -> Vec<Known<'_>> {
    let mut ranked: Vec<(usize, Known<'_>)> = known.into_iter().enumerate().collect();
    ranked.sort_by_key(|(age, known)| (!known.score.is_finite(), Reverse(known.epoch), known.score, *age));
    let mut others = ranked.split_off(ranked.len().div_ceil(2).min(MOST / 2));
    others.sort_by_key(|(age, _)| Reverse(*age));
    let (mut best, mut others) = (ranked.into_iter(), others.into_iter());
    let mut order = Vec::new();
    while order.len() < MOST {
        let pair = [best.next(), others.next()];
        if pair.iter().all(Option::is_none) {
            break;
        }
        order.extend(pair.into_iter().flatten().map(|(_, known)| known));
    }
    order
}

/// Values, larger ones better, with those below the median replaced by what their rank would be in a normal distribution whose
/// upper half is as wide as theirs; then with mean 0 and variance 1.
fn warped(values: &[f64]) -> Vec<f64> {
    let n = values.len() as f64;
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let median = sorted[sorted.len() / 2];
    let above = values.iter().filter(|&&v| v >= median);
    let width = (above.clone().map(|v| (v - median).powi(2)).sum::<f64>() / above.count() as f64).sqrt();
    let warp = |&value: &f64| {
        if value >= median {
            return value;
        }
        let below = sorted.partition_point(|v| *v < value);
        let equal = sorted.partition_point(|v| *v <= value) - below;
        median + width * quantile((below as f64 + 0.5 * equal as f64) / n)
    };
    let warped: Vec<f64> = values.iter().map(warp).collect();
    let mean = warped.iter().sum::<f64>() / n;
    let deviation = (warped.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n).sqrt();
    warped.iter().map(|v| if deviation > 0.0 { (v - mean) / deviation } else { 0.0 }).collect()
}

/// How configurations become points.
struct Coding<'a> {
    space: &'a SearchSpace,
    /// Whether epochs have an axis.
    epochs: bool,
}

impl Coding<'_> {
    fn axes(&self) -> Vec<Axis> {
        let axis = |domain: &Domain| match domain {
            Domain::Categorical { .. } => Axis::Choice,
            _ => Axis::Ordered,
        };
        self.space.searched().map(|p| axis(&p.domain)).chain(self.epochs.then_some(Axis::Ordered)).collect()
    }

    /// Parameters that do not exist lie in the middle of a range, or are one more choice.
    fn point(&self, params: &Params, epochs: f64) -> Vec<f64> {
        let coordinates = self.space.searched().zip(self.space.to_unit(params)).map(|(parameter, unit)| {
            unit.unwrap_or(if matches!(parameter.domain, Domain::Categorical { .. }) { -1.0 } else { 0.5 })
        });
        coordinates.chain(self.epochs.then_some(epochs)).collect()
    }
}

/// What a proposal is chosen by.
struct Model<'a> {
    process: Process,
    coding: Coding<'a>,
    /// The configurations with the best means after all epochs, best first.
    best: Vec<(f64, &'a Params)>,
}

impl Model<'_> {
    /// Logarithm of the expected improvement.
    fn gain(&self, params: &Params) -> f64 {
        let (mean, variance) = self.process.predict(&self.coding.point(params, 1.0));
        log_improvement(mean - self.best[0].0, variance.sqrt())
    }

    /// A configuration near another one.
    fn varied(&self, params: &Params, deviation: f64, rng: &mut StreamRng) -> Params {
        let space = self.coding.space;
        space.sample(|name| {
            let (changes, u, normal) = (rng.unit() < CHANGED, rng.unit(), f64::from(rng.normal()));
            let parameter = space.get(name);
            let domain = parameter.map(|p| &p.domain);
            match domain.and_then(|domain| Some((domain, domain.to_unit(params.get(name)?)?))) {
                None => u,
                Some((_, unit)) if !changes => unit,
                Some((Domain::Categorical { .. }, _)) => u,
                Some((domain, unit)) => {
                    // A step of discrete values goes to a neighbour at least.
                    let cell = domain.cells().map_or(0.0, |cells| 1.0 / cells as f64);
                    reflected(unit + normal * deviation.max(cell))
                }
            }
        })
    }
}

/// Back into the unit range.
fn reflected(u: f64) -> f64 {
    let u = u.abs();
    if u > 1.0 { (2.0 - u).max(0.0) } else { u }
}

/// Logarithm of the expected improvement of a normally distributed value over 0 (Jones et al. 1998, eq. 15), also where it is
/// below the smallest number.
fn log_improvement(mean: f64, deviation: f64) -> f64 {
    let z = mean / deviation;
    let log_density = -0.5 * z * z - 0.5 * TAU.ln();
    let unit = if z > -6.0 {
        (log_density.exp() + z * cdf(z)).ln()
    } else {
        // The series of Mills' ratio.
        let s = 1.0 / (z * z);
        log_density + s.ln() + (s * (-3.0 + s * (15.0 - 105.0 * s))).ln_1p()
    };
    deviation.ln() + unit
}

impl Sampler for Gp {
    fn suggest(
        &self,
        space: &SearchSpace,
        ledger: &Ledger,
        trial: TrialNumber,
        _: Option<Costs<'_>>,
    ) -> Result<Params, Exhausted> {
        let Some(model) = self.model(space, ledger) else { return self.random.suggest(space, ledger, trial, None) };
        let mut rng = StreamRng::named(self.seed, Purpose::Sampler, "gp", &[u64::from(trial.0)]);
        let mut candidates: Vec<Params> = (0..ANYWHERE).map(|_| space.sample(|_| rng.unit())).collect();
        for (_, params) in &model.best {
            candidates.extend((0..AROUND.1).map(|_| model.varied(params, STEPS[0], &mut rng)));
        }
        let rated = |candidates: Vec<Params>| {
            let fresh = candidates.into_iter().filter(|params| !ledger.is_used(params));
            let mut rated: Vec<(f64, Params)> = fresh.map(|params| (model.gain(&params), params)).collect();
            // A stable sort: of equals the first drawn is first.
            rated.sort_by(|a, b| b.0.total_cmp(&a.0));
            rated
        };
        let mut best = rated(candidates);
        best.truncate(VARIED.0);
        for deviation in STEPS {
            for place in &mut best {
                let variations = (0..VARIED.1).map(|_| model.varied(&place.1, deviation, &mut rng)).collect();
                match rated(variations).into_iter().next() {
                    Some(better) if better.0 > place.0 => *place = better,
                    _ => {}
                }
            }
        }
        match best.into_iter().reduce(|a, b| if b.0 > a.0 { b } else { a }) {
            Some((_, params)) => Ok(params),
            None => self.random.suggest(space, ledger, trial, None),
        }
    }

    fn lattice(&self) -> Option<&Lattice> {
        self.random.lattice()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_below_the_median_count_by_their_rank() {
        let values = [0.0, 1.0, 2.0, 3.0, 4.0, -1e9, f64::NEG_INFINITY];
        let found = warped(&values);
        let mean = found.iter().sum::<f64>() / 7.0;
        let variance = found.iter().map(|v| v * v).sum::<f64>() / 7.0;
        assert!(mean.abs() < 1e-12 && (variance - 1.0).abs() < 1e-12);
        // The upper half keeps its proportions; the median is 1, the width (0 + 1 + 4 + 9) / 4.
        assert!((found[3] - found[2] - (found[4] - found[3])).abs() < 1e-12);
        let unit = found[4] - found[3];
        for (i, share) in [(0, 2.5), (5, 1.5), (6, 0.5)] {
            let expected = f64::sqrt(3.5) * quantile(share / 7.0);
            assert!(((found[i] - found[1]) / unit - expected).abs() < 1e-12, "{found:?}");
        }
        assert_eq!(warped(&[2.0; 5]), [0.0; 5]);
    }

    #[test]
    fn the_logarithm_of_the_expected_improvement_has_no_bounds_and_no_step() {
        // scipy: log(norm.pdf(z) + z * norm.cdf(z)).
        for (z, expected) in
            [(0.0, -0.918_938_533_204_672_7), (-2.0, -4.768_783_523_917_11), (3.0, 1.098_739_665_327_707_7)]
        {
            assert!((log_improvement(z, 1.0) - expected).abs() < 1e-9, "{z} {}", log_improvement(z, 1.0));
        }
        let (above, below) = (log_improvement(-6.0 + 1e-9, 1.0), log_improvement(-6.0 - 1e-9, 1.0));
        assert!((above - below).abs() < 2e-3, "{above} {below}");
        assert!(log_improvement(-60.0, 1.0) < -1800.0 && log_improvement(-60.0, 1.0).is_finite());
        assert!((log_improvement(-1.0, 2.0) - (log_improvement(-0.5, 1.0) + 2f64.ln())).abs() < 1e-12);
    }

    #[test]
    fn the_best_and_the_newest_are_chosen_among_many() {
        let params = Params::default();
        // The best are the oldest.
        let known = |n: u32| {
            let known = |i: u32| Known {
                params: &params,
                epoch: 9,
                score: Score::new(crate::spec::Direction::Minimize, Some(f64::from(i))),
            };
            (0..n).map(known).collect::<Vec<_>>()
        };
        let costs = |n: u32| chosen(known(n)).iter().map(|k| k.score.cost()).collect::<Vec<_>>();
        assert_eq!(costs(5), [0.0, 4.0, 1.0, 3.0, 2.0]);
        let many = costs(1000);
        assert_eq!((many.len(), &many[..4]), (MOST, &[0.0, 999.0, 1.0, 998.0][..]));
    }
}
