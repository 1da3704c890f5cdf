//! Samplers: a conformance suite that each must pass, and what each promises.

use crate::simulation::{
    COST_AWARE, Conditions, Simulation, line, mixed_space, numbers, rugged, samplers, schedulers, study,
};
use hpsearch::engine::{DoneReason, Engine, Event, Inconsistent, Plan, WarmStart};
use hpsearch::ids::{Epoch, TrialNumber};
use hpsearch::ledger::EarlierResult;
use hpsearch::space::{Condition, Domain, Parameter, Params, SearchSpace, Value};
use hpsearch::spec::{Direction, SamplerSpec, SchedulerSpec, StudySpec};
use std::collections::{BTreeMap, BTreeSet};

const TPE: SamplerSpec =
    SamplerSpec::Tpe { n_startup: 10, n_ei_candidates: 24, cost_aware: false, warm_start: Vec::new() };
const GP: SamplerSpec = SamplerSpec::Gp { n_startup: 10, warm_start: Vec::new() };
/// The samplers that learn.
const LEARNING: [SamplerSpec; 2] = [TPE, GP];

fn run<'a>(spec: &StudySpec, curve: &'a dyn Fn(&Params, u32) -> Option<f64>) -> (Simulation<'a>, DoneReason) {
    let mut simulation = Simulation::new(spec, curve);
    let reason = simulation.run(&Conditions { workers: 4, seed: 3, kills: 0.0, ahead: 0 });
    (simulation, reason)
}

fn proposals(simulation: &Simulation<'_>) -> Vec<Params> {
    simulation.engine.trials().map(|trial| (*trial.params).clone()).collect()
}

/// 2 x 3 x 3 (or 1 where `mode` is plain) configurations.
fn small_space() -> SearchSpace {
    let text = |t: &str| Value::Text(t.to_owned());
    let parameter = |name: &str, domain, when| Parameter { name: name.to_owned(), domain, when };
    let when = Condition { parameter: "mode".to_owned(), values: vec![text("rich")] };
    SearchSpace {
        parameters: vec![
            parameter("mode", Domain::Categorical { choices: vec![text("plain"), text("rich")] }, None),
            parameter("a", Domain::Int { low: 1, high: 5, step: 2, log: false }, None),
            parameter("b", Domain::Float { low: 0.1, high: 0.3, step: Some(0.1), log: false }, Some(when)),
        ],
    }
}

#[test]
fn every_proposal_belongs_to_the_space_and_none_comes_twice() {
    for sampler in samplers() {
        for scheduler in schedulers() {
            let mut spec = study(mixed_space(), sampler.clone(), scheduler, 60, 9);
            spec.budget.n_trials = Some(60);
            let (simulation, reason) = run(&spec, &rugged);
            assert_eq!(reason, DoneReason::Complete);
            let proposals = proposals(&simulation);
            assert_eq!(proposals.len(), 60);
            for params in &proposals {
                assert_eq!(spec.space.complete(params).as_ref(), Ok(params), "{sampler:?}");
            }
            let distinct: BTreeSet<_> = proposals.iter().map(Params::digest).collect();
            assert_eq!(distinct.len(), 60, "{sampler:?}");
        }
    }
}

#[test]
fn an_exhausted_space_ends_the_study_cleanly_after_every_configuration() {
    for sampler in samplers() {
        for scheduler in schedulers() {
            let spec = study(small_space(), sampler.clone(), scheduler.clone(), 100, 9);
            let (mut simulation, reason) = run(&spec, &rugged);
            assert_eq!(reason, DoneReason::SpaceExhausted, "{sampler:?} {scheduler:?}");
            let distinct: BTreeSet<_> = proposals(&simulation).iter().map(Params::digest).collect();
            assert_eq!((simulation.engine.trials().len(), distinct.len()), (12, 12), "{sampler:?} {scheduler:?}");
            // Run again, also with a raised budget: no further trial.
            let events = simulation.log.len();
            let mut raised = spec.clone();
            raised.budget.n_trials = Some(200);
            for spec in [&spec, &raised] {
                simulation.restart(spec);
                assert_eq!(simulation.run(&Conditions::STRAIGHT), DoneReason::SpaceExhausted);
                assert_eq!(simulation.log.len(), events);
            }
        }
    }
}

