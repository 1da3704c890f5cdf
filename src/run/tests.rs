//! The coordinator against workers that are threads of the test: no process, no disk.

use super::link::{Death, Launcher, Link, Mailbox};
use super::protocol::{Failure, Reply, Request};
use super::{Elsewhere, Progress, RunError, RunOptions, Verdict, run_with};
use crate::data::Task;
use crate::engine::{DoneReason, EpochReport, FailureClass, Greeting, WorkOrder};
use crate::ids::Epoch;
use crate::runner::Phase;
use crate::spec::{
    Allocation, ClusterKind, ClusterSpec, Device, Devices, Others, RunnerSpec, SchedulerSpec, StudySpec,
};
use crate::store::conformance;
use crate::study::Study;
use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

/// What a worker does with an order, given its end of the connection, the order and the number of the worker.
type Script = dyn Fn(&Voice, &WorkOrder, u32) -> Then + Send + Sync;

/// What a worker does after an order.
enum Then {
    /// Awaits the next one.
    Next,
    /// Closes its output, like a process that dies.
    Die,
    /// Falls silent without closing its output.
    Freeze,
}

/// A worker's end of the connection.
struct Voice {
    mailbox: Mailbox,
    requests: Receiver<Request>,
}

impl Voice {
    fn say(&self, reply: &Reply) {
        self.mailbox.line(serde_json::to_vec(reply).unwrap());
    }

    /// Reports an epoch and waits for the answer: whether to go on.
    fn epoch(&self, epoch: u32, value: f64) -> bool {
        self.say(&Reply::Epoch { report: EpochReport::new(Epoch(epoch), value) });
        self.recorded()
    }

    fn recorded(&self) -> bool {
        while let Ok(request) = self.requests.recv() {
            match request {
                Request::Recorded { go } => return go,
                Request::Stop => return false,
                _ => {}
            }
        }
        false
    }

    /// Trains an order without faults.
    fn train(&self, order: &WorkOrder) -> Then {
        for epoch in order.from.0 + 1..=order.to.0 {
            if !self.epoch(epoch, f64::from(order.trial.0) + f64::from(epoch) / 10.0) {
                break;
            }
        }
        self.ended(None)
    }

    fn ended(&self, failure: Option<Failure>) -> Then {
        self.say(&Reply::Ended { failure, leaving: false });
        Then::Next
    }
}

/// Starts threads that follow a script. `starts`: whether the n-th worker gets ready.
struct Threads {
    script: Arc<Script>,
    launched: Arc<AtomicU32>,
    starts: fn(u32) -> bool,
    greeting: fn(u32) -> Greeting,
}

struct Thread {
    requests: Option<Sender<Request>>,
}

impl Launcher for Threads {
    fn launch(&mut self, mailbox: Mailbox) -> io::Result<Box<dyn Link>> {
        let (sender, requests) = channel();
        let (script, starts, greeting) = (self.script.clone(), self.starts, self.greeting);
        let number = self.launched.fetch_add(1, Ordering::SeqCst);
        std::thread::spawn(move || {
            let voice = Voice { mailbox, requests };
            let Ok(Request::Hello { .. }) = voice.requests.recv() else { return };
            if !starts(number) {
                return voice.mailbox.closed();
            }
            voice.say(&Reply::Ready { version: super::protocol::VERSION, greeting: greeting(number) });
            while let Ok(request) = voice.requests.recv() {
                let Request::Run { order, .. } = request else { continue };
                match script(&voice, &order, number) {
                    Then::Next => {}
                    Then::Die => break,
                    Then::Freeze => return std::thread::park(),
                }
            }
            voice.mailbox.closed();
        });
        Ok(Box::new(Thread { requests: Some(sender) }))
    }
}

impl Link for Thread {
    fn send(&mut self, request: &Request) {
        if let Some(requests) = &self.requests {
            let _ = requests.send(request.clone());
        }
    }

    fn close(&mut self) {
        self.requests.take();
    }

    fn reap(self: Box<Self>, _: Duration) -> Death {
        Death { class: FailureClass::Lost, reason: "the thread ended".to_owned() }
    }
}

