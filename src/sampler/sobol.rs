//! Owen-scrambled Sobol points (Burley 2020): the first 2^m configurations put exactly one into each interval of
//! size 2^-m of every parameter's unit range. Scrambling by the study's seed moves the first point out of the corner.

use super::random::Random;
use super::{Costs, Exhausted, Lattice, Sampler};
use crate::ids::TrialNumber;
use crate::ledger::Ledger;
use crate::rng::{Purpose, StreamRng};
use crate::space::{Params, SearchSpace};

/// Points of one sequence of the `sobol_burley` crate.
const SEQUENCE: u64 = 1 << 16;
/// Dimensions of one sequence of the crate.
const DIMENSIONS: u64 = 256;
/// Points tried before the unused configurations of a finite space are searched one by one.
const PASSED: u64 = 1000;

#[derive(Debug)]
pub(super) struct Sobol {
    seed: u64,
    random: Random,
}

impl Sobol {
    pub(super) fn new(space: &SearchSpace, seed: u64) -> Self {
        Self { seed, random: Random::new(space, seed) }
    }

    /// A coordinate of a point. Beyond the crate's limits, further sequences with seeds of their own follow.
    fn coordinate(&self, point: u64, dimension: u64) -> f64 {
        let part = [point / SEQUENCE, dimension / DIMENSIONS];
        let seed = StreamRng::named(self.seed, Purpose::Sampler, "sobol", &part).below(1 << 32) as u32;
        f64::from(sobol_burley::sample((point % SEQUENCE) as u32, (dimension % DIMENSIONS) as u32, seed))
    }

    fn point(&self, space: &SearchSpace, point: u64) -> Params {
        let unit: Vec<f64> = (0..).zip(space.searched()).map(|(d, _)| self.coordinate(point, d)).collect();
        space.from_unit(&unit)
    }
}

impl Sampler for Sobol {
    fn suggest(
        &self,
        space: &SearchSpace,
        ledger: &Ledger,
        trial: TrialNumber,
        _: Option<Costs<'_>>,
    ) -> Result<Params, Exhausted> {
        let first = u64::from(ledger.started() - ledger.enqueued());
        let mut points = (first..first + PASSED).map(|point| self.point(space, point));
        match points.find(|params| !ledger.is_used(params)) {
            Some(params) => Ok(params),
            None => self.random.any_free(ledger, trial),
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
    fn the_first_two_to_the_m_points_stratify_every_dimension_for_every_seed() {
        for seed in 0..20 {
            let sobol = Sobol::new(&SearchSpace::default(), seed);
            for dimension in [0, 1, 2, 3, 7, 40, 255, 300] {
                for m in 0..9 {
                    let n = 1u64 << m;
                    let mut hits = vec![0; n as usize];
                    for point in 0..n {
                        hits[(sobol.coordinate(point, dimension) * n as f64) as usize] += 1;
                    }
                    assert!(hits.iter().all(|&h| h == 1), "seed {seed}, dimension {dimension}, {n} points");
                }
            }
        }
    }

    #[test]
    fn pairs_of_dimensions_are_filled_evenly() {
        // A (0, m, 2)-net: the first two dimensions put one of 2^m points into every box of area 2^-m.
        for seed in 0..20 {
            let sobol = Sobol::new(&SearchSpace::default(), seed);
            for split in 0..=6u32 {
                let (a, b) = (1u64 << split, 1u64 << (6 - split));
                let mut hits = vec![0; 64];
                for point in 0..64 {
                    let x = (sobol.coordinate(point, 0) * a as f64) as u64;
                    let y = (sobol.coordinate(point, 1) * b as f64) as u64;
                    hits[(x * b + y) as usize] += 1;
                }
                assert!(hits.iter().all(|&h| h == 1), "seed {seed}, {a} x {b}");
            }
        }
    }

    #[test]
    fn trial_zero_is_not_the_corner_and_depends_on_the_seed() {
        let first = |seed| Sobol::new(&SearchSpace::default(), seed).coordinate(0, 0);
        let firsts: Vec<f64> = (0..50).map(first).collect();
        assert!(firsts.iter().all(|&u| u > 0.0));
        let mean = firsts.iter().sum::<f64>() / 50.0;
        assert!((mean - 0.5).abs() < 0.2, "{mean}");
    }
}
