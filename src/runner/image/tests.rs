//! Whole trials on small synthetic images and a narrow InceptionV3.

use super::super::{Phase, SinkClosed};
use super::*;
use crate::data::PixelSource;
use crate::engine::{EpochReport, FailureClass};
use crate::ids::OrderId;
use crate::metrics::Prediction;
use crate::space::{Domain, Parameter};
use crate::spec::*;
use candle_core::Device;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Keeps reports; asks to stop after some of them, or is interrupted after some steps.
#[derive(Default)]
struct Listener {
    reports: Vec<EpochReport>,
    stop_after: Option<usize>,
    interrupt_at: Option<u64>,
    seen: Vec<String>,
}

impl EpochSink for Listener {
    fn epoch(&mut self, report: EpochReport) -> Result<Continue, SinkClosed> {
        self.reports.push(report);
        Ok(if self.stop_after == Some(self.reports.len()) { Continue::Stop } else { Continue::Go })
    }
    fn progress(&mut self, phase: Phase, done: u64, _total: u64) {
        self.seen.push(format!("{phase} {done}"));
    }
    fn warn(&mut self, message: &str) {
        self.seen.push(message.to_owned());
    }
    fn interrupted(&self) -> bool {
        self.interrupt_at.is_some_and(|n| self.seen.iter().filter(|s| s.starts_with("train")).count() as u64 >= n)
    }
}

fn study() -> StudySpec {
    let data = DataSpec {
        source: DataSource::Synthetic(SyntheticSpec { images: 40, prevalence: 0.5, contrast: 0.9, seed: 5 }),
        positive: None,
        patient: None,
        bad_files: BadFilePolicy::Fail,
        colour: ColourMode::Grey,
        size: 75,
        window: Window::File,
        split: SplitSpec { validation: 0.3, test: 0.2, policy: ValidationPolicy::Auto, folds: None },
    };
    let network = NetworkSpec {
        backbone: BackboneKind::InceptionV3,
        width: 0.125,
        weights: WeightSource::Random,
        scaling: PixelScaling::Unit,
        pool_padding: PoolPadding::Excluded,
        tap: "Mixed_5b".to_owned(),
        freeze: FreezeTo::All,
        batch_norm: BatchNormMode::Frozen,
        cache: CachePrecision::F32,
        input_size: None,
    };
    let training = TrainingSpec {
        epochs: 3,
        batch_size: 7,
        optimiser: OptimiserKind::AdamW,
        learning_rate: 0.01,
        weight_decay: 0.01,
        momentum: 0.9,
        backbone_rate: 0.1,
        schedule: ScheduleKind::Cosine,
        warmup_epochs: 0.5,
        loss: LossKind::CrossEntropy,
        focal_gamma: 2.0,
        label_smoothing: 0.05,
        imbalance: ImbalancePolicy::Weights,
        ..TrainingSpec::default()
    };
    let augment = AugmentSpec { views: Views::Bank(3), ..AugmentSpec::default() };
    StudySpec {
        name: "test".to_owned(),
        seed: 11,
        runner: RunnerSpec::Image {
            data,
            network,
            head: HeadSpec { kind: HeadKind::Linear, dropout: 0.3, hidden_units: 8 },
            training,
            augment,
        },
        objective: Objective {
            metric: Metric::RocAuc,
            direction: Direction::Maximize,
            operating_point: OperatingPoint::Youden,
        },
        space: crate::space::SearchSpace::default(),
        sampler: SamplerSpec::Random,
        scheduler: SchedulerSpec::None,
        enqueue: Vec::new(),
        budget: Budget { n_trials: Some(1), ..Default::default() },
        limits: Limits::default(),
        failures: FailurePolicies::default(),
        run: RunSpec {
            workers: 1,
            threads: None,
            workers_per_device: None,
            device: Devices::Cpu,
            precision: Default::default(),
            virtual_workers: 8,
        },
        cluster: None,
        notify: Default::default(),
        changed_defaults: ChangedDefaults::default(),
    }
}

/// The study with its network, head, training and augmentation changed.
fn varied(
    change: impl FnOnce(&mut DataSpec, &mut NetworkSpec, &mut HeadSpec, &mut TrainingSpec, &mut AugmentSpec),
) -> StudySpec {
    let mut study = study();
    if let RunnerSpec::Image { data, network, head, training, augment } = &mut study.runner {
        change(data, network, head, training, augment);
    }
    study
}