/// Four trials of three epochs.
fn spec() -> StudySpec {
    let mut spec = conformance::study("links");
    (spec.scheduler, spec.runner) = (SchedulerSpec::None, RunnerSpec::Synthetic { epochs: 3, epoch_ms: 0 });
    spec
}

/// Runs a study with workers that follow `script`.
fn play(
    spec: &StudySpec,
    silence: Duration,
    starts: fn(u32) -> bool,
    script: impl Fn(&Voice, &WorkOrder, u32) -> Then + Send + Sync + 'static,
) -> (Result<Verdict, RunError>, Study, Vec<Progress>) {
    play_on(None, |_| Greeting::default(), spec, silence, starts, script)
}

/// The same, `elsewhere` with workers that greet so.
fn play_on(
    elsewhere: Option<Elsewhere>,
    greeting: fn(u32) -> Greeting,
    spec: &StudySpec,
    silence: Duration,
    starts: fn(u32) -> bool,
    script: impl Fn(&Voice, &WorkOrder, u32) -> Then + Send + Sync + 'static,
) -> (Result<Verdict, RunError>, Study, Vec<Progress>) {
    let mut study = Study::in_memory(spec);
    let options = RunOptions {
        program: PathBuf::new(),
        base: PathBuf::new(),
        cache_dir: PathBuf::new(),
        workers: 2,
        threads: Some(1),
        devices: vec![Device::Cpu],
        elsewhere,
        silence,
        patience: Duration::from_millis(50),
    };
    let mut launcher = Threads { script: Arc::new(script), launched: Arc::default(), starts, greeting };
    let mut seen = Vec::new();
    let verdict = run_with(&mut study, &options, &mut launcher, &mut |progress: &Progress| seen.push(progress.clone()));
    (verdict, study, seen)
}

const PATIENT: Duration = Duration::from_secs(60);

/// Everything that is on record: states, epochs and values by trial.
fn record(study: &Study) -> BTreeMap<u32, (String, usize, Option<f64>)> {
    study.engine().trials().map(|t| (t.number.0, (t.state.to_string(), t.curve.len(), t.value))).collect()
}

fn without_faults() -> BTreeMap<u32, (String, usize, Option<f64>)> {
    let (verdict, study, _) = play(&spec(), PATIENT, |_| true, |voice, order, _| voice.train(order));
    assert_eq!(verdict.unwrap().done, Some(DoneReason::Complete));
    let record = record(&study);
    assert!(record.len() == 4 && record.values().all(|(state, epochs, _)| state == "complete" && *epochs == 3));
    record
}

/// The failed attempts that were shown: their class, and whether another attempt followed.
fn lost(seen: &[Progress]) -> Vec<(FailureClass, bool)> {
    let lost =
        |p: &Progress| if let Progress::AttemptLost { class, again, .. } = p { Some((*class, *again)) } else { None };
    seen.iter().filter_map(lost).collect()
}

#[test]
fn lost_workers_cost_an_attempt_and_change_no_result() {
    // The workers of the first three orders die after one epoch.
    let orders = AtomicU32::new(0);
    let (verdict, study, seen) = play(
        &spec(),
        PATIENT,
        |_| true,
        move |voice, order, _| {
            if orders.fetch_add(1, Ordering::SeqCst) >= 3 {
                return voice.train(order);
            }
            voice.epoch(1, f64::from(order.trial.0) + 0.1);
            Then::Die
        },
    );
    assert_eq!(verdict.unwrap().done, Some(DoneReason::Complete));
    assert_eq!(record(&study), without_faults());
    assert_eq!(lost(&seen), [(FailureClass::Lost, true); 3]);
}

#[test]
fn silent_workers_are_replaced() {
    let orders = AtomicU32::new(0);
    let (verdict, study, seen) = play(
        &spec(),
        Duration::from_millis(300),
        |_| true,
        move |voice, order, _| {
            if orders.fetch_add(1, Ordering::SeqCst) == 0 { Then::Freeze } else { voice.train(order) }
        },
    );
    assert_eq!(verdict.unwrap().done, Some(DoneReason::Complete));
    assert_eq!(record(&study), without_faults());
    assert_eq!(lost(&seen), [(FailureClass::Lost, true)]);
}

