//! Where a worker finds itself: its machine, device and threads, what its results depend on there, and how long it may stay.

use super::protocol::Elsewhere;
use crate::digest::Digest;
use crate::engine::Greeting;
use crate::fsx;
use crate::runner::command::ended_within;
use crate::runner::{DeviceSlot, device};
use crate::spec::{Device, RunnerSpec, StudySpec};
use std::io::Read;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// What a worker on another machine computes with: `slot`, but for device and threads as they are here.
pub(super) fn settle(slot: DeviceSlot, elsewhere: &Elsewhere, spec: &StudySpec) -> Result<DeviceSlot, String> {
    if !slot.study_dir.is_dir() {
        return Err(format!(
            "{} does not see the study's folder {}\nhint: the folder of `--state` must be on a file system that all machines share, \
             under the same name",
            fsx::host(),
            slot.study_dir.display()
        ));
    }
    let devices = match &spec.runner {
        RunnerSpec::Image { .. } => device::resolve(&elsewhere.devices).map_err(|e| e.to_string())?,
        _ => elsewhere.devices.each(),
    };
    let device = devices.get(elsewhere.turn % devices.len().max(1)).copied().unwrap_or(Device::Cpu);
    let given = || std::env::var("SLURM_CPUS_PER_TASK").ok()?.parse().ok();
    let cores = || std::thread::available_parallelism().map_or(1, usize::from);
    let threads = elsewhere.threads.map(|t| t as usize).or_else(given).unwrap_or_else(cores).max(1);
    Ok(DeviceSlot { device, threads, ..slot })
}

/// Who this process is.
pub(super) fn greeting(spec: &StudySpec, device: Device) -> Greeting {
    let said = |name: &str| std::env::var(name).ok().filter(|text| !text.is_empty());
    let step = |id: String| match said("SLURM_STEP_ID") {
        Some(step) => format!("{id}.{step}"),
        None => id,
    };
    Greeting {
        // Slurm's name of the machine is the one that people know.
        host: said("SLURMD_NODENAME").unwrap_or_else(fsx::host),
        job: said("SLURM_JOB_ID").map(step),
        program: program(),
        arithmetic: match &spec.runner {
            RunnerSpec::Image { .. } => Some(device::arithmetic(spec, device)),
            _ => None,
        },
    }
}

/// The digest of this process's program; empty where it cannot be read.
pub(super) fn program() -> String {
    static PROGRAM: OnceLock<String> = OnceLock::new();
    let digest = || {
        // The link of the process still works after the file was replaced.
        let path = if cfg!(target_os = "linux") { Ok("/proc/self/exe".into()) } else { std::env::current_exe() };
        path.and_then(|path| Digest::of_file(&path)).map_or_else(|_| String::new(), |digest| digest.to_string())
    };
    PROGRAM.get_or_init(digest).clone()
}

/// When the batch system will end this process, if it says so.
pub(super) fn end_of_time() -> Option<Instant> {
    let id = std::env::var("SLURM_JOB_ID").ok()?;
    if let Some(end) = std::env::var("SLURM_JOB_END_TIME").ok().and_then(|end| end.parse::<u64>().ok()) {
        let left = (end * 1000).saturating_sub(crate::clock::unix_ms());
        return Some(Instant::now() + Duration::from_millis(left));
    }
    // Slurm before 23.02 does not set it.
    let text = ask_slurm("squeue", &["--noheader", "--format=%L", "--jobs", &id])?;
    Some(Instant::now() + time_left(text.trim())?)
}

/// What a program of Slurm's answers, if it does within a few seconds.
pub(super) fn ask_slurm(program: &str, arguments: &[&str]) -> Option<String> {
    const PATIENCE: Duration = Duration::from_secs(5);
    let mut ask = Command::new(program);
    let mut child =
        ask.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().ok()?;
    if ended_within(&mut child, PATIENCE).is_none() {
        let _ = child.kill();
        let _ = child.wait();
        return None;
    }
    // A line or two, which the pipe has held.
    let mut said = String::new();
    child.stdout.take()?.read_to_string(&mut said).ok()?;
    Some(said)
}

/// A time as Slurm writes it, `[days-]hours:minutes:seconds` or less; `None` where there is no end (`UNLIMITED`).
fn time_left(text: &str) -> Option<Duration> {
    let (days, rest) = text.split_once('-').map_or(Some((0, text)), |(days, rest)| Some((days.parse().ok()?, rest)))?;
    let parts: Vec<u64> = rest.split(':').map(|part| part.parse().ok()).collect::<Option<_>>()?;
    let seconds = parts.iter().fold(0, |sum, part| sum * 60 + part);
    Some(Duration::from_secs(days * 86_400 + seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_slurm_are_read() {
        let seconds = |text| time_left(text).map(|time| time.as_secs());
        assert_eq!(seconds("1-02:03:04"), Some(93_784));
        assert_eq!(seconds("8:00:00"), Some(28_800));
        assert_eq!(seconds("4:05"), Some(245));
        assert_eq!(["UNLIMITED", "NOT_SET", "INVALID", ""].map(seconds), [None; 4]);
    }
}
