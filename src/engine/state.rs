//! The reducer: how each event changes the engine, and which events are refused.

use super::course::roc_auc;
use super::order::Progress;
use super::trial::{EpochFiles, EpochPoint, Failure, OrderProgress, TrialProgress, TrialState};
use super::{Engine, EpochReport, Event, FailureClass, Outcome, WarmStart, WorkOrder};
use crate::digest::Digest;
use crate::ids::{Epoch, OrderId, TrialNumber};
use crate::ledger::StopCurve;
use crate::scheduler::Next;
use crate::space::Params;
use std::collections::BTreeMap;
use std::sync::Arc;

/// An event that does not follow from those before it.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Inconsistent {
    /// An order that is not the planned one.
    #[error(
        "follow order {order}: it was recorded as {recorded}, but the study plans {planned}\nhint: the study file's search, or the program, differs from the one that recorded it"
    )]
    NotPlanned { order: OrderId, recorded: String, planned: String },
    /// An order decided for a number of trials that was never planned.
    #[error(
        "follow order {order}: it was decided for {found} trials, but the study has {least} to {most}\nhint: a budget may be raised, never lowered"
    )]
    PlannedTrials { order: OrderId, found: u32, least: u32, most: u32 },
    /// Results of an earlier study that came after the first order, or are not finite.
    #[error("learn from study {study}: {why}")]
    EarlierResults { study: String, why: String },
    /// The pace is positive, and measured once, before the first order.
    #[error("take {pace} mega-operations a second as the machine's pace: one is on record, or this is none")]
    Pace { pace: f64 },
    /// A backbone has the weights that it began with.
    #[error("take these weights of {backbone}: others are on record")]
    Weights { backbone: String },
    /// Order numbers are contiguous.
    #[error("follow order {found}: the next order is {expected}")]
    OrderNumber { found: OrderId, expected: OrderId },
    /// A configuration is used once in a study.
    #[error("follow order {order}: its configuration was used before")]
    ConfigurationUsed { order: OrderId },
    /// A resumed trial keeps its configuration.
    #[error("follow order {order}: its configuration is not that of trial {trial}")]
    ConfigurationChanged { order: OrderId, trial: TrialNumber },
    /// No such order.
    #[error("find order {0}: it was never issued")]
    UnknownOrder(OrderId),
    /// The order already has its outcome.
    #[error("change order {0}: it is finished")]
    Finished(OrderId),
    /// Attempts count from 1.
    #[error("start attempt {found} of order {order}: the next is {expected}")]
    AttemptNumber { order: OrderId, found: u32, expected: u32 },
    /// The attempt is not under way.
    #[error("hear of attempt {attempt} of order {order}: it is not under way")]
    StaleAttempt { order: OrderId, attempt: u32 },
    /// Reported epochs are consecutive.
    #[error("take epoch {found} of order {order}: expected {expected}")]
    EpochNumber { order: OrderId, found: Epoch, expected: String },
    /// An outcome that contradicts the reports.
    #[error("finish order {order}: {why}")]
    Outcome { order: OrderId, why: String },
}

impl Engine {
    /// Applies an event, whether in a live run, on resumption, in a replay or for a report.
    ///
    /// # Errors
    /// [`Inconsistent`] for an event that does not follow from those before it. It changes nothing, with one exception:
    /// after an [`Inconsistent::NotPlanned`] order that was decided for fewer trials than are planned now, the ledger
    /// may show more results.
    pub fn apply(&mut self, event: &Event) -> Result<(), Inconsistent> {
        self.follow(event)?;
        self.settle_states();
        Ok(())
    }

