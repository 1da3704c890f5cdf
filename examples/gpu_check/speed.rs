//! Images per second of forward passes and training steps, compared with PyTorch's.

use crate::golden::{input, parameter};
use crate::report::{Outcome, Report};
use candle_core::{Device, Result};
use hpsearch::nn::cuda::{Precision, device, set_precision};
use hpsearch::nn::inception_v3::{self, InceptionV3};
use hpsearch::nn::optimiser::{Group, Optimiser};
use hpsearch::nn::{Backbone, Mode, Suffix, SuffixOptions, backward};
use hpsearch::spec::{
    BatchNormMode, ImbalancePolicy, LossKind, OptimiserKind, PoolPadding, ScheduleKind, TrainingSpec,
};
use serde_json::Value;
use std::path::Path;
use std::time::Instant;

const SIDE: usize = 299;
const BATCH: usize = 64;
/// Least time of a measurement.
const SECONDS: f64 = 4.0;

/// The position after the last stage: with everything frozen, only the forward pass is measured.
const FORWARD: usize = 18;

struct Work {
    name: &'static str,
    from: usize,
    batch_norm: BatchNormMode,
    /// The aim, as a multiple of PyTorch's images per second.
    wanted: f64,
}

const WORK: [Work; 4] = [
    Work { name: "forward", from: FORWARD, batch_norm: BatchNormMode::Frozen, wanted: 1.0 },
    Work { name: "step_last2", from: 16, batch_norm: BatchNormMode::Frozen, wanted: 0.9 },
    Work { name: "step_all", from: 0, batch_norm: BatchNormMode::Frozen, wanted: 0.9 },
    Work { name: "step_all_train", from: 0, batch_norm: BatchNormMode::Train, wanted: 0.9 },
];

fn training() -> TrainingSpec {
    TrainingSpec {
        epochs: 1,
        batch_size: BATCH as u32,
        optimiser: OptimiserKind::AdamW,
        learning_rate: 1e-4,
        weight_decay: 1e-2,
        momentum: 0.9,
        backbone_rate: 1.0,
        schedule: ScheduleKind::Constant,
        warmup_epochs: 0.0,
        loss: LossKind::CrossEntropy,
        focal_gamma: 2.0,
        label_smoothing: 0.0,
        imbalance: ImbalancePolicy::None,
        ..TrainingSpec::default()
    }
}

struct Speed {
    images: f64,
    /// Share of the time in which the host was still queueing work: near 1, the GPU waits for the host.
    queueing: f64,
    peak_mib: f64,
}

/// Repeats `f` for [`SECONDS`] after some rounds to warm up, without waiting for the GPU in between.
fn repeated(gpu: &Device, mut f: impl FnMut() -> Result<()>) -> Result<Speed> {
    for _ in 0..3 {
        f()?;
    }
    gpu.synchronize()?;
    device::forget_peak(gpu);
    let began = Instant::now();
    f()?;
    gpu.synchronize()?;
    let rounds = (SECONDS / began.elapsed().as_secs_f64()).clamp(3.0, 500.0) as usize;
    let began = Instant::now();
    for _ in 0..rounds {
        f()?;
    }
    let queued = began.elapsed().as_secs_f64();
    gpu.synchronize()?;
    let seconds = began.elapsed().as_secs_f64();
    let peak = device::memory(gpu).map_or(f64::NAN, |m| m.peak as f64 / f64::from(1 << 20));
    Ok(Speed { images: (rounds * BATCH) as f64 / seconds, queueing: queued / seconds, peak_mib: peak })
}

/// Forward passes and training steps at 299 pixels, in every precision.
pub fn measure(r: &mut Report, gpu: &Device, torch: Option<&Path>) -> Outcome {
    let torch: Option<Value> = match torch {
        Some(path) => Some(serde_json::from_slice(&std::fs::read(path)?)?),
        None => None,
    };
    match torch.as_ref().and_then(|t| t["version"].as_str()) {
        Some(version) => {
            r.line(&format!("PyTorch {version}, eager, channels last, AMP bf16. {SIDE} pixels, batches of {BATCH}.\n"))
        }
        None => r.line(&format!("PyTorch was not measured. {SIDE} pixels, batches of {BATCH}.\n")),
    }
    let mut head = vec!["work", "arithmetic", "images/s", "PyTorch images/s", "ratio", "wanted"];
    head.extend(["share of time the host queues", "peak MiB"]);
    r.table(&head);
    let all = inception_v3::parameters(1.0).into_iter();
    let tensors = all.map(|(name, shape)| (name.clone(), parameter(&name, &shape))).collect();
    let x = input(BATCH, SIDE).to_device(gpu)?;
    for work in &WORK {
        for precision in [Precision::F32, Precision::Tf32, Precision::Bf16] {
            if !r.goes_on() {
                return Err("out of time".into());
            }
            if work.from == 0 && precision == Precision::Bf16 {
                continue; // nothing is frozen: the same as tf32
            }
            set_precision(precision);
            let network = InceptionV3::new(&tensors, 1.0, PoolPadding::Counted, gpu)?;
            let speed = if work.from == FORWARD {
                repeated(gpu, || network.prefix(0, FORWARD, &x).map(drop))?
            } else {
                let suffix = network.suffix(work.from, FORWARD, SuffixOptions { batch_norm: work.batch_norm })?;
                steps(gpu, &network, suffix.as_ref(), work.from, &x)?
            };
            let theirs = torch.as_ref().and_then(|t| t[work.name].as_f64());
            r.row(&[
                work.name.to_owned(),
                precision.into_str().to_owned(),
                format!("{:.0}", speed.images),
                theirs.map_or_else(|| "-".to_owned(), |t| format!("{t:.0}")),
                theirs.map_or_else(|| "-".to_owned(), |t| format!("{:.2}", speed.images / t)),
                format!("{:.1}", work.wanted),
                format!("{:.0} %", 100.0 * speed.queueing),
                format!("{:.0}", speed.peak_mib),
            ]);
        }
    }
    set_precision(Precision::default());
    Ok(())
}

fn steps(
    gpu: &Device,
    network: &InceptionV3,
    suffix: &dyn Suffix,
    from: usize,
    x: &candle_core::Tensor,
) -> Result<Speed> {
    let groups = vec![Group { multiplier: 1.0, parameters: suffix.parameters(), since: 0 }];
    let mut optimiser = Optimiser::new(&training(), groups)?;
    repeated(gpu, || {
        let features = suffix.forward(&network.prefix(0, from, x)?, Mode::Train)?;
        let loss = features.mean((1, 2))?.sqr()?.mean_all()?;
        optimiser.step(&backward(&loss, Some(suffix))?, 1e-4)
    })
}
