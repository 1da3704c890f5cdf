//! What is on record of a study besides its history: runs, images, test results.

use crate::digest::Digest;
use crate::engine::FileRef;
use crate::ids::{Epoch, TrialNumber};
use std::path::PathBuf;

/// What is known when a run begins.
#[derive(Clone, Debug, PartialEq)]
pub struct RunStart {
    /// Milliseconds since 1970.
    pub unix_ms: u64,
    /// Version of this program.
    pub program: String,
    /// Worker processes; 0 when a program trains through the library.
    pub workers: u32,
    /// Devices of the run, for people.
    pub device: String,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, strum::AsRefStr, strum::EnumString, strum::Display)]
#[serde(rename_all = "snake_case")]
pub enum RunEnd {
    /// Nothing is left to do, or too many trials have failed.
    #[strum(serialize = "done")]
    Done,
    /// A signal ended it.
    #[strum(serialize = "interrupted")]
    Interrupted,
    /// Its wall time is spent.
    #[serde(rename = "out of time")]
    #[strum(serialize = "out of time")]
    OutOfTime,
    /// It ended without recording how.
    #[strum(serialize = "killed")]
    Killed,
}

/// A run on record.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct RunRow {
    pub started_ms: u64,
    pub seconds: f64,
    /// `None`: it is going on, or was killed and nobody has noticed yet.
    pub ended: Option<RunEnd>,
    pub pid: u32,
    pub host: String,
    pub workers: u32,
    pub device: String,
}

/// The images of a study, as they are stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImagesOnRecord {
    /// The study file's folder when they were first seen.
    pub folder: PathBuf,
    /// Digest of names, classes, bytes and split.
    pub digest: Digest,
    /// Counts of classes and splits, JSON.
    pub summary: String,
}

/// The opening of the test images, as it is stored.
#[derive(Clone, Debug, PartialEq)]
pub struct Opening {
    /// When, milliseconds since 1970.
    pub unix_ms: u64,
    /// Whether the study was still going on.
    pub unfinished: bool,
    /// The trials that were to be evaluated, best on validation first; empty in a study of an earlier version.
    pub chosen: Vec<Chosen>,
    /// The mean of several trials' scores; `None`: of a single one, or in a study of an earlier version.
    pub mean: Option<OpenedMean>,
    /// The trials that were evaluated, best on validation first; empty if the evaluation was interrupted.
    pub results: Vec<OpenedTrial>,
}

impl Opening {
    /// The mean of the trials that were evaluated; `None` also where one that had been chosen could not be, as its
    /// threshold is that of the mean of all.
    pub fn mean_of_results(&self) -> Option<OpenedMean> {
        self.mean.filter(|_| self.chosen.is_empty() || self.chosen.len() == self.results.len())
    }
}

/// A trial that was chosen for evaluation on the test images before any of them was scored.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Chosen {
    /// Which trial.
    pub trial: TrialNumber,
    /// After which epoch.
    pub epoch: Epoch,
    /// The threshold fixed on validation images.
    pub threshold: Option<f64>,
}

/// The mean of the scores of all trials that were evaluated on the test images.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OpenedMean {
    /// The threshold fixed on validation images before the opening.
    pub threshold: Option<f64>,
}

/// A trial that was evaluated on the test images.
#[derive(Clone, Debug, PartialEq)]
pub struct OpenedTrial {
    /// Which trial.
    pub trial: TrialNumber,
    /// The threshold fixed on validation images before the opening.
    pub threshold: Option<f64>,
    /// Its predictions of the test images, relative to the study's folder.
    pub predictions: FileRef,
}
