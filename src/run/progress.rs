//! The progress of a run, for those who watch it.

use crate::engine::{Best, DoneReason, EpochReport, FailureClass, Outcome, Price};
use crate::ids::{Epoch, TrialNumber};
use crate::runner::Phase;
use crate::space::Params;

/// An event in a run.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[allow(clippy::large_enum_variant)] // a few a second
pub enum Progress {
    /// The run begins.
    Started {
        study: String,
        metric: String,
        workers: u32,
        device: String,
        /// Trials that are over, and how many there will be (`None`: no bound).
        finished: u32,
        planned: Option<u32>,
        /// Epochs on record, and how many there will be; an estimate where schedulers decide during the run.
        epochs: u64,
        planned_epochs: Option<u64>,
        /// What is left of the budget, where it is of time or of work: seconds, and mega-operations in orders yet to be given.
        #[serde(skip_serializing_if = "Option::is_none")]
        seconds_left: Option<f64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        work_left: Option<u64>,
        /// The study was begun by an earlier run.
        resumed: bool,
        best: Option<Standing>,
    },
    /// A worker begins an order.
    OrderStarted {
        worker: u32,
        trial: TrialNumber,
        attempt: u32,
        from: Epoch,
        to: Epoch,
        params: Params,
        /// By the cost model, if it knows such trials.
        #[serde(skip_serializing_if = "Option::is_none")]
        price: Option<Price>,
    },
    /// Within an epoch.
    Working {
        worker: u32,
        #[serde(rename = "what", serialize_with = "as_text")]
        phase: Phase,
        done: u64,
        total: u64,
    },
    /// An epoch is on record.
    Epoch { worker: u32, trial: TrialNumber, to: Epoch, report: EpochReport },
    /// An order is done.
    OrderFinished { worker: u32, trial: TrialNumber, outcome: Outcome, best: Option<Standing>, finished: u32 },
    /// An attempt was lost; `again`: another follows.
    AttemptLost { worker: u32, trial: TrialNumber, class: FailureClass, reason: String, again: bool },
    /// A worker has nothing to do for now.
    Idle { worker: u32 },
    /// Something that the user should know.
    Warning { text: String },
    /// Information that asks for no action.
    Note { text: String },
    /// A line that a worker wrote for people.
    Said { worker: u32, line: String },
    /// A signal arrived; the running epochs are dropped.
    Stopping { signal: i32 },
    /// The run is over.
    Finished { reason: Option<DoneReason>, best: Option<Standing>, seconds: f64 },
}

fn as_text<S: serde::Serializer>(phase: &Phase, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(phase)
}

/// The best trial so far.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Standing {
    pub trial: TrialNumber,
    pub value: f64,
    pub epoch: Epoch,
}

impl From<Best> for Standing {
    fn from(best: Best) -> Self {
        Self { trial: best.trial, value: best.value, epoch: best.epoch }
    }
}

/// Watches a run. Must be quick: it is called on the coordinator's thread.
pub trait Observer {
    fn see(&mut self, progress: &Progress);
    /// Called several times a second, for displays that change with time.
    fn tick(&mut self) {}
}

impl<F: FnMut(&Progress)> Observer for F {
    fn see(&mut self, progress: &Progress) {
        self(progress);
    }
}
