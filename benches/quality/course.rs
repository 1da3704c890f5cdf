//! The initial state and the first steps of one trial, for comparison with PyTorch by `benches/quality/course.py`.
//!
//! `course STUDY.toml OUT CACHE [STEPS]` takes the study's fixed settings (nothing is searched) as trial 0 and writes
//!
//! - `OUT/start.safetensors`: the decoded images, their classes, the order and the flips of every epoch's samples, the
//!   validation images, and the head's initial weights, in torch's layout;
//! - `OUT/ours.jsonl`: for each of the first STEPS steps the loss, norms of the gradients of head and network, mean and
//!   largest value of the features, as the trial of `hpsearch run` takes them; `OUT/ours.N.safetensors`: the parameters
//!   after N steps.
//!
//! The only augmentation it supports is flipping.

use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Tensor, Var};
use hpsearch::data::augment::{ViewDraw, render};
use hpsearch::data::{DataSet, PixelSource, Quiet};
use hpsearch::ids::{Epoch, TrialNumber};
use hpsearch::nn::head::{DropoutKey, Head};
use hpsearch::nn::loss::{Loss, balanced_weights};
use hpsearch::nn::optimiser::{Group, Optimiser};
use hpsearch::nn::schedule::Schedule;
use hpsearch::nn::{Mode, SuffixOptions, backward, build};
use hpsearch::runner::image::{Planner, Sample, located};
use hpsearch::spec::{ImbalancePolicy, RunnerSpec};
use serde_json::json;
use std::collections::HashMap;
use std::error::Error;
use std::io::Write;
use std::path::Path;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Steps after which the parameters are written out.
const KEPT: [u64; 10] = [0, 1, 2, 5, 10, 20, 50, 100, 200, 500];

fn main() -> Result<(), Box<dyn Error>> {
    hpsearch::nn::memory::keep_pages();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [study, out, cache, rest @ ..] = arguments.as_slice() else {
        return Err("course STUDY OUT CACHE [STEPS]".into());
    };
    let (out, device, trial) = (Path::new(out), Device::Cpu, TrialNumber(0));
    std::fs::create_dir_all(out)?;
    let loaded = hpsearch::config::load(Path::new(study)).map_err(|e| e.to_string())?;
    let (spec, base) = (loaded.spec, loaded.base);
    hpsearch::nn::cuda::set_precision(spec.run.precision);
    let RunnerSpec::Image { data, .. } = &spec.runner else { return Err("no image study".into()) };
    let settings = spec.runner.fixed().ok_or("no image study")?;
    let seed = spec.seed;
    let data = DataSet::open(data, seed, &base, Path::new(cache), &Quiet)?;
    let fold = &data.split().folds[0];
    let class = |i: usize| data.records()[i].class;
    let labels: Vec<u32> = fold.train.iter().map(|&i| class(i)).collect();
    let classes = data.classes().len();
    let planner = Planner {
        seed,
        trial,
        fold: 0,
        train: &fold.train,
        labels: &labels,
        classes,
        training: &settings.training,
        augment: &settings.augment,
    };
    let traced: u64 = rest.first().map_or(Ok(0), |n| n.parse())?;
    if traced > 0 && settings.probing_epochs() > 0 {
        return Err("steps of a trial that begins with its head alone cannot be traced".into());
    }
    let plans: Vec<Vec<Vec<Sample>>> =
        (1..=settings.training.epochs).map(|epoch| planner.epoch(Epoch(epoch))).collect();

    let network = located(&settings.network, &base);
    let built = build::build(&network, seed, &device)?;
    let (cut, tap) = (network.cut(), network.tap_position());
    let suffix = if cut < tap {
        Some(built.backbone.suffix(cut, tap, SuffixOptions { batch_norm: network.batch_norm })?)
    } else {
        None
    };
    let channels = built.backbone.stages()[tap - 1].channels;
    let head = Head::new(&settings.head, channels, classes, seed, (trial, 0), &device)?;
    write_start(out, &data, &settings.augment, seed, &plans, &head)?;

    let mut groups = vec![Group { multiplier: 1.0, parameters: head.parameters(), since: 0 }];
    if let Some(suffix) = &suffix {
        groups.extend(Group::by_stage(suffix.parameters(), &settings.training, 0));
    }
    let mut optimiser = Optimiser::new(&settings.training, groups)?;
    let schedule = Schedule::new(&settings.training, 0, planner.steps());
    let weights = match settings.training.imbalance {
        ImbalancePolicy::Weights => balanced_weights(&labels, classes),
        _ => Vec::new(),
    };
    let loss_of = Loss::new(&settings.training, weights);
    let (side, colours) = (data.size(), data.channels());
    let pixels = |samples: &[Sample]| -> candle_core::Result<Tensor> {
        let mut x = vec![0f32; samples.len() * side * side * 3];
        for (x, sample) in x.chunks_exact_mut(side * side * 3).zip(samples) {
            let draw = ViewDraw::draw(&settings.augment, seed, &data.records()[sample.image].digest, sample.view);
            render(data.pixels(sample.image), side, colours, &draw, network.scaling, x);
        }
        let x = Tensor::from_vec(x, (samples.len(), side, side, 3), &device)?;
        built.backbone.prefix(0, cut, &x)
    };
    let features = |x: Tensor| match &suffix {
        Some(suffix) => suffix.forward(&x, Mode::Train),
        None => Ok(x),
    };
    let save = |after: u64| {
        if traced == 0 || !KEPT.contains(&after) {
            return Ok(());
        }
        let mut all: HashMap<String, Tensor> =
            head.parameters().into_iter().map(|(name, var)| (name, var.as_detached_tensor())).collect();
        if let Some(suffix) = &suffix {
            for (name, var) in suffix.parameters() {
                let stored = suffix.to_file(&name, &var.as_detached_tensor())?;
                all.insert(name, stored);
            }
        }
        candle_core::safetensors::save(&all, out.join(format!("ours.{after}.safetensors")))
    };
    save(0)?;
    let mut log = std::io::BufWriter::new(std::fs::File::create(out.join("ours.jsonl"))?);
    for (epoch, plan) in (1..).zip(&plans) {
        let mut seen = 0u64;
        for batch in plan {
            if optimiser.steps() == traced {
                return Ok(log.flush()?);
            }
            let key = DropoutKey { seed, trial, epoch: Epoch(epoch), fold: 0, first_sample: seen };
            let maps = features(pixels(batch)?)?;
            let logits = head.forward(&maps, Mode::Train, &key)?;
            let labels: Vec<u32> = batch.iter().map(|s| class(s.image)).collect();
            let loss = loss_of.forward(&logits, &labels)?;
            let gradients = backward(&loss, suffix.as_deref())?;
            let network = suffix.as_ref().map_or_else(Vec::new, |s| s.parameters());
            let line = json!({
                "step": optimiser.steps(),
                "loss": f64::from(loss.to_scalar::<f32>()?),
                "head": norm(&gradients, &head.parameters())?,
                "network": norm(&gradients, &network)?,
                "mean": maps.mean_all()?.to_scalar::<f32>()?,
                "max": maps.max_all()?.to_scalar::<f32>()?,
            });
            writeln!(log, "{line}")?;
            optimiser.step(&gradients, schedule.rate(optimiser.steps()))?;
            save(optimiser.steps())?;
            seen += batch.len() as u64;
        }
    }
    Ok(log.flush()?)
}

