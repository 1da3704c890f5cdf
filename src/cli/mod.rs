//! The command line: one file per verb (subcommand).

pub mod args;
pub mod audit;
pub mod best;
pub mod check;
pub mod compare;
pub mod enqueue;
pub mod exit;
pub mod export;
pub mod gc;
pub mod plan;
pub mod predict;
pub mod preview;
pub mod progress;
pub mod report;
pub mod run;
pub mod status;
pub mod submit;
pub mod test;
pub mod watch;
pub mod worker;

use args::Global;
use clap::Parser;
use exit::{CliError, Exit};
use std::process::ExitCode;

/// Hyperparameter search whose trials are transfer-learning jobs
#[derive(Debug, Parser)]
#[command(name = "hpsearch", version, propagate_version = true, max_term_width = 100)]
#[command(after_help = "Exit codes: 0 done, 1 error, 2 usage or bad study file, 3 budget spent with a valid best, \
    4 no trial succeeded, 5 locked by another run, 6 data, weights or device missing, 130/143 interrupted after a \
    clean checkpoint.")]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    Check(check::Args),
    Audit(audit::Args),
    Plan(plan::Args),
    Run(run::Args),
    Submit(submit::Args),
    Status(status::Args),
    Watch(watch::Args),
    Best(best::Args),
    Compare(compare::Args),
    Export(export::Args),
    Predict(predict::Args),
    Enqueue(enqueue::Args),
    Gc(gc::Args),
    #[command(hide = true)]
    Worker(worker::Args),
    Report(report::Args),
    Test(test::Args),
    Preview(preview::Args),
}

/// The program: reads the arguments, runs the verb, says what failed, and returns the exit code.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version go to standard output with code 0; output closed by its reader is no error.
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage.into() } else { Exit::Done.into() };
        }
    };
    match dispatch(cli.verb, &cli.global) {
        Ok(exit) => exit.into(),
        Err(error) if error.is_broken_pipe() => Exit::Done.into(),
        Err(error) => {
            args::complain(&error.render(cli.global.color()));
            error.code().into()
        }
    }
}

fn dispatch(verb: Verb, global: &Global) -> Result<Exit, CliError> {
    match verb {
        Verb::Check(args) => check::run(args, global),
        Verb::Audit(args) => audit::run(args, global),
        Verb::Plan(args) => plan::run(args, global),
        Verb::Run(args) => run::run(args, global),
        Verb::Submit(args) => submit::run(args, global),
        Verb::Status(args) => status::run(args, global),
        Verb::Watch(args) => watch::run(args, global),
        Verb::Best(args) => best::run(args, global),
        Verb::Compare(args) => compare::run(args, global),
        Verb::Export(args) => export::run(args, global),
        Verb::Predict(args) => predict::run(args, global),
        Verb::Enqueue(args) => enqueue::run(args, global),
        Verb::Gc(args) => gc::run(args, global),
        Verb::Worker(args) => worker::run(args, global),
        Verb::Report(args) => report::run(args, global),
        Verb::Test(args) => test::run(args, global),
        Verb::Preview(args) => preview::run(args, global),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
