//! A small slice of what `benches/quality/run.py` measures: random search is as good as theory says, TPE is better,
//! and halving finds better configurations than training fewer of them to the end.

#[path = "../../benches/quality/play.rs"]
mod play;

use hpsearch::spec::{SamplerSpec, SchedulerSpec};
use play::{Curves, Table, play, study};

const TABLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/quality_table.csv");
const CURVES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/quality_curves.csv");

/// Expectation of the best of `n` draws without replacement.
fn expected_best(table: &Table, n: usize) -> f64 {
    let mut values: Vec<f64> = table.values().collect();
    values.sort_by(f64::total_cmp);
    let m = values.len();
    // Probability that the best is the i-th worst: C(i - 1, n - 1) / C(m, n), from the top down.
    let (mut probability, mut mean) = (n as f64 / m as f64, 0.0);
    for i in (n..=m).rev() {
        mean += probability * values[i - 1];
        probability *= (i - n) as f64 / (i - 1).max(1) as f64;
    }
    mean
}

/// Mean and standard error of the best of `n` over seeds.
fn best(table: &Table, sampler: &SamplerSpec, n: u32, seeds: u64) -> (f64, f64) {
    let best = |seed| {
        let mut spec = study(table.space.clone(), sampler.clone(), SchedulerSpec::None, n, 1);
        spec.seed = seed;
        play(&spec, table).best().unwrap().value
    };
    mean_error(&(0..seeds).map(best).collect::<Vec<_>>())
}

fn mean_error(values: &[f64]) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1.0);
    (mean, (variance / n).sqrt())
}

#[test]
fn random_search_finds_what_theory_expects_of_it() {
    let table = Table::read(TABLE).unwrap();
    for n in [1, 10, 60] {
        let (mean, error) = best(&table, &SamplerSpec::Random, n, 200);
        let expected = expected_best(&table, n as usize);
        assert!((mean - expected).abs() < 3.5 * error, "{n}: {mean} ± {error}, expected {expected}");
    }
}

#[test]
fn tpe_beats_random_search_on_a_recorded_table() {
    let table = Table::read(TABLE).unwrap();
    let tpe = SamplerSpec::Tpe { n_startup: 10, n_ei_candidates: 24, cost_aware: false, warm_start: Vec::new() };
    let (mean, error) = best(&table, &tpe, 60, 30);
    let random = expected_best(&table, 60);
    assert!(mean - random > 3.0 * error, "{mean} ± {error}, random {random}");
}

#[test]
fn halving_has_less_regret_than_training_fewer_to_the_end_at_equal_epochs() {
    let sha = SchedulerSpec::Sha { min_resource: 1, reduction_factor: 2 };
    let gains: Vec<f64> = Curves::read(CURVES)
        .unwrap()
        .iter()
        .map(|curves| {
            let regret = |scheduler: &SchedulerSpec| {
                let grid = SamplerSpec::Grid { points: 1 };
                let mut spec = study(curves.space(), grid, scheduler.clone(), 16, curves.epochs());
                spec.budget.epochs = Some(48);
                let engine = play(&spec, curves);
                assert_eq!(engine.charged_epochs(), 48);
                curves.regret(engine.best().unwrap().trial)
            };
            regret(&SchedulerSpec::None) - regret(&sha)
        })
        .collect();
    assert_eq!(gains.len(), 27);
    let (mean, error) = mean_error(&gains);
    assert!(mean > 2.0 * error, "{mean} ± {error}");
}
