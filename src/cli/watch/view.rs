//! What `hpsearch watch` shows, as plain data: computed from a study's rows whenever they have changed.

use super::super::status::{self, Worker};
use crate::engine::{self, Certainty, RungTable};
use crate::fsx::Holder;
use crate::history::{OutcomeKind, Tables, TrialRow};
use crate::ids::{Epoch, TrialNumber};
use crate::report::comparison::Point;
use crate::report::course_of;
use crate::spec::{SchedulerSpec, StudySpec};
use crate::store::RunRow;
use crate::wording::counted;
use std::collections::BTreeMap;

/// A study in its current state.
#[derive(Debug)]
pub(super) struct View {
    pub name: String,
    pub metric: String,
    /// Who runs it now.
    pub holder: Option<Holder>,
    /// Where it stands if nobody does.
    pub last_run: String,
    /// Trials by state, and how many there will be.
    pub states: BTreeMap<String, usize>,
    pub planned_trials: Option<u32>,
    /// Epochs on record, and how many there will be.
    pub epochs: u64,
    pub planned_epochs: Option<u64>,
    /// Seconds of all runs, and the budget of them.
    pub seconds: f64,
    wall_seconds: Option<f64>,
    /// The run that goes on.
    pub run: Option<RunRow>,
    /// Trials begun and epochs to train in all orders: what [`View::left`] goes on from.
    work: Work,
    pub workers: Vec<Worker>,
    /// Ranked trials, then those without a result, then failed ones.
    pub trials: Vec<TrialRow>,
    /// How many of them are ranked.
    pub ranked: usize,
    pub rungs: Vec<Rungs>,
    /// How the best value rose.
    pub course: Vec<Point>,
    pub tables: Tables,
}

/// Rungs of a bracket, lowest first.
#[derive(Debug, PartialEq)]
pub(super) struct Rungs {
    pub bracket: u32,
    pub rungs: Vec<RungCount>,
}

/// How full a rung is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct RungCount {
    /// Epochs done there.
    pub epochs: u32,
    /// Trials that have finished it, and that are to; `None`: as many as come.
    pub done: u32,
    pub seats: Option<u32>,
}

/// What is left to do, in seconds of one worker.
#[derive(Clone, Copy, Debug, Default)]
struct Work {
    /// In orders under way and to come; `None` where it has no bound or no epoch was measured yet.
    left: Option<f64>,
    /// Of epochs finished in the current run.
    done: f64,
    certainty: Option<Certainty>,
}

impl View {
    pub fn new(spec: &StudySpec, tables: Tables, runs: &[RunRow], holder: Option<Holder>) -> Self {
        let direction = spec.objective.direction;
        let mut states: BTreeMap<String, usize> = BTreeMap::new();
        tables.trials.values().for_each(|t| *states.entry(t.state.as_ref().to_owned()).or_default() += 1);
        let table = engine::rung_table(spec);
        let ranking: Vec<TrialRow> = tables.ranking(direction).into_iter().cloned().collect();
        let ranked = ranking.len();
        let mut others: Vec<TrialRow> =
            tables.trials.values().filter(|trial| trial.place(direction).is_none()).cloned().collect();
        others.sort_by_key(|trial| (trial.state == engine::TrialState::Failed, trial.trial));
        let run = runs.last().filter(|run| holder.is_some() && run.ended.is_none()).cloned();
        let whole = tables.trials.values().filter(|trial| trial.state != engine::TrialState::Failed).map(|trial| {
            let epochs: Vec<_> = tables.epochs_of(trial.trial).map(|e| (e.reported_ms, e.value)).collect();
            (trial.trial, epochs.into_iter())
        });
        let started = tables.attempts.values().map(|attempt| attempt.started_ms).min();
        Self {
            name: spec.name.clone(),
            metric: spec.objective.metric.to_string(),
            last_run: status::last_run(runs),
            states,
            planned_trials: engine::planned_trials(spec),
            epochs: tables.epochs.len() as u64,
            planned_epochs: table.as_ref().map(|table| table.epochs_resuming),
            seconds: runs.iter().map(|run| run.seconds).sum(),
            wall_seconds: spec.budget.wall_seconds,
            work: work(spec, &tables, table.as_ref(), run.as_ref()),
            workers: status::workers(&tables, holder.as_ref()),
            trials: ranking.into_iter().chain(others).collect(),
            ranked,
            rungs: rungs(&tables, table.as_ref()),
            course: course_of(whole, started, direction).unwrap_or_default(),
            holder,
            run,
            tables,
        }
    }

    /// Seconds of all runs, with what has passed of the current one by `now_ms`.
    pub fn elapsed(&self, now_ms: u64) -> f64 {
        let current = self
            .run
            .as_ref()
            .map_or(0.0, |run| (now_ms.saturating_sub(run.started_ms) as f64 / 1000.0 - run.seconds).max(0.0));
        self.seconds + current
    }

