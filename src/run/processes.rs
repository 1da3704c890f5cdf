//! Workers as processes on this machine, and the processes that carry those on others.

use super::faults;
use super::link::{Death, Launcher, Link, Mailbox};
use super::protocol::{self, Request};
use crate::crash;
use crate::runner::command::ended_within;
use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// How many of a worker's last lines on standard error are quoted when it dies.
const LAST_LINES: usize = 6;

/// Starts worker processes.
#[derive(Clone, Debug)]
pub struct Processes {
    /// The program with the subcommand `worker`.
    pub program: PathBuf,
}

/// How a process is ended that does not end by itself.
#[derive(Clone, Copy, Debug)]
pub(super) enum End {
    /// By SIGKILL: it is the worker itself.
    Kill {
        /// [`faults::oom_kills`] when it was started.
        kills_before: Option<u64>,
    },
    /// By SIGTERM, and by SIGKILL if that does not help: it carries the standard streams of a worker, and should end it too.
    Gentle,
}

/// How long a process has to end what it has begun elsewhere.
const GENTLY: Duration = Duration::from_secs(10);

/// A living worker process.
#[derive(Debug)]
struct Process {
    child: Child,
    /// Lines for its input; a thread writes them, since a process that waits in a queue does not read.
    input: Option<Sender<Vec<u8>>>,
    last_lines: Arc<Mutex<VecDeque<String>>>,
    end: End,
}

impl Launcher for Processes {
    fn launch(&mut self, mailbox: Mailbox) -> io::Result<Box<dyn Link>> {
        let mut command = Command::new(&self.program);
        command.arg("worker");
        start(command, mailbox, End::Kill { kills_before: faults::oom_kills() })
    }
}

/// Starts a process that is a worker, or carries the standard streams of one.
pub(super) fn start(mut command: Command, mailbox: Mailbox, end: End) -> io::Result<Box<dyn Link>> {
    // A process group of its own: Ctrl-C reaches only the coordinator, which then stops the workers.
    command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    if mailbox.generation() > 0 {
        command.env_remove(crash::VARIABLE); // else a crash test would abort every successor too
    }
    let mut child = command.spawn().map_err(|e| {
        let program = command.get_program().to_string_lossy();
        io::Error::new(e.kind(), format!("run `{program} worker`: {e}"))
    })?;
    let last_lines = Arc::new(Mutex::new(VecDeque::new()));
    if let Some(errors) = child.stderr.take() {
        let (last_lines, mailbox) = (last_lines.clone(), mailbox.clone());
        std::thread::spawn(move || read_errors(errors, &last_lines, &mailbox));
    }
    if let Some(output) = child.stdout.take() {
        std::thread::spawn(move || read_output(output, &mailbox));
    }
    let input = child.stdin.take().map(|mut input| {
        let (sender, lines) = channel::<Vec<u8>>();
        std::thread::spawn(move || {
            // Ends, and closes the input, when the sender is dropped or the process has closed it.
            for line in lines {
                if input.write_all(&line).and_then(|()| input.flush()).is_err() {
                    break;
                }
            }
        });
        sender
    });
    Ok(Box::new(Process { child, input, last_lines, end }))
}

impl Link for Process {
    fn send(&mut self, request: &Request) {
        let mut line = Vec::new();
        if let (Some(input), Ok(())) = (&self.input, protocol::send(&mut line, request)) {
            let _ = input.send(line);
        }
    }

    fn close(&mut self) {
        self.input.take();
    }

    fn reap(mut self: Box<Self>, patience: Duration) -> Death {
        self.close();
        let status = ended_within(&mut self.child, patience);
        if status.is_none() && matches!(self.end, End::Gentle) {
            let pid = rustix::process::Pid::from_child(&self.child);
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
            ended_within(&mut self.child, GENTLY);
        }
        if status.is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        // Its last lines may still be in the pipe.
        let until = Instant::now() + Duration::from_millis(200);
        while Arc::strong_count(&self.last_lines) > 1 && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(1));
        }
        let words = self.last_lines.lock().map(|lines| Vec::from(lines.clone()).join(" | ")).unwrap_or_default();
        let kills_before = if let End::Kill { kills_before } = self.end { kills_before } else { None };
        let (class, reason) = faults::classify(status, kills_before, &words);
        Death { class, reason }
    }
}

fn read_output(output: impl Read, mailbox: &Mailbox) {
    let mut input = BufReader::new(output);
    loop {
        let mut line = Vec::new();
        match Read::take(&mut input, protocol::MAX_LINE as u64).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => break,
            Ok(_) => {
                if !mailbox.line(line) {
                    return;
                }
            }
        }
    }
    mailbox.closed();
}

fn read_errors(errors: impl Read, last_lines: &Mutex<VecDeque<String>>, mailbox: &Mailbox) {
    let mut input = BufReader::new(errors);
    let mut bytes = Vec::new();
    while let Ok(1..) = Read::take(&mut input, 4096).read_until(b'\n', &mut bytes) {
        let line = String::from_utf8_lossy(&bytes).trim_end().to_owned();
        bytes.clear();
        if line.is_empty() {
            continue;
        }
        if let Ok(mut lines) = last_lines.lock() {
            if lines.len() == LAST_LINES {
                lines.pop_front();
            }
            lines.push_back(line.clone());
        }
        mailbox.said(line);
    }
}
