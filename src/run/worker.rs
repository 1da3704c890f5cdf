//! The worker process: reads orders, trains, reports. It has no database.

use super::place;
use super::protocol::{self, Failure, Reply, Request};
use crate::crash::{self, Point};
use crate::engine::{EpochReport, FailureClass, WorkOrder};
use crate::runner::command::{CommandRunner, GRACE};
use crate::runner::image::ImageRunner;
use crate::runner::synthetic::SyntheticRunner;
use crate::runner::{Continue, DeviceSlot, EpochSink, Materials, Phase, SinkClosed, Start, TrialError, TrialRunner};
use crate::spec::{Device, RunnerSpec, StudySpec};
use std::io::{BufRead, Stdout};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

/// How often a worker says that it is alive.
pub const BEAT: Duration = Duration::from_secs(2);

/// The least time between two messages about progress within an epoch.
const PROGRESS: Duration = Duration::from_millis(250);

/// How often a coordinator says to workers on other machines that it is alive.
pub const COORDINATOR_BEAT: Duration = Duration::from_secs(10);

/// How long such a worker waits for a word of it.
const COORDINATOR_SILENCE: Duration = Duration::from_secs(120);

/// How much later than the programs of its trial a worker may be signalled.
const SIGNALLED: Duration = Duration::from_millis(200);

/// How many milliseconds a runner may take to stop once the coordinator has gone, before the process exits: longer where it has
/// a program to end.
static ORPHANED: AtomicU64 = AtomicU64::new(2000);

