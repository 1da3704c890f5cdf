//! `hpsearch plan`: what a run will do, before it does it.

use super::args::Global;
use super::exit::{CliError, Exit};
use crate::config::Loaded;
use crate::data::features::group_key;
use crate::data::{DataSet, DataSummary};
use crate::engine::WarmStart;
use crate::engine::{Certainty, RungTable, planned_trials, rung_table};
use crate::rng::{Purpose, StreamRng};
use crate::runner::image::{Forecast, forecast_on, located};
use crate::spec::{DataSpec, RunnerSpec, StudySpec, TrialSettings, Views};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::path::PathBuf;

/// Configurations drawn to foresee what trials cost, at most.
const DRAWN: u32 = 256;
/// Different networks that are measured, at most: each takes a second or two.
const MEASURED: usize = 6;

/// Say what a run will do: trials, rungs, epochs, images, time and disk
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The study file
    pub study: PathBuf,
    /// Leave out what has to be measured: weights are not loaded, time and disk are not foretold
    #[arg(long)]
    pub no_measure: bool,
    /// Where to measure: cpu, cuda, cuda:N or auto
    #[arg(long, default_value = "auto")]
    pub device: crate::spec::Devices,
}

/// What will happen.
#[derive(Debug, Serialize)]
struct Plan {
    study: String,
    summary: String,
    /// `None` where the number of trials has no bound.
    rungs: Option<RungTable>,
    /// What the sampler knows from the start.
    warm_start: Vec<WarmStart>,
    /// `None` where trials are no image trials.
    data: Option<DataSummary>,
    costs: Option<Costs>,
}

/// Predicted time and disk.
#[derive(Debug, Serialize)]
struct Costs {
    /// What the figures rest on.
    measured_on: String,
    /// Different networks that were measured, of those the search can draw.
    networks_measured: usize,
    networks_drawn: usize,
    /// Computing time through frozen layers, spent once.
    frozen_seconds: f64,
    /// Computing time of all epochs.
    epoch_seconds: f64,
    /// Bytes of cached features, before the study's limit.
    feature_bytes: u64,
    /// Bytes of decoded images.
    pixel_bytes: u64,
    /// Bytes of one checkpoint, the largest.
    checkpoint_bytes: u64,
    /// Different sets of cached features among the drawn trials.
    feature_sets: usize,
    /// Trials drawn to foresee this.
    drawn: u32,
}

/// Prints the plan.
///
/// # Errors
/// If the study file has mistakes, or data, weights or device cannot be had.
pub fn run(args: Args, global: &Global) -> Result<Exit, CliError> {
    let loaded = global.load(&args.study)?;
    let spec = &loaded.spec;
    let rungs = rung_table(spec);
    let warm_start = super::check::warm_starts(&loaded, global)?;
    let data = match &spec.runner {
        RunnerSpec::Image { data, .. } => {
            let opened = DataSet::open(
                data,
                spec.seed,
                &loaded.base,
                &global.cache_dir(),
                &super::progress::Images::new(global),
            )
            .map_err(|e| CliError::new("open the images", e).exit(Exit::Missing))?;
            Some((data, opened.summary().clone()))
        }
        _ => None,
    };
    let costs = match (&data, &rungs) {
        (Some((data, summary)), Some(rungs)) if !args.no_measure => {
            Some(costs(&loaded, data, summary, rungs, &args.device.to_string())?)
        }
        _ => None,
    };
    let data = data.map(|(_, summary)| summary);
    let plan = Plan { study: spec.name.clone(), summary: loaded.summary(), rungs, warm_start, data, costs };
    let mut out = io::stdout().lock();
    if global.json {
        let text = serde_json::to_string(&plan).map_err(io::Error::other)?;
        writeln!(out, "{text}")?;
    } else {
        print(&mut out, &plan, spec)?;
    }
    Ok(Exit::Done)
}

