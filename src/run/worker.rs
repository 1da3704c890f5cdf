//! The worker process: reads orders, trains, reports. It has no database.

use super::protocol::{self, Failure, Reply, Request};
use crate::crash::{self, Point};
use crate::engine::{EpochReport, FailureClass, WorkOrder};
use crate::runner::command::CommandRunner;
use crate::runner::image::ImageRunner;
use crate::runner::synthetic::SyntheticRunner;
use crate::runner::{Continue, DeviceSlot, EpochSink, Phase, SinkClosed, Start, TrialError, TrialRunner};
use crate::spec::{Device, RunnerSpec, StudySpec};
use std::io::{BufRead, Stdout};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// How often a worker says that it is alive.
pub const BEAT: Duration = Duration::from_secs(2);

/// How often progress within an epoch is told at most.
const PROGRESS: Duration = Duration::from_millis(250);

/// How long an interrupted runner may take to notice, once the coordinator has gone.
const ORPHANED: Duration = Duration::from_secs(2);

/// Makes a worker of this process: serves the coordinator at the other end of standard input and output until that
/// goes away.
pub fn serve() -> ExitCode {
    die_with_parent();
    let out = Arc::new(Out(Mutex::new(std::io::stdout())));
    let interrupted = Arc::new(AtomicBool::new(false));
    let (sender, requests) = channel();
    let reader = interrupted.clone();
    std::thread::spawn(move || read_requests(sender, &reader));

    let Ok(Request::Hello { version, spec, base, slot }) = requests.recv() else { return ExitCode::FAILURE };
    if version != protocol::VERSION {
        return ExitCode::FAILURE;
    }
    let Some(mut runner) = runner(&spec, &base) else { return ExitCode::FAILURE };
    if !out.send(&Reply::Ready { version: protocol::VERSION }) {
        return ExitCode::FAILURE;
    }
    let beat = out.clone();
    std::thread::spawn(move || {
        while beat.send(&Reply::Beat) {
            std::thread::sleep(BEAT);
        }
    });
    while let Ok(request) = requests.recv() {
        let Request::Run { order, start } = request else { continue };
        let mut sink = PipeSink { out: &out, requests: &requests, interrupted: &interrupted, told: Instant::now() };
        let failure = attempt(runner.as_mut(), &order, &start, &slot, &mut sink);
        let leaving =
            failure.as_ref().is_some_and(|(failure, panicked)| *panicked || unfit(failure.class, slot.device));
        let failure = failure.map(|(failure, _)| failure);
        if !out.send(&Reply::Ended { failure, leaving }) || leaving {
            break;
        }
    }
    ExitCode::SUCCESS
}

/// Whether a process is not worth keeping after such a failure, so that the next attempt gets a new one: for want of
/// memory, and on a GPU after whatever may have come from there, since a broken context stays broken.
fn unfit(class: FailureClass, device: Device) -> bool {
    match class {
        FailureClass::Oom => true,
        FailureClass::Diverged | FailureClass::BadInput => false,
        FailureClass::Timeout | FailureClass::Crashed | FailureClass::Lost => matches!(device, Device::Cuda(_)),
    }
}

/// Becomes the program of `argv`, such that it dies with its parent. Returns only on failure.
pub fn launch(argv: &[String]) -> std::io::Error {
    use std::os::unix::process::CommandExt;
    die_with_parent();
    match argv {
        [] => std::io::Error::from(std::io::ErrorKind::InvalidInput),
        [program, arguments @ ..] => std::process::Command::new(program).args(arguments).exec(),
    }
}

/// A worker must not outlive its coordinator, not even when both are stuck: the kernel sees to it on Linux; elsewhere
/// the end of standard input does.
fn die_with_parent() {
    #[cfg(target_os = "linux")]
    {
        let parent = rustix::process::getppid();
        let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL));
        // It may have died before the wish was spoken.
        if rustix::process::getppid() != parent {
            std::process::exit(1);
        }
    }
}

