//! A search over an objective of your own, without study files or worker processes: `cargo run --example own_objective`.
//!
//! The study is kept in a folder: stop it (Ctrl-C, kill) and run it again, and it goes on.

use hpsearch::engine::EpochReport;
use hpsearch::space::{Domain, Parameter, SearchSpace};
use hpsearch::spec::{SamplerSpec, SchedulerSpec, StudySpec};
use hpsearch::study::{Ask, Study};
use std::error::Error;
use std::path::PathBuf;

/// Rosenbrock's valley, approached by gradient descent: the parameters are where it starts and how far it steps.
fn descend(x: &mut (f64, f64), step: f64) -> f64 {
    let (a, b) = *x;
    let gradient = (-2.0 * (1.0 - a) - 400.0 * a * (b - a * a), 200.0 * (b - a * a));
    *x = (a - step * gradient.0, b - step * gradient.1);
    let (a, b) = *x;
    (1.0 - a).powi(2) + 100.0 * (b - a * a).powi(2)
}

fn spec() -> Result<StudySpec, Box<dyn Error>> {
    // A study as JSON, as the database keeps it; a study file makes the same.
    let mut spec: StudySpec = serde_json::from_str(include_str!("../src/study/example.json"))?;
    let float = |name: &str, low, high, log| Parameter {
        name: name.to_owned(),
        domain: Domain::Float { low, high, step: None, log },
        when: None,
    };
    spec.name = "rosenbrock".to_owned();
    spec.space = SearchSpace { parameters: vec![float("step", 1e-5, 1e-2, true), float("start", -1.5, 1.5, false)] };
    spec.objective.direction = hpsearch::spec::Direction::Minimize;
    spec.runner = hpsearch::spec::RunnerSpec::Synthetic { epochs: 27, epoch_ms: 0 };
    spec.sampler = SamplerSpec::Tpe { n_startup: 10, n_ei_candidates: 24 };
    spec.scheduler = SchedulerSpec::Sha { min_resource: 1, reduction_factor: 3 };
    spec.budget.n_trials = Some(54);
    Ok(spec)
}

fn main() -> Result<(), Box<dyn Error>> {
    let state = std::env::args().nth(1).map_or_else(|| std::env::temp_dir().join("hpsearch-example"), PathBuf::from);
    let mut study = Study::open(&state, &spec()?)?;
    while let Ask::Trial(mut trial) = study.ask()? {
        let number = |name: &str| trial.params().get(name).and_then(|v| v.as_f64()).unwrap_or_default();
        let (step, start) = (number("step"), number("start"));
        let mut x = (start, start);
        // Nothing is saved here, so a promoted trial is trained from its beginning.
        for epoch in trial.remaining() {
            let loss = (0..50).map(|_| descend(&mut x, step)).last();
            let report = EpochReport { epoch, value: loss, ..EpochReport::default() };
            if study.report(&mut trial, report)?.is_stop() {
                break;
            }
        }
        study.tell(trial, Ok(()))?;
    }
    match study.engine().best().and_then(|best| Some((best, study.engine().trial(best.trial)?))) {
        Some((best, trial)) => println!("best: trial {} with {:.6}: {:?}", best.trial, best.value, trial.params.0),
        None => println!("no trial has a value"),
    }
    Ok(())
}
