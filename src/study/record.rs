//! A study as plain data, for reports: read from its folder, even during a run.

use crate::data::{DataSet, DataSummary, Quiet, sheet};
use crate::digest::Digest;
use crate::engine::{WorseThanChance, roc_auc};
use crate::fsx;
use crate::history::{AttemptEnd, FailureRow, OrderRow, Tables, TrialRow};
use crate::metrics::{Predictions, PredictionsError, predictions};
use crate::report;
use crate::report::audit::Audit;
use crate::report::model::{
    AttemptRecord, EpochRecord, FailureRecord, Finalist, OrderRecord, Picture, Png, StudyRecord, TestMean, TestOpening,
    TestResult, TrialRecord,
};
use crate::spec::{RunnerSpec, StudySpec};
use crate::store::{Opening, Reader, StoreError};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

/// Why a study cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The database fails.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What is on record about the images cannot be parsed.
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

/// Reads the study whose folder is `dir`, with the predictions of at most `finalists` leading trials. Takes no lock and
/// changes nothing. Predictions whose file is gone are left out, as where only the database was copied; [`illustrate`]
/// adds thumbnails.
///
/// # Errors
/// If the study cannot be read, or a file of predictions is damaged.
pub fn record(reader: &dyn Reader, dir: &Path, finalists: usize) -> Result<StudyRecord, RecordError> {
    let tables = reader.tables()?;
    let mut record = arranged(reader.spec()?, &tables);
    let predictions = tables.predictions();
    for number in record.ranking().into_iter().map(|t| t.number).collect::<Vec<_>>() {
        if record.finalists.len() == finalists {
            break;
        }
        let Some(file) = predictions.get(&number) else { continue };
        let path = dir.join(&file.path);
        let digest = match Digest::of_file(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            found => found.map_err(|source| RecordError::File { path: path.clone(), source })?,
        };
        if digest != file.digest {
            return Err(RecordError::Damaged { path });
        }
        let validation = match predictions::read_csv(&path) {
            // In a study that is running, those of the trial's next epoch have just taken their place.
            Err(PredictionsError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => continue,
            read => read?,
        };
        record.finalists.push(Finalist { trial: number, validation });
    }
    if let Some(opening) = reader.opening()? {
        record.test = Some(tested(dir, &opening)?);
    }
    if let Some(images) = reader.images()? {
        let summary: DataSummary = serde_json::from_str(&images.summary).map_err(RecordError::Images)?;
        record.data = Some((&summary).into());
        record.audit = kept_audit(dir, images.digest);
    }
    for (file, title, caption) in PICTURES {
        if let Ok(png) = std::fs::read(dir.join(file)) {
            record.pictures.push(Picture { title: title.into(), caption: caption.into(), png: Png(png) });
        }
    }
    Ok(record)
}

/// Adds thumbnails of images that the leading trial misclassifies, if the images are still in place and unchanged;
/// otherwise adds none, which is no error. `cache_dir`: the cache of decoded images.
pub fn illustrate(record: &mut StudyRecord, reader: &dyn Reader, cache_dir: &Path) -> Result<(), RecordError> {
    let RunnerSpec::Image { data, .. } = &record.spec.runner else { return Ok(()) };
    let Some(images) = reader.images()? else { return Ok(()) };
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

/// Side of the thumbnails in pixels.
const THUMBNAIL: u32 = 128;

/// Pictures drawn when the study was first run: file in the study's folder, title, caption.
pub const PICTURES: [(&str, &str, &str); 2] = [
    ("samples.png", "Sample images", "Some images of every class, as the network sees them before augmentation."),
    ("augmentation.png", "Augmentation at rising strengths", "One image at strengths from 0 to 1."),
];

/// Keeps an audit of a study's images in the study's folder `dir`, for its reports.
///
/// # Errors
/// If a file cannot be written.
pub fn keep_audit(dir: &Path, audit: &Audit) -> std::io::Result<PathBuf> {
    let folder = dir.join(AUDIT);
    std::fs::create_dir_all(&folder)?;
    for old in std::fs::read_dir(&folder)? {
        let path = old?.path();
        if path.extension().is_some_and(|e| e == "png") {
            std::fs::remove_file(path)?;
        }
    }
    for (file, picture) in &audit.pictures {
        fsx::write_atomic(&folder.join(file), &picture.png.0)?;
    }
    let titles: Vec<_> = audit.pictures.iter().map(|(file, p)| (file, &p.title, &p.caption)).collect();
    let json = serde_json::json!({ "audit": audit, "pictures": titles });
    fsx::write_atomic(&folder.join("audit.json"), &serde_json::to_vec_pretty(&json)?)?;
    Ok(folder)
}

/// The audit that was kept, if it is of these images. One that cannot be read is taken for none: it can be made again.
fn kept_audit(dir: &Path, images: Digest) -> Option<Audit> {
    #[derive(serde::Deserialize)]
    struct Kept {
        audit: Audit,
        pictures: Vec<(String, String, String)>,
    }
    let folder = dir.join(AUDIT);
    let Kept { mut audit, pictures } = serde_json::from_slice(&std::fs::read(folder.join("audit.json")).ok()?).ok()?;
    if audit.images != images {
        return None;
    }
    let picture = |(file, title, caption): (String, String, String)| {
        let plain = Path::new(&file).components().count() == 1;
        let png = Png(std::fs::read(folder.join(&file)).ok().filter(|_| plain)?);
        Some((file, Picture { title, caption, png }))
    };
    audit.pictures = pictures.into_iter().filter_map(picture).collect();
    Some(audit)
}

/// The folder of an audit in that of a study.
const AUDIT: &str = "audit";

/// The opening of the test images with its predictions. A trial whose file is gone stays among the results, without
/// images: it was tested, and has a part in the mean.
///
/// # Errors
/// If a file of predictions is not the one that was written.
pub fn tested(dir: &Path, opening: &Opening) -> Result<TestOpening, RecordError> {
    let mut results = Vec::new();
    for result in &opening.results {
        let path = dir.join(&result.predictions.path);
        let (trial, threshold) = (result.trial, result.threshold);
        if !path.exists() {
            let predictions = Predictions { classes: Vec::new(), positive: 0, rows: Vec::new() };
            results.push(TestResult { trial, threshold, predictions });
            continue;
        }
        let digest = Digest::of_file(&path).map_err(|source| RecordError::File { path: path.clone(), source })?;
        if digest != result.predictions.digest {
            return Err(RecordError::Damaged { path });
        }
        results.push(TestResult { trial, threshold, predictions: predictions::read_csv(&path)? });
    }
    let mean = opening.mean_of_results().map(|mean| TestMean { threshold: mean.threshold });
    Ok(TestOpening { unix_ms: opening.unix_ms, unfinished: opening.unfinished, results, mean })
}

/// A study's rows in the form that reports use.
fn arranged(spec: StudySpec, tables: &Tables) -> StudyRecord {
    let mut warm_starts = BTreeMap::new();
    tables.earlier.values().for_each(|row| *warm_starts.entry(row.study.clone()).or_default() += 1);
    StudyRecord {
        warm_starts,
        trials: tables.trials.values().map(|row| trial(&spec, tables, row)).collect(),
        orders: tables.orders.values().map(|row| order(tables, row)).collect(),
        spec,
        data: None,
        finalists: Vec::new(),
        test: None,
        audit: None,
        pictures: Vec::new(),
        thumbnails: BTreeMap::new(),
        program: concat!("hpsearch ", env!("CARGO_PKG_VERSION")).to_owned(),
    }
}

fn trial(spec: &StudySpec, tables: &Tables, row: &TrialRow) -> TrialRecord {
    let metric = &spec.objective.metric;
    let course = tables.epochs_of(row.trial).map(|e| (e.train_loss, roc_auc(&e.metrics, e.value, metric)));
    let epochs = tables.epochs_of(row.trial).map(|e| EpochRecord {
        epoch: e.epoch,
        value: e.value,
        metrics: e.metrics.clone(),
        train_loss: e.train_loss,
        seconds: e.seconds,
        data_wait_seconds: e.data_wait_seconds,
        unix_ms: e.reported_ms,
    });
    TrialRecord {
        number: row.trial,
        params: tables.configurations.get(&row.trial).cloned().unwrap_or_default(),
        state: row.state,
        value: row.value,
        epochs: epochs.collect(),
        bracket: row.bracket,
        rung: row.rung,
        failure: tables.failure_of(row.trial).map(failure),
        worse_than_chance: WorseThanChance::first(course).map(|found| (found.epoch, found.roc_auc)),
    }
}

fn order(tables: &Tables, row: &OrderRow) -> OrderRecord {
    let attempts = tables.attempts.range((row.order, 0)..=(row.order, u32::MAX)).map(|(_, attempt)| {
        let own = |order, number| order == row.order && number == attempt.attempt;
        let failed = matches!(attempt.ended, Some(AttemptEnd::Failed(_)));
        let mut failures = tables.failures.values().filter(|_| failed);
        let lost = failures.find(|f| !f.is_final && f.attempt.is_some_and(|n| own(f.order, n)));
        // An interrupted attempt ends with its last report: when the interruption was recorded says nothing about it.
        let ended = attempt.ended_ms.filter(|_| attempt.ended != Some(AttemptEnd::Interrupted)).unwrap_or_else(|| {
            let reports = tables.epochs_of(row.trial).filter(|e| own(e.order, e.attempt)).map(|e| e.reported_ms);
            reports.max().unwrap_or(attempt.started_ms)
        });
        AttemptRecord {
            worker: attempt.worker,
            started_ms: attempt.started_ms,
            ended_ms: ended,
            lost: lost.map(failure),
        }
    });
    OrderRecord {
        order: row.order,
        trial: row.trial,
        from: row.from,
        to: row.to,
        bracket: row.bracket,
        rung: row.rung,
        outcome: row.outcome.zip(row.at),
        attempts: attempts.collect(),
    }
}

fn failure(row: &FailureRow) -> FailureRecord {
    FailureRecord { class: row.class, reason: row.reason.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::FileRef;
    use crate::ids::TrialNumber;
    use crate::store::{OpenedMean, OpenedTrial};

    #[test]
    fn test_predictions_whose_file_is_gone_are_left_out_and_damaged_ones_refused() {
        let dir = tempfile::tempdir().unwrap();
        let text = b"image,patient,label,score:no,positive:yes\nx,,yes,0.25,0.75\n";
        let result = |trial| OpenedTrial {
            trial: TrialNumber(trial),
            threshold: Some(0.5),
            predictions: FileRef {
                path: format!("test/{trial:05}.csv"),
                digest: Digest::of(text),
                bytes: text.len() as u64,
            },
        };
        let opening = Opening {
            unix_ms: 1,
            unfinished: false,
            chosen: Vec::new(),
            mean: Some(OpenedMean { threshold: Some(0.6) }),
            results: vec![result(4), result(7)],
        };
        std::fs::create_dir(dir.path().join("test")).unwrap();
        std::fs::write(dir.path().join("test/00007.csv"), text).unwrap();
        let found = tested(dir.path(), &opening).unwrap();
        let images: Vec<_> = found.results.iter().map(|r| (r.trial.0, r.predictions.rows.len())).collect();
        assert_eq!(images, [(4, 0), (7, 1)]);
        assert_eq!(found.mean, Some(TestMean { threshold: Some(0.6) }));
        std::fs::write(dir.path().join("test/00004.csv"), "something else").unwrap();
        assert!(matches!(tested(dir.path(), &opening), Err(RecordError::Damaged { .. })));
    }
}