fn order(from: u32, to: u32) -> WorkOrder {
    WorkOrder {
        order: OrderId(0),
        trial: TrialNumber(4),
        params: Params::default(),
        from: Epoch(from),
        to: Epoch(to),
        stop: None,
        bracket: 0,
        rung: None,
        planned_trials: 1,
        price: None,
    }
}

fn slot(folder: &Path, run: &str) -> DeviceSlot {
    let (study_dir, cache_dir) = (folder.join(run), folder.join("cache"));
    DeviceSlot { device: crate::spec::Device::Cpu, threads: 2, study_dir, cache_dir, worker: 0 }
}

fn run(study: &StudySpec, slot: &DeviceSlot, order: &WorkOrder, start: &Start) -> Result<Listener, TrialError> {
    let mut listener = Listener::default();
    ImageRunner::new(study, Path::new(".")).run(order, start, slot, &mut listener)?;
    Ok(listener)
}

/// What a trial reports, without times.
fn traces(listener: &Listener) -> Vec<(Epoch, Option<f64>, BTreeMap<String, f64>, Option<f64>, FileRef, FileRef)> {
    let files = |r: &EpochReport| (r.checkpoint.clone().unwrap(), r.predictions.clone().unwrap());
    let of = |r: &EpochReport| {
        let (checkpoint, predictions) = files(r);
        (r.epoch, r.value, r.metrics.clone(), r.train_loss, checkpoint, predictions)
    };
    listener.reports.iter().map(of).collect()
}

/// Trains without interruption, and again stopped after the first epoch and resumed by a new runner; compares the two.
fn resumes_exactly(study: &StudySpec) {
    let folder = tempfile::tempdir().unwrap();
    let straight = run(study, &slot(folder.path(), "straight"), &order(0, 3), &Start::default()).unwrap();
    assert_eq!(straight.reports.len(), 3);

    let slot = slot(folder.path(), "broken");
    let mut first = Listener { stop_after: Some(1), ..Listener::default() };
    ImageRunner::new(study, Path::new(".")).run(&order(0, 3), &Start::default(), &slot, &mut first).unwrap();
    assert_eq!(first.reports.len(), 1, "it stops where the sink says");
    let start = Start { checkpoint: first.reports[0].checkpoint.clone(), epoch: Epoch(1), ..Start::default() };
    let second = run(study, &slot, &order(0, 3), &start).unwrap();

    let mut broken = traces(&first);
    broken.extend(traces(&second));
    // This includes the digests of checkpoint and prediction files: equal bit for bit.
    assert_eq!(traces(&straight), broken);
    for (.., checkpoint, predictions) in &broken {
        for file in [checkpoint, predictions] {
            assert_eq!(Digest::of_file(&slot.study_dir.join(&file.path)).unwrap(), file.digest);
        }
    }
}

#[test]
fn a_head_on_cached_views_resumes_to_the_bit() {
    resumes_exactly(&varied(|_, _, _, _, augment| augment.strength = 0.7));
}

#[test]
fn a_fine_tuned_network_with_training_batch_norm_resumes_to_the_bit() {
    resumes_exactly(&varied(|_, network, head, training, _| {
        network.tap = "Mixed_5c".to_owned();
        network.freeze = FreezeTo::Stage("Mixed_5b".to_owned());
        network.batch_norm = BatchNormMode::Train;
        head.kind = HeadKind::Hidden;
        training.optimiser = OptimiserKind::Sgd;
    }));
}

