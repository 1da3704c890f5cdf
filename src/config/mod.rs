//! Study files: TOML in, a validated [`StudySpec`] or every mistake with its place out.

mod cluster;
mod compiled;
mod diagnostics;
mod fit;
mod image;
mod notify;
mod reader;
pub mod schema;
mod search;
mod space;
mod study;
mod units;
mod warnings;
mod write;

pub use diagnostics::Diagnostics;

use crate::spec::StudySpec;
use crate::wording::counted;
use reader::{Log, Place};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// A valid study file.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The study it describes.
    pub spec: StudySpec,
    /// The folder against which its relative paths are resolved.
    pub base: PathBuf,
    /// What is allowed but unwise.
    pub warnings: Diagnostics,
}

/// Reads a study file and the search-space file it names.
///
/// # Errors
/// Every mistake of both, each with its place; [`Diagnostics::unreadable`] if a file cannot be read at all.
pub fn load(path: &Path) -> Result<Loaded, Diagnostics> {
    let shown = path.display().to_string();
    match std::fs::read(path) {
        Ok(bytes) => match String::from_utf8(bytes) {
            Ok(text) => parse(&shown, text, path),
            Err(error) => {
                let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
                let line = valid.iter().filter(|&&byte| byte == b'\n').count() + 1;
                let title = format!("the file is not UTF-8 text (line {line})");
                Err(failed(shown, title, "save it as UTF-8: text editors ask for the encoding in \"Save as\"", false))
            }
        },
        Err(error) => {
            let title = format!("cannot read the study file: {error}");
            let help = match error.kind() {
                ErrorKind::NotFound => "is the path right? A relative path starts at the working directory",
                ErrorKind::IsADirectory => "name the file in it: a study file is a TOML file",
                _ => "is it a TOML file that you may read?",
            };
            Err(failed(shown, title, help, true))
        }
    }
}

/// Reads a study from the text of a study file: for programs that embed theirs. Its relative paths start at the working
/// directory; without a `name` it is called `study`.
///
/// # Errors
/// As [`load`].
pub fn from_text(text: &str) -> Result<Loaded, Diagnostics> {
    parse("the study's text", text.to_owned(), Path::new("study.toml"))
}

fn failed(path: String, title: String, help: &str, unreadable: bool) -> Diagnostics {
    let log = Log::default();
    let file = log.file(path, String::new());
    log.error(&Place { file, span: None }, title, "").help(help);
    log.unreadable.set(unreadable);
    finish(log)
}

/// Compiles the text of a study file. `path` need not exist; its folder is searched for the search-space file.
fn parse(shown: &str, text: String, path: &Path) -> Result<Loaded, Diagnostics> {
    let log = Log::default();
    let base = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        _ => PathBuf::from("."),
    };
    let spec = study::compile(&log, shown, &text, path, &base);
    let errors = log.errors();
    let found = finish(log);
    match spec {
        Some(spec) if errors == 0 => Ok(Loaded { spec, base, warnings: found }),
        _ => Err(found),
    }
}

fn finish(log: Log) -> Diagnostics {
    Diagnostics {
        files: log.files.into_inner(),
        mistakes: log.mistakes.into_inner(),
        unreadable: log.unreadable.into_inner(),
    }
}

impl Loaded {
    /// One line about the study: name, trials, what is searched and how.
    pub fn summary(&self) -> String {
        let spec = &self.spec;
        let searched = spec.space.searched().count();
        let trials = spec.budget.n_trials.map_or_else(|| String::from("all trials"), |n| counted(n, "trial"));
        format!(
            "study {}: {trials} of {} over {}, sampler {}, scheduler {}, {} {}",
            spec.name,
            counted(spec.runner.epochs(), "epoch"),
            counted(searched, "parameter"),
            spec.sampler.into_str(),
            spec.scheduler.into_str(),
            spec.objective.direction,
            spec.objective.metric,
        )
    }
}
