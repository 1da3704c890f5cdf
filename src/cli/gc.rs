//! `hpsearch gc`: deletes what no trial needs.

use super::args::Global;
use super::exit::{CliError, Exit};
use super::run::open_error;
use crate::data::features::FeatureCache;
use crate::study::{Study, Swept};
use std::io::Write;

/// Delete checkpoints, predictions and unfinished files that nothing needs
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// A study file or the name of a study; left out: all studies of the state folder
    pub study: Option<String>,
    /// Delete all cached features as well; they are computed again when they are needed
    #[arg(long)]
    pub features: bool,
}

/// Tidies one study, or all.
///
/// # Errors
/// If a study cannot be opened: while it runs, for one.
pub fn run(args: Args, global: &Global) -> Result<Exit, CliError> {
    let names = match args.study {
        Some(study) => vec![global.find_study(Some(&study))?],
        None => global.studies(),
    };
    let mut out = std::io::stdout().lock();
    for name in names {
        let mut study = Study::open_existing(&global.state, &name).map_err(|e| open_error(&name, e))?;
        let swept = study.tidy().map_err(|e| CliError::new(format!("tidy study `{name}`"), e))?;
        report(&mut out, &name, swept, global)?;
    }
    if global.cache_dir().is_dir() {
        let limit = args.features.then_some(0);
        let collected = FeatureCache::open(&global.cache_dir(), limit).and_then(|cache| cache.collect(false));
        let collected = collected.map_err(|e| CliError::new("tidy the cached features", e))?;
        let (sets, bytes) = (collected.shelves.len(), collected.bytes);
        if global.json {
            writeln!(out, "{}", serde_json::json!({ "feature_sets": sets, "bytes": bytes }))?;
        } else if !global.quiet {
            writeln!(out, "cached features: {sets} sets deleted, {:.1} MB", bytes as f64 / 1e6)?;
        }
    }
    Ok(Exit::Done)
}

fn report(out: &mut impl Write, name: &str, swept: Swept, global: &Global) -> Result<(), CliError> {
    if global.json {
        let json = serde_json::json!({ "study": name, "files": swept.files, "bytes": swept.bytes });
        writeln!(out, "{json}")?;
    } else if !global.quiet {
        writeln!(out, "study {name}: {} files deleted, {:.1} MB", swept.files, swept.bytes as f64 / 1e6)?;
    }
    Ok(())
}
