//! What a report is made from: a study as plain data, built from a store or by a library user. Nothing below reads a
//! clock, a database or a network, so the same record gives the same bytes.

use super::audit::Audit;
pub use super::picture::{Picture, Png};
use crate::data::{DataSummary, GivenValidation};
use crate::engine::{FailureClass, TrialState};
use crate::history::OutcomeKind;
use crate::ids::{Epoch, OrderId, TrialNumber};
use crate::ledger::Place;
use crate::metrics::Predictions;
use crate::space::Params;
use crate::spec::StudySpec;
use crate::wording::counted;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A study in its current state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StudyRecord {
    /// The study's specification.
    pub spec: StudySpec,
    /// The trials, by number.
    pub trials: Vec<TrialRecord>,
    /// The work orders, by number, with the attempts at them.
    pub orders: Vec<OrderRecord>,
    /// Earlier studies of which the search used results (warm start), with the number of those results.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub warm_starts: BTreeMap<String, u64>,
    /// The images and their split; `None` for studies without images.
    pub data: Option<DataRecord>,
    /// The leading trials with their validation predictions, best first; empty where a runner gives none.
    pub finalists: Vec<Finalist>,
    /// The opening of the test images, if it has happened.
    pub test: Option<TestOpening>,
    /// What an audit of its images found, if there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audit: Option<Audit>,
    /// Pictures to show as they are: sample images, augmentation sheets.
    pub pictures: Vec<Picture>,
    /// Small pictures of images by their path, for the gallery of errors.
    pub thumbnails: BTreeMap<String, Png>,
    /// Which program made the record, such as `hpsearch 0.1.0`.
    pub program: String,
}

/// One configuration and its history.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrialRecord {
    /// Its number.
    pub number: TrialNumber,
    /// Its configuration.
    pub params: Params,
    /// Its state.
    pub state: TrialState,
    /// The objective after its latest epoch, by which it is ranked, if defined.
    pub value: Option<f64>,
    /// Finished epochs, in order (of several attempts at one epoch, the one that counts).
    pub epochs: Vec<EpochRecord>,
    /// The scheduler's bracket.
    pub bracket: u32,
    /// The highest rung it has reached.
    pub rung: Option<u32>,
    /// Why it failed, if it did.
    pub failure: Option<FailureRecord>,
    /// After which epoch its validation ROC-AUC was no better than chance although the training loss fell, and what it
    /// was.
    #[serde(default)]
    pub worse_than_chance: Option<(Epoch, f64)>,
}

impl TrialRecord {
    /// Its latest epoch.
    pub fn latest(&self) -> Epoch {
        self.epochs.last().map_or(Epoch(0), |report| report.epoch)
    }
}

/// A finished epoch.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EpochRecord {
    /// Epochs done.
    pub epoch: Epoch,
    /// The objective; `None` when undefined or not finite.
    pub value: Option<f64>,
    /// Further metrics by name.
    pub metrics: BTreeMap<String, f64>,
    /// Mean training loss.
    pub train_loss: Option<f64>,
    /// Seconds it took.
    pub seconds: f64,
    /// Seconds of them spent waiting for pixels.
    pub data_wait_seconds: f64,
    /// When it was recorded, milliseconds since 1970.
    pub unix_ms: u64,
}

/// A failure and its class.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailureRecord {
    /// The class.
    pub class: FailureClass,
    /// The reason, for people.
    pub reason: String,
}

/// A work order with its outcome and attempts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OrderRecord {
    /// Its number.
    pub order: OrderId,
    /// The trial it trains.
    pub trial: TrialNumber,
    /// Epochs done before.
    pub from: Epoch,
    /// Epochs done at its end.
    pub to: Epoch,
    /// The scheduler's bracket.
    pub bracket: u32,
    /// The rung reached at its end, if the scheduler has rungs.
    pub rung: Option<u32>,
    /// How it ended, after how many epochs of the trial; `None` while open.
    pub outcome: Option<(OutcomeKind, Epoch)>,
    /// Attempts at it, in order.
    pub attempts: Vec<AttemptRecord>,
}

/// A worker's attempt at an order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AttemptRecord {
    /// Worker number, from 0.
    pub worker: u32,
    /// Beginning, milliseconds since 1970.
    pub started_ms: u64,
    /// End (or latest sign of life), milliseconds since 1970.
    pub ended_ms: u64,
    /// Why it was lost, if it ended without an outcome.
    pub lost: Option<FailureRecord>,
}

