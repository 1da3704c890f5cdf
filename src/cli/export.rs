//! `hpsearch export`: a row a trial, for other programs.

use super::args::Global;
use super::exit::{CliError, Exit};
use crate::store::{SqliteReader, TrialRow};
use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Export the trials as a table: number, state, value, epochs, parameters, metrics
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// A study file or the name of a study; may be left out where there is only one
    pub study: Option<String>,
    /// The file to write; `-`: standard output
    #[arg(long, value_name = "FILE")]
    pub csv: PathBuf,
}

/// Writes the table.
///
/// # Errors
/// If the study cannot be read or the file cannot be written.
pub fn run(args: Args, global: &Global) -> Result<Exit, CliError> {
    let name = global.find_study(args.study.as_deref())?;
    let trials = SqliteReader::open(&global.study_dir(&name).join("study.db"))
        .and_then(|reader| reader.trials())
        .map_err(|e| CliError::new(format!("read study `{name}`"), e))?;
    let bytes = table(&trials).map_err(|e| CliError::new("make the table", e))?;
    if args.csv == Path::new("-") {
        std::io::stdout().lock().write_all(&bytes)?;
    } else {
        let doing = || format!("write `{}`", args.csv.display());
        crate::fsx::write_atomic(&args.csv, &bytes).map_err(|e| CliError::new(doing(), e))?;
        if !global.quiet && !global.json {
            writeln!(std::io::stdout(), "{} trials in {}", trials.len(), args.csv.display())?;
        }
    }
    Ok(Exit::Done)
}

/// CSV with a head; columns of parameters and metrics that a trial does not have are empty. Where a metric has the
/// name of a parameter or a fixed column, it is called `metric.NAME` (parameters: `param.NAME`).
fn table(trials: &[TrialRow]) -> Result<Vec<u8>, csv::Error> {
    const FIXED: [&str; 7] = ["number", "state", "value", "epochs", "seconds", "failure", "reason"];
    let params: BTreeSet<&str> = trials.iter().flat_map(|t| t.params.0.keys().map(String::as_str)).collect();
    let metrics: BTreeSet<&str> = trials.iter().flat_map(|t| t.metrics.keys().map(String::as_str)).collect();
    let mut csv = csv::Writer::from_writer(Vec::new());
    let param = |name: &&str| if FIXED.contains(name) { format!("param.{name}") } else { (*name).to_owned() };
    let metric = |name: &&str| {
        if FIXED.contains(name) || params.contains(name) { format!("metric.{name}") } else { (*name).to_owned() }
    };
    let head = FIXED.iter().map(|&n| n.to_owned()).chain(params.iter().map(param)).chain(metrics.iter().map(metric));
    csv.write_record(head)?;
    for trial in trials {
        let (class, reason) = trial.failure.clone().unwrap_or_default();
        let number = |value: Option<f64>| value.map_or_else(String::new, |v| v.to_string());
        let fixed = [
            trial.trial.to_string(),
            trial.state.clone(),
            number(trial.value),
            trial.epochs.to_string(),
            trial.seconds.to_string(),
            class,
            reason,
        ];
        let params = params.iter().map(|name| trial.params.get(name).map_or_else(String::new, ToString::to_string));
        let metrics = metrics.iter().map(|&name| number(trial.metrics.get(name).copied()));
        csv.write_record(fixed.into_iter().chain(params).chain(metrics))?;
    }
    csv.into_inner().map_err(|e| csv::Error::from(std::io::Error::other(e.to_string())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::TrialNumber;
    use crate::space::{Params, Value};

    #[test]
    fn a_table_has_a_column_for_everything_that_any_trial_has() {
        let trial = |number, state: &str, params: &[(&str, Value)], metrics: &[(&str, f64)]| TrialRow {
            trial: TrialNumber(number),
            state: state.to_owned(),
            value: metrics.first().map(|m| m.1),
            epochs: 3,
            bracket: 0,
            rung: None,
            seconds: 1.5,
            params: Params(params.iter().map(|(k, v)| ((*k).to_owned(), v.clone())).collect()),
            metrics: metrics.iter().map(|&(k, v)| (k.to_owned(), v)).collect(),
            failure: metrics.is_empty().then(|| ("crashed".to_owned(), "a, \"b\"".to_owned())),
        };
        let trials = [
            trial(0, "complete", &[("f1", Value::Int(3)), ("lr", Value::Float(1e-5))], &[("f1", 0.25)]),
            trial(1, "failed", &[("value", Value::Text("x".to_owned()))], &[]),
        ];
        let text = String::from_utf8(table(&trials).unwrap()).unwrap();
        let expected = "number,state,value,epochs,seconds,failure,reason,f1,lr,param.value,metric.f1\n\
                        0,complete,0.25,3,1.5,,,3,1e-5,,0.25\n\
                        1,failed,,3,1.5,crashed,\"a, \"\"b\"\"\",,,x,\n";
        assert_eq!(text, expected);
    }
}
