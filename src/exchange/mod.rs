//! Results in the formats of other programs: tables, JSON lines, and Optuna's journal file, written and read.
//!
//! The format of the latter is the one that `optuna.storages.JournalStorage` of Optuna 3 to 5 keeps in a `JournalFileBackend`: one
//! JSON object a line, each an operation on studies and trials. What a journal does not say is said in the user
//! attributes of its study and trials.

mod journal;
mod lines;
mod optuna;
mod replay;
mod trials;

pub use journal::{is_export, journal};
pub use lines::json_lines;
pub use optuna::{METRIC_NAMES, OptunaState, OptunaStudy, OptunaTrial, parameter};
pub use replay::{JournalError, replay};
pub use trials::{trials_csv, trials_parquet};