#[test]
fn a_grid_without_a_number_of_trials_tries_every_combination_in_order() {
    let mut spec = study(small_space(), SamplerSpec::Grid { points: 2 }, SchedulerSpec::None, 0, 2);
    spec.budget.n_trials = None;
    let (simulation, reason) = run(&spec, &rugged);
    assert_eq!(reason, DoneReason::Complete);
    let texts: Vec<String> = proposals(&simulation).iter().map(|p| serde_json::to_string(p).unwrap()).collect();
    assert_eq!(texts.len(), 12);
    assert_eq!(
        texts[..4],
        [
            r#"{"a":1,"mode":"plain"}"#,
            r#"{"a":3,"mode":"plain"}"#,
            r#"{"a":5,"mode":"plain"}"#,
            r#"{"a":1,"b":0.1,"mode":"rich"}"#,
        ]
    );
}

#[test]
fn enqueued_configurations_go_first_and_are_not_proposed_again() {
    let configuration =
        |a: i64| Params([("mode".into(), Value::Text("plain".into())), ("a".into(), Value::Int(a))].into());
    for sampler in samplers() {
        let mut spec = study(small_space(), sampler.clone(), SchedulerSpec::None, 12, 3);
        spec.enqueue = vec![configuration(5), configuration(1), configuration(5)];
        let (simulation, reason) = run(&spec, &rugged);
        let proposals = proposals(&simulation);
        assert_eq!(reason, DoneReason::Complete, "{sampler:?}");
        assert_eq!(proposals[..2], [configuration(5), configuration(1)], "{sampler:?}");
        assert_eq!(proposals.iter().map(Params::digest).collect::<BTreeSet<_>>().len(), 12, "{sampler:?}");
    }
}

#[test]
fn a_configuration_enqueued_during_the_run_is_the_next_trial_and_replays() {
    for sampler in samplers() {
        let spec = study(mixed_space(), sampler, SchedulerSpec::Sha { min_resource: 1, reduction_factor: 3 }, 20, 9);
        let mut simulation = Simulation::new(&spec, &rugged);
        for _ in 0..5 {
            let Plan::Issue(order) = simulation.engine.plan() else { panic!() };
            simulation.apply(Event::OrderIssued { order });
        }
        let Plan::Issue(before) = simulation.engine.plan() else { panic!() };
        let mut wanted = before.params.clone();
        wanted.0.insert("rate".to_owned(), Value::Float(0.0123));
        simulation.apply(Event::Enqueued { params: wanted.clone(), unix_ms: 0 });
        // One that is already used is skipped.
        let used = (*simulation.engine.trials().next().unwrap().params).clone();
        simulation.apply(Event::Enqueued { params: used, unix_ms: 0 });
        let Plan::Issue(next) = simulation.engine.plan() else { panic!() };
        assert_eq!((next.trial, &next.params), (before.trial, &wanted));
        assert_eq!(simulation.run(&Conditions { workers: 3, seed: 1, kills: 0.05, ahead: 0 }), DoneReason::Complete);
        let orders = simulation.orders();
        simulation.restart(&spec);
        assert_eq!(simulation.orders(), orders);
        assert_eq!(simulation.engine.trials().len(), 20);
    }
}

#[test]
fn adding_a_parameter_leaves_the_random_draws_of_the_others_alone() {
    let spec = study(mixed_space(), SamplerSpec::Random, SchedulerSpec::None, 30, 1);
    let mut wider = spec.clone();
    let domain = Domain::Float { low: -1.0, high: 1.0, step: None, log: false };
    wider.space.parameters.insert(0, Parameter { name: "another".to_owned(), domain, when: None });
    let (narrow, wide) = (proposals(&run(&spec, &rugged).0), proposals(&run(&wider, &rugged).0));
    for (a, mut b) in narrow.into_iter().zip(wide) {
        b.0.remove("another").unwrap();
        assert_eq!(a, b);
    }
}

