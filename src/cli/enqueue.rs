//! `hpsearch enqueue`: adds a configuration by hand, to be tried next.

use super::args::Global;
use super::exit::{CliError, Exit};
use super::run::open_error;
use crate::space::{Domain, Params, SearchSpace, Value};
use crate::study::Study;
use std::io::Write;

/// Put a configuration first: the next new trial takes it
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// A study file or the name of a study that has been run
    pub study: String,
    /// The parameters: `name=value`, all that exist in the configuration
    #[arg(required = true, value_name = "NAME=VALUE", value_parser = pair)]
    pub params: Vec<(String, String)>,
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("not of the form name=value")?;
    Ok((name.to_owned(), value.to_owned()))
}

/// Records the configuration.
///
/// # Errors
/// If it is not one of the study's space, or a run holds the study.
pub fn run(args: Args, global: &Global) -> Result<Exit, CliError> {
    let name = global.find_study(Some(&args.study))?;
    let mut study =
        Study::open_existing_in(&*global.backend()?, &global.state, &name).map_err(|e| open_error(&name, e))?;
    let params = configuration(&study.spec().space, &args.params)
        .map_err(|e| CliError::new("enqueue the configuration", e).exit(Exit::Usage))?;
    let used = study.engine().trials().find(|t| *t.params == params).map(|t| t.number);
    if let Some(trial) = used {
        let taken = NotEnqueued::Taken(trial.to_string());
        return Err(CliError::new("enqueue the configuration", taken).exit(Exit::Usage));
    }
    let enqueued = serde_json::json!({ "study": name, "params": params });
    study.enqueue(params).map_err(|e| CliError::new(format!("write to study `{name}`"), e))?;
    if global.json {
        writeln!(std::io::stdout(), "{enqueued}")?;
    } else if !global.quiet {
        writeln!(
            std::io::stdout(),
            "the next new trial of study {name} takes it; raise `budget.n_trials` if all are out"
        )?;
    }
    Ok(Exit::Done)
}

/// Why a configuration is refused.
#[derive(Debug, thiserror::Error)]
enum NotEnqueued {
    #[error("{0}")]
    Space(String),
    #[error("trial {0} has it already")]
    Taken(String),
}

fn configuration(space: &SearchSpace, pairs: &[(String, String)]) -> Result<Params, NotEnqueued> {
    let given = pairs.iter().map(|(name, text)| (name.clone(), read(space, name, text))).collect();
    space
        .complete(&Params(given))
        .map_err(|wrong| NotEnqueued::Space(wrong.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")))
}

/// The value that a text means for a parameter: the choice with this text, else a number, else the text.
fn read(space: &SearchSpace, name: &str, text: &str) -> Value {
    let choices = match space.get(name).map(|p| &p.domain) {
        Some(Domain::Categorical { choices } | Domain::Ordinal { choices }) => choices.as_slice(),
        Some(Domain::Fixed { value }) => std::slice::from_ref(value),
        _ => &[],
    };
    if let Some(choice) = choices.iter().find(|choice| choice.to_string() == text) {
        return choice.clone();
    }
    match (text.parse::<i64>(), text.parse::<f64>()) {
        (Ok(whole), _) => Value::Int(whole),
        (_, Ok(number)) => Value::Float(number),
        _ => Value::Text(text.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::conformance;

    #[test]
    fn values_are_read_as_the_types_of_their_parameters() {
        let space = conformance::study("space").space;
        let pairs =
            |list: &[(&str, &str)]| list.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect::<Vec<_>>();
        let params = configuration(&space, &pairs(&[("learning_rate", "1e-3"), ("dropout", "0")])).unwrap();
        assert_eq!(params.get("dropout"), Some(&Value::Float(0.0)), "a whole number is a float where one is wanted");
        let error = configuration(&space, &pairs(&[("learning_rate", "2"), ("depth", "3")])).unwrap_err().to_string();
        for name in ["learning_rate", "dropout", "depth"] {
            assert!(error.contains(name), "{error}");
        }
    }
}
