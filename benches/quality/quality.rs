//! Runs the search engine on recorded results: full tables of values, and learning curves.
//!
//! Driven by `run.py`, which exports the recordings and runs other tools on the same ones. Usage:
//! `quality table FILE maximize|minimize SEEDS TRIALS` prints `sampler,seed,n,best`;
//! `quality curves FILE` prints `study,method,budget,epochs,regret`.

mod play;

use play::{play, study};
use std::error::Error;
use std::io::{self, Write};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let texts: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match texts.as_slice() {
        ["table", file, direction, seeds, trials] => {
            table(file, *direction == "maximize", seeds.parse()?, trials.parse()?)
        }
        ["curves", file] => curves(file),
        _ => Err("usage: quality table FILE maximize|minimize SEEDS TRIALS | quality curves FILE".into()),
    }
}

/// Random search, TPE and a Gaussian process on a full table: the best value after each number of trials.
fn table(file: &str, maximize: bool, seeds: u64, trials: u32) -> Result<(), Box<dyn Error>> {
    use hpsearch::spec::{Direction, SamplerSpec, SchedulerSpec};
    let table = play::Table::read(file)?;
    let mut out = io::stdout().lock();
    writeln!(out, "sampler,seed,n,best")?;
    let tpe = SamplerSpec::Tpe { n_startup: 10, n_ei_candidates: 24, cost_aware: false, warm_start: Vec::new() };
    let gp = SamplerSpec::Gp { n_startup: 10, warm_start: Vec::new() };
    // A process takes longer: a fifth of the seeds.
    for (name, sampler, seeds) in
        [("random", SamplerSpec::Random, seeds), ("tpe", tpe, seeds), ("gp", gp, seeds.div_ceil(5))]
    {
        for seed in 0..seeds {
            let mut spec = study(table.space.clone(), sampler.clone(), SchedulerSpec::None, trials, 1);
            spec.seed = seed;
            spec.objective.direction = if maximize { Direction::Maximize } else { Direction::Minimize };
            let engine = play(&spec, &table);
            let mut best = f64::NAN;
            for (n, trial) in (1..).zip(engine.trials()) {
                let value = trial.value.unwrap_or(f64::NAN);
                best = if maximize { best.max(value) } else { best.min(value) };
                if [1, 10, 30, 60, 100].contains(&n) {
                    writeln!(out, "{name},{seed},{n},{best}")?;
                }
            }
        }
    }
    Ok(())
}

/// Schedulers on recorded curves, each within the epochs that synchronous halving takes.
fn curves(file: &str) -> Result<(), Box<dyn Error>> {
    use hpsearch::spec::{SamplerSpec, SchedulerSpec};
    let mut out = io::stdout().lock();
    writeln!(out, "study,method,budget,epochs,regret")?;
    for study_curves in play::Curves::read(file)? {
        for (entrants, budget) in [(8, 28), (16, 48)] {
            let sha = SchedulerSpec::Sha { min_resource: 1, reduction_factor: 2 };
            let asha = SchedulerSpec::Asha { min_resource: 1, reduction_factor: 2 };
            for (method, scheduler, n) in
                [("sha", sha, entrants), ("asha", asha, 16), ("none", SchedulerSpec::None, 16)]
            {
                let grid = SamplerSpec::Grid { points: 1 };
                let mut spec = study(study_curves.space(), grid, scheduler, n, study_curves.epochs());
                spec.budget.epochs = Some(budget);
                let engine = play(&spec, &study_curves);
                let winner = engine.best().ok_or("no trial succeeded")?;
                let regret = study_curves.regret(winner.trial);
                writeln!(out, "{},{method},{budget},{},{regret}", study_curves.name, engine.charged_epochs())?;
            }
        }
    }
    Ok(())
}
