//! Schedulers: the tables of the papers, exact epoch counts, and a conformance suite that each must pass.

use crate::simulation::{Conditions, Simulation, line, mixed_space, numbers, rugged, samplers, schedulers, study};
use hpsearch::engine::{Certainty, RungTable, rung_table};
use hpsearch::engine::{DoneReason, Event, FailureClass, Outcome, Plan, TrialState};
use hpsearch::ids::OrderId;
use hpsearch::rng::{Purpose, StreamRng};
use hpsearch::scheduler::halvings;
use hpsearch::space::{Params, Value};
use hpsearch::spec::{Budget, Direction, SamplerSpec, SchedulerSpec, StudySpec};

const SHA: SchedulerSpec = SchedulerSpec::Sha { min_resource: 1, reduction_factor: 3 };
const ASHA: SchedulerSpec = SchedulerSpec::Asha { min_resource: 1, reduction_factor: 3 };

fn x(params: &Params) -> f64 {
    params.get("x").unwrap().as_f64().unwrap()
}

/// Constant over the epochs, all different.
fn flat(params: &Params, _: u32) -> Option<f64> {
    Some(x(params))
}

fn table(scheduler: SchedulerSpec, n: Option<u32>, epochs: u32) -> RungTable {
    let mut spec = study(line(), SamplerSpec::Random, scheduler, 0, epochs);
    spec.budget.n_trials = n;
    rung_table(&spec).unwrap()
}

fn texts(table: &RungTable) -> Vec<String> {
    let text =
        |b: &hpsearch::engine::PlannedBracket| b.rungs.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    table.brackets.iter().map(text).collect()
}

#[test]
fn rungs_are_counted_by_integers_where_logarithms_fall_short() {
    // floor(ln R / ln eta) is 4, 2 and 9 for the first three.
    for (max, eta, k) in [(243, 3, 5), (1000, 10, 3), (59_049, 3, 10), (81, 3, 4), (80, 3, 3), (1, 3, 0), (2, 3, 0)] {
        assert_eq!(halvings(1, max, eta), k, "{max} {eta}");
    }
    assert_eq!(halvings(3, 81, 3), 3);
    assert_eq!(halvings(u32::MAX, u32::MAX, 2), 0);
    assert_eq!(halvings(1, u32::MAX, 2), 31);
}

#[test]
fn hyperband_is_the_papers_table_1() {
    let table = table(SchedulerSpec::Hyperband { min_resource: 1, reduction_factor: 3, algorithm1: false }, None, 81);
    assert_eq!(texts(&table), ["81@1 27@3 9@9 3@27 1@81", "27@3 9@9 3@27 1@81", "9@9 3@27 1@81", "6@27 2@81", "5@81"]);
    assert_eq!((table.trials, table.epochs_retraining, table.epochs_resuming), (128, 1701, 1404));
    assert_eq!((table.brackets[0].epochs_retraining, table.brackets[0].epochs_resuming), (405, 297));
    assert_eq!(table.certainty, Certainty::Exact);
}

#[test]
fn hyperband_is_the_papers_algorithm_1_on_request() {
    let table = table(SchedulerSpec::Hyperband { min_resource: 1, reduction_factor: 3, algorithm1: true }, None, 81);
    let expected = ["81@1 27@3 9@9 3@27 1@81", "34@3 11@9 3@27 1@81", "15@9 5@27 1@81", "8@27 2@81", "5@81"];
    assert_eq!(texts(&table), expected);
    assert_eq!((table.trials, table.epochs_retraining, table.epochs_resuming), (143, 1902, 1581));
}

#[test]
fn halving_gives_the_example_of_jamieson_and_talwalkar() {
    // n = 16, B = 256: sizes 16, 8, 4, 2 with 4, 8, 16, 32 pulls, 256 in all.
    let table = table(SchedulerSpec::Sha { min_resource: 4, reduction_factor: 2 }, Some(16), 32);
    assert_eq!(texts(&table), ["16@4 8@8 4@16 2@32"]);
    assert_eq!(table.epochs_retraining, 256);
}

#[test]
fn the_last_rung_is_the_full_number_of_epochs_and_the_first_at_least_min_resource() {
    for max in 1..200 {
        for min in 1..=max {
            for eta in 2..5 {
                let table = table(SchedulerSpec::Sha { min_resource: min, reduction_factor: eta }, Some(50), max);
                let rungs = &table.brackets[0].rungs;
                assert_eq!(rungs.last().unwrap().epochs, max);
                assert!(
                    rungs[0].epochs >= min && rungs.iter().all(|r| r.added > 0 && r.seats > 0),
                    "{min} {max} {eta}"
                );
            }
        }
    }
}

