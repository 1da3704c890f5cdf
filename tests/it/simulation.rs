//! Plays studies on the pure engine: any number of workers, any order of arrival, kills of workers and of the
//! coordinator. Objectives are functions of (configuration, epoch), so a study's results depend on its orders alone.

use hpsearch::engine::{
    DoneReason, Engine, EpochReport, Event, FailureClass, FileRef, Paid, Plan, Price, Prices, Retry, TrialProgress,
    TrialState, WorkOrder,
};
use hpsearch::history::{History, Row, Tables};
use hpsearch::ids::{Epoch, OrderId, TrialNumber};
use hpsearch::rng::{Purpose, StreamRng};
use hpsearch::space::{Condition, Domain, Parameter, Params, SearchSpace, Value};
use hpsearch::spec::{FailurePolicies, FrozenKey, SamplerSpec, SchedulerSpec, StudySpec};
use hpsearch::store::{Claim, Reader, Store, in_folder};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ops::Range;
use std::sync::Arc;

/// The objective of a configuration after an epoch; `None`: undefined.
pub type Curve<'a> = &'a dyn Fn(&Params, u32) -> Option<f64>;

/// A study to be simulated.
pub fn study(space: SearchSpace, sampler: SamplerSpec, scheduler: SchedulerSpec, n: u32, epochs: u32) -> StudySpec {
    let spec = StudySpec::external("simulated", space, epochs, n);
    let failures = FailurePolicies { lost: u32::MAX, ..FailurePolicies::default() };
    StudySpec { seed: 1, sampler, scheduler, failures, ..spec }
}

/// Every kind of parameter, with conditions two deep.
pub fn mixed_space() -> SearchSpace {
    let text = |t: &str| Value::Text(t.to_owned());
    let parameter = |name: &str, domain, when: Option<(&str, &str)>| Parameter {
        name: name.to_owned(),
        domain,
        when: when.map(|(p, value)| Condition { parameter: p.to_owned(), values: vec![text(value)] }),
    };
    SearchSpace {
        parameters: vec![
            parameter("rate", Domain::Float { low: 1e-5, high: 1e-1, step: None, log: true }, None),
            parameter("dropout", Domain::Float { low: 0.0, high: 0.5, step: Some(0.1), log: false }, None),
            parameter("batch", Domain::Ordinal { choices: [8, 16, 32].map(Value::Int).to_vec() }, None),
            parameter("head", Domain::Categorical { choices: vec![text("linear"), text("hidden")] }, None),
            parameter("units", Domain::Int { low: 8, high: 512, step: 1, log: true }, Some(("head", "hidden"))),
            parameter(
                "act",
                Domain::Categorical { choices: vec![text("relu"), text("swish")] },
                Some(("head", "hidden")),
            ),
            parameter("beta", Domain::Float { low: 0.5, high: 2.0, step: None, log: false }, Some(("act", "swish"))),
            parameter("layers", Domain::Int { low: 1, high: 7, step: 2, log: false }, None),
            parameter("images", Domain::Fixed { value: Value::Int(75) }, None),
        ],
    }
}

/// One continuous parameter `x` in [0, 1].
pub fn line() -> SearchSpace {
    let domain = Domain::Float { low: 0.0, high: 1.0, step: None, log: false };
    SearchSpace { parameters: vec![Parameter { name: "x".to_owned(), domain, when: None }] }
}

/// One integer parameter `i` from 0 to `n` - 1.
pub fn numbers(n: i64) -> SearchSpace {
    let domain = Domain::Int { low: 0, high: n - 1, step: 1, log: false };
    SearchSpace { parameters: vec![Parameter { name: "i".to_owned(), domain, when: None }] }
}

/// A rugged objective that rises with the epochs; every tenth configuration diverges on its way.
pub fn rugged(params: &Params, epoch: u32) -> Option<f64> {
    let key = u64::from_le_bytes(params.digest().as_bytes()[..8].try_into().unwrap());
    let mut rng = StreamRng::keyed(key, Purpose::Test, &[]);
    if rng.unit() < 0.1 && epoch > rng.below(6) as u32 {
        return None;
    }
    let (level, speed) = (rng.unit(), 0.1 + rng.unit());
    let noise = StreamRng::keyed(key, Purpose::Test, &[u64::from(epoch)]).unit() * 0.1;
    Some(level * (1.0 - (-speed * f64::from(epoch)).exp()) + noise)
}

