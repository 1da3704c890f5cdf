//! A study as plain data, for reports: read from its folder beside a run that may be going on.

use crate::data::{DataSet, DataSummary, Quiet, sheet};
use crate::digest::Digest;
use crate::engine::{self, Engine, Event, FileRef, Inconsistent, Outcome, WorseThanChance};
use crate::ids::{Epoch, TrialNumber};
use crate::metrics::predictions::{self, PredictionsError};
use crate::report;
use crate::report::model::{
    AttemptRecord, EpochRecord, FailureRecord, Finalist, OrderRecord, Picture, Png, StudyRecord, TestOpening,
    TestResult, TrialRecord, TrialState,
};
use crate::spec::{RunnerSpec, StudySpec};
use crate::store::{Opening, SqliteReader, StoreError};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Why a study cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The database fails.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What is on record does not follow from the study.
    #[error(transparent)]
    Inconsistent(#[from] Inconsistent),
    /// What is on record about the images cannot be understood.
    #[error("read what the images were")]
    Images(#[source] serde_json::Error),
    /// A file of predictions cannot be read.
    #[error(transparent)]
    Predictions(#[from] PredictionsError),
    /// A file of predictions cannot be opened.
    #[error("read predictions from `{}`", path.display())]
    File { path: PathBuf, source: std::io::Error },
    /// A file of predictions is not the one that was written.
    #[error("use the predictions in `{}`: their digest is not the one on record\nhint: restore the file, or delete it to report without it", path.display())]
    Damaged { path: PathBuf },
}

/// Reads the study in `dir`, with the predictions of at most `finalists` leading trials. Takes no lock and changes
/// nothing. Predictions whose file is gone are left out; what the data held and pictures are for the caller to add.
///
/// # Errors
/// If there is no study, it cannot be read, or a file of predictions is damaged.
pub fn record(dir: &Path, finalists: usize) -> Result<StudyRecord, RecordError> {
    let reader = SqliteReader::open(&dir.join("study.db"))?;
    let mut events = Vec::new();
    reader.events(0, &mut |event| events.push(event))?;
    let (mut record, files) = replay(&reader.spec()?, &events)?;
    for number in record.ranking().into_iter().map(|t| t.number).collect::<Vec<_>>() {
        if record.finalists.len() == finalists {
            break;
        }
        let Some(file) = files.get(&number) else { continue };
        let path = dir.join(&file.path);
        if !path.exists() {
            continue;
        }
        let digest = Digest::of_file(&path).map_err(|source| RecordError::File { path: path.clone(), source })?;
        if digest != file.digest {
            return Err(RecordError::Damaged { path });
        }
        record.finalists.push(Finalist { trial: number, validation: predictions::read_csv(&path)? });
    }
    if let Some(opening) = reader.opening()? {
        record.test = Some(tested(dir, &opening)?);
    }
    if let Some(images) = reader.images()? {
        let summary: DataSummary = serde_json::from_str(&images.summary).map_err(RecordError::Images)?;
        record.data = Some((&summary).into());
    }
    for (file, title, caption) in PICTURES {
        if let Ok(png) = std::fs::read(dir.join(file)) {
            record.pictures.push(Picture { title: title.into(), caption: caption.into(), png: Png(png) });
        }
    }
    Ok(record)
}

/// Adds small pictures of what the leading trial calls wrongly, if the images are still where they were and the same.
/// A report without them is a report, so that they are gone is no error. `cache_dir`: where decoded images are kept.
pub fn illustrate(record: &mut StudyRecord, dir: &Path, cache_dir: &Path) -> Result<(), RecordError> {
    let RunnerSpec::Image { data, .. } = &record.spec.runner else { return Ok(()) };
    let Some(images) = SqliteReader::open(&dir.join("study.db"))?.images()? else { return Ok(()) };
    let wanted = report::pictured(record);
    if wanted.is_empty() {
        return Ok(());
    }
    match DataSet::open(data, record.spec.seed, &images.folder, cache_dir, &Quiet) {
        Ok(set) if set.summary().digest == images.digest => {
            let thumbnail = |path: String| Some((sheet::thumbnail(&set, &path, THUMBNAIL)?, path));
            let found = wanted.into_iter().filter_map(thumbnail);
            record.thumbnails = found.map(|(png, path)| (path, Png(png))).collect();
        }
        _ => {}
    }
    Ok(())
}

/// Side of the small pictures of [`illustrate`] in pixels.
const THUMBNAIL: u32 = 128;

/// Pictures drawn when the study was first run: file in the study's folder, title, caption.
pub const PICTURES: [(&str, &str, &str); 2] = [
    ("samples.png", "Sample images", "Some images of every class, as the network sees them before augmentation."),
    ("augmentation.png", "Augmentation at rising strengths", "One image at strengths from 0 to 1."),
];

/// The opening of the test images with its predictions.
///
/// # Errors
/// If a file of predictions is gone or not the one that was written.
pub fn tested(dir: &Path, opening: &Opening) -> Result<TestOpening, RecordError> {
    let mut results = Vec::new();
    for result in &opening.results {
        let path = dir.join(&result.predictions.path);
        let digest = Digest::of_file(&path).map_err(|source| RecordError::File { path: path.clone(), source })?;
        if digest != result.predictions.digest {
            return Err(RecordError::Damaged { path });
        }
        let predictions = predictions::read_csv(&path)?;
        results.push(TestResult { trial: result.trial, threshold: result.threshold, predictions });
    }
    Ok(TestOpening { unix_ms: opening.unix_ms, unfinished: opening.unfinished, results })
}

/// The record that events tell, and the latest file of predictions of each trial. States are the engine's: no second
/// reducer decides who was promoted.
fn replay(spec: &StudySpec, events: &[Event]) -> Result<(StudyRecord, BTreeMap<TrialNumber, FileRef>), RecordError> {
    let mut engine = Engine::new(spec);
    let mut orders: Vec<OrderRecord> = Vec::new();
    let mut epochs: BTreeMap<TrialNumber, BTreeMap<Epoch, EpochRecord>> = BTreeMap::new();
    let mut files = BTreeMap::new();
    for event in events {
        engine.apply(event)?;
        match event {
            Event::Enqueued { .. } | Event::EarlierResults { .. } => {}
            Event::OrderIssued { order } => {
                orders.push(OrderRecord { order: order.clone(), outcome: None, attempts: Vec::new() });
            }
            Event::AttemptStarted { order, worker, unix_ms, .. } => {
                let attempt = AttemptRecord { worker: *worker, started_ms: *unix_ms, ended_ms: *unix_ms, lost: None };
                orders[order.0 as usize].attempts.push(attempt);
            }
            Event::EpochReported { order, report, unix_ms, .. } => {
                let order = &mut orders[order.0 as usize];
                if let Some(attempt) = order.attempts.last_mut() {
                    attempt.ended_ms = *unix_ms;
                }
                if let Some(file) = &report.predictions {
                    files.insert(order.order.trial, file.clone());
                }
                let epoch = EpochRecord {
                    epoch: report.epoch,
                    value: report.value.filter(|v| v.is_finite()),
                    metrics: report.metrics.clone(),
                    train_loss: report.train_loss.filter(|v| v.is_finite()),
                    seconds: report.seconds,
                    data_wait_seconds: report.data_wait_seconds,
                    unix_ms: *unix_ms,
                };
                epochs.entry(order.order.trial).or_default().insert(report.epoch, epoch);
            }
            Event::AttemptLost { order, class, reason, unix_ms, .. } => {
                if let Some(attempt) = orders[order.0 as usize].attempts.last_mut() {
                    attempt.ended_ms = *unix_ms;
                    attempt.lost = Some(FailureRecord { class: *class, reason: reason.clone() });
                }
            }
            Event::OrderFinished { order, outcome, unix_ms } => {
                let order = &mut orders[order.0 as usize];
                if let Some(attempt) = order.attempts.last_mut() {
                    attempt.ended_ms = attempt.ended_ms.max(*unix_ms);
                }
                order.outcome = Some(outcome.clone());
            }
        }
    }
    let trials = engine
        .trials()
        .map(|view| {
            let mut own = epochs.remove(&view.number).unwrap_or_default();
            // Epochs that a lost attempt had reached and nobody trained again are no part of the trial.
            own.retain(|epoch, _| epoch.0 as usize <= view.curve.len());
            let last = own.last_key_value().and_then(|(_, e)| e.value);
            TrialRecord {
                number: view.number,
                params: (*view.params).clone(),
                state: state(view.state),
                worse_than_chance: WorseThanChance::first(view.curve.iter().copied()).map(|w| (w.epoch, w.roc_auc)),
                value: if view.state == engine::TrialState::Failed { None } else { view.value.or(last) },
                epochs: own.into_values().collect(),
                bracket: view.bracket,
                rung: view.rung,
                failure: view
                    .failure
                    .as_ref()
                    .map(|f| FailureRecord { class: f.class, reason: f.reason.clone() })
                    .or_else(|| failure(&orders, view.number)),
            }
        })
        .collect();
    let record = StudyRecord {
        spec: spec.clone(),
        trials,
        orders,
        data: None,
        finalists: Vec::new(),
        test: None,
        pictures: Vec::new(),
        thumbnails: BTreeMap::new(),
        program: concat!("hpsearch ", env!("CARGO_PKG_VERSION")).to_owned(),
    };
    Ok((record, files))
}

fn failure(orders: &[OrderRecord], trial: TrialNumber) -> Option<FailureRecord> {
    orders.iter().rev().filter(|o| o.order.trial == trial).find_map(|o| match &o.outcome {
        Some(Outcome::Failed { class, reason }) => Some(FailureRecord { class: *class, reason: reason.clone() }),
        _ => None,
    })
}

fn state(state: engine::TrialState) -> TrialState {
    match state {
        engine::TrialState::Waiting => TrialState::Waiting,
        engine::TrialState::Running => TrialState::Running,
        engine::TrialState::Paused => TrialState::Paused,
        engine::TrialState::Complete => TrialState::Complete,
        engine::TrialState::Stopped => TrialState::Stopped,
        engine::TrialState::Failed => TrialState::Failed,
    }
}
