//! Options of a run, how it ends, and why it may fail.

use super::progress::Standing;
use super::protocol::{self, Request};
use crate::engine::DoneReason;
use crate::runner::DeviceSlot;
use crate::runner::command::GRACE;
use crate::spec::{ClusterKind, ClusterSpec, Device, Devices, RunnerSpec};
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
    /// `Some`: workers run on other machines.
    pub elsewhere: Option<Elsewhere>,
    /// A worker that sends nothing for this long, not even a heartbeat, is ended.
    pub silence: Duration,
    /// How long workers may take to stop when asked to.
    pub patience: Duration,
}

/// What is different where workers run on other machines: they find devices and threads themselves, may wait in a queue
/// before they start, and come and go.
#[derive(Clone, Debug)]
pub struct Elsewhere {
    /// How they are started.
    pub cluster: ClusterSpec,
    /// The devices that they look for.
    pub devices: Devices,
    /// How long a place rests after its worker ended before it was ready, or left without an epoch; doubled each time.
    pub rest: Duration,
    /// How long a worker may be idle before it is dismissed.
    pub idle: Duration,
}

impl Elsewhere {
    /// The longest that a place rests.
    const LONGEST_REST: Duration = Duration::from_secs(300);

    /// With the usual times.
    pub fn new(cluster: ClusterSpec, devices: Devices) -> Self {
        Self { cluster, devices, rest: Duration::from_secs(5), idle: Duration::from_secs(120) }
    }

    /// How long a place rests after so many failures in a row.
    pub(super) fn rest_after(&self, failures: u32) -> Duration {
        self.rest.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(Self::LONGEST_REST.max(self.rest))
    }
}

impl RunOptions {
    /// The usual [`RunOptions::silence`].
    pub const SILENCE: Duration = Duration::from_secs(60);
    /// The same for workers on other machines.
    pub const SILENCE_ELSEWHERE: Duration = Duration::from_secs(30);
    /// The usual [`RunOptions::patience`].
    pub const PATIENCE: Duration = Duration::from_secs(4);

    /// The usual [`RunOptions::patience`] with trials of a kind: programs may take their time to save what they have.
    pub fn patience_with(runner: &RunnerSpec) -> Duration {
        if matches!(runner, RunnerSpec::Command(_)) { GRACE + Self::PATIENCE } else { Self::PATIENCE }
    }

    /// Names of the devices, for people.
    pub(super) fn device_names(&self) -> String {
        if let Some(elsewhere) = &self.elsewhere {
            return format!("{} through {}", elsewhere.devices, elsewhere.cluster.kind);
        }
        self.devices.iter().map(Device::to_string).collect::<Vec<_>>().join(", ")
    }

    /// The first message to a worker.
    pub(super) fn hello(&self, worker: u32, study: &Study) -> Result<Request, StudyError> {
        let elsewhere = self.elsewhere.as_ref().map(|elsewhere| protocol::Elsewhere {
            devices: elsewhere.devices.clone(),
            turn: match elsewhere.cluster.kind {
                ClusterKind::Slurm => 0, // it shows each worker its own devices
                ClusterKind::Ssh => worker as usize / elsewhere.cluster.hosts.len().max(1),
                ClusterKind::Command => worker as usize,
            },
            threads: self.threads,
        });
        Ok(Request::Hello {
            version: protocol::VERSION,
            spec: study.spec().clone(),
            base: self.base.clone(),
            materials: study.materials()?,
            slot: self.slot(worker, study),
            elsewhere,
        })
    }

    fn slot(&self, worker: u32, study: &Study) -> DeviceSlot {
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
    /// A disk is full or broken; what is on record stays, and the same study goes on later.
    #[error(
        "go on: this disk cannot be used\n{reason}\nhint: free some space, or mend it, and run it again: it goes on from the last checkpoints"
    )]
    Disk { reason: String },
    /// Images or weights are gone, or are others than those on record; what is on record stays.
    #[error("go on here\n{reason}\nhint: with the images and weights of before, the same command goes on")]
    Missing { reason: String },
    /// No worker can be started.
    #[error("start a worker")]
    Launch(#[source] std::io::Error),
    /// Workers end before they begin.
    #[error("start workers: {tries} in a row ended before they were ready\n{reason}")]
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