/// Draws the study's trials, groups them by network, measures the most frequent and adds up.
fn costs(
    loaded: &Loaded,
    data: &DataSpec,
    summary: &DataSummary,
    rungs: &RungTable,
    device: &str,
) -> Result<Costs, CliError> {
    let spec = &loaded.spec;
    crate::nn::cuda::set_precision(spec.run.precision);
    let drawn = planned_trials(spec).unwrap_or(DRAWN).clamp(1, DRAWN);
    let mut networks: BTreeMap<String, (TrialSettings, u32)> = BTreeMap::new();
    let mut sets = BTreeMap::new();
    for trial in 0..drawn {
        let params = spec
            .space
            .sample(|name| StreamRng::named(spec.seed, Purpose::Parameter, name, &[u64::from(trial), 0]).unit());
        let mut settings =
            spec.runner.settings(&params).map_err(|e| CliError::new("lay out a trial", e).exit(Exit::Usage))?;
        settings.network = located(&settings.network, &loaded.base);
        let n = &settings.network;
        let name = format!("{:?} {} {} {} {:?}", n.backbone, n.width, n.tap_position(), n.cut(), settings.head.kind);
        if n.cut() > 0 {
            sets.entry(group_key(&settings)).or_insert_with(|| (name.clone(), views(&settings)));
        }
        networks.entry(name).or_insert((settings, 0)).1 += 1;
    }
    let mut order: Vec<(&String, &(TrialSettings, u32))> = networks.iter().collect();
    order.sort_by_key(|(name, (_, n))| (std::cmp::Reverse(*n), (*name).clone()));
    let mut measured: BTreeMap<&String, Forecast> = BTreeMap::new();
    for (name, (settings, _)) in order.iter().take(MEASURED) {
        let cost = forecast_on(settings, data.size as usize, summary.classes.len(), spec.seed, device)
            .map_err(|e| CliError::new("measure the network", e).exit(Exit::Missing))?;
        measured.insert(name, cost);
    }
    let sum = |counts: &dyn Fn(&crate::data::FoldCounts) -> u64| summary.folds.iter().map(counts).sum::<u64>() as f64;
    let train = sum(&|f| f.train.iter().sum());
    let validation = sum(&|f| f.validation.iter().sum());
    // Folds share their images: features are kept once for each.
    let development: f64 =
        summary.folds.first().map_or(0.0, |f| f.train.iter().chain(&f.validation).sum::<u64>() as f64);
    let weight = |name: &String| f64::from(networks[name].1);
    let total: f64 = measured.keys().map(|name| weight(name)).sum();
    let mean = |each: &dyn Fn(&Forecast) -> f64| {
        measured.iter().map(|(name, cost)| weight(name) / total * each(cost)).sum::<f64>()
    };
    let epoch = mean(&|c| train * c.train_seconds + validation * c.judge_seconds);
    let (mut frozen_seconds, mut feature_bytes) = (0.0, 0.0);
    for (name, views) in sets.values() {
        let (seconds, bytes) = match measured.get(name) {
            Some(cost) => (cost.frozen_seconds, cost.feature_bytes as f64),
            None => (mean(&|c| c.frozen_seconds), mean(&|c| c.feature_bytes as f64)),
        };
        // Fresh views are computed anew in every epoch and kept nowhere.
        let kept = development * f64::from(views.unwrap_or(1));
        frozen_seconds += seconds * kept;
        feature_bytes += bytes * kept;
        if views.is_none() {
            frozen_seconds += seconds * train * rungs.epochs_resuming as f64 / sets.len() as f64;
        }
    }
    let images: u64 = summary.images.iter().sum();
    Ok(Costs {
        measured_on: measured.values().next().map(|c| c.arithmetic.clone()).unwrap_or_default(),
        networks_measured: measured.len(),
        networks_drawn: networks.len(),
        frozen_seconds,
        epoch_seconds: epoch * rungs.epochs_resuming as f64,
        feature_bytes: feature_bytes as u64,
        pixel_bytes: images * (summary.size * summary.size * summary.channels) as u64,
        checkpoint_bytes: measured.values().map(|c| c.checkpoint_bytes).max().unwrap_or(0),
        feature_sets: sets.keys().collect::<BTreeSet<_>>().len(),
        drawn,
    })
}

/// Views of a training image that are kept, the original counted; `None`: every epoch draws its own.
fn views(settings: &TrialSettings) -> Option<u32> {
    let a = &settings.augment;
    let off = a.strength == 0.0 || (a.flip == 0.0 && a.rotation == 0.0 && a.brightness == 0.0 && a.edges == 0.0);
    match a.views {
        _ if off => Some(1),
        Views::Bank(n) => Some(n + 1),
        Views::Fresh => None,
    }
}

fn print(out: &mut impl Write, plan: &Plan, spec: &StudySpec) -> io::Result<()> {
    writeln!(out, "{}", plan.summary)?;
    match &plan.rungs {
        None => writeln!(out, "\nThe number of trials has no bound but the rest of the budget.")?,
        Some(table) => rung_lines(out, table)?,
    }
    for warm in &plan.warm_start {
        writeln!(out, "\nThe search {warm}")?;
    }
    if let Some(data) = &plan.data {
        data_lines(out, data)?;
    }
    if let Some(costs) = &plan.costs {
        cost_lines(out, costs, spec)?;
    }
    Ok(())
}