    fn follow(&mut self, event: &Event) -> Result<(), Inconsistent> {
        match event {
            Event::OrderIssued { order } => self.issue(order),
            Event::AttemptStarted { order, attempt, worker, .. } => self.start(*order, *attempt, *worker),
            Event::EpochReported { order, attempt, report, .. } => self.report(*order, *attempt, report),
            Event::AttemptLost { order, attempt, class, .. } => self.lose(*order, *attempt, *class),
            Event::EarlierResults { warm, .. } => self.learn(warm),
            Event::Enqueued { params, .. } => {
                self.enqueue(params.clone());
                self.plan_for(self.target);
                self.advance();
                Ok(())
            }
            Event::PaceMeasured { pace, .. } => self.set_pace(*pace),
            Event::WeightsIdentified { weights, .. } => self.set_weights(weights),
            Event::WorkerReady { worker, greeting, .. } => {
                if self.arithmetic.is_none() {
                    self.arithmetic.clone_from(&greeting.arithmetic);
                }
                self.greetings.insert(*worker, greeting.clone());
                Ok(())
            }
            Event::OrderFinished { order, outcome, .. } => self.finish(*order, outcome),
        }
    }

    fn learn(&mut self, warm: &WarmStart) -> Result<(), Inconsistent> {
        let refused = |why: &str| Inconsistent::EarlierResults { study: warm.study.clone(), why: why.to_owned() };
        if !self.orders.is_empty() {
            return Err(refused("orders were issued without its results"));
        }
        if warm.results.iter().any(|result| !result.value.is_finite()) {
            return Err(refused("one of its results is not finite"));
        }
        self.ledger.learn(&warm.results);
        self.warm.push(warm.clone());
        self.advance();
        Ok(())
    }

    fn set_pace(&mut self, pace: f64) -> Result<(), Inconsistent> {
        if self.purse.pace.is_some() || !(pace > 0.0 && pace.is_finite()) {
            return Err(Inconsistent::Pace { pace });
        }
        self.purse.pace = Some(pace);
        Ok(())
    }

    fn set_weights(&mut self, weights: &BTreeMap<String, Digest>) -> Result<(), Inconsistent> {
        if !self.has_epochs() {
            self.weights.clear(); // there is nothing to protect yet
        }
        let other = weights.iter().find(|(name, digest)| self.weights.get(*name).is_some_and(|known| known != *digest));
        if let Some((backbone, _)) = other {
            return Err(Inconsistent::Weights { backbone: backbone.clone() });
        }
        self.weights.extend(weights.clone());
        Ok(())
    }

    fn issue(&mut self, order: &WorkOrder) -> Result<(), Inconsistent> {
        let expected = OrderId(self.orders.len() as u32);
        if order.order != expected {
            return Err(Inconsistent::OrderNumber { found: order.order, expected });
        }
        let least = self.totals.last().copied().unwrap_or(1);
        if !(least..=self.target).contains(&order.planned_trials) {
            let (found, most) = (order.planned_trials, self.target);
            return Err(Inconsistent::PlannedTrials { order: order.order, found, least, most });
        }
        // Go back to the plan under which the order was decided, before any later raise of the budget. A larger plan
        // retires fewer orders, so nothing has to be undone.
        if order.planned_trials != self.planned {
            self.plan_for(order.planned_trials);
            self.advance();
        }
        let result = self.check_planned(order);
        if result.is_ok() {
            self.take(order);
        }
        if self.planned != self.target {
            self.plan_for(self.target);
        }
        self.advance();
        result
    }

    fn check_planned(&self, order: &WorkOrder) -> Result<(), Inconsistent> {
        let planned = self.decision(&self.next);
        let recorded = (order.trial, order.from, order.to, order.bracket, order.rung, order.stop.clone());
        if planned.as_ref() != Some(&recorded) {
            let show = |d: &Decision| {
                let (trial, from, to, bracket, rung, _) = d;
                let rung = rung.map_or_else(String::new, |r| format!(", bracket {bracket}, rung {r}"));
                format!("trial {trial} from epoch {from} to {to}{rung}")
            };
            return Err(Inconsistent::NotPlanned {
                order: order.order,
                recorded: show(&recorded),
                planned: planned.as_ref().map_or_else(|| "nothing yet".to_owned(), show),
            });
        }
        match self.trials.get(order.trial.0 as usize) {
            Some(trial) if *trial.params != order.params => {
                Err(Inconsistent::ConfigurationChanged { order: order.order, trial: order.trial })
            }
            None if self.ledger.is_used(&order.params) => Err(Inconsistent::ConfigurationUsed { order: order.order }),
            _ => Ok(()),
        }
    }