/// How a study is run, which must not change its results.
#[derive(Clone, Debug)]
pub struct Conditions {
    /// Real workers.
    pub workers: usize,
    /// Seed of arrival order and kills.
    pub seed: u64,
    /// Probability that a step kills a worker or the coordinator.
    pub kills: f64,
    /// Orders planned ahead of need.
    pub ahead: usize,
}

impl Conditions {
    pub const STRAIGHT: Self = Self { workers: 1, seed: 0, kills: 0.0, ahead: 0 };
}

struct Attempt {
    order: WorkOrder,
    attempt: u32,
    epoch: u32,
}

/// A study under way.
pub struct Simulation<'a> {
    pub engine: Engine,
    /// Folds the log into rows, as a store's history does.
    history: History,
    pub tables: Tables,
    /// A database that receives every row, where one is compared.
    pub database: Option<Database>,
    pub log: Vec<Event>,
    curve: Curve<'a>,
    running: Vec<Attempt>,
    /// Epochs trained in all, those lost to kills among them.
    pub trained: u64,
    /// Checkpoints on disk: all that the engine does not need are deleted at once.
    files: BTreeSet<String>,
    /// Attempts whose newest checkpoint had been deleted.
    pub missed: u32,
}

impl<'a> Simulation<'a> {
    pub fn new(spec: &StudySpec, curve: Curve<'a>) -> Self {
        Self {
            engine: priced(spec, Engine::new(spec)),
            history: History::new(spec),
            tables: Tables::default(),
            database: None,
            log: Vec::new(),
            curve,
            running: Vec::new(),
            trained: 0,
            files: BTreeSet::new(),
            missed: 0,
        }
    }

    pub fn apply(&mut self, event: Event) {
        let before: Vec<TrialState> = self.engine.trials().map(|trial| trial.state).collect();
        self.engine.apply(&event).unwrap_or_else(|e| panic!("failed to {e}\n{event:?}"));
        self.check_states(&before);
        self.check_rows(&event);
        if let Event::EpochReported { report: EpochReport { checkpoint: Some(file), .. }, .. } = &event {
            self.files.insert(file.path.clone());
        }
        if matches!(event, Event::OrderFinished { .. }) {
            let needed = self.engine.needed_checkpoints();
            let needed: HashSet<&str> = needed.iter().map(|n| n.file.path.as_str()).collect();
            self.files.retain(|path| needed.contains(path.as_str()));
        }
        self.log.push(event);
    }

    /// The states that the engine keeps equal those derived from scratch, and it reports every change of one.
    fn check_states(&self, before: &[TrialState]) {
        let mut moved = Vec::new();
        for trial in self.engine.trials() {
            assert_eq!(trial.state, self.engine.derived_state(trial), "trial {}", trial.number);
            match before.get(trial.number.0 as usize) {
                Some(before) if *before == trial.state => {}
                Some(_) => moved.push(trial.number),
                None => assert_eq!(trial.state, TrialState::Waiting),
            }
        }
        assert_eq!(self.engine.changed(), moved);
    }

    /// The rows agree with the engine on every trial and order, and on the ranking.
    fn check_rows(&mut self, event: &Event) {
        let mut rows = Vec::new();
        self.history.apply(event, &mut rows).unwrap();
        rows.iter().for_each(|row| self.tables.put(row.clone()));
        let engine = &self.engine;
        assert_eq!(self.tables.trials.len(), engine.trials().len());
        for trial in engine.trials() {
            let row = &self.tables.trials[&trial.number];
            let last = latest(trial);
            assert_eq!((row.state, row.value, row.epochs), (trial.state, last, trial.curve.len() as u32));
            assert_eq!((row.result, row.result_epochs), (trial.value, trial.epoch.0));
            assert_eq!((row.bracket, row.rung), (trial.bracket, trial.rung));
            assert_eq!(row.seconds, trial.curve.iter().map(|point| point.seconds).sum::<f64>());
            let epochs: Vec<_> = self.tables.epochs_of(trial.number).map(|row| row.value).collect();
            let curve = trial.curve.iter().map(|point| point.value.filter(|v| v.is_finite()));
            assert_eq!(epochs, curve.collect::<Vec<_>>());
            assert_eq!(self.tables.failure_of(trial.number).map(|f| f.class), trial.failure.as_ref().map(|f| f.class));
        }
        for (number, order) in engine.orders().iter().enumerate() {
            let row = &self.tables.orders[&OrderId(number as u32)];
            assert_eq!((row.trial, row.from, row.to), (order.trial, order.from, order.to));
            assert_eq!(row.outcome.is_some(), order.outcome.is_some());
            let attempts = self.tables.attempts.range((row.order, 0)..=(row.order, u32::MAX));
            let (going_on, ended): (Vec<_>, Vec<_>) = attempts.map(|(_, a)| a).partition(|a| a.ended.is_none());
            assert_eq!((going_on.len() + ended.len()) as u32, order.attempts);
            assert_eq!(going_on.len(), usize::from(order.running));
        }
        let direction = engine.spec().objective.direction;
        let ranking: Vec<_> = self.tables.ranking(direction).iter().map(|row| row.trial).collect();
        assert_eq!(ranking, engine.ranking().iter().map(|trial| trial.number).collect::<Vec<_>>());
        assert_eq!(ranking.first().copied(), engine.best().map(|best| best.trial));
        if let Some(database) = &mut self.database {
            database.follow(event, &rows, engine);
        }
    }

