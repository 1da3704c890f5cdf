//! Export: a trial's checkpoint as a model that other programs can load, checked against the scores on record.

use super::card::{Card, Figure, Head, Network, Preprocessing};
use super::inputs::{Inputs, Unlikeness};
use super::{CARD, IMAGES, ONNX, file_name};
use crate::data::{PixelSource, appearances};
use crate::digest::Digest;
use crate::fsx;
use crate::ids::{Epoch, TrialNumber};
use crate::metrics::{self, Predictions};
use crate::report::{self, StudyRecord};
use crate::runner::image::{ExportedTrial, ImageError, ImageRunner, Scored, Scorer, sets};
use crate::runner::{DeviceSlot, Silent};
use crate::spec::{CachePrecision, Device, RunnerSpec};
use crate::store::{ImagesOnRecord, Reader, StoreError};
use crate::study::{self, RecordError};
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

/// Images that are looked at to say what images of the study are like.
const LOOKED_AT: usize = 500;

/// Why a trial cannot be exported.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The runner is of another kind.
    #[error("its trials are not trained on images")]
    NotImages,
    /// There is no such trial, or none has a result.
    #[error("there is no trial {}", wanted.map_or_else(|| "with a result".to_owned(), |n| n.to_string()))]
    NoTrial { wanted: Option<TrialNumber> },
    /// The checkpoint that was judged is gone.
    #[error(
        "trial {trial} has no checkpoint of its last epoch any more\nhint: kept are those of the five best complete trials"
    )]
    NoCheckpoint { trial: TrialNumber },
    /// The checkpoint is damaged or another trial's, or the network cannot be had.
    #[error("take trial {trial} from its checkpoint")]
    Checkpoint { trial: TrialNumber, source: Box<ImageError> },
    /// The images are gone, or differ from those on record.
    #[error("find the study's images: {0}")]
    Images(String),
    /// The predictions on record are gone.
    #[error("find the validation scores of trial {trial}, by which the export is checked")]
    NoPredictions { trial: TrialNumber },
    /// The exported model does not score as the trial did.
    #[error("check the export of trial {trial}: a score differs by {difference:.2e} from the one on record")]
    Differs { trial: TrialNumber, difference: f64 },
    /// Network or images fail.
    #[error(transparent)]
    Image(Box<ImageError>),
    /// The study cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What is on record cannot be read.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// A file cannot be written.
    #[error("write `{}`", path.display())]
    Io { path: PathBuf, source: std::io::Error },
    /// A file cannot be put into its format.
    #[error("put `{}` into its format", path.display())]
    Format { path: PathBuf, source: Box<dyn std::error::Error + Send + Sync> },
}

impl From<ImageError> for ExportError {
    fn from(error: ImageError) -> Self {
        Self::Image(Box::new(error))
    }
}

/// What is exported.
#[derive(Clone, Debug)]
pub struct ExportOptions {
    /// Which trial; `None`: the best.
    pub trial: Option<TrialNumber>,
    /// The folder of the study file, if it is known; else where it was when the images were first seen.
    pub base: Option<PathBuf>,
    /// Where to compute.
    pub slot: DeviceSlot,
    /// Whether the model is written as ONNX too.
    pub onnx: bool,
}

/// What was exported.
#[derive(Clone, Debug)]
pub struct Exported {
    /// The card that was written.
    pub card: Card,
    /// The files, as written.
    pub files: Vec<PathBuf>,
    /// Validation images by whose scores it was checked.
    pub checked: usize,
}

