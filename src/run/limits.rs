//! Time limits of epochs, trials and the study, and timeouts of workers.

use super::coordinator::Coordinator;
use super::options::RunError;
use super::slot::{Slot, Worker};
use crate::engine::FailureClass;
use std::time::{Duration, Instant};

/// How long a worker may take after its last epoch to report the end of its order.
const WINDING_UP: Duration = Duration::from_secs(30);

impl Coordinator<'_> {
    /// Ends workers that exceed a limit, and the run when its time is spent.
    pub(super) fn watch_limits(&mut self) -> Result<(), RunError> {
        if let Some(limit) = self.study.spec().budget.wall_seconds
            && self.stopping.is_none()
            && self.spent_before + self.began.elapsed().as_secs_f64() >= limit
        {
            self.out_of_time = true;
            self.stop();
        }
        let limits = self.study.spec().limits.clone();
        for worker in 0..self.slots.len() {
            // What ended others took is not this one's: its reports may be waiting to be read.
            self.excuse_retired();
            // Elsewhere a worker may wait for its turn before it starts; once it has, it says so.
            let is_silent = |busy: &Worker| {
                (busy.has_spoken || self.options.elsewhere.is_none()) && busy.heard.elapsed() > self.options.silence
            };
            if self.slots[worker].is_starting() && self.slots[worker].worker.as_ref().is_some_and(is_silent) {
                if let Some(worker) = self.slots[worker].worker.take() {
                    self.retire(worker.link);
                }
                let seconds = self.options.silence.as_secs();
                self.failed_to_start(worker, format!("the worker was silent for {seconds} s"))?;
                continue;
            }
            let Slot { worker: Some(busy), job: Some(job), .. } = &self.slots[worker] else { continue };
            let running = job.since.elapsed().as_secs_f64();
            let fault = if self.stopping.is_some_and(|until| Instant::now() >= until) {
                self.release_and_kill(worker);
                continue;
            } else if job.trial.is_none() {
                (job.since.elapsed() > WINDING_UP).then(|| (FailureClass::Timeout, "it did not end".to_owned()))
            } else if busy.heard.max(job.since).elapsed() > self.options.silence {
                let seconds = self.options.silence.as_secs();
                Some((FailureClass::Lost, format!("the worker was silent for {seconds} s")))
            } else if let Some(limit) = limits.epoch_seconds.filter(|&limit| running > limit) {
                Some((FailureClass::Timeout, format!("an epoch took longer than {limit} s (`limits.epoch_time`)")))
            } else {
                let limit = limits.trial_seconds.filter(|&limit| job.seconds + running > limit);
                let reason = |limit| format!("the trial took longer than {limit} s (`limits.trial_time`)");
                limit.map(|limit| (FailureClass::Timeout, reason(limit)))
            };
            if let Some((class, reason)) = fault {
                self.end_worker(worker, class, reason)?;
            }
        }
        Ok(())
    }

    fn release_and_kill(&mut self, worker: usize) {
        if let Some(worker) = self.slots[worker].worker.take() {
            worker.link.reap(Duration::ZERO);
        }
        if let Some(trial) = self.slots[worker].job.take().and_then(|job| job.trial) {
            self.study.release(trial);
        }
    }
}