    fn take(&mut self, order: &WorkOrder) {
        if order.trial.0 as usize == self.trials.len() {
            let params = Arc::new(order.params.clone());
            let by_hand = self.queue.front().is_some_and(|front| **front == *params);
            if self.sampler.lattice().is_some_and(|lattice| lattice.contains(&params)) {
                self.used_of_lattice += 1;
            }
            self.ledger.start(params.clone(), by_hand);
            self.trials.push(TrialProgress {
                number: order.trial,
                state: TrialState::Waiting,
                params,
                bracket: order.bracket,
                rung: order.rung,
                orders: Vec::new(),
                curve: Vec::new(),
                epoch: Epoch(0),
                value: None,
                failure: None,
                curve_stopped: false,
                files: Vec::new(),
            });
        }
        if self.totals.last() != Some(&order.planned_trials) {
            self.totals.push(order.planned_trials);
        }
        while self.queue.front().is_some_and(|params| self.ledger.is_used(params)) {
            self.queue.pop_front();
        }
        let trial = &mut self.trials[order.trial.0 as usize];
        trial.orders.push(order.order);
        trial.rung = order.rung;
        self.race.touched.push(order.trial);
        self.ledger.issued(order.trial, order.bracket, order.rung);
        self.workers.fill(order.order, order.to.0 - order.from.0, order.stop.is_some());
        self.open.insert(order.order);
        let epochs = order.to.0 - order.from.0;
        self.charged += u64::from(epochs);
        self.purse.charged += order.price.map_or(0, |price| price.of(epochs));
        self.purse.share(&order.params, order.from.0..order.to.0);
        self.orders.push(OrderProgress {
            trial: order.trial,
            from: order.from,
            to: order.to,
            stop: order.stop.clone(),
            bracket: order.bracket,
            rung: order.rung,
            planned_trials: order.planned_trials,
            price: order.price,
            attempts: 0,
            running: false,
            worker: None,
            attempt_epoch: None,
            losses: Default::default(),
            outcome: None,
        });
    }

    /// Enqueues a configuration, unless it was used.
    pub(super) fn enqueue(&mut self, params: Params) {
        if self.ledger.is_used(&params) {
            return;
        }
        // A configuration outside a finite space is one more to be tried.
        if self.sampler.lattice().is_some_and(|lattice| !lattice.contains(&params)) {
            self.target = self.target.saturating_add(1).min(self.wanted.unwrap_or(u32::MAX)).max(self.target);
        }
        self.queue.push_back(Arc::new(params));
    }

    fn open_order(&mut self, order: OrderId) -> Result<&mut OrderProgress, Inconsistent> {
        let record = self.orders.get_mut(order.0 as usize).ok_or(Inconsistent::UnknownOrder(order))?;
        if record.outcome.is_some() { Err(Inconsistent::Finished(order)) } else { Ok(record) }
    }

    /// An attempt that is still under way is superseded: its coordinator was interrupted, which no failure policy
    /// counts.
    fn start(&mut self, order: OrderId, attempt: u32, worker: u32) -> Result<(), Inconsistent> {
        let record = self.open_order(order)?;
        let expected = record.attempts + 1;
        if attempt != expected {
            return Err(Inconsistent::AttemptNumber { order, found: attempt, expected });
        }
        record.attempts = attempt;
        record.running = true;
        record.worker = Some(worker);
        record.attempt_epoch = None;
        let trial = record.trial;
        self.race.touched.push(trial);
        Ok(())
    }

