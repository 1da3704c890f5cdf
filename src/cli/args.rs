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
    /// A PostgreSQL database that keeps the studies, instead of the state folder: postgresql://USER@HOST:PORT/DATABASE
    // Without its value in the help: a password may be in it.
    #[arg(long, global = true, value_name = "URL", env = "HPSEARCH_DATABASE", hide_env_values = true)]
    pub database: Option<String>,
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

    /// `--state DIR ` and `--database URL `, as a shell reads them, for a command that is shown to people; empty for the usual
    /// folder. The address itself may have a password in it, and is left out.
    pub fn state_flag(&self) -> String {
        let mut flags = String::new();
        if self.state != Path::new(STATE) {
            flags += &format!("--state {} ", shell_word(&self.state.display().to_string()));
        }
        if self.server().is_some() && std::env::var("HPSEARCH_DATABASE").ok() != self.database {
            flags += "--database URL ";
        }
        flags
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

    /// Loads a study file and shows its warnings on standard error; its mistakes on standard output for programs.
    ///
    /// # Errors
    /// With every mistake of the file; exit code 2 (6 if it cannot be read).
    pub fn load(&self, study: &Path) -> Result<Loaded, CliError> {
        let loaded = match config::load(study) {
            Ok(loaded) => loaded,
            Err(mistakes) => {
                if self.json {
                    writeln!(std::io::stdout(), "{}", serde_json::json!({ "mistakes": mistakes.to_json() }))?;
                }
                return Err(CliError::study_file(mistakes));
            }
        };
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
        let backend = self.backend()?;
        let known = backend.names().map_err(|e| CliError::store("find the study", e))?;
        match study {
            Some(text) if text.ends_with(".toml") => Ok(self.load(Path::new(text))?.spec.name),
            Some(name) if known.iter().any(|k| k == name) => Ok(name.to_owned()),
            Some(name) => {
                // Says so if another kind of store has it.
                backend.exists(name).map_err(|e| CliError::store("find the study", e))?;
                let (name, place) = (name.to_owned(), self.place());
                let unknown = NoStudy::Unknown { name, place, known: known.join(", ") };
                Err(CliError::new("find the study", unknown).exit(Exit::Usage))
            }
            None => match known.as_slice() {
                [only] => Ok(only.clone()),
                [] => Err(CliError::new("find the study", NoStudy::None { place: self.place() }).exit(Exit::Usage)),
                _ => {
                    let several = NoStudy::Several { place: self.place(), known: known.join(", ") };
                    Err(CliError::new("find the study", several).exit(Exit::Usage))
                }
            },
        }
    }

    /// Names of the studies, in order.
    ///
    /// # Errors
    /// As [`Global::backend`].
    pub fn studies(&self) -> Result<Vec<String>, CliError> {
        self.backend()?.names().map_err(|e| CliError::store("list the studies", e))
    }

    /// The store of the studies: the state folder, or a server.
    ///
    /// # Errors
    /// If the server's address makes no sense, or this program knows no such servers.
    pub fn backend(&self) -> Result<Box<dyn Backend>, CliError> {
        self.backend_in(&self.state)
    }

    /// [`Global::backend`] with another name of the state folder.
    ///
    /// # Errors
    /// As [`Global::backend`].
    pub fn backend_in(&self, state: &Path) -> Result<Box<dyn Backend>, CliError> {
        match self.server() {
            Some(address) => store::in_server(address, state).map_err(|e| CliError::store("use `--database`", e)),
            None => Ok(store::in_folder(state)),
        }
    }

    /// The address of the server that keeps the studies, if one does.
    pub fn server(&self) -> Option<&str> {
        self.database.as_deref().filter(|address| !address.is_empty())
    }

    /// Where the studies are, for people.
    fn place(&self) -> String {
        if self.server().is_some() {
            return "the database".to_owned();
        }
        self.state.display().to_string()
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
    #[error("there is no study `{name}` in {place}\nhint: {}", known_or(known))]
    Unknown { name: String, place: String, known: String },
    #[error(
        "there is no study in {place}\nhint: run one with `hpsearch run STUDY.toml`, or say where it is with --state or --database"
    )]
    None { place: String },
    #[error("{place} holds several studies: {known}\nhint: name one of them")]
    Several { place: String, known: String },
}

fn known_or(known: &str) -> String {
    if known.is_empty() {
        String::from("it holds no study; a study file ends in .toml")
    } else {
        format!("it holds {known}")
    }
}