#[test]
fn averaged_weights_are_judged_tested_and_exported_and_resume_to_the_bit() {
    let averaged = |average_epochs, network_too: bool| {
        varied(|_, network, _, training, augment| {
            network.tap = "Mixed_5c".to_owned();
            if network_too {
                network.freeze = FreezeTo::Stage("Mixed_5b".to_owned());
                network.batch_norm = BatchNormMode::Train;
                training.probe_epochs = 1;
            }
            training.average_epochs = average_epochs;
            augment.strength = 0.7;
        })
    };
    resumes_exactly(&averaged(0.5, false));
    let study = averaged(0.5, true);
    resumes_exactly(&study);

    let folder = tempfile::tempdir().unwrap();
    let (with, without) = (slot(folder.path(), "with"), slot(folder.path(), "without"));
    let found = run(&study, &with, &order(0, 3), &Start::default()).unwrap();
    let plain = run(&averaged(0.0, true), &without, &order(0, 3), &Start::default()).unwrap();
    let losses = |listener: &Listener| listener.reports.iter().map(|r| r.train_loss).collect::<Vec<_>>();
    assert_eq!(losses(&found), losses(&plain), "training is the same");
    let file = |listener: &Listener| listener.reports[2].checkpoint.clone().unwrap();
    assert_ne!(found.reports[2].predictions, plain.reports[2].predictions);

    // The exported model gives the scores of the test, so both are of the average.
    let trial = (TrialNumber(4), &Params::default());
    let (tested, _) = tested_and_exported(&study, &file(&found), &with);
    let mut other = ImageRunner::new(&averaged(0.0, true), Path::new("."));
    assert_ne!(other.test(trial, &file(&plain), &without, &mut Listener::default()).unwrap().rows, tested);
}

/// The test scores of a checkpoint of trial 4, which its exported model gives too; and what scores with the latter.
fn tested_and_exported(study: &StudySpec, file: &FileRef, slot: &DeviceSlot) -> (Vec<Prediction>, Scorer) {
    let trial = (TrialNumber(4), &Params::default());
    let mut runner = ImageRunner::new(study, Path::new("."));
    let tested = runner.test(trial, file, slot, &mut Listener::default()).unwrap().rows;
    let exported = runner.export(trial, file, slot, &mut Listener::default()).unwrap();
    let path = slot.study_dir.join("model.safetensors");
    exported.write(0, &path).unwrap();
    let TrialSettings { network, head, .. } = &exported.settings;
    let data = runner.images(slot, &mut Listener::default()).unwrap();
    let image = (data.size(), data.channels());
    let scorer = Scorer::load(&[path], network, head, 2, image, 1, crate::spec::Device::Cpu).unwrap();
    let pixels: Vec<&[u8]> = data.split().test.iter().map(|&i| data.pixels(i)).collect();
    let scored = scorer.score(&pixels).unwrap();
    assert_eq!((scored.len(), tested.len()), (pixels.len(), pixels.len()));
    for (scored, tested) in scored.iter().zip(&tested) {
        for (a, b) in scored.scores.iter().zip(&tested.scores) {
            assert!((a - b).abs() < 1e-5, "{scored:?} {tested:?}");
        }
    }
    (tested, scorer)
}

#[test]
fn a_network_that_sees_reduced_images_resumes_to_the_bit_and_is_exported_as_it_was_tested() {
    let seeing = |input_size, frozen: bool| {
        varied(|data, network, _, _, augment| {
            (data.size, network.input_size) = (100, input_size);
            network.tap = "Mixed_5c".to_owned();
            network.freeze = if frozen { FreezeTo::Stage("Mixed_5b".to_owned()) } else { FreezeTo::None };
            augment.strength = 0.7;
        })
    };
    resumes_exactly(&seeing(Some(80), false));
    let folder = tempfile::tempdir().unwrap();
    let lattice = |scorer: &Scorer| scorer.explainer("Mixed_5b", None).unwrap().lattice();
    let [whole, reduced] = [None, Some(80)].map(|side| {
        let (study, slot) = (seeing(side, true), slot(folder.path(), &format!("{side:?}")));
        let found = run(&study, &slot, &order(0, 2), &Start::default()).unwrap();
        let (tested, scorer) = tested_and_exported(&study, found.reports[1].checkpoint.as_ref().unwrap(), &slot);
        assert_eq!(scorer.side(), side.unwrap_or(100) as usize);
        (tested, lattice(&scorer))
    });
    assert_ne!(whole.0, reduced.0);
    // Heat maps lie on the image, not on what the network sees of it: a pixel's centre is half a pixel from its edge.
    let (on_image, on_input) = (reduced.1, whole.1);
    assert!((on_image.step - 1.25 * on_input.step).abs() < 1e-9);
    assert!((on_image.first - (1.25 * (on_input.first + 0.5) - 0.5)).abs() < 1e-9);

    let RunnerSpec::Image { data, .. } = &seeing(None, true).runner else { panic!() };
    let settings = |side| seeing(Some(side), true).runner.settings(&Params::default());
    assert_eq!(settings(data.size), seeing(None, true).runner.settings(&Params::default()));
    let error = settings(data.size + 1).unwrap_err();
    assert_eq!(error, SettingsError::Side { side: 101, size: 100 });
}