    /// Checkpoints on disk.
    pub fn files(&self) -> &BTreeSet<String> {
        &self.files
    }

    /// Runs to the end.
    pub fn run(&mut self, how: &Conditions) -> DoneReason {
        let mut rng = StreamRng::keyed(how.seed, Purpose::Test, &[how.workers as u64]);
        loop {
            let waiting = self.waiting();
            let idle = how.workers - self.running.len();
            if idle > 0 && waiting.len() < 1 + how.ahead {
                match self.engine.plan() {
                    Plan::Issue(order) => self.apply(Event::OrderIssued { order }),
                    Plan::Done(reason) => return reason,
                    Plan::Wait => assert!(self.engine.open_orders().next().is_some(), "waits for nothing"),
                }
            }
            if idle > 0
                && let Some(&order) = self.waiting().first()
            {
                self.start(order);
            }
            if rng.unit() < how.kills {
                self.kill(&mut rng);
            }
            // The next epoch of a random worker; sometimes none.
            if !self.running.is_empty() && (self.running.len() == how.workers || rng.unit() < 0.7) {
                let at = rng.below(self.running.len() as u64) as usize;
                self.epoch(at, &mut rng, how.kills);
            }
        }
    }

    fn waiting(&self) -> Vec<OrderId> {
        let open = self.engine.open_orders().map(|open| open.order.order);
        open.filter(|id| !self.running.iter().any(|a| a.order.order == *id)).collect()
    }

    fn start(&mut self, id: OrderId) {
        let open = self.engine.open_orders().find(|open| open.order.order == id).unwrap();
        let (order, attempt) = (open.order.clone(), open.next_attempt());
        let there = open.checkpoints.iter().find(|files| self.files.contains(&files.checkpoint.path));
        let epoch = there.map_or(0, |files| files.epoch.0);
        self.missed += u32::from(open.checkpoints.first().map_or(0, |files| files.epoch.0) != epoch);
        self.apply(Event::AttemptStarted { order: id, attempt, worker: 0, unix_ms: 0 });
        self.running.push(Attempt { order, attempt, epoch });
    }

    fn epoch(&mut self, at: usize, rng: &mut StreamRng, kills: f64) {
        let Attempt { order, attempt, epoch } = &mut self.running[at];
        *epoch += 1;
        let (id, attempt, now) = (order.order, *attempt, *epoch);
        let (trial, params) = (order.trial, order.params.clone());
        self.trained += 1;
        let value = (self.curve)(&params, now);
        let digest = hpsearch::digest::Digest::of(b"");
        let checkpoint = Some(FileRef { path: format!("checkpoints/{trial}-{now}"), digest, bytes: 1 });
        let report = EpochReport { epoch: Epoch(now), value, checkpoint, ..EpochReport::default() };
        self.apply(Event::EpochReported { order: id, attempt, report, unix_ms: 0 });
        if self.engine.outcome_due(id).is_some() && rng.unit() < kills {
            // Dies between the last report and the outcome: the next coordinator finishes the order.
            self.restart(&self.engine.spec().clone());
        }
        self.finish_due(id);
    }

