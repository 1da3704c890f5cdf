//! Folds events into rows.

use super::row::{
    AttemptEnd, AttemptRow, ConfigurationRow, EarlierRow, EnqueuedRow, EpochRow, FailureRow, FileKind, FileRow,
    OrderRow, OutcomeKind, Row, TrialRow, WorkerRow,
};
use crate::engine::{Engine, EpochReport, Event, FailureClass, Inconsistent, Outcome, Prices, TrialState};
use crate::ids::{OrderId, TrialNumber};
use crate::spec::StudySpec;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A study's engine, with what its rows need besides: dates and open attempts.
#[derive(Clone, Debug)]
pub struct History {
    engine: Engine,
    /// Number of events so far.
    seq: u64,
    /// By trial.
    dates: Vec<Dates>,
    /// Attempts that have not ended.
    attempts: BTreeMap<OrderId, AttemptRow>,
}

/// When a trial's first attempt began, and its latest order ended.
#[derive(Clone, Copy, Debug, Default)]
struct Dates {
    issued_ms: Option<u64>,
    finished_ms: Option<u64>,
}

impl History {
    /// The history of a study before its first event.
    pub fn new(spec: &StudySpec) -> Self {
        Self { engine: Engine::new(spec), seq: 0, dates: Vec::new(), attempts: BTreeMap::new() }
    }

    /// Sets the prices of orders; see [`Engine::set_prices`].
    pub fn set_prices(&mut self, prices: Arc<dyn Prices>) {
        self.engine.set_prices(prices);
    }

    /// The state of the study.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Applies the next event and appends the rows that it changes to `rows`.
    ///
    /// # Errors
    /// As [`Engine::apply`]; no row is changed then.
    pub fn apply(&mut self, event: &Event, rows: &mut Vec<Row>) -> Result<(), Inconsistent> {
        let known = self.engine.trials().len();
        let curve_before = match event {
            Event::EpochReported { order, .. } => self.trial_of(*order).map_or(0, |trial| self.epochs(trial)),
            _ => 0,
        };
        self.engine.apply(event)?;
        self.seq += 1;
        match event {
            Event::OrderIssued { order } => {
                if self.engine.trials().len() > known {
                    self.dates.push(Dates::default());
                    rows.push(Row::Configuration(ConfigurationRow {
                        trial: order.trial,
                        params: order.params.clone(),
                    }));
                }
                self.dates[order.trial.0 as usize].finished_ms = None;
                self.trial_row(order.trial, rows);
                self.order_row(order.order, rows);
            }
            &Event::AttemptStarted { order, attempt, worker, unix_ms } => {
                self.end_attempt(order, AttemptEnd::Interrupted, unix_ms, rows);
                let row = AttemptRow { order, attempt, worker, started_ms: unix_ms, ended_ms: None, ended: None };
                rows.push(Row::Attempt(row.clone()));
                self.attempts.insert(order, row);
                if let Some(trial) = self.trial_of(order) {
                    self.dates[trial.0 as usize].issued_ms.get_or_insert(unix_ms);
                    self.trial_row(trial, rows);
                }
            }
            Event::EpochReported { order, attempt, report, unix_ms } => {
                if let Some(trial) = self.trial_of(*order) {
                    if report.epoch.0 <= curve_before {
                        rows.push(Row::Retrained { trial, from: report.epoch });
                    }
                    rows.push(Row::Epoch(EpochRow::new(trial, (*order, *attempt), report, *unix_ms)));
                    rows.extend(files(trial, report));
                    self.trial_row(trial, rows);
                }
            }
            Event::AttemptLost { order, attempt, class, reason, unix_ms } => {
                self.failure_row((*order, Some(*attempt)), (*class, reason), false, *unix_ms, rows);
                self.end_attempt(*order, AttemptEnd::Failed(*class), *unix_ms, rows);
                if let Some(trial) = self.trial_of(*order) {
                    self.trial_row(trial, rows);
                }
            }
            Event::EarlierResults { warm, .. } => {
                rows.extend(warm.results.iter().map(|result| {
                    Row::Earlier(EarlierRow {
                        seq: self.seq,
                        study: warm.study.clone(),
                        trial: result.trial,
                        epoch: result.epoch,
                        value: result.value,
                        params: result.params.clone(),
                    })
                }));
            }
            Event::Enqueued { params, unix_ms } => {
                rows.push(Row::Enqueued(EnqueuedRow { seq: self.seq, params: params.clone(), at_ms: *unix_ms }));
            }
            Event::PaceMeasured { .. } | Event::WeightsIdentified { .. } => {}
            Event::WorkerReady { worker, greeting, unix_ms } => {
                rows.push(Row::Worker(WorkerRow { worker: *worker, greeting: greeting.clone(), ready_ms: *unix_ms }))
            }
            Event::OrderFinished { order, outcome, unix_ms } => self.finished(*order, outcome, *unix_ms, rows),
        }
        let own = match event {
            Event::OrderIssued { order } => Some(order.trial),
            Event::AttemptStarted { order, .. }
            | Event::EpochReported { order, .. }
            | Event::AttemptLost { order, .. }
            | Event::OrderFinished { order, .. } => self.trial_of(*order),
            Event::EarlierResults { .. }
            | Event::Enqueued { .. }
            | Event::PaceMeasured { .. }
            | Event::WeightsIdentified { .. }
            | Event::WorkerReady { .. } => None,
        };
        for &trial in self.engine.changed() {
            if Some(trial) != own {
                self.trial_row(trial, rows);
            }
        }
        Ok(())
    }