fn rung_lines(out: &mut impl Write, table: &RungTable) -> io::Result<()> {
    let word = match table.certainty {
        Certainty::Exact => "",
        Certainty::AtLeast => "at least ",
        Certainty::AtMost => "at most ",
    };
    writeln!(out, "\nRungs (trials@epochs)")?;
    for (i, bracket) in table.brackets.iter().enumerate() {
        let rungs: Vec<String> = bracket.rungs.iter().map(ToString::to_string).collect();
        writeln!(out, "  bracket {i}: {}", rungs.join("  "))?;
    }
    writeln!(
        out,
        "  {} trials, {word}{} epochs ({} if promotion trained anew)",
        table.trials, table.epochs_resuming, table.epochs_retraining
    )
}

fn data_lines(out: &mut impl Write, data: &DataSummary) -> io::Result<()> {
    let made = if data.synthetic { ", synthetic" } else { "" };
    writeln!(out, "\nImages of {0}x{0} pixels{made}", data.size)?;
    let width = data.classes.iter().map(|c| c.chars().count()).max().unwrap_or(0).max(12);
    let row = |out: &mut dyn Write, name: &str, counts: &[u64]| {
        let cells: String = counts.iter().map(|n| format!("  {n:>width$}")).collect();
        writeln!(out, "  {name:<20}{cells}  {:>8}", counts.iter().sum::<u64>())
    };
    let names: String = data
        .classes
        .iter()
        .enumerate()
        .map(|(i, c)| format!("  {:>width$}", if i as u32 == data.positive { format!("{c} +") } else { c.clone() }))
        .collect();
    writeln!(out, "  {:<20}{names}  {:>8}", "", "all")?;
    for (i, fold) in data.folds.iter().enumerate() {
        let of = if data.folds.len() > 1 { format!(" {}", i + 1) } else { String::new() };
        row(out, &format!("training{of}"), &fold.train)?;
        row(out, &format!("validation{of}"), &fold.validation)?;
    }
    row(out, "test (locked)", &data.test)?;
    if data.dropped.iter().any(|n| *n > 0) {
        row(out, "left out", &data.dropped)?;
    }
    if !data.skipped.is_empty() {
        writeln!(out, "  {} unusable files skipped", data.skipped.len())?;
    }
    for note in &data.notes {
        writeln!(out, "  {note}")?;
    }
    Ok(())
}

fn cost_lines(out: &mut impl Write, costs: &Costs, spec: &StudySpec) -> io::Result<()> {
    writeln!(
        out,
        "\nTime, by measuring {} of {} networks on {}",
        costs.networks_measured, costs.networks_drawn, costs.measured_on
    )?;
    writeln!(out, "  frozen layers, once  {}", duration(costs.frozen_seconds))?;
    writeln!(out, "  all epochs           {}", duration(costs.epoch_seconds))?;
    writeln!(out, "  together             {}", duration(costs.frozen_seconds + costs.epoch_seconds))?;
    writeln!(out, "  (the whole machine at work, nothing cached yet, {} trials drawn as a sample;", costs.drawn)?;
    writeln!(out, "  features that start from shallower ones take less, decoding is not counted)")?;
    writeln!(out, "\nDisk")?;
    let limit = spec.limits.cache_bytes.filter(|limit| *limit < costs.feature_bytes);
    let limited =
        limit.map(|l| format!(", held to {}: what does not fit is computed again", size(l))).unwrap_or_default();
    writeln!(out, "  cached features      {} in {} sets{limited}", size(costs.feature_bytes), costs.feature_sets)?;
    writeln!(out, "  decoded images       {}", size(costs.pixel_bytes))?;
    writeln!(out, "  a checkpoint         {}", size(costs.checkpoint_bytes))
}

/// Seconds for people.
fn duration(seconds: f64) -> String {
    let s = seconds.round() as u64;
    match s {
        0..60 => format!("{seconds:.1} s"),
        60..3600 => format!("{} min {:02} s", s / 60, s % 60),
        _ => format!("{} h {:02} min", s / 3600, s % 3600 / 60),
    }
}

/// Bytes for people.
fn size(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.1} {}", units[unit]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_read_well() {
        assert_eq!(duration(3.25), "3.2 s");
        assert_eq!(duration(125.0), "2 min 05 s");
        assert_eq!(duration(7320.0), "2 h 02 min");
        assert_eq!(size(512), "512 B");
        assert_eq!(size(3 << 29), "1.5 GiB");
    }
}