    fn current(&mut self, order: OrderId, attempt: u32) -> Result<&mut OrderProgress, Inconsistent> {
        let record = self.open_order(order)?;
        if record.running && record.attempts == attempt {
            Ok(record)
        } else {
            Err(Inconsistent::StaleAttempt { order, attempt })
        }
    }

    fn report(&mut self, order: OrderId, attempt: u32, report: &EpochReport) -> Result<(), Inconsistent> {
        let record = self.current(order, attempt)?;
        let (to, previous, trial) = (record.to, record.attempt_epoch, record.trial.0 as usize);
        let known = self.trials[trial].curve.len() as u32;
        // An attempt may repeat epochs on record, if a checkpoint was lost, but never skip one.
        let allowed = match previous {
            Some(epoch) => epoch.0 + 1..=epoch.0 + 1,
            None => 1..=known + 1,
        };
        if !allowed.contains(&report.epoch.0) || report.epoch > to {
            let last = (*allowed.end()).min(to.0);
            let expected = if *allowed.start() >= last { last.to_string() } else { format!("1 to {last}") };
            return Err(Inconsistent::EpochNumber { order, found: report.epoch, expected });
        }
        self.orders[order.0 as usize].attempt_epoch = Some(report.epoch);
        let trial = &mut self.trials[trial];
        let point = EpochPoint {
            value: report.value,
            train_loss: report.train_loss,
            roc_auc: roc_auc(&report.metrics, report.value, &self.spec.objective.metric),
            seconds: report.seconds,
        };
        trial.curve.truncate(report.epoch.0 as usize - 1);
        trial.curve.push(point);
        trial.files.retain(|files| files.epoch < report.epoch);
        if let Some(checkpoint) = &report.checkpoint {
            trial.files.push(EpochFiles { epoch: report.epoch, checkpoint: checkpoint.clone() });
            if trial.files.len() > 2 {
                trial.files.remove(0);
            }
        }
        self.advance();
        Ok(())
    }

    fn lose(&mut self, order: OrderId, attempt: u32, class: FailureClass) -> Result<(), Inconsistent> {
        let record = self.current(order, attempt)?;
        record.running = false;
        *record.losses.entry(class).or_default() += 1;
        let trial = record.trial;
        self.race.touched.push(trial);
        Ok(())
    }

    fn finish(&mut self, order: OrderId, outcome: &Outcome) -> Result<(), Inconsistent> {
        self.open_order(order)?;
        self.check_outcome(order, outcome).map_err(|why| Inconsistent::Outcome { order, why })?;
        let record = &mut self.orders[order.0 as usize];
        record.outcome = Some(outcome.clone());
        record.running = false;
        self.race.touched.push(record.trial);
        let trial = &mut self.trials[record.trial.0 as usize];
        match outcome {
            Outcome::Reached { value } => {
                trial.epoch = record.to;
                trial.value = Some(*value);
            }
            Outcome::Stopped { at, value } => {
                trial.epoch = *at;
                trial.value = Some(*value);
                trial.curve_stopped = true;
            }
            Outcome::Failed { class, reason } => {
                trial.value = None;
                trial.failure = Some(Failure { class: *class, reason: reason.clone() });
                self.failures += 1;
            }
        }
        let record = &self.orders[order.0 as usize];
        let (length, spent) = (record.length(), self.spent(record));
        self.charged -= u64::from(length - spent);
        self.purse.charged -= record.price.map_or(0, |price| price.of(length) - price.of(spent));
        self.open.remove(&order);
        if self.workers.is_blind() {
            self.retire(order);
        }
        self.advance();
        Ok(())
    }

