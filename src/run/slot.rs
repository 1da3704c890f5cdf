//! A place for a worker, with or without one.

use super::link::{Launcher, Link, Mailbox, Message};
use super::protocol::Request;
use crate::engine::Greeting;
use crate::study::Trial;
use std::io;
use std::sync::mpsc::Sender;
use std::time::Instant;

/// A worker that has been started.
pub(super) struct Worker {
    pub(super) link: Box<dyn Link>,
    generation: u32,
    /// Who it is, once it has accepted the study and can take orders.
    pub(super) greeting: Option<Greeting>,
    /// Epochs that it has reported.
    pub(super) epochs: u64,
    /// When it last said anything, or was started.
    pub(super) heard: Instant,
    /// It has said anything.
    pub(super) has_spoken: bool,
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
    /// Epochs of this attempt on record.
    pub(super) epochs: u32,
}

/// A place for a worker.
#[derive(Default)]
pub(super) struct Slot {
    pub(super) worker: Option<Worker>,
    pub(super) job: Option<Job>,
    /// Since when its worker has had nothing to do.
    pub(super) idle_since: Option<Instant>,
    /// Workers in a row that ended before they were ready, or left without an epoch.
    pub(super) failures: u32,
    /// No worker is started here before.
    pub(super) rests_until: Option<Instant>,
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
        self.worker =
            Some(Worker { link, generation, greeting: None, epochs: 0, heard: Instant::now(), has_spoken: false });
        self.idle_since = None;
        self.send(hello);
        Ok(())
    }

    /// Sends a request, if there is a worker.
    pub(super) fn send(&mut self, request: &Request) {
        if let Some(worker) = &mut self.worker {
            worker.link.send(request);
        }
    }

    /// Its worker has greeted and has nothing to do.
    pub(super) fn is_idle(&self) -> bool {
        self.job.is_none() && self.worker.as_ref().is_some_and(|worker| worker.greeting.is_some())
    }

    /// Its worker has not greeted yet.
    pub(super) fn is_starting(&self) -> bool {
        self.worker.as_ref().is_some_and(|worker| worker.greeting.is_none())
    }

    /// A worker may be started here.
    pub(super) fn is_free(&self) -> bool {
        self.worker.is_none() && self.job.is_none() && self.rests_until.is_none_or(|until| Instant::now() >= until)
    }

    /// Whether this is the current worker's generation; messages of earlier ones are ignored.
    pub(super) fn is_current(&self, generation: u32) -> bool {
        self.worker.as_ref().is_some_and(|worker| worker.generation == generation)
    }
}
