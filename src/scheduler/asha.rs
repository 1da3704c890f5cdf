//! Asynchronous successive halving (Li et al. 2020, Algorithm 2).
//!
//! From the highest rung down, the best member not yet promoted is promoted if it is among the top floor(n / eta) of
//! the n that arrived; if no rung has one, a new trial starts. Failed members count among the n, as the worst.

use super::{Next, Scheduler};
use crate::ids::Epoch;
use crate::ledger::{Bracket, Ledger};
use crate::spec::rungs::{self, halvings};

#[derive(Debug)]
pub(super) struct Asha {
    pub min_resource: u32,
    pub reduction_factor: u32,
}

impl Scheduler for Asha {
    /// One bracket for all trials; its seats are those of synchronous halving.
    fn brackets(&self, totals: &[u32], max_epochs: u32) -> Vec<Bracket> {
        let eta = self.reduction_factor;
        let k = halvings(self.min_resource, max_epochs, eta);
        let total = totals.last().copied().unwrap_or(0);
        vec![Bracket { seats: rungs::seats(total, eta, k), epochs: rungs::epochs(max_epochs, eta, k) }]
    }

    fn next(&self, ledger: &Ledger) -> Next {
        let Some((bracket, rungs)) = ledger.bracket(0) else { return Next::Idle };
        for rung in (0..rungs.len() - 1).rev() {
            let Some((best, place)) = rungs[rung].best_waiting() else { continue };
            if place < rungs[rung].known() / self.reduction_factor {
                let to = Epoch(bracket.epochs[rung + 1]);
                return Next::Resume { trial: best.trial, to, bracket: 0, rung: rung as u32 + 1 };
            }
        }
        if !ledger.may_start() {
            return Next::Idle;
        }
        Next::Start { to: Epoch(bracket.epochs[0]), bracket: 0, rung: Some(0), stop: None }
    }

    /// A member's place in its rung only gets worse, and no more than all planned trials can arrive.
    fn contenders(&self, ledger: &Ledger, bracket: u32, rung: u32) -> u32 {
        match ledger.bracket(bracket) {
            Some((plan, rungs)) if (rung as usize) < rungs.len() - 1 => {
                let most = if ledger.may_start() { plan.seats[0] } else { ledger.started() };
                most / self.reduction_factor
            }
            _ => 0,
        }
    }
}
