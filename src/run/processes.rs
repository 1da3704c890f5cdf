//! Workers as processes of this program on this machine.

use super::faults;
use super::link::{Death, Launcher, Link, Mailbox};
use super::protocol::{self, Request};
use crate::crash;
use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
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

/// A living worker process.
#[derive(Debug)]
struct Process {
    child: Child,
    input: Option<ChildStdin>,
    last_lines: Arc<Mutex<VecDeque<String>>>,
    kills_before: Option<u64>,
}

impl Launcher for Processes {
    fn launch(&mut self, mailbox: Mailbox) -> io::Result<Box<dyn Link>> {
        let mut command = Command::new(&self.program);
        // A process group of its own: Ctrl-C reaches only the coordinator, which then stops the workers.
        command.arg("worker").process_group(0);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        if mailbox.generation() > 0 {
            command.env_remove(crash::VARIABLE); // else a crash test would abort every successor too
        }
        let kills_before = faults::oom_kills();
        let mut child = command
            .spawn()
            .map_err(|e| io::Error::new(e.kind(), format!("run `{} worker`: {e}", self.program.display())))?;
        let last_lines = Arc::new(Mutex::new(VecDeque::new()));
        if let Some(errors) = child.stderr.take() {
            let (last_lines, mailbox) = (last_lines.clone(), mailbox.clone());
            std::thread::spawn(move || read_errors(errors, &last_lines, &mailbox));
        }
        if let Some(output) = child.stdout.take() {
            std::thread::spawn(move || read_output(output, &mailbox));
        }
        let input = child.stdin.take();
        Ok(Box::new(Process { child, input, last_lines, kills_before }))
    }
}

impl Link for Process {
    fn send(&mut self, request: &Request) {
        if let Some(input) = &mut self.input {
            let _ = protocol::send(input, request);
        }
    }

    fn close(&mut self) {
        self.input.take();
    }

    fn reap(mut self: Box<Self>, patience: Duration) -> Death {
        self.close();
        let until = Instant::now() + patience;
        let status = loop {
            match self.child.try_wait() {
                Ok(Some(status)) => break Some(status),
                Ok(None) if Instant::now() < until => std::thread::sleep(Duration::from_millis(2)),
                _ => break None,
            }
        };
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
        let (class, reason) = faults::classify(status, self.kills_before, &words);
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
