//! `hpsearch worker`: the process that a run starts; not meant for users.

use super::args::Global;
use super::exit::{CliError, Exit};
use std::process::ExitCode;

/// Train trials for a run (started by `hpsearch run`)
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Replace this process by a program that ends when its parent does
    #[arg(long)]
    pub launch: bool,
    /// End that program by SIGTERM
    #[arg(long, requires = "launch")]
    pub gently: bool,
    /// The program and its arguments
    #[arg(last = true, requires = "launch")]
    pub argv: Vec<String>,
}

/// Serves a coordinator on standard input and output.
///
/// # Errors
/// If the program to launch cannot be started.
pub fn run(args: Args, _: &Global) -> Result<Exit, CliError> {
    if args.launch {
        let error = crate::run::worker::launch(&args.argv, args.gently);
        let program = args.argv.first().map_or("", String::as_str);
        return Err(CliError::new(format!("start `{program}`"), error));
    }
    if crate::run::worker::serve() == ExitCode::SUCCESS { Ok(Exit::Done) } else { Ok(Exit::Error) }
}
