//! The coordinator: the one thread that makes decisions and writes to the store.
//!
//! Each turn of its loop gives orders to idle workers, makes everything applied so far durable in one transaction,
//! deletes files that are no longer needed, and only then informs workers and the observer; then it waits for messages
//! of workers and applies them. So nothing that anybody was told can be lost.

use super::cluster::Cluster;
use super::link::{Death, Launcher, Link, Message};
use super::options::{RunError, RunOptions, Verdict};
use super::place;
use super::processes::Processes;
use super::progress::{Observer, Progress, Standing};
use super::protocol::{Reply, Request};
use super::signals;
use super::slot::{Job, Slot, Worker};
use super::worker;
use crate::crash::{self, Point};
use crate::engine::{self, DoneReason, Engine, EpochReport, FailureClass, Greeting, TrialState, WorseThanChance};
use crate::ids::TrialNumber;
use crate::runner::Phase;
use crate::runner::command::GRACE;
use crate::spec::{NormStatistics, Others, RunnerSpec};
use crate::store::RunEnd;
use crate::study::{Ask, Ended, Lost, Outlook, Study, StudyError, Trial};
use crate::wording::counted;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

/// Consecutive workers that end before they are ready, after which the run gives up.
const FAILED_STARTS: u32 = 3;

/// How long a worker that has closed its output may take to end.
const REAPING: Duration = Duration::from_secs(1);

/// How often the run's duration is recorded: a kill loses at most this much of the wall time.
const NOTE_INTERVAL: Duration = Duration::from_secs(5);

/// How often limits are checked while no message arrives.
const POLL: Duration = Duration::from_millis(100);

/// Runs a study with worker processes, on this machine or as `options.elsewhere` says, until nothing is left to do, its time
/// is spent, or a signal arrives.
///
/// # Errors
/// If the store fails or workers cannot be started. What is on record stays, so the run may be started again.
pub fn run(study: &mut Study, options: &RunOptions, observer: &mut dyn Observer) -> Result<Verdict, RunError> {
    match &options.elsewhere {
        Some(elsewhere) => {
            run_with(study, options, &mut Cluster::new(elsewhere, options, &study.spec().name.clone()), observer)
        }
        None => run_with(study, options, &mut Processes { program: options.program.clone() }, observer),
    }
}

/// [`run`] with workers that `launcher` starts.
///
/// # Errors
/// As [`run`].
pub fn run_with(
    study: &mut Study,
    options: &RunOptions,
    launcher: &mut dyn Launcher,
    observer: &mut dyn Observer,
) -> Result<Verdict, RunError> {
    if matches!(study.spec().runner, RunnerSpec::External { .. }) {
        return Err(RunError::External);
    }
    let (sender, receiver) = channel();
    let signal_sender = sender.clone();
    let listener = signals::Listener::new(move |signal| {
        let _ = signal_sender.send(Message::Signal(signal));
    })
    .map_err(RunError::Signals)?;
    let spent_before = study.run_seconds()?;
    study.begin_run(options.workers, &options.device_names())?;
    crash::at(Point::RunBegun);
    let mut coordinator = Coordinator {
        slots: (0..options.workers.max(1)).map(|_| Slot::default()).collect(),
        study,
        options,
        launcher,
        sender,
        began: Instant::now(),
        noted: Instant::now(),
        spent_before,
        news: Vec::new(),
        outbox: Vec::new(),
        stopping: None,
        signal: None,
        out_of_time: false,
        done: None,
        failed_starts: 0,
        beaten: Instant::now(),
        retiring: Duration::ZERO,
        ever_ready: false,
        program: if options.elsewhere.is_some() { place::program() } else { String::new() },
        ended: 0,
    };
    let result = coordinator.serve(&receiver, observer);
    coordinator.dismiss_all();
    let seconds = coordinator.began.elapsed().as_secs_f64();
    let (done, signal, out_of_time) = (coordinator.done, coordinator.signal, coordinator.out_of_time);
    drop(listener);
    result?;
    study.tidy()?;
    crash::at(Point::RunEnding);
    let ended = match (signal, out_of_time, done) {
        (Some(_), ..) => RunEnd::Interrupted,
        (None, true, _) => RunEnd::OutOfTime,
        (None, false, _) => RunEnd::Done,
    };
    study.note_run(seconds, Some(ended))?;
    let best = study.engine().best().map(Standing::from);
    observer.see(&Progress::Finished { reason: done, best, seconds });
    Ok(Verdict { done, signal, out_of_time, best, seconds })
}