#[test]
fn a_trial_that_begins_with_small_images_resumes_to_the_bit_and_its_first_epochs_are_those_of_a_small_one() {
    let beginning = |small_epochs, small_size, input_size| {
        varied(|data, network, _, training, augment| {
            (data.size, network.input_size) = (100, input_size);
            network.tap = "Mixed_5c".to_owned();
            network.freeze = FreezeTo::Stage("Mixed_5b".to_owned());
            (training.small_epochs, training.small_size) = (small_epochs, small_size);
            augment.strength = 0.7;
        })
    };
    // The interruption after the first epoch falls between the two parts, and into the first.
    for small_epochs in [1, 2] {
        resumes_exactly(&beginning(small_epochs, Some(80), None));
    }
    let folder = tempfile::tempdir().unwrap();
    let (both, alone) = (slot(folder.path(), "both"), slot(folder.path(), "alone"));
    let (study, small) = (beginning(2, Some(80), None), beginning(0, None, Some(80)));
    let trained = run(&study, &both, &order(0, 3), &Start::default()).unwrap();
    let of_small = run(&small, &alone, &order(0, 3), &Start::default()).unwrap();
    let figures = |listener: &Listener| -> Vec<_> {
        listener.reports.iter().map(|r| (r.value, r.train_loss, r.predictions.clone())).collect()
    };
    assert_eq!(figures(&trained)[..2], figures(&of_small)[..2]);
    assert_ne!(figures(&trained)[2], figures(&of_small)[2]);
    // What is tested and exported sees what the epoch of its checkpoint saw.
    let file = |listener: &Listener, epoch: usize| listener.reports[epoch - 1].checkpoint.clone().unwrap();
    let sides = [2, 3].map(|epoch| tested_and_exported(&study, &file(&trained, epoch), &both).1.side());
    assert_eq!(sides, [80, 100]);
    let two = tested_and_exported(&study, &file(&trained, 2), &both).0;
    assert_eq!(two, tested_and_exported(&small, &file(&of_small, 2), &alone).0);

    let settings = |study: &StudySpec| study.runner.settings(&Params::default());
    let halved = settings(&beginning(2, None, Some(90))).unwrap();
    assert_eq!((halved.training.small_size, halved.early_epochs()), (Some(45), 2));
    assert_eq!(settings(&beginning(0, Some(80), None)), settings(&beginning(0, None, None)));
    let refused = settings(&beginning(2, Some(100), None)).unwrap_err();
    assert_eq!(refused, SettingsError::Small { small: 100, side: 100 });
    let mut twice = beginning(2, Some(80), None);
    if let RunnerSpec::Image { training, .. } = &mut twice.runner {
        training.probe_epochs = 1;
    }
    assert_eq!(settings(&twice).unwrap_err(), SettingsError::Beginnings);
    let error = run(&beginning(2, Some(9), None), &both, &order(0, 3), &Start::default()).err().unwrap();
    assert!(error.reason.contains("images of 9 pixels do not reach it"), "{error}");
}

