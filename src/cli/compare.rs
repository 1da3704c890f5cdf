//! `hpsearch compare`: studies side by side.

use super::args::Global;
use super::exit::{CliError, Exit};
use crate::clock::span;
use crate::report::comparison::{Comparison, Difference, Pair, Point, Side, Summary, compare, extreme, write};
use crate::store::{Reader, read_file};
use crate::study;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Compare studies: what they found and spent, and whether their best trials differ on the same images
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Two to six studies: names in the state folder, study files, or paths of a `study.db` or its folder
    #[arg(required = true, num_args = 2..=6, value_name = "STUDY")]
    studies: Vec<String>,
    /// Also write a page with charts to this folder
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// A study that is named twice.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is named twice\nhint: name different studies")]
struct Twice(String);

/// Compares the studies, also while they are running.
///
/// # Errors
/// If a study cannot be found or read, or the page cannot be written.
pub fn run(args: Args, global: &Global) -> Result<Exit, CliError> {
    let mut sides: Vec<(Side, String)> = Vec::new();
    for study in &args.studies {
        let (side, database) = read(study, global)?;
        if sides.iter().any(|(_, other)| *other == database) {
            return Err(CliError::new("compare studies", Twice(study.clone())).exit(Exit::Usage));
        }
        sides.push((side, database));
    }
    let names: Vec<String> = sides.iter().map(|(side, _)| side.label.clone()).collect();
    for ((side, _), given) in sides.iter_mut().zip(&args.studies) {
        // Equal names are told apart by where they are.
        if names.iter().filter(|name| **name == side.label).count() > 1 {
            side.label = format!("{} ({given})", side.label);
        }
    }
    let sides: Vec<Side> = sides.into_iter().map(|(side, _)| side).collect();
    let comparison = compare(&sides);
    let written = match &args.out {
        Some(out) => Some(write(&sides, &comparison, out).map_err(|e| CliError::new("compare studies", e))?),
        None => None,
    };
    let mut stdout = io::stdout().lock();
    if global.json {
        let page = written.map(|written| written.index.display().to_string());
        writeln!(stdout, "{}", serde_json::json!({ "comparison": comparison, "page": page }))?;
        return Ok(Exit::Done);
    }
    stdout.write_all(text(&comparison).as_bytes())?;
    if let Some(written) = written {
        writeln!(stdout, "\n{} ({} charts, {} tables)", written.index.display(), written.charts, written.tables)?;
    }
    Ok(Exit::Done)
}

/// A study with its best trial's predictions, and where it is kept.
fn read(given: &str, global: &Global) -> Result<(Side, String), CliError> {
    let path = Path::new(given);
    let database = if path.is_dir() { path.join("study.db") } else { path.to_owned() };
    let by_path = given.contains('/') || given.ends_with(".db");
    let doing = || format!("read study `{given}`");
    let (reader, dir, place): (Box<dyn Reader>, PathBuf, String) = if by_path && !given.ends_with(".toml") {
        let reader = read_file(&database).map_err(|e| CliError::store(doing(), e))?;
        let dir = database.parent().unwrap_or(Path::new(".")).to_owned();
        (reader, dir, database.display().to_string())
    } else {
        let (name, backend) = (global.find_study(Some(given))?, global.backend()?);
        let reader = backend.read(&name).map_err(|e| CliError::store(doing(), e))?;
        (reader, global.study_dir(&name), backend.place(&name))
    };
    let record = study::record(&*reader, &dir, 1).map_err(|e| CliError::record(doing(), e))?;
    let images = reader.images().map_err(|e| CliError::store(doing(), e))?.map(|images| images.digest);
    let label = record.spec.name.clone();
    let place = std::fs::canonicalize(&place).map_or(place, |path| path.display().to_string());
    Ok((Side { label, record, images }, place))
}

/// A table for a terminal of 80 columns: the first column to the left, the others to the right.
fn columns(rows: &[Vec<String>]) -> String {
    let width = |c: usize| rows.iter().filter_map(|row| row.get(c)).map(|cell| cell.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..rows.first().map_or(0, Vec::len)).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (i, (cell, &width)) in row.iter().zip(&widths).enumerate() {
            line += &if i == 0 { format!("{cell:width$}") } else { format!("  {cell:>width$}") };
        }
        text += line.trim_end();
        text.push('\n');
    }
    text
}