#[test]
fn synchronous_halving_of_81_trains_297_epochs_whatever_the_order_of_quality() {
    for (seed, workers) in [(1, 1), (2, 4), (3, 27)] {
        let mut spec = study(line(), SamplerSpec::Random, SHA, 81, 81);
        spec.seed = seed;
        let mut simulation = Simulation::new(&spec, &flat);
        let how = Conditions { workers, seed, kills: 0.0, ahead: 0 };
        assert_eq!(simulation.run(&how), DoneReason::Complete);
        assert_eq!(simulation.trained, 297);
        assert_eq!(simulation.complete(), 1);
        let best = simulation.engine.best().unwrap();
        let top = simulation.engine.trials().map(|t| x(&t.params)).fold(0.0, f64::max);
        assert_eq!((best.value, best.epoch.0), (top, 81));
    }
}

/// Epochs that ASHA (promotion type) with one worker trains on 81 configurations whose qualities come in a given order.
fn asha_epochs(quality: impl Fn(i64) -> f64) -> u64 {
    let mut spec = study(numbers(81), SamplerSpec::Grid { points: 2 }, ASHA, 81, 81);
    spec.run.virtual_workers = 1;
    let curve = |params: &Params, _: u32| params.get("i").and_then(Value::as_i64).map(&quality);
    let mut simulation = Simulation::new(&spec, &curve);
    simulation.run(&Conditions::STRAIGHT);
    simulation.trained
}

#[test]
fn asha_costs_the_published_numbers_of_epochs() {
    // Best first: exactly the halving. Worst first: nearly every trial is promoted.
    assert_eq!(asha_epochs(|i| -i as f64), 297);
    assert_eq!(asha_epochs(|i| i as f64), 5993);
    // At random: 403 on average.
    let runs = 200;
    let total: u64 = (0..runs)
        .map(|seed| {
            let mut order: Vec<usize> = (0..81).collect();
            StreamRng::keyed(seed, Purpose::Test, &[]).shuffle(&mut order);
            asha_epochs(|i| order[i as usize] as f64)
        })
        .sum();
    let mean = total as f64 / runs as f64;
    assert!((mean - 403.0).abs() < 12.0, "{mean}");
}

#[test]
fn certain_promotion_does_not_depend_on_timing() {
    let spec = study(line(), SamplerSpec::Random, SHA, 27, 27);
    let mut expected = None;
    for workers in [1, 2, 4, 8, 27] {
        for seed in 0..100 {
            let mut simulation = Simulation::new(&spec, &rugged);
            simulation.run(&Conditions { workers, seed, kills: 0.0, ahead: 0 });
            let results = simulation.results();
            assert_eq!(&results, expected.get_or_insert_with(|| results.clone()), "{workers} {seed}");
        }
    }
}

#[test]
fn a_promotion_is_made_as_soon_as_it_is_certain() {
    // Best first: of 27 the best 9 go on. After 18 results trial 0 could yet be beaten by nine, after 19 it cannot.
    let spec = study(numbers(27), SamplerSpec::Grid { points: 2 }, SHA, 27, 27);
    let curve = |params: &Params, _: u32| params.get("i").and_then(Value::as_i64).map(|i| -(i as f64));
    let mut simulation = Simulation::new(&spec, &curve);
    for _ in 0..27 {
        let Plan::Issue(order) = simulation.engine.plan() else { panic!("27 trials start") };
        simulation.apply(Event::OrderIssued { order });
    }
    for id in 0..19 {
        assert_eq!(simulation.engine.plan(), Plan::Wait, "after {id} results");
        simulation.train(OrderId(id));
    }
    let Plan::Issue(order) = simulation.engine.plan() else { panic!("one is certain") };
    assert_eq!((order.trial.0, order.from.0, order.to.0, order.rung), (0, 1, 3, Some(1)));
    simulation.apply(Event::OrderIssued { order });
    assert_eq!(simulation.engine.plan(), Plan::Wait);
    // A failure counts as a result, as the worst.
    let outcome = Outcome::Failed { class: FailureClass::Crashed, reason: "test".to_owned() };
    simulation.apply(Event::OrderFinished { order: OrderId(19), outcome, unix_ms: 0 });
    let Plan::Issue(order) = simulation.engine.plan() else { panic!("the next one is certain") };
    assert_eq!((order.trial.0, order.rung), (1, Some(1)));
}

