//! The rows of a study's history. Each replaces the one with the same key, if there is one.

use crate::engine::{EpochReport, FailureClass, FileRef, Greeting, TrialState};
use crate::ids::{Epoch, OrderId, TrialNumber};
use crate::ledger::Place;
use crate::space::Params;
use crate::spec::Direction;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A change to the rows of the history.
#[derive(Clone, Debug, PartialEq)]
pub enum Row {
    /// A new trial; its [`TrialRow`] follows.
    Configuration(ConfigurationRow),
    /// The state of a trial.
    Trial(TrialRow),
    /// An order.
    Order(OrderRow),
    /// An attempt at an order.
    Attempt(AttemptRow),
    /// Epochs of a trial from this one on are no longer part of its history: they are trained again.
    Retrained { trial: TrialNumber, from: Epoch },
    /// A finished epoch.
    Epoch(EpochRow),
    /// A failed attempt.
    Failure(FailureRow),
    /// A file that a trial has written.
    File(FileRow),
    /// A result of an earlier study, known to the sampler from the start.
    Earlier(EarlierRow),
    /// A configuration that a user enqueued.
    Enqueued(EnqueuedRow),
    /// A worker that can take orders.
    Worker(WorkerRow),
}

/// A trial's configuration. Key: the trial.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ConfigurationRow {
    pub trial: TrialNumber,
    pub params: Params,
}

/// The state of a trial. Key: the trial.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TrialRow {
    pub trial: TrialNumber,
    pub state: TrialState,
    /// The objective after the latest epoch, by which trials are ranked; `None` if it is undefined or the trial failed.
    pub value: Option<f64>,
    /// Epochs on record.
    pub epochs: u32,
    /// The objective after the latest finished order, after [`TrialRow::result_epochs`] epochs: what schedulers decide by.
    pub result: Option<f64>,
    pub result_epochs: u32,
    pub bracket: u32,
    /// The rung of its latest order.
    pub rung: Option<u32>,
    /// Seconds of the epochs on record, each counted once.
    pub seconds: f64,
    /// Start of the first attempt, milliseconds since 1970.
    pub issued_ms: Option<u64>,
    /// End of the latest order; `None` while another one is open.
    pub finished_ms: Option<u64>,
}

impl TrialRow {
    /// Its place in the ranking; `None` without a value, or where it failed.
    pub fn place(&self, direction: Direction) -> Option<Place> {
        let value = self.value.filter(|_| self.state != TrialState::Failed)?;
        Some(Place::new(direction, self.state == TrialState::Stopped, Epoch(self.epochs), value, self.trial))
    }
}

/// How an order ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, strum::AsRefStr, strum::EnumString)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum OutcomeKind {
    Reached,
    Stopped,
    Failed,
}

/// A contiguous stretch of training of one trial. Key: the order.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct OrderRow {
    pub order: OrderId,
    pub trial: TrialNumber,
    pub from: Epoch,
    pub to: Epoch,
    pub bracket: u32,
    pub rung: Option<u32>,
    /// `None` while it is open.
    pub outcome: Option<OutcomeKind>,
    /// Epochs of the trial at its end.
    pub at: Option<Epoch>,
    /// The objective there.
    pub value: Option<f64>,
    pub finished_ms: Option<u64>,
}

/// The latest worker of a number. Key: the number.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct WorkerRow {
    pub worker: u32,
    pub greeting: Greeting,
    pub ready_ms: u64,
}

/// A worker's attempt at an order. Key: order and attempt.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AttemptRow {
    pub order: OrderId,
    pub attempt: u32,
    pub worker: u32,
    pub started_ms: u64,
    pub ended_ms: Option<u64>,
    /// `None` while it is under way.
    pub ended: Option<AttemptEnd>,
}

/// How an attempt ended. As text: `done`, `interrupted`, or the class of the failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttemptEnd {
    /// It has finished its order.
    Done,
    /// Its run ended, or another attempt took its place: not counted as a failure.
    Interrupted,
    /// It failed.
    Failed(FailureClass),
}

impl AttemptEnd {
    /// Its text.
    pub fn name(&self) -> &str {
        match self {
            Self::Done => "done",
            Self::Interrupted => "interrupted",
            Self::Failed(class) => class.as_ref(),
        }
    }
}

impl std::str::FromStr for AttemptEnd {
    type Err = strum::ParseError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "done" => Ok(Self::Done),
            "interrupted" => Ok(Self::Interrupted),
            class => class.parse().map(Self::Failed),
        }
    }
}

impl Serialize for AttemptEnd {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// A finished epoch. Key: trial and epoch.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct EpochRow {
    pub trial: TrialNumber,
    pub epoch: Epoch,
    /// The objective; `None`: undefined, the trial has diverged.
    pub value: Option<f64>,
    pub train_loss: Option<f64>,
    pub seconds: f64,
    pub data_wait_seconds: f64,
    pub images: u64,
    pub order: OrderId,
    pub attempt: u32,
    pub reported_ms: u64,
    /// Validation metrics; undefined ones are left out.
    pub metrics: BTreeMap<String, f64>,
}

impl EpochRow {
    pub(super) fn new(
        trial: TrialNumber,
        (order, attempt): (OrderId, u32),
        report: &EpochReport,
        reported_ms: u64,
    ) -> Self {
        Self {
            trial,
            epoch: report.epoch,
            value: report.value.filter(|v| v.is_finite()),
            train_loss: report.train_loss.filter(|v| v.is_finite()),
            seconds: report.seconds,
            data_wait_seconds: report.data_wait_seconds,
            images: report.images,
            order,
            attempt,
            reported_ms,
            metrics: report.metrics.iter().filter(|(_, v)| v.is_finite()).map(|(k, v)| (k.clone(), *v)).collect(),
        }
    }
}

/// A failed attempt. Key: the number of its event.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FailureRow {
    pub seq: u64,
    pub trial: TrialNumber,
    pub order: OrderId,
    /// `None`: the order failed before any attempt.
    pub attempt: Option<u32>,
    pub class: FailureClass,
    pub reason: String,
    /// No further attempt is made.
    pub is_final: bool,
    pub at_ms: u64,
}

/// What a file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, strum::AsRefStr, strum::EnumString)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum FileKind {
    Checkpoint,
    Predictions,
}

/// A file that a trial has written. Key: its path.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FileRow {
    pub file: FileRef,
    pub kind: FileKind,
    pub trial: TrialNumber,
    pub epoch: Epoch,
}

/// A result of an earlier study. Key: event and trial.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct EarlierRow {
    pub seq: u64,
    pub study: String,
    pub trial: TrialNumber,
    pub epoch: Epoch,
    pub value: f64,
    pub params: Params,
}

/// A configuration that a user enqueued. Key: the number of its event.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct EnqueuedRow {
    pub seq: u64,
    pub params: Params,
    pub at_ms: u64,
}
