//! The history of a study as rows: the one place, beside the engine, where events are folded into what people see.
//!
//! [`History`] drives the engine and says after every event which rows have changed. A database writes these rows as they
//! are, [`Tables`] holds them in memory, reports read them: nobody else derives from events who stands where. The order of
//! trials is [`Place`](crate::ledger::Place)'s, everywhere.

mod fold;
mod row;
mod tables;

pub use fold::History;
pub use row::{
    AttemptEnd, AttemptRow, ConfigurationRow, EarlierRow, EnqueuedRow, EpochRow, FailureRow, FileKind, FileRow,
    OrderRow, OutcomeKind, Row, TrialRow,
};
pub use tables::Tables;