#[test]
fn random_draws_are_uniform_in_each_parameters_own_scale() {
    let mut spec = study(mixed_space(), SamplerSpec::Random, SchedulerSpec::None, 2000, 1);
    spec.seed = 11;
    let proposals = proposals(&run(&spec, &|_, _| Some(0.0)).0);
    // Standard error of a mean of 2000 uniform draws: .0065.
    let mut units: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for params in &proposals {
        for parameter in spec.space.searched() {
            if let Some(value) = params.get(&parameter.name) {
                units.entry(parameter.name.clone()).or_default().push(parameter.domain.to_unit(value).unwrap());
            }
        }
    }
    for (name, units) in units {
        let mean = units.iter().sum::<f64>() / units.len() as f64;
        assert!((mean - 0.5).abs() < 5.0 * 0.29 / (units.len() as f64).sqrt(), "{name} {mean}");
    }
}

#[test]
fn sobol_stratifies_every_parameter_of_a_study() {
    let domain = |high| Domain::Float { low: 0.0, high, step: None, log: false };
    let parameter = |name: &str, high| Parameter { name: name.to_owned(), domain: domain(high), when: None };
    let space = SearchSpace { parameters: vec![parameter("a", 1.0), parameter("b", 8.0), parameter("c", 64.0)] };
    let spec = study(space.clone(), SamplerSpec::Sobol, SchedulerSpec::None, 64, 1);
    let proposals = proposals(&run(&spec, &|_, _| Some(0.0)).0);
    for parameter in &space.parameters {
        let cells: BTreeSet<u64> = proposals
            .iter()
            .map(|params| (parameter.domain.to_unit(params.get(&parameter.name).unwrap()).unwrap() * 64.0) as u64)
            .collect();
        assert_eq!(cells.len(), 64, "{}", parameter.name);
    }
}

/// Mean best value over seeds.
fn mean_best(sampler: &SamplerSpec, n: u32, curve: &dyn Fn(&Params, u32) -> Option<f64>, space: &SearchSpace) -> f64 {
    let seeds = 20;
    let best = |seed| {
        let mut spec = study(space.clone(), sampler.clone(), SchedulerSpec::None, n, 1);
        spec.seed = seed;
        spec.objective.direction = Direction::Minimize;
        spec.run.virtual_workers = 4;
        run(&spec, curve).0.engine.best().unwrap().value
    };
    (0..seeds).map(best).sum::<f64>() / seeds as f64
}

#[test]
fn learning_samplers_find_what_random_does_not() {
    // A bowl in the mixed space: log rate, ordinal, condition and step all matter.
    let bowl = |params: &Params, _: u32| {
        let rate = params.get("rate")?.as_f64()?.log10() + 3.0;
        let dropout = params.get("dropout")?.as_f64()? - 0.2;
        let head = match params.get("units") {
            None => 1.0,
            Some(units) => (units.as_f64()?.ln() - 4.0).abs() * 0.3,
        };
        Some(rate * rate + 10.0 * dropout * dropout + head)
    };
    let space = mixed_space();
    let found = |sampler, n| mean_best(&sampler, n, &bowl, &space);
    let random = found(SamplerSpec::Random, 60);
    let (tpe, gp) = (found(TPE, 60), found(GP, 30));
    assert!(tpe < 0.6 * random, "tpe {tpe}, random {random}");
    // A smooth function with no noise is what a process is best at.
    assert!(gp < tpe, "gp {gp} after half of the trials, tpe {tpe}");
}

#[test]
fn learning_samplers_start_warm_from_an_earlier_study() {
    for sampler in LEARNING {
        starts_warm(sampler);
    }
}