    /// Epochs of an order that count: all of an open one, of a finished one those that were trained.
    pub(super) fn spent(&self, record: &OrderProgress) -> u32 {
        match &record.outcome {
            None | Some(Outcome::Reached { .. }) => record.length(),
            Some(Outcome::Stopped { at, .. }) => at.0 - record.from.0,
            Some(Outcome::Failed { .. }) => {
                let trained = self.trials[record.trial.0 as usize].curve.len() as u32;
                trained.saturating_sub(record.from.0).min(record.length())
            }
        }
    }

    fn check_outcome(&self, order: OrderId, outcome: &Outcome) -> Result<(), String> {
        let record = &self.orders[order.0 as usize];
        let (at, value) = match outcome {
            Outcome::Reached { value } => (record.to, *value),
            Outcome::Stopped { at, value } => (*at, *value),
            Outcome::Failed { .. } => return Ok(()),
        };
        if !value.is_finite() {
            return Err(format!("its value is {value}, which can only be a failure"));
        }
        let trial = &self.trials[record.trial.0 as usize];
        if record.attempt_epoch != Some(at) {
            return Err(format!("its attempt has not reported epoch {at} last"));
        }
        let reported = trial.curve.last().and_then(|point| point.value);
        if reported != Some(value) {
            return Err(format!("its value is {value}, but {reported:?} was reported for epoch {at}"));
        }
        if let Outcome::Stopped { .. } = outcome {
            let curve = record.stop.as_ref().ok_or("it has no curve to be stopped by")?;
            let best = trial.best_so_far(self.ledger.direction, at);
            if !curve.stops(self.ledger.direction, at, best) {
                return Err(format!("its curve does not stop it at epoch {at}"));
            }
        }
        Ok(())
    }

    /// Retires orders until the scheduler has a decision, or the next result is not known yet.
    pub(super) fn advance(&mut self) {
        loop {
            self.refresh_may_start();
            if self.workers.is_free() {
                self.next = self.scheduler.next(&self.ledger);
                if self.next != Next::Idle {
                    return;
                }
            } else {
                self.next = Next::Idle;
            }
            let (orders, trials) = (&self.orders, &self.trials);
            let direction = self.ledger.direction;
            let is_finished = |id: OrderId| orders[id.0 as usize].outcome.is_some();
            let progress = |id: OrderId| {
                let order = &orders[id.0 as usize];
                let reported = (trials[order.trial.0 as usize].curve.len() as u32).saturating_sub(order.from.0);
                match &order.outcome {
                    Some(Outcome::Stopped { at, .. }) => Progress::Ended(at.0 - order.from.0),
                    Some(_) => Progress::Ended(order.length()),
                    // Its last report may already stop it, although the outcome is not on record yet.
                    None if order.is_stopped(direction, &trials[order.trial.0 as usize]) => Progress::AtLeast(reported),
                    None => Progress::AtLeast((reported + 1).min(order.length())),
                }
            };
            match self.workers.retire(is_finished, progress) {
                Some(order) => self.retire(order),
                None => return,
            }
        }
    }

    fn retire(&mut self, id: OrderId) {
        let order = &self.orders[id.0 as usize];
        self.race.touched.push(order.trial);
        match order.outcome {
            Some(Outcome::Reached { value }) => {
                self.ledger.arrived(order.trial, order.to, value, order.bracket, order.rung);
                if order.to.0 == self.ledger.max_epochs {
                    let trial = &self.trials[order.trial.0 as usize];
                    self.ledger.average(trial.curve.iter().map(|point| point.value));
                }
            }
            Some(Outcome::Stopped { at, value }) => {
                self.ledger.arrived(order.trial, at, value, order.bracket, None);
            }
            Some(Outcome::Failed { .. }) | None => self.ledger.failed(order.trial, order.bracket, order.rung),
        }
        self.ledger.settle();
    }
}

/// Trial, from, to, bracket, rung, stop: all of an order but its number and configuration.
pub(super) type Decision = (TrialNumber, Epoch, Epoch, u32, Option<u32>, Option<StopCurve>);
