//! How epochs are allocated to trials. A scheduler holds its settings only; its memory is the [`Ledger`].

mod asha;
mod hyperband;
mod median;
mod none;
mod sha;

pub use crate::spec::rungs::halvings;

use crate::ids::{Epoch, TrialNumber};
use crate::ledger::{Bracket, Ledger, StopCurve};
use crate::spec::SchedulerSpec;

/// What a scheduler wants next.
#[derive(Clone, Debug, PartialEq)]
pub enum Next {
    /// Start a new trial.
    Start { to: Epoch, bracket: u32, rung: Option<u32>, stop: Option<StopCurve> },
    /// Resume a paused trial.
    Resume { trial: TrialNumber, to: Epoch, bracket: u32, rung: u32 },
    /// Nothing until another order retires; if none is open, the search has ended.
    Idle,
}

/// Decides which trial trains for how long, from the ledger alone.
pub trait Scheduler: std::fmt::Debug + Send + Sync {
    /// The brackets of a study that was planned for these total numbers of trials, one after another as its budget was
    /// raised. Brackets of earlier totals do not change when a total is added.
    fn brackets(&self, totals: &[u32], max_epochs: u32) -> Vec<Bracket>;

    /// The next decision. `Start` only while [`Ledger::may_start`].
    fn next(&self, ledger: &Ledger) -> Next;

    /// How many of the best members of a rung may still be promoted; the others no longer can.
    fn contenders(&self, _ledger: &Ledger, _bracket: u32, _rung: u32) -> u32 {
        0
    }

    /// Trials of one whole plan, where the scheduler defines it (hyperband: one round).
    fn whole_plan(&self, _max_epochs: u32) -> Option<u32> {
        None
    }

    /// Whether it uses the running averages of complete trials.
    fn wants_averages(&self) -> bool {
        false
    }
}

/// The scheduler of a study.
pub fn build(spec: &SchedulerSpec) -> Box<dyn Scheduler> {
    match *spec {
        SchedulerSpec::None => Box::new(none::RunAll),
        SchedulerSpec::Sha { min_resource, reduction_factor } => {
            Box::new(sha::Halving { min_resource, reduction_factor })
        }
        SchedulerSpec::Asha { min_resource, reduction_factor } => {
            Box::new(asha::Asha { min_resource, reduction_factor })
        }
        SchedulerSpec::Hyperband { min_resource, reduction_factor, algorithm1 } => {
            Box::new(hyperband::Hyperband { min_resource, reduction_factor, algorithm1 })
        }
        SchedulerSpec::Median { warmup_epochs, min_trials } => Box::new(median::Median { warmup_epochs, min_trials }),
    }
}
