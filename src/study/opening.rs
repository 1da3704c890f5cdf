//! The only opening of the locked test images: which trials are evaluated, with which thresholds, recorded permanently.

use super::images::{ImagesError, same};
use super::record::{self, RecordError};
use super::{Study, StudyError};
use crate::clock;
use crate::digest::Digest;
use crate::engine::{DoneReason, FileRef, Plan, TrialState};
use crate::fsx;
use crate::ids::{Epoch, TrialNumber};
use crate::metrics::{self, Predictions, PredictionsError, predictions};
use crate::runner::image::{ImageError, ImageRunner};
use crate::runner::{DeviceSlot, Materials, Silent};
use crate::space::Params;
use crate::spec::{OperatingPoint, RunnerSpec};
use crate::store::{Chosen, OpenedMean, OpenedTrial, Opening, StoreError};
use std::io;
use std::path::PathBuf;

/// Why the test images stay locked, or could not be evaluated.
#[derive(Debug, thiserror::Error)]
pub enum OpeningError {
    /// The runner is of another kind.
    #[error("its trials are not trained on images")]
    NotImages,
    /// The study is not over.
    #[error(
        "it is not over, and test images are opened once\nhint: finish it with `hpsearch run`, or say --unfinished"
    )]
    NotOver,
    /// The folder of the study's images was never recorded.
    #[error("where its images are is not on record\nhint: name the study file instead of the study")]
    NoFolder,
    /// No trial can be evaluated.
    #[error(
        "no trial that could be tested has a checkpoint\nhint: raise `limits.checkpoint_size` if a quota removed them"
    )]
    NoFinalists,
    /// A finalist's checkpoint is gone, damaged or another trial's.
    #[error("evaluate trial {trial}")]
    Checkpoint { trial: TrialNumber, source: Box<ImageError> },
    /// The images are gone, or differ from those on record.
    #[error(transparent)]
    Images(#[from] ImagesError),
    /// The network or the images fail.
    #[error(transparent)]
    Image(Box<ImageError>),
    /// What is on record cannot be read.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The study fails.
    #[error(transparent)]
    Study(#[from] StudyError),
    /// Predictions cannot be written as text.
    #[error(transparent)]
    Predictions(#[from] PredictionsError),
    /// A file or folder cannot be written.
    #[error("write `{}`", path.display())]
    Io { path: PathBuf, source: io::Error },
}

impl From<StoreError> for OpeningError {
    fn from(error: StoreError) -> Self {
        Self::Study(error.into())
    }
}

impl From<ImageError> for OpeningError {
    fn from(error: ImageError) -> Self {
        Self::Image(Box::new(error))
    }
}

/// How many leading trials are evaluated on the test images if nothing else is said, and have a part in their mean.
pub const FINALISTS: usize = 5;

/// How the test images are opened.
#[derive(Clone, Debug)]
pub struct OpeningOptions {
    /// How many leading trials are evaluated; the first is the result, the others are for comparison.
    pub finalists: usize,
    /// Open them although the study is not over; the record says so.
    pub unfinished: bool,
    /// The folder at which paths of the study file start; `None`: where it was when the images were first seen.
    pub base: Option<PathBuf>,
    /// Where to compute.
    pub slot: DeviceSlot,
}

/// The threshold of the mean of several finalists' scores, fixed on validation images.
fn mean_of(candidates: &[Candidate], point: &OperatingPoint) -> Option<OpenedMean> {
    let validation: Vec<&Predictions> = candidates.iter().map(|c| &c.validation).collect();
    let mean = Predictions::mean(&validation).filter(|_| validation.len() > 1)?;
    Some(OpenedMean { threshold: metrics::threshold_at(&mean, point) })
}

/// A trial that will be evaluated, fixed before any test image is scored.
struct Candidate {
    trial: TrialNumber,
    params: Params,
    epoch: Epoch,
    checkpoint: FileRef,
    threshold: Option<f64>,
    validation: Predictions,
}

impl Candidate {
    fn chosen(&self) -> Chosen {
        Chosen { trial: self.trial, epoch: self.epoch, threshold: self.threshold }
    }
}

/// The leading trials that can be evaluated, and why others among them cannot.
type Candidates = (Vec<Candidate>, Vec<String>);

impl Study {
    /// Evaluates the finalists on the test images, writes their predictions, and puts the opening on record. Everything
    /// that can fail is tried before the first test image is scored. Returns which leading trials could not be
    /// evaluated, and why. An interrupted opening is completed with the trials that it began with; if the results are on
    /// record, nothing is done.
    ///
    /// # Errors
    /// If the study is not over, has no test images or no finalists, if its images are not those it was trained on, or
    /// a checkpoint is gone or damaged. Nothing is opened then.
    pub fn open_test_images(&mut self, options: &OpeningOptions) -> Result<Vec<String>, OpeningError> {
        if !matches!(self.spec().runner, RunnerSpec::Image { .. }) {
            return Err(OpeningError::NotImages);
        }
        let begun = self.store.opening()?;
        if begun.as_ref().is_some_and(|opening| !opening.results.is_empty()) {
            return Ok(Vec::new()); // done already, maybe by another process just now
        }
        let on_record = self.store.images()?;
        if let Some(images) = &on_record {
            let images = serde_json::from_str(&images.summary).map_err(ImagesError::from)?;
            self.price_trials(&images);
        }
        let unfinished = !self.is_over()?;
        if unfinished && !options.unfinished && begun.is_none() {
            return Err(OpeningError::NotOver);
        }
        let folder = || on_record.as_ref().map(|images| images.folder.clone()).ok_or(OpeningError::NoFolder);
        let base = options.base.clone().map_or_else(folder, Ok)?;
        let (slot, dir) = (&options.slot, self.dir().to_owned());
        let weights = Materials { images: None, ..self.materials()? }; // images are compared below, in words
        let mut runner = ImageRunner::new(self.spec(), &base).expecting(weights);
        let images = runner.data(slot, &mut Silent)?;
        if let Some(on_record) = &on_record {
            same(on_record, images)?;
        }
        let chosen = begun.as_ref().map_or(&[][..], |opening| &opening.chosen);
        let (candidates, left_out) = self.candidates(options.finalists, chosen)?;
        for c in &candidates {
            runner
                .rehearse((c.trial, &c.params), &c.checkpoint, slot, &mut Silent)
                .map_err(|source| OpeningError::Checkpoint { trial: c.trial, source: Box::new(source) })?;
        }
        let folder = dir.join("test");
        std::fs::create_dir_all(&folder).map_err(|source| OpeningError::Io { path: folder, source })?;
        // An interrupted opening is completed with the trials and thresholds that were fixed before it.
        if begun.is_none() {
            self.store.begin_opening(&Opening {
                unix_ms: clock::unix_ms(),
                unfinished,
                chosen: candidates.iter().map(Candidate::chosen).collect(),
                mean: mean_of(&candidates, &self.spec().objective.operating_point),
                results: Vec::new(),
            })?;
        }
        let mut results = Vec::new();
        for c in &candidates {
            let found = runner.test((c.trial, &c.params), &c.checkpoint, slot, &mut Silent)?;
            let path = format!("test/{:05}.csv", c.trial.0);
            let bytes = predictions::to_csv(&found)?;
            let target = dir.join(&path);
            fsx::write_atomic(&target, &bytes).map_err(|source| OpeningError::Io { path: target, source })?;
            let file = FileRef { path, digest: Digest::of(&bytes), bytes: bytes.len() as u64 };
            results.push(OpenedTrial { trial: c.trial, threshold: c.threshold, predictions: file });
        }
        self.store.record_tested(&results)?;
        Ok(left_out)
    }

    /// Whether there is nothing left to train, or no time left to do it in.
    fn is_over(&self) -> Result<bool, StudyError> {
        let done = match self.engine().plan() {
            Plan::Done(DoneReason::FailureLimit) => true,
            Plan::Done(_) => self.engine().open_orders().next().is_none(),
            _ => false,
        };
        let spent = self.run_seconds()?;
        Ok(done || self.spec().budget.wall_seconds.is_some_and(|limit| spent >= limit))
    }

    /// The leading trials, at most so many; or those that were chosen when the opening began.
    fn candidates(&self, most: usize, chosen: &[Chosen]) -> Result<Candidates, OpeningError> {
        let reader = self.claim.read()?;
        let mut record = record::record(&*reader, self.dir(), usize::MAX)?;
        let needed = self.engine().needed_checkpoints();
        let (mut candidates, mut left_out): Candidates = (Vec::new(), Vec::new());
        let (trials, most) = match chosen {
            [] => (self.engine().ranking(), most),
            _ => (chosen.iter().filter_map(|c| self.engine().trial(c.trial)).collect(), chosen.len()),
        };
        for trial in trials {
            if candidates.len() == most {
                break;
            }
            let fixed = chosen.iter().find(|c| c.trial == trial.number);
            if fixed.is_some_and(|fixed| trial.latest().map(|(epoch, _)| epoch) != Some(fixed.epoch)) {
                let number = trial.number;
                left_out.push(format!("trial {number} cannot be tested: it was trained on since the opening began"));
                continue;
            }
            let checkpoint = needed
                .iter()
                .find(|n| n.trial == trial.number && Some(n.epoch) == trial.latest().map(|(epoch, _)| epoch));
            let place = record.finalists.iter().position(|f| f.trial == trial.number);
            let validation = place.map(|place| record.finalists.swap_remove(place).validation);
            match (checkpoint, validation) {
                (Some(checkpoint), Some(validation)) => candidates.push(Candidate {
                    trial: trial.number,
                    params: (*trial.params).clone(),
                    epoch: checkpoint.epoch,
                    checkpoint: checkpoint.file.clone(),
                    threshold: match fixed {
                        Some(fixed) => fixed.threshold,
                        None => metrics::threshold_at(&validation, &self.spec().objective.operating_point),
                    },
                    validation,
                }),
                // A trial stopped early is not expected to have a checkpoint.
                _ if trial.state == TrialState::Stopped && fixed.is_none() => {}
                (None, _) => {
                    left_out.push(format!("trial {} cannot be tested: its checkpoint is not kept", trial.number));
                }
                (_, None) => {
                    left_out.push(format!("trial {} cannot be tested: its predictions are gone", trial.number));
                }
            }
        }
        if candidates.is_empty() { Err(OpeningError::NoFinalists) } else { Ok((candidates, left_out)) }
    }
}
