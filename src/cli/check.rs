//! `hpsearch check`: every mistake of a study file.

use super::args::Global;
use super::exit::{CliError, Exit};
use crate::config::Loaded;
use crate::engine::WarmStart;
use crate::study;
use std::io::Write;
use std::path::PathBuf;

/// Check a study file: every mistake at once, with its place
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The study file
    pub study: PathBuf,
    /// Treat warnings as mistakes
    #[arg(long)]
    pub strict: bool,
}

/// Prints one line about a valid study, with warnings on standard error.
///
/// # Errors
/// With every mistake of the file.
pub fn run(args: Args, global: &Global) -> Result<Exit, CliError> {
    let loaded = global.load(&args.study)?;
    let warm = warm_starts(&loaded, global)?;
    let mut out = std::io::stdout().lock();
    if global.json {
        let warnings: Vec<_> = loaded.warnings.to_json();
        let json = serde_json::json!({ "study": loaded.spec.name, "warnings": warnings, "warm_start": warm, "spec": loaded.spec });
        writeln!(out, "{json}")?;
    } else {
        writeln!(out, "{}: {}", args.study.display(), loaded.summary())?;
        for warm in &warm {
            writeln!(out, "  {}", warm.to_string().replace('\n', "\n  "))?;
        }
    }
    Ok(if args.strict && !loaded.warnings.is_empty() { Exit::Usage } else { Exit::Done })
}

/// The results of earlier studies from which the sampler will start (`warm_start`).
///
/// # Errors
/// If an earlier study is missing or cannot be used.
pub fn warm_starts(loaded: &Loaded, global: &Global) -> Result<Vec<WarmStart>, CliError> {
    study::warm_starts(&global.state, &loaded.base, &loaded.spec).map_err(|e| {
        let exit = super::run::warm_start_exit(&e);
        CliError::new(format!("begin study `{}`", loaded.spec.name), e).exit(exit)
    })
}
