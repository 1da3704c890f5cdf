//! `hpsearch test`: the one look at the locked test images.

use super::args::{Global, complain};
use super::exit::{CliError, Exit};
use super::run::{OtherImages, study_exit};
use crate::clock;
use crate::engine::{FailureClass, FileRef, Plan, TrialState};
use crate::ids::TrialNumber;
use crate::metrics::{self, predictions};
use crate::report::{self, StudyRecord};
use crate::runner::device;
use crate::runner::image::{ImageError, ImageRunner};
use crate::runner::{Continue, DeviceSlot, EpochSink, SinkClosed};
use crate::space::Params;
use crate::spec::{Change, Devices, RunnerSpec};
use crate::store::{OpenedTrial, SqliteReader, SqliteStore};
use crate::study::{self, Study, StudyError};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

/// Evaluate the finalists on the locked test images: once, on record
///
/// The best trial is the answer, the others are for comparison. A further call shows what is on record.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// A study file or the name of a study; may be left out where there is only one
    pub study: Option<String>,
    /// How many leading trials are evaluated; the first is the answer, the others are for comparison
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=5))]
    pub finalists: u32,
    /// cpu, cuda:N or auto, instead of the study's
    #[arg(long, value_name = "DEVICE")]
    pub device: Option<Devices>,
    /// Threads, instead of the machine's
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub threads: Option<u32>,
    /// Open the test images although the study is not over; the record says so
    #[arg(long)]
    pub unfinished: bool,
}

/// Opens the test images, or shows what the opening gave.
///
/// # Errors
/// If the study is not over, has no test images or no finalists, if its images are not those it was trained on, or a
/// checkpoint is gone or damaged. Nothing is opened then.
pub fn run(args: Args, global: &Global) -> Result<Exit, CliError> {
    let name = global.find_study(args.study.as_deref())?;
    let dir = global.study_dir(&name);
    let doing = || format!("test study `{name}`");
    let database = dir.join("study.db");
    if !database.exists() {
        let why = "it has not been run\nhint: `hpsearch run` comes first";
        return Err(CliError::new(doing(), why).exit(Exit::Missing));
    }
    let opening = SqliteReader::open(&database).and_then(|r| r.opening()).map_err(|e| CliError::new(doing(), e))?;
    match opening.filter(|o| !o.results.is_empty()) {
        Some(opening) if !global.quiet => {
            let when = clock::utc(opening.unix_ms);
            complain(&format!("note: the test images were opened on {when}; these are the figures of that time\n"));
        }
        Some(_) => {}
        None => open(&args, &name, global).map_err(|e| {
            let exit = exit_of(&e);
            CliError::new(doing(), e).exit(exit)
        })?,
    }
    let record = study::record(&dir, 0).map_err(|e| CliError::new(doing(), e))?;
    show(&record, global)
}

/// Why the test images stay locked.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("its trials are not trained on images")]
    NotImages,
    #[error(
        "it is not over, and test images are opened once\nhint: finish it with `hpsearch run`, or say --unfinished"
    )]
    NotOver,
    #[error("where its images are is not on record\nhint: name the study file instead of the study")]
    NoFolder,
    #[error("no trial that could be tested has a checkpoint\nhint: raise `limits.checkpoints` if a quota removed them")]
    NoFinalists,
}

type Boxed = Box<dyn std::error::Error + Send + Sync>;

/// The exit code that a cause means.
fn exit_of(cause: &Boxed) -> Exit {
    if let Some(refusal) = cause.downcast_ref::<Refusal>() {
        match refusal {
            Refusal::NotImages | Refusal::NotOver | Refusal::NoFolder => Exit::Usage,
            Refusal::NoFinalists => Exit::Missing,
        }
    } else if let Some(error) = cause.downcast_ref::<StudyError>() {
        study_exit(error)
    } else if cause.is::<OtherImages>()
        || cause.is::<device::DeviceError>()
        || cause.downcast_ref::<ImageError>().is_some_and(|e| e.class() == FailureClass::BadInput)
    {
        Exit::Missing
    } else {
        Exit::Error
    }
}

/// What will be evaluated: settled before any test image is seen.
struct Candidate {
    trial: TrialNumber,
    params: Params,
    checkpoint: FileRef,
    threshold: Option<f64>,
}