#[test]
fn the_epoch_limit_ends_slow_training_but_not_shared_preparation() {
    let mut limited = spec();
    limited.limits.epoch_seconds = Some(0.4);
    // Filling a cache takes longer than the limit of an epoch, but reports progress.
    let (verdict, study, seen) = play(
        &limited,
        PATIENT,
        |_| true,
        |voice, order, _| {
            for done in 0..6 {
                std::thread::sleep(Duration::from_millis(100));
                voice.say(&Reply::Progress { phase: Phase::Prepare(Task::Features), done, total: 6 });
            }
            voice.train(order)
        },
    );
    assert_eq!(verdict.unwrap().done, Some(DoneReason::Complete));
    assert_eq!((record(&study), lost(&seen)), (without_faults(), Vec::new()));
    // Training that exceeds the limit is ended, whatever it reports meanwhile.
    limited.failures.timeout = 1;
    let (verdict, study, seen) = play(
        &limited,
        PATIENT,
        |_| true,
        |voice, order, _| {
            if order.trial.0 > 0 {
                return voice.train(order);
            }
            for done in 0..30 {
                std::thread::sleep(Duration::from_millis(50));
                voice.say(&Reply::Progress { phase: Phase::Train, done, total: 30 });
                voice.say(&Reply::Warning { text: "a warning is no progress".to_owned() });
            }
            Then::Die
        },
    );
    assert_eq!(verdict.unwrap().done, Some(DoneReason::Complete));
    assert_eq!(lost(&seen), [(FailureClass::Timeout, true), (FailureClass::Timeout, false)]);
    assert_eq!(record(&study)[&0].0, "failed");
    assert!(seen.iter().any(|p| matches!(p, Progress::Warning { text } if text == "a warning is no progress")));
}

#[test]
fn workers_that_break_the_protocol_are_ended_and_their_reports_dropped() {
    let faults: [fn(&Voice) -> Then; 4] = [
        |voice| {
            voice.mailbox.line(b"epoch 1 of 3".to_vec());
            Then::Freeze
        },
        |voice| {
            voice.mailbox.line(vec![0xff, 0xfe]);
            Then::Freeze
        },
        // Leaves two epochs out.
        |voice| {
            voice.epoch(3, 9.0);
            Then::Freeze
        },
        // Claims to have finished; this worker may go on with another order.
        |voice| voice.ended(None),
    ];
    for fault in faults {
        let violations = AtomicU32::new(0);
        let (verdict, study, seen) = play(
            &spec(),
            PATIENT,
            |_| true,
            move |voice, order, _| {
                let first = order.trial.0 == 0 && violations.fetch_add(1, Ordering::SeqCst) == 0;
                if first { fault(voice) } else { voice.train(order) }
            },
        );
        assert_eq!(verdict.unwrap().done, Some(DoneReason::Complete));
        assert_eq!(record(&study), without_faults());
        assert_eq!(lost(&seen), [(FailureClass::Crashed, true)]);
    }
}

#[test]
fn workers_that_never_get_ready_end_the_run_and_no_failure_is_counted() {
    let (verdict, study, _) = play(&spec(), PATIENT, |_| false, |voice, order, _| voice.train(order));
    assert!(matches!(verdict, Err(RunError::FailedStarts { tries: 3, .. })));
    assert_eq!(study.engine().failures(), 0);
    assert!(study.engine().orders().iter().all(|order| order.losses.is_empty()));
    // A single worker that does not get ready is replaced.
    let (verdict, study, _) = play(&spec(), PATIENT, |n| n != 1, |voice, order, _| voice.train(order));
    assert_eq!(verdict.unwrap().done, Some(DoneReason::Complete));
    assert_eq!(record(&study), without_faults());
}

fn elsewhere(others: Others) -> Option<Elsewhere> {
    let cluster = ClusterSpec {
        kind: ClusterKind::Command,
        command: Vec::new(),
        arguments: Vec::new(),
        hosts: Vec::new(),
        program: None,
        allocation: Allocation::Each,
        notice_seconds: 120.0,
        others,
    };
    let (rest, idle) = (Duration::from_millis(20), Duration::from_millis(100));
    Some(Elsewhere { rest, idle, ..Elsewhere::new(cluster, Devices::Cpu) })
}

