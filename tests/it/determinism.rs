//! The sequence of work orders and the results are the same for every number of workers, every order in which results
//! arrive, and through kills of workers and of the coordinator.

use crate::simulation::{
    COST_AWARE, Conditions, Database, Simulation, mixed_space, replay, rugged, samplers, schedulers, study,
};
use hpsearch::engine::DoneReason;
use hpsearch::rng::{Purpose, StreamRng};
use hpsearch::spec::{Direction, SamplerSpec, SchedulerSpec, StudySpec, WorkBudget};

/// Whether the database is compared in every simulated run, not only in every twelfth.
fn exhaustive() -> bool {
    std::env::var_os("HPSEARCH_EXHAUSTIVE").is_some()
}

/// Runs a study in `runs` other ways and compares with the straight run.
fn same_every_way(spec: &StudySpec, runs: u64) {
    let what = format!("{:?} x {:?}", spec.sampler, spec.scheduler);
    let mut straight = Simulation::new(spec, &rugged);
    let reason = straight.run(&Conditions::STRAIGHT);
    let (orders, results) = (straight.orders(), straight.results());
    let ended = straight.states().keys().all(|s| ["Complete", "Stopped", "Failed"].contains(&s.as_str()));
    assert!(ended || reason == DoneReason::WorkBudget, "{what}: a larger budget would go on");
    let mut rng = StreamRng::keyed(runs, Purpose::Test, &[7]);
    for seed in 0..runs {
        let how = Conditions {
            workers: 1 + rng.below(32) as usize,
            seed,
            kills: if rng.unit() < 0.5 { 0.0 } else { 0.03 },
            ahead: rng.below(4) as usize,
        };
        let mut other = Simulation::new(spec, &rugged);
        if exhaustive() || seed % 12 == 0 {
            other.database = Some(Database::new(spec));
        }
        assert_eq!(other.run(&how), reason, "{what}, {how:?}");
        if let Some(database) = &other.database {
            database.check(&other.tables);
        }
        assert_eq!(other.missed, 0, "{what}, {how:?}: a checkpoint was deleted too early");
        same(&other.orders(), &orders, &format!("{what}, {how:?}"));
        same(&other.results(), &results, &format!("{what}, {how:?}"));
    }
    // A replay of the log gives the same.
    let mut read = Simulation::new(spec, &rugged);
    read.engine = replay(spec, &straight.log);
    assert_eq!((read.orders(), read.results()), (orders, results), "{what}");
}

/// Shows the first difference only.
fn same(found: &[String], expected: &[String], what: &str) {
    for (found, expected) in found.iter().zip(expected) {
        assert_eq!(found, expected, "{what}");
    }
    assert_eq!(found.len(), expected.len(), "{what}");
}

fn pairs(sampler: usize, runs: u64) {
    for (i, scheduler) in schedulers().into_iter().enumerate() {
        let mut spec = study(mixed_space(), samplers()[sampler].clone(), scheduler, 30, 9);
        spec.seed = i as u64;
        if i % 2 == 1 {
            spec.objective.direction = Direction::Minimize;
        }
        same_every_way(&spec, runs);
    }
}

#[test]
fn random_gives_one_order_sequence_with_every_scheduler() {
    pairs(0, 120);
}

#[test]
fn grid_gives_one_order_sequence_with_every_scheduler() {
    pairs(1, 120);
}

#[test]
fn sobol_gives_one_order_sequence_with_every_scheduler() {
    pairs(2, 120);
}

#[test]
fn tpe_gives_one_order_sequence_with_every_scheduler() {
    pairs(3, 60);
}

#[test]
fn cost_aware_tpe_gives_one_order_sequence_with_every_scheduler() {
    pairs(4, 60);
}

#[test]
fn gp_gives_one_order_sequence_with_every_scheduler() {
    pairs(5, 4);
}

#[test]
fn cost_aware_tpe_gives_one_order_sequence_within_a_budget_of_work() {
    let mut spec =
        study(mixed_space(), COST_AWARE, SchedulerSpec::Asha { min_resource: 1, reduction_factor: 3 }, 90, 9);
    spec.budget.work = Some(WorkBudget::GigaOperations(2000));
    same_every_way(&spec, 60);
    let mut simulation = Simulation::new(&spec, &rugged);
    assert_eq!(simulation.run(&Conditions::STRAIGHT), DoneReason::WorkBudget);
}

#[test]
fn virtual_workers_change_nothing_where_the_sampler_does_not_learn() {
    let scheduler = SchedulerSpec::Sha { min_resource: 1, reduction_factor: 3 };
    let mut spec = study(mixed_space(), SamplerSpec::Random, scheduler, 27, 9);
    let run = |spec: &StudySpec| {
        let mut simulation = Simulation::new(spec, &rugged);
        simulation.run(&Conditions { workers: 3, seed: 5, kills: 0.0, ahead: 0 });
        (simulation.orders(), simulation.results())
    };
    let few = run(&spec);
    spec.run.virtual_workers = 64;
    assert_eq!(few, run(&spec));
}

#[test]
fn planning_is_pure() {
    for sampler in samplers() {
        let spec = study(mixed_space(), sampler, schedulers()[2].clone(), 12, 9);
        let mut simulation = Simulation::new(&spec, &rugged);
        assert_eq!(simulation.engine.plan(), simulation.engine.plan());
        simulation.run(&Conditions { workers: 4, seed: 1, kills: 0.0, ahead: 0 });
        assert_eq!(simulation.engine.plan(), simulation.engine.plan());
    }
}
