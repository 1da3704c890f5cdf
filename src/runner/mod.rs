//! Runners: they train the trials of work orders.

pub mod command;
pub mod device;
pub mod image;
pub mod synthetic;

use crate::data::Task;
use crate::digest::Digest;
use crate::engine::{EpochReport, FailureClass, FileRef, WorkOrder};
use crate::spec::Device;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Runs work orders. Implementations: `image` (candle), `command` (any program), `synthetic` (a formula).
///
/// A checkpoint file is complete and durable before its epoch is reported to the sink.
pub trait TrialRunner: Send {
    /// Trains `order` from `start.epoch` (its last good checkpoint, or 0) to `order.to`, reporting every epoch to
    /// `sink`.
    ///
    /// Returns early, without error, when the sink answers [`Continue::Stop`] or is interrupted.
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
    /// The checkpoint to resume from, its digest verified; `None`: from the beginning, or from what a command keeps itself.
    pub checkpoint: Option<FileRef>,
    /// The epoch of that checkpoint; without one `Epoch(0)`, or for a command the last epoch on record.
    pub epoch: crate::ids::Epoch,
    /// How many times to halve the number of images computed at once, because earlier attempts at this trial ran out of
    /// memory. A step still takes the gradient of the whole batch.
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

/// What a trial is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, strum::Display)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum Phase {
    /// Preparation shared by all trials; time limits do not count it.
    #[strum(to_string = "{0}")]
    Prepare(Task),
    /// Training steps.
    Train,
    /// Recomputing the statistics of the head's batch norm.
    Statistics,
    /// Validation images.
    Validate,
    /// Test images.
    Test,
}

/// Receives a trial's reports.
pub trait EpochSink {
    /// An epoch is done and durable.
    fn epoch(&mut self, report: EpochReport) -> Result<Continue, SinkClosed>;
    /// Progress within a phase.
    fn progress(&mut self, _phase: Phase, _done: u64, _total: u64) {}
    /// A warning for the user.
    fn warn(&mut self, _message: &str) {}
    /// Whether to stop as soon as possible, dropping the running epoch (an interrupt, or a closed pipe).
    fn interrupted(&self) -> bool {
        false
    }
}

/// A sink that ignores progress and never stops anything.
#[derive(Clone, Copy, Debug)]
pub struct Silent;

impl EpochSink for Silent {
    fn epoch(&mut self, _: EpochReport) -> Result<Continue, SinkClosed> {
        Ok(Continue::Go)
    }
}

/// Whether the trial goes on after an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Continue {
    Go,
    Stop,
}

/// The receiver of reports has gone.
#[derive(Debug, thiserror::Error)]
#[error("the coordinator has gone")]
pub struct SinkClosed;

/// What the trials of a study are made of: with other images or weights they would be other trials.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Materials {
    /// The digest of the images and their split, if on record.
    pub images: Option<Digest>,
    /// The digests of the weights that backbones begin with, by backbone, as far as on record.
    pub weights: BTreeMap<String, Digest>,
}

/// Why an attempt ended without reaching its goal.
#[derive(Debug, thiserror::Error)]
#[error("{reason}")]
pub struct TrialError {
    /// The class, which decides the failure policy.
    pub class: FailureClass,
    /// For people: what failed and what to do.
    pub reason: String,
    /// It is the fault of the place and not of the trial: its disk is full or broken, or images and weights are gone or are others.
    /// The order is left open for another time or place.
    pub of_place: bool,
}

impl TrialError {
    /// A failure of a class.
    pub fn new(class: FailureClass, reason: impl Into<String>) -> Self {
        Self { class, reason: reason.into(), of_place: false }
    }
}

impl From<SinkClosed> for TrialError {
    fn from(e: SinkClosed) -> Self {
        Self::new(FailureClass::Lost, e.to_string())
    }
}