/// Models that part at the first stage, at the last, and in the head alone: together they say, to the bit, what they say one by one.
#[test]
fn models_that_begin_alike_say_together_what_each_says() {
    let folder = tempfile::tempdir().unwrap();
    let own = slot(folder.path(), "s");
    let study = probing(1);
    let found = run(&study, &own, &order(0, 2), &Start::default()).unwrap();
    let checkpoint = found.reports[1].checkpoint.clone().unwrap();
    let mut runner = ImageRunner::new(&study, Path::new("."));
    let trial = (TrialNumber(4), &Params::default());
    let exported = runner.export(trial, &checkpoint, &own, &mut Listener::default()).unwrap();
    let path = folder.path().join("model.safetensors");
    exported.write(0, &path).unwrap();
    let tensors = candle_core::safetensors::load(&path, &candle_core::Device::Cpu).unwrap();
    let mut paths = vec![path];
    for changed in ["Conv2d_1a_3x3.conv.weight", "Mixed_5c.branch1x1.conv.weight", "top.out.weight"] {
        let mut other = tensors.clone();
        let tensor = (&tensors[changed] * 1.5).unwrap();
        other.insert(changed.to_owned(), tensor);
        paths.push(folder.path().join(format!("{changed}.safetensors")));
        candle_core::safetensors::save(&other, paths.last().unwrap()).unwrap();
    }
    let TrialSettings { network, head, .. } = &exported.settings;
    let data = runner.images(&own, &mut Listener::default()).unwrap();
    let image = (data.size(), data.channels());
    let load = |paths: &[PathBuf], among| {
        Scorer::load(paths, network, head, 2, image, among, crate::spec::Device::Cpu).unwrap()
    };
    let pixels: Vec<&[u8]> = data.split().test.iter().map(|&i| data.pixels(i)).collect();
    let each: Vec<Vec<Scored>> =
        paths.iter().map(|path| load(std::slice::from_ref(path), 1).score(&pixels).unwrap()).collect();
    assert!(each[1..].iter().all(|other| *other != each[0]), "the changes change scores");
    // As trials of one model each, and as the folds of two trials.
    let apart: Vec<Scorer> = paths.iter().map(|path| load(std::slice::from_ref(path), 4)).collect();
    assert_eq!(mean_score(&apart, &pixels).unwrap(), mean_of(each.clone()));
    let folds = [load(&paths[..3], 4), load(&paths[3..], 4)];
    let expected = mean_of(vec![mean_of(each[..3].to_vec()), each[3].clone()]);
    assert_eq!(mean_score(&folds, &pixels).unwrap(), expected);
}

/// Trains Mixed_5c after `probe_epochs` epochs of the head alone.
fn probing(probe_epochs: u32) -> StudySpec {
    varied(|_, network, _, training, augment| {
        network.tap = "Mixed_5c".to_owned();
        network.freeze = FreezeTo::Stage("Mixed_5b".to_owned());
        network.cache = CachePrecision::F16;
        training.probe_epochs = probe_epochs;
        augment.strength = 0.7;
    })
}

#[test]
fn a_trial_that_begins_with_its_head_resumes_to_the_bit() {
    // The interruption after the first epoch falls between the two parts, and into the first.
    for probe_epochs in [1, 2] {
        resumes_exactly(&probing(probe_epochs));
    }
}

#[test]
fn the_first_epochs_of_such_a_trial_are_those_of_its_head_alone() {
    let folder = tempfile::tempdir().unwrap();
    let (both, alone) = (slot(folder.path(), "both"), slot(folder.path(), "alone"));
    let (study, mut head) = (probing(2), probing(0));
    if let RunnerSpec::Image { network, training, .. } = &mut head.runner {
        (network.freeze, training.epochs) = (FreezeTo::All, 2);
    }
    let trained = run(&study, &both, &order(0, 3), &Start::default()).unwrap();
    let of_head = run(&head, &alone, &order(0, 2), &Start::default()).unwrap();
    let figures = |listener: &Listener| -> Vec<_> {
        listener.reports.iter().map(|r| (r.value, r.train_loss, r.predictions.clone())).collect()
    };
    let (trained_figures, of_head_figures) = (figures(&trained), figures(&of_head));
    assert_eq!(trained_figures[..2], of_head_figures);
    assert_ne!(trained_figures[2], trained_figures[1]);

    // A checkpoint of the head alone is small, and gives the same test scores and the same export.
    let checkpoint = |listener: &Listener, epoch: usize| listener.reports[epoch - 1].checkpoint.clone().unwrap();
    let (two, three) = (checkpoint(&trained, 2), checkpoint(&trained, 3));
    assert_eq!(two.bytes, checkpoint(&of_head, 2).bytes);
    assert!(2 * two.bytes < three.bytes, "{} and {} bytes", two.bytes, three.bytes);
    let trial = (TrialNumber(4), &Params::default());
    let open = |study: &StudySpec, slot: &DeviceSlot, file: &FileRef, name: &str| {
        let mut runner = ImageRunner::new(study, Path::new("."));
        let scores = runner.test(trial, file, slot, &mut Listener::default()).unwrap().rows;
        let path = folder.path().join(format!("{name}.safetensors"));
        runner.export(trial, file, slot, &mut Listener::default()).unwrap().write(0, &path).unwrap();
        (scores, Digest::of_file(&path).unwrap())
    };
    let by_head = open(&head, &alone, &checkpoint(&of_head, 2), "alone");
    assert_eq!(open(&study, &both, &two, "two"), by_head);
    let later = open(&study, &both, &three, "three");
    assert!(later.0 != by_head.0 && later.1 != by_head.1);
}

