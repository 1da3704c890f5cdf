//! `hpsearch export`: the trials as a table, or a trial's model, for other programs.

use super::args::{Global, put};
use super::exit::{CliError, Exit, store_exit};
use crate::engine::FailureClass;
use crate::exchange::{is_export, journal, json_lines, trials_csv, trials_parquet};
use crate::ids::TrialNumber;
use crate::model::{Choice, ExportError, ExportOptions, Exported, export};
use crate::spec::Device;
use crate::wording::counted;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Export the trials as a table, or a trial's model with its card
#[derive(Clone, Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("what").required(true))]
pub struct Args {
    /// A study file or the name of a study; may be left out where there is only one
    pub study: Option<String>,
    /// Write a table of all trials to this file: number, state, value, epochs, parameters, metrics; `-`: standard output
    #[arg(long, value_name = "FILE", group = "what")]
    pub csv: Option<PathBuf>,
    /// Write the same table as a Parquet file, with a type for every column; `-`: standard output
    #[arg(long, value_name = "FILE", group = "what")]
    pub parquet: Option<PathBuf>,
    /// Write all that is on record of the trials to this file, a JSON object a line: parameters, epochs, metrics; `-`:
    /// standard output
    #[arg(long, value_name = "FILE", group = "what")]
    pub jsonl: Option<PathBuf>,
    /// Write the study as a journal file of Optuna (`optuna.storages.journal.JournalFileBackend`); `-`: standard output
    #[arg(long, value_name = "FILE", group = "what")]
    pub optuna: Option<PathBuf>,
    /// Write a trial's model to this folder: safetensors with torchvision's names, and a card
    #[arg(long, value_name = "DIR", group = "what")]
    pub out: Option<PathBuf>,
    /// Write the model as ONNX too: from 8-bit pixels to scores
    #[arg(long, requires = "out")]
    pub onnx: bool,
    /// The trial whose model is written: `best` or a number; or `mean`: all finalists' models, whose mean score counts
    #[arg(long, value_name = "N", default_value = "best", requires = "out", value_parser = choice)]
    pub trial: Choice,
}

/// Reads whose scores are wanted.
pub(super) fn choice(text: &str) -> Result<Choice, String> {
    match text {
        "best" => Ok(Choice::Best),
        "mean" => Ok(Choice::Mean),
        number => {
            let number = number.parse().map_err(|_| "neither `best` nor `mean`, and no number")?;
            Ok(Choice::Trial(TrialNumber(number)))
        }
    }
}

/// Writes what was asked for.
///
/// # Errors
/// If the study cannot be read or the file cannot be written.
pub fn run(args: Args, global: &Global) -> Result<Exit, CliError> {
    let name = global.find_study(args.study.as_deref())?;
    let files = [&args.csv, &args.parquet, &args.jsonl, &args.optuna];
    let Some(file) = files.into_iter().find_map(Option::as_ref) else { return model(&args, &name, global) };
    let doing = || format!("read study `{name}`");
    let reader = global.backend()?.read(&name).map_err(|e| CliError::store(doing(), e))?;
    let tables = reader.tables().map_err(|e| CliError::store(doing(), e))?;
    let bytes = if args.optuna.is_some() {
        may_become_a_journal(file)?;
        let spec = reader.spec().map_err(|e| CliError::store(doing(), e))?;
        journal(&spec, &tables).into_bytes()
    } else if args.parquet.is_some() {
        trials_parquet(&tables).map_err(|e| CliError::new("make the table", e))?
    } else if args.jsonl.is_some() {
        json_lines(&tables).into_bytes()
    } else {
        trials_csv(&tables).map_err(|e| CliError::new("make the table", e))?
    };
    put(file, &bytes)?;
    if file != Path::new("-") && !global.quiet && !global.json {
        writeln!(std::io::stdout(), "{} in {}", counted(tables.trials.len(), "trial"), file.display())?;
    }
    Ok(Exit::Done)
}

