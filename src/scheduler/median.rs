//! The median rule (Golovin et al. 2017): a trial is stopped if its best value so far is worse than the median of the
//! running averages of complete trials at the same epoch.
//!
//! The thresholds known when an order is issued are part of it as a [`StopCurve`], so that the decision is on record
//! and the same wherever it is made.

use super::{Next, Scheduler};
use crate::ids::Epoch;
use crate::ledger::{Bracket, Ledger, StopCurve};

#[derive(Debug)]
pub(super) struct Median {
    pub warmup_epochs: u32,
    pub min_trials: u32,
}

impl Median {
    fn curve(&self, ledger: &Ledger) -> Option<StopCurve> {
        let threshold = |epoch: u32| {
            let averages = ledger.averages(Epoch(epoch));
            let enough = averages.len() >= self.min_trials.max(1) as usize;
            enough.then(|| (Epoch(epoch), median(averages)))
        };
        let curve: StopCurve = StopCurve((self.warmup_epochs + 1..ledger.max_epochs).filter_map(threshold).collect());
        (!curve.0.is_empty()).then_some(curve)
    }
}

/// The median of sorted values.
fn median(sorted: &[f64]) -> f64 {
    let (low, high) = (sorted[(sorted.len() - 1) / 2], sorted[sorted.len() / 2]);
    low + (high - low) / 2.0
}

impl Scheduler for Median {
    fn brackets(&self, _: &[u32], _: u32) -> Vec<Bracket> {
        Vec::new()
    }

    fn next(&self, ledger: &Ledger) -> Next {
        if !ledger.may_start() {
            return Next::Idle;
        }
        Next::Start { to: Epoch(ledger.max_epochs), bracket: 0, rung: None, stop: self.curve(ledger) }
    }

    fn wants_averages(&self) -> bool {
        true
    }
}