/// The data of a study.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DataRecord {
    /// Class names.
    pub classes: Vec<String>,
    /// Index of the positive class.
    pub positive: u32,
    /// Images per split (training, validation, test), in order of use.
    pub splits: Vec<SplitRecord>,
    /// Files left out, with the reason.
    pub skipped: Vec<(String, String)>,
    /// Different patients, where known.
    pub patients: Option<u64>,
    /// What else a reader should know, a sentence each, without full stop.
    pub notes: Vec<String>,
    /// What became of a validation set that came with the data.
    pub given_validation: GivenValidation,
    /// Images left out because their patient, or their bytes, are also in a test or validation set that came with the data.
    pub dropped: u64,
    /// Whether the program generated the images; the report then says that they come from no patient.
    pub synthetic: bool,
}

/// One part of the split.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SplitRecord {
    /// `training`, `validation`, `test`, `fold 1 validation`, ...
    pub name: String,
    /// Images of each class.
    pub counts: Vec<u64>,
}

/// A leading trial.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Finalist {
    /// Which trial.
    pub trial: TrialNumber,
    /// Its validation predictions after its latest epoch (folds pooled).
    pub validation: Predictions,
}

/// The one-time evaluation on the test images.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TestOpening {
    /// When, milliseconds since 1970.
    pub unix_ms: u64,
    /// Whether the study was not over yet: later trials may have been influenced by the test results.
    #[serde(default)]
    pub unfinished: bool,
    /// The evaluated finalists, best on validation first.
    pub results: Vec<TestResult>,
    /// What was fixed for the mean of their scores, where there are several.
    #[serde(default)]
    pub mean: Option<TestMean>,
}

/// The mean of the finalists' scores on the test images.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct TestMean {
    /// The threshold that was fixed on the validation images before the opening; `None`: undefined there.
    pub threshold: Option<f64>,
}

/// A finalist on the test images.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TestResult {
    /// Which trial.
    pub trial: TrialNumber,
    /// The threshold that was fixed on the validation images before the opening; `None`: undefined there.
    pub threshold: Option<f64>,
    /// Its predictions; without images if their file is gone.
    pub predictions: Predictions,
}

impl From<&DataSummary> for DataRecord {
    fn from(s: &DataSummary) -> Self {
        let mut splits = Vec::new();
        let many = s.folds.len() > 1;
        for (i, fold) in s.folds.iter().enumerate() {
            let name = |part: &str| if many { format!("fold {}, {part}", i + 1) } else { part.to_owned() };
            splits.push(SplitRecord { name: name("training"), counts: fold.train.clone() });
            splits.push(SplitRecord { name: name("validation"), counts: fold.validation.clone() });
        }
        if s.test.iter().any(|&n| n > 0) {
            splits.push(SplitRecord { name: "test".to_owned(), counts: s.test.clone() });
        }
        let unknown = s.patients.as_ref().map_or(0, |p| p.unknown);
        let mut notes = s.remarks();
        if unknown > 0 {
            notes.push(format!(
                "the patient of {} is not known: each image counts as a patient of its own",
                counted(unknown, "image")
            ));
        }
        Self {
            classes: s.classes.clone(),
            positive: s.positive,
            splits,
            patients: s.patients.as_ref().map(|p| p.patients),
            notes,
            given_validation: s.given_validation,
            dropped: s.dropped.iter().sum(),
            skipped: s.skipped.iter().map(|f| (f.path.clone(), f.reason.clone())).collect(),
            synthetic: s.synthetic,
        }
    }
}

impl StudyRecord {
    /// A trial by its number.
    pub fn trial(&self, number: TrialNumber) -> Option<&TrialRecord> {
        self.trials.binary_search_by_key(&number, |t| t.number).ok().map(|at| &self.trials[at])
    }

    /// Whether `a` is better than `b` in the study's direction.
    pub fn better(&self, a: f64, b: f64) -> bool {
        match self.spec.objective.direction {
            crate::spec::Direction::Maximize => a > b,
            crate::spec::Direction::Minimize => a < b,
        }
    }

    /// Trials with a value, best first (see [`Place`]). Failed trials take no part.
    pub fn ranking(&self) -> Vec<&TrialRecord> {
        let direction = self.spec.objective.direction;
        let place = |t: &TrialRecord| {
            let value = t.value.filter(|_| t.state != TrialState::Failed)?;
            Some(Place::new(direction, t.state == TrialState::Stopped, t.latest(), value, t.number))
        };
        let mut ranked: Vec<(Place, &TrialRecord)> = self.trials.iter().filter_map(|t| Some((place(t)?, t))).collect();
        ranked.sort_by_key(|(place, _)| *place);
        ranked.into_iter().map(|(_, trial)| trial).collect()
    }
}
