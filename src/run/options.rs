//! Options of a run, how it ends, and why it may fail.

use super::progress::Standing;
use crate::engine::DoneReason;
use crate::runner::DeviceSlot;
use crate::spec::Device;
use crate::study::{Study, StudyError};
use std::path::PathBuf;
use std::time::Duration;

/// Options of a run. No decision depends on them; rounding differs between devices.
#[derive(Clone, Debug)]
pub struct RunOptions {
    /// The program with the subcommand `worker`: this one.
    pub program: PathBuf,
    /// The folder of the study file: relative paths of the study start there.
    pub base: PathBuf,
    /// The folder of caches that studies share.
    pub cache_dir: PathBuf,
    /// Worker processes, at least 1.
    pub workers: u32,
    /// Threads of each; `None`: the cores divided by the workers.
    pub threads: Option<u32>,
    /// The devices to which workers are assigned in turn; at least one.
    pub devices: Vec<Device>,
    /// A worker that sends nothing for this long, not even a heartbeat, is ended.
    pub silence: Duration,
    /// How long workers may take to stop when asked to.
    pub patience: Duration,
}

impl RunOptions {
    /// The usual [`RunOptions::silence`].
    pub const SILENCE: Duration = Duration::from_secs(60);
    /// The usual [`RunOptions::patience`].
    pub const PATIENCE: Duration = Duration::from_secs(4);

    /// Names of the devices, for people.
    pub(super) fn device_names(&self) -> String {
        self.devices.iter().map(Device::to_string).collect::<Vec<_>>().join(", ")
    }

    pub(super) fn slot(&self, worker: u32, study: &Study) -> DeviceSlot {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = self.threads.map_or(cores / self.workers.max(1) as usize, |t| t as usize).max(1);
        DeviceSlot {
            device: device_of(&self.devices, worker),
            threads,
            study_dir: study.dir().to_owned(),
            cache_dir: self.cache_dir.clone(),
            worker,
        }
    }
}

/// The device of one worker: devices are assigned in turn.
fn device_of(devices: &[Device], worker: u32) -> Device {
    devices.get(worker as usize % devices.len().max(1)).copied().unwrap_or(Device::Cpu)
}

/// Why a run ends in an error.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The study cannot go on.
    #[error(transparent)]
    Study(#[from] StudyError),
    /// Its trials are trained by another program.
    #[error(
        "train the trials of a study whose runner is `external`\nhint: the program that uses hpsearch as a library trains them; start that"
    )]
    External,
    /// There is no room for a checkpoint; what is on record stays, and the same study goes on later.
    #[error(
        "go on: the disk is full\n{reason}\nhint: free some space and run it again: it goes on from the last checkpoints"
    )]
    DiskFull { reason: String },
    /// No worker can be started.
    #[error("start a worker")]
    Launch(#[source] std::io::Error),
    /// Workers end before they begin.
    #[error("start workers: {tries} in a row ended before they were ready; {reason}")]
    FailedStarts { tries: u32, reason: String },
    /// Signal handlers cannot be installed.
    #[error("listen for signals")]
    Signals(#[source] std::io::Error),
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Verdict {
    /// Why nothing was left to do; `None`: a signal or the wall time ended it.
    pub done: Option<DoneReason>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// The wall time of the study's budget is spent.
    pub out_of_time: bool,
    /// The best trial.
    pub best: Option<Standing>,
    /// Seconds of this run.
    pub seconds: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_take_turns_on_several_devices() {
        use Device::{Cpu, Cuda};
        let devices = |devices: &[Device]| [0, 1, 2].map(|worker| device_of(devices, worker));
        assert_eq!(devices(&[Cuda(0), Cuda(2)]), [Cuda(0), Cuda(2), Cuda(0)]);
        assert_eq!(devices(&[Cuda(1)]), [Cuda(1); 3]);
        assert_eq!(devices(&[Cpu]), [Cpu; 3]);
    }
}
