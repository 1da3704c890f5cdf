//! `hpsearch export`: the trials as a table, or a trial's model, for other programs.

use super::args::Global;
use super::exit::{CliError, Exit, store_exit};
use crate::engine::FailureClass;
use crate::exchange::{is_export, journal, json_lines};
use crate::history::Tables;
use crate::ids::TrialNumber;
use crate::model::{ExportError, ExportOptions, Exported, export};
use crate::spec::Device;
use crate::wording::counted;
use std::collections::{BTreeMap, BTreeSet};
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
    /// The trial whose model is written: `best` or a number
    #[arg(long, value_name = "N", default_value = "best", requires = "out", value_parser = trial)]
    pub trial: Chosen,
}

/// A trial named on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chosen {
    /// The first of the ranking.
    Best,
    /// This one.
    Number(TrialNumber),
}

fn trial(text: &str) -> Result<Chosen, String> {
    match text {
        "best" => Ok(Chosen::Best),
        number => {
            number.parse().map(|n| Chosen::Number(TrialNumber(n))).map_err(|_| "not `best`, and no number".into())
        }
    }
}

/// Writes what was asked for.
///
/// # Errors
/// If the study cannot be read or the file cannot be written.
pub fn run(args: Args, global: &Global) -> Result<Exit, CliError> {
    let name = global.find_study(args.study.as_deref())?;
    let Some(file) = args.csv.as_ref().or(args.jsonl.as_ref()).or(args.optuna.as_ref()) else {
        return model(&args, &name, global);
    };
    let doing = || format!("read study `{name}`");
    let reader = global.backend().read(&name).map_err(|e| CliError::store(doing(), e))?;
    let tables = reader.tables().map_err(|e| CliError::store(doing(), e))?;
    let bytes = if args.optuna.is_some() {
        may_become_a_journal(file)?;
        let spec = reader.spec().map_err(|e| CliError::store(doing(), e))?;
        journal(&spec, &tables).into_bytes()
    } else if args.jsonl.is_some() {
        json_lines(&tables).into_bytes()
    } else {
        table(&tables).map_err(|e| CliError::new("make the table", e))?
    };
    if file == Path::new("-") {
        std::io::stdout().lock().write_all(&bytes)?;
    } else {
        let doing = || format!("write `{}`", file.display());
        crate::fsx::write_atomic(file, &bytes).map_err(|e| CliError::new(doing(), e))?;
        if !global.quiet && !global.json {
            writeln!(std::io::stdout(), "{} in {}", counted(tables.trials.len(), "trial"), file.display())?;
        }
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

/// Writes the model of a trial (`None`: of the best) of study `name` into the folder `out`. `study`: as on the command
/// line, a study file or a name.
pub(super) fn write_model(
    (study, name): (Option<&str>, &str),
    trial: Option<TrialNumber>,
    onnx: bool,
    out: &Path,
    global: &Global,
) -> Result<Exported, CliError> {
    let doing = || format!("export a model of study `{name}`");
    let reader = global.backend().read(name).map_err(|e| CliError::store(doing(), e))?;
    let base = match study {
        Some(file) if file.ends_with(".toml") => Some(global.load(Path::new(file))?.base),
        _ => None,
    };
    let dir = global.study_dir(name);
    let slot = global.slot(Device::Cpu, None, &dir);
    export(&*reader, &dir, &ExportOptions { trial, base, slot, onnx }, out).map_err(|e| {
        let exit = match &e {
            ExportError::NotImages | ExportError::NoTrial { wanted: Some(_) } => Exit::Usage,
            ExportError::NoTrial { wanted: None } => Exit::NoSuccess,
            ExportError::NoCheckpoint { .. }
            | ExportError::Checkpoint { .. }
            | ExportError::Images(_)
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
    let trial = match args.trial {
        Chosen::Best => None,
        Chosen::Number(number) => Some(number),
    };
    let exported = write_model((args.study.as_deref(), name), trial, args.onnx, out, global)?;
    let mut stdout = std::io::stdout().lock();
    if global.json {
        writeln!(stdout, "{}", serde_json::json!({ "folder": out, "files": exported.files, "card": exported.card }))?;
    } else if !global.quiet {
        let card = &exported.card;
        write!(stdout, "trial {} in {}", card.trial, out.display())?;
        if let Some(difference) = card.largest_difference {
            let images = counted(exported.checked, "validation image");
            write!(stdout, "; its scores of {images} agree with those on record within {difference:.1e}")?;
        }
        writeln!(stdout)?;
    }
    Ok(Exit::Done)
}

/// CSV with a header; columns of parameters and metrics that a trial does not have are empty. Where a metric has the
/// name of a parameter or a fixed column, it is called `metric.NAME` (parameters: `param.NAME`).
fn table(tables: &Tables) -> Result<Vec<u8>, csv::Error> {
    const FIXED: [&str; 7] = ["number", "state", "value", "epochs", "seconds", "failure", "reason"];
    let none = BTreeMap::new();
    let last = |trial| tables.epochs_of(trial).next_back().map_or(&none, |epoch| &epoch.metrics);
    let params: BTreeSet<&str> = tables.configurations.values().flat_map(|p| p.0.keys().map(String::as_str)).collect();
    let metrics: BTreeSet<&str> =
        tables.trials.keys().flat_map(|&trial| last(trial).keys().map(String::as_str)).collect();
    let mut csv = csv::Writer::from_writer(Vec::new());
    let param = |name: &&str| if FIXED.contains(name) { format!("param.{name}") } else { (*name).to_owned() };
    let metric = |name: &&str| {
        if FIXED.contains(name) || params.contains(name) { format!("metric.{name}") } else { (*name).to_owned() }
    };
    let head = FIXED.iter().map(|&n| n.to_owned()).chain(params.iter().map(param)).chain(metrics.iter().map(metric));
    csv.write_record(head)?;
    for row in tables.trials.values() {
        let failure = tables.failure_of(row.trial);
        let number = |value: Option<f64>| value.map_or_else(String::new, |v| v.to_string());
        let fixed = [
            row.trial.to_string(),
            row.state.to_string(),
            number(row.value),
            row.epochs.to_string(),
            row.seconds.to_string(),
            failure.map_or_else(String::new, |f| f.class.to_string()),
            failure.map_or_else(String::new, |f| f.reason.clone()),
        ];
        let own = tables.configurations.get(&row.trial);
        let params =
            params.iter().map(|name| own.and_then(|p| p.get(name)).map_or_else(String::new, ToString::to_string));
        let metrics = metrics.iter().map(|&name| number(last(row.trial).get(name).copied()));
        csv.write_record(fixed.into_iter().chain(params).chain(metrics))?;
    }
    csv.into_inner().map_err(|e| csv::Error::from(std::io::Error::other(e.to_string())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{EpochReport, Event, FailureClass, Outcome};
    use crate::ids::{Epoch, OrderId};
    use crate::space::Value;
    use crate::spec::SchedulerSpec;
    use crate::store::conformance;

    #[test]
    fn a_table_has_a_column_for_everything_that_any_trial_has() {
        let mut spec = conformance::study("export");
        (spec.scheduler, spec.runner) = (SchedulerSpec::None, crate::spec::RunnerSpec::External { epochs: 1 });
        let by_hand = |params: &[(&str, Value)]| {
            crate::space::Params(params.iter().map(|(k, v)| ((*k).to_owned(), v.clone())).collect())
        };
        let first = by_hand(&[("f1", Value::Int(3)), ("lr", Value::Float(1e-5))]);
        let second = by_hand(&[("value", Value::Text("x".to_owned()))]);
        let (mut engine, mut events) = (crate::engine::Engine::new(&spec), Vec::new());
        let mut tell = |engine: &mut crate::engine::Engine, event: Event| {
            engine.apply(&event).unwrap();
            events.push(event);
        };
        for (number, params) in [first, second].into_iter().enumerate() {
            let order = OrderId(number as u32);
            tell(&mut engine, Event::Enqueued { params, unix_ms: 1 });
            let crate::engine::Plan::Issue(issued) = engine.plan() else { panic!("no order") };
            tell(&mut engine, Event::OrderIssued { order: issued });
            tell(&mut engine, Event::AttemptStarted { order, attempt: 1, worker: 0, unix_ms: 2 });
            let outcome = if number == 0 {
                let metrics = [("f1".to_owned(), 0.25)].into();
                let report = EpochReport { metrics, seconds: 1.5, ..EpochReport::new(Epoch(1), 0.25) };
                tell(&mut engine, Event::EpochReported { order, attempt: 1, report, unix_ms: 3 });
                Outcome::Reached { value: 0.25 }
            } else {
                Outcome::Failed { class: FailureClass::Crashed, reason: "a, \"b\"".to_owned() }
            };
            tell(&mut engine, Event::OrderFinished { order, outcome, unix_ms: 4 });
        }
        let tables = Tables::replay(&spec, &events).unwrap();
        let text = String::from_utf8(table(&tables).unwrap()).unwrap();
        let expected = "number,state,value,epochs,seconds,failure,reason,f1,lr,param.value,metric.f1\n\
                        0,complete,0.25,1,1.5,,,3,1e-5,,0.25\n\
                        1,failed,,0,0,crashed,\"a, \"\"b\"\"\",,,x,\n";
        assert_eq!(text, expected);
    }
}
