//! Every combination, in the order of the lattice.

use super::{Costs, Exhausted, Lattice, Sampler};
use crate::ids::TrialNumber;
use crate::ledger::Ledger;
use crate::space::{Params, SearchSpace};

#[derive(Debug)]
pub(super) struct Grid {
    lattice: Option<Lattice>,
}

impl Grid {
    pub(super) fn new(space: &SearchSpace, points: u32) -> Self {
        Self { lattice: Lattice::new(space, Some(points)) }
    }
}

impl Sampler for Grid {
    fn suggest(
        &self,
        _: &SearchSpace,
        ledger: &Ledger,
        _: TrialNumber,
        _: Option<Costs<'_>>,
    ) -> Result<Params, Exhausted> {
        let lattice = self.lattice.as_ref().ok_or(Exhausted)?;
        // Each trial that was not enqueued took the lowest free number, so none below their count is free.
        let first = u128::from(ledger.started() - ledger.enqueued());
        let mut rest = (first..lattice.len()).map(|number| lattice.get(number));
        rest.find(|params| !ledger.is_used(params)).ok_or(Exhausted)
    }

    fn lattice(&self) -> Option<&Lattice> {
        self.lattice.as_ref()
    }
}
