//! `hpsearch check`: every mistake of a study file.

use super::args::Global;
use super::exit::{CliError, Exit};
use crate::config::Loaded;
use crate::data::{Survey, survey};
use crate::engine::WarmStart;
use crate::spec::{RunnerSpec, WeightSource};
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

/// Prints one line about a valid study, with warnings on standard error, what the headers of its images say, and what is
/// missing beside the file.
///
/// # Errors
/// With every mistake of the file, or if images that are there cannot be listed.
pub fn run(args: Args, global: &Global) -> Result<Exit, CliError> {
    let loaded = global.load(&args.study)?;
    let warm = warm_starts(&loaded, global)?;
    let mut images = images(&loaded)?;
    if let Some(remark) = missing_weights(&loaded) {
        images.get_or_insert_default().remarks.push(remark);
    }
    let mut out = std::io::stdout().lock();
    if global.json {
        let warnings: Vec<_> = loaded.warnings.to_json();
        let json = serde_json::json!({ "study": loaded.spec.name, "warnings": warnings, "warm_start": warm, "images": images, "spec": loaded.spec });
        writeln!(out, "{json}")?;
    } else {
        writeln!(out, "{}: {}", args.study.display(), loaded.summary())?;
        for warm in &warm {
            writeln!(out, "  {}", warm.to_string().replace('\n', "\n  "))?;
        }
        for line in images.iter().flat_map(Survey::lines) {
            writeln!(out, "  {line}")?;
        }
        for remark in images.iter().flat_map(|images| &images.remarks) {
            writeln!(out, "warning: {remark}")?;
        }
    }
    let warned = !loaded.warnings.is_empty() || images.is_some_and(|images| !images.remarks.is_empty());
    Ok(if args.strict && warned { Exit::Usage } else { Exit::Done })
}

/// What the headers of the study's images say, and what a run would stumble over; `None` without files of images.
fn images(loaded: &Loaded) -> Result<Option<Survey>, CliError> {
    let RunnerSpec::Image { data, .. } = &loaded.spec.runner else { return Ok(None) };
    survey(data, &loaded.base).map_err(|e| CliError::new("list the images", e).exit(Exit::Missing))
}

/// A remark if the study takes its weights from a file that is not there.
fn missing_weights(loaded: &Loaded) -> Option<String> {
    let RunnerSpec::Image { network, .. } = &loaded.spec.runner else { return None };
    let WeightSource::File(path) = &network.weights else { return None };
    let path = loaded.base.join(path);
    (!path.exists()).then(|| format!("the weights `{}` are not there", path.display()))
}

/// The results of earlier studies from which the sampler will start (`warm_start`).
///
/// # Errors
/// If an earlier study is missing or cannot be used.
pub fn warm_starts(loaded: &Loaded, global: &Global) -> Result<Vec<WarmStart>, CliError> {
    study::warm_starts(&*global.backend()?, &loaded.base, &loaded.spec).map_err(|e| {
        let exit = super::run::warm_start_exit(&e);
        CliError::new(format!("begin study `{}`", loaded.spec.name), e).exit(exit)
    })
}
