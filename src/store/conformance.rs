//! What every backend must do: all of them run through the same checks.

use super::{Backend, Chosen, ImagesOnRecord, OpenedMean, OpenedTrial, Opening, RunEnd, RunStart, Store, StoreError};
use crate::digest::Digest;
use crate::engine::{EpochReport, Event, FailureClass, FileRef, Outcome, Price, TrialState, WarmStart, WorkOrder};
use crate::history::{
    AttemptEnd, AttemptRow, ConfigurationRow, EarlierRow, EnqueuedRow, EpochRow, FailureRow, FileKind, FileRow,
    OrderRow, OutcomeKind, Row, Tables, TrialRow,
};
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
        price: (number == 1).then_some(Price { early_epochs: 2, early: 3, ..Price::new(7, 1 << 40) }),
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

/// A history with every kind of event but earlier results.
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

/// A row of every kind, and some that replace others.
pub(crate) fn rows() -> Vec<Row> {
    let trial = |number: u32, state, value| TrialRow {
        trial: TrialNumber(number),
        state,
        value,
        epochs: 2,
        result: value,
        result_epochs: 2,
        bracket: 1,
        rung: Some(1),
        seconds: 0.1 + 0.2,
        issued_ms: Some(1_700_000_000_000),
        finished_ms: None,
    };
    let order = |outcome: Option<OutcomeKind>| {
        Row::Order(OrderRow {
            order: OrderId(0),
            trial: TrialNumber(0),
            from: Epoch(0),
            to: Epoch(3),
            bracket: 0,
            rung: None,
            outcome,
            at: outcome.map(|_| Epoch(3)),
            value: outcome.map(|_| 0.875),
            finished_ms: outcome.map(|_| 9),
        })
    };
    let attempt = |ended: Option<AttemptEnd>| {
        let ended_ms = ended.map(|_| 8);
        Row::Attempt(AttemptRow { order: OrderId(0), attempt: 1, worker: 3, started_ms: 7, ended_ms, ended })
    };
    let epoch = |number: u32| {
        let report = report(0, number, Some(0.25));
        Row::Epoch(EpochRow {
            trial: TrialNumber(0),
            epoch: Epoch(number),
            value: report.value,
            train_loss: report.train_loss,
            seconds: report.seconds,
            data_wait_seconds: report.data_wait_seconds,
            images: report.images,
            order: OrderId(0),
            attempt: 1,
            reported_ms: 5,
            metrics: report.metrics,
        })
    };
    let file = |kind, path: &str| {
        let file = FileRef { path: path.to_owned(), digest: Digest::of(path.as_bytes()), bytes: 1 << 40 };
        Row::File(FileRow { file, kind, trial: TrialNumber(0), epoch: Epoch(1) })
    };
    vec![
        Row::Configuration(ConfigurationRow { trial: TrialNumber(0), params: self::order(0).params }),
        Row::Trial(trial(0, TrialState::Running, Some(0.5))),
        Row::Trial(trial(0, TrialState::Complete, None)),
        order(None),
        order(Some(OutcomeKind::Reached)),
        attempt(None),
        attempt(Some(AttemptEnd::Failed(FailureClass::BadInput))),
        epoch(1),
        epoch(2),
        epoch(3),
        Row::Retrained { trial: TrialNumber(0), from: Epoch(2) },
        epoch(2),
        Row::Failure(FailureRow {
            seq: 4,
            trial: TrialNumber(0),
            order: OrderId(0),
            attempt: None,
            class: FailureClass::Oom,
            reason: "no \"room\"\n".to_owned(),
            is_final: true,
            at_ms: 6,
        }),
        file(FileKind::Checkpoint, "checkpoints/0-1"),
        file(FileKind::Predictions, "predictions/0-1"),
        Row::Earlier(EarlierRow {
            seq: 1,
            study: "old".to_owned(),
            trial: TrialNumber(7),
            epoch: Epoch(3),
            value: -0.0,
            params: self::order(1).params,
        }),
        Row::Enqueued(EnqueuedRow { seq: 2, params: self::order(2).params, at_ms: 3 }),
    ]
}

fn all(store: &dyn Store, after: u64) -> Vec<Event> {
    let mut events = Vec::new();
    store.events(after, &mut |e| events.push(e)).unwrap();
    events
}

/// Checks a backend that holds no studies yet.
pub(crate) fn check(backend: &dyn Backend) {
    events_are_kept_or_refused(backend);
    rows_come_back_as_they_went_in(backend);
    one_writer_at_a_time(backend);
    runs_and_files_are_recorded(backend);
    write_once_records_are_final(backend);
    a_reader_sees_a_snapshot_during_a_write(backend);
    let names = ["events", "files", "once", "reader", "rows", "writers"];
    assert_eq!(backend.names().unwrap(), names);
}

