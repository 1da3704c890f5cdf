//! A run: one coordinator that decides and writes, and worker processes that train.
//!
//! The coordinator is a client of [`Study`](crate::study::Study) like any other. Workers are processes of the same
//! binary: an out-of-memory kill, a hang or garbage costs one attempt of one order. They speak JSON lines over
//! pipes ([`protocol`]) and end when their pipe does.

mod coordinator;
mod faults;
mod limits;
mod options;
mod pool;
mod progress;
pub mod protocol;
mod signals;
pub mod worker;

pub use coordinator::run;
pub use options::{RunError, RunOptions, Verdict};
pub use progress::{Observer, Progress, Standing};