pub(super) struct Coordinator<'a> {
    pub(super) slots: Vec<Slot>,
    pub(super) study: &'a mut Study,
    pub(super) options: &'a RunOptions,
    launcher: &'a mut dyn Launcher,
    pub(super) sender: Sender<Message>,
    pub(super) began: Instant,
    pub(super) noted: Instant,
    pub(super) spent_before: f64,
    /// To be shown to the observer once everything is durable.
    pub(super) news: Vec<Progress>,
    /// To be sent to workers once everything is durable.
    pub(super) outbox: Vec<(usize, Request)>,
    /// `Some`: no further orders, and workers still busy at this time are killed.
    pub(super) stopping: Option<Instant>,
    pub(super) signal: Option<i32>,
    pub(super) out_of_time: bool,
    pub(super) done: Option<DoneReason>,
    pub(super) failed_starts: u32,
    /// When workers on other machines were last told that this process lives.
    beaten: Instant,
    /// How long workers have been waited for that were ended, since it was last made up for.
    retiring: Duration,
    /// Whether any worker has been ready.
    ever_ready: bool,
    /// The digest of this program, where workers must have the same.
    program: String,
    /// Orders ended since the folders of commands were last tidied.
    pub(super) ended: usize,
}

impl Coordinator<'_> {
    fn serve(&mut self, receiver: &Receiver<Message>, observer: &mut dyn Observer) -> Result<(), RunError> {
        let swept = self.study.tidy()?;
        let finished = self.finished();
        let (spec, engine) = (self.study.spec(), self.study.engine());
        self.news.push(Progress::Started {
            study: spec.name.clone(),
            metric: spec.objective.metric.to_string(),
            workers: self.options.workers,
            device: self.options.device_names(),
            finished,
            planned: engine::planned_trials(spec),
            epochs: engine.trials().map(|trial| trial.curve.len() as u64).sum(),
            planned_epochs: engine::rung_table(spec).map(|table| table.epochs_resuming),
            seconds_left: spec.budget.wall_seconds.map(|limit| (limit - self.spent_before).max(0.0)),
            work_left: engine.work_budget().map(|budget| budget.saturating_sub(engine.charged_work())),
            resumed: engine.trials().len() > 0,
            best: engine.best().map(Standing::from),
        });
        if swept.files > 0 {
            let text = format!("{} deleted that no trial needs ({} bytes)", counted(swept.files, "file"), swept.bytes);
            self.news.push(Progress::Note { text });
        }
        loop {
            self.hand_out()?;
            self.commit(observer)?;
            if self.is_over() {
                return Ok(());
            }
            match receiver.recv_timeout(POLL) {
                Ok(message) => {
                    self.take(message)?;
                    // Messages that have arrived meanwhile share the next transaction.
                    for message in receiver.try_iter().take(1024) {
                        self.take(message)?;
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Ok(()), // never: we hold a sender ourselves
            }
            self.watch_limits()?;
            self.beat();
            observer.tick();
        }
    }

    /// Tells workers on other machines now and then that this process lives: nothing else would tell them if its machine failed.
    fn beat(&mut self) {
        if self.options.elsewhere.is_some() && self.beaten.elapsed() >= worker::COORDINATOR_BEAT {
            self.beaten = Instant::now();
            self.slots.iter_mut().for_each(|slot| slot.send(&Request::Beat));
        }
    }

    fn is_over(&self) -> bool {
        let idle = self.slots.iter().all(|slot| slot.job.is_none());
        idle && (self.stopping.is_some() || self.done.is_some())
    }

    /// Gives idle workers something to do.
    fn hand_out(&mut self) -> Result<(), RunError> {
        if self.stopping.is_some() {
            return Ok(());
        }
        for worker in 0..self.slots.len() {
            if !self.slots[worker].is_idle() {
                continue;
            }
            match self.study.lease(worker as u32)? {
                Ask::Trial(trial) => self.begin(worker, trial)?,
                Ask::Wait => break,
                Ask::Done(reason) => return self.is_done(reason),
            }
        }
        self.dismiss_idle();
        if !self.slots.iter().any(Slot::is_free) {
            return Ok(());
        }
        match self.study.outlook()? {
            Outlook::Orders(orders) => {
                let starting = self.slots.iter().filter(|slot| slot.is_starting()).count();
                let free: Vec<usize> = (0..self.slots.len()).filter(|&worker| self.slots[worker].is_free()).collect();
                for worker in free.into_iter().take(orders.saturating_sub(starting)) {
                    let hello = self.options.hello(worker as u32, self.study)?;
                    let started = self.slots[worker].start(worker, self.launcher, &hello, &self.sender);
                    started.map_err(RunError::Launch)?;
                }
                Ok(())
            }
            Outlook::Wait => Ok(()),
            Outlook::Done(reason) => self.is_done(reason),
        }
    }

    fn is_done(&mut self, reason: DoneReason) -> Result<(), RunError> {
        self.done = Some(reason);
        if reason == DoneReason::FailureLimit {
            self.stop();
        }
        Ok(())
    }

    /// Dismisses workers on other machines for which there has been nothing to do for a while: others wait for their place.
    fn dismiss_idle(&mut self) {
        let Some(limit) = self.options.elsewhere.as_ref().map(|elsewhere| elsewhere.idle) else { return };
        for (number, slot) in self.slots.iter_mut().enumerate().filter(|(_, slot)| slot.is_idle()) {
            if slot.idle_since.get_or_insert_with(Instant::now).elapsed() > limit
                && let Some(mut worker) = slot.worker.take()
            {
                worker.link.close();
                std::thread::spawn(move || worker.link.reap(REAPING));
                let host = worker.greeting.map_or_else(String::new, |greeting| format!(" on {}", greeting.host));
                let text = format!("worker {number}{host} is dismissed: there is nothing to do for it just now");
                self.news.push(Progress::Note { text });
            }
        }
    }

    fn begin(&mut self, worker: usize, trial: Trial) -> Result<(), RunError> {
        let (start, faults) = self.study.start(&trial);
        for fault in faults {
            let text = format!("trial {}: {fault}; training goes on from epoch {}", trial.number(), start.epoch);
            self.news.push(Progress::Warning { text });
        }
        let order = trial.order().clone();
        self.news.push(Progress::OrderStarted {
            worker: worker as u32,
            trial: order.trial,
            attempt: trial.attempt(),
            from: start.epoch,
            to: order.to,
            params: order.params.clone(),
            price: order.price,
        });
        let known = self.study.engine().trial(order.trial);
        let seconds = known.map_or(0.0, |t| t.curve.iter().map(|point| point.seconds).sum());
        self.slots[worker].idle_since = None;
        self.slots[worker].job = Some(Job { trial: Some(trial), since: Instant::now(), seconds, epochs: 0 });
        self.outbox.push((worker, Request::Run { order, start }));
        Ok(())
    }

    /// Makes durable what was applied, deletes unneeded files, then informs workers and the observer.
    fn commit(&mut self, observer: &mut dyn Observer) -> Result<(), RunError> {
        let began = Instant::now();
        self.study.flush()?;
        let swept = self.study.sweep()?;
        if swept.over_quota > 0 {
            let text = format!(
                "{} given up for `limits.checkpoint_size`: a trial without one starts anew if promoted",
                counted(swept.over_quota, "checkpoint")
            );
            self.news.push(Progress::Warning { text });
        }
        // A program may still be writing its state for a while after its last epoch.
        let winding_up = |slot: &Slot| slot.job.as_ref().is_some_and(|job| job.trial.is_none());
        if self.ended > self.study.engine().trials().len() / 64 && !self.slots.iter().any(winding_up) {
            self.ended = 0;
            self.study.tidy_commands()?;
        }
        if self.noted.elapsed() >= NOTE_INTERVAL {
            self.noted = Instant::now();
            self.study.note_run(self.began.elapsed().as_secs_f64(), None)?;
        }
        self.excuse(began.elapsed());
        for (worker, request) in self.outbox.drain(..) {
            self.slots[worker].send(&request);
        }
        for progress in self.news.drain(..) {
            observer.see(&progress);
        }
        Ok(())
    }

    /// Time for which this process was held up is nobody else's: a database may be away for a while.
    fn excuse(&mut self, held: Duration) {
        if held < Duration::from_secs(1) {
            return;
        }
        if let Some(until) = &mut self.stopping {
            *until += held;
        }
        for slot in &mut self.slots {
            if let Some(since) = &mut slot.idle_since {
                *since += held;
            }
            if let Some(job) = &mut slot.job {
                job.since += held;
            }
            if let Some(worker) = &mut slot.worker {
                worker.heard += held;
            }
        }
    }

    fn take(&mut self, message: Message) -> Result<(), RunError> {
        match message {
            Message::Signal(signal) => {
                self.signal = Some(signal);
                self.news.push(Progress::Stopping { signal });
                self.stop();
            }
            Message::Said { worker, line } => self.news.push(Progress::Said { worker: worker as u32, line }),
            Message::Closed { worker, generation } => {
                if self.slots[worker].is_current(generation) {
                    self.closed(worker)?;
                }
            }
            Message::Line { worker, generation, line } => {
                if !self.slots[worker].is_current(generation) {
                    return Ok(());
                }
                if let Some(worker) = &mut self.slots[worker].worker {
                    worker.heard = Instant::now();
                    worker.has_spoken = true;
                }
                match serde_json::from_slice(&line) {
                    Ok(reply) => self.heard(worker, reply)?,
                    Err(_) => {
                        let shown: String = String::from_utf8_lossy(&line).trim_end().chars().take(80).collect();
                        let reason = format!("the worker printed what is no message: `{shown}`");
                        self.end_worker(worker, FailureClass::Crashed, reason)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn heard(&mut self, worker: usize, reply: Reply) -> Result<(), RunError> {
        match reply {
            Reply::Ready { greeting, .. } => self.greeted(worker, greeting)?,
            Reply::Leaving { reason } => self.left(worker, &reason),
            Reply::Beat => {}
            Reply::Warning { text } => self.news.push(Progress::Warning { text }),
            Reply::Progress { phase, done, total } => {
                if matches!(phase, Phase::Prepare(_))
                    && let Some(job) = &mut self.slots[worker].job
                {
                    job.since = Instant::now();
                }
                self.news.push(Progress::Working { worker: worker as u32, phase, done, total });
            }
            Reply::Epoch { report } => self.epoch(worker, report)?,
            Reply::Ended { failure, leaving } => {
                if leaving && let Some(worker) = self.slots[worker].worker.take() {
                    worker.link.reap(REAPING);
                }
                let Some(job) = self.slots[worker].job.take() else { return Ok(()) };
                self.ended += 1;
                match (job.trial, failure) {
                    (Some(trial), Some(failure)) if failure.of_place => {
                        self.study.release(trial);
                        self.unfit(worker, failure.class, failure.reason)?;
                    }
                    (Some(trial), Some(failure)) => self.lost(worker, trial, failure.class, failure.reason)?,
                    (Some(trial), None) if self.stopping.is_some() => self.study.release(trial),
                    (Some(trial), None) => {
                        let reason = format!("training ended before epoch {}", trial.order().to);
                        self.lost(worker, trial, FailureClass::Crashed, reason)?;
                    }
                    (None, Some(failure)) => {
                        let text = format!("after its last epoch, on record: {}", failure.reason);
                        self.news.push(Progress::Warning { text });
                    }
                    (None, None) => {}
                }
                self.news.push(Progress::Idle { worker: worker as u32 });
            }
        }
        Ok(())
    }

    fn epoch(&mut self, worker: usize, report: EpochReport) -> Result<(), RunError> {
        crash::at(Point::EpochReceived);
        let Some(job) = &mut self.slots[worker].job else { return Ok(()) };
        let Some(mut trial) = job.trial.take() else { return Ok(()) };
        let (number, to) = (trial.number(), trial.order().to);
        let news = Progress::Epoch { worker: worker as u32, trial: number, to, report: report.clone() };
        // An attempt that has lost its state trains again what is on record, and has not come on by that.
        let is_new = self.study.engine().trial(number).is_none_or(|trial| report.epoch.0 as usize > trial.curve.len());
        let (go, seconds) = match self.study.note_epoch(&mut trial, report) {
            Ok(go) => {
                (go, self.study.engine().trial(number).map_or(0.0, |t| t.curve.last().map_or(0.0, |p| p.seconds)))
            }
            Err(StudyError::Inconsistent(fault)) => {
                job.trial = Some(trial);
                let reason = format!("its report is refused: {fault}");
                return self.end_worker(worker, FailureClass::Crashed, reason);
            }
            Err(error) => return Err(error.into()),
        };
        job.since = Instant::now();
        job.seconds += seconds;
        if is_new {
            job.epochs += 1;
            let slot = &mut self.slots[worker];
            slot.failures = 0;
            if let Some(worker) = &mut slot.worker {
                worker.epochs += 1;
            }
        }
        let Some(job) = &mut self.slots[worker].job else { return Ok(()) };
        self.news.push(news);
        if let Some(found) = worse_than_chance(self.study.engine(), number) {
            let hint = match self.study.spec().runner {
                RunnerSpec::Image { ref training, .. } if training.norm_statistics == NormStatistics::Running => {
                    "\nhint: lower `backbone_rate`, or set `norm_statistics = \"precise\"`"
                }
                RunnerSpec::Image { .. } => "\nhint: lower `backbone_rate` or `learning_rate`",
                _ => "",
            };
            let text = format!(
                "trial {number}: the training loss falls, but validation roc_auc is {:.3} after epoch {}, no better than \
                 chance{hint}",
                found.roc_auc, found.epoch
            );
            self.news.push(Progress::Warning { text });
        }
        self.outbox.push((worker, Request::Recorded { go: !go.is_stop() }));
        if !go.is_stop() {
            job.trial = Some(trial);
            return Ok(());
        }
        let ended = self.study.finish(trial)?;
        let worker = worker as u32;
        self.news.push(match ended {
            Ended::Finished(outcome) => {
                let (best, finished) = (self.study.engine().best().map(Standing::from), self.finished());
                Progress::OrderFinished { worker, trial: number, outcome, best, finished }
            }
            Ended::Again { class, reason } => {
                Progress::AttemptLost { worker, trial: number, class, reason, again: true }
            }
        });
        Ok(())
    }

    /// Records a failed attempt; its worker may go on.
    fn lost(&mut self, worker: usize, trial: Trial, class: FailureClass, reason: String) -> Result<(), RunError> {
        let number = trial.number();
        let again = self.study.fail(trial, class, reason.clone())? == Lost::Again;
        let worker = worker as u32;
        self.news.push(Progress::AttemptLost { worker, trial: number, class, reason, again });
        Ok(())
    }

    /// A worker has closed its output: it is dead, or soon will be.
    fn closed(&mut self, worker: usize) -> Result<(), RunError> {
        let Some(Worker { link, greeting, epochs, .. }) = self.slots[worker].worker.take() else { return Ok(()) };
        let Death { class, reason } = link.reap(REAPING);
        let Some(greeting) = greeting else { return self.failed_to_start(worker, reason) };
        self.vanished(worker, &greeting, epochs, class, reason)
    }

    /// A worker has ended, or says nothing any more, without a word about its order.
    fn vanished(
        &mut self,
        worker: usize,
        greeting: &Greeting,
        epochs_of_worker: u64,
        class: FailureClass,
        reason: String,
    ) -> Result<(), RunError> {
        let job = self.slots[worker].job.take();
        if epochs_of_worker == 0 {
            // What is wrong with a machine must not be done to one order after the other.
            self.rest(worker);
        }
        let epochs = job.as_ref().map_or(0, |job| job.epochs);
        match job.and_then(|job| job.trial) {
            // It was asked to stop and died before it could confirm: no failure is counted.
            Some(trial) if self.stopping.is_some() => self.study.release(trial),
            Some(trial) => {
                let away = if class == FailureClass::Lost { self.launcher.taken_away(greeting) } else { None };
                // On other machines, workers vanish for many reasons; where the trial has come on, it is none of them.
                let came_on = class == FailureClass::Lost && epochs > 0 && self.options.elsewhere.is_some();
                match away.or_else(|| came_on.then_some(reason.clone())) {
                    Some(why) => {
                        let text = format!(
                            "worker {worker} on {}: {why}; trial {} goes on from its last checkpoint",
                            greeting.host,
                            trial.number()
                        );
                        self.news.push(Progress::Warning { text });
                        self.study.release(trial);
                    }
                    None => self.lost(worker, trial, class, reason)?,
                }
            }
            None => {}
        }
        self.news.push(Progress::Idle { worker: worker as u32 });
        Ok(())
    }

    /// A worker can take orders: who it is goes on record.
    fn greeted(&mut self, worker: usize, greeting: Greeting) -> Result<(), RunError> {
        if let Some(elsewhere) = &self.options.elsewhere {
            let known = self.study.engine().arithmetic();
            let differs = match (known, greeting.arithmetic.as_deref()) {
                (Some(known), Some(own)) if known != own => {
                    Some(format!("{} computes with {own}, and this study was begun with {known}", greeting.host))
                }
                _ if greeting.program != self.program => Some(format!(
                    "{} has another program (digest {:.12}) than this run ({:.12})",
                    greeting.host, greeting.program, self.program
                )),
                _ => None,
            };
            match (differs, elsewhere.cluster.others) {
                (Some(how), Others::Refuse) => {
                    if let Some(worker) = self.slots[worker].worker.take() {
                        self.retire(worker.link);
                    }
                    let hint = "name machines of one kind and leave `run.precision` as it was, or set `cluster.others = \"take\"`: \
                                results then differ by rounding";
                    return self.failed_to_start(worker, format!("{how}\nhint: {hint}"));
                }
                (Some(how), Others::Take) => {
                    if self.study.engine().greeting(worker as u32) != Some(&greeting) {
                        let text = format!("worker {worker}: {how}; results may differ by rounding");
                        self.news.push(Progress::Warning { text });
                    }
                }
                (None, _) => {}
            }
        }
        self.study.greet(worker as u32, greeting.clone())?;
        self.failed_starts = 0;
        self.ever_ready = true;
        if let Some(worker) = &mut self.slots[worker].worker {
            worker.greeting = Some(greeting);
        }
        Ok(())
    }

    /// A worker ended before it was ready.
    pub(super) fn failed_to_start(&mut self, worker: usize, reason: String) -> Result<(), RunError> {
        if self.stopping.is_some() {
            return Ok(());
        }
        self.failed_starts += 1;
        let rest = self.rest(worker);
        let Some(rest) = rest else {
            return if self.failed_starts < FAILED_STARTS {
                Ok(())
            } else {
                Err(RunError::FailedStarts { tries: self.failed_starts, reason })
            };
        };
        // Nothing has ever started, and each place has tried more than once: it is no accident of a machine.
        let in_vain = |slot: &Slot| !slot.is_starting() && (slot.failures == 0 || slot.failures >= FAILED_STARTS);
        if !self.ever_ready && self.slots.iter().all(in_vain) {
            return Err(RunError::FailedStarts { tries: self.failed_starts, reason });
        }
        let text = format!("worker {worker} did not start: {reason}\nthe next one is started in {} s", rest.as_secs());
        self.news.push(Progress::Warning { text });
        Ok(())
    }

    /// A place at which no trial can be trained, for now. On this machine that ends the run; another one rests, unless
    /// there is none left that is fit.
    fn unfit(&mut self, worker: usize, class: FailureClass, reason: String) -> Result<(), RunError> {
        let missing = class == FailureClass::BadInput;
        let error = |reason| if missing { RunError::Missing { reason } } else { RunError::Disk { reason } };
        let Some(rest) = self.rest(worker) else { return Err(error(reason)) };
        if let Some(worker) = self.slots[worker].worker.take() {
            self.retire(worker.link);
        }
        let in_vain = |slot: &Slot| slot.worker.is_none() && (slot.failures == 0 || slot.failures >= FAILED_STARTS);
        if self.slots.iter().all(in_vain) {
            return Err(error(reason));
        }
        let text = format!("worker {worker} cannot train: {reason}\nthe next one is started in {} s", rest.as_secs());
        self.news.push(Progress::Warning { text });
        Ok(())
    }

    /// Lets a place rest, longer each time; `None`: workers run on this machine, where none does.
    fn rest(&mut self, worker: usize) -> Option<Duration> {
        let elsewhere = self.options.elsewhere.as_ref()?;
        let slot = &mut self.slots[worker];
        slot.failures += 1;
        let rest = elsewhere.rest_after(slot.failures);
        slot.rests_until = Some(Instant::now() + rest);
        Some(rest)
    }

    /// Ends a worker. On another machine that may take a while, for which nobody waits. One that has a program to end is given
    /// the time for it: what the program has started would survive otherwise.
    pub(super) fn retire(&mut self, link: Box<dyn Link>) {
        let program = matches!(self.study.spec().runner, RunnerSpec::Command(_));
        let patience = if program { self.reaping() } else { Duration::ZERO };
        if self.options.elsewhere.is_some() {
            std::thread::spawn(move || link.reap(patience));
        } else {
            let began = Instant::now();
            link.reap(patience);
            self.retiring += began.elapsed();
        }
    }

    /// Time that went by while workers were ended, in which none was heard, counts for nobody.
    pub(super) fn excuse_retired(&mut self) {
        let held = std::mem::take(&mut self.retiring);
        self.excuse(held);
    }

    /// How long a worker has to end: longer where it has a program to end.
    fn reaping(&self) -> Duration {
        match self.study.spec().runner {
            RunnerSpec::Command(_) => GRACE + Duration::from_secs(2),
            _ => REAPING,
        }
    }

    /// A worker leaves: its machine is wanted for other things. Its order is open again, and no failure is counted.
    fn left(&mut self, worker: usize, reason: &str) {
        let Some(Worker { link, greeting, epochs, .. }) = self.slots[worker].worker.take() else { return };
        std::thread::spawn(move || link.reap(REAPING));
        let hint = if epochs == 0 && self.rest(worker).is_some() && self.slots[worker].failures >= FAILED_STARTS {
            "\nhint: none of the last workers here could finish an epoch in its time: give them more"
        } else {
            ""
        };
        if let Some(trial) = self.slots[worker].job.take().and_then(|job| job.trial) {
            if self.stopping.is_none() {
                let host = greeting.map_or_else(String::new, |greeting| format!(" on {}", greeting.host));
                let text = format!(
                    "worker {worker}{host} leaves, as {reason}; trial {} goes on from its last checkpoint{hint}",
                    trial.number()
                );
                self.news.push(Progress::Warning { text });
            }
            self.study.release(trial);
        }
        self.news.push(Progress::Idle { worker: worker as u32 });
    }

    /// Kills a worker that broke the protocol or a limit; its attempt has failed.
    pub(super) fn end_worker(&mut self, worker: usize, class: FailureClass, reason: String) -> Result<(), RunError> {
        if let Some(Worker { link, greeting, epochs, .. }) = self.slots[worker].worker.take() {
            self.retire(link);
            // A silent one on another machine may have lost its machine, or the way to it.
            if let (FailureClass::Lost, Some(greeting), true) = (class, greeting, self.options.elsewhere.is_some()) {
                return self.vanished(worker, &greeting, epochs, class, reason);
            }
        }
        if let Some(trial) = self.slots[worker].job.take().and_then(|job| job.trial) {
            self.lost(worker, trial, class, reason)?;
        }
        self.news.push(Progress::Idle { worker: worker as u32 });
        Ok(())
    }

    /// No further orders; running epochs are dropped.
    pub(super) fn stop(&mut self) {
        if self.stopping.is_none() {
            self.stopping = Some(Instant::now() + self.options.patience);
            for slot in &mut self.slots {
                slot.send(&Request::Stop);
            }
        }
    }

    /// Asks all workers to end, and waits for them.
    fn dismiss_all(&mut self) {
        let mut left: Vec<Worker> = self.slots.iter_mut().filter_map(|slot| slot.worker.take()).collect();
        left.iter_mut().for_each(|worker| worker.link.close());
        let reaping = self.reaping();
        std::thread::scope(|scope| {
            for worker in left {
                // One that waits in a queue does not know that its input is closed.
                let patience = if worker.greeting.is_some() { reaping } else { Duration::ZERO };
                scope.spawn(move || worker.link.reap(patience));
            }
        });
    }

    /// How many trials are over so far.
    fn finished(&self) -> u32 {
        let over = |state| matches!(state, TrialState::Complete | TrialState::Stopped | TrialState::Failed);
        self.study.engine().trials().filter(|trial| over(trial.state)).count() as u32
    }
}

/// The warning about a trial, if its newest epoch is the first to cause it.
fn worse_than_chance(engine: &Engine, trial: TrialNumber) -> Option<WorseThanChance> {
    let curve = &engine.trial(trial)?.curve;
    let course = curve.iter().map(|point| (point.train_loss, point.roc_auc));
    WorseThanChance::first(course).filter(|found| found.epoch.0 as usize == curve.len())
}