fn events_are_kept_or_refused(backend: &dyn Backend) {
    let spec = study("events");
    assert!(!backend.exists("events").unwrap());
    assert!(matches!(backend.read("events"), Err(StoreError::Missing(_))));
    let claim = backend.claim("events").unwrap();
    assert!(claim.open().unwrap().is_none());
    let mut store = claim.create(&spec).unwrap();
    assert!(backend.exists("events").unwrap());
    assert_eq!(store.spec(), &spec);
    assert!(store.is_empty() && all(&*store, 0).is_empty());
    assert!(matches!(claim.create(&spec), Err(StoreError::Exists(_))));

    let history = history();
    let (first, rest) = history.split_at(3);
    store.append(0, first, &[]).unwrap();
    assert!(
        matches!(store.append(0, rest, &rows()), Err(StoreError::Conflict { expected: 0, found: 3 })),
        "a writer that has not seen the latest events is refused"
    );
    assert_eq!(store.len(), 3, "a refused append leaves nothing");
    assert_eq!(backend.read("events").unwrap().tables().unwrap(), Tables::default(), "nor any row");
    store.append(3, rest, &[]).unwrap();
    store.append(store.len(), &[], &[]).unwrap();
    assert_eq!(store.len(), history.len() as u64);
    assert_eq!(all(&*store, 0), history, "events come back as they went in, floats to the bit");
    assert_eq!(all(&*store, 14), history[14..]);
    assert!(all(&*store, 99).is_empty());

    let mut raised = spec;
    raised.budget.n_trials = Some(40);
    store.replace_spec(&raised, &[]).unwrap();
    assert_eq!(store.spec(), &raised);
    let earlier = earlier_results();
    store.append(store.len(), std::slice::from_ref(&earlier), &[]).unwrap();

    // Opened again, the study has everything; removed, it is gone.
    drop(store);
    let store = claim.open().unwrap().unwrap();
    assert_eq!(store.spec(), &raised);
    assert_eq!(all(&*store, history.len() as u64), [earlier]);
    drop(store);
    let mut read = Vec::new();
    claim.read().unwrap().events(0, &mut |event| read.push(event)).unwrap();
    assert_eq!(read[..history.len()], history);
    claim.remove().unwrap();
    assert!(claim.open().unwrap().is_none());
    claim.create(&raised).unwrap();
}

fn rows_come_back_as_they_went_in(backend: &dyn Backend) {
    let claim = backend.claim("rows").unwrap();
    let mut store = claim.create(&study("rows")).unwrap();
    let mut expected = Tables::default();
    rows().into_iter().for_each(|row| expected.put(row));
    store.append(0, &history()[..1], &rows()).unwrap();
    assert_eq!(backend.read("rows").unwrap().tables().unwrap(), expected);
    let mut outline = expected.clone();
    assert!(!outline.files.is_empty() && outline.epochs.values().any(|epoch| !epoch.metrics.is_empty()));
    outline.files.clear();
    outline.epochs.values_mut().for_each(|epoch| epoch.metrics.clear());
    let reader = backend.read("rows").unwrap();
    assert_eq!(reader.outline().unwrap(), outline);
    let version = reader.version().unwrap();
    assert_eq!(reader.tables().unwrap(), expected);
    assert_eq!(reader.version().unwrap(), version, "reading is not writing");
    let promoted = TrialRow { rung: Some(2), ..rows().into_iter().find_map(trial_row).unwrap() };
    store.replace_spec(&study("rows"), &[Row::Trial(promoted.clone())]).unwrap();
    expected.put(Row::Trial(promoted));
    assert_ne!(reader.version().unwrap(), version, "a write is seen");
    assert_eq!(backend.read("rows").unwrap().tables().unwrap(), expected);
    drop(store);
    drop(claim.open().unwrap());
    assert_eq!(backend.read("rows").unwrap().tables().unwrap(), expected);
}

fn one_writer_at_a_time(backend: &dyn Backend) {
    assert_eq!(backend.holder("writers").unwrap(), None);
    let claim = backend.claim("writers").unwrap();
    assert_eq!(backend.holder("writers").unwrap().map(|h| h.pid), Some(std::process::id()));
    assert!(matches!(backend.claim("writers"), Err(StoreError::Locked { .. })));
    let other = backend.claim("rows").unwrap();
    drop((claim, other));
    assert_eq!(backend.holder("writers").unwrap(), None);
    backend.claim("writers").unwrap().create(&study("writers")).unwrap();
}

