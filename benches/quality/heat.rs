//! Where heat maps peak on synthetic images, whose opacities are known: for every stage, three ways to weigh its
//! activations, trained and randomised weights.
//!
//! ```console
//! cargo run --release --example heat -- MODEL [IMAGES] [CONTRAST] [SEED] [STAGES]
//! ```
//!
//! `MODEL` is a folder that `hpsearch export` wrote, of a study on synthetic images. The images drawn here are others
//! (another seed); `STAGES` are those looked at, with commas, by default all from the first pool. A line has the share of
//! true positives whose map is largest inside a drawn opacity and, in brackets, where the opacity has at least half of its
//! height; after the stroke, on how many maps nothing speaks for the class (their largest value counts all the same). For
//! randomised weights every tensor's values are shuffled, in three ways, and all positives count.

use candle_core::{Device, Tensor, Var};
use hpsearch::data::synthetic::{self, DrawnOpacity};
use hpsearch::ids::{Epoch, TrialNumber};
use hpsearch::model::{CARD, Card, Member};
use hpsearch::nn::attribution::{HeatMap, log_odds};
use hpsearch::nn::head::{DropoutKey, Head};
use hpsearch::nn::{Backbone, Mode, SuffixOptions, backward, build};
use hpsearch::rng::{Purpose, StreamRng};
use hpsearch::spec::{BatchNormMode, CachePrecision, FreezeTo, HeadSpec, NetworkSpec, SyntheticSpec, WeightSource};
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

type Failure = Box<dyn std::error::Error>;

/// Images that are computed at once.
const AT_ONCE: usize = 16;
/// Distance at which an opacity has half of its height: `(1 - r^2)^4 = 1/2`.
const HALF: f64 = 0.3988;
const METHODS: [&str; 3] = ["Grad-CAM", "HiResCAM", "LayerCAM"];
const KEY: DropoutKey = DropoutKey { seed: 0, trial: TrialNumber(0), epoch: Epoch(0), fold: 0, first_sample: 0 };

struct Network {
    spec: NetworkSpec,
    backbone: Box<dyn Backbone>,
    head: Head,
}

fn load(member: &Member, classes: usize, file: &Path) -> Result<Network, Failure> {
    if member.network.input_size.is_some() {
        return Err("only models that see whole images are measured".into());
    }
    let spec = NetworkSpec {
        backbone: member.network.backbone,
        width: member.network.width,
        weights: WeightSource::File(file.to_owned()),
        scaling: member.network.scaling,
        pool_padding: member.network.pool_padding,
        tap: member.network.tap.clone(),
        freeze: FreezeTo::All,
        batch_norm: BatchNormMode::Frozen,
        cache: CachePrecision::F32,
        input_size: None,
    };
    let backbone = build::build(&spec, 0, &Device::Cpu)?.backbone;
    let width = backbone.stages()[spec.tap_position() - 1].channels;
    let head = HeadSpec { kind: member.head.kind, dropout: 0.0, hidden_units: member.head.hidden_units };
    let head = Head::new(&head, width, classes, 0, (TrialNumber(0), 0), &Device::Cpu)?;
    let tensors = candle_core::safetensors::load(file, &Device::Cpu)?;
    for (name, var) in head.parameters().into_iter().chain(head.buffers()) {
        var.set(&tensors[&name.replacen("head.", "top.", 1)])?;
    }
    Ok(Network { spec, backbone, head })
}

/// The same file with the values of every tensor shuffled.
fn shuffled(file: &Path, to: &Path, shuffle: u64) -> Result<(), Failure> {
    let tensors: BTreeMap<_, _> = candle_core::safetensors::load(file, &Device::Cpu)?.into_iter().collect();
    let mut all = HashMap::new();
    for (number, (name, tensor)) in tensors.into_iter().enumerate() {
        let mut values: Vec<f32> = tensor.flatten_all()?.to_vec1()?;
        StreamRng::keyed(shuffle, Purpose::Test, &[number as u64]).shuffle(&mut values);
        all.insert(name, Tensor::from_vec(values, tensor.dims(), &Device::Cpu)?);
    }
    Ok(candle_core::safetensors::save(&all, to)?)
}