#[test]
fn failed_trials_do_not_starve_a_rung() {
    // Every second trial fails at once: the rungs above are full nevertheless.
    let half = |params: &Params, _: u32| {
        let i = params.get("i").and_then(Value::as_i64)?;
        (i % 2 == 0).then_some(i as f64)
    };
    for scheduler in [SHA, ASHA, SchedulerSpec::Hyperband { min_resource: 9, reduction_factor: 3, algorithm1: false }] {
        let spec = study(numbers(27), SamplerSpec::Grid { points: 2 }, scheduler.clone(), 27, 27);
        let mut simulation = Simulation::new(&spec, &half);
        assert_eq!(simulation.run(&Conditions { workers: 4, seed: 1, kills: 0.0, ahead: 0 }), DoneReason::Complete);
        assert!(simulation.complete() >= 1, "{scheduler:?}");
        assert_eq!(simulation.engine.best().unwrap().trial.0 % 2, 0);
    }
    // All but two fail: both are promoted as long as a rung has a seat for them.
    let two = |params: &Params, _: u32| params.get("i").and_then(Value::as_i64).filter(|&i| i < 2).map(|i| i as f64);
    let spec = study(numbers(27), SamplerSpec::Grid { points: 2 }, SHA, 27, 27);
    let mut simulation = Simulation::new(&spec, &two);
    simulation.run(&Conditions::STRAIGHT);
    assert_eq!(
        simulation.states(),
        [("Complete".to_owned(), 1), ("Failed".to_owned(), 25), ("Stopped".to_owned(), 1)].into()
    );
}

#[test]
fn what_is_not_finite_never_wins_in_either_direction() {
    for direction in [Direction::Maximize, Direction::Minimize] {
        for scheduler in schedulers() {
            let odd = |params: &Params, epoch: u32| match params.get("i").and_then(Value::as_i64)? {
                0 => Some(f64::INFINITY),
                1 => Some(f64::NEG_INFINITY),
                2 => Some(f64::NAN),
                3 => None,
                4 if epoch == 3 => Some(f64::NAN),
                i => Some(i as f64),
            };
            let mut spec = study(numbers(20), SamplerSpec::Grid { points: 2 }, scheduler.clone(), 20, 9);
            spec.objective.direction = direction;
            let mut simulation = Simulation::new(&spec, &odd);
            simulation.run(&Conditions { workers: 3, seed: 2, kills: 0.0, ahead: 0 });
            let best = simulation.engine.best().unwrap();
            assert!(best.value.is_finite() && best.trial.0 >= 4, "{direction:?} {scheduler:?} {best:?}");
            let failed = simulation.engine.trials().filter(|t| t.state == TrialState::Failed).count();
            assert!((4..=5).contains(&failed), "{direction:?} {scheduler:?}");
            assert!(simulation.engine.trials().take(4).all(|t| t.curve.len() == 1));
        }
    }
}

#[test]
fn the_first_arrivals_do_not_all_run_to_the_end() {
    for scheduler in [SHA, ASHA] {
        let mut spec = study(line(), SamplerSpec::Random, scheduler, 81, 81);
        spec.seed = 3;
        let mut simulation = Simulation::new(&spec, &flat);
        simulation.run(&Conditions { workers: 16, seed: 4, kills: 0.0, ahead: 0 });
        let early = simulation.engine.trials().take(9).filter(|t| t.state == TrialState::Complete).count();
        assert!(early <= 3, "{early}");
    }
}

#[test]
fn an_epoch_is_trained_once_and_rungs_are_reached_in_order() {
    for scheduler in schedulers() {
        let spec = study(mixed_space(), SamplerSpec::Random, scheduler, 40, 9);
        let mut simulation = Simulation::new(&spec, &rugged);
        simulation.run(&Conditions { workers: 5, seed: 9, kills: 0.0, ahead: 2 });
        assert_eq!(simulation.trained, simulation.epochs());
        for trial in simulation.engine.trials() {
            let mut at = 0;
            for &id in &trial.orders {
                let order = &simulation.engine.orders()[id.0 as usize];
                assert_eq!(order.from.0, at);
                assert!(order.to > order.from && order.to.0 <= 9);
                at = order.to.0;
            }
        }
        assert_eq!(simulation.engine.trials().len(), 40);
    }
}

