//! Export: a trial's checkpoint as a model that other programs can load, checked against the scores on record.

mod checked;

use super::card::{Card, Figure, Head, Member, Network, Preprocessing};
use super::inputs::{Inputs, Unlikeness};
use super::{CARD, IMAGES, ONNX, file_name};
use crate::data::{DataSet, PixelSource, appearances};
use crate::digest::Digest;
use crate::engine::FileRef;
use crate::fsx;
use crate::history::Tables;
use crate::ids::{Epoch, TrialNumber};
use crate::metrics::{self, Predictions};
use crate::report::{self, StudyRecord};
use crate::runner::image::{ExportedTrial, ImageError, ImageRunner, mean_of, sets, to_onnx};
use crate::runner::{DeviceSlot, Silent};
use crate::space::Params;
use crate::spec::{RunnerSpec, StudySpec};
use crate::store::{ImagesOnRecord, Reader, StoreError};
use crate::study::{self, FINALISTS, RecordError};
use checked::{Computed, checked};
use std::collections::BTreeMap;
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
    /// There are no several trials of which a mean could be taken.
    #[error("{found} of the leading trials has a checkpoint and predictions on the same images: a mean takes two")]
    NoMean { found: usize },
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
    #[error(
        "check the export of trial {trial}: a score differs by {difference:.2e} from the one on record\nhint: was \
         `precision` in `[run]` another when it was trained? `run` the study with that again first"
    )]
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
    /// The folder has a model of an earlier export, which cannot be deleted.
    #[error("delete `{}`, which an earlier export left beside the new model\nhint: delete it by hand", path.display())]
    Left { path: PathBuf, source: std::io::Error },
    /// A file cannot be put into its format.
    #[error("put `{}` into its format", path.display())]
    Format { path: PathBuf, source: Box<dyn std::error::Error + Send + Sync> },
}

impl From<ImageError> for ExportError {
    fn from(error: ImageError) -> Self {
        Self::Image(Box::new(error))
    }
}

/// Whose scores an exported model gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// Those of the first of the ranking.
    Best,
    /// Those of this trial.
    Trial(TrialNumber),
    /// The mean of the finalists': of those whose mean was tested on the test images, else of the [`FINALISTS`] leading ones.
    Mean,
}

/// What is exported.
#[derive(Clone, Debug)]
pub struct ExportOptions {
    /// Whose scores count.
    pub choice: Choice,
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

/// A trial that is exported, as it is on record.
struct Source<'a> {
    trial: TrialNumber,
    epochs: Epoch,
    params: &'a Params,
    checkpoint: &'a FileRef,
}

