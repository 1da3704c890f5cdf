//! Where trials stand, kept up to date event by event.
//!
//! A trial that waits at its rung may fall out of the race by what others reach, without an event of its own. In a rung
//! only the best few may still be promoted ([`Scheduler::contenders`](crate::scheduler::Scheduler::contenders)), so an
//! arrival moves one member at most over that line for each place that it takes: nothing is looked at but the members at
//! the line.

use super::{Engine, TrialProgress, TrialState};
use crate::ids::TrialNumber;
use crate::scheduler::Next;

/// What the states rest on.
#[derive(Clone, Debug, Default)]
pub(super) struct Race {
    /// Nothing is under way and nothing will follow.
    over: bool,
    /// Of the rungs of every bracket that has begun.
    lines: Vec<Vec<Line>>,
    /// Brackets before this one had nothing left to decide.
    settled: usize,
    /// Trials that an event of their own may have moved.
    pub(super) touched: Vec<TrialNumber>,
    /// All may have moved: the plan is another one.
    pub(super) replanned: bool,
    /// Trials whose state the latest event has changed.
    changed: Vec<TrialNumber>,
}

/// The line in a rung beyond which nobody is promoted any more.
#[derive(Clone, Copy, Debug, Default)]
struct Line {
    contenders: u32,
    arrived: u32,
}

impl Engine {
    /// Trials whose state the latest event has changed, without those that it changed back.
    pub fn changed(&self) -> &[TrialNumber] {
        &self.race.changed
    }

    /// The state of a trial derived anew from everything else: [`TrialProgress::state`], at the price of a look around.
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
        // Until its result retires nothing can be said against it.
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

    /// Draws the lines anew in brackets that are under way, or were before the event, and touches the members that have
    /// come to lie on the other side.
    fn move_lines(&mut self) {
        // Promotion without waiting fills more than the seats: its one bracket is never settled for good.
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
