//! How configurations are proposed. A sampler holds its settings only; its memory is the [`Ledger`].

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
    /// A configuration for `trial` that was not used before.
    ///
    /// # Errors
    /// [`Exhausted`] once every configuration of a finite space was used.
    fn suggest(&self, space: &SearchSpace, ledger: &Ledger, trial: TrialNumber) -> Result<Params, Exhausted>;

    /// The set of configurations that it draws from, if that is finite.
    fn lattice(&self) -> Option<&Lattice>;
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
        SamplerSpec::Tpe { n_startup, n_ei_candidates, .. } => {
            Box::new(tpe::Tpe::new(space, seed, *n_startup, *n_ei_candidates))
        }
    }
}
