//! How epochs are given to trials. A scheduler holds configuration only; its memory is the [`Ledger`].

mod asha;
mod hyperband;
mod median;
mod none;
mod rungs;
mod sha;

pub use rungs::rung_count;

use crate::ids::{Epoch, TrialNumber};
use crate::ledger::{Bracket, Ledger, StopCurve};
use crate::spec::SchedulerSpec;

/// What a scheduler wants next.
#[derive(Clone, Debug, PartialEq)]
pub enum Next {
    /// A new trial.
    Start { to: Epoch, bracket: u32, rung: Option<u32>, stop: Option<StopCurve> },
    /// A paused trial goes on.
    Resume { trial: TrialNumber, to: Epoch, bracket: u32, rung: u32 },
    /// Nothing until another order retires; the end if none is left.
    Idle,
}

/// Decides who trains for how long, from what is on the ledger alone.
pub trait Scheduler: std::fmt::Debug + Send + Sync {
    /// The brackets of a study that was planned for these totals of trials, one after another as its budget was
    /// raised. Brackets of earlier totals do not change when a total is added.
    fn brackets(&self, totals: &[u32], max_epochs: u32) -> Vec<Bracket>;

    /// The next decision. `Start` only while [`Ledger::may_start`].
    fn next(&self, ledger: &Ledger) -> Next;

    /// How many of the best members of a rung may still be promoted; the rest is out of the race.
    fn contenders(&self, _ledger: &Ledger, _bracket: u32, _rung: u32) -> u32 {
        0
    }

    /// Trials that make one whole plan, where the scheduler knows (hyperband).
    fn whole_plan(&self, _max_epochs: u32) -> Option<u32> {
        None
    }

    /// Whether the running averages of complete trials are looked at.
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
