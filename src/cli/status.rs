//! `hpsearch status`: where a study stands, also while it runs.

use super::args::Global;
use super::exit::{CliError, Exit};
use crate::clock;
use crate::data::DataSummary;
use crate::data::features::{CacheStats, FeatureCache};
use crate::engine::{Event, Greeting, WarmStart};
use crate::fsx::Holder;
use crate::history::{Tables, TrialRow};
use crate::ids::TrialNumber;
use crate::store::{Reader, RunEnd, RunRow, StoreError};
use crate::wording::counted;
use std::collections::BTreeMap;
use std::io::Write;

/// Show where a study stands, also while it runs
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// A study file or the name of a study; may be left out where there is only one
    pub study: Option<String>,
}

/// Prints states, workers, the best trials and failures.
///
/// # Errors
/// If the study cannot be found or read.
pub fn run(args: Args, global: &Global) -> Result<Exit, CliError> {
    let name = global.find_study(args.study.as_deref())?;
    let doing = || format!("read study `{name}`");
    let backend = global.backend()?;
    let read = || -> Result<_, StoreError> {
        let holder = backend.holder(&name)?;
        let reader = backend.read(&name)?;
        let starts = warm_starts(&*reader)?;
        Ok((holder, reader.spec()?, reader.tables()?, reader.runs()?, reader.images()?, reader.opening()?, starts))
    };
    let (holder, spec, tables, runs, images, opened, starts) = read().map_err(|e| CliError::store(doing(), e))?;
    let images: Option<DataSummary> = images.and_then(|i| serde_json::from_str(&i.summary).ok());
    let cache = (images.is_some() && global.cache_dir().join("features").is_dir())
        .then(|| FeatureCache::open(&global.cache_dir(), None).and_then(|cache| cache.stats()).ok())
        .flatten();
    let workers: Vec<Worker> = workers(&tables, holder.as_ref());
    let mut states: BTreeMap<&str, usize> = BTreeMap::new();
    tables.trials.values().for_each(|t| *states.entry(t.state.as_ref()).or_default() += 1);
    let best = tables.ranking(spec.objective.direction);
    let planned = crate::engine::planned_trials(&spec);
    let mut out = std::io::stdout().lock();
    if global.json {
        let json = serde_json::json!({
            "study": name, "planned": planned, "states": states, "metric": spec.objective.metric.to_string(),
            "best": best.first().map(|t| trial_json(&tables, t)), "running": holder, "workers": workers,
            "runs": runs, "images": images, "warm_starts": starts,
            "trials": tables.trials.values().map(|t| trial_json(&tables, t)).collect::<Vec<_>>(),
            "cached_feature_bytes": cache.as_ref().map(CacheStats::bytes),
            "test_opened_ms": opened.as_ref().map(|o| o.unix_ms),
        });
        writeln!(out, "{json}")?;
        return Ok(Exit::Done);
    }
    let seconds: f64 = runs.iter().map(|r| r.seconds).sum();
    let of = planned.map_or_else(String::new, |n| format!(" of {n}"));
    let states: Vec<String> = states.iter().map(|(state, n)| format!("{n} {state}")).collect();
    writeln!(out, "study {name}: {}{of} trials ({})", tables.trials.len(), states.join(", "))?;
    match &holder {
        Some(holder) => writeln!(out, "running: {holder}")?,
        None => writeln!(out, "not running; {}", last_run(&runs))?,
    }
    writeln!(out, "{} in {}", clock::span(seconds), counted(runs.len(), "run"))?;
    if let Some(images) = &images {
        for (class, counts) in images.counts() {
            writeln!(out, "{class}: {counts}")?;
        }
        match &opened {
            Some(o) => writeln!(out, "test images: opened on {}", clock::utc(o.unix_ms))?,
            None => writeln!(out, "test images: locked")?,
        }
        if let Some(cache) = &cache {
            let (sets, bytes) = (cache.shelves.len(), cache.bytes() as f64 / 1e9);
            writeln!(out, "cached features: {sets} sets, {bytes:.1} GB, of all studies here")?;
        }
    }
    for warm in &starts {
        writeln!(out, "the search {warm}")?;
    }
    workers.iter().try_for_each(|worker| writeln!(out, "{}", worker_line(worker)))?;
    if !best.is_empty() {
        writeln!(out, "best by {}:", spec.objective.metric)?;
    }
    for trial in best.iter().take(5) {
        let value = trial.value.map_or_else(|| "undefined".to_owned(), |v| format!("{v:.4}"));
        writeln!(out, "  trial {:<5} {value} after {} epochs ({})", trial.trial, trial.epochs, trial.state)?;
    }
    let failed: Vec<_> = tables.failures.values().filter(|f| f.is_final).collect();
    for f in failed.iter().take(5) {
        let reason = f.reason.lines().next().unwrap_or_default();
        writeln!(out, "  trial {:<5} failed ({}): {reason}", f.trial, f.class)?;
    }
    if failed.len() > 5 {
        writeln!(out, "  and {} more failed", failed.len() - 5)?;
    }
    Ok(Exit::Done)
}

