//! The line between coordinator and worker, whatever a worker is: a process of this machine, of another one, or a thread
//! of a test.

use super::protocol::Request;
use crate::engine::FailureClass;
use std::io;
use std::sync::mpsc::Sender;
use std::time::Duration;

/// Starts workers.
pub trait Launcher {
    /// Starts a worker. What it says goes to `mailbox`, from whatever thread; the end of its output as well.
    ///
    /// # Errors
    /// If none can be started; the run ends then.
    fn launch(&mut self, mailbox: Mailbox) -> io::Result<Box<dyn Link>>;
}

/// One living worker.
pub trait Link: Send {
    /// Sends a request. That a worker does not take it is no error here: it is about to be found dead.
    fn send(&mut self, request: &Request);

    /// Closes its input, which asks an idle worker to end.
    fn close(&mut self);

    /// Waits so long for it to end, kills it if it lingers, and says how it ended.
    fn reap(self: Box<Self>, patience: Duration) -> Death;
}

/// How a worker ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Death {
    /// What that means for its attempt.
    pub class: FailureClass,
    /// For people.
    pub reason: String,
}

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

/// Where the words of one worker arrive.
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

    /// The worker's place, from 0.
    pub fn worker(&self) -> usize {
        self.worker
    }

    /// How many workers had this place before.
    pub fn generation(&self) -> u32 {
        self.generation
    }

    /// A line of the protocol, or of garbage. `false`: the run is over, and nobody listens.
    pub fn line(&self, line: Vec<u8>) -> bool {
        let (worker, generation) = (self.worker, self.generation);
        self.sender.send(Message::Line { worker, generation, line }).is_ok()
    }

    /// A line for people.
    pub fn said(&self, line: String) {
        let _ = self.sender.send(Message::Said { worker: self.worker, line });
    }

    /// The end of the worker's output.
    pub fn closed(&self) {
        let _ = self.sender.send(Message::Closed { worker: self.worker, generation: self.generation });
    }
}
