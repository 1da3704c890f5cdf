//! Leasing trials, and taking in their results.

use super::{Study, StudyError, WarmStartError};
use crate::clock::unix_ms;
use crate::engine::{self, DoneReason, EpochFiles, EpochReport, Event, FailureClass, Outcome, Plan, Retry, WorkOrder};
use crate::ids::{Epoch, TrialNumber};
use crate::runner::{Continue, TrialError};
use crate::space::Params;

/// What [`Study::ask`] answers.
#[derive(Debug)]
#[allow(clippy::large_enum_variant)] // a handle, moved once
pub enum Ask {
    /// Train this, then [`Study::tell`].
    Trial(Trial),
    /// Nothing to do until another leased trial is told.
    Wait,
    /// Nothing is left to do.
    Done(DoneReason),
}

/// What there is to do for workers that have yet to start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outlook {
    /// About so many orders could be given out at once.
    Orders(usize),
    /// Nothing until others report.
    Wait,
    /// Nothing left to do.
    Done(DoneReason),
}

/// A leased trial, to be trained as far as its order says. It is told once: [`Study::tell`] consumes it.
#[derive(Debug)]
#[must_use = "a trial that is never told is trained again when the study is opened next"]
pub struct Trial {
    order: WorkOrder,
    attempt: u32,
    checkpoints: Vec<EpochFiles>,
    known: Epoch,
    /// The last value reported is undefined.
    diverged: bool,
}

impl Trial {
    /// Its number.
    pub fn number(&self) -> TrialNumber {
        self.order.trial
    }

    /// Its configuration.
    pub fn params(&self) -> &Params {
        &self.order.params
    }

    /// Its order: the range of epochs to train.
    pub fn order(&self) -> &WorkOrder {
        &self.order
    }

    /// The number of this attempt, from 1.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// The last epoch on record before the order's last one: a caller that keeps its own state may resume there.
    pub fn known(&self) -> Epoch {
        self.known
    }

    /// Checkpoints on record, newest first. [`Study::start`] verifies the files.
    pub fn checkpoints(&self) -> &[EpochFiles] {
        &self.checkpoints
    }

    /// The epochs to train for a caller that resumes from the newest checkpoint on record; from 1 if there is none. A
    /// caller that keeps its own state may start with any epoch up to the one after [`Trial::known`].
    pub fn remaining(&self) -> impl Iterator<Item = Epoch> + use<> {
        self.after(self.checkpoints.first().map_or(Epoch(0), |files| files.epoch))
    }

    /// The epochs to train for a caller that resumes from the state after `epoch`; after `Epoch(0)`: all of them.
    pub fn after(&self, epoch: Epoch) -> impl Iterator<Item = Epoch> + use<> {
        (epoch.0 + 1..=self.order.to.0).map(Epoch)
    }
}

/// The result of [`Study::finish`].
#[derive(Clone, Debug, PartialEq)]
pub enum Ended {
    /// The order has its outcome.
    Finished(Outcome),
    /// Its objective is undefined, and it will be handed out again.
    Again { class: FailureClass, reason: String },
}

/// What follows a failed attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// It will be handed out again.
    Again,
    /// The trial has failed.
    ForGood,
}

impl Continue {
    /// Whether training ends here.
    pub fn is_stop(self) -> bool {
        self == Self::Stop
    }
}

impl Study {
    /// The next trial to train: one that was interrupted, or a new order.
    ///
    /// # Errors
    /// If it cannot be put on record.
    pub fn ask(&mut self) -> Result<Ask, StudyError> {
        let asked = self.lease(0)?;
        self.flush()?;
        Ok(asked)
    }

    /// Puts an epoch on record, durably, and says whether to go on. Values that are not finite count as undefined:
    /// the trial has diverged and is to be told now.
    ///
    /// # Errors
    /// If the epoch does not follow the last one, or cannot be put on record.
    pub fn report(&mut self, trial: &mut Trial, report: EpochReport) -> Result<Continue, StudyError> {
        let go = self.note_epoch(trial, report)?;
        self.flush()?;
        Ok(go)
    }

    /// Ends a trial's order: `Ok` after its last epoch, else why it failed. The study's failure policies decide whether
    /// it is tried again.
    ///
    /// # Errors
    /// If epochs are missing, or the outcome cannot be put on record.
    pub fn tell(&mut self, trial: Trial, result: Result<(), TrialError>) -> Result<(), StudyError> {
        match result {
            Ok(()) => self.finish(trial).map(drop)?,
            Err(TrialError { class, reason, .. }) => self.fail(trial, class, reason).map(drop)?,
        }
        self.flush()
    }

