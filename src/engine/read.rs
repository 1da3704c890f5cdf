//! Read access to the engine.

use super::trial::{EpochFiles, OrderProgress, TrialProgress, TrialState};
use super::{Engine, FailureClass, FileRef, Greeting, Outcome, WarmStart, WorkOrder};
use crate::digest::Digest;
use crate::ids::{Epoch, OrderId, TrialNumber};
use crate::ledger::{Ledger, Place};
use std::collections::{BTreeMap, BTreeSet};

/// Number of best complete trials whose last checkpoint is kept, to be scored on the test images.
const KEPT_FINALS: usize = 5;

/// An order that was issued and has no outcome yet.
#[derive(Clone, Debug)]
pub struct OpenOrder<'a> {
    /// The order as issued.
    pub order: WorkOrder,
    /// Its attempts so far, lost ones by class, and its worker.
    pub record: &'a OrderProgress,
    /// The newest checkpoints of the trial, newest first: where the next attempt may begin. Empty: at epoch 0.
    pub checkpoints: Vec<&'a EpochFiles>,
}

impl OpenOrder<'_> {
    /// The number of the next attempt.
    pub fn next_attempt(&self) -> u32 {
        self.record.attempts + 1
    }
}

/// What follows a lost attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// Record `AttemptLost`; the order awaits a worker again.
    Retry,
    /// Record `OrderFinished` with [`Outcome::Failed`].
    Fail,
}

/// The best trial.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Best {
    /// Its number.
    pub trial: TrialNumber,
    /// Its objective.
    pub value: f64,
    /// Epochs it has trained; less than the full number while no trial is complete.
    pub epoch: Epoch,
}

/// A checkpoint that may still be needed.
#[derive(Clone, Debug, PartialEq)]
pub struct NeededCheckpoint<'a> {
    /// The trial.
    pub trial: TrialNumber,
    /// The epoch.
    pub epoch: Epoch,
    /// The file.
    pub file: &'a FileRef,
    /// What it is needed for.
    pub why: Why,
}

/// What a checkpoint is needed for; under a disk quota, those of later variants are deleted first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// The trial resumes from here, or may.
    Resume,
    /// The last checkpoint of one of the best complete trials.
    Final,
    /// Used if the trial's newest checkpoint turns out to be damaged.
    Fallback,
}

