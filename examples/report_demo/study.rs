//! An invented study: synchronous halving over transfer-learning settings, with plausible values and predictions.

use hpsearch::data::GivenValidation;
use hpsearch::engine::{FailureClass, TrialState};
use hpsearch::history::OutcomeKind;
use hpsearch::ids::{Epoch, OrderId, TrialNumber};
use hpsearch::metrics::{Prediction, Predictions, evaluate, threshold_at};
use hpsearch::report::model::*;
use hpsearch::rng::{Purpose, StreamRng};
use hpsearch::space::{Condition, Domain, Parameter, Params, SearchSpace, Value};
use hpsearch::spec::*;
use hpsearch::stats::quantile;
use std::collections::BTreeMap;

const START_MS: u64 = 1_700_000_000_000;

fn text(words: &[&str]) -> Vec<Value> {
    words.iter().map(|w| Value::Text((*w).into())).collect()
}

fn space() -> SearchSpace {
    let p = |name: &str, domain| Parameter { name: name.into(), domain, when: None };
    let sgd = Condition { parameter: "optimiser".into(), values: text(&["sgd"]) };
    SearchSpace {
        parameters: vec![
            p("learning_rate", Domain::Float { low: 1e-5, high: 1e-1, step: None, log: true }),
            p("freeze", Domain::Ordinal { choices: text(&["none", "Mixed_5d", "Mixed_6c", "Mixed_6e", "Mixed_7c"]) }),
            p("dropout", Domain::Float { low: 0.0, high: 0.6, step: None, log: false }),
            p("augment_strength", Domain::Float { low: 0.0, high: 1.0, step: None, log: false }),
            p("optimiser", Domain::Categorical { choices: text(&["adamw", "sgd"]) }),
            Parameter {
                when: Some(sgd),
                ..p("momentum", Domain::Float { low: 0.5, high: 0.99, step: None, log: false })
            },
        ],
    }
}

/// The spec of a study that some other program has trained: enough for a report.
pub fn spec(n_trials: u32) -> StudySpec {
    let mut spec = StudySpec::external("invented-radiographs", space(), 9, n_trials);
    spec.seed = 7;
    spec.objective = Objective {
        metric: Metric::RocAuc,
        direction: Direction::Maximize,
        operating_point: OperatingPoint::Recall(0.95),
    };
    spec.run = RunSpec { workers: 2, device: Devices::Cpu, ..spec.run };
    spec
}

fn normal(rng: &mut StreamRng) -> f64 {
    quantile(rng.unit().clamp(1e-9, 1.0 - 1e-9))
}

/// Predictions of a model whose classes lie `gap` standard deviations apart; patients have one to three images.
pub fn predictions(set: u64, model: u64, images: usize, gap: f64) -> Predictions {
    // How hard an image is, is common to all models; the rest of the noise is each model's own.
    let mut common = StreamRng::keyed(11, Purpose::Test, &[set]);
    let mut own = StreamRng::keyed(11, Purpose::Test, &[set, model]);
    let (mut rows, mut patient) = (Vec::new(), 0);
    while rows.len() < images {
        patient += 1;
        let label = u32::from(common.unit() < 0.38);
        let hardness = normal(&mut common) * 0.5;
        for _ in 0..=common.below(3) {
            let image = 0.6 * normal(&mut common) + hardness;
            let x = gap * (f64::from(label) - 0.45) + 0.85 * image + 0.5 * normal(&mut own);
            let score = 1.0 / (1.0 + (-1.7 * x).exp());
            let class = ["NORMAL", "PNEUMONIA"][label as usize];
            rows.push(Prediction {
                image: format!("{class}/person{patient}_{}.jpeg", rows.len()),
                patient: Some(format!("person{patient}")),
                label,
                scores: vec![1.0 - score as f32, score as f32],
            });
        }
    }
    rows.truncate(images);
    Predictions { classes: vec!["NORMAL".into(), "PNEUMONIA".into()], positive: 1, rows }
}

struct Candidate {
    params: Params,
    quality: f64,
    speed: f64,
}

