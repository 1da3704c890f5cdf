//! Decides what a study does next. Pure: without I/O, clock, threads or candle.
//!
//! One reducer ([`Engine::apply`], in `state`) serves live runs, resumption, replay and reports. [`Engine::plan`]
//! says what to issue next; the caller records the issue as an event and applies it. The sequence of orders depends
//! on the study file and on outcomes, never on how many workers ran, which was faster or what was killed: see `order`.

mod course;
mod event;
mod order;
mod plan;
mod price;
mod read;
mod state;
mod states;
mod table;
mod trial;

pub use course::{WorseThanChance, roc_auc};
pub use event::{EpochReport, Event, FailureClass, FileRef, Greeting, Outcome, WarmStart, WorkOrder};
pub use plan::{DoneReason, Plan};
pub use price::{Paid, Price, Prices};
pub use read::{Best, NeededCheckpoint, OpenOrder, Retry, Why};
pub use state::Inconsistent;
pub use table::{Certainty, PlannedBracket, PlannedRung, RungTable, planned_trials, rung_table};
pub use trial::{EpochFiles, EpochPoint, Failure, OrderProgress, TrialProgress, TrialState};

use crate::digest::Digest;
use crate::ids::OrderId;
use crate::ledger::Ledger;
use crate::sampler::{self, Sampler};
use crate::scheduler::{self, Next, Scheduler};
use crate::space::Params;
use crate::spec::{Needs, StudySpec};
use order::{Slots, VirtualWorkers};
use price::Purse;
use states::Race;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// The state of a study, and what follows from it.
#[derive(Clone, Debug)]
pub struct Engine {
    spec: StudySpec,
    scheduler: Arc<dyn Scheduler>,
    sampler: Arc<dyn Sampler>,
    trials: Vec<TrialProgress>,
    orders: Vec<OrderProgress>,
    open: BTreeSet<OrderId>,
    ledger: Ledger,
    workers: VirtualWorkers,
    /// Enqueued configurations, taken before the sampler is asked; the front one is unused.
    queue: VecDeque<Arc<Params>>,
    /// The planned numbers of trials under which orders were issued, ascending.
    totals: Vec<u32>,
    /// Trials that the study file asks for.
    target: u32,
    /// Trials planned for at present: `target`, or fewer while an order of a smaller budget is replayed.
    planned: u32,
    /// Trials asked for, even if the space has fewer configurations.
    wanted: Option<u32>,
    /// The scheduler's current decision.
    next: Next,
    used_of_lattice: u128,
    /// Epochs charged to the budget: those trained by finished orders, and all of open ones.
    charged: u64,
    purse: Purse,
    failures: u32,
    /// Results taken over from earlier studies.
    warm: Vec<WarmStart>,
    /// The latest of every worker's number.
    greetings: BTreeMap<u32, Greeting>,
    /// The arithmetic of the first worker that computed itself.
    arithmetic: Option<String>,
    /// Digests of the weights that backbones begin with.
    weights: BTreeMap<String, Digest>,
    race: Race,
}

impl Engine {
    /// The engine of a study before its first event.
    pub fn new(spec: &StudySpec) -> Self {
        let scheduler: Arc<dyn Scheduler> = scheduler::build(&spec.scheduler).into();
        let sampler: Arc<dyn Sampler> = sampler::build(&spec.sampler, &spec.space, spec.seed).into();
        let max_epochs = spec.runner.epochs();
        let target = planned_trials(spec).unwrap_or(u32::MAX);
        let slots = match spec.scheduler.needs() {
            _ if spec.learns() => Slots::Some(spec.run.virtual_workers.max(1) as usize),
            Needs::Nothing => Slots::Blind,
            Needs::Results | Needs::Order => Slots::Endless,
        };
        let mut engine = Self {
            ledger: Ledger::new(spec.objective.direction, max_epochs, scheduler.wants_averages()),
            wanted: spec.budget.n_trials.or_else(|| scheduler.whole_plan(max_epochs)),
            spec: spec.clone(),
            scheduler,
            sampler,
            trials: Vec::new(),
            orders: Vec::new(),
            open: BTreeSet::new(),
            workers: VirtualWorkers::new(slots),
            queue: spec.enqueue.iter().cloned().map(Arc::new).collect(),
            totals: Vec::new(),
            target,
            planned: target,
            next: Next::Idle,
            used_of_lattice: 0,
            charged: 0,
            purse: Purse::default(),
            failures: 0,
            warm: Vec::new(),
            greetings: BTreeMap::new(),
            arithmetic: None,
            weights: BTreeMap::new(),
            race: Race::default(),
        };
        engine.plan_for(engine.target);
        engine.advance();
        engine.settle_states();
        engine
    }

    /// The study as specified.
    pub fn spec(&self) -> &StudySpec {
        &self.spec
    }
}
