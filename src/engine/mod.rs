//! What happens next in a study: pure, without I/O, clock, threads or candle.
//!
//! One reducer ([`Engine::apply`], in `state`) serves live runs, resumption, replay and reports.

mod event;

pub use event::{EpochReport, Event, FailureClass, FileRef, Outcome, StopCurve, WorkOrder};
