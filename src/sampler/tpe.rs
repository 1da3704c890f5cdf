//! The tree-structured Parzen estimator (Bergstra et al. 2011), multivariate (Falkner et al. 2018), for spaces with
//! conditions. Split, weights and bandwidths are the defaults of Optuna 5.0; those of Optuna 4 differ (see `parzen`).
//! Unlike there, failed trials count as bad, and no configuration is proposed twice.
//!
//! Trials are ranked by how long they were trained, then by value; the best tenth (at most 25) is *good*, all others
//! are *bad*, including failed trials and those without any result yet (constant liar): so workers that ask at the same
//! time are not sent to the same region. Of the candidates drawn from the good density, the one with the largest
//! ratio of good to bad density is proposed.
//!
//! If it weighs costs, the expected improvement per unit of cost counts instead (Snoek et al. 2012), with the cost's
//! weight falling to nothing as the budget is spent (Lee et al. 2020). Improvement is Bergstra et al.'s eq. 6, up to
//! a constant: 1 / (share of good + share of bad * bad density / good density). Configurations before the first
//! `n_startup` results are drawn in inverse proportion to their weighted cost.

use super::parzen::Parzen;
use super::random::{Random, drawn};
use super::{Costs, Exhausted, Lattice, Sampler};
use crate::ids::TrialNumber;
use crate::ledger::{Ledger, Score};
use crate::rng::{Purpose, StreamRng};
use crate::space::{Params, SearchSpace};
use std::cmp::Reverse;

/// Rounds of candidates to draw before a random configuration is taken; another one only if all were used before.
const ROUNDS: u64 = 8;

#[derive(Debug)]
pub(super) struct Tpe {
    seed: u64,
    n_startup: usize,
    n_ei_candidates: usize,
    cost_aware: bool,
    random: Random,
}

/// The good and the bad configurations, oldest first.
struct Split<'a> {
    good: Vec<&'a Params>,
    bad: Vec<&'a Params>,
    /// The share of good ones, as it was asked for.
    share: f64,
}

impl Tpe {
    pub(super) fn new(space: &SearchSpace, seed: u64, n_startup: u32, n_ei_candidates: u32, cost_aware: bool) -> Self {
        Self {
            seed,
            n_startup: n_startup.max(1) as usize,
            n_ei_candidates: n_ei_candidates.max(1) as usize,
            cost_aware,
            random: Random::new(space, seed),
        }
    }

    /// Divides all configurations into good and bad; `None` before there are `n_startup` results.
    fn split<'a>(&self, ledger: &'a Ledger) -> Option<Split<'a>> {
        let mut ranked = Vec::new();
        let mut bad: Vec<(usize, &Params)> = Vec::new();
        for (age, earlier) in ledger.earlier().iter().enumerate() {
            let score = Score::new(ledger.direction, Some(earlier.value));
            ranked.push((Reverse(earlier.epoch), score, age, &earlier.params));
        }
        let before = ledger.earlier().len();
        let mut known = before;
        for (number, trial) in ledger.trials().iter().enumerate() {
            let score = Score::new(ledger.direction, trial.value);
            if trial.epoch.0 > 0 && !trial.failed && score.is_finite() {
                ranked.push((Reverse(trial.epoch), score, before + number, &*trial.params));
                known += 1;
            } else {
                bad.push((before + number, &*trial.params));
                known += usize::from(trial.failed);
            }
        }
        if ranked.len() < self.n_startup {
            return None;
        }
        ranked.sort_by_key(|&(epoch, score, age, _)| (epoch, score, age));
        let n_good = known.div_ceil(10).min(25).min(ranked.len());
        bad.extend(ranked.split_off(n_good).into_iter().map(|(_, _, age, params)| (age, params)));
        let mut good: Vec<(usize, &Params)> = ranked.into_iter().map(|(_, _, age, params)| (age, params)).collect();
        let by_age = |side: &mut Vec<(usize, &'a Params)>| {
            side.sort_by_key(|&(age, _)| age);
            side.iter().map(|&(_, params)| params).collect()
        };
        let share = n_good as f64 / known.max(1) as f64;
        Some(Split { good: by_age(&mut good), bad: by_age(&mut bad), share })
    }

    /// A configuration before there are results to learn from.
    fn first(
        &self,
        space: &SearchSpace,
        ledger: &Ledger,
        trial: TrialNumber,
        costs: Option<Costs<'_>>,
    ) -> Result<Params, Exhausted> {
        let Some(costs) = costs else { return self.random.suggest(space, ledger, trial, None) };
        // The largest of logarithms of weights, each with Gumbel noise, is a draw by these weights.
        let noise = |attempt: u64| {
            let mut rng = StreamRng::named(self.seed, Purpose::Sampler, "first", &[u64::from(trial.0), attempt]);
            -(-(1.0 - rng.unit()).ln()).ln()
        };
        let draws = (0..self.n_ei_candidates as u64).map(|i| (i, drawn(space, self.seed, trial, i)));
        let fresh = draws.filter(|(_, params)| !ledger.is_used(params));
        match largest(fresh.map(|(i, params)| (noise(i) - costs.weight(&params), params))) {
            Some(params) => Ok(params),
            None => self.random.suggest(space, ledger, trial, None),
        }
    }
}

/// What has the largest value; the first of equals, so that the choice is unique.
fn largest(weighed: impl Iterator<Item = (f64, Params)>) -> Option<Params> {
    weighed.reduce(|a, b| if b.0 > a.0 { b } else { a }).map(|(_, params)| params)
}

impl Sampler for Tpe {
    fn suggest(
        &self,
        space: &SearchSpace,
        ledger: &Ledger,
        trial: TrialNumber,
        costs: Option<Costs<'_>>,
    ) -> Result<Params, Exhausted> {
        let costs = costs.filter(|_| self.cost_aware);
        let Some(split) = self.split(ledger) else { return self.first(space, ledger, trial, costs) };
        let good = Parzen::new(space, &split.good);
        let bad = Parzen::new(space, &split.bad);
        let gain = |params: &Params| {
            let ratio = good.log_density(params) - bad.log_density(params);
            match costs {
                None => ratio,
                Some(costs) => -(split.share + (1.0 - split.share) * (-ratio).exp()).ln() - costs.weight(params),
            }
        };
        for round in 0..ROUNDS {
            let mut rng = StreamRng::named(self.seed, Purpose::Sampler, "tpe", &[u64::from(trial.0), round]);
            let candidates: Vec<Params> = (0..self.n_ei_candidates).map(|_| good.draw(&mut rng)).collect();
            let fresh = candidates.into_iter().filter(|params| !ledger.is_used(params));
            if let Some(best) = largest(fresh.map(|params| (gain(&params), params))) {
                return Ok(best);
            }
        }
        self.random.suggest(space, ledger, trial, None)
    }

    fn lattice(&self) -> Option<&Lattice> {
        self.random.lattice()
    }
}
