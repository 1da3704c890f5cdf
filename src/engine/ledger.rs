//! What algorithms may see: orders issued, and outcomes of retired orders only.
//!
//! Nothing here depends on when a real worker finished: see `order` for when an order retires.

use super::EarlierResult;
use super::score::{Ranked, Score};
use crate::digest::Digest;
use crate::ids::{Epoch, TrialNumber};
use crate::scheduler::Bracket;
use crate::space::Params;
use crate::spec::Direction;
use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

/// A trial as samplers see it.
#[derive(Clone, Debug)]
pub struct Observation {
    /// Its configuration.
    pub params: Arc<Params>,
    /// Epochs done by retired orders; 0: nothing is known yet.
    pub epoch: Epoch,
    /// The objective there; `None` when failed or unknown.
    pub value: Option<f64>,
    /// It failed.
    pub failed: bool,
    /// An order of it is issued and not retired.
    pub pending: bool,
}

/// The members of one rung of one bracket.
#[derive(Clone, Debug, Default)]
pub struct Rung {
    /// Orders issued toward it.
    pub entered: u32,
    /// Failed on the way.
    pub failed: u32,
    /// Arrived, best first.
    finished: Vec<Ranked>,
    /// Arrived and not promoted.
    waiting: BTreeSet<Ranked>,
}

impl Rung {
    /// Members whose result is known, failed ones among them.
    pub fn known(&self) -> u32 {
        self.finished.len() as u32 + self.failed
    }

    /// The best member that was not promoted, with its place among all (0 is best).
    pub fn best_waiting(&self) -> Option<(Ranked, u32)> {
        self.waiting.first().map(|&r| (r, self.place(&r)))
    }

    /// How many arrived members are better.
    pub fn place(&self, ranked: &Ranked) -> u32 {
        self.finished.partition_point(|other| other < ranked) as u32
    }

    fn arrive(&mut self, ranked: Ranked) {
        let at = self.finished.partition_point(|other| *other < ranked);
        self.finished.insert(at, ranked);
        self.waiting.insert(ranked);
    }
}

/// The memory of samplers and schedulers.
#[derive(Clone, Debug)]
pub struct Ledger {
    /// Which way is better.
    pub direction: Direction,
    /// The full number of epochs.
    pub max_epochs: u32,
    /// Results of an earlier study, for samplers that learn.
    pub earlier: Vec<EarlierResult>,
    pub(super) trials: Vec<Observation>,
    pub(super) used: HashSet<Digest>,
    pub(super) enqueued: u32,
    pub(super) brackets: Vec<Bracket>,
    pub(super) rungs: Vec<Vec<Rung>>,
    /// Whether one more trial may start: planned and not exhausted.
    pub(super) may_start: bool,
    /// Brackets before this one have nothing left to decide.
    pub(super) settled: usize,
    /// By epoch, the sorted running averages of complete trials; empty unless asked for.
    averages: Vec<Vec<f64>>,
}

impl Ledger {
    /// An empty ledger. `averages`: whether running averages of complete trials are kept (the median rule).
    pub fn new(direction: Direction, max_epochs: u32, averages: bool) -> Self {
        let averages = if averages { vec![Vec::new(); max_epochs as usize + 1] } else { Vec::new() };
        Self {
            direction,
            max_epochs,
            earlier: Vec::new(),
            trials: Vec::new(),
            used: HashSet::new(),
            enqueued: 0,
            brackets: Vec::new(),
            rungs: Vec::new(),
            may_start: true,
            settled: 0,
            averages,
        }
    }

    /// Trials by number.
    pub fn trials(&self) -> &[Observation] {
        &self.trials
    }

    /// Trials started.
    pub fn started(&self) -> u32 {
        self.trials.len() as u32
    }

    /// Whether one more trial may start.
    pub fn may_start(&self) -> bool {
        self.may_start
    }

    /// Whether a configuration was already taken in this study.
    pub fn is_used(&self, params: &Params) -> bool {
        self.used.contains(&params.digest())
    }

    /// Trials whose configuration was put first by hand.
    pub fn enqueued(&self) -> u32 {
        self.enqueued
    }

    /// The brackets with their rungs, and the index of each, without those at the front that are settled.
    pub fn open_brackets(&self) -> impl Iterator<Item = (u32, &Bracket, &[Rung])> {
        self.brackets
            .iter()
            .zip(&self.rungs)
            .enumerate()
            .skip(self.settled)
            .map(|(index, (bracket, rungs))| (index as u32, bracket, rungs.as_slice()))
    }

    /// One bracket with its rungs.
    pub fn bracket(&self, index: u32) -> Option<(&Bracket, &[Rung])> {
        self.brackets.get(index as usize).zip(self.rungs.get(index as usize).map(Vec::as_slice))
    }

    /// The sorted running averages of complete trials at an epoch.
    pub fn averages(&self, epoch: Epoch) -> &[f64] {
        self.averages.get(epoch.0 as usize).map_or(&[], Vec::as_slice)
    }

    /// Rank of a value of a trial.
    pub fn rank(&self, trial: TrialNumber, value: Option<f64>) -> Ranked {
        Ranked { score: Score::new(self.direction, value), trial }
    }

    /// Rank of a trial by its latest retired result.
    pub fn standing(&self, trial: TrialNumber) -> Ranked {
        self.rank(trial, self.trials.get(trial.0 as usize).and_then(|seen| seen.value))
    }

    pub(super) fn set_brackets(&mut self, brackets: Vec<Bracket>) {
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

    pub(super) fn issued(&mut self, trial: TrialNumber, bracket: u32, rung: Option<u32>) {
        self.trials[trial.0 as usize].pending = true;
        let Some(rung) = rung else { return };
        self.rungs[bracket as usize][rung as usize].entered += 1;
        if rung > 0 {
            let standing = self.standing(trial);
            self.rungs[bracket as usize][rung as usize - 1].waiting.remove(&standing);
        }
    }

    pub(super) fn arrived(&mut self, trial: TrialNumber, at: Epoch, value: f64, bracket: u32, rung: Option<u32>) {
        let ranked = self.rank(trial, Some(value));
        let seen = &mut self.trials[trial.0 as usize];
        seen.pending = false;
        seen.epoch = at;
        seen.value = Some(value);
        if let Some(rung) = rung {
            self.rungs[bracket as usize][rung as usize].arrive(ranked);
        }
    }

    pub(super) fn failed(&mut self, trial: TrialNumber, bracket: u32, rung: Option<u32>) {
        let seen = &mut self.trials[trial.0 as usize];
        seen.pending = false;
        seen.failed = true;
        seen.value = None;
        if let Some(rung) = rung {
            self.rungs[bracket as usize][rung as usize].failed += 1;
        }
    }

    /// Passes over brackets at the front in which nothing is under way and nothing can follow.
    pub(super) fn settle(&mut self) {
        let is_settled = |(bracket, rungs): (&Bracket, &Vec<Rung>)| {
            let quiet = rungs.iter().all(|rung| rung.known() == rung.entered);
            let full = rungs[0].entered >= bracket.seats[0];
            let mut steps = rungs.iter().zip(rungs.iter().zip(&bracket.seats).skip(1));
            quiet && full && steps.all(|(rung, (above, &seats))| above.entered >= seats.min(rung.finished.len() as u32))
        };
        while self.brackets.get(self.settled).zip(self.rungs.get(self.settled)).is_some_and(is_settled) {
            self.settled += 1;
        }
    }

    /// Enters a complete trial's values, from epoch 1, into the running averages.
    pub(super) fn average(&mut self, values: impl Iterator<Item = Option<f64>>) {
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
