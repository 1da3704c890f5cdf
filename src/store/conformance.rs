//! What every store must do.

use super::{EventStore, RunStart, StoreError};
use crate::digest::Digest;
use crate::engine::{EpochReport, Event, FailureClass, FileRef, Outcome, WarmStart, WorkOrder};
use crate::ids::{Epoch, OrderId, TrialNumber};
use crate::ledger::{EarlierResult, StopCurve};
use crate::space::{Domain, Parameter, Params, SearchSpace, Value};
use crate::spec::{Metric, RunnerSpec, SchedulerSpec, StudySpec};
use std::collections::BTreeMap;

/// A small study of the synthetic runner.
pub(crate) fn study(name: &str) -> StudySpec {
    let float = |low, high, log| Domain::Float { low, high, step: None, log };
    let parameter = |name: &str, domain| Parameter { name: name.to_owned(), domain, when: None };
    let space = SearchSpace {
        parameters: vec![
            parameter("learning_rate", float(1e-5, 1e-1, true)),
            parameter("dropout", float(0.0, 0.6, false)),
        ],
    };
    let mut spec = StudySpec::external(name, space, 3, 4);
    spec.objective.metric = Metric::Custom("score".to_owned());
    let runner = RunnerSpec::Synthetic { epochs: 3, epoch_ms: 0 };
    StudySpec { seed: u64::MAX - 6, runner, scheduler: SchedulerSpec::None, ..spec }
}

/// An order of a trial, with every kind of value in its parameters.
pub(crate) fn order(number: u32) -> WorkOrder {
    let params = [
        ("learning_rate", Value::Float(0.1 + 0.2)),
        ("layers", Value::Int(i64::MIN)),
        ("nesterov", Value::Bool(true)),
        ("optimiser", Value::Text("ada\"m\n\u{e9}".to_owned())),
    ];
    WorkOrder {
        order: OrderId(number),
        trial: TrialNumber(number),
        params: Params(params.map(|(k, v)| (k.to_owned(), v)).into()),
        from: Epoch(0),
        to: Epoch(3),
        stop: (number == 1).then(|| StopCurve(BTreeMap::from([(Epoch(1), 0.5)]))),
        bracket: 0,
        rung: Some(1),
        planned_trials: 4,
    }
}

/// A report with both files.
pub(crate) fn report(trial: u32, epoch: u32, value: Option<f64>) -> EpochReport {
    let file = |kind: &str| {
        let path = format!("{kind}/{trial}-{epoch}");
        Some(FileRef { digest: Digest::of(path.as_bytes()), path, bytes: 1 << 40 })
    };
    EpochReport {
        epoch: Epoch(epoch),
        value,
        metrics: BTreeMap::from([("f1".to_owned(), 1.0 / 3.0), ("recall".to_owned(), f64::from(epoch) / 10.0)]),
        train_loss: Some(5e-324),
        seconds: 0.25,
        data_wait_seconds: 0.0,
        images: 640,
        memory_bytes: Some(1 << 40),
        at_once: Some(16),
        checkpoint: file("checkpoints"),
        predictions: file("predictions"),
    }
}

/// A history with every kind of event.
pub(crate) fn history() -> Vec<Event> {
    let reported = |order, attempt, epoch, value| Event::EpochReported {
        order: OrderId(order),
        attempt,
        report: report(order, epoch, value),
        unix_ms: 1_700_000_000_000 + u64::from(epoch),
    };
    let started = |order, attempt| Event::AttemptStarted { order: OrderId(order), attempt, worker: 0, unix_ms: 1 };
    let finished = |order, outcome| Event::OrderFinished { order: OrderId(order), outcome, unix_ms: 9 };
    let by_hand = Params([("dropout".to_owned(), Value::Float(0.5))].into());
    vec![
        Event::OrderIssued { order: order(0) },
        started(0, 0),
        reported(0, 0, 1, Some(0.5)),
        Event::AttemptLost {
            order: OrderId(0),
            attempt: 0,
            class: FailureClass::Lost,
            reason: "killed by signal 9".to_owned(),
            unix_ms: 5,
        },
        started(0, 1),
        reported(0, 1, 2, Some(0.75)),
        reported(0, 1, 3, Some(0.875)),
        finished(0, Outcome::Reached { value: 0.875 }),
        Event::OrderIssued { order: order(1) },
        started(1, 0),
        reported(1, 0, 1, Some(0.25)),
        finished(1, Outcome::Stopped { at: Epoch(1), value: 0.25 }),
        Event::OrderIssued { order: order(2) },
        started(2, 0),
        reported(2, 0, 1, None),
        Event::Enqueued { params: by_hand, unix_ms: 3 },
        finished(2, Outcome::Failed { class: FailureClass::Diverged, reason: "loss is NaN".to_owned() }),
    ]
}

fn all(store: &dyn EventStore, after: u64) -> Vec<Event> {
    let mut events = Vec::new();
    store.read(after, &mut |e| events.push(e)).unwrap();
    events
}

/// Checks a store; `make` gives a fresh, empty one of a study.
pub(crate) fn check(make: &mut dyn FnMut(StudySpec) -> Box<dyn EventStore>) {
    let spec = study("conformance");
    let mut store = make(spec.clone());
    assert_eq!(store.spec(), &spec);
    assert!(store.is_empty() && all(&*store, 0).is_empty());

    let history = history();
    let (first, rest) = history.split_at(3);
    store.append(0, first).unwrap();
    assert!(
        matches!(store.append(0, rest), Err(StoreError::Conflict { expected: 0, found: 3 })),
        "a writer that has not seen the latest events is refused"
    );
    assert_eq!(store.len(), 3, "a refused append leaves nothing");
    store.append(3, rest).unwrap();
    store.append(store.len(), &[]).unwrap();
    assert_eq!(store.len(), history.len() as u64);
    assert_eq!(all(&*store, 0), history, "events come back as they went in, floats to the bit");
    assert_eq!(all(&*store, 14), history[14..]);
    assert!(all(&*store, 99).is_empty());

    assert_eq!(store.run_seconds().unwrap(), 0.0);
    let run = RunStart { unix_ms: 1, program: "0".to_owned(), workers: 2, device: "cpu".to_owned() };
    store.begin_run(&run).unwrap();
    store.note_run(1.5, None).unwrap();
    store.note_run(2.0, Some("done")).unwrap();
    store.begin_run(&run).unwrap();
    store.note_run(0.25, None).unwrap();
    assert_eq!(store.run_seconds().unwrap(), 2.25, "wall time adds up over runs");

    let mut raised = spec;
    raised.budget.n_trials = Some(40);
    store.replace_spec(&raised).unwrap();
    assert_eq!(store.spec(), &raised);
    store.forget_files(&["checkpoints/0-1".to_owned()]).unwrap();
    assert_eq!(all(&*store, 0), history);
    let earlier = earlier_results();
    store.append(store.len(), std::slice::from_ref(&earlier)).unwrap();
    assert_eq!(all(&*store, history.len() as u64), [earlier]);
}

/// Results of another study, as a warm start copies them.
fn earlier_results() -> Event {
    let params = order(0).params;
    let result = EarlierResult { trial: TrialNumber(7), params, epoch: Epoch(3), value: 0.1 + 0.2 };
    let warm = WarmStart {
        source: "../old/study.db".to_owned(),
        study: "old".to_owned(),
        results: vec![result],
        left_out: BTreeMap::from([("it failed".to_owned(), 2)]),
    };
    Event::EarlierResults { warm, unix_ms: 5 }
}
