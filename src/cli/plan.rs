//! `hpsearch plan`: what a run will do, before it does it.

use super::args::Global;
use super::exit::{CliError, Exit};
use crate::clock::span;
use crate::data::{DataSet, DataSummary};
use crate::engine::WarmStart;
use crate::engine::{Certainty, PlannedBracket, RungTable, rung_table};
use crate::runner::device;
use crate::runner::image::{ImageError, StudyCost, study_cost};
use crate::space::Domain;
use crate::spec::{Budget, Device, Devices, RunnerSpec, StudySpec, WorkBudget};
use crate::wording::bytes;
use serde::Serialize;
use std::io::{self, Write};
use std::path::PathBuf;

/// Show what a run will do: trials, rungs, epochs, images, time and disk
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The study file
    pub study: PathBuf,
    /// Leave out what has to be measured: weights are not loaded, time and disk are not estimated
    #[arg(long)]
    pub no_measure: bool,
    /// Where to measure: cpu, cuda, cuda:N or auto, instead of on the study's device, if it is here
    #[arg(long, value_name = "DEVICE")]
    pub device: Option<Devices>,
}

/// What a run will do.
#[derive(Debug, Serialize)]
struct StudyPlan {
    study: String,
    summary: String,
    /// `None` where the number of trials is unbounded.
    rungs: Option<RungTable>,
    /// The results of earlier studies from which the sampler starts.
    warm_start: Vec<WarmStart>,
    /// `None` where trials are not trained on images.
    data: Option<DataSummary>,
    costs: Option<StudyCost>,
}

/// Prints the plan.
///
/// # Errors
/// If the study file has mistakes, or data, weights or device are missing.
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
            // Trials of a cluster are not trained here, and the study's own device may be elsewhere.
            let here = || device::resolve(&Devices::Auto);
            let device = match &args.device {
                Some(asked) => device::resolve(asked),
                None if spec.cluster.is_some() => here(),
                None => device::resolve(&spec.run.device).or_else(|_| here()),
            };
            let device = device
                .map_err(|e| CliError::new("find the device", e).exit(Exit::Missing))?
                .first()
                .copied()
                .unwrap_or(Device::Cpu);
            Some(study_cost(spec, &loaded.base, summary, rungs, device).map_err(|e| {
                let exit = if matches!(e, ImageError::Settings(_)) { Exit::Usage } else { Exit::Missing };
                CliError::new("foresee the cost of trials", e).exit(exit)
            })?)
        }
        _ => None,
    };
    let data = data.map(|(_, summary)| summary);
    let plan = StudyPlan { study: spec.name.clone(), summary: loaded.summary(), rungs, warm_start, data, costs };
    let mut out = io::stdout().lock();
    if global.json {
        let text = serde_json::to_string(&plan).map_err(io::Error::other)?;
        writeln!(out, "{text}")?;
    } else {
        print(&mut out, &plan, spec)?;
    }
    Ok(Exit::Done)
}

fn print(out: &mut impl Write, plan: &StudyPlan, spec: &StudySpec) -> io::Result<()> {
    writeln!(out, "{}", plan.summary)?;
    match &plan.rungs {
        None => writeln!(out, "\nThe number of trials has no bound but the rest of the budget.")?,
        Some(table) => rung_lines(out, table)?,
    }
    bound_lines(out, &spec.budget)?;
    for warm in &plan.warm_start {
        writeln!(out, "\nThe search {warm}")?;
    }
    if let Some(data) = &plan.data {
        data_lines(out, data, seen(spec))?;
    }
    if let Some(costs) = &plan.costs {
        cost_lines(out, costs, spec)?;
    }
    Ok(())
}

/// Columns of a terminal.
const WIDTH: usize = 80;