fn starts_warm(sampler: SamplerSpec) {
    let spec = study(line(), sampler, SchedulerSpec::None, 1, 1);
    let results = (0..40).map(|i| {
        let x = f64::from(i) / 40.0;
        let params = Params([("x".to_owned(), Value::Float(x))].into());
        EarlierResult { trial: TrialNumber(i), params, epoch: Epoch(1), value: -(x - 0.7).abs() }
    });
    let warm = WarmStart {
        source: "earlier".to_owned(),
        study: "earlier".to_owned(),
        results: results.collect(),
        left_out: BTreeMap::new(),
    };
    let learn = Event::EarlierResults { warm, unix_ms: 0 };
    let mut near = 0;
    for seed in 0..40 {
        let mut spec = spec.clone();
        spec.seed = seed;
        let mut engine = Engine::new(&spec);
        engine.apply(&learn).unwrap();
        let Plan::Issue(order) = engine.plan() else { panic!() };
        near += u32::from((order.params.float("x").unwrap() - 0.7).abs() < 0.1);
        engine.apply(&Event::OrderIssued { order }).unwrap();
        assert!(matches!(engine.apply(&learn), Err(Inconsistent::EarlierResults { .. })), "too late");
    }
    // A fifth of random draws would be as near.
    assert!(near >= 30, "{near} of 40");
}

#[test]
fn workers_that_ask_at_the_same_time_are_sent_to_different_places() {
    for sampler in LEARNING {
        sends_workers_to_different_places(sampler);
    }
}

fn sends_workers_to_different_places(sampler: SamplerSpec) {
    let mut spec = study(line(), sampler, SchedulerSpec::None, 40, 1);
    spec.run.virtual_workers = 10;
    let peak = |params: &Params, _: u32| Some(-(params.get("x")?.as_f64()? - 0.3).abs());
    let mut simulation = Simulation::new(&spec, &peak);
    simulation.run(&Conditions { workers: 10, seed: 1, kills: 0.0, ahead: 0 });
    let mut last: Vec<f64> =
        simulation.engine.trials().skip(30).map(|t| t.params.get("x").unwrap().as_f64().unwrap()).collect();
    last.sort_by(f64::total_cmp);
    last.dedup_by(|a, b| (*a - *b).abs() < 1e-6);
    assert!(last.len() >= 9, "{last:?}");
}

#[test]
fn where_all_promise_alike_a_cost_aware_search_takes_the_cheap() {
    // Prices grow with the cube of the layers, 1 to 7; values do not depend on them.
    let curve = |params: &Params, _: u32| Some(-params.float("dropout")?);
    let (mut plain, mut aware) = (0, 0);
    let layers = |simulation: &Simulation<'_>| -> Vec<i64> {
        simulation.engine.trials().map(|t| t.params.int("layers").unwrap()).collect()
    };
    for seed in 0..20 {
        let mut spec = study(mixed_space(), TPE, SchedulerSpec::None, 40, 1);
        spec.seed = seed;
        plain += layers(&run(&spec, &curve).0)[..20].iter().sum::<i64>();
        spec.sampler = COST_AWARE;
        aware += layers(&run(&spec, &curve).0)[..20].iter().sum::<i64>();
    }
    // Random layers have a mean of 4: 1600 in 20 trials of 20 seeds, within 4 of 45.
    assert!((1420..=1780).contains(&plain), "{plain}");
    assert!(aware < 1420, "{aware}");
}

#[test]
fn learning_samplers_survive_only_failures_and_only_equal_values() {
    for sampler in LEARNING {
        for curve in [&(|_: &Params, _: u32| None) as &dyn Fn(&Params, u32) -> Option<f64>, &|_, _| Some(1.0)] {
            let spec = study(mixed_space(), sampler.clone(), SchedulerSpec::None, 40, 1);
            let (simulation, reason) = run(&spec, curve);
            assert_eq!((reason, simulation.engine.trials().len()), (DoneReason::Complete, 40));
        }
    }
}

