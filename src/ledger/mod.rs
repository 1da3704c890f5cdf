//! What samplers and schedulers may see: orders issued, and outcomes of retired orders only.
//!
//! Nothing here depends on when a real worker finished: see `engine::order` for when an order retires. Samplers and
//! schedulers only read the ledger; only the engine writes it.

mod bracket;
mod observation;
mod rung;
mod score;
mod stop_curve;
mod writing;

pub use bracket::Bracket;
pub use observation::{EarlierResult, Observation};
pub use rung::Rung;
pub use score::{Place, Ranked, Score};
pub use stop_curve::StopCurve;

use crate::digest::Digest;
use crate::ids::{Epoch, TrialNumber};
use crate::space::Params;
use crate::spec::Direction;
use std::collections::HashSet;

/// The memory of samplers and schedulers.
#[derive(Clone, Debug)]
pub struct Ledger {
    /// Which way is better.
    pub direction: Direction,
    /// The full number of epochs.
    pub max_epochs: u32,
    /// Results of earlier studies, for samplers that learn.
    earlier: Vec<EarlierResult>,
    trials: Vec<Observation>,
    used: HashSet<Digest>,
    enqueued: u32,
    brackets: Vec<Bracket>,
    rungs: Vec<Vec<Rung>>,
    /// Whether one more trial may start: one is planned, and the space is not exhausted.
    may_start: bool,
    /// Brackets before this one have nothing left to decide.
    settled: usize,
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

    /// Results of earlier studies, oldest first.
    pub fn earlier(&self) -> &[EarlierResult] {
        &self.earlier
    }

    /// The number of trials started.
    pub fn started(&self) -> u32 {
        self.trials.len() as u32
    }

    /// Whether one more trial may start.
    pub fn may_start(&self) -> bool {
        self.may_start
    }

    /// Whether a configuration was already used in this study.
    pub fn is_used(&self, params: &Params) -> bool {
        self.used.contains(&params.digest())
    }

    /// The number of trials whose configuration a user enqueued.
    pub fn enqueued(&self) -> u32 {
        self.enqueued
    }

    /// The brackets with their indices and rungs, without the settled ones at the front.
    pub fn open_brackets(&self) -> impl Iterator<Item = (u32, &Bracket, &[Rung])> {
        self.brackets
            .iter()
            .zip(&self.rungs)
            .enumerate()
            .skip(self.settled)
            .map(|(index, (bracket, rungs))| (index as u32, bracket, rungs.as_slice()))
    }

    /// Brackets before this one have nothing left to decide.
    pub fn settled(&self) -> usize {
        self.settled
    }

    /// One bracket with its rungs.
    pub fn bracket(&self, index: u32) -> Option<(&Bracket, &[Rung])> {
        self.brackets.get(index as usize).zip(self.rungs.get(index as usize).map(Vec::as_slice))
    }

    /// The sorted running averages of complete trials at an epoch.
    pub fn averages(&self, epoch: Epoch) -> &[f64] {
        self.averages.get(epoch.0 as usize).map_or(&[], Vec::as_slice)
    }

    /// The rank of a trial with this value.
    pub fn rank(&self, trial: TrialNumber, value: Option<f64>) -> Ranked {
        Ranked { score: Score::new(self.direction, value), trial }
    }

    /// The rank of a trial by its latest retired result.
    pub fn standing(&self, trial: TrialNumber) -> Ranked {
        self.rank(trial, self.trials.get(trial.0 as usize).and_then(|seen| seen.value))
    }
}
