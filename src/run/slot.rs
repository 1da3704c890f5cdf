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
    pub(super) since: Instant,
    /// Seconds that the trial has trained before.
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
    /// Starts a worker here and introduces it to the study.
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

    /// Whether messages of this generation still count.
    pub(super) fn is_current(&self, generation: u32) -> bool {
        self.worker.as_ref().is_some_and(|worker| worker.generation == generation)
    }
}