    /// How many workers there is something to do for.
    ///
    /// # Errors
    /// As [`Study::lease`].
    pub fn outlook(&mut self) -> Result<Outlook, StudyError> {
        if let Some(known) = self.outlook {
            return Ok(known); // a suggestion may take a while to compute
        }
        if self.is_cold() {
            return Err(WarmStartError::NotOpened.into());
        }
        let engine = self.engine();
        let waiting = engine.open_orders().filter(|open| !self.leased.contains(&open.order.order)).count();
        let outlook = match engine.plan() {
            Plan::Done(DoneReason::FailureLimit) => Outlook::Done(DoneReason::FailureLimit),
            Plan::Issue(_) => {
                let trials = engine::planned_trials(self.spec()).map_or(usize::MAX, |n| n as usize);
                let mut more = trials.saturating_sub(engine.trials().len()).max(1);
                if self.spec().learns() {
                    let open = engine.open_orders().count();
                    more = more.min((self.spec().run.virtual_workers as usize).saturating_sub(open).max(1));
                }
                Outlook::Orders(waiting.saturating_add(more))
            }
            _ if waiting > 0 => Outlook::Orders(waiting),
            Plan::Wait => Outlook::Wait,
            Plan::Done(reason) => Outlook::Done(reason),
        };
        self.outlook = Some(outlook);
        Ok(outlook)
    }

    /// [`Study::ask`] for worker number `worker`, durable only after the next flush.
    pub fn lease(&mut self, worker: u32) -> Result<Ask, StudyError> {
        if self.is_cold() {
            return Err(WarmStartError::NotOpened.into());
        }
        let waiting = self.engine().open_orders().find(|open| !self.leased.contains(&open.order.order));
        let waiting = waiting.filter(|_| !self.engine().has_failed_enough());
        let id = match waiting {
            Some(open) => open.order.order,
            None => match self.engine().plan() {
                Plan::Issue(order) => {
                    let id = order.order;
                    self.apply(Event::OrderIssued { order })?;
                    id
                }
                Plan::Wait => return Ok(Ask::Wait),
                Plan::Done(reason) => return Ok(Ask::Done(reason)),
            },
        };
        let Some(order) = self.engine().order(id) else { return Ok(Ask::Wait) };
        let attempt = self.engine().orders()[id.0 as usize].attempts + 1;
        self.apply(Event::AttemptStarted { order: id, attempt, worker, unix_ms: unix_ms() })?;
        self.leased.insert(id);
        let trial = self.engine().trial(order.trial);
        // The outcome must come from a report of this attempt: if the one before ended between its last epoch and its
        // outcome, this one trains the last epoch again.
        let last = order.to.0.saturating_sub(1);
        let checkpoints = trial.into_iter().flat_map(|t| t.checkpoints()).filter(|f| f.epoch.0 <= last);
        let checkpoints = checkpoints.cloned().collect();
        let known = Epoch(trial.map_or(0, |t| t.curve.len() as u32).min(last));
        Ok(Ask::Trial(Trial { order, attempt, checkpoints, known, diverged: false }))
    }

    /// [`Study::report`], durable only after the next flush.
    pub fn note_epoch(&mut self, trial: &mut Trial, mut report: EpochReport) -> Result<Continue, StudyError> {
        report.value = report.value.filter(|v| v.is_finite());
        report.train_loss = report.train_loss.filter(|v| v.is_finite());
        report.metrics.retain(|_, v| v.is_finite());
        let value = report.value;
        let (order, attempt) = (trial.order.order, trial.attempt);
        self.apply(Event::EpochReported { order, attempt, report, unix_ms: unix_ms() })?;
        trial.diverged = value.is_none();
        let over = trial.diverged || self.engine().outcome_due(order).is_some();
        Ok(if over { Continue::Stop } else { Continue::Go })
    }

    /// [`Study::tell`] of a success, durable only after the next flush. A trial whose last value is undefined has
    /// diverged.
    pub fn finish(&mut self, trial: Trial) -> Result<Ended, StudyError> {
        let id = trial.order.order;
        let outcome = match self.engine().outcome_due(id) {
            Some(Outcome::Failed { class, reason }) => {
                self.fail(trial, class, reason.clone())?;
                return Ok(Ended::Finished(Outcome::Failed { class, reason }));
            }
            None if trial.diverged => {
                let (class, reason) = (FailureClass::Diverged, "the objective is undefined".to_owned());
                self.fail(trial, class, reason.clone())?;
                return Ok(Ended::Again { class, reason });
            }
            Some(outcome) => outcome,
            None => {
                self.outlook = None;
                self.leased.remove(&id); // it will be handed out again
                let (number, to) = (trial.number(), trial.order.to);
                return Err(StudyError::Unfinished { trial: number, to });
            }
        };
        self.apply(Event::OrderFinished { order: id, outcome: outcome.clone(), unix_ms: unix_ms() })?;
        self.leased.remove(&id);
        Ok(Ended::Finished(outcome))
    }

    /// [`Study::tell`] of a failure, durable only after the next flush.
    pub fn fail(&mut self, trial: Trial, class: FailureClass, reason: String) -> Result<Lost, StudyError> {
        let (order, attempt) = (trial.order.order, trial.attempt);
        let (event, lost) = match self.engine().after_failure(order, class) {
            Retry::Retry => (Event::AttemptLost { order, attempt, class, reason, unix_ms: unix_ms() }, Lost::Again),
            Retry::Fail => {
                let outcome = Outcome::Failed { class, reason };
                (Event::OrderFinished { order, outcome, unix_ms: unix_ms() }, Lost::ForGood)
            }
        };
        self.apply(event)?;
        self.leased.remove(&order);
        Ok(lost)
    }

    /// Releases a trial without telling it, after an interrupt. Its epochs on record stay, and no failure is counted.
    pub fn release(&mut self, trial: Trial) {
        self.outlook = None;
        self.leased.remove(&trial.order.order);
    }
}