/// Maps of a batch at a stage, for each method.
fn maps(network: &Network, from: usize, x: &Tensor, class: usize) -> Result<[Vec<HeatMap>; 3], Failure> {
    let to = network.spec.tap_position();
    let maps = network.backbone.prefix(0, from, x)?;
    let x = Var::from_tensor(&maps)?;
    let suffix = network.backbone.suffix(from, to, SuffixOptions { batch_norm: BatchNormMode::Frozen })?;
    let features = if from < to { suffix.forward(&x, Mode::Train)? } else { x.as_tensor().clone() };
    let n = x.dims()[0];
    let odds = log_odds(&network.head.forward(&features, Mode::Eval, &KEY)?, &vec![class; n])?;
    let gradients = backward(&odds.sum_all()?, Some(&*suffix))?;
    let gradient = gradients.get(&x).ok_or("no gradient")?;
    let by_method = [
        maps.broadcast_mul(&gradient.mean_keepdim((1, 2))?)?.sum(3)?,
        (gradient * &maps)?.sum(3)?,
        (gradient.relu()? * &maps)?.sum(3)?,
    ];
    let lattice = network.backbone.lattice(from).ok_or("no places")?;
    let heat = |t: &Tensor| -> Result<Vec<HeatMap>, Failure> {
        let (_, side, _) = t.dims3()?;
        let rows: Vec<Vec<f32>> = t.flatten_from(1)?.to_vec2()?;
        Ok(rows.into_iter().map(|values| HeatMap { values, side, lattice }).collect())
    };
    Ok([heat(&by_method[0])?, heat(&by_method[1])?, heat(&by_method[2])?])
}

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().collect();
    let folder = Path::new(arguments.get(1).ok_or("name a folder with a model")?);
    let number = |i: usize, otherwise: f64| arguments.get(i).map_or(Ok(otherwise), |text| text.parse::<f64>());
    let card = Card::read(&folder.join(CARD))?;
    let [member] = card.members.as_slice() else { return Err("export a single trial".into()) };
    let spec = SyntheticSpec {
        images: number(2, 100.0)? as u32,
        prevalence: 1.0,
        contrast: number(3, 1.0)?,
        seed: number(4, 1001.0)? as u64,
    };
    let wanted: Option<Vec<&str>> = arguments.get(5).map(|names| names.split(',').collect());
    let file = folder.join("model.safetensors");
    let random = std::env::temp_dir().join(format!("heat-{}.safetensors", std::process::id()));
    let planned = synthetic::plan(&spec);
    let size = card.preprocessing.size;
    let (divisor, mean, deviation) = member.network.scaling.constants();
    for (what, file) in [("trained", &file), ("shuffled 1", &random), ("shuffled 2", &random), ("shuffled 3", &random)]
    {
        let shuffle = what.strip_prefix("shuffled ").map(str::parse).transpose()?;
        if let Some(shuffle) = shuffle {
            shuffled(&folder.join("model.safetensors"), file, shuffle)?;
        }
        let network = load(member, card.classes.len(), file)?;
        let stages = network.spec.backbone.stages();
        let tap = network.spec.tap_position();
        let mut hits: BTreeMap<usize, [[usize; 3]; 3]> = BTreeMap::new();
        let (mut counted, mut area) = (0, [0.0; 2]);
        for batch in planned.chunks(AT_ONCE) {
            let mut values = Vec::new();
            let mut drawn: Vec<Vec<DrawnOpacity>> = Vec::new();
            for planned in batch {
                for pixel in synthetic::radiograph(&spec, planned, size) {
                    values.extend([0, 1, 2].map(|c| (f32::from(pixel) / divisor - mean[c]) / deviation[c]));
                }
                drawn.push(synthetic::drawn(&spec, planned));
            }
            let x = Tensor::from_vec(values, (batch.len(), size, size, 3), &Device::Cpu)?;
            let features = network.backbone.prefix(0, tap, &x)?;
            let logits = network.head.forward(&features, Mode::Eval, &KEY)?;
            let scores: Vec<Vec<f32>> = candle_nn::ops::softmax(&logits.detach(), 1)?.to_vec2()?;
            let positive = card.positive as usize;
            let threshold = card.threshold.unwrap_or(0.5);
            let counts = |i: usize| shuffle.is_some() || f64::from(scores[i][positive]) >= threshold;
            counted += (0..batch.len()).filter(|&i| counts(i)).count();
            let nearest = |i: usize, x: f64, y: f64| {
                drawn[i].iter().map(|spot| spot.distance(x, y)).fold(f64::INFINITY, f64::min)
            };
            for i in (0..batch.len()).filter(|&i| counts(i)) {
                const GRID: usize = 64;
                for cell in 0..GRID * GRID {
                    let at = |v: usize| (v as f64 + 0.5) / GRID as f64;
                    let near = nearest(i, at(cell % GRID), at(cell / GRID));
                    area[0] += f64::from(near < 1.0) / (GRID * GRID) as f64;
                    area[1] += f64::from(near < HALF) / (GRID * GRID) as f64;
                }
            }
            for from in
                (1..=tap).filter(|&from| wanted.as_ref().map_or(from >= 4, |wanted| wanted.contains(&stages[from - 1])))
            {
                for (method, maps) in maps(&network, from, &x, positive)?.iter().enumerate() {
                    for (i, map) in maps.iter().enumerate().filter(|(i, _)| counts(*i)) {
                        let hit = &mut hits.entry(from).or_default()[method];
                        hit[2] += usize::from(map.peak().is_none());
                        let least = map.values.iter().copied().fold(f32::INFINITY, f32::min);
                        let raised = map.values.iter().map(|value| value - least).collect();
                        let Some((place, _)) = (HeatMap { values: raised, ..map.clone() }).peak() else { continue };
                        let [x, y] = place.map(|v| v / size as f64);
                        hit[0] += usize::from(nearest(i, x, y) < 1.0);
                        hit[1] += usize::from(nearest(i, x, y) < HALF);
                    }
                }
            }
        }
        let share = |n: usize| 100.0 * n as f64 / counted.max(1) as f64;
        let area = area.map(|a| 100.0 * a / counted.max(1) as f64);
        println!("{what}: {counted} of {} images; a place by chance: {:.0} ({:.0}) %", spec.images, area[0], area[1]);
        for (from, hits) in hits {
            let side = network.backbone.side_at(from, size).unwrap_or(0);
            let cells: Vec<String> = METHODS
                .iter()
                .zip(hits)
                .map(|(method, [inside, half, empty])| {
                    format!("{method} {:3.0} ({:3.0}) % | {empty:2}", share(inside), share(half))
                })
                .collect();
            println!("  {:14} {side:3}  {}", stages[from - 1], cells.join("  "));
        }
    }
    std::fs::remove_file(random)?;
    Ok(())
}