/// Writes the model of a trial into the folder `out`: the checkpoint that was judged, never trained anew, and its card.
/// Before anything is written, all validation images are scored with the exported files, and the scores compared with those
/// on record.
///
/// `dir`: the study's folder in the state folder.
///
/// # Errors
/// If the trial's checkpoint or the images are gone, if the scores differ, or if files cannot be written.
pub fn export(reader: &dyn Reader, dir: &Path, options: &ExportOptions, out: &Path) -> Result<Exported, ExportError> {
    let spec = reader.spec()?;
    let RunnerSpec::Image { data, .. } = &spec.runner else { return Err(ExportError::NotImages) };
    let tables = reader.tables()?;
    let row = match options.trial {
        Some(number) => tables.trials.get(&number).filter(|row| row.result.is_some()),
        None => tables.ranking(spec.objective.direction).into_iter().next(),
    };
    let Some(row) = row else { return Err(ExportError::NoTrial { wanted: options.trial }) };
    let trial = row.trial;
    let params = tables.configurations.get(&trial).ok_or(ExportError::NoTrial { wanted: Some(trial) })?;
    let checkpoint =
        tables.checkpoint_of(trial, Epoch(row.result_epochs)).ok_or(ExportError::NoCheckpoint { trial })?;
    let mut record = study::record(reader, dir, usize::MAX)?;
    record.finalists.retain(|finalist| finalist.trial == trial);
    let predictions = &record.finalists.first().ok_or(ExportError::NoPredictions { trial })?.validation;

    let on_record = reader.images()?.ok_or_else(|| ExportError::Images("they are not on record".to_owned()))?;
    let base = options.base.clone().unwrap_or_else(|| on_record.folder.clone());
    let mut runner = ImageRunner::new(&spec, &base);
    check_images(&on_record, runner.data(&options.slot, &mut Silent)?.digest)?;
    let exported = runner
        .export((trial, params), checkpoint, &options.slot, &mut Silent)
        .map_err(|source| ExportError::Checkpoint { trial, source: Box::new(source) })?;

    std::fs::create_dir_all(out).map_err(|source| ExportError::Io { path: out.to_owned(), source })?;
    let drafts = fsx::draft_folder(out).map_err(|source| ExportError::Io { path: out.to_owned(), source })?;
    let folds = exported.folds();
    let mut files = Vec::new();
    for fold in 0..folds {
        let path = drafts.path().join(file_name(fold, folds));
        exported.write(fold, &path)?;
        files.push(path);
    }
    let images = runner.images(&options.slot, &mut Silent)?;
    let settings = &exported.settings;
    let scorer = Scorer::load(
        &files,
        &settings.network,
        &settings.head,
        predictions.classes.len(),
        (images.size(), images.channels()),
        Device::Cpu,
    )?;
    let developed = images.split().development();
    let step = developed.len().div_ceil(LOOKED_AT).max(1);
    let some: Vec<usize> = developed.into_iter().step_by(step).collect();
    let looks = appearances(data, &base, images, &some).map_err(|e| ExportError::Images(e.to_string()))?;
    let (difference, mut distances) = compare(&scorer, images, predictions)?;
    // Features cached in half precision were rounded when the trial was judged.
    let tolerance = if settings.network.cache == CachePrecision::F16 { 0.05 } else { 2e-3 };
    let difference = (folds == 1).then_some(difference);
    if let Some(difference) = difference.filter(|d| *d > tolerance) {
        return Err(ExportError::Differs { trial, difference });
    }
    distances.sort_by(f64::total_cmp);
    let list = drafts.path().join(IMAGES);
    write_list(&list, images)?;
    files.push(list);
    let onnx = drafts.path().join(ONNX);
    if options.onnx {
        let about = about(&record, trial, predictions);
        let bytes = exported.onnx((images.size(), images.channels()), predictions.classes.len(), &about)?;
        std::fs::write(&onnx, bytes).map_err(|source| ExportError::Io { path: onnx.clone(), source })?;
        files.push(onnx.clone());
    }
    let digest =
        |path: &PathBuf| Digest::of_file(path).map_err(|source| ExportError::Io { path: path.clone(), source });
    let card = Card {
        format: Card::FORMAT,
        program: record.program.clone(),
        intended_use: None,
        study: spec.name.clone(),
        trial,
        epochs: Epoch(row.result_epochs),
        params: params.clone(),
        classes: predictions.classes.clone(),
        positive: predictions.positive,
        preprocessing: Preprocessing {
            size: images.size(),
            colour: data.colour,
            window: data.window,
            resize: "Pillow's BILINEAR: a triangle filter as wide as the reduction".to_owned(),
            scaling: settings.network.scaling,
        },
        network: network_of(&exported),
        head: Head { kind: settings.head.kind, hidden_units: settings.head.hidden_units },
        operating_point: spec.objective.operating_point.to_string(),
        threshold: metrics::threshold_at(predictions, &spec.objective.operating_point),
        validation: figures(report::validated(&record, trial)),
        test: tested(&record, trial),
        unlikeness: Unlikeness {
            median: distances.get(distances.len() / 2).copied().unwrap_or(f64::NAN),
            largest: distances.last().copied().unwrap_or(f64::INFINITY),
        },
        inputs: Inputs::of(&looks),
        models: files[..folds].iter().map(digest).collect::<Result<_, _>>()?,
        onnx: options.onnx.then(|| digest(&onnx)).transpose()?,
        pretrained: exported.weights,
        images: on_record.digest,
        largest_difference: difference,
    };
    let text = serde_json::to_string_pretty(&card)
        .map_err(|e| ExportError::Format { path: out.join(CARD), source: e.into() })?;
    for (name, text) in [(CARD, text), ("card.md", card.page())] {
        let path = drafts.path().join(name);
        std::fs::write(&path, text).map_err(|source| ExportError::Io { path: path.clone(), source })?;
        files.push(path);
    }
    let files = publish(&files, out)?;
    Ok(Exported { card, files, checked: predictions.rows.len() })
}

