//! `hpsearch test`: the one look at the locked test images.

use super::args::Global;
use super::exit::{CliError, Exit};
use super::run::open_error;
use crate::clock;
use crate::engine::{FileRef, Plan, Why};
use crate::metrics::{self, predictions};
use crate::report::model::TestResult;
use crate::runner::image::ImageRunner;
use crate::runner::{Continue, DeviceSlot, EpochSink, SinkClosed};
use crate::spec::RunnerSpec;
use crate::stats;
use crate::store::{OpenedTrial, Opening, SqliteReader, SqliteStore};
use crate::study::{self, Study};
use std::io::Write;
use std::path::{Path, PathBuf};

/// Evaluate the finalists on the locked test images: once, on record
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The study file
    pub study: PathBuf,
    /// How many leading trials are evaluated
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=5))]
    pub finalists: u32,
    /// cpu, cuda:N or auto, instead of the study's
    #[arg(long, value_name = "DEVICE")]
    pub device: Option<String>,
    /// Open the test images although the study is not over; the record says so
    #[arg(long)]
    pub unfinished: bool,
}

/// Opens the test images, or shows what the opening gave.
///
/// # Errors
/// If the study is not over, has no test images or no finalists, or a checkpoint is gone or damaged.
pub fn run(args: Args, global: &Global) -> Result<Exit, CliError> {
    let loaded = global.load(&args.study)?;
    let spec = loaded.spec;
    let name = spec.name.clone();
    let doing = || format!("test study `{name}`");
    let refuse = |why: &str, exit| Err(CliError::new(doing(), why.to_owned()).exit(exit));
    if !matches!(spec.runner, RunnerSpec::Image { .. }) {
        return refuse("its trials are not trained on images", Exit::Usage);
    }
    let dir = global.study_dir(&name);
    let database = dir.join("study.db");
    if !database.exists() {
        return refuse("it has not been run\nhint: `hpsearch run` comes first", Exit::Missing);
    }
    let study = Study::open(&global.state, &spec).map_err(|e| open_error(&name, e))?;
    let opening = SqliteReader::open(&database).and_then(|r| r.opening()).map_err(|e| CliError::new(doing(), e))?;
    let results = match opening {
        Some(opening) => {
            if !global.quiet {
                let when = clock::utc(opening.unix_ms);
                super::args::complain(&format!("note: the test images were opened on {when}; these are its figures"));
            }
            study::tested(&dir, &opening).map_err(|e| CliError::new(doing(), e))?.results
        }
        None => {
            let over = matches!(study.engine().plan(), Plan::Done(_)) && study.engine().open_orders().next().is_none();
            if !over && !args.unfinished {
                let why = "it is not over, and test images are opened once\nhint: finish it with `hpsearch run`, or say --unfinished";
                return refuse(why, Exit::Usage);
            }
            let device = args.device.unwrap_or_else(|| spec.run.device.clone());
            let threads = std::thread::available_parallelism().map_or(1, usize::from);
            let slot = DeviceSlot { device, threads, study_dir: dir.clone(), cache_dir: global.cache_dir(), worker: 0 };
            open(&study, &loaded.base, &slot, args.finalists as usize, !over).map_err(|e| CliError::new(doing(), e))?
        }
    };
    show(&results, global)
}

type Boxed = Box<dyn std::error::Error + Send + Sync>;

/// Evaluates the finalists, writes their predictions, and puts the opening on record.
fn open(
    study: &Study,
    base: &Path,
    slot: &DeviceSlot,
    finalists: usize,
    unfinished: bool,
) -> Result<Vec<TestResult>, Boxed> {
    let dir = study.dir();
    let record = study::record(dir, finalists)?;
    let needed = study.engine().needed_checkpoints();
    let mut runner = ImageRunner::new(study.spec(), base);
    let mut results = Vec::new();
    for finalist in &record.finalists {
        let checkpoint = needed.iter().find(|n| n.trial == finalist.trial && n.why == Why::Final);
        let trial = study.engine().trial(finalist.trial);
        let (Some(checkpoint), Some(trial)) = (checkpoint, trial) else { continue };
        // Fixed before any test image is seen.
        let threshold = metrics::threshold_at(&finalist.validation, &study.spec().objective.operating_point);
        let params = (finalist.trial, &*trial.params);
        let predictions = runner.test(params, checkpoint.file, slot, &mut Silent)?;
        results.push(TestResult { trial: finalist.trial, threshold, predictions });
    }
    if results.is_empty() {
        return Err(
            "no complete trial has a checkpoint\nhint: raise `limits.checkpoints` if a quota removed them".into()
        );
    }
    let mut stored = Vec::new();
    std::fs::create_dir_all(dir.join("test"))?;
    for result in &results {
        let path = format!("test/{:05}.csv", result.trial.0);
        let bytes = predictions::to_csv(&result.predictions)?;
        crate::fsx::write_atomic(&dir.join(&path), &bytes)?;
        let file = FileRef { path, digest: crate::digest::Digest::of(&bytes), bytes: bytes.len() as u64 };
        stored.push(OpenedTrial { trial: result.trial, threshold: result.threshold, predictions: file });
    }
    let opening = Opening { unix_ms: clock::unix_ms(), unfinished, results: stored };
    SqliteStore::open(&dir.join("study.db"))?.record_opening(&opening)?;
    Ok(results)
}

/// Figures with their 95 % intervals, one block a trial.
fn show(results: &[TestResult], global: &Global) -> Result<Exit, CliError> {
    let mut out = std::io::stdout().lock();
    for result in results {
        let threshold = result.threshold.unwrap_or(0.5);
        let found = metrics::evaluate(&result.predictions, threshold);
        if global.json {
            let line = serde_json::json!({ "trial": result.trial, "threshold": threshold, "metrics": found.named().into_iter().collect::<std::collections::BTreeMap<_, _>>() });
            writeln!(out, "{line}")?;
            continue;
        }
        writeln!(
            out,
            "trial {} on {} test images, threshold {threshold:.4}",
            result.trial,
            result.predictions.rows.len()
        )?;
        for (name, value) in found.named() {
            match value {
                Some(value) => writeln!(out, "  {name:<18} {value:.4}")?,
                None => writeln!(out, "  {name:<18} undefined")?,
            }
        }
        let positives = result.predictions.rows.iter().filter(|r| r.label == result.predictions.positive).count();
        let hits = (result.predictions.rows.iter())
            .filter(|r| r.label == result.predictions.positive)
            .filter(|r| f64::from(r.scores[result.predictions.positive as usize]) >= threshold)
            .count();
        if let Some(i) = stats::wilson(hits as u64, positives as u64, 0.95) {
            writeln!(out, "  recall: {hits} of {positives}, 95 % interval {:.3} to {:.3} (Wilson)", i.low, i.high)?;
        }
    }
    Ok(Exit::Done)
}

/// Nobody watches an evaluation of seconds.
struct Silent;

impl EpochSink for Silent {
    fn epoch(&mut self, _: crate::engine::EpochReport) -> Result<Continue, SinkClosed> {
        Ok(Continue::Go)
    }
}