/// How the last run ended, where none goes on.
pub(super) fn last_run(runs: &[RunRow]) -> String {
    match runs.last() {
        Some(RunRow { ended: Some(RunEnd::Killed), .. }) | Some(RunRow { ended: None, .. }) => {
            "the last run was killed; the same `hpsearch run` goes on".to_owned()
        }
        Some(RunRow { ended: Some(how), .. }) => format!("the last run ended: {how}"),
        None => "no run has begun".to_owned(),
    }
}

/// The warm starts on record: what was taken from earlier studies.
fn warm_starts(reader: &dyn Reader) -> Result<Vec<WarmStart>, StoreError> {
    let mut starts = Vec::new();
    if !reader.spec()?.sampler.warm_start().is_empty() {
        reader.events(0, &mut |event| {
            if let Event::EarlierResults { warm, .. } = event {
                starts.push(warm);
            }
        })?;
    }
    Ok(starts)
}

/// A trial as JSON: its row, configuration, latest metrics and failure.
pub(super) fn trial_json(tables: &Tables, row: &TrialRow) -> serde_json::Value {
    let mut json = serde_json::json!(row);
    json["params"] = serde_json::json!(tables.configurations.get(&row.trial));
    json["metrics"] = serde_json::json!(tables.epochs_of(row.trial).next_back().map(|e| &e.metrics));
    json["failure"] = serde_json::json!(tables.failure_of(row.trial).map(|f| (f.class, &f.reason)));
    json
}

/// A worker and its running attempt.
#[derive(Debug, serde::Serialize)]
pub(super) struct Worker {
    pub worker: u32,
    pub trial: TrialNumber,
    /// Epochs the trial has finished.
    pub epochs: u32,
    /// Epochs at which its order ends.
    pub to: u32,
    pub started_ms: u64,
    /// Where it runs, if that is not where its run does: machine and job.
    pub place: Option<String>,
    /// The objective after its latest epoch.
    pub value: Option<f64>,
}

/// Machine and job of a worker, unless it is on the machine `host` and has no job.
fn place(greeting: &Greeting, host: &str) -> Option<String> {
    match &greeting.job {
        Some(job) => Some(format!("{} (job {job})", greeting.host)),
        None => (greeting.host != host).then(|| greeting.host.clone()),
    }
}

/// The workers whose attempts go on, while a run holds the study.
pub(super) fn workers(tables: &Tables, holder: Option<&Holder>) -> Vec<Worker> {
    let Some(Holder { host, .. }) = holder else { return Vec::new() };
    let going_on = tables.attempts.values().filter(|attempt| attempt.ended.is_none());
    let worker = |attempt: &crate::history::AttemptRow| {
        let order = tables.orders.get(&attempt.order)?;
        let trial = tables.trials.get(&order.trial)?;
        Some(Worker {
            worker: attempt.worker,
            trial: trial.trial,
            epochs: trial.epochs,
            to: order.to.0,
            started_ms: attempt.started_ms,
            place: tables.workers.get(&attempt.worker).and_then(|row| place(&row.greeting, host)),
            value: trial.value,
        })
    };
    let mut workers: Vec<Worker> = going_on.filter_map(worker).collect();
    workers.sort_by_key(|worker| worker.worker);
    workers
}

fn worker_line(worker: &Worker) -> String {
    let value = worker.value.map_or_else(String::new, |v| format!(", {v:.4} so far"));
    let since = clock::span(clock::unix_ms().saturating_sub(worker.started_ms) as f64 / 1000.0);
    let place = worker.place.as_ref().map_or_else(String::new, |place| format!(" on {place}"));
    format!(
        "  worker {}{place}: trial {} epoch {}/{} for {since}{value}",
        worker.worker, worker.trial, worker.epochs, worker.to
    )
}
