//! What happens next in a study: pure, without I/O, clock, threads or candle.
//!
//! One reducer ([`Engine::apply`], in `state`) serves live runs, resumption, replay and reports. [`Engine::plan`]
//! says what to issue next; the caller records the issue as an event and applies it. The sequence of orders depends
//! on the study file and on outcomes, never on how many workers ran, which was faster or what was killed: see `order`.

mod event;
mod ledger;
mod order;
mod plan;
mod read;
mod score;
mod state;
mod trial;

pub use event::{EpochReport, Event, FailureClass, FileRef, Outcome, StopCurve, WorkOrder};
pub use ledger::{Ledger, Observation, Rung};
pub use plan::{DoneReason, Plan};
pub use read::{Best, NeededCheckpoint, OpenOrder, Retry, TrialView, Why};
pub use score::{Ranked, Score};
pub use state::Inconsistent;
pub use trial::{EpochFiles, EpochPoint, Failure, OrderRecord, Trial, TrialState};

use crate::ids::OrderId;
use crate::sampler::{self, Sampler};
use crate::scheduler::{self, Next, Scheduler};
use crate::space::Params;
use crate::spec::{RunnerSpec, StudySpec};
use order::VirtualWorkers;
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

/// The state of a study, and what follows from it.
#[derive(Clone, Debug)]
pub struct Engine {
    spec: StudySpec,
    scheduler: Arc<dyn Scheduler>,
    sampler: Arc<dyn Sampler>,
    trials: Vec<Trial>,
    orders: Vec<OrderRecord>,
    open: BTreeSet<OrderId>,
    ledger: Ledger,
    workers: VirtualWorkers,
    /// Known configurations that go first; the front one is not used yet.
    queue: VecDeque<Arc<Params>>,
    /// Totals of trials under which orders were issued.
    totals: Vec<u32>,
    /// Trials that the study file asks for, and those planned for just now (less only within a replay).
    target: u32,
    planned: u32,
    /// No number of trials was given: the whole finite space is the plan.
    whole_lattice: bool,
    /// The decision that stands.
    next: Next,
    used_of_lattice: u128,
    /// Epochs of finished orders as trained, of open ones as issued.
    charged: u64,
    failures: u32,
}

impl Engine {
    /// The engine of a study before its first event.
    pub fn new(spec: &StudySpec) -> Self {
        let scheduler: Arc<dyn Scheduler> = scheduler::build(&spec.scheduler).into();
        let sampler: Arc<dyn Sampler> = sampler::build(&spec.sampler, &spec.space, spec.seed).into();
        let max_epochs = max_epochs(&spec.runner);
        let size = sampler.lattice().map(|lattice| u32::try_from(lattice.len()).unwrap_or(u32::MAX));
        let whole_plan = scheduler.whole_plan(max_epochs);
        let target = spec.budget.n_trials.or(whole_plan).or(size).unwrap_or(u32::MAX);
        let learns = scheduler.learns() || sampler.learns();
        let slots = if learns { spec.run.virtual_workers.max(1) as usize } else { usize::MAX };
        let mut engine = Self {
            ledger: Ledger::new(spec.objective.direction, max_epochs, scheduler.wants_averages()),
            whole_lattice: spec.budget.n_trials.is_none() && whole_plan.is_none() && size.is_some(),
            spec: spec.clone(),
            scheduler,
            sampler,
            trials: Vec::new(),
            orders: Vec::new(),
            open: BTreeSet::new(),
            workers: VirtualWorkers::new(slots),
            queue: VecDeque::new(),
            totals: Vec::new(),
            target,
            planned: target,
            next: Next::Idle,
            used_of_lattice: 0,
            charged: 0,
            failures: 0,
        };
        for params in &spec.enqueue {
            engine.enqueue(params.clone());
        }
        engine.plan_for(engine.target);
        engine.advance();
        engine
    }

    /// Gives a sampler that learns the results of an earlier study. Part of the study's identity: give the same at
    /// every opening, before any event.
    pub fn with_prior(mut self, results: Vec<(Params, f64)>) -> Self {
        self.ledger.prior = results.into_iter().filter(|(_, value)| value.is_finite()).collect();
        self
    }

    /// The study that this is the engine of.
    pub fn spec(&self) -> &StudySpec {
        &self.spec
    }
}

/// The full number of epochs.
fn max_epochs(runner: &RunnerSpec) -> u32 {
    match runner {
        RunnerSpec::Image { training, .. } => training.epochs,
        RunnerSpec::Command(command) => command.epochs,
        RunnerSpec::Synthetic { epochs, .. } => *epochs,
    }
}
