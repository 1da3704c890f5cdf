//! `hpsearch report`: charts, tables and one page about a study.

use super::args::Global;
use super::exit::{CliError, Exit};
use crate::report;
use crate::study::{self, FINALISTS};
use std::io::Write;
use std::path::PathBuf;

/// Draw the report of a study: one page, charts as SVG and PNG, their numbers as CSV
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A study's name or its file; may be left out where the state folder holds one study
    study: Option<String>,
    /// Folder of the report [default: reports/STUDY]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// How many leading trials are compared by their predictions
    #[arg(long, value_name = "N", default_value_t = FINALISTS as u32, value_parser = clap::value_parser!(u32).range(1..=20))]
    finalists: u32,
}

/// Writes the report, also while the study is running.
///
/// # Errors
/// If the study cannot be found or read, or the report cannot be written.
pub fn run(args: Args, global: &Global) -> Result<Exit, CliError> {
    let name = global.find_study(args.study.as_deref())?;
    let doing = || format!("report on study `{name}`");
    let dir = global.study_dir(&name);
    let reader = global.backend()?.read(&name).map_err(|e| CliError::store(doing(), e))?;
    let mut record =
        study::record(&*reader, &dir, args.finalists as usize).map_err(|e| CliError::record(doing(), e))?;
    study::illustrate(&mut record, &*reader, &global.cache_dir()).map_err(|e| CliError::record(doing(), e))?;
    let out = args.out.unwrap_or_else(|| PathBuf::from("reports").join(&name));
    let written = report::write(&record, &out).map_err(|e| CliError::new(doing(), e))?;
    let mut stdout = std::io::stdout().lock();
    if global.json {
        let line = serde_json::json!({
            "report": written.index.display().to_string(), "charts": written.charts, "tables": written.tables,
            "trials": record.trials.len(),
        });
        writeln!(stdout, "{line}")?;
    } else if !global.quiet {
        writeln!(stdout, "{} ({} charts, {} tables)", written.index.display(), written.charts, written.tables)?;
    }
    Ok(Exit::Done)
}
