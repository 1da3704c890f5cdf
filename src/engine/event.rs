//! The events of a study's log, and what they carry.

use super::Price;
use crate::digest::Digest;
use crate::ids::{Epoch, OrderId, TrialNumber};
use crate::ledger::{EarlierResult, StopCurve};
use crate::space::Params;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use strum::{AsRefStr, Display, EnumString};

/// One contiguous stretch of training of one trial: the unit that is leased, run and retired.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorkOrder {
    /// Its number in the study.
    pub order: OrderId,
    /// The trial it trains.
    pub trial: TrialNumber,
    /// The trial's configuration.
    pub params: Params,
    /// Epochs already done (0: a new trial; else training starts from the checkpoint of that epoch).
    pub from: Epoch,
    /// Epochs done at the end.
    pub to: Epoch,
    /// The thresholds of early stopping, if the scheduler sets them in advance.
    pub stop: Option<StopCurve>,
    /// The scheduler's bracket, if it has brackets.
    pub bracket: u32,
    /// The rung reached at `to`, if the scheduler has rungs.
    pub rung: Option<u32>,
    /// Trials planned for the study when this was decided: so the log replays exactly after the budget is raised.
    pub planned_trials: u32,
    /// What it costs, if there is a cost model of such trials.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub price: Option<Price>,
}

/// How an order ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Outcome {
    /// Trained to the end; the objective there.
    Reached { value: f64 },
    /// Stopped early by its [`StopCurve`].
    Stopped { at: Epoch, value: f64 },
    /// Failed for good: no further attempt is made.
    Failed { class: FailureClass, reason: String },
}

impl Outcome {
    /// [`Outcome::Reached`] with a finite value; a missing, NaN or infinite one is a diverged trial.
    pub fn reached(value: Option<f64>) -> Self {
        match value {
            Some(value) if value.is_finite() => Self::Reached { value },
            Some(value) => Self::diverged(format!("the objective is {value}")),
            None => Self::diverged("the objective is undefined".to_owned()),
        }
    }

    fn diverged(reason: String) -> Self {
        Self::Failed { class: FailureClass::Diverged, reason }
    }
}

/// Why an attempt failed.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, AsRefStr, Display, EnumString,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum FailureClass {
    /// Out of memory.
    Oom,
    /// NaN or infinite loss or objective: ranked worst, whether the objective is maximised or minimised.
    Diverged,
    /// Exceeded a time limit.
    Timeout,
    /// The trial ended with an error, or its worker printed garbage.
    Crashed,
    /// The worker process died.
    Lost,
    /// The configuration cannot be run (contradictory settings).
    BadInput,
}

/// A durable fact about a study.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The engine decided to train this order.
    OrderIssued { order: WorkOrder },
    /// A worker began (or resumed) an order.
    AttemptStarted { order: OrderId, attempt: u32, worker: u32, unix_ms: u64 },
    /// An epoch is finished and its checkpoint is on disk.
    EpochReported { order: OrderId, attempt: u32, report: EpochReport, unix_ms: u64 },
    /// An attempt ended without an outcome; the order may be tried again.
    AttemptLost { order: OrderId, attempt: u32, class: FailureClass, reason: String, unix_ms: u64 },
    /// Results of an earlier study were copied into this one, before its first order: the sampler learns from them.
    EarlierResults { warm: WarmStart, unix_ms: u64 },
    /// A user enqueued a configuration: new trials take enqueued configurations first.
    Enqueued { params: Params, unix_ms: u64 },
    /// How fast the machine is that began a study whose budget of work was given as time, in mega-operations a second.
    PaceMeasured { pace: f64, unix_ms: u64 },
    /// Which weights the networks of a study on images begin with: their digests, by backbone. On record before its first
    /// order, so that no trial goes on or is tested with others.
    WeightsIdentified { weights: BTreeMap<String, Digest>, unix_ms: u64 },
    /// A worker can take orders. On record when it is another than the last of its number, or elsewhere.
    WorkerReady { worker: u32, greeting: Greeting, unix_ms: u64 },
    /// The order is done.
    OrderFinished { order: OrderId, outcome: Outcome, unix_ms: u64 },
}

/// Who a worker is and how it computes: what it says before its first order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Greeting {
    /// The name of its machine.
    pub host: String,
    /// Its job, where a batch system started it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<String>,
    /// The BLAKE3 digest of its program.
    pub program: String,
    /// What its results depend on beyond the study, in words: processor, instructions, GPU, versions of libraries. `None`:
    /// it does not compute itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arithmetic: Option<String>,
}

/// Results that a study took over from an earlier one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WarmStart {
    /// The earlier study as the study file names it.
    pub source: String,
    /// The earlier study's name.
    pub study: String,
    /// Results of the configurations that fit this study's space, oldest first.
    pub results: Vec<EarlierResult>,
    /// How many trials were left out, by reason.
    pub left_out: BTreeMap<String, u32>,
}

impl std::fmt::Display for WarmStart {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let all = self.results.len() as u32 + self.left_out.values().sum::<u32>();
        write!(f, "starts warm from study {}: {} of its {all} trials are used", self.study, self.results.len())?;
        for (reason, n) in &self.left_out {
            write!(f, "\n  {n} left out: {reason}")?;
        }
        Ok(())
    }
}

/// A runner's report of a finished epoch.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EpochReport {
    /// Epochs done.
    pub epoch: Epoch,
    /// The objective (`NaN` serialises as null: then the trial has diverged).
    pub value: Option<f64>,
    /// Further metrics by name; undefined ones are left out.
    pub metrics: BTreeMap<String, f64>,
    /// Mean training loss of the epoch.
    pub train_loss: Option<f64>,
    /// Duration of the epoch in seconds, everything included.
    pub seconds: f64,
    /// Seconds in which the training step waited for data.
    pub data_wait_seconds: f64,
    /// Training images seen.
    pub images: u64,
    /// Device memory that training used, in bytes; `None` where it was not measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// Images computed at a time, where batches were split for lack of memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_once: Option<u32>,
    /// Checkpoint file, relative to the study's state folder, and its BLAKE3 digest.
    pub checkpoint: Option<FileRef>,
    /// File with the validation predictions, likewise.
    pub predictions: Option<FileRef>,
}

impl EpochReport {
    /// The objective after an epoch, and nothing else.
    pub fn new(epoch: Epoch, value: f64) -> Self {
        Self { epoch, value: Some(value), ..Self::default() }
    }
}

/// A file in the study's state folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileRef {
    /// Relative path, `/`-separated.
    pub path: String,
    /// BLAKE3 digest of the contents, hexadecimal.
    pub digest: crate::digest::Digest,
    /// Size in bytes.
    pub bytes: u64,
}
