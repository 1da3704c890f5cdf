//! Runs studies with one virtual worker on recorded objective values.

use hpsearch::engine::{Engine, EpochReport, Event, Plan};
use hpsearch::ids::{Epoch, TrialNumber};
use hpsearch::space::{Domain, Parameter, Params, SearchSpace, Value};
use hpsearch::spec::{SamplerSpec, SchedulerSpec, StudySpec};
use std::collections::{BTreeMap, HashMap};
use std::error::Error;

/// Recorded objective values.
pub trait Recording {
    /// The objective of a configuration after an epoch.
    fn value(&self, params: &Params, epoch: u32) -> f64;
}

/// A study with one virtual worker.
pub fn study(space: SearchSpace, sampler: SamplerSpec, scheduler: SchedulerSpec, n: u32, epochs: u32) -> StudySpec {
    let mut spec = StudySpec::external("recorded", space, epochs, n);
    spec.run.virtual_workers = 1;
    StudySpec { sampler, scheduler, ..spec }
}

/// Runs a study to its end, order by order.
#[allow(dead_code)] // where a log is wanted, `play_until` is used
pub fn play(spec: &StudySpec, recording: &dyn Recording) -> Engine {
    play_until(spec, recording, usize::MAX).0
}

/// Runs a study until so many trials have started and their orders are done; returns the engine and the event log.
pub fn play_until(spec: &StudySpec, recording: &dyn Recording, trials: usize) -> (Engine, Vec<Event>) {
    let (mut engine, mut log) = (Engine::new(spec), Vec::new());
    while engine.trials().len() < trials
        && let Plan::Issue(order) = engine.plan()
    {
        let id = order.order;
        let (from, to, params) = (order.from.0, order.to.0, order.params.clone());
        let mut push = |engine: &mut Engine, event: Event| {
            engine.apply(&event).expect("what follows from the engine's own order");
            log.push(event);
        };
        push(&mut engine, Event::OrderIssued { order });
        push(&mut engine, Event::AttemptStarted { order: id, attempt: 1, worker: 0, unix_ms: 0 });
        for epoch in from + 1..=to {
            let report = EpochReport::new(Epoch(epoch), recording.value(&params, epoch));
            push(&mut engine, Event::EpochReported { order: id, attempt: 1, report, unix_ms: 0 });
            if let Some(outcome) = engine.outcome_due(id) {
                push(&mut engine, Event::OrderFinished { order: id, outcome, unix_ms: 0 });
                break;
            }
        }
    }
    (engine, log)
}

/// A full table: a value for every combination of choices.
pub struct Table {
    pub space: SearchSpace,
    values: HashMap<String, f64>,
}

impl Table {
    /// Reads a table: columns `ordinal:NAME` and `categorical:NAME` with choices counted from 0, and `value`.
    pub fn read(file: &str) -> Result<Self, Box<dyn Error>> {
        let mut reader = csv::Reader::from_path(file)?;
        let headers = reader.headers()?.clone();
        let mut choices: Vec<i64> = vec![0; headers.len() - 1];
        let mut values = HashMap::new();
        for row in reader.records() {
            let row = row?;
            let digits: Vec<i64> = row.iter().take(choices.len()).map(str::parse).collect::<Result<_, _>>()?;
            for (most, &digit) in choices.iter_mut().zip(&digits) {
                *most = digit.max(*most);
            }
            values.insert(key(digits.iter().copied()), row.get(choices.len()).ok_or("no value")?.parse()?);
        }
        let parameters = headers.iter().zip(&choices).map(|(header, &most)| {
            let (kind, name) = header.split_once(':').ok_or_else(|| format!("column `{header}` has no kind"))?;
            let choices = (0..=most).map(Value::Int).collect();
            let domain = match kind {
                "ordinal" => Domain::Ordinal { choices },
                _ => Domain::Categorical { choices },
            };
            Ok(Parameter { name: name.to_owned(), domain, when: None })
        });
        Ok(Self { space: SearchSpace { parameters: parameters.collect::<Result<_, String>>()? }, values })
    }

    /// Every value, in no order.
    #[allow(dead_code)] // used by tests only
    pub fn values(&self) -> impl Iterator<Item = f64> + '_ {
        self.values.values().copied()
    }
}

fn key(digits: impl Iterator<Item = i64>) -> String {
    digits.map(|digit| digit.to_string()).collect::<Vec<_>>().join(",")
}

impl Recording for Table {
    fn value(&self, params: &Params, _: u32) -> f64 {
        let digits = self.space.parameters.iter().filter_map(|p| params.get(&p.name).and_then(Value::as_i64));
        self.values.get(&key(digits)).copied().unwrap_or(f64::NAN)
    }
}

/// Recorded learning curves of the configurations of one study.
pub struct Curves {
    pub name: String,
    /// Per configuration: validation values by epoch, and its true quality.
    configurations: Vec<(BTreeMap<u32, f64>, f64)>,
}

impl Curves {
    /// Reads studies from rows `study,configuration,epoch,validation,truth`, configurations counted from 0.
    pub fn read(file: &str) -> Result<Vec<Self>, Box<dyn Error>> {
        let mut studies: Vec<Self> = Vec::new();
        for row in csv::Reader::from_path(file)?.deserialize() {
            let (name, configuration, epoch, validation, truth): (String, usize, u32, f64, f64) = row?;
            if studies.last().is_none_or(|study| study.name != name) {
                studies.push(Self { name, configurations: Vec::new() });
            }
            let configurations = &mut studies.last_mut().ok_or("no study")?.configurations;
            if configurations.len() == configuration {
                configurations.push((BTreeMap::new(), truth));
            }
            configurations[configuration].0.insert(epoch, validation);
        }
        Ok(studies)
    }

    /// One parameter that names the configuration.
    pub fn space(&self) -> SearchSpace {
        let domain = Domain::Int { low: 0, high: self.configurations.len() as i64 - 1, step: 1, log: false };
        SearchSpace { parameters: vec![Parameter { name: "i".to_owned(), domain, when: None }] }
    }

    /// The full number of epochs.
    pub fn epochs(&self) -> u32 {
        self.configurations.iter().filter_map(|(curve, _)| curve.keys().last().copied()).max().unwrap_or(1)
    }

    /// How much better the truly best configuration is than this one.
    pub fn regret(&self, winner: TrialNumber) -> f64 {
        let best = self.configurations.iter().map(|&(_, truth)| truth).fold(f64::NEG_INFINITY, f64::max);
        best - self.configurations[winner.0 as usize].1
    }
}

impl Recording for Curves {
    /// The value recorded last up to an epoch: recordings hold the rungs.
    fn value(&self, params: &Params, epoch: u32) -> f64 {
        let index = params.get("i").and_then(Value::as_i64).unwrap_or(0) as usize;
        self.configurations[index].0.range(..=epoch).next_back().map_or(f64::NAN, |(_, &value)| value)
    }
}