/// Why a file does not become a journal of Optuna.
#[derive(Debug, thiserror::Error)]
enum NoJournal {
    #[error(
        "the name is that of a database, and a journal file is written\nhint: name it FILE.log; in Optuna, `optuna.copy_study` copies a study from one storage to another"
    )]
    Database,
    #[error(
        "it exists, and is not such an export as it was written: it may hold studies of Optuna\nhint: choose another name, or delete it"
    )]
    Others,
}

/// Refuses the name of a database, and to replace a file in which Optuna keeps studies of its own.
fn may_become_a_journal(file: &Path) -> Result<(), CliError> {
    let refused = |why| Err(CliError::new(format!("write `{}` for Optuna", file.display()), why).exit(Exit::Usage));
    let ending = file.extension().map(|e| e.to_string_lossy().to_ascii_lowercase()).unwrap_or_default();
    if ["db", "sqlite", "sqlite3"].contains(&ending.as_str()) {
        return refused(NoJournal::Database);
    }
    let there = file.is_file().then(|| std::fs::read(file));
    match there {
        Some(Ok(bytes)) if !bytes.is_empty() && !is_export(&String::from_utf8_lossy(&bytes)) => {
            refused(NoJournal::Others)
        }
        _ => Ok(()),
    }
}

/// Writes a model of study `name` into the folder `out`. `study`: as on the command line, a study file or a name.
pub(super) fn write_model(
    (study, name): (Option<&str>, &str),
    choice: Choice,
    onnx: bool,
    out: &Path,
    global: &Global,
) -> Result<Exported, CliError> {
    let doing = || format!("export a model of study `{name}`");
    let reader = global.backend()?.read(name).map_err(|e| CliError::store(doing(), e))?;
    let base = match study {
        Some(file) if file.ends_with(".toml") => Some(global.load(Path::new(file))?.base),
        _ => None,
    };
    let dir = global.study_dir(name);
    let slot = global.slot(Device::Cpu, None, &dir);
    export(&*reader, &dir, &ExportOptions { choice, base, slot, onnx }, out).map_err(|e| {
        let exit = match &e {
            ExportError::NotImages | ExportError::NoTrial { wanted: Some(_) } => Exit::Usage,
            ExportError::NoTrial { wanted: None } => Exit::NoSuccess,
            ExportError::NoCheckpoint { .. }
            | ExportError::Checkpoint { .. }
            | ExportError::Images(_)
            | ExportError::NoMean { .. }
            | ExportError::NoPredictions { .. } => Exit::Missing,
            ExportError::Store(e) => store_exit(e),
            ExportError::Image(e) if e.class() == FailureClass::BadInput => Exit::Missing,
            _ => Exit::Error,
        };
        CliError::new(doing(), e).exit(exit)
    })
}

/// Writes a trial's model, and says so.
fn model(args: &Args, name: &str, global: &Global) -> Result<Exit, CliError> {
    let Some(out) = &args.out else { return Ok(Exit::Usage) };
    let exported = write_model((args.study.as_deref(), name), args.trial, args.onnx, out, global)?;
    let mut stdout = std::io::stdout().lock();
    if global.json {
        let shown = |path: &Path| path.display().to_string();
        let files: Vec<String> = exported.files.iter().map(|file| shown(file)).collect();
        writeln!(stdout, "{}", serde_json::json!({ "folder": shown(out), "files": files, "card": exported.card }))?;
    } else if !global.quiet {
        let card = &exported.card;
        write!(stdout, "{} in {}", card.whose(), out.display())?;
        let differences = card.members.iter().map(|member| member.largest_difference);
        if let Some(difference) = differences.reduce(|a, b| a.zip(b).map(|(a, b)| a.max(b))).flatten() {
            let (images, whose) = (counted(exported.checked, "validation image"), possessive(card.members.len()));
            write!(stdout, "; {whose} scores of {images} agree with those on record within {difference:.1e}")?;
        }
        writeln!(stdout)?;
    }
    Ok(Exit::Done)
}

fn possessive(members: usize) -> &'static str {
    if members == 1 { "its" } else { "their" }
}
