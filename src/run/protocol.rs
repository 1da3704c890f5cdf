//! Messages between coordinator and worker: one JSON object per line.

use crate::engine::{EpochReport, FailureClass, Greeting, WorkOrder};
use crate::runner::{DeviceSlot, Materials, Phase, Start};
use crate::spec::{Devices, StudySpec};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Both sides must have the same version: they are the same binary, unless someone replaced it during a run.
pub const VERSION: u32 = 5;

/// The longest line in bytes; longer ones are invalid.
pub const MAX_LINE: usize = 4 << 20;

/// Messages to the worker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(clippy::large_enum_variant)] // a few a second
pub enum Request {
    /// The first message: the study, what its trials are made of, and where to compute. `elsewhere`: the worker is on another
    /// machine, and finds its device and threads itself.
    Hello {
        version: u32,
        spec: StudySpec,
        base: PathBuf,
        materials: Materials,
        slot: DeviceSlot,
        elsewhere: Option<Elsewhere>,
    },
    /// Train this.
    Run { order: WorkOrder, start: Start },
    /// The epoch is on record; `go`: train the next one.
    Recorded { go: bool },
    /// The coordinator lives.
    Beat,
    /// Drop the running epoch and answer [`Reply::Ended`].
    Stop,
}

/// What a worker on another machine looks for there.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Elsewhere {
    /// The devices that it may use; it takes one by `turn`.
    pub devices: Devices,
    /// How many workers were assigned to its machine before it, where that is known.
    pub turn: usize,
    /// Threads; `None`: as many as the batch system gives, or the machine has.
    pub threads: Option<u32>,
}

/// Messages from the worker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(clippy::large_enum_variant)] // a few a second
pub enum Reply {
    /// It has accepted the study and awaits orders.
    Ready { version: u32, greeting: Greeting },
    /// An epoch is done and durable.
    Epoch { report: EpochReport },
    /// Progress within a phase of an epoch.
    Progress { phase: Phase, done: u64, total: u64 },
    /// A warning for the user.
    Warning { text: String },
    /// Heartbeat.
    Beat,
    /// The process exits, as its machine is wanted for other things or its time is up; its order is to be given to another.
    Leaving { reason: String },
    /// The order's training is over; `failure`: why it failed. `leaving`: the process exits, as it is not fit for
    /// another order.
    Ended { failure: Option<Failure>, leaving: bool },
}

/// Why an attempt failed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Failure {
    pub class: FailureClass,
    pub reason: String,
    /// It is the fault of the place ([`crate::runner::TrialError::of_place`]): the order stays open.
    pub of_place: bool,
}

/// Writes one message.
pub fn send(out: &mut dyn std::io::Write, message: &impl Serialize) -> std::io::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    out.write_all(&line)?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::conformance;

    #[test]
    fn messages_survive_the_pipe_in_one_line_each() {
        let hello = Request::Hello {
            version: VERSION,
            spec: conformance::study("line\nbreak"),
            base: PathBuf::from("a b"),
            materials: Materials::default(),
            slot: DeviceSlot {
                device: crate::spec::Device::Cuda(1),
                threads: 1,
                study_dir: PathBuf::from("s"),
                cache_dir: PathBuf::from("c"),
                worker: 3,
            },
            elsewhere: Some(Elsewhere { devices: Devices::Auto, turn: 1, threads: None }),
        };
        let run = Request::Run { order: conformance::order(1), start: Start::default() };
        for message in [hello, run, Request::Recorded { go: true }, Request::Stop] {
            let mut line = Vec::new();
            send(&mut line, &message).unwrap();
            assert_eq!(line.iter().filter(|&&b| b == b'\n').count(), 1);
            assert_eq!(serde_json::from_slice::<Request>(&line).unwrap(), message);
        }
        let reply = Reply::Epoch { report: conformance::report(0, 1, None) };
        let text = serde_json::to_string(&reply).unwrap();
        assert_eq!(serde_json::from_str::<Reply>(&text).unwrap(), reply);
    }
}
