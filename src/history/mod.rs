//! The history of a study as rows: the only place besides the engine that interprets events.
//!
//! [`History`] drives the engine and says after every event which rows have changed. A database writes these rows as
//! they are, [`Tables`] holds them in memory, and reports read them; nothing else derives states from events. Trials
//! are ordered by their [`Place`](crate::ledger::Place) everywhere.

mod fold;
mod row;
mod tables;

pub use fold::History;
pub use row::{
    AttemptEnd, AttemptRow, ConfigurationRow, EarlierRow, EnqueuedRow, EpochRow, FailureRow, FileKind, FileRow,
    OrderRow, OutcomeKind, Row, TrialRow, WorkerRow,
};
pub use tables::Tables;
