//! How the engine writes the ledger.

use super::{Bracket, EarlierResult, Ledger, Observation, Rung};
use crate::ids::{Epoch, TrialNumber};
use crate::space::Params;
use std::sync::Arc;

impl Ledger {
    /// Adds the results of an earlier study.
    pub(crate) fn learn(&mut self, results: &[EarlierResult]) {
        self.earlier.extend(results.iter().cloned());
    }

    /// Adds a trial; `by_hand`: whether a user enqueued its configuration.
    pub(crate) fn start(&mut self, params: Arc<Params>, by_hand: bool) {
        self.used.insert(params.digest());
        self.enqueued += u32::from(by_hand);
        self.trials.push(Observation { params, epoch: Epoch(0), value: None, failed: false, pending: true });
    }

    /// Sets whether one more trial may start.
    pub(crate) fn set_may_start(&mut self, may_start: bool) {
        self.may_start = may_start;
    }

    pub(crate) fn set_brackets(&mut self, brackets: Vec<Bracket>) {
        // Brackets that hold trials never change; later ones may, as more trials are planned.
        for (index, bracket) in brackets.iter().enumerate() {
            if index == self.rungs.len() {
                self.rungs.push(Vec::new());
            }
            self.rungs[index].resize_with(bracket.epochs.len(), Rung::default);
        }
        self.rungs.truncate(brackets.len());
        self.brackets = brackets;
        self.settled = self.settled.min(self.brackets.len());
    }

    pub(crate) fn issued(&mut self, trial: TrialNumber, bracket: u32, rung: Option<u32>) {
        self.trials[trial.0 as usize].pending = true;
        let Some(rung) = rung else { return };
        self.rungs[bracket as usize][rung as usize].entered += 1;
        if rung > 0 {
            let standing = self.standing(trial);
            self.rungs[bracket as usize][rung as usize - 1].waiting.remove(&standing);
        }
    }

    pub(crate) fn arrived(&mut self, trial: TrialNumber, at: Epoch, value: f64, bracket: u32, rung: Option<u32>) {
        let ranked = self.rank(trial, Some(value));
        let seen = &mut self.trials[trial.0 as usize];
        seen.pending = false;
        seen.epoch = at;
        seen.value = Some(value);
        if let Some(rung) = rung {
            self.rungs[bracket as usize][rung as usize].arrive(ranked);
        }
    }

    pub(crate) fn failed(&mut self, trial: TrialNumber, bracket: u32, rung: Option<u32>) {
        let seen = &mut self.trials[trial.0 as usize];
        seen.pending = false;
        seen.failed = true;
        seen.value = None;
        if let Some(rung) = rung {
            self.rungs[bracket as usize][rung as usize].failed += 1;
        }
    }

    /// Marks brackets at the front as settled in which nothing is under way and nothing can follow.
    pub(crate) fn settle(&mut self) {
        let is_settled = |(bracket, rungs): (&Bracket, &Vec<Rung>)| {
            let quiet = rungs.iter().all(|rung| rung.known() == rung.entered);
            let full = rungs[0].entered >= bracket.seats[0];
            let mut steps = rungs.iter().zip(rungs.iter().zip(&bracket.seats).skip(1));
            quiet
                && full
                && steps.all(|(rung, (above, &seats))| above.entered >= seats.min(rung.finished().len() as u32))
        };
        while self.brackets.get(self.settled).zip(self.rungs.get(self.settled)).is_some_and(is_settled) {
            self.settled += 1;
        }
    }

    /// Adds a complete trial's values, from epoch 1, to the running averages.
    pub(crate) fn average(&mut self, values: impl Iterator<Item = Option<f64>>) {
        let (mut sum, mut n) = (0.0, 0u32);
        for (value, sorted) in values.zip(self.averages.iter_mut().skip(1)) {
            if let Some(value) = value.filter(|v| v.is_finite()) {
                sum += value;
                n += 1;
            }
            if n > 0 {
                let mean = sum / f64::from(n);
                let at = sorted.partition_point(|&other| other < mean);
                sorted.insert(at, mean);
            }
        }
    }
}