impl Engine {
    /// All trials by number.
    pub fn trials(&self) -> std::slice::Iter<'_, TrialProgress> {
        self.trials.iter()
    }

    /// One trial.
    pub fn trial(&self, number: TrialNumber) -> Option<&TrialProgress> {
        self.trials.get(number.0 as usize)
    }

    /// Orders issued and not finished, in the order of issue.
    pub fn open_orders(&self) -> impl Iterator<Item = OpenOrder<'_>> {
        self.open.iter().filter_map(|&id| {
            let record = &self.orders[id.0 as usize];
            let trial = &self.trials[record.trial.0 as usize];
            Some(OpenOrder { order: self.order(id)?, record, checkpoints: trial.checkpoints().collect() })
        })
    }

    /// An order as it was issued.
    pub fn order(&self, id: OrderId) -> Option<WorkOrder> {
        let record = self.orders.get(id.0 as usize)?;
        Some(WorkOrder {
            order: id,
            trial: record.trial,
            params: (*self.trials[record.trial.0 as usize].params).clone(),
            from: record.from,
            to: record.to,
            stop: record.stop.clone(),
            bracket: record.bracket,
            rung: record.rung,
            planned_trials: record.planned_trials,
            price: record.price,
        })
    }

    /// All orders by number.
    pub fn orders(&self) -> &[OrderProgress] {
        &self.orders
    }

    /// What samplers and schedulers see.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Results taken over from earlier studies, in the order of the study file.
    pub fn warm_starts(&self) -> &[WarmStart] {
        &self.warm
    }

    /// The latest greeting of a worker's number.
    pub fn greeting(&self, worker: u32) -> Option<&Greeting> {
        self.greetings.get(&worker)
    }

    /// The arithmetic that the first worker computed with.
    pub fn arithmetic(&self) -> Option<&str> {
        self.arithmetic.as_deref()
    }

    /// Whether any epoch is on record.
    pub fn has_epochs(&self) -> bool {
        self.trials.iter().any(|trial| !trial.curve.is_empty())
    }

    /// Digests of the weights that the study's networks begin with, by backbone, once they are on record.
    pub fn weights(&self) -> &BTreeMap<String, Digest> {
        &self.weights
    }

    /// The number of failed trials.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// Epochs charged to the budget: those trained by finished orders, and all of open ones.
    pub fn charged_epochs(&self) -> u64 {
        self.charged
    }

    /// What follows when an attempt of `order` has just failed with `class`; ask before the failure is recorded. The
    /// order is tried again while fewer attempts were lost to this class than the policy allows. Attempts cut short by
    /// an interrupt or a crash of the coordinator do not count: the next `AttemptStarted` supersedes them.
    pub fn after_failure(&self, order: OrderId, class: FailureClass) -> Retry {
        let policies = &self.spec.failures;
        let allowed = match class {
            FailureClass::Oom => policies.oom,
            FailureClass::Diverged => policies.diverged,
            FailureClass::Timeout => policies.timeout,
            FailureClass::Crashed => policies.crashed,
            FailureClass::Lost => policies.lost,
            FailureClass::BadInput => 0,
        };
        let lost = self.orders.get(order.0 as usize).and_then(|o| o.losses.get(&class)).copied().unwrap_or(0);
        if lost < allowed { Retry::Retry } else { Retry::Fail }
    }

    /// The outcome that the newest report of the running attempt already decides, if it does. Ask after every report,
    /// and for every open order when a study is opened: the process that recorded the report may have died before it
    /// recorded the outcome. An undefined objective is a failure once the policy allows no further attempt.
    pub fn outcome_due(&self, order: OrderId) -> Option<Outcome> {
        let record = self.orders.get(order.0 as usize).filter(|record| record.outcome.is_none() && record.running)?;
        let trial = &self.trials[record.trial.0 as usize];
        let at = record.attempt_epoch?;
        match trial.curve.last()?.value.filter(|value| value.is_finite()) {
            None if self.after_failure(order, FailureClass::Diverged) == Retry::Retry => None,
            None => Some(Outcome::reached(trial.curve.last()?.value)),
            Some(value) if at == record.to => Some(Outcome::Reached { value }),
            Some(value) => record.is_stopped(self.ledger.direction, trial).then_some(Outcome::Stopped { at, value }),
        }
    }

    /// The trials with a value, best first (see [`Place`]), failed ones left out.
    pub fn ranking(&self) -> Vec<&TrialProgress> {
        let mut ranked: Vec<(Place, &TrialProgress)> =
            self.trials.iter().filter_map(|trial| Some((self.place(trial)?, trial))).collect();
        ranked.sort_by_key(|(place, _)| *place);
        ranked.into_iter().map(|(_, trial)| trial).collect()
    }

    /// The first trial of [`Engine::ranking`].
    pub fn best(&self) -> Option<Best> {
        let placed = self.trials.iter().filter_map(|trial| Some((self.place(trial)?, trial)));
        let (_, trial) = placed.min_by_key(|(place, _)| *place)?;
        let (epoch, value) = trial.latest()?;
        Some(Best { trial: trial.number, value, epoch })
    }

    fn place(&self, trial: &TrialProgress) -> Option<Place> {
        let (epoch, value) = trial.latest()?;
        Some(Place::new(self.ledger.direction, trial.state == TrialState::Stopped, epoch, value, trial.number))
    }

    /// The checkpoints that may still be needed; every other one may be deleted. Needed are the newest one of every
    /// trial that may train on, the one before it in case the newest is damaged, and the last one of the best complete
    /// trials.
    pub fn needed_checkpoints(&self) -> Vec<NeededCheckpoint<'_>> {
        let mut finals: Vec<&TrialProgress> = Vec::new();
        let mut needed = Vec::new();
        for trial in self.trials() {
            match trial.state {
                TrialState::Waiting | TrialState::Running | TrialState::Paused => {
                    let whys = [Why::Resume, Why::Fallback];
                    needed.extend(trial.checkpoints().zip(whys).map(|(files, why)| need(trial, files, why)));
                }
                TrialState::Complete => finals.push(trial),
                TrialState::Stopped | TrialState::Failed => {}
            }
        }
        self.best_of(&mut finals);
        needed.extend(finals.iter().filter_map(|trial| {
            let last = trial.checkpoints().next()?;
            Some(need(trial, last, Why::Final))
        }));
        needed
    }

    /// The trials whose files may still be needed: those that may train on, and the best complete ones.
    pub fn needed_trials(&self) -> BTreeSet<TrialNumber> {
        let mut finals: Vec<&TrialProgress> = Vec::new();
        let mut needed = BTreeSet::new();
        for trial in self.trials() {
            match trial.state {
                TrialState::Waiting | TrialState::Running | TrialState::Paused => drop(needed.insert(trial.number)),
                TrialState::Complete => finals.push(trial),
                TrialState::Stopped | TrialState::Failed => {}
            }
        }
        self.best_of(&mut finals);
        needed.extend(finals.iter().map(|trial| trial.number));
        needed
    }

    /// Reduces `complete` to the best trials, whose files are kept.
    fn best_of(&self, complete: &mut Vec<&TrialProgress>) {
        complete.sort_by_key(|trial| self.ledger.rank(trial.number, trial.value));
        complete.truncate(KEPT_FINALS);
    }
}

fn need<'a>(trial: &TrialProgress, files: &'a EpochFiles, why: Why) -> NeededCheckpoint<'a> {
    NeededCheckpoint { trial: trial.number, epoch: files.epoch, file: &files.checkpoint, why }
}