fn rung_lines(out: &mut impl Write, table: &RungTable) -> io::Result<()> {
    let word = match table.certainty {
        Certainty::Exact => "",
        Certainty::AtLeast => "at least ",
        Certainty::AtMost => "at most ",
    };
    writeln!(out, "\nRungs (trials@epochs)")?;
    for (numbers, bracket) in folded(&table.brackets) {
        let mut line = format!("  {}:", named(&numbers));
        for rung in bracket.rungs.iter().map(ToString::to_string) {
            if line.len() + 2 + rung.len() > WIDTH {
                writeln!(out, "{line}")?;
                line = String::from("   ");
            }
            line.push_str("  ");
            line.push_str(&rung);
        }
        writeln!(out, "{line}")?;
    }
    writeln!(
        out,
        "  {} trials, {word}{} epochs ({} if promotion trained anew)",
        table.trials, table.epochs_resuming, table.epochs_retraining
    )
}

/// Brackets that are alike, with their numbers, in the order of the first: many rounds of Hyperband are a few lines.
fn folded(brackets: &[PlannedBracket]) -> Vec<(Vec<usize>, &PlannedBracket)> {
    let mut kinds: Vec<(Vec<usize>, &PlannedBracket)> = Vec::new();
    for (number, bracket) in brackets.iter().enumerate() {
        match kinds.iter_mut().find(|(_, kind)| *kind == bracket) {
            Some((numbers, _)) => numbers.push(number),
            None => kinds.push((vec![number], bracket)),
        }
    }
    kinds
}

/// `bracket 4`, `brackets 0, 2`, `brackets 0, 2, 4, ... (40 in all)`
fn named(numbers: &[usize]) -> String {
    let first: Vec<String> = numbers.iter().take(3).map(ToString::to_string).collect();
    let first = first.join(", ");
    match numbers.len() {
        1 => format!("bracket {first}"),
        2 | 3 => format!("brackets {first}"),
        n => format!("brackets {first}, ... ({n} in all)"),
    }
}

/// The bounds beside the number of trials, by their names in the study file.
fn bound_lines(out: &mut impl Write, budget: &Budget) -> io::Result<()> {
    let work = budget.work.map(|work| match work {
        WorkBudget::GigaOperations(n) => format!("{n} giga-operations"),
        WorkBudget::Seconds(seconds) => span(seconds),
    });
    let epochs = budget.epochs.map(|n| n.to_string());
    let bounds = [("wall_time", budget.wall_seconds.map(span)), ("epochs", epochs), ("work", work)];
    let set: Vec<_> = bounds.into_iter().filter_map(|(name, bound)| Some((name, bound?))).collect();
    if set.is_empty() {
        return Ok(());
    }
    writeln!(out, "\nAlso in the budget: what is reached first ends the study")?;
    for (name, bound) in set {
        writeln!(out, "  {name:<21}{bound}")?;
    }
    writeln!(out, "  (all figures here are of the whole plan, as if none of these were reached)")
}

/// What networks see of images that they are given smaller than they are kept: `reduced to 96, 150 px`.
pub(super) fn seen(spec: &StudySpec) -> Option<String> {
    let RunnerSpec::Image { network, training, .. } = &spec.runner else { return None };
    let later = match spec.space.get("input_size").map(|p| &p.domain) {
        Some(domain) if !domain.choices().is_empty() => {
            let sides: Vec<String> = domain.choices().iter().map(ToString::to_string).collect();
            Some(format!("{} px, by trial", sides.join(", ")))
        }
        Some(Domain::Int { low, high, .. }) => Some(format!("{low} to {high} px, by trial")),
        Some(Domain::Fixed { value }) => Some(format!("{value} px")),
        _ => network.input_size.map(|side| format!("{side} px")),
    };
    let smaller = training.small_epochs > 0 || spec.space.get("small_epochs").is_some();
    match (later, smaller) {
        (None, false) => None,
        (None, true) => Some("reduced in the first epochs".to_owned()),
        (Some(sides), false) => Some(format!("reduced to {sides}")),
        (Some(sides), true) => Some(format!("reduced to {sides}, and smaller in the first epochs")),
    }
}

