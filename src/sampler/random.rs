//! Independent random draws, keyed by (seed, trial, parameter): adding a parameter does not change the others' draws.

use super::{Costs, Exhausted, Lattice, Sampler};
use crate::ids::TrialNumber;
use crate::ledger::Ledger;
use crate::rng::{Purpose, StreamRng};
use crate::space::{Params, SearchSpace};

/// Draws before the unused configurations of a finite space are searched one by one.
const REDRAWS: u64 = 100;

/// The `attempt`-th random draw of a trial, from 0.
pub fn drawn(space: &SearchSpace, seed: u64, trial: TrialNumber, attempt: u64) -> Params {
    let counters = [u64::from(trial.0), attempt];
    space.sample(|name| StreamRng::named(seed, Purpose::Parameter, name, &counters).unit())
}

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
        drawn(space, self.seed, trial, attempt)
    }

    /// The first unused configuration at or after a random place in a finite space.
    pub(super) fn any_free(&self, ledger: &Ledger, trial: TrialNumber) -> Result<Params, Exhausted> {
        let lattice = self.lattice.as_ref().ok_or(Exhausted)?;
        let u = StreamRng::named(self.seed, Purpose::Sampler, "free", &[u64::from(trial.0)]).unit();
        let start = (u * lattice.len() as f64) as u128;
        let mut numbers = (0..lattice.len()).map(|i| start.wrapping_add(i) % lattice.len());
        numbers.by_ref().map(|number| lattice.get(number)).find(|params| !ledger.is_used(params)).ok_or(Exhausted)
    }
}

impl Sampler for Random {
    fn suggest(
        &self,
        space: &SearchSpace,
        ledger: &Ledger,
        trial: TrialNumber,
        _: Option<Costs<'_>>,
    ) -> Result<Params, Exhausted> {
        let mut draws = (0..REDRAWS).map(|attempt| self.draw(space, trial, attempt));
        match draws.find(|params| !ledger.is_used(params)) {
            Some(params) => Ok(params),
            None => self.any_free(ledger, trial),
        }
    }

    fn lattice(&self) -> Option<&Lattice> {
        self.lattice.as_ref()
    }
}