fn runs_and_files_are_recorded(backend: &dyn Backend) {
    let claim = backend.claim("files").unwrap();
    let mut store = claim.create(&study("files")).unwrap();
    store.append(0, &history()[..1], &rows()).unwrap();
    let run = RunStart { unix_ms: 1, program: "0".to_owned(), workers: 2, device: "cpu".to_owned() };
    let changed = TrialRow { epochs: 77, ..rows().into_iter().find_map(trial_row).unwrap() };
    store.begin_run(&run, &[]).unwrap();
    store.note_run(1.5, None).unwrap();
    store.note_run(2.0, Some((RunEnd::OutOfTime, &[]))).unwrap();
    store.begin_run(&run, &[]).unwrap();
    store.note_run(0.25, None).unwrap();
    store.begin_run(&run, &[Row::Trial(changed.clone())]).unwrap();
    let reader = backend.read("files").unwrap();
    let runs = reader.runs().unwrap();
    assert_eq!(runs, store.runs().unwrap());
    let ended: Vec<_> = runs.iter().map(|run| (run.seconds, run.ended)).collect();
    assert_eq!(ended, [(2.0, Some(RunEnd::OutOfTime)), (0.25, Some(RunEnd::Killed)), (0.0, None)]);
    assert_eq!(reader.tables().unwrap().trials[&TrialNumber(0)], changed);

    assert_eq!(store.kept_files().unwrap(), ["checkpoints/0-1", "predictions/0-1"]);
    store.forget_files(&["checkpoints/0-1".to_owned(), "unknown".to_owned()]).unwrap();
    assert_eq!(store.kept_files().unwrap(), ["predictions/0-1"]);
    let files: Vec<_> = reader.files().unwrap().into_iter().map(|(row, kept)| (row.file.path, kept)).collect();
    assert_eq!(files, [("checkpoints/0-1".to_owned(), false), ("predictions/0-1".to_owned(), true)]);
    // An epoch trained again writes its files again.
    let again: Vec<Row> = rows().into_iter().filter(|row| matches!(row, Row::File(_))).collect();
    store.append(1, &history()[1..2], &again).unwrap();
    assert_eq!(store.kept_files().unwrap().len(), 2);
}

fn trial_row(row: Row) -> Option<TrialRow> {
    if let Row::Trial(row) = row { Some(row) } else { None }
}

fn write_once_records_are_final(backend: &dyn Backend) {
    let claim = backend.claim("once").unwrap();
    let mut store = claim.create(&study("once")).unwrap();
    store.append(0, &history()[..1], &rows()).unwrap();
    let reader = backend.read("once").unwrap();
    assert_eq!((reader.images().unwrap(), reader.opening().unwrap()), (None, None));
    let images =
        ImagesOnRecord { folder: "/data".into(), digest: Digest::of(b"images"), summary: "{\"n\":1}".to_owned() };
    store.record_images(&images).unwrap();
    let others = ImagesOnRecord { summary: "{}".to_owned(), ..images.clone() };
    assert!(matches!(store.record_images(&others), Err(StoreError::Recorded { .. })));
    assert_eq!(reader.images().unwrap(), Some(images.clone()));
    assert_eq!(store.images().unwrap(), Some(images));

    let tested = OpenedTrial {
        trial: TrialNumber(0),
        threshold: Some(0.1 + 0.2),
        predictions: FileRef { path: "test/0.csv".to_owned(), digest: Digest::of(b"t"), bytes: 12 },
    };
    let mean = Some(OpenedMean { threshold: Some(0.7) });
    let chosen = vec![Chosen { trial: TrialNumber(0), epoch: Epoch(2), threshold: tested.threshold }];
    assert!(matches!(store.record_tested(std::slice::from_ref(&tested)), Err(StoreError::Recorded { .. })));
    let opening = Opening { unix_ms: 99, unfinished: true, chosen, mean, results: Vec::new() };
    store.begin_opening(&opening).unwrap();
    let again = Opening { unix_ms: 100, unfinished: false, chosen: Vec::new(), mean: None, results: Vec::new() };
    assert!(matches!(store.begin_opening(&again), Err(StoreError::Recorded { .. })));
    assert_eq!(reader.opening().unwrap(), Some(opening.clone()));
    store.record_tested(std::slice::from_ref(&tested)).unwrap();
    assert!(matches!(store.record_tested(std::slice::from_ref(&tested)), Err(StoreError::Recorded { .. })));
    let opening = Opening { results: vec![tested], ..opening };
    assert_eq!(reader.opening().unwrap(), Some(opening.clone()));
    assert_eq!(store.opening().unwrap(), Some(opening));
}

fn a_reader_sees_a_snapshot_during_a_write(backend: &dyn Backend) {
    let claim = backend.claim("reader").unwrap();
    let mut store = claim.create(&study("reader")).unwrap();
    let history = history();
    store.append(0, &history[..8], &[]).unwrap();
    let reader = backend.read("reader").unwrap();
    let mut seen = 0;
    reader
        .events(0, &mut |_| {
            if seen == 2 {
                store.append(8, &history[8..], &rows()).unwrap();
            }
            seen += 1;
        })
        .unwrap();
    assert_eq!(seen, 8, "what is written meanwhile is of another moment");
    assert_eq!(reader.spec().unwrap(), study("reader"));
    assert_eq!(reader.tables().unwrap().epochs.len(), 2);
    let mut later = Vec::new();
    reader.events(8, &mut |event| later.push(event)).unwrap();
    assert_eq!(later, history[8..]);
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
