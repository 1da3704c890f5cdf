//! Results in the formats of other programs: Optuna's journal file, written and read.
//!
//! The format is the one that `optuna.storages.JournalStorage` of Optuna 3 to 5 keeps in a `JournalFileBackend`: one
//! JSON object a line, each an operation on studies and trials. What a journal does not say is said in the user
//! attributes of its study and trials.

mod journal;
mod optuna;
mod replay;

pub use journal::{is_export, journal};
pub use optuna::{METRIC_NAMES, OptunaState, OptunaStudy, OptunaTrial, parameter};
pub use replay::{JournalError, replay};
