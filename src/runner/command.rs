//! Any program as a trial. The protocol, for people who write such programs, is in `docs/command-runner.md`.
//!
//! The program gets its parameters as one JSON object on standard input, as environment variables and in its
//! arguments, and prints a JSON line per epoch. It keeps what it needs to resume in a folder of its trial. It runs in
//! a process group of its own, so that nothing it has started outlives it when it is stopped.

mod lines;

use super::{Continue, DeviceSlot, EpochSink, Start, TrialError, TrialRunner};
use crate::engine::{FailureClass, WorkOrder};
use crate::fsx;
use crate::ids::{Epoch, TrialNumber};
use crate::spec::{CommandSpec, Direction, StudySpec};
use lines::{Line, Tail};
use rustix::process::{Pid, Signal, kill_process_group};
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The folder, in the study's folder, that holds one folder per trial.
pub const FOLDERS: &str = "commands";

/// How long a program may take to end once asked to, or after it has reported its last epoch.
pub(crate) const GRACE: Duration = Duration::from_secs(10);

/// The runner of studies whose trials are commands.
#[derive(Clone, Debug)]
pub struct CommandRunner {
    spec: CommandSpec,
    seed: u64,
    study: String,
    direction: Direction,
    metric: String,
    base: PathBuf,
    launcher: Option<PathBuf>,
}

impl CommandRunner {
    /// The runner of a study whose trials are `command`. `base`: the folder of the study file.
    ///
    /// `launcher`: a program that, called with `worker --launch -- ARGV...`, executes that command so that it dies with
    /// this process (`hpsearch` does); `None`: the command is started directly.
    pub fn new(study: &StudySpec, command: &CommandSpec, base: &Path, launcher: Option<PathBuf>) -> Self {
        Self {
            spec: command.clone(),
            seed: study.seed,
            study: study.name.clone(),
            direction: study.objective.direction,
            metric: study.objective.metric.to_string(),
            base: base.to_owned(),
            launcher,
        }
    }

    fn spawn(&self, order: &WorkOrder, start: &Start, slot: &DeviceSlot, dir: &Path) -> Result<Child, TrialError> {
        let fields = Fields { runner: self, order, start, dir };
        let mut argv = Vec::with_capacity(self.spec.argv.len());
        for argument in &self.spec.argv {
            let filled = CommandSpec::fill(argument, |name| fields.value(name));
            argv.push(filled.map_err(|e| bad_input(e.to_string()))?);
        }
        let Some(program) = argv.first() else {
            return Err(bad_input("start the program: `command` is empty".to_owned()));
        };
        let mut command = match &self.launcher {
            Some(launcher) => {
                let mut command = Command::new(launcher);
                command.args(["worker", "--launch", "--"]).args(&argv);
                command
            }
            None => {
                let mut command = Command::new(program);
                command.args(&argv[1..]);
                command
            }
        };
        let directory = self.base.join(self.spec.directory.as_deref().unwrap_or(Path::new("")));
        command.current_dir(if directory.as_os_str().is_empty() { Path::new(".") } else { &directory });
        command
            .env("HPSEARCH_STUDY", &self.study)
            .env("HPSEARCH_TRIAL", order.trial.to_string())
            .env("HPSEARCH_FROM", start.epoch.to_string())
            .env("HPSEARCH_TO", order.to.to_string())
            .env("HPSEARCH_EPOCHS", self.spec.epochs.to_string())
            .env("HPSEARCH_DIR", dir)
            .env("HPSEARCH_SEED", self.seed.to_string())
            .env("HPSEARCH_DEVICE", slot.device.to_string())
            .env("HPSEARCH_THREADS", slot.threads.to_string())
            .env("HPSEARCH_WORKER", slot.worker.to_string())
            .env("HPSEARCH_PARAMS", serde_json::to_string(&order.params).unwrap_or_default());
        if std::env::var_os("PYTHONUNBUFFERED").is_none() {
            // Python buffers its output to a pipe: no epoch would be seen until the buffer is full or the program ends.
            command.env("PYTHONUNBUFFERED", "1");
        }
        for (name, value) in &order.params.0 {
            command.env(variable(name), value.to_string());
        }
        command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().map_err(|e| {
            bad_input(format!(
                "start `{program}`: {e}\nhint: it is looked for on the PATH, or relative to the study file"
            ))
        })
    }

    fn input(&self, order: &WorkOrder, start: &Start, slot: &DeviceSlot, dir: &Path) -> String {
        let direction = match self.direction {
            Direction::Maximize => "maximize",
            Direction::Minimize => "minimize",
        };
        let json = serde_json::json!({
            "study": self.study, "seed": self.seed, "metric": self.metric, "direction": direction,
            "trial": order.trial, "params": order.params, "from": start.epoch, "to": order.to,
            "epochs": self.spec.epochs, "dir": dir.to_string_lossy(), "device": slot.device.to_string(), "threads": slot.threads,
        });
        format!("{json}\n")
    }
}