fn candidate(number: u32) -> Candidate {
    let space = space();
    let params = space.sample(|name| StreamRng::named(7, Purpose::Parameter, name, &[u64::from(number)]).unit());
    let f = |name: &str| params.get(name).and_then(Value::as_f64);
    let rate = (f("learning_rate").unwrap_or(1e-3).log10() + 3.0).abs();
    let depth = match params.get("freeze").and_then(Value::as_str) {
        Some("Mixed_6c") => 0.02,
        Some("Mixed_5d") => 0.014,
        Some("none") => 0.0,
        Some("Mixed_6e") => 0.008,
        _ => -0.02,
    };
    let strength = (f("augment_strength").unwrap_or(0.5) - 0.4).powi(2);
    let quality =
        0.945 + depth - 0.035 * rate.powf(1.4) - 0.04 * strength - 0.03 * (f("dropout").unwrap_or(0.3) - 0.3).powi(2);
    Candidate { quality: quality.max(0.52), speed: 1.1 + 0.3 * rate, params }
}

/// A synchronous halving of `trials` configurations with rungs at 1, 3 and 9 epochs.
pub fn invented(trials: u32, opened: bool) -> StudyRecord {
    let candidates: Vec<Candidate> = (0..trials).map(candidate).collect();
    let mut records: Vec<TrialRecord> = candidates
        .iter()
        .enumerate()
        .map(|(i, c)| TrialRecord {
            number: TrialNumber(i as u32),
            params: c.params.clone(),
            state: TrialState::Waiting,
            value: None,
            epochs: Vec::new(),
            bracket: 0,
            rung: None,
            failure: None,
            worse_than_chance: None,
        })
        .collect();
    let mut orders: Vec<OrderRecord> = Vec::new();
    let mut free = [START_MS, START_MS + 2_000];
    let mut alive: Vec<usize> = (0..trials as usize).collect();
    let mut from = 0;
    for (rung, to) in [1u32, 3, 9].into_iter().enumerate() {
        for &i in &alive {
            let worker = usize::from(free[1] < free[0]);
            let mut attempts = Vec::new();
            let rate = candidates[i].params.get("learning_rate").and_then(Value::as_f64).unwrap_or(0.0);
            let diverges = rung == 0 && rate > 0.06;
            if i % 17 == 5 && rung == 1 {
                let lost = FailureRecord {
                    class: FailureClass::Lost,
                    reason: "the worker process was killed (signal 9)".into(),
                };
                attempts.push(AttemptRecord {
                    worker: worker as u32,
                    started_ms: free[worker],
                    ended_ms: free[worker] + 21_000,
                    lost: Some(lost),
                });
                free[worker] += 24_000;
            }
            let started_ms = free[worker];
            let mut rng = StreamRng::keyed(5, Purpose::Test, &[i as u64, u64::from(to)]);
            for epoch in from + 1..=to {
                let c = &candidates[i];
                let value =
                    c.quality - 0.16 * c.speed * (-f64::from(epoch) / (2.2 * c.speed)).exp() + 0.008 * normal(&mut rng);
                let seconds = 24.0 + 8.0 * rng.unit();
                free[worker] += (seconds * 1000.0) as u64;
                let value = (!diverges).then_some(value.clamp(0.4, 0.999));
                let metrics: BTreeMap<String, f64> =
                    value.iter().flat_map(|v| [("f1".to_owned(), v - 0.09), ("recall".to_owned(), v - 0.05)]).collect();
                records[i].epochs.push(EpochRecord {
                    epoch: Epoch(epoch),
                    value,
                    metrics,
                    train_loss: (!diverges).then(|| 0.7 * (-f64::from(epoch) / 5.0).exp() + 0.02 * rng.unit()),
                    seconds,
                    data_wait_seconds: 0.3 * rng.unit(),
                    unix_ms: free[worker],
                });
                records[i].value = value;
            }
            attempts.push(AttemptRecord { worker: worker as u32, started_ms, ended_ms: free[worker], lost: None });
            free[worker] += 900;
            records[i].rung = Some(rung as u32);
            let outcome = match records[i].value {
                Some(_) => {
                    records[i].state = if to == 9 { TrialState::Complete } else { TrialState::Stopped };
                    OutcomeKind::Reached
                }
                None => {
                    let reason = "the training loss is NaN after epoch 1".to_owned();
                    records[i].state = TrialState::Failed;
                    records[i].failure = Some(FailureRecord { class: FailureClass::Diverged, reason });
                    OutcomeKind::Failed
                }
            };
            orders.push(OrderRecord {
                order: OrderId(orders.len() as u32),
                trial: TrialNumber(i as u32),
                from: Epoch(from),
                to: Epoch(to),
                bracket: 0,
                rung: Some(rung as u32),
                outcome: Some((outcome, Epoch(to))),
                attempts,
            });
        }
        alive.retain(|&i| records[i].value.is_some());
        alive.sort_by(|&a, &b| records[b].value.unwrap_or(0.0).total_cmp(&records[a].value.unwrap_or(0.0)));
        alive.truncate(alive.len().div_ceil(3));
        alive.sort_unstable();
        let wait = free[0].max(free[1]);
        free = [wait, wait];
        from = to;
    }
    // The finalists' last values are those of their predictions.
    let mut leaders: Vec<usize> = (0..records.len()).filter(|&i| records[i].state == TrialState::Complete).collect();
    leaders.sort_by(|&a, &b| records[b].value.unwrap_or(0.0).total_cmp(&records[a].value.unwrap_or(0.0)));
    leaders.truncate(5);
    let gap = |i: usize| 2.1 + 9.0 * (candidates[i].quality - 0.92);
    for &i in &leaders {
        let value = evaluate(&predictions(1, i as u64, 320, gap(i)), 0.5).roc_auc;
        records[i].value = value;
        if let Some(last) = records[i].epochs.last_mut() {
            last.value = value;
        }
    }
    let lead: Vec<f64> = leaders.iter().filter_map(|&i| records[i].value).collect();
    let least = lead.iter().copied().fold(1.0, f64::min);
    for (i, r) in records.iter_mut().enumerate() {
        if !leaders.contains(&i) {
            // No other trial may rank among them.
            r.value = r.value.map(|v| v.min(least - 0.001));
            for e in &mut r.epochs {
                e.value = e.value.map(|v| v.min(least - 0.001));
            }
        }
    }
    leaders.sort_by(|&a, &b| records[b].value.unwrap_or(0.0).total_cmp(&records[a].value.unwrap_or(0.0)));
    let finalists: Vec<Finalist> = leaders
        .iter()
        .map(|&i| Finalist { trial: TrialNumber(i as u32), validation: predictions(1, i as u64, 320, gap(i)) })
        .collect();
    let spec = spec(trials);
    let results = finalists.iter().map(|f| TestResult {
        trial: f.trial,
        threshold: threshold_at(&f.validation, &spec.objective.operating_point),
        predictions: predictions(2, u64::from(f.trial.0), 420, gap(f.trial.0 as usize) - 0.12),
    });
    let mean = Predictions::mean(&finalists.iter().map(|f| &f.validation).collect::<Vec<_>>());
    let mean = mean.map(|mean| TestMean { threshold: threshold_at(&mean, &spec.objective.operating_point) });
    let test = opened.then(|| TestOpening { unix_ms: free[0], unfinished: false, results: results.collect(), mean });
    let thumbnails = finalists
        .iter()
        .take(1)
        .flat_map(|f| &f.validation.rows)
        .map(|r| (r.image.clone(), Png(blot(r.image.len() as u64 + u64::from(r.label)))))
        .collect();
    StudyRecord {
        warm_starts: Default::default(),
        spec,
        trials: records,
        orders,
        data: Some(DataRecord {
            classes: vec!["NORMAL".into(), "PNEUMONIA".into()],
            positive: 1,
            splits: [("training", [740, 461]), ("validation", [201, 119]), ("test", [262, 158])]
                .map(|(name, counts)| SplitRecord { name: name.into(), counts: counts.to_vec() })
                .to_vec(),
            patients: Some(982),
            notes: Vec::new(),
            given_validation: GivenValidation::Absent,
            dropped: 0,
            skipped: vec![("train/NORMAL/broken.jpeg".into(), "not a JPEG file".into())],
            synthetic: true,
        }),
        finalists,
        test,
        audit: None,
        pictures: vec![Picture {
            title: "Augmentation sheet".into(),
            caption: "One image at rising strengths.".into(),
            png: Png(blot(3)),
        }],
        thumbnails,
        program: "hpsearch (invented study)".into(),
    }
}

/// A small grey picture.
fn blot(seed: u64) -> Vec<u8> {
    let mut rng = StreamRng::keyed(9, Purpose::Test, &[seed]);
    let (cx, cy) = (20.0 + 24.0 * rng.unit(), 20.0 + 24.0 * rng.unit());
    let picture = image::GrayImage::from_fn(64, 64, |x, y| {
        let d = (f64::from(x) - cx).hypot(f64::from(y) - cy);
        image::Luma([(40.0 + 170.0 * (-d * d / 180.0).exp()) as u8])
    });
    let mut png = std::io::Cursor::new(Vec::new());
    picture.write_to(&mut png, image::ImageFormat::Png).expect("memory does not run out at 4 KiB");
    png.into_inner()
}
