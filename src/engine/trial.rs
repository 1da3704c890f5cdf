//! The engine's record of a trial and of an order.

use super::{FailureClass, FileRef, Outcome, Price};
use crate::ids::{Epoch, OrderId, TrialNumber};
use crate::ledger::{Score, StopCurve};
use crate::space::Params;
use crate::spec::Direction;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use strum::{AsRefStr, Display, EnumString};

/// The state of a trial.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, AsRefStr, Display, EnumString,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum TrialState {
    /// An order is issued, no attempt is under way.
    Waiting,
    /// An attempt is under way.
    Running,
    /// Reached its rung; may yet be promoted.
    Paused,
    /// Trained to the full number of epochs.
    Complete,
    /// Stopped early by its curve, or no longer a candidate for promotion.
    Stopped,
    /// No further attempt is made.
    Failed,
}

/// One finished epoch, in short; the store holds the rest of the report.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EpochPoint {
    /// The objective; `None` when undefined.
    pub value: Option<f64>,
    /// Mean training loss.
    pub train_loss: Option<f64>,
    /// ROC-AUC on validation images, where it was reported.
    pub roc_auc: Option<f64>,
    /// Duration of the epoch in seconds, everything included.
    pub seconds: f64,
}

/// The files of a finished epoch.
#[derive(Clone, Debug, PartialEq)]
pub struct EpochFiles {
    /// The epoch.
    pub epoch: Epoch,
    /// Its checkpoint.
    pub checkpoint: FileRef,
}

/// Why a trial failed.
#[derive(Clone, Debug, PartialEq)]
pub struct Failure {
    /// The class.
    pub class: FailureClass,
    /// The cause, for people to read.
    pub reason: String,
}

/// A trial as recorded by its events.
#[derive(Clone, Debug, PartialEq)]
pub struct TrialProgress {
    /// Its number.
    pub number: TrialNumber,
    /// Its state.
    pub state: TrialState,
    /// Its configuration.
    pub params: Arc<Params>,
    /// Its bracket (0 without brackets).
    pub bracket: u32,
    /// The rung of its latest order, if the scheduler has rungs.
    pub rung: Option<u32>,
    /// Its orders, oldest first.
    pub orders: Vec<OrderId>,
    /// The latest report of every epoch, by epoch; epoch 1 is the first entry.
    pub curve: Vec<EpochPoint>,
    /// Epochs done by finished orders: where the next order would begin.
    pub epoch: Epoch,
    /// The objective after the latest finished order; `None` before the first one, or when failed.
    pub value: Option<f64>,
    /// Why it failed, if it did.
    pub failure: Option<Failure>,
    /// Whether the curve of its order stopped it.
    pub curve_stopped: bool,
    /// The newest checkpoints, oldest first: at most two.
    pub(super) files: Vec<EpochFiles>,
}

impl TrialProgress {
    /// Values by epoch, from epoch 1.
    pub fn values(&self) -> impl Iterator<Item = (Epoch, Option<f64>)> + '_ {
        self.curve.iter().zip(1..).map(|(point, epoch)| (Epoch(epoch), point.value))
    }

    /// Its latest epoch and the objective there, by which it is ranked; `None` if that is undefined, or where it failed.
    pub fn latest(&self) -> Option<(Epoch, f64)> {
        let value = self.curve.last()?.value.filter(|value| value.is_finite() && self.failure.is_none())?;
        Some((Epoch(self.curve.len() as u32), value))
    }

    /// The best value up to an epoch, if one is finite.
    pub(super) fn best_so_far(&self, direction: Direction, at: Epoch) -> Option<f64> {
        let values = self.values().take_while(|&(epoch, _)| epoch <= at).filter_map(|(_, value)| value);
        values.filter(|v| v.is_finite()).min_by_key(|&v| Score::new(direction, Some(v)))
    }

    /// The newest checkpoint on record and the one before it, newest first.
    pub fn checkpoints(&self) -> impl Iterator<Item = &EpochFiles> {
        self.files.iter().rev()
    }
}

/// An order as recorded by its events.
#[derive(Clone, Debug, PartialEq)]
pub struct OrderProgress {
    /// The trial it trains.
    pub trial: TrialNumber,
    /// Epochs done before.
    pub from: Epoch,
    /// Epochs done at its end.
    pub to: Epoch,
    /// Its thresholds of early stopping.
    pub stop: Option<StopCurve>,
    /// The bracket.
    pub bracket: u32,
    /// The rung reached at `to`.
    pub rung: Option<u32>,
    /// Trials planned when it was issued.
    pub planned_trials: u32,
    /// What it costs, if there is a cost model of such trials.
    pub price: Option<Price>,
    /// The number of attempts started: also the number of the latest one.
    pub attempts: u32,
    /// Whether the latest attempt is under way.
    pub running: bool,
    /// The worker of the latest attempt.
    pub worker: Option<u32>,
    /// The latest epoch that the running attempt reported.
    pub(super) attempt_epoch: Option<Epoch>,
    /// Lost attempts by class.
    pub losses: BTreeMap<FailureClass, u32>,
    /// How it ended.
    pub outcome: Option<Outcome>,
}

impl OrderProgress {
    /// Epochs it may cost at most.
    pub fn length(&self) -> u32 {
        self.to.0 - self.from.0
    }

    /// Whether its curve stops the trial after the newest epoch on record.
    pub(super) fn is_stopped(&self, direction: Direction, trial: &TrialProgress) -> bool {
        let at = Epoch(trial.curve.len() as u32);
        self.stop.as_ref().is_some_and(|curve| curve.stops(direction, at, trial.best_so_far(direction, at)))
    }
}