    /// Trains one order to its end, by a worker of its own.
    pub fn train(&mut self, order: OrderId) {
        self.start(order);
        let mut rng = StreamRng::keyed(0, Purpose::Test, &[]);
        while let Some(at) = self.running.iter().position(|attempt| attempt.order.order == order) {
            self.epoch(at, &mut rng, 0.0);
        }
    }

    fn finish_due(&mut self, order: OrderId) {
        if let Some(outcome) = self.engine.outcome_due(order) {
            self.running.retain(|attempt| attempt.order.order != order);
            self.apply(Event::OrderFinished { order, outcome, unix_ms: 0 });
        }
    }

    fn kill(&mut self, rng: &mut StreamRng) {
        if rng.unit() < 0.5 && !self.running.is_empty() {
            let at = rng.below(self.running.len() as u64) as usize;
            let Attempt { order, attempt, .. } = self.running.remove(at);
            let (order, class) = (order.order, FailureClass::Lost);
            assert_eq!(self.engine.after_failure(order, class), Retry::Retry);
            self.apply(Event::AttemptLost { order, attempt, class, reason: String::new(), unix_ms: 0 });
        } else {
            self.restart(&self.engine.spec().clone());
        }
    }

    /// The coordinator dies with its workers, and another one reads the log.
    pub fn restart(&mut self, spec: &StudySpec) {
        self.running.clear();
        self.engine = replay(spec, &self.log);
        self.history = History::new(spec);
        let mut rows = Vec::new();
        self.log.iter().for_each(|event| self.history.apply(event, &mut rows).unwrap());
        // A raised budget changes states without an event.
        let rows = self.history.trial_rows();
        rows.iter().for_each(|row| self.tables.put(row.clone()));
        if let Some(database) = &mut self.database {
            database.store.replace_spec(spec, &rows).unwrap();
        }
    }

    /// The orders, each as JSON.
    pub fn orders(&self) -> Vec<String> {
        (0..self.engine.orders().len() as u32)
            .map(|id| serde_json::to_string(&self.engine.order(OrderId(id)).unwrap()).unwrap())
            .collect()
    }

    /// The study's results: every trial's state, epochs and values, and the best one.
    pub fn results(&self) -> Vec<String> {
        let trial = |t: &TrialProgress| {
            let values: Vec<_> = t.values().map(|(_, v)| v.map(f64::to_bits)).collect();
            format!(
                "{} {:?} {:?} {} {:?} {:?}",
                t.number,
                t.state,
                t.params,
                t.epoch,
                t.value.map(f64::to_bits),
                values
            )
        };
        self.engine.trials().map(trial).chain([format!("{:?}", self.engine.best())]).collect()
    }

    /// Trials by state.
    pub fn states(&self) -> BTreeMap<String, usize> {
        let mut states = BTreeMap::new();
        for trial in self.engine.trials() {
            *states.entry(format!("{:?}", trial.state)).or_default() += 1;
        }
        states
    }

    /// Epochs of every trial added up, each counted once.
    pub fn epochs(&self) -> u64 {
        self.engine.trials().map(|trial| trial.curve.len() as u64).sum()
    }

    pub fn complete(&self) -> usize {
        self.engine.trials().filter(|trial| trial.state == TrialState::Complete).count()
    }
}

/// The objective after a trial's latest epoch, as rows have it: undefined if not finite, none for failed trials.
fn latest(trial: &TrialProgress) -> Option<f64> {
    let value = trial.curve.last()?.value?;
    (value.is_finite() && trial.failure.is_none()).then_some(value)
}

/// A study's database beside a simulation.
pub struct Database {
    store: Box<dyn Store>,
    reader: Box<dyn Reader>,
    sql: rusqlite::Connection,
    _claim: Box<dyn Claim>,
    _folder: tempfile::TempDir,
}

impl Database {
    pub fn new(spec: &StudySpec) -> Self {
        // In memory where there is such a folder: nothing here needs a disk.
        let memory = std::path::Path::new("/dev/shm");
        let folder = tempfile::tempdir_in(memory).or_else(|_| tempfile::tempdir()).unwrap();
        let backend = in_folder(folder.path());
        let claim = backend.claim(&spec.name).unwrap();
        let store = claim.create(spec).unwrap();
        let reader = backend.read(&spec.name).unwrap();
        let sql = rusqlite::Connection::open(folder.path().join(&spec.name).join("study.db")).unwrap();
        Self { store, reader, sql, _claim: claim, _folder: folder }
    }