#[test]
fn halving_keeps_to_its_table_without_failures() {
    for scheduler in
        schedulers().into_iter().filter(|s| !matches!(s, SchedulerSpec::Asha { .. } | SchedulerSpec::Median { .. }))
    {
        for n in [1, 2, 3, 7, 26, 27, 28, 60] {
            let spec = study(line(), SamplerSpec::Random, scheduler.clone(), n, 9);
            let table = rung_table(&spec).unwrap();
            let mut simulation = Simulation::new(&spec, &flat);
            simulation.run(&Conditions { workers: 4, seed: u64::from(n), kills: 0.0, ahead: 0 });
            assert_eq!(simulation.trained, table.epochs_resuming, "{scheduler:?} {n}");
            for (index, bracket) in table.brackets.iter().enumerate() {
                for (rung, planned) in bracket.rungs.iter().enumerate() {
                    let entered = simulation
                        .engine
                        .orders()
                        .iter()
                        .filter(|order| order.bracket == index as u32 && order.rung.unwrap_or(0) == rung as u32);
                    assert_eq!(entered.count(), planned.seats as usize, "{scheduler:?} {n} {index} {rung}");
                }
            }
        }
    }
}

#[test]
fn the_median_rule_stops_the_worse_half_and_says_why() {
    // Qualities fall with the trial's number: once three are complete, every later trial is worse than their median.
    let spec = study(
        numbers(20),
        SamplerSpec::Grid { points: 2 },
        SchedulerSpec::Median { warmup_epochs: 2, min_trials: 3 },
        20,
        9,
    );
    let curve = |params: &Params, epoch: u32| {
        params.get("i").and_then(Value::as_i64).map(|i| f64::from(epoch) - 10.0 * i as f64)
    };
    let mut simulation = Simulation::new(&spec, &curve);
    simulation.run(&Conditions { workers: 4, seed: 1, kills: 0.0, ahead: 0 });
    for trial in simulation.engine.trials() {
        let order = &simulation.engine.orders()[trial.orders[0].0 as usize];
        match &order.stop {
            None => assert!(trial.state == TrialState::Complete),
            Some(stop) => {
                assert!(stop.0.keys().all(|epoch| (3..9).contains(&epoch.0)));
                assert_eq!((trial.state, trial.epoch.0), (TrialState::Stopped, 3), "{}", trial.number);
            }
        }
    }
    // By hand: complete trials 0, 1, 2 have running averages 2 - 10 i at epoch 3, whose median is -8.
    let mut spec = spec;
    spec.run.virtual_workers = 1;
    let mut simulation = Simulation::new(&spec, &curve);
    simulation.run(&Conditions::STRAIGHT);
    let stop = simulation.engine.orders()[3].stop.clone().unwrap();
    assert_eq!(stop.0.values().copied().collect::<Vec<_>>(), [-8.0, -7.5, -7.0, -6.5, -6.0, -5.5]);
    assert_eq!(simulation.states(), [("Complete".to_owned(), 3), ("Stopped".to_owned(), 17)].into());
}

/// Replays the log with a changed spec and runs on.
fn raise(simulation: &mut Simulation<'_>, spec: &StudySpec, how: &Conditions) -> DoneReason {
    simulation.restart(spec);
    simulation.run(how)
}

#[test]
fn running_again_does_nothing_and_a_raised_number_of_trials_continues() {
    for sampler in samplers() {
        for scheduler in schedulers() {
            let what = format!("{sampler:?} x {scheduler:?}");
            let mut spec = study(mixed_space(), sampler.clone(), scheduler, 20, 9);
            let mut simulation = Simulation::new(&spec, &rugged);
            simulation.run(&Conditions::STRAIGHT);
            let (before, events) = (simulation.orders(), simulation.log.len());
            assert_eq!(raise(&mut simulation, &spec, &Conditions::STRAIGHT), DoneReason::Complete);
            assert_eq!(simulation.log.len(), events, "{what}");
            spec.budget.n_trials = Some(47);
            raise(&mut simulation, &spec, &Conditions::STRAIGHT);
            let after = simulation.orders();
            assert_eq!(after[..before.len()], before, "{what}");
            assert_eq!(simulation.engine.trials().len(), 47, "{what}");
            // Raised again: the same raises give the same orders, however the study was run.
            spec.budget.n_trials = Some(60);
            let how = Conditions { workers: 7, seed: 3, kills: 0.05, ahead: 1 };
            raise(&mut simulation, &spec, &how);
            let mut other = Simulation::new(&spec, &rugged);
            for n in [20, 47, 60] {
                spec.budget.n_trials = Some(n);
                raise(&mut other, &spec, &Conditions { workers: 3, seed: u64::from(n), kills: 0.02, ahead: 0 });
            }
            assert_eq!(other.orders(), simulation.orders(), "{what}");
            assert_eq!(other.results(), simulation.results(), "{what}");
        }
    }
}