/// The runner of a study; `None` where no worker trains (the coordinator does not start one then).
fn runner(spec: &StudySpec, base: &Path) -> Option<Box<dyn TrialRunner>> {
    Some(match &spec.runner {
        RunnerSpec::Image { .. } => Box::new(ImageRunner::new(spec, base)),
        RunnerSpec::Synthetic { .. } => Box::new(SyntheticRunner::new(spec)),
        RunnerSpec::Command(command) => Box::new(CommandRunner::new(spec, command, base, std::env::current_exe().ok())),
        RunnerSpec::External { .. } => return None,
    })
}

/// One attempt; the flag says whether it ended in a panic.
fn attempt(
    runner: &mut dyn TrialRunner,
    order: &WorkOrder,
    start: &Start,
    slot: &DeviceSlot,
    sink: &mut PipeSink<'_>,
) -> Option<(Failure, bool)> {
    let result = catch_unwind(AssertUnwindSafe(|| runner.run(order, start, slot, sink)));
    match result {
        Ok(Ok(())) => None,
        Ok(Err(TrialError { class, reason, disk_full })) => Some((Failure { class, reason, disk_full }, false)),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
            let reason = format!("the trial panicked: {text}");
            Some((Failure { class: FailureClass::Crashed, reason, disk_full: false }, true))
        }
    }
}

fn read_requests(sender: Sender<Request>, interrupted: &AtomicBool) {
    for line in std::io::stdin().lock().lines() {
        let Ok(request) = line.map_err(drop).and_then(|line| serde_json::from_str(&line).map_err(drop)) else { break };
        if request == Request::Stop {
            interrupted.store(true, Ordering::Relaxed);
        } else if sender.send(request).is_err() {
            break;
        }
    }
    interrupted.store(true, Ordering::Relaxed);
    drop(sender); // who waits for an order, or for the word on an epoch, waits no longer
    std::thread::sleep(ORPHANED);
    std::process::exit(1);
}

/// Standard output, for whole lines.
struct Out(Mutex<Stdout>);

impl Out {
    /// `false` when nobody listens any more.
    fn send(&self, reply: &Reply) -> bool {
        self.0.lock().is_ok_and(|mut out| protocol::send(&mut *out, reply).is_ok())
    }
}

struct PipeSink<'a> {
    out: &'a Out,
    requests: &'a Receiver<Request>,
    interrupted: &'a AtomicBool,
    told: Instant,
}

impl EpochSink for PipeSink<'_> {
    fn epoch(&mut self, mut report: EpochReport) -> Result<Continue, SinkClosed> {
        // JSON has no NaN; undefined says the same.
        report.value = report.value.filter(|v| v.is_finite());
        report.train_loss = report.train_loss.filter(|v| v.is_finite());
        report.metrics.retain(|_, v| v.is_finite());
        if !self.out.send(&Reply::Epoch { report }) {
            return Err(SinkClosed);
        }
        loop {
            match self.requests.recv() {
                Ok(Request::Recorded { go }) => {
                    crash::at(Point::EpochAcknowledged);
                    let go = go && !self.interrupted();
                    return Ok(if go { Continue::Go } else { Continue::Stop });
                }
                Ok(_) => {}
                Err(_) => return Err(SinkClosed),
            }
        }
    }

    fn progress(&mut self, phase: Phase, done: u64, total: u64) {
        if done >= total || self.told.elapsed() >= PROGRESS {
            self.told = Instant::now();
            self.out.send(&Reply::Progress { phase, done, total });
        }
    }

    fn warn(&mut self, message: &str) {
        self.out.send(&Reply::Warning { text: message.to_owned() });
    }

    fn interrupted(&self) -> bool {
        self.interrupted.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_leaves_after_what_may_have_broken_its_gpu_or_filled_its_memory() {
        use FailureClass::{BadInput, Crashed, Diverged, Lost, Oom};
        assert_eq!(
            [Oom, Crashed, Lost, Diverged, BadInput].map(|c| unfit(c, Device::Cpu)),
            [true, false, false, false, false]
        );
        assert_eq!(
            [Oom, Crashed, Lost, Diverged, BadInput].map(|c| unfit(c, Device::Cuda(1))),
            [true, true, true, false, false]
        );
    }
}
