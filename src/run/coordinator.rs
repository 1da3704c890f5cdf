//! The coordinator: the one thread that makes decisions and writes to the store.
//!
//! Each turn of its loop gives orders to idle workers, makes everything applied so far durable in one transaction,
//! deletes files that are no longer needed, and only then informs workers and the observer; then it waits for messages
//! of workers and applies them. So nothing that anybody was told can be lost.

use super::link::{Death, Launcher, Message};
use super::options::{RunError, RunOptions, Verdict};
use super::processes::Processes;
use super::progress::{Observer, Progress, Standing};
use super::protocol::{self, Reply, Request};
use super::signals;
use super::slot::{Job, Slot, Worker};
use crate::crash::{self, Point};
use crate::engine::{self, DoneReason, Engine, EpochReport, FailureClass, TrialState, WorseThanChance};
use crate::ids::TrialNumber;
use crate::runner::Phase;
use crate::spec::{NormStatistics, RunnerSpec};
use crate::store::RunEnd;
use crate::study::{Ask, Ended, Lost, Study, StudyError, Trial};
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

/// Runs a study with worker processes on this machine, until nothing is left to do, its time is spent, or a signal
/// arrives.
///
/// # Errors
/// If the store fails or workers cannot be started. What is on record stays, so the run may be started again.
pub fn run(study: &mut Study, options: &RunOptions, observer: &mut dyn Observer) -> Result<Verdict, RunError> {
    run_with(study, options, &mut Processes { program: options.program.clone() }, observer)
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
            observer.tick();
        }
    }

    fn is_over(&self) -> bool {
        let idle = self.slots.iter().all(|slot| slot.job.is_none());
        idle && (self.stopping.is_some() || self.done.is_some())
    }

    /// Gives idle workers something to do.
    fn hand_out(&mut self) -> Result<(), RunError> {
        for worker in 0..self.slots.len() {
            if self.stopping.is_some() || self.slots[worker].job.is_some() {
                continue;
            }
            match self.study.lease(worker as u32)? {
                Ask::Trial(trial) => self.begin(worker, trial)?,
                Ask::Wait => break,
                Ask::Done(reason) => {
                    self.done = Some(reason);
                    if reason == DoneReason::FailureLimit {
                        self.stop();
                    }
                    break;
                }
            }
        }
        Ok(())
    }

    fn begin(&mut self, worker: usize, trial: Trial) -> Result<(), RunError> {
        let (start, faults) = self.study.start(&trial);
        for fault in faults {
            let text = format!("trial {}: {fault}; training goes on from epoch {}", trial.number(), start.epoch);
            self.news.push(Progress::Warning { text });
        }
        if self.slots[worker].worker.is_none() {
            let hello = Request::Hello {
                version: protocol::VERSION,
                spec: self.study.spec().clone(),
                base: self.options.base.clone(),
                slot: self.options.slot(worker as u32, self.study),
            };
            self.slots[worker].start(worker, self.launcher, &hello, &self.sender).map_err(RunError::Launch)?;
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
        self.slots[worker].job = Some(Job { trial: Some(trial), since: Instant::now(), seconds });
        self.outbox.push((worker, Request::Run { order, start }));
        Ok(())
    }

    /// Makes durable what was applied, deletes unneeded files, then informs workers and the observer.
    fn commit(&mut self, observer: &mut dyn Observer) -> Result<(), RunError> {
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
        for (worker, request) in self.outbox.drain(..) {
            self.slots[worker].send(&request);
        }
        for progress in self.news.drain(..) {
            observer.see(&progress);
        }
        Ok(())
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
            Reply::Ready { .. } => {
                self.failed_starts = 0;
                if let Some(worker) = &mut self.slots[worker].worker {
                    worker.ready = true;
                }
            }
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
                    (Some(_), Some(failure)) if failure.disk_full => {
                        return Err(RunError::DiskFull { reason: failure.reason });
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
        let Some(Worker { link, ready, .. }) = self.slots[worker].worker.take() else { return Ok(()) };
        let job = self.slots[worker].job.take();
        let Death { class, reason } = link.reap(REAPING);
        if !ready && self.stopping.is_none() {
            self.failed_starts += 1;
            if self.failed_starts >= FAILED_STARTS {
                return Err(RunError::FailedStarts { tries: self.failed_starts, reason });
            }
        }
        match job.and_then(|job| job.trial) {
            // It was asked to stop and died before it could confirm, or it never got ready: no failure is counted.
            Some(trial) if self.stopping.is_some() || !ready => self.study.release(trial),
            Some(trial) => self.lost(worker, trial, class, reason)?,
            None => {}
        }
        self.news.push(Progress::Idle { worker: worker as u32 });
        Ok(())
    }

    /// Kills a worker that broke the protocol or a limit; its attempt has failed.
    pub(super) fn end_worker(&mut self, worker: usize, class: FailureClass, reason: String) -> Result<(), RunError> {
        if let Some(worker) = self.slots[worker].worker.take() {
            worker.link.reap(Duration::ZERO);
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
        for worker in left {
            worker.link.reap(REAPING);
        }
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
