use super::*;
use crate::digest::Digest;
use crate::engine::{DoneReason, EpochReport, FailureClass};
use crate::ids::{Epoch, TrialNumber};
use crate::runner::TrialError;
use crate::spec::NormStatistics;
use crate::store::conformance;
use std::collections::BTreeMap;

fn value(epoch: Epoch, value: f64) -> EpochReport {
    EpochReport { epoch, value: Some(value), ..EpochReport::default() }
}

fn asked(study: &mut Study) -> Trial {
    match study.ask().unwrap() {
        Ask::Trial(trial) => trial,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_study_goes_on_where_it_stopped() {
    let state = tempfile::tempdir().unwrap();
    let spec = conformance::study("resumed");
    let first_params;
    {
        let mut study = Study::open(state.path(), &spec).unwrap();
        let mut trial = asked(&mut study);
        first_params = trial.params().clone();
        assert!(!study.report(&mut trial, value(Epoch(1), 0.5)).unwrap().is_stop());
        // Dropped here, as by a crash.
    }
    let mut study = Study::open(state.path(), &spec).unwrap();
    let mut trial = asked(&mut study);
    assert_eq!((trial.number(), trial.attempt(), trial.known()), (TrialNumber(0), 2, Epoch(1)));
    assert_eq!(trial.params(), &first_params);
    // Without a checkpoint it starts from epoch 1; a caller with its own state may start after the last epoch on
    // record.
    assert_eq!(trial.remaining().collect::<Vec<_>>(), [Epoch(1), Epoch(2), Epoch(3)]);
    assert!(study.report(&mut trial, value(Epoch(3), 0.5)).is_err(), "epochs cannot be left out");
    assert!(!study.report(&mut trial, value(Epoch(2), 0.6)).unwrap().is_stop());
    assert!(study.report(&mut trial, value(Epoch(3), 0.7)).unwrap().is_stop());
    study.tell(trial, Ok(())).unwrap();
    assert_eq!(study.engine().best().map(|b| (b.trial, b.value)), Some((TrialNumber(0), 0.7)));
}

#[test]
fn every_trial_is_leased_once_even_with_several_leased_at_a_time() {
    let mut study = Study::in_memory(&conformance::study("several"));
    let mut trials: Vec<Trial> = (0..4).map(|_| asked(&mut study)).collect();
    assert!(matches!(study.ask().unwrap(), Ask::Wait));
    for mut trial in trials.drain(..).rev() {
        for epoch in trial.remaining() {
            study.report(&mut trial, value(epoch, 0.1)).unwrap();
        }
        study.tell(trial, Ok(())).unwrap();
    }
    assert!(matches!(study.ask().unwrap(), Ask::Done(DoneReason::Complete)));
}

#[test]
fn failures_follow_their_policies() {
    let mut study = Study::in_memory(&conformance::study("failing"));
    let failed = |class| Err(TrialError::new(class, "as a test"));
    let trial = asked(&mut study);
    study.tell(trial, failed(FailureClass::Crashed)).unwrap();
    let trial = asked(&mut study);
    assert_eq!((trial.number(), trial.attempt()), (TrialNumber(0), 2), "one retry after a crash");
    study.tell(trial, failed(FailureClass::Crashed)).unwrap();
    let mut trial = asked(&mut study);
    assert_eq!(trial.number(), TrialNumber(1));
    let report = EpochReport { metrics: [("f1".to_owned(), f64::NAN)].into(), ..value(Epoch(1), f64::NAN) };
    assert!(study.report(&mut trial, report).unwrap().is_stop(), "a diverged trial is stopped");
    study.tell(trial, Ok(())).unwrap();
    let failures: Vec<_> =
        study.engine().trials().filter_map(|t| t.failure.as_ref().map(|f| (t.number.0, f.class))).collect();
    assert_eq!(failures, [(0, FailureClass::Crashed), (1, FailureClass::Diverged)]);
}

#[test]
fn opening_a_study_finishes_an_order_that_lacks_only_its_outcome() {
    let state = tempfile::tempdir().unwrap();
    let spec = conformance::study("ready");
    {
        let mut study = Study::open(state.path(), &spec).unwrap();
        let mut trial = asked(&mut study);
        for epoch in trial.remaining() {
            study.report(&mut trial, value(epoch, 0.5)).unwrap();
        }
    }
    let mut study = Study::open(state.path(), &spec).unwrap();
    assert_eq!(study.engine().best().map(|best| best.trial), Some(TrialNumber(0)));
    assert_eq!(asked(&mut study).number(), TrialNumber(1), "nothing is trained again");
}

#[test]
fn after_a_failure_past_the_last_epoch_that_epoch_is_trained_again() {
    let mut study = Study::in_memory(&conformance::study("late"));
    let mut trial = asked(&mut study);
    for epoch in trial.remaining() {
        study.report(&mut trial, value(epoch, 0.5)).unwrap();
    }
    study.tell(trial, Err(TrialError::new(FailureClass::Lost, "as a test"))).unwrap();
    let mut trial = asked(&mut study);
    assert_eq!((trial.number(), trial.known()), (TrialNumber(0), Epoch(2)));
    study.report(&mut trial, value(Epoch(3), 0.6)).unwrap();
    study.tell(trial, Ok(())).unwrap();
    assert_eq!(study.engine().best().map(|best| best.value), Some(0.6));
}

#[test]
fn a_success_told_too_early_is_refused_and_the_trial_leased_again() {
    let mut study = Study::in_memory(&conformance::study("early"));
    for epochs in [0, 1] {
        let mut trial = asked(&mut study);
        for epoch in trial.remaining().take(epochs) {
            study.report(&mut trial, value(epoch, 0.5)).unwrap();
        }
        let error = study.tell(trial, Ok(())).unwrap_err();
        assert!(matches!(error, StudyError::Unfinished { trial: TrialNumber(0), to: Epoch(3) }), "{error}");
    }
    assert_eq!(asked(&mut study).number(), TrialNumber(0));
}

#[test]
fn a_diverged_trial_is_tried_again_where_the_policy_says_so() {
    let mut spec = conformance::study("again");
    spec.failures.diverged = 1;
    let mut study = Study::in_memory(&spec);
    for attempt in 1..=2 {
        let mut trial = asked(&mut study);
        assert_eq!((trial.number(), trial.attempt()), (TrialNumber(0), attempt));
        assert!(study.report(&mut trial, EpochReport::new(Epoch(1), f64::INFINITY)).unwrap().is_stop());
        study.tell(trial, Ok(())).unwrap();
    }
    assert_eq!(study.engine().failures(), 1);
    assert_eq!(asked(&mut study).number(), TrialNumber(1));
}

#[test]
fn a_promoted_trial_resumes_from_its_saved_state() {
    let state = tempfile::tempdir().unwrap();
    let mut spec = conformance::study("saved");
    spec.runner = crate::spec::RunnerSpec::External { epochs: 3 };
    spec.scheduler = crate::spec::SchedulerSpec::Sha { min_resource: 1, reduction_factor: 3 };
    spec.budget.n_trials = Some(3);
    let mut trained = Vec::new();
    loop {
        // Opened again for every trial: what a trial needs is on disk.
        let mut study = Study::open(state.path(), &spec).unwrap();
        let Ask::Trial(mut trial) = study.ask().unwrap() else { break };
        let (from, mut sum) = match study.load(&trial).unwrap() {
            Some((epoch, state)) => (epoch, state[0]),
            None => (Epoch(0), 0),
        };
        for epoch in trial.after(from) {
            sum += epoch.0 as u8;
            trained.push((trial.number().0, epoch.0, sum));
            let checkpoint = Some(study.save(&trial, epoch, &[sum]).unwrap());
            let report = EpochReport { checkpoint, ..EpochReport::new(epoch, f64::from(trial.number().0)) };
            if study.report(&mut trial, report).unwrap().is_stop() {
                break;
            }
        }
        study.tell(trial, Ok(())).unwrap();
    }
    assert_eq!(trained, [(0, 1, 1), (1, 1, 1), (2, 1, 1), (2, 2, 3), (2, 3, 6)], "epoch 1 is trained once");
    let mut study = Study::in_memory(&spec);
    let trial = asked(&mut study);
    assert!(matches!(study.save(&trial, Epoch(1), b"x"), Err(StudyError::NoFolder)));
}

#[test]
fn a_changed_study_is_refused_with_the_difference_and_a_raised_budget_goes_on() {
    let state = tempfile::tempdir().unwrap();
    let spec = conformance::study("changed");
    drop(Study::open(state.path(), &StudySpec { seed: 1, ..spec.clone() }).unwrap());
    // No result is on record yet, so the study may change.
    let mut study = Study::open(state.path(), &spec).unwrap();
    let Ask::Trial(mut trial) = study.ask().unwrap() else { panic!("no trial") };
    study.report(&mut trial, EpochReport::new(Epoch(1), 0.5)).unwrap();
    drop((study, trial));
    let mut other = spec.clone();
    other.seed = 8;
    let Err(error) = Study::open(state.path(), &other) else { panic!("opened") };
    assert!(matches!(error, StudyError::Changed { .. }));
    assert!(error.to_string().contains("seed: 18446744073709551609 -> 8"), "{error}");
    let mut raised = spec;
    raised.budget.n_trials = Some(5);
    assert_eq!(Study::open(state.path(), &raised).unwrap().spec().budget.n_trials, Some(5));
    let Err(error) = Study::open(state.path(), &conformance::study("changed")) else { panic!("lowered") };
    assert!(error.to_string().contains("may only be raised"), "{error}");
}

#[test]
fn a_second_opener_is_told_who_holds_the_study() {
    let state = tempfile::tempdir().unwrap();
    let spec = conformance::study("held");
    let _study = Study::open(state.path(), &spec).unwrap();
    let Err(error) = Study::open(state.path(), &spec) else { panic!("opened twice") };
    let text = error.to_string();
    assert!(text.contains(&format!("held by process {}", std::process::id())), "{text}");
    assert!(matches!(error, StudyError::Store(StoreError::Locked { holder: Some(_), .. })));
}

fn with_files(study: &Study, trial: u32, epoch: u32) -> EpochReport {
    let file = |kind: &str| {
        let path = format!("{kind}/{trial:05}-{epoch:04}");
        let bytes = format!("{kind} of {trial} after {epoch}").into_bytes();
        crate::fsx::write_atomic(&study.dir().join(&path), &bytes).unwrap();
        let digest = crate::digest::Digest::of(&bytes);
        Some(crate::engine::FileRef { path, digest, bytes: bytes.len() as u64 })
    };
    EpochReport { checkpoint: file("checkpoints"), predictions: file("predictions"), ..value(Epoch(epoch), 0.5) }
}

fn listing(study: &Study) -> Vec<String> {
    let mut names = Vec::new();
    for folder in ["checkpoints", "predictions"] {
        for entry in std::fs::read_dir(study.dir().join(folder)).unwrap() {
            names.push(format!("{folder}/{}", entry.unwrap().file_name().to_string_lossy()));
        }
    }
    names.sort();
    names
}

#[test]
fn only_needed_files_stay_and_a_damaged_checkpoint_is_skipped() {
    let state = tempfile::tempdir().unwrap();
    let spec = conformance::study("files");
    let mut study = Study::open(state.path(), &spec).unwrap();
    let mut trial = asked(&mut study);
    for epoch in 1..=2 {
        let report = with_files(&study, 0, epoch);
        study.report(&mut trial, report).unwrap();
        study.sweep().unwrap();
    }
    assert_eq!(listing(&study), ["checkpoints/00000-0001", "checkpoints/00000-0002", "predictions/00000-0002"]);
    study.release(trial);

    let trial = asked(&mut study);
    assert_eq!(study.start(&trial).0.epoch, Epoch(2));
    let newest = study.dir().join("checkpoints/00000-0002");
    let mut bytes = std::fs::read(&newest).unwrap();
    bytes[3] ^= 1;
    std::fs::write(&newest, &bytes).unwrap();
    let (start, faults) = study.start(&trial);
    assert_eq!((start.epoch, faults.len()), (Epoch(1), 1));
    assert!(faults[0].to_string().contains("damaged"), "{}", faults[0]);
    std::fs::write(study.dir().join("checkpoints/00000-0001"), "torn").unwrap();
    let (start, faults) = study.start(&trial);
    assert_eq!((start, faults.len()), (crate::runner::Start::default(), 2));

    // Trained again from the first good one, the trial ends as if nothing had happened.
    let mut trial = trial;
    for epoch in 1..=3 {
        let report = with_files(&study, 0, epoch);
        study.report(&mut trial, report).unwrap();
        study.sweep().unwrap();
    }
    study.tell(trial, Ok(())).unwrap();
    std::fs::write(study.dir().join("checkpoints/.tmp-1-2-x"), "left over").unwrap();
    std::fs::write(study.dir().join("predictions/00009-0001"), "orphan").unwrap();
    let swept = study.tidy().unwrap();
    assert_eq!(listing(&study), ["checkpoints/00000-0003", "predictions/00000-0003"]);
    assert!(swept.files >= 3, "{swept:?}");
}

fn checkpoints(study: &Study) -> Vec<String> {
    listing(study).into_iter().filter(|name| name.starts_with("checkpoints")).collect()
}

#[test]
fn a_quota_deletes_fallback_checkpoints_first() {
    let state = tempfile::tempdir().unwrap();
    let mut spec = conformance::study("quota");
    spec.limits.checkpoint_bytes = Some(60);
    let mut study = Study::open(state.path(), &spec).unwrap();
    let mut trials: Vec<Trial> = (0..2).map(|_| asked(&mut study)).collect();
    for epoch in 1..=2 {
        for (number, trial) in trials.iter_mut().enumerate() {
            let report = with_files(&study, number as u32, epoch);
            study.report(trial, report).unwrap();
        }
        study.sweep().unwrap();
    }
    assert_eq!(checkpoints(&study), ["checkpoints/00000-0002", "checkpoints/00001-0002"], "both can still resume");
}

#[test]
fn every_out_of_memory_failure_halves_the_next_micro_batch() {
    let state = tempfile::tempdir().unwrap();
    let mut spec = conformance::study("memory");
    spec.failures.oom = 2;
    let mut study = Study::open(state.path(), &spec).unwrap();
    let mut trial = asked(&mut study);
    let number = trial.number();
    assert_eq!(study.start(&trial).0.halvings, 0);
    for halvings in 1..=2 {
        assert_eq!(study.fail(trial, FailureClass::Oom, "no room".to_owned()).unwrap(), Lost::Again);
        trial = asked(&mut study);
        assert_eq!((trial.number(), study.start(&trial).0.halvings), (number, halvings));
    }
    assert_eq!(study.fail(trial, FailureClass::Oom, "no room".to_owned()).unwrap(), Lost::ForGood);
}

/// What a study file leaves out keeps the default of the version that began the study; what it states must not change.
#[test]
fn a_default_that_has_changed_since_does_not_change_a_study() {
    const FILE: &str = "[data]\nsynthetic = {}\n[network]\nbackbone = \"inception_v3\"\nweights = \"random\"\n\
                        [budget]\nn_trials = 2\n[space]\nlearning_rate = { type = \"float\", low = 1e-4, high = 1e-2 }\n";
    let state = tempfile::tempdir().unwrap();
    let read = |more: &str| crate::config::from_text(&format!("{FILE}{more}")).unwrap().spec;
    let statistics = |spec: &StudySpec| spec.runner.fixed().unwrap().training.norm_statistics;
    let earlier = read("[training]\nnorm_statistics = \"running\"\n");
    let mut study = Study::open(state.path(), &earlier).unwrap();
    let mut trial = asked(&mut study);
    study.report(&mut trial, value(Epoch(1), 0.5)).unwrap();
    drop((trial, study));
    let now = read("");
    assert_eq!(statistics(&now), NormStatistics::Precise);
    let study = Study::open(state.path(), &now).unwrap();
    assert_eq!(statistics(study.spec()), NormStatistics::Running);
    drop(study);
    let said = read("[training]\nnorm_statistics = \"precise\"\n");
    assert!(matches!(Study::open(state.path(), &said), Err(StudyError::Changed { .. })));
}

#[test]
fn a_study_begun_with_some_weights_refuses_others() {
    let state = tempfile::tempdir().unwrap();
    let spec = conformance::study("weights");
    let with = |text: &[u8]| BTreeMap::from([("inception_v3".to_owned(), Digest::of(text))]);
    let mut study = Study::open(state.path(), &spec).unwrap();
    study.identify_weights(with(b"first")).unwrap();
    drop(study);
    let mut study = Study::open(state.path(), &spec).unwrap();
    assert_eq!(study.materials().unwrap().weights, with(b"first"));
    study.identify_weights(with(b"second")).unwrap();
    study.identify_weights(with(b"first")).unwrap();
    let mut trial = asked(&mut study);
    study.report(&mut trial, value(Epoch(1), 0.5)).unwrap();
    study.release(trial);
    let refused = study.identify_weights(with(b"second")).unwrap_err().to_string();
    assert!(refused.starts_with("the weights of inception_v3 are not those"), "{refused}");
}

#[test]
fn what_a_quota_took_in_an_earlier_run_counts_no_more() {
    let state = tempfile::tempdir().unwrap();
    let mut spec = conformance::study("phantom");
    let complete = |study: &mut Study, value: f64| {
        let mut trial = asked(study);
        let number = trial.number().0;
        for epoch in trial.remaining() {
            let report = EpochReport { value: Some(value), ..with_files(study, number, epoch.0) };
            study.report(&mut trial, report).unwrap();
            study.sweep().unwrap();
        }
        study.tell(trial, Ok(())).unwrap();
        study.sweep().unwrap();
    };
    // Room for one checkpoint: the better one stays.
    spec.limits.checkpoint_bytes = Some(30);
    let mut study = Study::open(state.path(), &spec).unwrap();
    complete(&mut study, 0.4);
    complete(&mut study, 0.9);
    assert_eq!(checkpoints(&study), ["checkpoints/00001-0003"]);
    drop(study);
    // Room for two: that of a worse trial is kept, and the one that was given up must not crowd it out again.
    spec.limits.checkpoint_bytes = Some(60);
    let mut study = Study::open(state.path(), &spec).unwrap();
    study.tidy().unwrap();
    complete(&mut study, 0.3);
    let both = ["checkpoints/00001-0003", "checkpoints/00002-0003"];
    assert_eq!(checkpoints(&study), both);
    drop(study);
    let mut study = Study::open(state.path(), &spec).unwrap();
    study.tidy().unwrap();
    assert_eq!(checkpoints(&study), both);
}

#[test]
fn after_too_many_failures_open_orders_are_not_handed_out_and_the_study_is_over() {
    let state = tempfile::tempdir().unwrap();
    let mut spec = conformance::study("failing");
    spec.budget.max_failures = Some(1);
    let mut study = Study::open(state.path(), &spec).unwrap();
    let (first, second) = (asked(&mut study), asked(&mut study));
    study.tell(first, Err(TrialError::new(FailureClass::BadInput, "no"))).unwrap();
    study.release(second);
    assert!(matches!(study.outlook().unwrap(), Outlook::Done(DoneReason::FailureLimit)));
    assert!(matches!(study.ask().unwrap(), Ask::Done(DoneReason::FailureLimit)));
    drop(study);
    spec.budget.max_failures = Some(5);
    let mut study = Study::open(state.path(), &spec).unwrap();
    assert_eq!(asked(&mut study).number(), TrialNumber(1), "with a raised limit it goes on");
}