    /// Stores an event; afterwards SQL must agree with the engine on every trial and on the ranking.
    fn follow(&mut self, event: &Event, rows: &[Row], engine: &Engine) {
        self.store.append(self.store.len(), std::slice::from_ref(event), rows).unwrap();
        let ask = "SELECT state, value, epochs, result, result_epochs FROM trial ORDER BY trial";
        let mut statement = self.sql.prepare_cached(ask).unwrap();
        let mut found = statement.query([]).unwrap();
        for trial in engine.trials() {
            let row = found.next().unwrap().unwrap();
            let last = latest(trial);
            assert_eq!(row.get_ref(0).unwrap().as_str().unwrap(), trial.state.as_ref(), "trial {}", trial.number);
            assert_eq!(row.get::<_, Option<f64>>(1).unwrap(), last);
            assert_eq!(row.get::<_, u32>(2).unwrap(), trial.curve.len() as u32);
            assert_eq!(row.get::<_, Option<f64>>(3).unwrap(), trial.value);
            assert_eq!(row.get::<_, u32>(4).unwrap(), trial.epoch.0);
        }
        assert!(found.next().unwrap().is_none());
        let ask = "SELECT trial FROM ranking WHERE value IS NOT NULL AND state <> 'failed' ORDER BY place";
        let mut statement = self.sql.prepare_cached(ask).unwrap();
        let ranked = statement.query_map([], |row| row.get(0).map(TrialNumber)).unwrap();
        let ranked: Vec<_> = ranked.collect::<Result<_, _>>().unwrap();
        assert_eq!(ranked, engine.ranking().iter().map(|trial| trial.number).collect::<Vec<_>>());
    }

    /// The stored tables equal those in memory.
    pub fn check(&self, tables: &Tables) {
        assert_eq!(self.reader.tables().unwrap(), *tables);
    }
}

/// An engine that has replayed a log.
pub fn replay(spec: &StudySpec, log: &[Event]) -> Engine {
    let mut engine = Engine::new(spec);
    for event in log {
        engine.apply(event).unwrap_or_else(|e| panic!("failed to {e}\n{event:?}"));
    }
    priced(spec, engine)
}

/// Prices by number of layers, 1 to 343, where the study weighs costs.
#[derive(Debug)]
struct ByLayers;

impl Prices for ByLayers {
    fn shared(&self, _: &Params, _: Range<u32>) -> Vec<(FrozenKey, u32)> {
        Vec::new()
    }

    fn price(&self, params: &Params, _: Range<u32>, _: &Paid) -> Price {
        Price::new(500, 1000 * params.int("layers").unwrap_or(1).pow(3) as u64)
    }
}

fn priced(spec: &StudySpec, mut engine: Engine) -> Engine {
    if spec.sampler.weighs_costs() {
        engine.set_prices(Arc::new(ByLayers));
    }
    engine
}

/// Every scheduler, for `epochs` up to 9.
pub fn schedulers() -> [SchedulerSpec; 6] {
    [
        SchedulerSpec::None,
        SchedulerSpec::Sha { min_resource: 1, reduction_factor: 3 },
        SchedulerSpec::Asha { min_resource: 1, reduction_factor: 3 },
        SchedulerSpec::Hyperband { min_resource: 1, reduction_factor: 3, algorithm1: false },
        SchedulerSpec::Hyperband { min_resource: 1, reduction_factor: 2, algorithm1: true },
        SchedulerSpec::Median { warmup_epochs: 1, min_trials: 3 },
    ]
}

/// A TPE that weighs costs.
pub const COST_AWARE: SamplerSpec =
    SamplerSpec::Tpe { n_startup: 5, n_ei_candidates: 8, cost_aware: true, warm_start: Vec::new() };

/// Every sampler.
pub fn samplers() -> [SamplerSpec; 6] {
    [
        SamplerSpec::Random,
        SamplerSpec::Grid { points: 3 },
        SamplerSpec::Sobol,
        SamplerSpec::Tpe { n_startup: 5, n_ei_candidates: 8, cost_aware: false, warm_start: Vec::new() },
        COST_AWARE,
        SamplerSpec::Gp { n_startup: 5, warm_start: Vec::new() },
    ]
}