fn data_lines(out: &mut impl Write, data: &DataSummary, seen: Option<String>) -> io::Result<()> {
    let made = if data.synthetic { ", synthetic" } else { "" };
    let seen = seen.map_or_else(String::new, |seen| format!(", {seen}"));
    writeln!(out, "\nImages of {0}x{0} pixels{made}{seen}", data.size)?;
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

fn cost_lines(out: &mut impl Write, costs: &StudyCost, spec: &StudySpec) -> io::Result<()> {
    writeln!(
        out,
        "\nTime, by measuring {} of {} networks on {}",
        costs.networks_measured, costs.networks_drawn, costs.measured_on
    )?;
    writeln!(out, "  frozen layers, once  {}", span(costs.frozen_seconds))?;
    writeln!(out, "  all epochs           {}", span(costs.epoch_seconds))?;
    writeln!(out, "  together             {}", span(costs.frozen_seconds + costs.epoch_seconds))?;
    let (least, most) = costs.epoch_seconds_range;
    writeln!(out, "  one epoch            {} to {}", span(least), span(most))?;
    writeln!(out, "  work                 {} giga-operations (`budget.work`)", costs.giga_operations)?;
    writeln!(out, "  (the whole machine at work, nothing cached yet, {} trials drawn as a sample;", costs.drawn)?;
    writeln!(out, "  decoding is not counted)")?;
    writeln!(out, "\nDisk")?;
    let limit = spec.limits.cache_bytes.filter(|limit| *limit < costs.feature_bytes);
    let limited =
        limit.map(|l| format!(", held to {}: what does not fit is computed again", bytes(l))).unwrap_or_default();
    writeln!(out, "  cached features      {} in {} sets{limited}", bytes(costs.feature_bytes), costs.feature_sets)?;
    writeln!(out, "  decoded images       {}", bytes(costs.pixel_bytes))?;
    writeln!(out, "  a checkpoint         {}", bytes(costs.checkpoint_bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::space::{Domain, Parameter, SearchSpace};
    use crate::spec::SchedulerSpec;

    fn printed(epochs: u32, n_trials: u32, reduction_factor: u32, budget: Budget) -> String {
        let domain = Domain::Float { low: 0.0, high: 1.0, step: None, log: false };
        let space = SearchSpace { parameters: vec![Parameter { name: "x".to_owned(), domain, when: None }] };
        let mut spec = StudySpec::external("many", space, epochs, n_trials);
        spec.scheduler = SchedulerSpec::Hyperband { min_resource: 1, reduction_factor, algorithm1: false };
        spec.budget = Budget { n_trials: Some(n_trials), ..budget };
        let plan = StudyPlan {
            study: spec.name.clone(),
            summary: "study many".to_owned(),
            rungs: rung_table(&spec),
            warm_start: Vec::new(),
            data: None,
            costs: None,
        };
        let mut out = Vec::new();
        print(&mut out, &plan, &spec).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn equal_brackets_share_a_line_and_the_other_bounds_of_the_budget_are_named() {
        let work = Some(WorkBudget::GigaOperations(500));
        let bounds = Budget { wall_seconds: Some(1800.0), epochs: Some(300), work, ..Budget::default() };
        let text = printed(9, 100, 3, bounds);
        let expected = [
            "study many",
            "",
            "Rungs (trials@epochs)",
            "  brackets 0, 3, 6, ... (7 in all):  9@1  3@3  1@9",
            "  brackets 1, 4, 7, ... (6 in all):  3@3  1@9",
            "  brackets 2, 5, 8, ... (6 in all):  3@9",
            "  bracket 19:  1@3  1@9",
            "  100 trials, 408 epochs (471 if promotion trained anew)",
            "",
            "Also in the budget: what is reached first ends the study",
            "  wall_time            30 min 00 s",
            "  epochs               300",
            "  work                 500 giga-operations",
            "  (all figures here are of the whole plan, as if none of these were reached)",
        ];
        assert_eq!(text.lines().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_long_plan_is_short_and_fits_the_terminal() {
        let text = printed(1000, 100_000, 2, Budget::default());
        assert!(text.lines().count() < 30 && text.lines().all(|line| line.len() <= WIDTH), "{text}");
        assert!(!text.contains("Also in the budget"), "{text}");
    }
}
