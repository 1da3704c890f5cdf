//! What the search itself costs: a suggestion of TPE, a decision, a replay.

#[path = "quality/play.rs"]
#[allow(dead_code)] // the readers of recordings are used by others
mod play;

use criterion::{Criterion, criterion_group, criterion_main};
use hpsearch::engine::{Engine, Event};
use hpsearch::space::{Condition, Domain, Parameter, Params, SearchSpace, Value};
use hpsearch::spec::{SamplerSpec, SchedulerSpec, StudySpec};
use play::Recording;
use std::hint::black_box;

const TPE: SamplerSpec =
    SamplerSpec::Tpe { n_startup: 10, n_ei_candidates: 24, cost_aware: false, warm_start: Vec::new() };
const SHA: SchedulerSpec = SchedulerSpec::Sha { min_resource: 1, reduction_factor: 3 };
const ASHA: SchedulerSpec = SchedulerSpec::Asha { min_resource: 1, reduction_factor: 3 };

/// Eight parameters, as a transfer-learning study has them.
fn space() -> SearchSpace {
    let text = |t: &str| Value::Text(t.to_owned());
    let float = |low, high, log| Domain::Float { low, high, step: None, log };
    let parameter = |name: &str, domain| Parameter { name: name.to_owned(), domain, when: None };
    let hidden = Condition { parameter: "head".to_owned(), values: vec![text("hidden")] };
    SearchSpace {
        parameters: vec![
            parameter("learning_rate", float(1e-5, 1e-1, true)),
            parameter("weight_decay", float(1e-6, 1e-1, true)),
            parameter("dropout", float(0.0, 0.6, false)),
            parameter("label_smoothing", float(0.0, 0.2, false)),
            parameter("batch_size", Domain::Ordinal { choices: [8, 16, 32, 64].map(Value::Int).to_vec() }),
            parameter("head", Domain::Categorical { choices: vec![text("linear"), text("hidden")] }),
            Parameter {
                when: Some(hidden),
                ..parameter("units", Domain::Int { low: 32, high: 1024, step: 1, log: true })
            },
            parameter("loss", Domain::Categorical { choices: vec![text("cross_entropy"), text("focal")] }),
        ],
    }
}

fn study(sampler: SamplerSpec, scheduler: SchedulerSpec, n: u32, epochs: u32) -> StudySpec {
    StudySpec { seed: 1, sampler, scheduler, ..StudySpec::external("bench", space(), epochs, n) }
}

/// An objective that rises with dropout and with the epochs.
struct Rising;

impl Recording for Rising {
    fn value(&self, params: &Params, epoch: u32) -> f64 {
        params.float("dropout").unwrap_or(0.0) + f64::from(epoch) * 1e-3
    }
}

/// Runs until `trials` have started and their orders are done; returns the engine and the log.
fn play(spec: &StudySpec, trials: usize) -> (Engine, Vec<Event>) {
    play::play_until(spec, &Rising, trials)
}

fn engine(c: &mut Criterion) {
    let (tpe, _) = play(&study(TPE, SchedulerSpec::None, 2_000, 1), 1_000);
    c.bench_function("tpe: a suggestion with 1,000 finished trials", |b| b.iter(|| black_box(tpe.plan())));
    for (name, scheduler) in [("none", SchedulerSpec::None), ("sha", SHA), ("asha", ASHA)] {
        let spec = study(SamplerSpec::Random, scheduler, 20_000, 27);
        let (engine, _) = play(&spec, 10_000);
        c.bench_function(&format!("{name}: a plan with 10,000 trials"), |b| b.iter(|| black_box(engine.plan())));
    }
    for (name, scheduler) in [
        ("none", SchedulerSpec::None),
        ("sha", SHA),
        ("median", SchedulerSpec::Median { warmup_epochs: 2, min_trials: 5 }),
    ] {
        let spec = study(SamplerSpec::Random, scheduler, 10_000, 20);
        let (_, log) = play(&spec, 10_000);
        let mut group = c.benchmark_group("replay");
        group.sample_size(10);
        group.bench_function(format!("{name}: 10,000 trials, {} events", log.len()), |b| {
            b.iter(|| {
                let mut engine = Engine::new(&spec);
                log.iter().for_each(|event| engine.apply(event).expect("a consistent event"));
                black_box(engine.trials().len())
            });
        });
    }
}

criterion_group!(benches, engine);
criterion_main!(benches);
