//! Golden values: a recipe that derives parameters and inputs from integers, and what torch computed from them in f64.

use candle_core::{Device, Tensor};
use serde_json::Value;
use std::sync::LazyLock;

/// Samples of every stage and of gradients.
pub static GOLDEN: LazyLock<Value> =
    LazyLock::new(|| serde_json::from_str(include_str!("../data/inception_v3_golden.json")).unwrap());

fn fnv(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3))
}

fn splitmix(seed: u64, i: u64) -> u64 {
    let mut x = seed.wrapping_add((i + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// The recipe's numbers in [-1, 1).
pub fn numbers(name: &str, count: usize) -> impl Iterator<Item = f64> {
    let seed = fnv(name);
    (0..count as u64).map(move |i| (splitmix(seed, i) >> 40) as f64 / f64::from(1 << 23) - 1.0)
}

/// The recipe's parameter of the network with this (torchvision's) name.
pub fn parameter(name: &str, shape: &[usize]) -> Tensor {
    let count = shape.iter().product();
    let bound = |fan_in: usize| (6.0 / fan_in as f64).sqrt();
    let values: Vec<f32> = if name.ends_with("conv.weight") {
        let bound = bound(shape[1..].iter().product());
        numbers(name, count).map(|s| (s * bound) as f32).collect()
    } else if name.ends_with("running_var") {
        numbers(name, count).map(|s| (1.0 + s / 4.0) as f32).collect()
    } else if name.ends_with("bn.weight") {
        numbers(name, count).map(|s| (1.0 + s / 8.0) as f32).collect()
    } else {
        numbers(name, count).map(|s| (s / 8.0) as f32).collect()
    };
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

/// The recipe's input, channels last.
pub fn input(batch: usize, side: usize) -> Tensor {
    let name = format!("input/{batch}x3x{side}x{side}");
    let values: Vec<f32> = numbers(&name, batch * 3 * side * side).map(|s| s as f32).collect();
    let x = Tensor::from_vec(values, (batch, 3, side, side), &Device::Cpu).unwrap();
    x.permute((0, 2, 3, 1)).unwrap().contiguous().unwrap()
}

/// The largest relative error of a tensor's samples, mean and deviation. `t` has torch's layout.
pub fn error(t: &Tensor, golden: &Value) -> f64 {
    let shape: Vec<usize> = serde_json::from_value(golden["shape"].clone()).unwrap();
    assert_eq!(t.dims(), shape);
    let values = t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let n = values.len() as f64;
    let mean = values.iter().map(|&v| f64::from(v)).sum::<f64>() / n;
    let std = (values.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / n).sqrt();
    let golden_mean = golden["mean"].as_f64().unwrap();
    let golden_std = golden["std"].as_f64().unwrap();
    let rms = golden_mean.hypot(golden_std);
    let samples = golden["indices"].as_array().unwrap().iter().zip(golden["values"].as_array().unwrap());
    samples
        .map(|(i, v)| (f64::from(values[i.as_u64().unwrap() as usize]), v.as_f64().unwrap()))
        .chain([(mean, golden_mean), (std, golden_std)])
        .map(|(ours, theirs)| (ours - theirs).abs() / theirs.abs().max(rms))
        .fold(0.0, f64::max)
}
