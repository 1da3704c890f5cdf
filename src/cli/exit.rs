//! How the program ends: exit codes and the form of errors.

use crate::store::StoreError;
use crate::study::RecordError;
use std::error::Error;
use std::fmt;
use std::io;
use std::process::ExitCode;

/// Exit codes. Scripts rely on them: never renumber.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Done,
    /// Something failed.
    Error,
    /// Wrong usage, or a study file with mistakes.
    Usage,
    /// The budget is spent, with a valid best trial.
    BudgetSpent,
    /// No trial succeeded.
    NoSuccess,
    /// Another run holds the study.
    Locked,
    /// Data, weights or device are missing.
    Missing,
    /// Interrupted by Ctrl-C, after a clean checkpoint.
    Interrupted,
    /// Terminated by SIGTERM, after a clean checkpoint.
    Terminated,
}

impl Exit {
    /// The number the shell sees.
    pub const fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Error => 1,
            Self::Usage => 2,
            Self::BudgetSpent => 3,
            Self::NoSuccess => 4,
            Self::Locked => 5,
            Self::Missing => 6,
            Self::Interrupted => 130,
            Self::Terminated => 143,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// The exit code of a store's failure: a study that is missing or damaged counts as missing data.
pub fn store_exit(error: &StoreError) -> Exit {
    match error {
        StoreError::Locked { .. } | StoreError::TakenOver { .. } => Exit::Locked,
        StoreError::Address(_) | StoreError::Elsewhere { .. } | StoreError::NotBuilt => Exit::Usage,
        StoreError::Missing(_)
        | StoreError::Unreachable { .. }
        | StoreError::Denied { .. }
        | StoreError::NotAStudy(_)
        | StoreError::Newer { .. }
        | StoreError::HalfWritten { .. }
        | StoreError::Corrupt { .. }
        | StoreError::Codec { .. }
        | StoreError::UnknownEvent { .. }
        | StoreError::Inconsistent { .. } => Exit::Missing,
        _ => Exit::Error,
    }
}

/// A failed command: what was being done, why it failed, and the exit code.
#[derive(Debug)]
pub struct CliError {
    /// Fits after "failed to"; empty where `source` says everything by itself.
    doing: String,
    source: Box<dyn Error + Send + Sync>,
    exit: Exit,
}

impl CliError {
    /// A failure with exit code 1. `doing` fits after "failed to": `open the study`.
    pub fn new(doing: impl Into<String>, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { doing: doing.into(), source: source.into(), exit: Exit::Error }
    }

    /// A store's failure, with its exit code.
    pub fn store(doing: impl Into<String>, error: StoreError) -> Self {
        let exit = store_exit(&error);
        Self::new(doing, error).exit(exit)
    }

    /// A study that cannot be read for a report, with its exit code.
    pub fn record(doing: impl Into<String>, error: RecordError) -> Self {
        let exit = if let RecordError::Store(error) = &error { store_exit(error) } else { Exit::Error };
        Self::new(doing, error).exit(exit)
    }

    /// The same with another exit code.
    #[must_use]
    pub fn exit(mut self, exit: Exit) -> Self {
        self.exit = exit;
        self
    }

    /// Mistakes in a study file: shown as they are, exit code 2; one that cannot be read: 6.
    pub fn study_file(mistakes: crate::config::Diagnostics) -> Self {
        let exit = if mistakes.unreadable() { Exit::Missing } else { Exit::Usage };
        Self { doing: String::new(), source: Box::new(mistakes), exit }
    }

    /// The exit code.
    pub fn code(&self) -> Exit {
        self.exit
    }

    /// Whether the reader of our output closed it (`hpsearch status | head`), which is not reported as an error.
    pub fn is_broken_pipe(&self) -> bool {
        let mut cause: Option<&(dyn Error + 'static)> = Some(self.source.as_ref());
        while let Some(error) = cause {
            if error.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe) {
                return true;
            }
            cause = error.source();
        }
        false
    }

    /// The text for a person: `error: failed to ...`, the chain of causes, then hints.
    pub fn render(&self, color: bool) -> String {
        if let Some(mistakes) = self.source.downcast_ref::<crate::config::Diagnostics>() {
            return mistakes.render(color);
        }
        let (red, cyan, reset) = if color { ("\x1b[1;31m", "\x1b[1;36m", "\x1b[0m") } else { ("", "", "") };
        let mut hints = Vec::new();
        let mut advice = None;
        let mut text = format!("{red}error:{reset} failed to {}", self.doing);
        let mut cause: Option<&(dyn Error + 'static)> = Some(self.source.as_ref());
        let mut last = String::new();
        while let Some(error) = cause {
            let message = error.to_string();
            cause = error.source();
            let place = error.downcast_ref::<io::Error>().and_then(|e| match e.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                    Some("free some space, or choose another folder with --state or --out; nothing on record is lost")
                }
                io::ErrorKind::ReadOnlyFilesystem => Some("choose a folder that can be written with --state or --out"),
                _ => None,
            });
            advice = advice.or(place);
            let (hint, plain): (Vec<&str>, Vec<&str>) = message.lines().partition(|l| l.starts_with("hint: "));
            hints.extend(
                hint.into_iter()
                    .map(|h| h["hint: ".len()..].to_owned())
                    .filter(|h| !hints.contains(h))
                    .collect::<Vec<_>>(),
            );
            let plain = plain.join("\n");
            // Transparent wrappers repeat their source.
            if !plain.is_empty() && !last.contains(&plain) {
                for (n, line) in plain.lines().enumerate() {
                    let before = if n == 0 { "  because: " } else { "    " };
                    text.push_str(&format!("\n{before}{}", line.trim_start()));
                }
                last = plain;
            }
        }
        if let Some(advice) = advice.filter(|_| hints.is_empty()) {
            hints.push(advice.to_owned());
        }
        for hint in hints {
            text.push_str(&format!("\n{cyan}hint:{reset} {hint}"));
        }
        text.push('\n');
        text
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.doing.is_empty() { self.source.fmt(f) } else { write!(f, "failed to {}", self.doing) }
    }
}

impl Error for CliError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(self.source.as_ref())
    }
}

impl From<io::Error> for CliError {
    fn from(error: io::Error) -> Self {
        Self::new("write the output", error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("the database is held by process 7\nhint: wait for it, or end it")]
    struct Held(#[source] io::Error);

    #[test]
    fn an_error_shows_its_causes_and_its_hints_apart() {
        let error = CliError::new("open the study", Held(io::Error::other("no lock"))).exit(Exit::Locked);
        assert_eq!(
            error.render(false),
            "error: failed to open the study\n  because: the database is held by process 7\n  because: no lock\nhint: wait for it, or end it\n"
        );
        assert_eq!(error.code().code(), 5);
    }

    #[test]
    fn a_cause_of_several_lines_is_one_cause() {
        let error = CliError::new("go on", "its file has changed\n  seed: 1 -> 2\n  name: a -> b\nhint: rename it");
        assert_eq!(
            error.render(false),
            "error: failed to go on\n  because: its file has changed\n    seed: 1 -> 2\n    name: a -> b\nhint: rename it\n"
        );
    }

    #[test]
    fn output_closed_by_its_reader_is_recognised() {
        let gone = io::Error::from(io::ErrorKind::BrokenPipe);
        assert!(CliError::new("print", Held(gone)).is_broken_pipe());
        assert!(!CliError::new("print", Held(io::Error::other("x"))).is_broken_pipe());
    }
}