fn greeting_of(arithmetic: &str) -> Greeting {
    // The program is that of the coordinator: the test itself.
    Greeting { arithmetic: Some(arithmetic.to_owned()), program: super::place::program(), ..Greeting::default() }
}

/// Runs a study elsewhere, with workers that all compute alike.
fn play_elsewhere(
    spec: &StudySpec,
    starts: fn(u32) -> bool,
    script: impl Fn(&Voice, &WorkOrder, u32) -> Then + Send + Sync + 'static,
) -> (Result<Verdict, RunError>, Study, Vec<Progress>) {
    play_on(elsewhere(Others::Refuse), |_| greeting_of("one"), spec, PATIENT, starts, script)
}

fn warnings(seen: &[Progress], part: &str) -> usize {
    seen.iter().filter(|p| matches!(p, Progress::Warning { text } if text.contains(part))).count()
}

#[test]
fn workers_elsewhere_that_leave_or_vanish_cost_no_failure() {
    // Epochs of each trial on record: every worker goes on after them.
    let done: [AtomicU32; 4] = Default::default();
    let next = move |voice: &Voice, order: &WorkOrder| {
        let epoch = done[order.trial.0 as usize].fetch_add(1, Ordering::SeqCst) + 1;
        voice.epoch(epoch, f64::from(order.trial.0) + f64::from(epoch) / 10.0);
    };
    let (verdict, study, seen) = play_elsewhere(
        &spec(),
        |_| true,
        move |voice, order, number| match number {
            // Is told to end before it has done anything; and after an epoch.
            0 => {
                voice.say(&Reply::Leaving { reason: "it was told to end".to_owned() });
                Then::Die
            }
            1 => {
                next(voice, order);
                voice.say(&Reply::Leaving { reason: "it was told to end".to_owned() });
                Then::Die
            }
            // Vanish after an epoch each: far more often than a trial may be lost to a worker that dies.
            2..=9 => {
                next(voice, order);
                Then::Die
            }
            _ => voice.train(order),
        },
    );
    assert_eq!(verdict.unwrap().done, Some(DoneReason::Complete));
    assert_eq!(record(&study), without_faults());
    assert_eq!(lost(&seen), []);
    assert!(study.engine().orders().iter().all(|order| order.losses.is_empty()));
    assert_eq!(warnings(&seen, "leaves, as it was told to end; trial"), 2, "{seen:?}");
}

#[test]
fn a_worker_elsewhere_that_dies_without_an_epoch_costs_an_attempt() {
    let orders = AtomicU32::new(0);
    let (verdict, _, seen) = play_elsewhere(
        &spec(),
        |_| true,
        move |voice, order, _| if orders.fetch_add(1, Ordering::SeqCst) == 0 { Then::Die } else { voice.train(order) },
    );
    assert_eq!(verdict.unwrap().done, Some(DoneReason::Complete));
    assert_eq!(lost(&seen), [(FailureClass::Lost, true)]);
}

