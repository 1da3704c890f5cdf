//! How configurations are proposed. A sampler holds its settings only; its memory is the [`Ledger`].

mod gaussian;
mod gp;
mod grid;
mod lattice;
mod parzen;
mod random;
mod sobol;
mod tpe;

pub use lattice::Lattice;
pub use random::drawn;

use crate::ids::TrialNumber;
use crate::ledger::Ledger;
use crate::space::{Params, SearchSpace};
use crate::spec::SamplerSpec;

/// Proposes configurations, each at most once in a study.
pub trait Sampler: std::fmt::Debug + Send + Sync {
    /// A configuration for `trial` that was not used before. `costs`: what configurations cost, where that is known.
    ///
    /// # Errors
    /// [`Exhausted`] once every configuration of a finite space was used.
    fn suggest(
        &self,
        space: &SearchSpace,
        ledger: &Ledger,
        trial: TrialNumber,
        costs: Option<Costs<'_>>,
    ) -> Result<Params, Exhausted>;

    /// The set of configurations that it draws from, if that is finite.
    fn lattice(&self) -> Option<&Lattice>;
}

/// What configurations cost, for samplers that weigh it.
#[derive(Clone, Copy)]
pub struct Costs<'a> {
    /// The work of the order that a suggested configuration begins with, in any unit.
    pub of: &'a dyn Fn(&Params) -> u64,
    /// The share of the study's budget that is not spent, from 1 at its start to 0.
    pub left: f64,
}

impl Costs<'_> {
    /// How much a cost counts against what it promises: the logarithm of the cost, less and less of it as the budget is
    /// spent ("cost cooling", Lee et al. 2020, eq. 3).
    fn weight(&self, params: &Params) -> f64 {
        self.left.clamp(0.0, 1.0) * ((self.of)(params).max(1) as f64).ln()
    }
}

impl std::fmt::Debug for Costs<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Costs").field("left", &self.left).finish_non_exhaustive()
    }
}

/// Every configuration of a finite space was used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("every configuration of the search space was tried")]
pub struct Exhausted;

/// The sampler of a study.
pub fn build(spec: &SamplerSpec, space: &SearchSpace, seed: u64) -> Box<dyn Sampler> {
    match spec {
        SamplerSpec::Random => Box::new(random::Random::new(space, seed)),
        SamplerSpec::Grid { points } => Box::new(grid::Grid::new(space, *points)),
        SamplerSpec::Sobol => Box::new(sobol::Sobol::new(space, seed)),
        SamplerSpec::Gp { n_startup, .. } => Box::new(gp::Gp::new(space, seed, *n_startup)),
        SamplerSpec::Tpe { n_startup, n_ei_candidates, cost_aware, .. } => {
            Box::new(tpe::Tpe::new(space, seed, *n_startup, *n_ei_candidates, *cost_aware))
        }
    }
}
