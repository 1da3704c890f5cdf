//! A run: one coordinator that decides and writes, and worker processes that train.
//!
//! The coordinator is a client of [`Study`](crate::study::Study) like any other. Workers are processes of the same
//! binary ([`Processes`]), on other machines too ([`Cluster`]), or whatever else a [`Launcher`] starts: an out-of-memory kill, a hang or garbage output
//! costs one attempt at one order. They exchange JSON lines with the coordinator ([`protocol`]) and end when their
//! input is closed.

mod cluster;
mod coordinator;
mod faults;
mod limits;
mod link;
mod notify;
mod options;
mod place;
mod processes;
mod progress;
pub mod protocol;
mod signals;
mod slot;
#[cfg(test)]
mod tests;
pub mod worker;

pub use cluster::{Cluster, shell_word};
pub use coordinator::{run, run_with};
pub use link::{Death, Launcher, Link, Mailbox};
pub use notify::{Notice, Notifier, NotifyError};
pub use options::{Elsewhere, RunError, RunOptions, Verdict};
pub use processes::Processes;
pub use progress::{Observer, Progress, Standing};
pub use signals::Termination;