/// Evaluates the finalists, writes their predictions, and puts the opening on record. Everything that can go wrong is
/// tried before the first test image is looked at.
fn open(args: &Args, name: &str, global: &Global) -> Result<(), Boxed> {
    let study = Study::open_existing(&global.state, name)?;
    let spec = study.spec();
    let dir = study.dir();
    if !matches!(spec.runner, RunnerSpec::Image { .. }) {
        return Err(Refusal::NotImages.into());
    }
    let reader = SqliteReader::open(&dir.join("study.db"))?;
    let begun = reader.opening()?;
    if begun.as_ref().is_some_and(|o| !o.results.is_empty()) {
        return Ok(()); // by another process, just now
    }
    let unfinished = !is_over(&study)?;
    if unfinished && !args.unfinished && begun.is_none() {
        return Err(Refusal::NotOver.into());
    }
    let on_record = reader.images()?;
    let base = match &args.study {
        Some(file) if file.ends_with(".toml") => {
            let loaded = crate::config::load(Path::new(file))?;
            let differences = loaded.spec.difference(spec);
            if differences.iter().any(|d| d.change != Change::Allowed) {
                return Err(StudyError::Changed { name: name.to_owned(), differences }.into());
            }
            loaded.base
        }
        _ => on_record.as_ref().map(|images| images.folder.clone()).ok_or(Refusal::NoFolder)?,
    };
    let found = device::resolve(args.device.as_ref().unwrap_or(&spec.run.device))?;
    let machine = std::thread::available_parallelism().map_or(1, usize::from);
    let slot = DeviceSlot {
        device: found.first().cloned().unwrap_or_else(|| "cpu".to_owned()),
        threads: args.threads.map_or(machine, |n| n as usize),
        study_dir: dir.to_owned(),
        cache_dir: global.cache_dir(),
        worker: 0,
    };
    let mut runner = ImageRunner::new(spec, &base);
    let images = runner.data(&slot, &mut Silent)?;
    if let Some(on_record) = on_record
        && let Some(other) = OtherImages::among(&on_record, images)?
    {
        return Err(other.into());
    }
    let candidates = candidates(&study, args.finalists as usize)?;
    for c in &candidates {
        runner.rehearse((c.trial, &c.params), &c.checkpoint, &slot, &mut Silent)?;
    }
    let mut results = Vec::new();
    std::fs::create_dir_all(dir.join("test"))?;
    let mut store = SqliteStore::open(&dir.join("study.db"))?;
    // One that was cut short is completed: the same trials give the same figures.
    if begun.is_none() {
        store.begin_opening(clock::unix_ms(), unfinished)?;
    }
    for c in &candidates {
        let found = runner.test((c.trial, &c.params), &c.checkpoint, &slot, &mut Silent)?;
        let path = format!("test/{:05}.csv", c.trial.0);
        let bytes = predictions::to_csv(&found)?;
        crate::fsx::write_atomic(&dir.join(&path), &bytes)?;
        let file = FileRef { path, digest: crate::digest::Digest::of(&bytes), bytes: bytes.len() as u64 };
        results.push(OpenedTrial { trial: c.trial, threshold: c.threshold, predictions: file });
    }
    Ok(store.record_tested(&results)?)
}

/// Whether there is nothing left to train, or no time left to do it in.
fn is_over(study: &Study) -> Result<bool, StudyError> {
    let done = matches!(study.engine().plan(), Plan::Done(_)) && study.engine().open_orders().next().is_none();
    let spent = study.run_seconds()?;
    Ok(done || study.spec().budget.wall_seconds.is_some_and(|limit| spent >= limit))
}

/// The leading trials that can be tested; says of the others among the first `most` why they cannot.
fn candidates(study: &Study, most: usize) -> Result<Vec<Candidate>, Boxed> {
    let record = study::record(study.dir(), usize::MAX)?;
    let needed = study.engine().needed_checkpoints();
    let mut candidates = Vec::new();
    for ranked in record.ranking() {
        if candidates.len() == most {
            break;
        }
        let Some(trial) = study.engine().trial(ranked.number) else { continue };
        let last = ranked.epochs.last().map(|e| e.epoch);
        let checkpoint = needed.iter().find(|n| n.trial == ranked.number && Some(n.epoch) == last);
        let validation = record.finalists.iter().find(|f| f.trial == ranked.number);
        match (checkpoint, validation) {
            (Some(checkpoint), Some(validation)) => candidates.push(Candidate {
                trial: ranked.number,
                params: (*trial.params).clone(),
                checkpoint: checkpoint.file.clone(),
                threshold: metrics::threshold_at(&validation.validation, &study.spec().objective.operating_point),
            }),
            // That what was given up on the way has no checkpoint is no news.
            _ if trial.state == TrialState::Stopped => {}
            (None, _) => {
                complain(&format!("note: trial {} cannot be tested: its checkpoint is not kept\n", ranked.number));
            }
            (_, None) => {
                complain(&format!("note: trial {} cannot be tested: its predictions are gone\n", ranked.number));
            }
        }
    }
    if candidates.is_empty() { Err(Refusal::NoFinalists.into()) } else { Ok(candidates) }
}

/// Figures with their 95 % intervals, one block a trial.
fn show(record: &StudyRecord, global: &Global) -> Result<Exit, CliError> {
    let Some((tested, method)) = report::tested(record) else { return Ok(Exit::Done) };
    let results = record.test.iter().flat_map(|t| &t.results);
    let mut out = std::io::stdout().lock();
    for (tested, result) in tested.iter().zip(results) {
        let all = &result.predictions;
        let threshold = tested.threshold.unwrap_or(0.5);
        if global.json {
            let figures: BTreeMap<&str, serde_json::Value> = tested
                .figures
                .iter()
                .map(|(name, value, interval)| {
                    let ends = interval.map(|i| [i.low, i.high]);
                    (*name, serde_json::json!({ "value": value, "interval": ends }))
                })
                .collect();
            let line = serde_json::json!({
                "trial": tested.trial, "threshold": threshold, "images": all.rows.len(), "metrics": figures,
            });
            writeln!(out, "{line}")?;
            continue;
        }
        let positives = all.rows.iter().filter(|r| r.label == all.positive).count();
        writeln!(
            out,
            "trial {}: {} test images, {positives} {}; threshold {threshold:.4} from validation ({})",
            tested.trial,
            all.rows.len(),
            all.classes[all.positive as usize],
            record.spec.objective.operating_point
        )?;
        for (name, value, interval) in &tested.figures {
            let value = value.map_or_else(|| "undefined".to_owned(), |v| format!("{v:.4}"));
            let interval = interval.map_or_else(String::new, |i| format!("  {:.3} to {:.3}", i.low, i.high));
            writeln!(out, "  {name:<12} {value}{interval}")?;
        }
    }
    if !global.json && !global.quiet {
        writeln!(out, "{method}")?;
        if tested.len() > 1 {
            writeln!(out, "The first trial, best on validation, is the answer; the others are for comparison.")?;
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