#[test]
fn inconsistent_events_are_refused_with_a_reason() {
    let spec =
        study(numbers(9), SamplerSpec::Random, SchedulerSpec::Sha { min_resource: 1, reduction_factor: 3 }, 9, 9);
    let mut engine = Engine::new(&spec);
    let Plan::Issue(order) = engine.plan() else { panic!() };
    let refuse = |engine: &mut Engine, event: Event| {
        let before = format!("{engine:?}");
        let refused = engine.apply(&event).expect_err("an inconsistent event");
        assert_eq!(format!("{engine:?}"), before, "a refused event changes nothing: {event:?}");
        refused
    };
    let issued = |change: &dyn Fn(&mut hpsearch::engine::WorkOrder)| {
        let mut order = order.clone();
        change(&mut order);
        Event::OrderIssued { order }
    };
    use hpsearch::engine::{EpochReport, Outcome};
    use hpsearch::ids::OrderId;
    let started = |attempt| Event::AttemptStarted { order: OrderId(0), attempt, worker: 0, unix_ms: 0 };
    let reported = |attempt, epoch, value| {
        let report = EpochReport { epoch: Epoch(epoch), value: Some(value), ..EpochReport::default() };
        Event::EpochReported { order: OrderId(0), attempt, report, unix_ms: 0 }
    };
    let finished = |outcome| Event::OrderFinished { order: OrderId(0), outcome, unix_ms: 0 };
    assert!(matches!(refuse(&mut engine, started(1)), Inconsistent::UnknownOrder(_)));
    assert!(matches!(refuse(&mut engine, issued(&|o| o.order = OrderId(1))), Inconsistent::OrderNumber { .. }));
    assert!(matches!(refuse(&mut engine, issued(&|o| o.to = Epoch(9))), Inconsistent::NotPlanned { .. }));
    assert!(matches!(refuse(&mut engine, issued(&|o| o.bracket = 1)), Inconsistent::NotPlanned { .. }));
    for planned in [0, 10] {
        let event = issued(&|o| o.planned_trials = planned);
        assert!(matches!(refuse(&mut engine, event), Inconsistent::PlannedTrials { .. }));
    }
    engine.apply(&Event::OrderIssued { order: order.clone() }).unwrap();
    let Plan::Issue(second) = engine.plan() else { panic!() };
    let twice = Event::OrderIssued { order: hpsearch::engine::WorkOrder { params: order.params.clone(), ..second } };
    assert!(matches!(refuse(&mut engine, twice), Inconsistent::ConfigurationUsed { .. }));
    assert!(matches!(refuse(&mut engine, reported(1, 1, 0.5)), Inconsistent::StaleAttempt { .. }));
    assert!(matches!(refuse(&mut engine, started(2)), Inconsistent::AttemptNumber { expected: 1, .. }));
    engine.apply(&started(1)).unwrap();
    engine.apply(&started(2)).unwrap();
    assert!(matches!(refuse(&mut engine, reported(1, 1, 0.5)), Inconsistent::StaleAttempt { .. }));
    assert!(matches!(refuse(&mut engine, reported(2, 2, 0.5)), Inconsistent::EpochNumber { .. }));
    assert!(matches!(refuse(&mut engine, finished(Outcome::Reached { value: 0.5 })), Inconsistent::Outcome { .. }));
    engine.apply(&reported(2, 1, 0.5)).unwrap();
    assert!(matches!(refuse(&mut engine, reported(2, 1, 0.5)), Inconsistent::EpochNumber { .. }));
    for value in [0.6, f64::NAN, f64::INFINITY] {
        assert!(matches!(refuse(&mut engine, finished(Outcome::Reached { value })), Inconsistent::Outcome { .. }));
    }
    let stopped = Outcome::Stopped { at: Epoch(1), value: 0.5 };
    assert!(matches!(refuse(&mut engine, finished(stopped)), Inconsistent::Outcome { .. }));
    engine.apply(&finished(Outcome::Reached { value: 0.5 })).unwrap();
    let refused = refuse(&mut engine, finished(Outcome::Reached { value: 0.5 }));
    assert_eq!(refused.to_string(), "change order 0: it is finished");
}