    /// The rows of all trials. Needed when a study file has changed since the rows were written: with a raised budget,
    /// states may change without an event.
    pub fn trial_rows(&self) -> Vec<Row> {
        let mut rows = Vec::new();
        self.engine.trials().for_each(|trial| self.trial_row(trial.number, &mut rows));
        rows
    }

    /// Ends the open attempts as interrupted, because their run has ended. The engine needs no event for that: the next
    /// attempt at an order supersedes an open one.
    pub fn interrupt(&mut self, unix_ms: u64, rows: &mut Vec<Row>) {
        let orders: Vec<OrderId> = self.attempts.keys().copied().collect();
        for order in orders {
            self.end_attempt(order, AttemptEnd::Interrupted, unix_ms, rows);
            if let Some(trial) = self.trial_of(order) {
                self.trial_row(trial, rows);
            }
        }
    }

    fn finished(&mut self, order: OrderId, outcome: &Outcome, unix_ms: u64, rows: &mut Vec<Row>) {
        let Some(trial) = self.trial_of(order) else { return };
        self.dates[trial.0 as usize].finished_ms = Some(unix_ms);
        let attempts = self.engine.orders()[order.0 as usize].attempts;
        let end = match outcome {
            Outcome::Failed { class, reason } => {
                let attempt = (attempts > 0).then_some(attempts);
                self.failure_row((order, attempt), (*class, reason), true, unix_ms, rows);
                AttemptEnd::Failed(*class)
            }
            Outcome::Reached { .. } | Outcome::Stopped { .. } => AttemptEnd::Done,
        };
        self.end_attempt(order, end, unix_ms, rows);
        self.order_row(order, rows);
        self.trial_row(trial, rows);
    }

    fn trial_of(&self, order: OrderId) -> Option<TrialNumber> {
        self.engine.orders().get(order.0 as usize).map(|record| record.trial)
    }

    fn epochs(&self, trial: TrialNumber) -> u32 {
        self.engine.trial(trial).map_or(0, |trial| trial.curve.len() as u32)
    }

    fn end_attempt(&mut self, order: OrderId, end: AttemptEnd, unix_ms: u64, rows: &mut Vec<Row>) {
        if let Some(attempt) = self.attempts.remove(&order) {
            rows.push(Row::Attempt(AttemptRow { ended: Some(end), ended_ms: Some(unix_ms), ..attempt }));
        }
    }

    fn failure_row(
        &self,
        (order, attempt): (OrderId, Option<u32>),
        (class, reason): (FailureClass, &str),
        is_final: bool,
        at_ms: u64,
        rows: &mut Vec<Row>,
    ) {
        let Some(trial) = self.trial_of(order) else { return };
        let reason = reason.to_owned();
        rows.push(Row::Failure(FailureRow { seq: self.seq, trial, order, attempt, class, reason, is_final, at_ms }));
    }

    fn order_row(&self, id: OrderId, rows: &mut Vec<Row>) {
        let order = &self.engine.orders()[id.0 as usize];
        let epochs = self.epochs(order.trial);
        let (outcome, at, value) = match order.outcome {
            None => (None, None, None),
            Some(Outcome::Reached { value }) => (Some(OutcomeKind::Reached), Some(order.to), Some(value)),
            Some(Outcome::Stopped { at, value }) => (Some(OutcomeKind::Stopped), Some(at), Some(value)),
            Some(Outcome::Failed { .. }) => (Some(OutcomeKind::Failed), Some(crate::ids::Epoch(epochs)), None),
        };
        rows.push(Row::Order(OrderRow {
            order: id,
            trial: order.trial,
            from: order.from,
            to: order.to,
            bracket: order.bracket,
            rung: order.rung,
            outcome,
            at,
            value,
            finished_ms: outcome.and(self.dates[order.trial.0 as usize].finished_ms),
        }));
    }

    /// The row of a trial as the engine sees it, except that a trial whose attempt was interrupted is not running.
    fn trial_row(&self, number: TrialNumber, rows: &mut Vec<Row>) {
        let Some(trial) = self.engine.trial(number) else { return };
        let Dates { issued_ms, finished_ms } = self.dates[number.0 as usize];
        let going_on = trial.orders.last().is_some_and(|order| self.attempts.contains_key(order));
        let failed = trial.failure.is_some();
        rows.push(Row::Trial(TrialRow {
            trial: number,
            state: if trial.state == TrialState::Running && !going_on { TrialState::Waiting } else { trial.state },
            value: trial.curve.last().and_then(|point| point.value).filter(|v| !failed && v.is_finite()),
            epochs: trial.curve.len() as u32,
            result: trial.value,
            result_epochs: trial.epoch.0,
            bracket: trial.bracket,
            rung: trial.rung,
            // Summed from 0.0, because the empty `sum` of floats is -0.0.
            seconds: trial.curve.iter().fold(0.0, |sum, point| sum + point.seconds),
            issued_ms,
            finished_ms,
        }));
    }
}

fn files(trial: TrialNumber, report: &EpochReport) -> impl Iterator<Item = Row> {
    let kept = [(FileKind::Checkpoint, &report.checkpoint), (FileKind::Predictions, &report.predictions)];
    let epoch = report.epoch;
    kept.into_iter().filter_map(move |(kind, file)| {
        let file = file.clone()?;
        Some(Row::File(FileRow { file, kind, trial, epoch }))
    })
}
