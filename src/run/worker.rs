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

/// The least time between two messages about progress within an epoch.
const PROGRESS: Duration = Duration::from_millis(250);

/// How long a runner may take to stop once the coordinator has gone, before the process exits.
const ORPHANED: Duration = Duration::from_secs(2);

/// Turns this process into a worker: serves the coordinator over standard input and output until the input is closed.
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
        let mut sink =
            PipeSink { out: &out, requests: &requests, interrupted: &interrupted, last_progress: Instant::now() };
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

/// Whether the process must be replaced after such a failure: after running out of memory, and on a GPU after any
/// failure that may have broken its context, since that stays broken.
fn unfit(class: FailureClass, device: Device) -> bool {
    match class {
        FailureClass::Oom => true,
        FailureClass::Diverged | FailureClass::BadInput => false,
        FailureClass::Timeout | FailureClass::Crashed | FailureClass::Lost => matches!(device, Device::Cuda(_)),
    }
}

/// Replaces this process by the program of `argv` (`exec`), set to die with its parent. Returns only on failure.
pub fn launch(argv: &[String]) -> std::io::Error {
    use std::os::unix::process::CommandExt;
    die_with_parent();
    match argv {
        [] => std::io::Error::from(std::io::ErrorKind::InvalidInput),
        [program, arguments @ ..] => std::process::Command::new(program).args(arguments).exec(),
    }
}

/// Makes this process die with its parent, even while it is stuck: the kernel does so on Linux; elsewhere a worker only
/// ends when its standard input is closed.
fn die_with_parent() {
    #[cfg(target_os = "linux")]
    {
        let parent = rustix::process::getppid();
        let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL));
        // The parent may have died before that call.
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

/// Runs one attempt. Returns its failure, if any, and whether that was a panic.
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
    drop(sender); // ends the wait for an order, or for the answer to an epoch
    std::thread::sleep(ORPHANED);
    std::process::exit(1);
}

/// Standard output, for whole lines.
struct Out(Mutex<Stdout>);

impl Out {
    /// Sends a message; `false` when the pipe is closed.
    fn send(&self, reply: &Reply) -> bool {
        self.0.lock().is_ok_and(|mut out| protocol::send(&mut *out, reply).is_ok())
    }
}

struct PipeSink<'a> {
    out: &'a Out,
    requests: &'a Receiver<Request>,
    interrupted: &'a AtomicBool,
    last_progress: Instant,
}

impl EpochSink for PipeSink<'_> {
    fn epoch(&mut self, mut report: EpochReport) -> Result<Continue, SinkClosed> {
        // JSON has no NaN: values that are not finite become undefined.
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
        if done >= total || self.last_progress.elapsed() >= PROGRESS {
            self.last_progress = Instant::now();
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
    fn a_worker_leaves_after_running_out_of_memory_or_breaking_its_gpu_context() {
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
