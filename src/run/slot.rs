//! A place for a worker, with or without one.

use super::link::{Launcher, Link, Mailbox, Message};
use super::protocol::Request;
use crate::study::Trial;
use std::io;
use std::sync::mpsc::Sender;
use std::time::Instant;

/// A worker that has been started.
pub(super) struct Worker {
    pub(super) link: Box<dyn Link>,
    generation: u32,
    /// It has accepted the study and can take orders.
    pub(super) ready: bool,
    /// When it last said anything.
    pub(super) heard: Instant,
}

/// What a worker is busy with.
#[derive(Debug)]
pub(super) struct Job {
    /// `None`: everything is on record, and only the worker's message that the order has ended is missing.
    pub(super) trial: Option<Trial>,
    /// When its running epoch began, or preparation shared by all trials (filling caches) last reported progress.
    pub(super) since: Instant,
    /// Seconds of the trial's epochs on record.
    pub(super) seconds: f64,
}

/// A place for a worker.
#[derive(Default)]
pub(super) struct Slot {
    pub(super) worker: Option<Worker>,
    pub(super) job: Option<Job>,
    generations: u32,
}

impl Slot {
    /// Starts a worker here and sends it the study.
    pub(super) fn start(
        &mut self,
        place: usize,
        launcher: &mut dyn Launcher,
        hello: &Request,
        sender: &Sender<Message>,
    ) -> io::Result<()> {
        let generation = self.generations;
        let link = launcher.launch(Mailbox::new(sender.clone(), place, generation))?;
        self.generations += 1;
        self.worker = Some(Worker { link, generation, ready: false, heard: Instant::now() });
        self.send(hello);
        Ok(())
    }

    /// Sends a request, if there is a worker.
    pub(super) fn send(&mut self, request: &Request) {
        if let Some(worker) = &mut self.worker {
            worker.link.send(request);
        }
    }

    /// Whether this is the current worker's generation; messages of earlier ones are ignored.
    pub(super) fn is_current(&self, generation: u32) -> bool {
        self.worker.as_ref().is_some_and(|worker| worker.generation == generation)
    }
}
