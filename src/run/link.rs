//! The connection between coordinator and worker, which may be a process of this machine or another, or a thread of a
//! test.

use super::protocol::Request;
use crate::engine::{FailureClass, Greeting};
use std::io;
use std::sync::mpsc::Sender;
use std::time::Duration;

/// Starts workers.
pub trait Launcher {
    /// Starts a worker. Its output, and the end of it, must be delivered to `mailbox`, from any thread.
    ///
    /// # Errors
    /// If none can be started; the run ends then.
    fn launch(&mut self, mailbox: Mailbox) -> io::Result<Box<dyn Link>>;

    /// Why the worker that greeted so was taken away, if its end is no fault of what it trained: its machine failed, or was
    /// wanted for other things. Asked after it ended without a word.
    fn taken_away(&mut self, greeting: &Greeting) -> Option<String> {
        let _ = greeting;
        None
    }
}

/// One living worker.
pub trait Link: Send {
    /// Sends a request. Failure is ignored: the worker is dead then, which the end of its output will show.
    fn send(&mut self, request: &Request);

    /// Closes its input, which asks an idle worker to end.
    fn close(&mut self);

    /// Waits up to `patience` for the worker to end, kills it if it has not, and returns how it ended.
    fn reap(self: Box<Self>, patience: Duration) -> Death;
}

/// How a worker ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Death {
    /// The failure class of its attempt.
    pub class: FailureClass,
    /// The explanation for people.
    pub reason: String,
}

/// A message to the coordinator.
#[derive(Debug)]
pub(super) enum Message {
    /// A line of a worker.
    Line { worker: usize, generation: u32, line: Vec<u8> },
    /// A worker has closed its output.
    Closed { worker: usize, generation: u32 },
    /// A line that a worker wrote for people.
    Said { worker: usize, line: String },
    /// A signal arrived.
    Signal(i32),
}

/// Where the output of one worker is delivered.
#[derive(Clone, Debug)]
pub struct Mailbox {
    sender: Sender<Message>,
    worker: usize,
    generation: u32,
}

impl Mailbox {
    pub(super) fn new(sender: Sender<Message>, worker: usize, generation: u32) -> Self {
        Self { sender, worker, generation }
    }

    /// The worker's number.
    pub fn worker(&self) -> usize {
        self.worker
    }

    /// How many workers this slot had before.
    pub fn generation(&self) -> u32 {
        self.generation
    }

    /// Delivers a line of output, whether it is a message or not. `false`: the run is over.
    pub fn line(&self, line: Vec<u8>) -> bool {
        let (worker, generation) = (self.worker, self.generation);
        self.sender.send(Message::Line { worker, generation, line }).is_ok()
    }

    /// Delivers a line for people.
    pub fn said(&self, line: String) {
        let _ = self.sender.send(Message::Said { worker: self.worker, line });
    }

    /// Delivers the end of the worker's output.
    pub fn closed(&self) {
        let _ = self.sender.send(Message::Closed { worker: self.worker, generation: self.generation });
    }
}
