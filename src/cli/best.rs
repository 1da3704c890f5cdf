//! `hpsearch best`: the best configuration, for people, for programs, or as a study of its own.

use super::args::{Global, complain};
use super::exit::{CliError, Exit};
use super::status::trial_json;
use crate::history::{Tables, TrialRow};
use crate::ids::TrialNumber;
use crate::space::{Domain, Params};
use crate::spec::{CommandSpec, DataSource, RunnerSpec, SamplerSpec, SchedulerSpec, StudySpec, WeightSource};
use crate::store::StoreError;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Show the best configuration, or write it as a study file that trains just this one
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// A study file or the name of a study; may be left out where there is only one
    pub study: Option<String>,
    /// Another trial, by its number
    #[arg(long, value_name = "N")]
    pub trial: Option<u32>,
    /// Print a study file that trains this configuration alone, to the end
    #[arg(long, conflicts_with = "json")]
    pub toml: bool,
}

/// Prints the configuration.
///
/// # Errors
/// If the study cannot be found or read, or has no such trial.
pub fn run(args: Args, global: &Global) -> Result<Exit, CliError> {
    let name = global.find_study(args.study.as_deref())?;
    let doing = || format!("find the best trial of study `{name}`");
    let backend = global.backend()?;
    let read = || -> Result<_, StoreError> {
        let reader = backend.read(&name)?;
        Ok((reader.spec()?, reader.tables()?, reader.images()?))
    };
    let (spec, tables, images) = read().map_err(|e| CliError::store(doing(), e))?;
    let found = match args.trial {
        Some(number) => tables.trials.get(&TrialNumber(number)),
        None => tables.ranking(spec.objective.direction).into_iter().next(),
    };
    let Some((row, params)) = found.and_then(|row| Some((row, tables.configurations.get(&row.trial)?))) else {
        return Err(match args.trial {
            Some(number) => {
                let of = tables.trials.len();
                CliError::new(doing(), format!("there is no trial {number} among its {of}")).exit(Exit::Usage)
            }
            None => CliError::new(doing(), "no trial has a result yet").exit(Exit::NoSuccess),
        });
    };
    let mut out = std::io::stdout().lock();
    if global.json {
        writeln!(out, "{}", trial_json(&tables, row))?;
    } else if args.toml {
        let folder = images.map(|on_record| on_record.folder).or_else(|| folder_of(args.study.as_deref()?));
        if folder.is_none() && depends_on_folder(&spec) && !global.quiet {
            complain(
                "note: its command starts in the folder of the study file, or relative to it, which is not on record; name \
                 the study file instead of the study, or keep the new file beside it\n",
            );
        }
        write!(
            out,
            "# Trial {} of study {name}, to be trained alone.\n{}",
            row.trial,
            alone(&spec, row, params, folder)
        )?;
    } else {
        print(&mut out, &spec, &tables, row, params)?;
    }
    Ok(Exit::Done)
}

fn print(
    out: &mut impl Write,
    spec: &StudySpec,
    tables: &Tables,
    row: &TrialRow,
    params: &Params,
) -> std::io::Result<()> {
    let value = row.value.map_or_else(|| "undefined".to_owned(), |v| format!("{v:.4}"));
    writeln!(
        out,
        "trial {} of study {}: {} {value} after {} of {} epochs ({})",
        row.trial,
        spec.name,
        spec.objective.metric,
        row.epochs,
        spec.runner.epochs(),
        row.state
    )?;
    let width = params.0.keys().map(String::len).max().unwrap_or(0);
    params.0.iter().try_for_each(|(name, value)| writeln!(out, "  {name:<width$}  {value}"))?;
    let Some(last) = tables.epochs_of(row.trial).next_back().filter(|last| !last.metrics.is_empty()) else {
        return Ok(());
    };
    writeln!(out, "on validation:")?;
    let width = last.metrics.keys().map(String::len).max().unwrap_or(0);
    last.metrics.iter().try_for_each(|(name, value)| writeln!(out, "  {name:<width$}  {value:.4}"))
}

/// The folder of a study that is given as a file, as it is named from everywhere.
fn folder_of(study: &str) -> Option<PathBuf> {
    let file = std::path::absolute(study).ok().filter(|_| study.ends_with(".toml"))?;
    file.parent().map(Path::to_owned)
}

/// Whether the trials of a study are commands that start in a folder given relative to the study file.
fn depends_on_folder(spec: &StudySpec) -> bool {
    match &spec.runner {
        RunnerSpec::Command(command) => command.directory.as_deref().is_none_or(Path::is_relative),
        _ => false,
    }
}

/// A study file with this configuration as its only one. `folder`: where relative paths of the study start.
fn alone(spec: &StudySpec, row: &TrialRow, params: &Params, folder: Option<PathBuf>) -> String {
    let mut spec = spec.clone();
    spec.name = format!("{}-{}", spec.name, row.trial);
    spec.space.parameters.retain(|parameter| params.0.contains_key(&parameter.name));
    for parameter in &mut spec.space.parameters {
        parameter.domain = Domain::Fixed { value: params.0[&parameter.name].clone() };
        parameter.when = None;
    }
    (spec.sampler, spec.scheduler) = (SamplerSpec::Random, SchedulerSpec::None);
    spec.enqueue.clear();
    spec.budget = crate::spec::Budget { n_trials: Some(1), ..Default::default() };
    match (&mut spec.runner, folder) {
        (RunnerSpec::Image { data, network, .. }, Some(folder)) => {
            let absolute = |path: &mut PathBuf| *path = folder.join(Path::new(path));
            match &mut data.source {
                DataSource::Folder(path) | DataSource::Manifest(path) => absolute(path),
                DataSource::Synthetic(_) => {}
            }
            if let WeightSource::File(path) = &mut network.weights {
                absolute(path);
            }
        }
        (RunnerSpec::Command(CommandSpec { directory, .. }), Some(folder)) => {
            *directory = Some(directory.as_ref().map_or(folder.clone(), |own| folder.join(own)));
        }
        _ => {}
    }
    spec.to_toml()
}