#[test]
fn recomputed_statistics_resume_to_the_bit() {
    let study = |norm_statistics| {
        varied(|_, network, _, training, augment| {
            network.tap = "Mixed_5c".to_owned();
            network.freeze = FreezeTo::Stage("Mixed_5b".to_owned());
            training.norm_statistics = norm_statistics;
            augment.strength = 0.5;
        })
    };
    resumes_exactly(&study(NormStatistics::Precise));
    let folder = tempfile::tempdir().unwrap();
    let course = |name: &str, statistics| {
        run(&study(statistics), &slot(folder.path(), name), &order(0, 2), &Start::default()).unwrap()
    };
    let (running, precise) = (course("running", NormStatistics::Running), course("precise", NormStatistics::Precise));
    let losses = |l: &Listener| l.reports.iter().map(|r| r.train_loss.unwrap()).collect::<Vec<_>>();
    assert_eq!(losses(&running), losses(&precise), "training itself is the same");
    assert_ne!(traces(&running)[0].5, traces(&precise)[0].5, "what is judged is not");
}

#[test]
fn folds_resume_to_the_bit_and_pool_their_predictions() {
    let study = varied(|data, _, _, training, augment| {
        data.split.folds = Some(2);
        training.imbalance = ImbalancePolicy::Oversample;
        training.loss = LossKind::Focal;
        augment.strength = 1.0;
        augment.views = Views::Fresh;
    });
    resumes_exactly(&study);
    let folder = tempfile::tempdir().unwrap();
    let slot = slot(folder.path(), "run");
    let listener = run(&study, &slot, &order(0, 1), &Start::default()).unwrap();
    let report = &listener.reports[0];
    let pooled =
        metrics::predictions::read_csv(&slot.study_dir.join(&report.predictions.as_ref().unwrap().path)).unwrap();
    // 40 images, a fifth of them locked: every other one is scored once, by the model that was not trained on it.
    let images: std::collections::BTreeSet<_> = pooled.rows.iter().map(|r| &r.image).collect();
    assert_eq!((pooled.rows.len(), images.len()), (32, 32));
    assert!(report.metrics.contains_key("roc_auc") && report.metrics.contains_key("recall@0.5"));
}

#[test]
fn all_layers_can_be_trained() {
    let folder = tempfile::tempdir().unwrap();
    let study = varied(|_, network, _, _, _| {
        network.tap = "Conv2d_2b_3x3".to_owned();
        network.freeze = FreezeTo::None;
    });
    let listener = run(&study, &slot(folder.path(), "run"), &order(0, 1), &Start::default()).unwrap();
    assert!(listener.reports[0].train_loss.unwrap().is_finite());
}

#[test]
fn a_cache_without_room_changes_no_result() {
    let folder = tempfile::tempdir().unwrap();
    let mut study = varied(|_, _, _, _, augment| augment.strength = 0.7);
    let cached = run(&study, &slot(folder.path(), "a"), &order(0, 2), &Start::default()).unwrap();
    study.limits.cache_bytes = Some(100);
    let mut slot = slot(folder.path(), "b");
    slot.cache_dir = folder.path().join("small");
    let computed = run(&study, &slot, &order(0, 2), &Start::default()).unwrap();
    assert!(computed.seen.iter().any(|s| s.starts_with("features are not cached")), "{:?}", computed.seen);
    assert_eq!(traces(&cached), traces(&computed));
}

#[test]
fn fresh_views_are_not_cached() {
    let trained = |views| {
        let folder = tempfile::tempdir().unwrap();
        let study = varied(|_, _, _, _, augment| (augment.strength, augment.views) = (0.7, views));
        let slot = slot(folder.path(), "run");
        let losses = run(&study, &slot, &order(0, 3), &Start::default()).unwrap();
        let cache = FeatureCache::open(&slot.cache_dir, None).unwrap();
        let shelves = cache.stats().unwrap().shelves;
        let views = shelves.iter().filter_map(|s| s.holds.as_ref()).map(|holds| holds.view.is_some()).collect();
        (traces(&losses), views)
    };
    let (fresh, kept): (_, Vec<bool>) = trained(Views::Fresh);
    assert_eq!(kept, [false], "the originals, for validation");
    let (bank, kept) = trained(Views::Bank(1));
    assert_eq!(kept.iter().filter(|augmented| **augmented).count(), 1);
    assert_ne!(fresh, bank);
    assert_eq!(fresh, trained(Views::Fresh).0);
}