#[test]
fn raising_trials_opens_a_new_bracket_and_leaves_the_old_one() {
    let mut spec = study(line(), SamplerSpec::Random, SHA, 9, 9);
    let mut simulation = Simulation::new(&spec, &flat);
    simulation.run(&Conditions::STRAIGHT);
    assert_eq!(simulation.trained, 9 + 3 * 2 + 6);
    spec.budget.n_trials = Some(36);
    raise(&mut simulation, &spec, &Conditions::STRAIGHT);
    let entered = |bracket: u32, rung: u32| {
        let orders = simulation.engine.orders().iter();
        orders.filter(|order| order.bracket == bracket && order.rung == Some(rung)).count()
    };
    assert_eq!([entered(0, 0), entered(0, 1), entered(0, 2)], [9, 3, 1]);
    assert_eq!([entered(1, 0), entered(1, 1), entered(1, 2)], [27, 9, 3]);
}

#[test]
fn an_epoch_budget_cuts_the_same_sequence_short_and_raising_it_continues() {
    for scheduler in schedulers() {
        let mut spec = study(mixed_space(), SamplerSpec::Random, scheduler.clone(), 30, 9);
        let mut whole = Simulation::new(&spec, &rugged);
        whole.run(&Conditions::STRAIGHT);
        spec.budget.epochs = Some(50);
        let mut cut = None;
        for seed in 0..30 {
            let how = Conditions { workers: 1 + seed as usize, seed, kills: 0.02, ahead: (seed % 3) as usize };
            let mut simulation = Simulation::new(&spec, &rugged);
            assert_eq!(simulation.run(&how), DoneReason::EpochBudget, "{scheduler:?}");
            let orders = simulation.orders();
            assert_eq!(orders, whole.orders()[..orders.len()], "{scheduler:?}");
            assert_eq!(&orders, cut.get_or_insert_with(|| orders.clone()), "{scheduler:?} {how:?}");
            assert!(simulation.engine.charged_epochs() <= 50 && simulation.engine.charged_epochs() > 50 - 9);
            if seed == 7 {
                spec.budget.epochs = Some(10_000);
                assert_eq!(raise(&mut simulation, &spec, &how), DoneReason::Complete);
                assert_eq!(simulation.results(), whole.results());
                spec.budget.epochs = Some(50);
            }
        }
    }
}

#[test]
fn too_many_failures_end_a_study() {
    let mut spec = study(mixed_space(), SamplerSpec::Random, SchedulerSpec::None, 30, 9);
    spec.budget.max_failures = Some(2);
    let mut simulation = Simulation::new(&spec, &|_, _| None);
    assert_eq!(simulation.run(&Conditions::STRAIGHT), DoneReason::FailureLimit);
    assert_eq!(simulation.engine.trials().len(), 2);
    spec.budget.max_failures = None;
    assert_eq!(raise(&mut simulation, &spec, &Conditions::STRAIGHT), DoneReason::Complete);
    assert_eq!(simulation.engine.best(), None);
}

#[test]
fn hyperbands_brackets_overlap_when_machines_are_idle() {
    let scheduler = SchedulerSpec::Hyperband { min_resource: 1, reduction_factor: 3, algorithm1: false };
    let mut spec = study(line(), SamplerSpec::Random, scheduler, 0, 9);
    spec.budget = Budget::default();
    let mut simulation = Simulation::new(&spec, &flat);
    assert_eq!(simulation.run(&Conditions { workers: 8, seed: 1, kills: 0.0, ahead: 0 }), DoneReason::Complete);
    // R = 9, Table 1: 9@1 3@3 1@9, 3@3 1@9, 3@9.
    assert_eq!(simulation.engine.trials().len(), 15);
    let brackets: Vec<u32> = simulation.engine.orders().iter().map(|order| order.bracket).collect();
    let last_of_first = brackets.iter().rposition(|&b| b == 0).unwrap();
    assert!(brackets[..last_of_first].contains(&1), "{brackets:?}");
}

