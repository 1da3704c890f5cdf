//! How epochs are given to trials. A scheduler holds configuration only; its memory is the [`Ledger`].

mod none;
mod rungs;
mod sha;

pub use rungs::{Bracket, rung_count};

use crate::engine::{Ledger, StopCurve};
use crate::ids::{Epoch, TrialNumber};
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

    /// Whether a trial that waits in this rung may still be promoted.
    fn may_promote(&self, _ledger: &Ledger, _trial: TrialNumber, _bracket: u32, _rung: u32) -> bool {
        false
    }

    /// Trials that make one whole plan, where the scheduler knows (hyperband).
    fn whole_plan(&self, _max_epochs: u32) -> Option<u32> {
        None
    }

    /// Whether results change decisions.
    fn learns(&self) -> bool {
        true
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
        _ => Box::new(none::RunAll),
    }
}