fn check_images(on_record: &ImagesOnRecord, now: Digest) -> Result<(), ExportError> {
    if on_record.digest == now {
        Ok(())
    } else {
        Err(ExportError::Images("they differ from those on record".to_owned()))
    }
}

/// What an ONNX file says of itself.
fn about(record: &StudyRecord, trial: TrialNumber, predictions: &Predictions) -> BTreeMap<String, String> {
    let facts = [
        ("study", record.spec.name.clone()),
        ("trial", trial.to_string()),
        ("classes", serde_json::json!(predictions.classes).to_string()),
        ("positive", predictions.classes[predictions.positive as usize].clone()),
    ];
    facts.map(|(key, value)| (key.to_owned(), value)).into()
}

fn network_of(exported: &ExportedTrial) -> Network {
    let network = &exported.settings.network;
    Network {
        backbone: network.backbone,
        width: network.width,
        pool_padding: network.pool_padding,
        tap: network.tap.clone(),
    }
}

/// The largest difference between a score on record and the same one by the exported model, and every image's distance.
fn compare(
    scorer: &Scorer,
    images: &crate::data::DataSet,
    predictions: &Predictions,
) -> Result<(f64, Vec<f64>), ExportError> {
    let by_path: HashMap<&str, usize> =
        images.records().iter().enumerate().map(|(i, image)| (image.path.as_str(), i)).collect();
    let mut pixels = Vec::with_capacity(predictions.rows.len());
    for row in &predictions.rows {
        let i = by_path.get(row.image.as_str());
        let i = i.ok_or_else(|| ExportError::Images(format!("`{}` is not among them", row.image)))?;
        pixels.push(images.pixels(*i));
    }
    let scored = scorer.score(&pixels)?;
    let difference = |(row, scored): (&metrics::Prediction, &Scored)| {
        let each = row.scores.iter().zip(&scored.scores).map(|(a, b)| f64::from((a - b).abs()));
        each.fold(0.0, f64::max)
    };
    let largest = predictions.rows.iter().zip(&scored).map(difference).fold(0.0, f64::max);
    Ok((largest, scored.iter().map(|s| s.distance).collect()))
}

fn write_list(path: &Path, images: &crate::data::DataSet) -> Result<(), ExportError> {
    let failed = |e: csv::Error| ExportError::Format { path: path.to_owned(), source: e.into() };
    let mut list = csv::Writer::from_path(path).map_err(failed)?;
    list.write_record(["digest", "set"]).map_err(failed)?;
    for (image, set) in images.records().iter().zip(sets(images)) {
        if let Some(set) = set {
            list.write_record([image.digest.to_string().as_str(), set]).map_err(failed)?;
        }
    }
    list.flush().map_err(|source| ExportError::Io { path: path.to_owned(), source })
}

/// Moves finished drafts into the folder, the card last, so that a card is always beside its model.
fn publish(drafts: &[PathBuf], out: &Path) -> Result<Vec<PathBuf>, ExportError> {
    let is_card = |path: &Path| path.file_name().is_some_and(|name| name == CARD);
    let mut order: Vec<&PathBuf> = drafts.iter().collect();
    order.sort_by_key(|path| is_card(path));
    let mut written = Vec::new();
    for draft in order {
        let target = out.join(draft.file_name().unwrap_or_default());
        std::fs::rename(draft, &target).map_err(|source| ExportError::Io { path: target.clone(), source })?;
        written.push(target);
    }
    Ok(written)
}

fn figures(metrics: Vec<report::NamedFigure>) -> BTreeMap<String, Figure> {
    let figure = |(name, value, interval): report::NamedFigure| {
        (name.to_owned(), Figure { value, interval: interval.map(|i| [i.low, i.high]) })
    };
    metrics.into_iter().map(figure).collect()
}

fn tested(record: &StudyRecord, trial: TrialNumber) -> Option<BTreeMap<String, Figure>> {
    let (tested, _) = report::tested(record)?;
    let own = tested.into_iter().find(|tested| tested.model == report::Model::Trial(trial))?;
    Some(figures(own.figures.into()))
}
