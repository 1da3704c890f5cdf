//! The states of trials, kept up to date event by event.
//!
//! A trial paused at its rung may lose its chance of promotion through the results of others, without an event of its
//! own. Only the best few members of a rung may still be promoted
//! ([`Scheduler::contenders`](crate::scheduler::Scheduler::contenders)). An arrival pushes at most one member below
//! that line, so only the members near the line are looked at.

use super::{Engine, TrialProgress, TrialState};
use crate::ids::TrialNumber;
use crate::scheduler::Next;

/// What is kept between events to update the states.
#[derive(Clone, Debug, Default)]
pub(super) struct Race {
    /// No order is open and none will follow.
    over: bool,
    /// For every bracket that has begun, the line in each rung.
    lines: Vec<Vec<Line>>,
    /// Brackets before this one had nothing left to decide after the previous event.
    settled: usize,
    /// Trials whose state the current event may have changed.
    pub(super) touched: Vec<TrialNumber>,
    /// The plan has changed: so may the state of any trial.
    pub(super) replanned: bool,
    /// Trials whose state the latest event has changed.
    changed: Vec<TrialNumber>,
}

/// The line in a rung: members after the first `contenders` of those that arrived are no longer promoted.
#[derive(Clone, Copy, Debug, Default)]
struct Line {
    contenders: u32,
    arrived: u32,
}

impl Engine {
    /// Trials whose state the latest event has changed.
    pub fn changed(&self) -> &[TrialNumber] {
        &self.race.changed
    }

    /// The state of a trial computed from scratch: the same as [`TrialProgress::state`], which is kept up to date.
    pub fn derived_state(&self, trial: &TrialProgress) -> TrialState {
        if trial.failure.is_some() {
            return TrialState::Failed;
        }
        if let Some(order) = trial.orders.last().map(|id| &self.orders[id.0 as usize])
            && order.outcome.is_none()
        {
            return if order.running { TrialState::Running } else { TrialState::Waiting };
        }
        if trial.epoch.0 == self.ledger.max_epochs {
            TrialState::Complete
        } else if trial.curve_stopped || !self.may_go_on(trial) {
            TrialState::Stopped
        } else {
            TrialState::Paused
        }
    }

    /// Whether a trial without an open order may get another one.
    fn may_go_on(&self, trial: &TrialProgress) -> bool {
        if self.open.is_empty() && self.next == Next::Idle {
            return false;
        }
        let Some(rung) = trial.rung else { return false };
        // Until its result retires, it counts as promotable.
        if self.ledger.trials()[trial.number.0 as usize].pending {
            return true;
        }
        let Some(members) = self.ledger.bracket(trial.bracket).and_then(|(_, rungs)| rungs.get(rung as usize)) else {
            return false;
        };
        let place = members.place(&self.ledger.standing(trial.number));
        place < self.scheduler.contenders(&self.ledger, trial.bracket, rung)
    }

    /// Brings the states up to date after an event.
    pub(super) fn settle_states(&mut self) {
        let over = self.open.is_empty() && self.next == Next::Idle;
        self.move_lines();
        let all_may_have_moved = over != self.race.over || std::mem::take(&mut self.race.replanned);
        let mut suspects = std::mem::take(&mut self.race.touched);
        if all_may_have_moved {
            suspects.clear();
            suspects.extend(self.trials.iter().map(|trial| trial.number));
        }
        self.race.over = over;
        self.race.changed.clear();
        suspects.sort_unstable();
        suspects.dedup();
        for &number in &suspects {
            let state = self.derived_state(&self.trials[number.0 as usize]);
            let trial = &mut self.trials[number.0 as usize];
            if trial.state != state {
                trial.state = state;
                self.race.changed.push(number);
            }
        }
        suspects.clear();
        self.race.touched = suspects;
    }

    /// Updates the lines in brackets that are open, or were before the event, and marks the members that have crossed
    /// one as touched.
    fn move_lines(&mut self) {
        // In `asha`, rungs take more trials than they have seats: a settled bracket may change again.
        let mut index = self.race.settled.min(self.race.lines.len().saturating_sub(1));
        while let Some((_, rungs)) = self.ledger.bracket(index as u32) {
            if rungs[0].entered == 0 {
                break; // brackets begin one after another
            }
            if self.race.lines.len() == index {
                self.race.lines.push(vec![Line::default(); rungs.len()]);
            }
            for (rung, members) in rungs.iter().enumerate() {
                let contenders = self.scheduler.contenders(&self.ledger, index as u32, rung as u32);
                let arrived = members.finished().len() as u32;
                let old = std::mem::replace(&mut self.race.lines[index][rung], Line { contenders, arrived });
                let from = contenders.min(old.contenders) as usize;
                let to = (contenders.max(old.contenders) + arrived - old.arrived) as usize;
                if (contenders, arrived) != (old.contenders, old.arrived) {
                    self.race.touched.extend(members.finished().iter().take(to).skip(from).map(|ranked| ranked.trial));
                }
            }
            index += 1;
        }
        self.race.settled = self.ledger.settled();
    }
}