    /// Seconds left at the pace of the current run, counting that many workers train at once as did until now, and whether
    /// that is a bound; at most those of a budget of time. `None` if nobody runs it, and, without such a budget, before the
    /// first epoch and where the trials are unbounded.
    pub fn left(&self, now_ms: u64) -> Option<(f64, Certainty)> {
        let run = self.run.as_ref()?;
        let passed = now_ms.saturating_sub(run.started_ms) as f64 / 1000.0;
        let at_pace = match self.work {
            Work { left: Some(left), done, certainty: Some(certainty) } if done > 0.0 && passed > 0.0 => {
                Some((left * passed / done, certainty))
            }
            _ => None,
        };
        let in_budget = self.wall_seconds.map(|limit| ((limit - self.elapsed(now_ms)).max(0.0), Certainty::AtMost));
        match (at_pace, in_budget) {
            (Some((at_pace, _)), Some(in_budget)) if in_budget.0 < at_pace => Some(in_budget),
            (at_pace, in_budget) => at_pace.or(in_budget),
        }
    }

    /// The objective after every epoch of a trial.
    pub fn curve(&self, trial: TrialNumber) -> Vec<(f64, f64)> {
        self.tables.epochs_of(trial).filter_map(|e| Some((f64::from(e.epoch.0), e.value?))).collect()
    }

    /// `12 of 60 trials: 8 complete, 4 running`
    pub fn counts(&self) -> String {
        let trials = match self.planned_trials {
            Some(planned) => format!("{} of {}", self.trials.len(), counted(planned, "trial")),
            None => counted(self.trials.len(), "trial"),
        };
        let states: Vec<String> = self.states.iter().map(|(state, n)| format!("{n} {state}")).collect();
        if states.is_empty() { trials } else { format!("{trials}: {}", states.join(", ")) }
    }
}

/// What is left: open orders at the pace of their own trials, and what is to come at the mean pace of this run.
fn work(spec: &StudySpec, tables: &Tables, table: Option<&RungTable>, run: Option<&RunRow>) -> Work {
    let Some(run) = run else { return Work::default() };
    let (mut done, mut measured) = (0.0, 0u64);
    for epoch in tables.epochs.values().filter(|epoch| epoch.reported_ms >= run.started_ms) {
        (done, measured) = (done + epoch.seconds, measured + 1);
    }
    if measured == 0 {
        return Work::default();
    }
    let mean = done / measured as f64;
    let (mut open, mut open_epochs) = (0.0, 0u64);
    for order in tables.orders.values().filter(|order| order.outcome.is_none()) {
        let Some(trial) = tables.trials.get(&order.trial) else { continue };
        let epochs = order.to.0.saturating_sub(trial.epochs);
        let own = if trial.epochs > 0 { trial.seconds / f64::from(trial.epochs) } else { mean };
        (open, open_epochs) = (open + f64::from(epochs) * own, open_epochs + u64::from(epochs));
    }
    let to_come = table.map(|table| match spec.scheduler {
        // Epochs that stopped and failed trials did without will never come.
        SchedulerSpec::None | SchedulerSpec::Median { .. } => {
            table.trials.saturating_sub(tables.trials.len() as u64) * u64::from(spec.runner.epochs())
        }
        _ => table.epochs_resuming.saturating_sub(tables.epochs.len() as u64 + open_epochs),
    });
    Work {
        left: to_come.map(|to_come| open + to_come as f64 * mean),
        done,
        certainty: table.map(|table| table.certainty),
    }
}

fn rungs(tables: &Tables, table: Option<&RungTable>) -> Vec<Rungs> {
    let mut found: BTreeMap<u32, BTreeMap<u32, (Epoch, u32)>> = BTreeMap::new();
    for order in tables.orders.values() {
        let Some(rung) = order.rung else { continue };
        let count = found.entry(order.bracket).or_default().entry(rung).or_insert((order.to, 0));
        count.1 += u32::from(order.outcome.is_some_and(|outcome| outcome != OutcomeKind::Failed));
    }
    let bracket = |(bracket, rungs): (u32, BTreeMap<u32, (Epoch, u32)>)| {
        let planned = table.and_then(|table| table.brackets.get(bracket as usize));
        let count = |(rung, (epochs, done)): (u32, (Epoch, u32))| {
            let seats = planned.and_then(|planned| planned.rungs.get(rung as usize)).map(|planned| planned.seats);
            RungCount { epochs: epochs.0, done, seats }
        };
        let begun = rungs.len();
        let later = planned.into_iter().flat_map(|planned| planned.rungs.iter().skip(begun));
        let later = later.map(|rung| RungCount { epochs: rung.epochs, done: 0, seats: Some(rung.seats) });
        Rungs { bracket, rungs: rungs.into_iter().map(count).chain(later).collect() }
    };
    found.into_iter().map(bracket).collect()
}
