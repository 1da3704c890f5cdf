//! A search over an objective of your own, without worker processes: `cargo run --example own_objective [FOLDER]`.
//!
//! The study is kept in a folder: stop it (Ctrl-C, kill) and run it again, and it goes on. Look at it from outside with
//! `hpsearch --state FOLDER status rosenbrock`, `report`, `export`.

use hpsearch::config;
use hpsearch::engine::EpochReport;
use hpsearch::study::{Ask, Study};
use std::error::Error;
use std::path::PathBuf;

const STUDY: &str = r#"
    name = "rosenbrock"
    runner = { kind = "external", epochs = 27 }
    objective = { metric = "height", direction = "minimize" }
    sampler = { kind = "tpe" }
    scheduler = { kind = "sha", min_resource = 1, reduction_factor = 3 }
    budget = { n_trials = 54 }

    [space]
    step = { type = "float", low = 1e-5, high = 1e-2, log = true }
    start = { type = "float", low = -1.5, high = 1.5 }
"#;

/// Rosenbrock's valley: a step of gradient descent, and the height there.
fn descend((a, b): (f64, f64), step: f64) -> ((f64, f64), f64) {
    let gradient = (-2.0 * (1.0 - a) - 400.0 * a * (b - a * a), 200.0 * (b - a * a));
    let (a, b) = (a - step * gradient.0, b - step * gradient.1);
    ((a, b), (1.0 - a).powi(2) + 100.0 * (b - a * a).powi(2))
}

fn main() -> Result<(), Box<dyn Error>> {
    let folder = std::env::args().nth(1).map_or_else(|| std::env::temp_dir().join("hpsearch-example"), PathBuf::from);
    let spec = config::from_text(STUDY)?.spec;
    let mut study = Study::open(&folder, &spec)?;
    while let Ask::Trial(mut trial) = study.ask()? {
        let step = trial.params().float("step").ok_or("no step")?;
        let start = trial.params().float("start").ok_or("no start")?;
        // A promoted trial, or one that was interrupted, goes on from its own state.
        let (done, mut at) = match study.load(&trial)? {
            Some((epoch, state)) => (epoch, serde_json::from_slice(&state)?),
            None => (Default::default(), (start, start)),
        };
        for epoch in trial.after(done) {
            let mut height = f64::NAN;
            for _ in 0..50 {
                (at, height) = descend(at, step);
            }
            let mut report = EpochReport::new(epoch, height); // a value that is not finite counts as diverged
            if height.is_finite() {
                report.checkpoint = Some(study.save(&trial, epoch, &serde_json::to_vec(&at)?)?);
            }
            if study.report(&mut trial, report)?.is_stop() {
                break;
            }
        }
        study.tell(trial, Ok(()))?;
    }
    study.tidy()?; // checkpoints that nothing needs any more
    match study.engine().best().and_then(|best| Some((best, study.engine().trial(best.trial)?))) {
        Some((best, trial)) => println!("best: trial {} with {:.6}: {:?}", best.trial, best.value, trial.params.0),
        None => println!("no trial has a value"),
    }
    Ok(())
}
