//! `hpsearch status`: where a study stands, also while it runs.

use super::args::Global;
use super::exit::{CliError, Exit};
use crate::clock;
use crate::data::DataSummary;
use crate::data::features::{CacheStats, FeatureCache};
use crate::fsx::FileLock;
use crate::store::{RunRow, SqliteReader, TrialRow, WorkerRow};
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
    let dir = global.study_dir(&name);
    let doing = || format!("read study `{name}`");
    let reader =
        SqliteReader::open(&dir.join("study.db")).map_err(|e| CliError::new(doing(), e).exit(Exit::Missing))?;
    let read = || -> Result<_, crate::store::StoreError> {
        Ok((reader.spec()?, reader.trials()?, reader.runs()?, reader.workers()?))
    };
    let (spec, trials, runs, workers) = read().map_err(|e| CliError::new(doing(), e))?;
    let images = reader.images().map_err(|e| CliError::new(doing(), e))?;
    let images: Option<DataSummary> = images.and_then(|i| serde_json::from_str(&i.summary).ok());
    let cache = (images.is_some() && global.cache_dir().join("features").is_dir())
        .then(|| FeatureCache::open(&global.cache_dir(), None).and_then(|cache| cache.stats()).ok())
        .flatten();
    let opened = reader.opening().map_err(|e| CliError::new(doing(), e))?;
    let holder = FileLock::holder(&dir.join("study.lock"));
    let mut states: BTreeMap<&str, usize> = BTreeMap::new();
    trials.iter().for_each(|t| *states.entry(t.state.as_str()).or_default() += 1);
    let best = best(&trials, spec.objective.direction);
    let planned = crate::engine::planned_trials(&spec);
    let mut out = std::io::stdout().lock();
    if global.json {
        let json = serde_json::json!({
            "study": name, "planned": planned, "states": states, "metric": spec.objective.metric.to_string(),
            "best": best.first(), "running": holder, "workers": if holder.is_some() { workers } else { Vec::new() },
            "runs": runs, "trials": trials, "images": images,
            "cached_feature_bytes": cache.as_ref().map(CacheStats::bytes),
            "test_opened_ms": opened.as_ref().map(|o| o.unix_ms),
        });
        writeln!(out, "{json}")?;
        return Ok(Exit::Done);
    }
    let seconds: f64 = runs.iter().map(|r| r.seconds).sum();
    let of = planned.map_or_else(String::new, |n| format!(" of {n}"));
    let states: Vec<String> = states.iter().map(|(state, n)| format!("{n} {state}")).collect();
    writeln!(out, "study {name}: {}{of} trials ({})", trials.len(), states.join(", "))?;
    match &holder {
        Some(holder) => writeln!(out, "running: {holder}")?,
        None => writeln!(out, "not running; {}", last_run(&runs))?,
    }
    writeln!(out, "{} in {} run{}", clock::span(seconds), runs.len(), if runs.len() == 1 { "" } else { "s" })?;
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
    if holder.is_some() {
        workers.iter().try_for_each(|worker| writeln!(out, "{}", worker_line(worker)))?;
    }
    if !best.is_empty() {
        writeln!(out, "best by {}:", spec.objective.metric)?;
    }
    for trial in best.iter().take(5) {
        let value = trial.value.map_or_else(|| "undefined".to_owned(), |v| format!("{v:.4}"));
        writeln!(out, "  trial {:<5} {value} after {} epochs ({})", trial.trial, trial.epochs, trial.state)?;
    }
    let failed: Vec<_> = trials.iter().filter_map(|t| Some((t.trial, t.failure.as_ref()?))).collect();
    for (trial, (class, reason)) in failed.iter().take(5) {
        writeln!(out, "  trial {trial:<5} failed ({class}): {}", reason.lines().next().unwrap_or_default())?;
    }
    if failed.len() > 5 {
        writeln!(out, "  and {} more failed", failed.len() - 5)?;
    }
    Ok(Exit::Done)
}

fn last_run(runs: &[RunRow]) -> String {
    match runs.last() {
        Some(RunRow { ended: Some(how), .. }) => format!("the last run ended: {how}"),
        Some(_) => "the last run was killed; the same `hpsearch run` goes on".to_owned(),
        None => "no run has begun".to_owned(),
    }
}

fn worker_line(worker: &WorkerRow) -> String {
    let value = worker.value.map_or_else(String::new, |v| format!(", {v:.4} so far"));
    let since = clock::span(clock::unix_ms().saturating_sub(worker.started_ms) as f64 / 1000.0);
    format!(
        "  worker {}: trial {} epoch {}/{} for {since}{value}",
        worker.worker, worker.trial, worker.epochs, worker.to
    )
}

/// Trials with a value, longest trained first, then best first: as the engine ranks them.
fn best(trials: &[TrialRow], direction: crate::spec::Direction) -> Vec<&TrialRow> {
    let mut best: Vec<&TrialRow> = trials.iter().filter(|t| t.value.is_some() && t.state != "failed").collect();
    best.sort_by_key(|t| (std::cmp::Reverse(t.epochs), crate::ledger::Score::new(direction, t.value), t.trial));
    best
}
