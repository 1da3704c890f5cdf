//! Worker processes: starting, hearing, telling, ending them.

use super::faults;
use super::protocol::{self, Request};
use crate::crash;
use crate::study::Trial;
use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// What reaches the coordinator.
#[derive(Debug)]
pub(super) enum Message {
    /// A line of a worker.
    Line { worker: usize, generation: u32, line: Vec<u8> },
    /// A worker has closed its output.
    Closed { worker: usize, generation: u32 },
    /// A line that a worker wrote for people.
    Said { worker: usize, line: String },
    /// A signal came.
    Signal(i32),
}

/// The last lines of a worker on standard error.
const WORDS: usize = 6;

/// A living worker process.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) generation: u32,
    child: Child,
    input: Option<ChildStdin>,
    words: Arc<Mutex<VecDeque<String>>>,
    kills_before: Option<u64>,
    /// It has understood what the study is.
    pub(super) ready: bool,
    /// When it last said anything.
    pub(super) heard: Instant,
}

/// What a worker is busy with.
#[derive(Debug)]
pub(super) struct Job {
    /// `None`: all is on record, and only the worker's word that it is through is missing.
    pub(super) trial: Option<Trial>,
    /// When its running epoch began, work that is done once for all (filling caches) not counted.
    pub(super) mark: Instant,
    /// Seconds that the trial has trained before.
    pub(super) seconds: f64,
}

/// A place for a worker process, with or without one.
#[derive(Debug, Default)]
pub(super) struct Slot {
    pub(super) process: Option<Process>,
    pub(super) job: Option<Job>,
    generations: u32,
}

impl Slot {
    /// Starts a process here and introduces it to the study.
    pub(super) fn start(
        &mut self,
        worker: usize,
        program: &Path,
        hello: &Request,
        sender: &Sender<Message>,
    ) -> std::io::Result<()> {
        let mut command = Command::new(program);
        // A group of its own: Ctrl-C reaches the coordinator alone, which then speaks for all.
        command.arg("worker").process_group(0);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        if self.generations > 0 {
            command.env_remove(crash::VARIABLE); // else a test would have every successor abort too
        }
        let kills_before = faults::oom_kills();
        let mut child = command.spawn()?;
        let generation = self.generations;
        self.generations += 1;
        if let Some(output) = child.stdout.take() {
            let sender = sender.clone();
            std::thread::spawn(move || read_lines(output, worker, generation, &sender));
        }
        let words = Arc::new(Mutex::new(VecDeque::new()));
        if let Some(errors) = child.stderr.take() {
            let (words, sender) = (words.clone(), sender.clone());
            std::thread::spawn(move || read_words(errors, worker, &words, &sender));
        }
        let input = child.stdin.take();
        let heard = Instant::now();
        self.process = Some(Process { generation, child, input, words, kills_before, ready: false, heard });
        self.tell(hello);
        Ok(())
    }

    /// Sends a request. A worker that does not take it is about to be found dead; nothing more is done here.
    pub(super) fn tell(&mut self, request: &Request) {
        if let Some(process) = &mut self.process
            && let Some(input) = &mut process.input
        {
            let _ = protocol::send(input, request);
        }
    }

    /// Whether messages of this generation still count.
    pub(super) fn is_current(&self, generation: u32) -> bool {
        self.process.as_ref().is_some_and(|process| process.generation == generation)
    }
}

impl Process {
    /// Waits a little for a process that closed its output, ends it if it lingers, and says how it ended.
    pub(super) fn bury(mut self, patience: Duration) -> (Option<ExitStatus>, Option<u64>, String) {
        self.input.take();
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
        // Its last words may still be on their way through the pipe.
        let until = Instant::now() + Duration::from_millis(200);
        while Arc::strong_count(&self.words) > 1 && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(1));
        }
        let words = self.words.lock().map(|words| Vec::from(words.clone()).join(" | ")).unwrap_or_default();
        (status, self.kills_before, words)
    }

    /// Closes its input, which asks an idle worker to end.
    pub(super) fn dismiss(&mut self) {
        self.input.take();
    }
}

fn read_lines(output: impl Read, worker: usize, generation: u32, sender: &Sender<Message>) {
    let mut input = BufReader::new(output);
    loop {
        let mut line = Vec::new();
        match Read::take(&mut input, protocol::MAX_LINE as u64).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => break,
            Ok(_) => {
                if sender.send(Message::Line { worker, generation, line }).is_err() {
                    return;
                }
            }
        }
    }
    let _ = sender.send(Message::Closed { worker, generation });
}

fn read_words(errors: impl Read, worker: usize, words: &Mutex<VecDeque<String>>, sender: &Sender<Message>) {
    let mut input = BufReader::new(errors);
    let mut bytes = Vec::new();
    while let Ok(1..) = Read::take(&mut input, 4096).read_until(b'\n', &mut bytes) {
        let line = String::from_utf8_lossy(&bytes).trim_end().to_owned();
        bytes.clear();
        if line.is_empty() {
            continue;
        }
        if let Ok(mut words) = words.lock() {
            if words.len() == WORDS {
                words.pop_front();
            }
            words.push_back(line.clone());
        }
        let _ = sender.send(Message::Said { worker, line });
    }
}