#[test]
fn in_the_end_the_best_five_keep_their_last_checkpoint_and_nothing_else_is_kept() {
    for scheduler in schedulers() {
        let spec = study(mixed_space(), SamplerSpec::Random, scheduler.clone(), 40, 9);
        let mut simulation = Simulation::new(&spec, &rugged);
        simulation.run(&Conditions { workers: 5, seed: 2, kills: 0.02, ahead: 0 });
        let complete = simulation.engine.trials().filter(|t| t.state == TrialState::Complete);
        let mut ranked: Vec<_> = complete.map(|t| (-t.value.unwrap(), t.number)).collect();
        ranked.sort_by(|a, b| a.0.total_cmp(&b.0));
        let expected = ranked.iter().take(5).map(|(_, number)| format!("checkpoints/{number}-9"));
        assert_eq!(*simulation.files(), expected.collect(), "{scheduler:?}");
    }
}

#[test]
fn a_trial_that_cannot_be_promoted_loses_its_checkpoint() {
    // Worst first: each further result rules out an earlier trial.
    let spec = study(numbers(9), SamplerSpec::Grid { points: 2 }, SHA, 9, 9);
    let curve = |params: &Params, _: u32| params.get("i").and_then(Value::as_i64).map(|i| i as f64);
    let mut simulation = Simulation::new(&spec, &curve);
    for id in 0..9 {
        let Plan::Issue(order) = simulation.engine.plan() else { panic!() };
        simulation.apply(Event::OrderIssued { order });
        simulation.train(OrderId(id));
        let kept: Vec<_> = simulation.files().iter().cloned().collect();
        // Results are counted only when no trial is left to start, and only until a promotion is certain. The seventh
        // makes that of trial 6 certain: of the seven, three beat each of 0 to 3; 7 and 8 are not counted yet.
        let expected = if id < 8 { 0..=id } else { 4..=8 };
        assert_eq!(kept, expected.map(|i| format!("checkpoints/{i}-1")).collect::<Vec<_>>(), "{id}");
    }
}

#[test]
fn a_checkpoint_that_turns_out_to_be_needed_costs_epochs_and_changes_nothing() {
    let mut spec = study(mixed_space(), SamplerSpec::Random, ASHA, 20, 9);
    let mut straight = Simulation::new(&spec, &rugged);
    straight.run(&Conditions::STRAIGHT);
    // A trial that cannot be promoted among 20 may be promoted among 60.
    spec.budget.n_trials = Some(60);
    raise(&mut straight, &spec, &Conditions::STRAIGHT);
    assert!(straight.missed > 0);
    assert!(straight.trained > straight.epochs());
    assert!(straight.engine.trials().all(|t| t.curve.len() as u32 >= t.epoch.0));
}

#[test]
fn a_failure_class_is_retried_as_its_policy_says() {
    let mut spec = study(line(), SamplerSpec::Random, SchedulerSpec::None, 1, 3);
    spec.failures.oom = 1;
    let mut simulation = Simulation::new(&spec, &flat);
    let Plan::Issue(order) = simulation.engine.plan() else { panic!() };
    let id = order.order;
    simulation.apply(Event::OrderIssued { order });
    use hpsearch::engine::Retry::{Fail, Retry};
    for (attempt, class, expected) in [
        (1, FailureClass::Oom, Retry),
        (2, FailureClass::Crashed, Retry),
        (3, FailureClass::Lost, Retry),
        (4, FailureClass::Oom, Fail),
        (4, FailureClass::Crashed, Fail),
        (4, FailureClass::Timeout, Fail),
        (4, FailureClass::BadInput, Fail),
        (4, FailureClass::Diverged, Fail),
        (4, FailureClass::Lost, Retry),
    ] {
        assert_eq!(simulation.engine.after_failure(id, class), expected, "{attempt} {class:?}");
        if attempt < 4 {
            simulation.apply(Event::AttemptStarted { order: id, attempt, worker: 0, unix_ms: 0 });
            simulation.apply(Event::AttemptLost { order: id, attempt, class, reason: "test".into(), unix_ms: 0 });
        }
    }
    let outcome = Outcome::Failed { class: FailureClass::Oom, reason: "out of memory".into() };
    simulation.apply(Event::OrderFinished { order: id, outcome, unix_ms: 0 });
    let trial = simulation.engine.trials().next().unwrap();
    assert_eq!((trial.state, trial.failure.as_ref().unwrap().class), (TrialState::Failed, FailureClass::Oom));
}