/// Writes a trial's model, or those of several whose mean score counts, into the folder `out`: the checkpoints that were judged,
/// never trained anew, and a card. Before anything is written, all validation images are scored with the exported files, with
/// folds each by the model that was not trained on it, and the scores compared with those on record. Models that an earlier
/// export left in the folder are deleted.
///
/// `dir`: the study's folder in the state folder.
///
/// # Errors
/// If a checkpoint or the images are gone, if the scores differ, or if files cannot be written.
pub fn export(reader: &dyn Reader, dir: &Path, options: &ExportOptions, out: &Path) -> Result<Exported, ExportError> {
    let spec = reader.spec()?;
    let RunnerSpec::Image { data, .. } = &spec.runner else { return Err(ExportError::NotImages) };
    let tables = reader.tables()?;
    let mut record = study::record(reader, dir, usize::MAX)?;
    let sources = sources(&spec, &tables, &record, options.choice)?;
    record.finalists.retain(|finalist| sources.iter().any(|source| source.trial == finalist.trial));
    // Where a single trial was tested, no mean was.
    record.test = record.test.filter(|test| sources.len() <= test.results.len());

    let on_record = reader.images()?.ok_or_else(|| ExportError::Images("they are not on record".to_owned()))?;
    let base = options.base.clone().unwrap_or_else(|| on_record.folder.clone());
    let mut runner = ImageRunner::new(&spec, &base);
    check_images(&on_record, runner.data(&options.slot, &mut Silent)?.digest)?;

    std::fs::create_dir_all(out).map_err(|source| ExportError::Io { path: out.to_owned(), source })?;
    let drafts = fsx::draft_folder(out).map_err(|source| ExportError::Io { path: out.to_owned(), source })?;
    let mut trials = Vec::new();
    for Source { trial, params, checkpoint, .. } in &sources {
        let exported = runner
            .export((*trial, params), checkpoint, &options.slot, &mut Silent)
            .map_err(|source| ExportError::Checkpoint { trial: *trial, source: Box::new(source) })?;
        trials.push(exported);
    }
    let images = runner.images(&options.slot, &mut Silent)?;
    let total = trials.iter().map(ExportedTrial::folds).sum();
    let on_gpu = reader.runs()?.iter().any(|run| run.device != "cpu");
    let computed = Computed { on_gpu, precision: spec.run.precision };
    let (mut files, mut members, mut scored) = (Vec::new(), Vec::new(), Vec::new());
    for (source, exported) in sources.iter().zip(&trials) {
        let mut own = Vec::new();
        for fold in 0..exported.folds() {
            let path = drafts.path().join(file_name(files.len() + own.len(), total));
            exported.write(fold, &path)?;
            own.push(path);
        }
        let predictions = of(&record, source.trial)?;
        let (scores, difference) = checked(source.trial, exported, &own, images, (predictions, computed))?;
        scored.push(scores);
        members.push(Member {
            trial: source.trial,
            epochs: source.epochs,
            params: source.params.clone(),
            network: network_of(exported),
            head: Head { kind: exported.settings.head.kind, hidden_units: exported.settings.head.hidden_units },
            models: own.iter().map(|path| digest(path)).collect::<Result<_, _>>()?,
            pretrained: exported.weights,
            largest_difference: Some(difference),
        });
        files.extend(own);
    }
    let mut distances: Vec<f64> = mean_of(scored).into_iter().map(|scored| scored.distance).collect();
    distances.sort_by(f64::total_cmp);
    let judged: Vec<&Predictions> = record.finalists.iter().map(|finalist| &finalist.validation).collect();
    let predictions = Predictions::mean(&judged).ok_or(ExportError::NoMean { found: 1 })?;

    let developed = images.split().development();
    let step = developed.len().div_ceil(LOOKED_AT).max(1);
    let some: Vec<usize> = developed.into_iter().step_by(step).collect();
    let looks = appearances(data, &base, images, &some).map_err(|e| ExportError::Images(e.to_string()))?;
    let list = drafts.path().join(IMAGES);
    write_list(&list, images)?;
    files.push(list);
    let model = match sources.as_slice() {
        [only] => report::Model::Trial(only.trial),
        several => report::Model::Mean(several.len()),
    };
    let mut card = Card {
        format: Card::format_of(&members),
        program: record.program.clone(),
        intended_use: None,
        study: spec.name.clone(),
        members,
        classes: predictions.classes.clone(),
        positive: predictions.positive,
        preprocessing: Preprocessing {
            size: images.size(),
            colour: data.colour,
            window: data.window,
            resize: "Pillow's BILINEAR: a triangle filter as wide as the reduction".to_owned(),
        },
        operating_point: spec.objective.operating_point.to_string(),
        threshold: metrics::threshold_at(&predictions, &spec.objective.operating_point),
        validation: figures(report::validated(&record, model)),
        test: tested(&record, model),
        unlikeness: Unlikeness {
            median: distances.get(distances.len() / 2).copied().unwrap_or(f64::NAN),
            largest: distances.last().copied().unwrap_or(f64::INFINITY),
        },
        inputs: Inputs::of(&looks),
        onnx: None,
        images: on_record.digest,
    };
    if options.onnx {
        let path = drafts.path().join(ONNX);
        let bytes = to_onnx(&trials, (images.size(), images.channels()), predictions.classes.len(), &about(&card))?;
        std::fs::write(&path, bytes).map_err(|source| ExportError::Io { path: path.clone(), source })?;
        card.onnx = Some(digest(&path)?);
        files.push(path);
    }
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

/// The trials whose scores count, best first.
fn sources<'a>(
    spec: &StudySpec,
    tables: &'a Tables,
    record: &StudyRecord,
    choice: Choice,
) -> Result<Vec<Source<'a>>, ExportError> {
    let ranking = tables.ranking(spec.objective.direction);
    let source = |trial: TrialNumber, epochs: u32| -> Result<Source<'a>, ExportError> {
        let params = tables.configurations.get(&trial).ok_or(ExportError::NoTrial { wanted: Some(trial) })?;
        let epochs = Epoch(epochs);
        let checkpoint = tables.checkpoint_of(trial, epochs).ok_or(ExportError::NoCheckpoint { trial })?;
        of(record, trial)?;
        Ok(Source { trial, epochs, params, checkpoint })
    };
    let row = match choice {
        Choice::Best => ranking.first().copied().ok_or(ExportError::NoTrial { wanted: None })?,
        Choice::Trial(number) => {
            let row = tables.trials.get(&number).filter(|row| row.value.is_some());
            row.ok_or(ExportError::NoTrial { wanted: Some(number) })?
        }
        Choice::Mean => {
            let tested = record.test.as_ref().filter(|test| test.mean.is_some());
            let tested: Option<Vec<TrialNumber>> =
                tested.map(|test| test.results.iter().map(|result| result.trial).collect());
            let leading = ranking.into_iter();
            let found: Vec<Source<'_>> = match tested {
                // All of those whose mean was tested.
                Some(tested) => {
                    let tested = leading.filter(|row| tested.contains(&row.trial));
                    tested.map(|row| source(row.trial, row.epochs)).collect::<Result<_, _>>()?
                }
                None => leading.filter_map(|row| source(row.trial, row.epochs).ok()).take(FINALISTS).collect(),
            };
            return if found.len() > 1 { Ok(found) } else { Err(ExportError::NoMean { found: found.len() }) };
        }
    };
    Ok(vec![source(row.trial, row.epochs)?])
}

