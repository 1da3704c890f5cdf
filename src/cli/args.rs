//! Flags that every verb shares, and how a verb finds its study.

use super::exit::{CliError, Exit};
use crate::config::{self, Loaded};
use crate::fsx;
use crate::run::shell_word;
use crate::runner::DeviceSlot;
use crate::spec::Device;
use crate::store::{self, Backend};
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};

/// The usual folder of `--state`.
const STATE: &str = ".hpsearch";

/// Flags of every verb.
#[derive(Clone, Debug, clap::Args)]
pub struct Global {
    /// Folder of databases, checkpoints and caches
    #[arg(long, global = true, value_name = "DIR", env = "HPSEARCH_STATE", default_value = STATE)]
    pub state: PathBuf,
    /// Machine-readable output: one JSON object per line
    #[arg(long, global = true)]
    pub json: bool,
    /// Print more; twice: even more
    #[arg(short, long, global = true, action = clap::ArgAction::Count, conflicts_with = "quiet")]
    pub verbose: u8,
    /// Print nothing but errors and the requested output
    #[arg(short, long, global = true)]
    pub quiet: bool,
}

impl Global {
    /// The folder of a study's database, checkpoints and predictions.
    pub fn study_dir(&self, name: &str) -> PathBuf {
        self.state.join(name)
    }

    /// `--state DIR `, as a shell reads it, for a command that is shown to people; empty for the usual folder.
    pub fn state_flag(&self) -> String {
        if self.state == Path::new(STATE) {
            return String::new();
        }
        format!("--state {} ", shell_word(&self.state.display().to_string()))
    }

    /// The folder of caches that studies share.
    pub fn cache_dir(&self) -> PathBuf {
        self.state.join("cache")
    }

    /// Where this process computes for a study whose folder is `study_dir`. Without `threads`: on all cores.
    pub fn slot(&self, device: Device, threads: Option<usize>, study_dir: &Path) -> DeviceSlot {
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        DeviceSlot {
            device,
            threads: threads.unwrap_or_else(cores),
            study_dir: study_dir.to_owned(),
            cache_dir: self.cache_dir(),
            worker: 0,
        }
    }

    /// Whether to colour standard error: it is a terminal, and the user did not refuse (`NO_COLOR`, no-color.org).
    pub fn color(&self) -> bool {
        colors(std::io::stderr().is_terminal())
    }

    /// Loads a study file and shows its warnings on standard error.
    ///
    /// # Errors
    /// With every mistake of the file; exit code 2 (6 if it cannot be read).
    pub fn load(&self, study: &Path) -> Result<Loaded, CliError> {
        let loaded = config::load(study).map_err(CliError::study_file)?;
        if !self.quiet && !loaded.warnings.is_empty() {
            complain(&loaded.warnings.render(self.color()));
        }
        Ok(loaded)
    }

    /// The study's name from an argument that is a study file, a study's name, or nothing where the state folder
    /// holds a single study.
    ///
    /// # Errors
    /// If there is no such study, or if several might be meant.
    pub fn find_study(&self, study: Option<&str>) -> Result<String, CliError> {
        let known = self.studies();
        match study {
            Some(text) if text.ends_with(".toml") => Ok(self.load(Path::new(text))?.spec.name),
            Some(name) if known.iter().any(|k| k == name) => Ok(name.to_owned()),
            Some(name) => Err(CliError::new(
                "find the study",
                NoStudy::Unknown { name: name.to_owned(), state: self.state.clone(), known: known.join(", ") },
            )
            .exit(Exit::Usage)),
            None => match known.as_slice() {
                [only] => Ok(only.clone()),
                [] => {
                    Err(CliError::new("find the study", NoStudy::None { state: self.state.clone() }).exit(Exit::Usage))
                }
                _ => Err(CliError::new(
                    "find the study",
                    NoStudy::Several { state: self.state.clone(), known: known.join(", ") },
                )
                .exit(Exit::Usage)),
            },
        }
    }

    /// Names of the studies in the state folder, in order.
    pub fn studies(&self) -> Vec<String> {
        self.backend().names()
    }

    /// The store of the state folder's studies.
    pub fn backend(&self) -> Box<dyn Backend> {
        store::in_folder(&self.state)
    }
}

/// Writes what was asked for to a file, whole or not at all, or to standard output if that is `-`.
///
/// # Errors
/// If it cannot be written.
pub fn put(file: &Path, bytes: &[u8]) -> Result<(), CliError> {
    if file == Path::new("-") {
        return Ok(std::io::stdout().lock().write_all(bytes)?);
    }
    fsx::write_atomic(file, bytes).map_err(|e| CliError::new(format!("write `{}`", file.display()), e))
}

/// Writes to standard error, ignoring failure: a closed stream must not end the program.
pub fn complain(text: &str) {
    let _ = std::io::stderr().write_all(text.as_bytes());
}

/// Whether to colour, given whether the output is a terminal.
pub fn colors(terminal: bool) -> bool {
    let set = |name: &str| std::env::var_os(name).is_some_and(|v| !v.is_empty());
    terminal && !set("NO_COLOR") && std::env::var_os("TERM").is_none_or(|t| t != "dumb")
}

/// Why a study could not be found.
#[derive(Debug, thiserror::Error)]
enum NoStudy {
    #[error("there is no study `{name}` in {}\nhint: {}", state.display(), known_or(known))]
    Unknown { name: String, state: PathBuf, known: String },
    #[error("there is no study in {}\nhint: run one with `hpsearch run STUDY.toml`, or name its folder with --state", state.display())]
    None { state: PathBuf },
    #[error("{} holds several studies: {known}\nhint: name one of them", state.display())]
    Several { state: PathBuf, known: String },
}

fn known_or(known: &str) -> String {
    if known.is_empty() {
        String::from("it holds no study; a study file ends in .toml")
    } else {
        format!("it holds {known}")
    }
}
