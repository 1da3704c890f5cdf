//! Synchronous successive halving (Jamieson and Talwalkar 2016), with promotion as soon as it is certain.
//!
//! In a rung that promotes K members, one is promoted as soon as (arrived and better) + (not yet arrived) < K: it is
//! then among the best K whatever the others reach. So no promotion waits for the rung's last member without need, and
//! promotions do not depend on which trial was faster.

use super::{Next, Scheduler};
use crate::ids::Epoch;
use crate::ledger::{Bracket, Ledger, Rung};
use crate::spec::rungs::{self, halvings};

#[derive(Debug)]
pub(super) struct Halving {
    pub min_resource: u32,
    pub reduction_factor: u32,
}

impl Scheduler for Halving {
    /// One bracket for the first total, one more for each raise.
    fn brackets(&self, totals: &[u32], max_epochs: u32) -> Vec<Bracket> {
        let eta = self.reduction_factor;
        let k = halvings(self.min_resource, max_epochs, eta);
        let epochs = rungs::epochs(max_epochs, eta, k);
        let mut before = 0;
        totals
            .iter()
            .map(|&total| {
                let n = total - before;
                before = total;
                Bracket { seats: rungs::seats(n, eta, k), epochs: epochs.clone() }
            })
            .collect()
    }

    fn next(&self, ledger: &Ledger) -> Next {
        next(ledger, self.reduction_factor)
    }

    fn contenders(&self, ledger: &Ledger, bracket: u32, rung: u32) -> u32 {
        contenders(ledger, self.reduction_factor, bracket, rung)
    }
}

/// The next decision of brackets run one after another, overlapping when there is room: promotions first, the
/// oldest bracket and the highest rung before others, then a new trial in the first bracket with an empty seat.
pub(super) fn next(ledger: &Ledger, eta: u32) -> Next {
    let mut start = None;
    for (index, bracket, rungs) in ledger.open_brackets() {
        let seats = seats(ledger, bracket, rungs, eta);
        for rung in (0..rungs.len() - 1).rev() {
            let Some((best, place)) = rungs[rung].best_waiting() else { continue };
            if place + expected(rungs, &seats, rung) < seats[rung + 1] {
                let to = Epoch(bracket.epochs[rung + 1]);
                return Next::Resume { trial: best.trial, to, bracket: index, rung: rung as u32 + 1 };
            }
        }
        if ledger.may_start() && rungs[0].entered < bracket.seats[0] {
            start = Some(Next::Start { to: Epoch(bracket.epochs[0]), bracket: index, rung: Some(0), stop: None });
            break;
        }
    }
    start.unwrap_or(Next::Idle)
}

/// The seats of each rung: fewer than planned once the space is exhausted.
fn seats(ledger: &Ledger, bracket: &Bracket, rungs: &[Rung], eta: u32) -> Vec<u32> {
    let entered = rungs[0].entered;
    if ledger.may_start() || entered >= bracket.seats[0] {
        return bracket.seats.clone();
    }
    let shrunk = |(i, &n): (usize, &u32)| n.min(rungs::seats_after(entered, eta, i as u32)).min(entered);
    bracket.seats.iter().enumerate().map(shrunk).collect()
}

/// How many may still arrive in a rung: its seats, less members already known, less seats left empty by failures below.
fn expected(rungs: &[Rung], seats: &[u32], rung: usize) -> u32 {
    let mut fillable = seats[0];
    for i in 1..=rung {
        fillable = seats[i].min(fillable.saturating_sub(rungs[i - 1].failed));
    }
    fillable.saturating_sub(rungs[rung].known())
}

/// The seats of the rung above.
pub(super) fn contenders(ledger: &Ledger, eta: u32, bracket: u32, rung: u32) -> u32 {
    let Some((plan, rungs)) = ledger.bracket(bracket) else { return 0 };
    seats(ledger, plan, rungs, eta).get(rung as usize + 1).copied().unwrap_or(0)
}
