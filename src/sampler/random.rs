//! Independent random draws, keyed by (seed, trial, parameter): adding a parameter leaves the others' draws alone.

use super::{Exhausted, Lattice, Sampler, coding};
use crate::engine::Ledger;
use crate::ids::TrialNumber;
use crate::rng::{Purpose, StreamRng};
use crate::space::{Params, SearchSpace};

/// Redraws before the remaining configurations are looked up one by one.
const REDRAWS: u64 = 100;

#[derive(Debug)]
pub(super) struct Random {
    seed: u64,
    lattice: Option<Lattice>,
}

impl Random {
    pub(super) fn new(space: &SearchSpace, seed: u64) -> Self {
        Self { seed, lattice: Lattice::new(space, None) }
    }

    fn draw(&self, space: &SearchSpace, trial: TrialNumber, attempt: u64) -> Params {
        let counters = [u64::from(trial.0), attempt];
        coding::sample(space, |name| StreamRng::named(self.seed, Purpose::Parameter, name, &counters).unit())
    }
}

impl Sampler for Random {
    fn suggest(&self, space: &SearchSpace, ledger: &Ledger, trial: TrialNumber) -> Result<Params, Exhausted> {
        let fresh = |params: &Params| !ledger.is_used(&coding::digest(params));
        if let Some(params) = (0..REDRAWS).map(|attempt| self.draw(space, trial, attempt)).find(fresh) {
            return Ok(params);
        }
        // Nearly all of a finite space is used: the first free one after a random place.
        let lattice = self.lattice.as_ref().ok_or(Exhausted)?;
        let start = StreamRng::keyed(self.seed, Purpose::Sampler, &[u64::from(trial.0)]).unit() * lattice.len() as f64;
        let numbers = (0..lattice.len()).map(|i| (start as u128 + i) % lattice.len());
        numbers.map(|number| lattice.get(number)).find(fresh).ok_or(Exhausted)
    }

    fn lattice(&self) -> Option<&Lattice> {
        self.lattice.as_ref()
    }
}