/// Turns this process into a worker: serves the coordinator over standard input and output until the input is closed.
pub fn serve() -> ExitCode {
    die_with_parent(false);
    let out = Arc::new(Out(Mutex::new(std::io::stdout())));
    let interrupted = Arc::new(AtomicBool::new(false));
    let eviction = Arc::new(OnceLock::new());
    let (sender, requests) = channel();
    if let Err(error) = listen(sender.clone(), &interrupted, &eviction) {
        eprintln!("signals cannot be listened to: {error}");
        return ExitCode::FAILURE;
    }
    let reader = interrupted.clone();
    std::thread::spawn(move || read_requests(sender, &reader));

    let (version, spec, base, materials, slot, elsewhere) = match requests.recv() {
        Ok(Some(Request::Hello { version, spec, base, materials, slot, elsewhere })) => {
            (version, spec, base, materials, slot, elsewhere)
        }
        _ => {
            if let Some(reason) = eviction.get().cloned() {
                out.send(&Reply::Leaving { reason });
            }
            return ExitCode::FAILURE;
        }
    };
    if version != protocol::VERSION {
        eprintln!(
            "this hpsearch speaks version {} to its run, the run speaks {version}: they must be the same",
            protocol::VERSION
        );
        return ExitCode::FAILURE;
    }
    if matches!(spec.runner, RunnerSpec::Command(_)) {
        ORPHANED.store((GRACE + Duration::from_secs(1)).as_millis() as u64, Ordering::Relaxed);
    }
    let beat = out.clone();
    std::thread::spawn(move || {
        while beat.send(&Reply::Beat) {
            std::thread::sleep(BEAT);
        }
    });
    let is_elsewhere = elsewhere.is_some();
    if is_elsewhere {
        std::thread::spawn(end_without_coordinator);
    }
    let settled = match elsewhere {
        Some(elsewhere) => place::settle(slot, &elsewhere, &spec),
        None => Ok(slot),
    };
    let slot = match settled {
        Ok(slot) => slot,
        Err(reason) => {
            eprintln!("{reason}");
            return ExitCode::FAILURE;
        }
    };
    let Some(mut runner) = runner(&spec, &base, materials) else { return ExitCode::FAILURE };
    let greeting = place::greeting(&spec, slot.device);
    let end_of_time = if is_elsewhere { place::end_of_time() } else { None };
    if !out.send(&Reply::Ready { version: protocol::VERSION, greeting }) {
        return ExitCode::FAILURE;
    }
    let mut stay = Stay { end: end_of_time, epoch: None };
    loop {
        let order = match requests.recv() {
            Ok(Some(Request::Run { order, start })) => Some((order, start)),
            Ok(Some(_)) => continue,
            Ok(None) if eviction.get().is_some() => None,
            Ok(None) | Err(_) => break,
        };
        // The last epoch tells how long the next one takes.
        let order = order.filter(|_| !stay.is_over(&eviction));
        let mut failure = order.and_then(|(order, start)| {
            let mut sink = PipeSink {
                out: &out,
                requests: &requests,
                interrupted: &interrupted,
                eviction: &eviction,
                stay: &mut stay,
                epoch_began: Instant::now(),
                last_progress: Instant::now(),
            };
            attempt(runner.as_mut(), &order, &start, &slot, &mut sink)
        });
        if is_elsewhere && failure.as_ref().is_some_and(|(failure, _)| may_be_eviction(failure.class)) {
            // A batch system may signal the programs of a trial with their worker, or before it.
            std::thread::sleep(SIGNALLED);
            failure = failure.filter(|_| eviction.get().is_none());
        }
        if let (None, Some(reason)) = (&failure, eviction.get().cloned()) {
            out.send(&Reply::Leaving { reason });
            break;
        }
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

/// Replaces this process by the program of `argv` (`exec`), set to die with its parent; `gently`: of SIGTERM, so that it can
/// end what it has begun elsewhere. Returns only on failure.
pub fn launch(argv: &[String], gently: bool) -> std::io::Error {
    use std::os::unix::process::CommandExt;
    die_with_parent(gently);
    match argv {
        [] => std::io::Error::from(std::io::ErrorKind::InvalidInput),
        [program, arguments @ ..] => std::process::Command::new(program).args(arguments).exec(),
    }
}

/// Makes this process die with its parent, even while it is stuck: the kernel does so on Linux; elsewhere a worker only
/// ends when its standard input is closed.
fn die_with_parent(gently: bool) {
    #[cfg(target_os = "linux")]
    {
        use rustix::process::Signal;
        let parent = rustix::process::getppid();
        let signal = if gently { Signal::TERM } else { Signal::KILL };
        let _ = rustix::process::set_parent_process_death_signal(Some(signal));
        // The parent may have died before that call.
        if rustix::process::getppid() != parent {
            std::process::exit(1);
        }
    }
}

/// The runner of a study; `None` where no worker trains (the coordinator does not start one then).
fn runner(spec: &StudySpec, base: &Path, materials: Materials) -> Option<Box<dyn TrialRunner>> {
    Some(match &spec.runner {
        RunnerSpec::Image { .. } => Box::new(ImageRunner::new(spec, base).expecting(materials)),
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
        Ok(Err(TrialError { class, reason, of_place })) => Some((Failure { class, reason, of_place }, false)),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
            let reason = format!("the trial panicked: {text}");
            Some((Failure { class: FailureClass::Crashed, reason, of_place: false }, true))
        }
    }
}

/// Whether a trial that failed so may have been ended by a signal to all of its worker's processes.
fn may_be_eviction(class: FailureClass) -> bool {
    matches!(class, FailureClass::Crashed | FailureClass::Lost)
}

/// When the coordinator was last heard, in milliseconds since this process looked first: no clock that can be set.
static HEARD: AtomicU64 = AtomicU64::new(0);

fn milliseconds() -> u64 {
    static BEGAN: OnceLock<Instant> = OnceLock::new();
    BEGAN.get_or_init(Instant::now).elapsed().as_millis() as u64
}

/// Ends this process once its coordinator, on another machine, has not been heard for long: if that machine has failed, nothing
/// closes the input.
fn end_without_coordinator() {
    loop {
        std::thread::sleep(COORDINATOR_BEAT);
        let silent = milliseconds().saturating_sub(HEARD.load(Ordering::Relaxed));
        if silent > COORDINATOR_SILENCE.as_millis() as u64 {
            eprintln!("the run has not been heard for {} s", silent / 1000);
            std::process::exit(1);
        }
    }
}

/// How long this process may stay where it is.
struct Stay {
    end: Option<Instant>,
    /// How long the last epoch took.
    epoch: Option<Duration>,
}

impl Stay {
    /// Whether so little time is left that the next epoch would be cut off, as long as it takes what the last one took. If so,
    /// `eviction` says it.
    fn is_over(&self, eviction: &OnceLock<String>) -> bool {
        let (Some(end), Some(took)) = (self.end, self.epoch) else { return false };
        let left = end.saturating_duration_since(Instant::now());
        if left > took.mul_f64(1.2) {
            return false;
        }
        let (left, took) = (left.as_secs(), took.as_secs_f64());
        eviction.get_or_init(|| format!("{left} s are left to it, and an epoch takes {took:.0} s"));
        true
    }
}

/// From now on, SIGTERM, SIGUSR1 and SIGUSR2, by which batch systems announce that a process must go, stop training at its next
/// batch and make the worker leave. `requests` is told by `None`.
fn listen(
    requests: Sender<Option<Request>>,
    interrupted: &Arc<AtomicBool>,
    eviction: &Arc<OnceLock<String>>,
) -> std::io::Result<()> {
    use signal_hook::consts::{SIGTERM, SIGUSR1, SIGUSR2};
    let mut signals = signal_hook::iterator::Signals::new([SIGTERM, SIGUSR1, SIGUSR2])?;
    let (interrupted, eviction) = (interrupted.clone(), eviction.clone());
    std::thread::spawn(move || {
        for signal in &mut signals {
            let name = match signal {
                SIGTERM => "SIGTERM",
                SIGUSR1 => "SIGUSR1",
                _ => "SIGUSR2",
            };
            eviction.get_or_init(|| format!("it was told to end by {name}"));
            interrupted.store(true, Ordering::Relaxed);
            let _ = requests.send(None);
        }
    });
    Ok(())
}

fn read_requests(sender: Sender<Option<Request>>, interrupted: &AtomicBool) {
    for line in std::io::stdin().lock().lines() {
        let Ok(line) = line else { break };
        HEARD.store(milliseconds(), Ordering::Relaxed);
        let request = match serde_json::from_str(&line) {
            Ok(request) => request,
            Err(error) => {
                eprintln!("this hpsearch does not understand its run, which may be of another version: {error}");
                break;
            }
        };
        if request == Request::Beat {
            continue;
        }
        if request == Request::Stop {
            interrupted.store(true, Ordering::Relaxed);
        } else if sender.send(Some(request)).is_err() {
            break;
        }
    }
    interrupted.store(true, Ordering::Relaxed);
    let _ = sender.send(None); // ends the wait for an order, or for the answer to an epoch
    std::thread::sleep(Duration::from_millis(ORPHANED.load(Ordering::Relaxed)));
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
    /// `None`: the process is to end, or has lost its coordinator.
    requests: &'a Receiver<Option<Request>>,
    interrupted: &'a AtomicBool,
    /// Why the process is to end.
    eviction: &'a OnceLock<String>,
    stay: &'a mut Stay,
    epoch_began: Instant,
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
                Ok(Some(Request::Recorded { go })) => {
                    crash::at(Point::EpochAcknowledged);
                    self.stay.epoch = Some(self.epoch_began.elapsed());
                    self.epoch_began = Instant::now();
                    let go = go && !self.interrupted() && !self.stay.is_over(self.eviction);
                    return Ok(if go { Continue::Go } else { Continue::Stop });
                }
                // Told to end while it waits: the answer still comes.
                Ok(None) if self.eviction.get().is_some() => {}
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => return Err(SinkClosed),
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