/// The validation scores of a trial on record.
fn of(record: &StudyRecord, trial: TrialNumber) -> Result<&Predictions, ExportError> {
    let finalist = record.finalists.iter().find(|finalist| finalist.trial == trial);
    finalist.map(|finalist| &finalist.validation).ok_or(ExportError::NoPredictions { trial })
}

fn digest(path: &Path) -> Result<Digest, ExportError> {
    Digest::of_file(path).map_err(|source| ExportError::Io { path: path.to_owned(), source })
}

fn check_images(on_record: &ImagesOnRecord, now: Digest) -> Result<(), ExportError> {
    if on_record.digest == now {
        Ok(())
    } else {
        Err(ExportError::Images("they differ from those on record".to_owned()))
    }
}

/// What an ONNX file says of itself.
fn about(card: &Card) -> BTreeMap<String, String> {
    let trials: Vec<String> = card.members.iter().map(|member| member.trial.to_string()).collect();
    let facts = [
        ("study", card.study.clone()),
        ("trial", trials.join(", ")),
        ("classes", serde_json::json!(card.classes).to_string()),
        ("positive", card.classes[card.positive as usize].clone()),
    ];
    facts.map(|(key, value)| (key.to_owned(), value)).into()
}

fn network_of(exported: &ExportedTrial) -> Network {
    let network = &exported.settings.network;
    Network {
        backbone: network.backbone,
        scaling: network.scaling,
        width: network.width,
        pool_padding: network.pool_padding,
        tap: network.tap.clone(),
        input_size: network.input_size,
    }
}