impl TrialRunner for CommandRunner {
    fn run(
        &mut self,
        order: &WorkOrder,
        start: &Start,
        slot: &DeviceSlot,
        sink: &mut dyn EpochSink,
    ) -> Result<(), TrialError> {
        let study_dir = std::path::absolute(&slot.study_dir).unwrap_or_else(|_| slot.study_dir.clone());
        let dir = study_dir.join(folder(order.trial));
        let log = study_dir.join(format!("logs/trial-{:05}.log", order.trial.0));
        for folder in [Some(dir.as_path()), log.parent()].into_iter().flatten() {
            std::fs::create_dir_all(folder).map_err(|e| unwritable(format!("make `{}`: {e}", folder.display()), &e))?;
        }
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&log)
            .map_err(|e| unwritable(format!("open the log `{}`: {e}", log.display()), &e))?;
        let mut child = self.spawn(order, start, slot, &dir)?;
        if let Some(mut stdin) = child.stdin.take() {
            // Errors are ignored: a program need not read its input.
            let _ = stdin.write_all(self.input(order, start, slot, &dir).as_bytes());
        }
        let mut running = Running::new(child, log, &self.metric);
        let result = running.follow(order, start, sink);
        running.end(result)
    }
}

/// The folder of a trial, relative to the study's folder: there the program keeps what it needs to resume.
pub fn folder(trial: TrialNumber) -> String {
    format!("{FOLDERS}/{:05}", trial.0)
}

/// The values of placeholders in arguments.
struct Fields<'a> {
    runner: &'a CommandRunner,
    order: &'a WorkOrder,
    start: &'a Start,
    dir: &'a Path,
}

impl Fields<'_> {
    fn value(&self, name: &str) -> Option<String> {
        Some(match name {
            "trial" => self.order.trial.to_string(),
            "from" => self.start.epoch.to_string(),
            "to" => self.order.to.to_string(),
            "dir" => self.dir.display().to_string(),
            "seed" => self.runner.seed.to_string(),
            "epochs" => self.runner.spec.epochs.to_string(),
            _ => self.order.params.get(name)?.to_string(),
        })
    }
}

/// `HPSEARCH_PARAM_LEARNING_RATE` for `learning_rate`.
fn variable(parameter: &str) -> String {
    let upper = parameter.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' });
    "HPSEARCH_PARAM_".chars().chain(upper).collect()
}

/// A started program, with its readers.
struct Running {
    child: Child,
    output: Receiver<Line>,
    tail: Arc<Mutex<Tail>>,
    readers: Vec<JoinHandle<()>>,
    /// It was asked to end, so its exit status says nothing.
    dismissed: bool,
}

impl Running {
    fn new(mut child: Child, log: File, metric: &str) -> Self {
        let (sender, output) = channel();
        let log = Arc::new(Mutex::new(log));
        let tail = Arc::new(Mutex::new(Tail::default()));
        let mut readers = Vec::new();
        if let Some(out) = child.stdout.take() {
            let (log, metric) = (log.clone(), metric.to_owned());
            readers.push(std::thread::spawn(move || read_output(out, &metric, &sender, &log)));
        }
        if let Some(err) = child.stderr.take() {
            let tail = tail.clone();
            readers.push(std::thread::spawn(move || read_errors(err, &tail, &log)));
        }
        Self { child, output, tail, readers, dismissed: false }
    }

    /// Passes epochs to `sink` until the last is reported, the sink asks to stop, or the program closes its output.
    fn follow(&mut self, order: &WorkOrder, start: &Start, sink: &mut dyn EpochSink) -> Result<(), TrialError> {
        let mut reached: Option<Epoch> = None;
        let mut since = Instant::now();
        while reached.is_none_or(|epoch| epoch < order.to) {
            let line = match self.output.recv_timeout(Duration::from_millis(50)) {
                Ok(line) => line,
                Err(RecvTimeoutError::Timeout) => {
                    if sink.interrupted() {
                        self.dismissed = true;
                        return Ok(());
                    }
                    continue;
                }
                Err(RecvTimeoutError::Disconnected) => {
                    let so_far = reached.unwrap_or(start.epoch);
                    return Err(crashed(format!("the program ended after epoch {so_far} of {}", order.to)));
                }
            };
            let mut report = match line {
                Line::Report(report) => *report,
                Line::Unreadable(why) => return Err(crashed(why)),
            };
            let epoch = report.epoch;
            let follows = match reached {
                Some(last) => epoch.0 == last.0 + 1,
                None => (1..=start.epoch.0 + 1).contains(&epoch.0),
            };
            if !follows {
                let expected = reached.map_or(start.epoch.0, |last| last.0) + 1;
                return Err(crashed(format!("the program reported epoch {epoch} where {expected} was to come")));
            }
            if report.seconds == 0.0 {
                report.seconds = since.elapsed().as_secs_f64();
            }
            since = Instant::now();
            reached = Some(epoch);
            if sink.epoch(report)? == Continue::Stop {
                self.dismissed = true;
                return Ok(());
            }
        }
        Ok(())
    }