#[test]
fn workers_that_compute_otherwise_are_refused_or_taken() {
    let other = |n| greeting_of(if n == 1 { "two" } else { "one" });
    let train: fn(&Voice, &WorkOrder, u32) -> Then = |voice, order, _| {
        std::thread::sleep(Duration::from_millis(100)); // so that the other one greets meanwhile
        voice.train(order)
    };
    let (verdict, study, seen) = play_on(elsewhere(Others::Refuse), other, &spec(), PATIENT, |_| true, train);
    assert_eq!(verdict.unwrap().done, Some(DoneReason::Complete));
    assert_eq!(record(&study), without_faults());
    assert_eq!(study.engine().arithmetic().map(str::len), Some(3));
    assert!(warnings(&seen, "computes with") >= 1, "{seen:?}");
    let (verdict, _, seen) = play_on(elsewhere(Others::Take), other, &spec(), PATIENT, |_| true, train);
    assert_eq!(verdict.unwrap().done, Some(DoneReason::Complete));
    assert!(warnings(&seen, "results may differ by rounding") >= 1, "{seen:?}");
    // Another program: none is let in, and the run says why.
    let alien = |_| Greeting { program: "0123456789abcdef".to_owned(), ..greeting_of("one") };
    let (verdict, ..) = play_on(elsewhere(Others::Refuse), alien, &spec(), PATIENT, |_| true, train);
    match verdict {
        Err(RunError::FailedStarts { tries: 6.., reason }) => assert!(reason.contains("another program"), "{reason}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn places_whose_workers_do_not_start_rest_and_the_run_goes_on() {
    // The second place fails four times; the first goes on meanwhile.
    let (verdict, study, seen) = play_elsewhere(
        &spec(),
        |n| n == 0 || n > 4,
        |voice, order, _| {
            std::thread::sleep(Duration::from_millis(50));
            voice.train(order)
        },
    );
    assert_eq!(verdict.unwrap().done, Some(DoneReason::Complete));
    assert_eq!(record(&study), without_faults());
    assert!(warnings(&seen, "did not start") >= 1, "{seen:?}");
    // Where none ever starts, the run says so.
    let (verdict, ..) = play_elsewhere(&spec(), |_| false, |voice, order, _| voice.train(order));
    assert!(matches!(verdict, Err(RunError::FailedStarts { tries: 6.., .. })));
    assert_eq!(elsewhere(Others::Take).map(|e| [1, 2, 5].map(|n| e.rest_after(n).as_millis())), Some([20, 40, 320]));
    let usual = Elsewhere { rest: Duration::from_secs(5), ..elsewhere(Others::Take).unwrap() };
    assert_eq!([1, 2, 40].map(|n| usual.rest_after(n).as_secs()), [5, 10, 300]);
}

#[test]
fn a_place_without_the_images_rests_and_its_order_goes_to_another() {
    let gone = |voice: &Voice| {
        let failure = Failure { class: FailureClass::BadInput, reason: "no images".to_owned(), of_place: true };
        voice.ended(Some(failure))
    };
    let failed = Arc::new(AtomicU32::new(0));
    let (verdict, study, seen) = play_elsewhere(
        &spec(),
        |_| true,
        move |voice, order, number| {
            if number == 1 {
                failed.store(1, Ordering::SeqCst);
                return gone(voice);
            }
            while failed.load(Ordering::SeqCst) == 0 {
                std::thread::sleep(Duration::from_millis(5)); // until the other has had its order
            }
            voice.train(order)
        },
    );
    assert_eq!(verdict.unwrap().done, Some(DoneReason::Complete));
    assert_eq!(record(&study), without_faults());
    assert_eq!(lost(&seen), []);
    assert_eq!(warnings(&seen, "cannot train: no images"), 1, "{seen:?}");
    // Where no place has them, the run says so, and no trial has failed.
    let (verdict, study, _) = play_elsewhere(&spec(), |_| true, move |voice, _, _| gone(voice));
    assert!(matches!(verdict, Err(RunError::Missing { .. })), "{verdict:?}");
    assert_eq!(study.engine().failures(), 0);
}

#[test]
fn idle_workers_elsewhere_are_dismissed() {
    // The first trial takes long, and what follows depends on it: meanwhile there is nothing to do for the other worker.
    let mut halving = spec();
    halving.scheduler = SchedulerSpec::Sha { min_resource: 1, reduction_factor: 2 };
    let (verdict, study, seen) = play_elsewhere(
        &halving,
        |_| true,
        |voice, order, _| {
            if order.trial.0 == 0 && order.from.0 == 0 {
                std::thread::sleep(Duration::from_millis(800));
            }
            voice.train(order)
        },
    );
    assert_eq!(verdict.unwrap().done, Some(DoneReason::Complete));
    assert_eq!(study.engine().trials().len(), 4);
    let dismissed = |p: &&Progress| matches!(p, Progress::Note { text } if text.contains("is dismissed"));
    assert_eq!(seen.iter().filter(dismissed).count(), 1, "{seen:?}");
}

#[test]
fn a_full_disk_ends_the_run_and_leaves_the_order_open() {
    let (verdict, study, _) = play(
        &spec(),
        PATIENT,
        |_| true,
        |voice, _, _| {
            let reason = "no space".to_owned();
            voice.ended(Some(Failure { class: FailureClass::Crashed, reason, of_place: true }))
        },
    );
    assert!(matches!(verdict, Err(RunError::Disk { .. })));
    assert_eq!(study.engine().failures(), 0);
}
