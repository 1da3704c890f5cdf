//! Hundreds of training steps compared with PyTorch's: a kernel that is right for one step may still drift over many.

use super::*;
use crate::nn::figures::{list, s};
use crate::nn::{InceptionV3, inception_v3};
use crate::spec::*;
use candle_core::Device;
use serde_json::Value;
use std::collections::BTreeMap;

const BLOCK: &str = "Mixed_5b.";

/// The tensors of a network that is zero except for one block, whose weights are derived from their names as in
/// `make_course_figures.py`.
fn weights() -> BTreeMap<String, Tensor> {
    let fill = |(name, shape): (String, Vec<usize>)| {
        let count = shape.iter().product::<usize>();
        let values = match name.strip_prefix(BLOCK) {
            None => vec![0f32; count],
            Some(own) => {
                let draw = s(&format!("course.{own}"), count);
                let value: Box<dyn Fn(f64) -> f64> = if shape.len() == 4 {
                    let bound = (6.0 / (count / shape[0]) as f64).sqrt();
                    Box::new(move |x| x * bound)
                } else if own.ends_with("bn.weight") || own.ends_with("running_var") {
                    Box::new(|x| 1.0 + 0.25 * x)
                } else {
                    Box::new(|x| 0.25 * x)
                };
                draw.into_iter().map(|x| value(f64::from(x)) as f32).collect()
            }
        };
        (name, Tensor::from_vec(values, shape, &Device::Cpu).unwrap())
    };
    inception_v3::parameters(1.0).into_iter().map(fill).collect()
}

fn settings(figures: &Value, case: &Value) -> TrialSettings {
    let number = |value: &Value| value.as_f64().unwrap();
    let batch_norm = if case["batch_norm"] == "train" { BatchNormMode::Train } else { BatchNormMode::Frozen };
    TrialSettings {
        network: NetworkSpec {
            backbone: BackboneKind::InceptionV3,
            width: 1.0,
            weights: WeightSource::Random,
            scaling: PixelScaling::Unit,
            pool_padding: PoolPadding::Counted,
            tap: "Mixed_5b".to_owned(),
            freeze: FreezeTo::Stage("maxpool2".to_owned()),
            batch_norm,
            cache: CachePrecision::F32,
            input_size: None,
        },
        head: HeadSpec { kind: HeadKind::Linear, dropout: 0.0, hidden_units: 1 },
        training: TrainingSpec {
            epochs: figures["epochs"].as_u64().unwrap() as u32,
            batch_size: figures["batch"].as_u64().unwrap() as u32,
            optimiser: if case["optimiser"] == "sgd" { OptimiserKind::Sgd } else { OptimiserKind::AdamW },
            learning_rate: number(&case["learning_rate"]),
            weight_decay: number(&figures["decay"]),
            backbone_rate: number(&figures["network_rate"]),
            warmup_epochs: number(&figures["warm"]),
            imbalance: ImbalancePolicy::None,
            ..TrainingSpec::default()
        },
        augment: AugmentSpec {
            strength: 0.0,
            flip: 0.0,
            rotation: 0.0,
            brightness: 0.0,
            edges: 0.0,
            views: Views::Bank(1),
            ..AugmentSpec::default()
        },
    }
}

/// 300 steps with batch norm frozen and training, AdamW and SGD: every loss, and the final evaluation, differs from
/// PyTorch's in double precision by at most four times what PyTorch's own single precision does.
#[test]
fn hundreds_of_steps_agree_with_pytorch() {
    let figures: Value = serde_json::from_str(include_str!("../../../../tests/data/course_figures.json")).unwrap();
    let network = InceptionV3::new(&weights(), 1.0, PoolPadding::Counted, &Device::Cpu).unwrap();
    let (samples, batch) = (figures["samples"].as_u64().unwrap() as usize, figures["batch"].as_u64().unwrap() as usize);
    let labels: Vec<u32> = list(&figures["labels"]).iter().map(|&l| l as u32).collect();
    let maps: Vec<f32> = s("course.x", samples * 192 * 25).iter().map(|x| x.max(0.0)).collect();
    let maps = Tensor::from_vec(maps, (samples, 192, 5, 5), &Device::Cpu).unwrap();
    let maps = maps.permute((0, 2, 3, 1)).unwrap().contiguous().unwrap();
    for case in figures["cases"].as_array().unwrap() {
        let what = format!("{} {}", case["batch_norm"], case["optimiser"]);
        let initial = InitialState {
            backbone: &network,
            classes: 2,
            seed: 1,
            trial: TrialNumber(0),
            fold: 0,
            steps: samples / batch,
            class_weights: Vec::new(),
            device: &Device::Cpu,
            at_once: None,
        };
        let mut model = Model::new(&settings(&figures, case), initial).unwrap();
        for (name, var) in model.head.parameters() {
            match name.as_str() {
                "head.out.weight" => {
                    let drawn = s("course.out.weight", 512).iter().map(|x| x / 16.0).collect();
                    var.set(&Tensor::from_vec(drawn, (2, 256), &Device::Cpu).unwrap()).unwrap();
                }
                "head.out.bias" => var.set(&var.zeros_like().unwrap()).unwrap(),
                _ => {}
            }
        }
        let mut furthest = 0f64;
        for (step, wanted) in list(&case["losses"]).into_iter().enumerate() {
            let first = step * batch % samples;
            let x = maps.narrow(0, first, batch).unwrap();
            let epoch = Epoch((step * batch / samples) as u32 + 1);
            let losses::StepLoss::Known(loss) =
                model.step(&x, &labels[first..first + batch], epoch, first as u64).unwrap()
            else {
                panic!("a loss on the CPU is known")
            };
            furthest = furthest.max((f64::from(loss) - wanted).abs());
        }
        let rows = model.scores(&maps).unwrap();
        let judged =
            rows.iter().zip(&labels).map(|(row, &l)| -f64::from(row[l as usize]).ln()).sum::<f64>() / samples as f64;
        let judged = (judged - case["judged"].as_f64().unwrap()).abs();
        let limit = |of: &str| 4.0 * case["single"][of].as_f64().unwrap() + 1e-6;
        println!(
            "{what}: losses {furthest:.1e} of {:.1e}, judged {judged:.1e} of {:.1e}",
            limit("losses"),
            limit("judged")
        );
        assert!(furthest < limit("losses"), "{what}: losses are off by {furthest:e}");
        assert!(judged < limit("judged"), "{what}: what is judged is off by {judged:e}");
    }
}
