//! Hyperband (Li et al. 2018): brackets of successive halving that trade the number of trials against the epochs
//! each one gets before the first comparison.
//!
//! The paper's Table 1 and its Algorithm 1 differ in how many trials start in bracket s of s_max:
//! floor((s_max + 1) / (s + 1)) * eta^s, and ceil((s_max + 1) / (s + 1) * eta^s). Table 1's brackets end with whole
//! rungs and cost less; they are the default.

use super::{Next, Scheduler, sha};
use crate::ledger::{Bracket, Ledger};
use crate::spec::rungs;

#[derive(Debug)]
pub(super) struct Hyperband {
    pub min_resource: u32,
    pub reduction_factor: u32,
    pub algorithm1: bool,
}

impl Hyperband {
    /// The brackets of one round, the one with most trials first.
    fn round(&self, max_epochs: u32) -> Vec<Bracket> {
        let eta = self.reduction_factor;
        let entrants = rungs::round(self.min_resource, max_epochs, eta, self.algorithm1);
        let bracket =
            |(s, n): (u32, u32)| Bracket { seats: rungs::seats(n, eta, s), epochs: rungs::epochs(max_epochs, eta, s) };
        (0..entrants.len() as u32).rev().zip(entrants).map(bracket).collect()
    }
}

impl Scheduler for Hyperband {
    /// Rounds for the first total, the last bracket cut to the trials that are left; then further rounds for each
    /// raise of the total.
    fn brackets(&self, totals: &[u32], max_epochs: u32) -> Vec<Bracket> {
        let eta = self.reduction_factor;
        let round = self.round(max_epochs);
        let (mut brackets, mut before) = (Vec::new(), 0);
        for &total in totals {
            let mut left = total - before;
            before = total;
            for bracket in round.iter().cycle() {
                if left == 0 {
                    break;
                }
                let n = left.min(bracket.seats[0]);
                left -= n;
                let cut = |(i, &seats): (usize, &u32)| seats.min(rungs::seats_after(n, eta, i as u32));
                let seats = bracket.seats.iter().enumerate().map(cut).collect();
                brackets.push(Bracket { seats, epochs: bracket.epochs.clone() });
            }
        }
        brackets
    }

    fn next(&self, ledger: &Ledger) -> Next {
        sha::next(ledger, self.reduction_factor)
    }

    fn contenders(&self, ledger: &Ledger, bracket: u32, rung: u32) -> u32 {
        sha::contenders(ledger, self.reduction_factor, bracket, rung)
    }

    fn whole_plan(&self, max_epochs: u32) -> Option<u32> {
        Some(self.round(max_epochs).iter().fold(0, |sum, bracket| sum.saturating_add(bracket.seats[0])))
    }
}
