//! `hpsearch gc`: deletes what no trial needs.

use super::args::{Global, complain};
use super::exit::{CliError, Exit};
use super::run::open_error;
use crate::data::features::FeatureCache;
use crate::study::{Remains, Study, Swept};
use crate::wording::{bytes, counted};
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

/// Tidies one study, or all of the state folder.
///
/// # Errors
/// If a study cannot be opened, for example because it is running.
pub fn run(args: Args, global: &Global) -> Result<Exit, CliError> {
    let one = args.study.is_some();
    let names = match args.study {
        Some(study) => vec![global.find_study(Some(&study))?],
        // A server may have the studies of others, whose files are elsewhere.
        None => global.studies()?.into_iter().filter(|name| global.study_dir(name).is_dir()).collect(),
    };
    let mut out = std::io::stdout().lock();
    let mut exit = Exit::Done;
    for name in names {
        match tidy(&name, global, &mut out) {
            // Of all studies, one that runs or whose files are elsewhere is told and left alone.
            Err(error) if !one && !error.is_broken_pipe() => {
                complain(&error.render(global.color()));
                exit = error.code();
            }
            tidied => tidied?,
        }
    }
    if global.cache_dir().is_dir() {
        let limit = args.features.then_some(0);
        let collected = FeatureCache::open(&global.cache_dir(), limit).and_then(|cache| {
            let collected = cache.collect(false)?;
            Ok((collected.shelves.len(), collected.bytes, cache.stats()?))
        });
        let (sets, bytes, kept) = collected.map_err(|e| CliError::new("tidy the cached features", e))?;
        let (kept_sets, kept_bytes) = (kept.shelves.len(), kept.bytes());
        if global.json {
            let kept = serde_json::json!({ "feature_sets": kept_sets, "bytes": kept_bytes });
            writeln!(out, "{}", serde_json::json!({ "feature_sets": sets, "bytes": bytes, "kept": kept }))?;
        } else if !global.quiet {
            let (gone, kept) = (amount(sets, "set", bytes), amount(kept_sets, "set", kept_bytes));
            writeln!(out, "cached features: {gone} deleted, {kept} kept")?;
        }
    }
    Ok(exit)
}

fn tidy(name: &str, global: &Global, out: &mut impl Write) -> Result<(), CliError> {
    let mut study =
        Study::open_existing_in(&*global.backend()?, &global.state, name).map_err(|e| open_error(name, e))?;
    let swept = study.tidy().map_err(|e| CliError::new(format!("tidy study `{name}`"), e))?;
    report(out, name, swept, study.remains(), global)
}

fn report(out: &mut impl Write, name: &str, swept: Swept, kept: Remains, global: &Global) -> Result<(), CliError> {
    if global.json {
        let json = serde_json::json!({ "study": name, "files": swept.files, "bytes": swept.bytes, "kept": kept });
        writeln!(out, "{json}")?;
    } else if !global.quiet {
        let (gone, kept) = (amount(swept.files, "file", swept.bytes), amount(kept.files, "file", kept.bytes));
        writeln!(out, "study {name}: {gone} deleted, {kept} kept")?;
    }
    Ok(())
}

fn amount(n: impl TryInto<u64>, noun: &str, size: u64) -> String {
    format!("{} ({})", counted(n, noun), bytes(size))
}
