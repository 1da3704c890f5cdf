//! The rung table that `plan` prints.

use crate::ledger::Bracket;
use crate::sampler;
use crate::scheduler::build;
use crate::spec::{SchedulerSpec, StudySpec};
use serde::Serialize;
use std::collections::BTreeSet;

/// How many trials train for how long, as planned before anything has run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RungTable {
    /// The brackets, in the order in which they start.
    pub brackets: Vec<PlannedBracket>,
    /// Trials in all.
    pub trials: u64,
    /// Epochs in all if every rung trained from scratch.
    pub epochs_retraining: u64,
    /// Epochs in all when every rung resumes from the checkpoint of the rung below.
    pub epochs_resuming: u64,
    /// Whether the figures are exact or bounds.
    pub certainty: Certainty,
}

/// Whether a plan's figures are exact or bounds, as long as no trial fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Certainty {
    /// Exactly this.
    Exact,
    /// At least this (asha: early promotions come on top).
    AtLeast,
    /// At most this (median: trials stop early).
    AtMost,
}

/// One bracket.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PlannedBracket {
    /// Its rungs, lowest first.
    pub rungs: Vec<PlannedRung>,
    /// Epochs if every rung trained from scratch.
    pub epochs_retraining: u64,
    /// Epochs when every rung resumes from the checkpoint of the rung below.
    pub epochs_resuming: u64,
}

/// One rung.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct PlannedRung {
    /// Trials that reach it.
    pub seats: u32,
    /// Epochs that each has done by then.
    pub epochs: u32,
    /// Of these, epochs since the rung below.
    pub added: u32,
}

impl std::fmt::Display for PlannedRung {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}@{}", self.seats, self.epochs)
    }
}

impl PlannedBracket {
    fn new(bracket: &Bracket) -> Self {
        let below = std::iter::once(0).chain(bracket.epochs.iter().copied());
        let steps = bracket.seats.iter().zip(&bracket.epochs).zip(below);
        let rungs: Vec<_> =
            steps.map(|((&seats, &epochs), below)| PlannedRung { seats, epochs, added: epochs - below }).collect();
        let sum = |each: fn(&PlannedRung) -> u32| rungs.iter().map(|r| u64::from(r.seats) * u64::from(each(r))).sum();
        Self { epochs_retraining: sum(|r| r.epochs), epochs_resuming: sum(|r| r.added), rungs }
    }
}

/// The rung table of a study. `None` where the number of trials has no bound.
pub fn rung_table(spec: &StudySpec) -> Option<RungTable> {
    let trials = planned_trials(spec)?;
    let max_epochs = spec.runner.epochs();
    let mut brackets = build(&spec.scheduler).brackets(&[trials], max_epochs);
    if brackets.is_empty() {
        brackets.push(Bracket { seats: vec![trials], epochs: vec![max_epochs] });
    }
    let brackets: Vec<_> = brackets.iter().map(PlannedBracket::new).collect();
    Some(RungTable {
        trials: u64::from(trials),
        epochs_retraining: brackets.iter().map(|b| b.epochs_retraining).sum(),
        epochs_resuming: brackets.iter().map(|b| b.epochs_resuming).sum(),
        brackets,
        certainty: match spec.scheduler {
            SchedulerSpec::Asha { .. } => Certainty::AtLeast,
            SchedulerSpec::Median { .. } => Certainty::AtMost,
            _ => Certainty::Exact,
        },
    })
}

/// Trials that a study will start: those of its budget (by default one round of hyperband) or of a whole finite space,
/// whichever is less. `None` where there is no bound.
pub fn planned_trials(spec: &StudySpec) -> Option<u32> {
    let sampler = sampler::build(&spec.sampler, &spec.space, spec.seed);
    let size = sampler.lattice().map(|lattice| {
        let beside = spec.enqueue.iter().filter(|params| !lattice.contains(params));
        let beside: BTreeSet<_> = beside.map(|params| params.digest()).collect();
        u32::try_from(lattice.len()).unwrap_or(u32::MAX).saturating_add(beside.len() as u32)
    });
    let wanted = spec.budget.n_trials.or_else(|| build(&spec.scheduler).whole_plan(spec.runner.epochs()));
    match (wanted, size) {
        (Some(wanted), Some(size)) => Some(wanted.min(size)),
        (wanted, size) => wanted.or(size),
    }
}