/// A label in at most 22 characters.
fn short(label: &str) -> String {
    const LONGEST: usize = 22;
    if label.chars().count() <= LONGEST {
        return label.to_owned();
    }
    label.chars().take(LONGEST - 1).chain(['…']).collect()
}

fn value(value: Option<f64>) -> String {
    value.map_or_else(|| "–".to_owned(), |v| format!("{v:.4}"))
}

fn text(comparison: &Comparison) -> String {
    let studies = &comparison.studies;
    let Some(first) = studies.first() else { return String::new() };
    let mut text = format!("Best: {} of {} on validation images\n", extreme(first.direction), first.metric);
    let mut rows = vec![
        ["", "best", "trial", "trials", "complete", "failed", "epochs", "trained", "elapsed"]
            .map(str::to_owned)
            .to_vec(),
    ];
    let hours = |hours: f64| span(hours * 3600.0);
    rows.extend(studies.iter().map(|study| {
        vec![
            short(&study.study),
            value(study.best.map(|b| b.value)),
            study.best.map_or_else(|| "–".to_owned(), |b| b.trial.to_string()),
            study.trials.to_string(),
            study.complete.to_string(),
            study.failed.to_string(),
            study.epochs.to_string(),
            hours(study.trained_hours),
            hours(study.elapsed_hours),
        ]
    }));
    text += &columns(&rows);
    comparison.incomparable.iter().for_each(|words| text += &format!("{words}\n"));
    let shown: Vec<&Summary> = studies.iter().filter(|study| study.comparable && !study.course.is_empty()).collect();
    let least = |effort: fn(&Point) -> f64| {
        shown.iter().filter_map(|study| study.course.last().map(effort)).fold(f64::INFINITY, f64::min)
    };
    if shown.len() > 1 {
        let epochs = least(|p| p.epochs as f64);
        text +=
            &courses("best so far after epochs", &shown, epochs, |p| p.epochs as f64, |n| format!("{:.0}", n.floor()));
        let elapsed = least(|p| p.hours);
        text += &courses("best so far after time", &shown, elapsed, |p| p.hours, hours);
    }
    text.push('\n');
    comparison.pairs.iter().for_each(|pair| text += &words(pair));
    text
}

/// The best values after a quarter, a half, three quarters and all of the effort that every study has spent, and at the
/// end of each.
fn courses(
    title: &str,
    studies: &[&Summary],
    least: f64,
    effort: fn(&Point) -> f64,
    shown: impl Fn(f64) -> String,
) -> String {
    let marks = [0.25, 0.5, 0.75, 1.0].map(|part| part * least);
    let head = std::iter::once(title.to_owned()).chain(marks.iter().map(|&n| shown(n))).chain(["end".to_owned()]);
    let mut rows = vec![head.collect::<Vec<_>>()];
    for study in studies {
        let reached = marks.iter().map(|&mark| value(study.best_within(|point| effort(point) <= mark)));
        let end = value(study.course.last().map(|point| point.best));
        rows.push(std::iter::once(short(&study.study)).chain(reached).chain([end]).collect());
    }
    format!("\n{}", columns(&rows))
}

fn words(pair: &Pair) -> String {
    let names = format!("{} − {}", pair.a, pair.b);
    if let Some(why) = &pair.refused {
        return format!("{names}: not compared\n  {why}\n");
    }
    let difference = |d: &Difference| {
        let figure = d.difference.map_or_else(|| "undefined".to_owned(), |x| format!("{x:+.4}"));
        let interval = d.interval.map(|i| format!(" (95 %: {:+.4} to {:+.4})", i.low, i.high)).unwrap_or_default();
        let p = d.p.map(|p| if p < 0.001 { ", p < .001".to_owned() } else { format!(", p = {p:.3}") });
        format!("  {:<18}{figure}{interval}{}\n", d.metric, p.unwrap_or_default())
    };
    let lines: String = pair.differences.iter().map(difference).collect();
    format!("{names}: best trials on the same {} validation images\n{lines}", pair.images)
}