    /// Waits for the program to end, kills what is left of its process group, and returns the result of the attempt.
    fn end(mut self, result: Result<(), TrialError>) -> Result<(), TrialError> {
        if self.dismissed || result.is_err() {
            self.signal(Signal::TERM);
        }
        let status = ended_within(&mut self.child, GRACE);
        // Also ends what the program has started.
        self.signal(Signal::KILL);
        let killed = status.is_none();
        let status = status.or_else(|| self.child.wait().ok());
        for reader in self.readers {
            let _ = reader.join();
        }
        let tail = self.tail.lock().map(|tail| tail.text()).unwrap_or_default();
        let explain =
            |reason: String| if tail.is_empty() { reason } else { format!("{reason}; its last words: {tail}") };
        match (result, status) {
            (Ok(()), _) if self.dismissed => Ok(()),
            // It reported its last epoch but did not end in time: its results count.
            (Ok(()), _) if killed => Ok(()),
            (Ok(()), Some(status)) if status.success() => Ok(()),
            (Ok(()), status) => Err(ended(status, &explain)),
            (Err(error), Some(status))
                if error.class == FailureClass::Crashed && !killed && !status.success() && !ended_by_us(status) =>
            {
                Err(ended(Some(status), &explain))
            }
            (Err(error), _) => Err(TrialError { reason: explain(error.reason), ..error }),
        }
    }

    fn signal(&self, signal: Signal) {
        if let Some(group) = Pid::from_raw(self.child.id().cast_signed()) {
            let _ = kill_process_group(group, signal);
        }
    }
}

fn ended_by_us(status: ExitStatus) -> bool {
    status.signal() == Some(Signal::TERM.as_raw())
}

fn ended(status: Option<ExitStatus>, explain: &dyn Fn(String) -> String) -> TrialError {
    let what = match status {
        Some(status) => match (status.code(), status.signal()) {
            // Signal 9 that we did not send is nearly always the kernel's out-of-memory killer.
            (_, Some(9)) => {
                let reason = explain("the program was killed by signal 9 (out of memory?)".to_owned());
                return TrialError::new(FailureClass::Oom, reason);
            }
            (Some(code), _) => format!("the program ended with code {code}"),
            (None, Some(signal)) => format!("the program was ended by signal {signal}"),
            (None, None) => "the program ended abnormally".to_owned(),
        },
        None => "the program could not be waited for".to_owned(),
    };
    crashed(explain(what))
}

fn read_output(out: impl Read, metric: &str, sender: &Sender<Line>, log: &Mutex<File>) {
    lines::each(&mut BufReader::new(out), &mut |text| match Line::parse(text, metric) {
        Some(line) => sender.send(line).is_ok(),
        None => {
            write_log(log, text);
            true
        }
    });
}

fn read_errors(err: impl Read, tail: &Mutex<Tail>, log: &Mutex<File>) {
    lines::each(&mut BufReader::new(err) as &mut dyn BufRead, &mut |text| {
        if let Ok(mut tail) = tail.lock() {
            tail.push(text);
        }
        write_log(log, text);
        true
    });
}

fn write_log(log: &Mutex<File>, text: &str) {
    if let Ok(mut log) = log.lock() {
        let _ = writeln!(log, "{text}");
    }
}

/// Something of the search's own cannot be written.
fn unwritable(reason: String, error: &std::io::Error) -> TrialError {
    TrialError { of_place: fsx::is_fault_of_disk(error), ..crashed(reason) }
}

fn crashed(reason: String) -> TrialError {
    TrialError::new(FailureClass::Crashed, reason)
}

fn bad_input(reason: String) -> TrialError {
    TrialError::new(FailureClass::BadInput, reason)
}

/// The status of a process, if it ends within `patience`.
pub fn ended_within(child: &mut Child, patience: Duration) -> Option<ExitStatus> {
    let until = Instant::now() + patience;
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Some(status),
            Ok(None) if Instant::now() < until => std::thread::sleep(Duration::from_millis(2)),
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests;