/// The Euclidean norm of the gradients of some parameters.
fn norm(gradients: &GradStore, of: &[(String, Var)]) -> candle_core::Result<f64> {
    let mut sum = 0.0;
    for gradient in of.iter().filter_map(|(_, var)| gradients.get(var)) {
        sum += f64::from(gradient.sqr()?.sum_all()?.to_scalar::<f32>()?);
    }
    Ok(sum.sqrt())
}

/// All that PyTorch needs to train the same trial.
fn write_start(
    out: &Path,
    data: &DataSet,
    augment: &hpsearch::spec::AugmentSpec,
    seed: u64,
    plans: &[Vec<Vec<Sample>>],
    head: &Head,
) -> Result<(), Box<dyn Error>> {
    let cpu = &Device::Cpu;
    let (side, colours) = (data.size(), data.channels());
    let images = data.records().len();
    let all: Vec<u8> = (0..images).flat_map(|i| data.pixels(i).iter().copied()).collect();
    let index = |values: Vec<usize>| {
        let n = values.len();
        Tensor::from_vec(values.into_iter().map(|v| v as i64).collect::<Vec<_>>(), n, cpu)
    };
    let fold = &data.split().folds[0];
    let mut tensors = HashMap::from([
        ("images".to_owned(), Tensor::from_vec(all, (images, side, side, colours), cpu)?),
        ("labels".to_owned(), index(data.records().iter().map(|r| r.class as usize).collect())?),
        ("train".to_owned(), index(fold.train.clone())?),
        ("validation".to_owned(), index(fold.validation.clone())?),
    ]);
    for (epoch, plan) in (1..).zip(plans) {
        let samples: Vec<Sample> = plan.concat();
        let mirrored = |s: &Sample| {
            let draw = ViewDraw::draw(augment, seed, &data.records()[s.image].digest, s.view);
            let still = ViewDraw { flip: false, ..draw } == ViewDraw::original();
            if still { Ok(usize::from(draw.flip)) } else { Err("of augmentation, only flips can be compared") }
        };
        tensors.insert(format!("order.{epoch}"), index(samples.iter().map(|s| s.image).collect())?);
        tensors.insert(format!("flip.{epoch}"), index(samples.iter().map(mirrored).collect::<Result<_, _>>()?)?);
        tensors.insert(format!("batches.{epoch}"), index(plan.iter().map(Vec::len).collect())?);
    }
    for (name, var) in head.parameters() {
        tensors.insert(name, var.as_detached_tensor().to_dtype(DType::F32)?);
    }
    candle_core::safetensors::save(&tensors, out.join("start.safetensors"))?;
    Ok(())
}