fn write_list(path: &Path, images: &DataSet) -> Result<(), ExportError> {
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

/// Moves finished drafts into the folder, the card last, so that a card is always beside its model. What an earlier export left
/// there, and the new card says nothing of, is then deleted.
fn publish(drafts: &[PathBuf], out: &Path) -> Result<Vec<PathBuf>, ExportError> {
    let is_card = |path: &Path| path.file_name().is_some_and(|name| name == CARD);
    let mut order: Vec<&PathBuf> = drafts.iter().collect();
    order.sort_by_key(|path| is_card(path));
    let again = out.join(CARD).exists();
    let mut written = Vec::new();
    for draft in order {
        let target = out.join(draft.file_name().unwrap_or_default());
        std::fs::rename(draft, &target).map_err(|source| ExportError::Io { path: target.clone(), source })?;
        written.push(target);
    }
    if again {
        delete_others(&written, out)?;
    }
    Ok(written)
}

/// Deletes the models in a folder that are none of those `written`.
fn delete_others(written: &[PathBuf], out: &Path) -> Result<(), ExportError> {
    let entries = std::fs::read_dir(out).and_then(|entries| entries.collect::<Result<Vec<_>, _>>());
    for entry in entries.map_err(|source| ExportError::Io { path: out.to_owned(), source })? {
        let path = entry.path();
        if entry.file_name().to_str().is_some_and(is_model) && !path.is_dir() && !written.contains(&path) {
            std::fs::remove_file(&path).map_err(|source| ExportError::Left { path, source })?;
        }
    }
    Ok(())
}

/// Whether a file of this name is a model that an export may have written.
fn is_model(name: &str) -> bool {
    let number = name.strip_prefix("model-").and_then(|rest| rest.strip_suffix(".safetensors")?.parse::<usize>().ok());
    let numbered = |number: usize| number > 0 && file_name(number - 1, 2) == name;
    name == ONNX || name == file_name(0, 1) || number.is_some_and(numbered)
}

fn figures(metrics: Vec<report::NamedFigure>) -> BTreeMap<String, Figure> {
    let figure = |(name, value, interval): report::NamedFigure| {
        (name.to_owned(), Figure { value, interval: interval.map(|i| [i.low, i.high]) })
    };
    metrics.into_iter().map(figure).collect()
}

fn tested(record: &StudyRecord, model: report::Model) -> Option<BTreeMap<String, Figure>> {
    let (tested, _) = report::tested(record)?;
    let own = tested.into_iter().find(|tested| tested.model == model)?;
    Some(figures(own.figures.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_of_an_earlier_export_are_deleted_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let (drafts, out) = (folder.path().join("drafts"), folder.path().join("out"));
        let names = || {
            let mut names: Vec<String> =
                std::fs::read_dir(&out).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
            names.sort();
            names
        };
        let published = |files: &[&str]| {
            std::fs::create_dir_all(&drafts).unwrap();
            let paths: Vec<PathBuf> = files.iter().map(|file| drafts.join(file)).collect();
            paths.iter().for_each(|path| std::fs::write(path, "new").unwrap());
            publish(&paths, &out).unwrap();
            names()
        };
        std::fs::create_dir(&out).unwrap();
        // Without a card, nothing there is of an export.
        std::fs::write(out.join("model-7.safetensors"), "mine").unwrap();
        let first = published(&["card.json", "model-1.safetensors", "model-12.safetensors", "model.onnx"]);
        assert_eq!(first.len(), 5, "{first:?}");
        for mine in ["model-01.safetensors", "model-0.safetensors", "model-best.safetensors", "scores.csv"] {
            std::fs::write(out.join(mine), "mine").unwrap();
        }
        let then = published(&["card.json", "model.safetensors"]);
        let expected = [
            "card.json",
            "model-0.safetensors",
            "model-01.safetensors",
            "model-best.safetensors",
            "model.safetensors",
            "scores.csv",
        ];
        assert_eq!(then, expected);
        assert_eq!(published(&["card.json", "model-1.safetensors"])[3], "model-1.safetensors");
        assert!(!out.join("model.safetensors").exists());
    }
}