#[test]
fn one_trial_caches_pooled_features_of_all_taps_in_the_space() {
    let folder = tempfile::tempdir().unwrap();
    let mut study = varied(|_, _, _, _, augment| augment.strength = 0.7);
    let choices = ["Mixed_5b", "Mixed_5c", "Conv2d_4a_3x3"].map(|tap| Value::Text(tap.to_owned()));
    let domain = Domain::Categorical { choices: choices.to_vec() };
    study.space.parameters = vec![Parameter { name: "tap".to_owned(), domain, when: None }];
    let at = |tap: &Value| WorkOrder {
        params: Params([("tap".to_owned(), tap.clone())].into_iter().collect()),
        ..order(0, 2)
    };
    let slot = slot(folder.path(), "a");
    let computing = |what: &String| what.contains("computing frozen features");
    assert!(run(&study, &slot, &at(&choices[0]), &Start::default()).unwrap().seen.iter().any(computing));
    let rows = || FeatureCache::open(&slot.cache_dir, None).unwrap().stats().unwrap();
    let before = rows();
    for tap in &choices[1..] {
        let later = run(&study, &slot, &at(tap), &Start::default()).unwrap();
        assert!(!later.seen.iter().any(computing), "{:?}", later.seen);
        // The same as without the other taps.
        let mut alone = study.clone();
        alone.space.parameters.clear();
        if let RunnerSpec::Image { network, .. } = &mut alone.runner {
            let Value::Text(tap) = tap else { unreachable!() };
            network.tap = tap.clone();
        }
        let elsewhere = tempfile::tempdir().unwrap();
        let slot = self::slot(elsewhere.path(), "b");
        assert_eq!(traces(&later), traces(&run(&alone, &slot, &order(0, 2), &Start::default()).unwrap()));
    }
    assert_eq!((rows().rows(), rows().files()), (before.rows(), before.files()));
}

#[test]
fn a_huge_learning_rate_is_reported_as_divergence() {
    let folder = tempfile::tempdir().unwrap();
    let study = varied(|_, _, head, training, _| {
        training.learning_rate = 1e38;
        training.warmup_epochs = 0.0;
        training.optimiser = OptimiserKind::Sgd;
        head.kind = HeadKind::Hidden;
    });
    let error = run(&study, &slot(folder.path(), "run"), &order(0, 3), &Start::default()).err().unwrap();
    assert_eq!(error.class, FailureClass::Diverged);
    assert!(error.reason.contains("at epoch 1") && error.reason.contains("hint: a smaller learning rate"), "{error}");
}

#[test]
fn an_interrupt_drops_the_running_epoch() {
    let folder = tempfile::tempdir().unwrap();
    let mut listener = Listener { interrupt_at: Some(4), ..Listener::default() };
    let slot = slot(folder.path(), "run");
    ImageRunner::new(&study(), Path::new(".")).run(&order(0, 3), &Start::default(), &slot, &mut listener).unwrap();
    // An epoch has three steps: the fourth step belongs to the second epoch.
    assert_eq!(listener.reports.len(), 1);
    assert_eq!(listener.seen.iter().filter(|s| s.starts_with("train")).count(), 4);
}

#[test]
fn test_scores_are_means_over_the_folds() {
    let folder = tempfile::tempdir().unwrap();
    let study = varied(|data, _, _, _, _| data.split.folds = Some(2));
    let slot = slot(folder.path(), "run");
    let mut listener = run(&study, &slot, &order(0, 1), &Start::default()).unwrap();
    let checkpoint = listener.reports[0].checkpoint.clone().unwrap();
    let mut runner = ImageRunner::new(&study, Path::new("."));
    let params = Params::default();
    let scored = runner.test((TrialNumber(4), &params), &checkpoint, &slot, &mut listener).unwrap();
    assert_eq!(scored.rows.len(), 8);
    assert!(scored.rows.iter().all(|r| (r.scores.iter().sum::<f32>() - 1.0).abs() < 1e-5));
    let other = runner.test((TrialNumber(5), &params), &checkpoint, &slot, &mut listener).unwrap_err();
    assert!(explain(&other).contains("checkpoint of trial 4"), "{}", explain(&other));
}

