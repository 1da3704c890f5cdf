//! What runs a work order.

pub mod command;
pub mod device;
pub mod image;
pub mod synthetic;

use crate::data::Task;
use crate::engine::{EpochReport, FailureClass, FileRef, WorkOrder};
use crate::spec::Device;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Runs work orders. Implementations: `image` (candle), `command` (any program), `synthetic` (a formula).
///
/// Write order: the checkpoint file is complete and durable before the sink hears of its epoch.
pub trait TrialRunner: Send {
    /// Trains `order` from `start.epoch` (its last good checkpoint, or 0) to `order.to`, telling `sink` each epoch.
    ///
    /// Ends early without error when the sink says [`Continue::Stop`].
    fn run(
        &mut self,
        order: &WorkOrder,
        start: &Start,
        slot: &DeviceSlot,
        sink: &mut dyn EpochSink,
    ) -> Result<(), TrialError>;
}

/// Where an attempt begins.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Start {
    /// The checkpoint to resume from; `None`: from the beginning. Its digest has been verified.
    pub checkpoint: Option<FileRef>,
    /// The epoch of that checkpoint; `Epoch(0)` without one.
    pub epoch: crate::ids::Epoch,
    /// How often a step's batch is to be halved, since earlier attempts at this trial ran out of memory. The step stays
    /// that of the whole batch.
    #[serde(default)]
    pub halvings: u32,
}

/// Where on this machine a trial computes, and where its files go.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct DeviceSlot {
    /// The device.
    pub device: Device,
    /// Threads to use.
    pub threads: usize,
    /// The study's state folder: checkpoints go to `checkpoints/`, predictions to `predictions/` inside it.
    pub study_dir: PathBuf,
    /// The cache folder shared by studies (features, decoded images).
    pub cache_dir: PathBuf,
    /// Worker number, from 0.
    pub worker: u32,
}

/// What a trial is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, strum::Display)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum Phase {
    /// Work that is done once for all trials: limits of time do not count it.
    #[strum(to_string = "{0}")]
    Prepare(Task),
    /// Training steps.
    Train,
    /// Statistics of the head's batch norm, computed anew.
    Statistics,
    /// Validation images.
    Validate,
    /// Test images.
    Test,
}

/// Hears of progress.
pub trait EpochSink {
    /// An epoch is done and durable.
    fn epoch(&mut self, report: EpochReport) -> Result<Continue, SinkClosed>;
    /// How far a phase is.
    fn progress(&mut self, _phase: Phase, _done: u64, _total: u64) {}
    /// Something that people should know.
    fn warn(&mut self, _message: &str) {}
    /// Whether to stop as soon as possible, dropping the running epoch (an interrupt, or a closed pipe).
    fn interrupted(&self) -> bool {
        false
    }
}

/// Whether the trial goes on after an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Continue {
    Go,
    Stop,
}

/// The listener has gone.
#[derive(Debug, thiserror::Error)]
#[error("the coordinator has gone")]
pub struct SinkClosed;

/// Why an attempt ended without reaching its goal.
#[derive(Debug, thiserror::Error)]
#[error("{reason}")]
pub struct TrialError {
    /// The class, which decides the policy.
    pub class: FailureClass,
    /// For people: what failed and what to do.
    pub reason: String,
    /// The disk is full: not the trial's fault, and no reason to give it up.
    pub disk_full: bool,
}

impl TrialError {
    /// A failure of a class.
    pub fn new(class: FailureClass, reason: impl Into<String>) -> Self {
        Self { class, reason: reason.into(), disk_full: false }
    }
}

impl From<SinkClosed> for TrialError {
    fn from(e: SinkClosed) -> Self {
        Self::new(FailureClass::Lost, e.to_string())
    }
}