#[test]
fn contradictory_settings_are_bad_input() {
    let folder = tempfile::tempdir().unwrap();
    let slot = slot(folder.path(), "run");
    let device = DeviceSlot { device: crate::spec::Device::Cuda(7), ..slot.clone() };
    let error = run(&study(), &device, &order(0, 1), &Start::default()).err().unwrap();
    assert!(error.reason.contains("cuda:7"), "{error}");
    let study = varied(|_, network, _, _, _| {
        network.backbone = BackboneKind::ResNet18;
        network.tap = "features".to_owned();
        network.freeze = FreezeTo::None;
    });
    let error = run(&study, &slot, &order(0, 1), &Start::default()).err().unwrap();
    assert_eq!(error.class, FailureClass::BadInput);
    assert!(error.reason.contains("can only be used frozen"), "{error}");
}

#[test]
fn a_forecast_measures_what_a_trial_would_do() {
    let settings = study().runner.settings(&Params::default()).unwrap();
    let head_only = forecast(&settings, 75, 2, 1, &Device::Cpu).unwrap();
    assert!(head_only.frozen_seconds > 0.0 && head_only.train_seconds > 0.0 && head_only.judge_seconds > 0.0);
    let mut all = settings.clone();
    all.network.freeze = FreezeTo::None;
    let trained = forecast(&all, 75, 2, 1, &Device::Cpu).unwrap();
    assert_eq!(trained.frozen_seconds, 0.0);
    assert!(trained.checkpoint_bytes > head_only.checkpoint_bytes);
    // Epochs of the head alone come first, but the others are what takes the time and the disk.
    all.training.probe_epochs = 1;
    assert_eq!(forecast(&all, 75, 2, 1, &Device::Cpu).unwrap().checkpoint_bytes, trained.checkpoint_bytes);
}

#[test]
fn micro_batches_train_like_the_whole_batch() {
    let study = varied(|_, network, _, training, augment| {
        (network.tap, network.freeze) = ("Mixed_5d".to_owned(), FreezeTo::Stage("Mixed_5b".to_owned()));
        (training.epochs, training.batch_size) = (2, 6);
        (augment.strength, augment.views) = (0.5, Views::Fresh);
    });
    let folder = tempfile::tempdir().unwrap();
    let whole = run(&study, &slot(folder.path(), "whole"), &order(0, 2), &Start::default()).unwrap();
    let halved = Start { halvings: 2, ..Start::default() };
    let pieces = run(&study, &slot(folder.path(), "pieces"), &order(0, 2), &halved).unwrap();
    for (whole, pieces) in whole.reports.iter().zip(&pieces.reports) {
        assert_eq!((whole.at_once, pieces.at_once), (None, Some(2)));
        assert!(pieces.memory_bytes.is_some_and(|bytes| bytes > 1 << 20));
        let (a, b) = (whole.train_loss.unwrap(), pieces.train_loss.unwrap());
        assert!((a - b).abs() < 1e-4 * a, "{a} {b}");
    }
}

#[test]
fn other_images_or_weights_than_those_on_record_are_the_fault_of_the_place() {
    let folder = tempfile::tempdir().unwrap();
    let (study, slot) = (study(), slot(folder.path(), "s"));
    let mut opened = ImageRunner::new(&study, Path::new("."));
    let images = opened.data(&slot, &mut Listener::default()).unwrap().digest;
    let weights = usable(&study, Path::new(".")).unwrap();
    assert_eq!(weights.keys().collect::<Vec<_>>(), ["inception_v3"]);
    let expecting = |materials: Materials| {
        let mut runner = ImageRunner::new(&study, Path::new(".")).expecting(materials);
        runner.run(&order(0, 1), &Start::default(), &slot, &mut Listener::default())
    };
    expecting(Materials { images: Some(images), weights: weights.clone() }).unwrap();
    let other = Digest::of(b"other");
    for (materials, what) in [
        (Materials { images: Some(other), weights: weights.clone() }, "the images"),
        (Materials { images: None, weights: [("inception_v3".to_owned(), other)].into() }, "its weights"),
    ] {
        let error = expecting(materials).unwrap_err();
        assert!(error.of_place && error.reason.contains(what), "{error:?}");
    }
}
