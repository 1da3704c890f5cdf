//! Whether the GPU computes what torchvision and the CPU path compute.

use crate::golden::{GOLDEN, error, input, numbers, parameter};
use crate::report::{Outcome, Report};
use candle_core::backprop::GradStore;
use candle_core::{Device, Result, Tensor, Var};
use hpsearch::nn::cuda::{Precision, ops, set_precision};
use hpsearch::nn::inception_v3::{self, InceptionV3};
use hpsearch::nn::kernel::Window;
use hpsearch::nn::kernel::pool_cpu::Divisor;
use hpsearch::nn::pool::PoolKind;
use hpsearch::nn::{Backbone, Mode, Suffix, SuffixOptions, backward};
use hpsearch::spec::{BatchNormMode, PoolPadding};
use std::collections::BTreeMap;

const TABLE: [&str; 4] = ["check", "largest relative error", "tolerance", "verdict"];

/// Tolerances of a forward pass, relative to the root mean square of a feature map.
const FORWARD: [(Precision, f64); 3] = [(Precision::F32, 1e-4), (Precision::Tf32, 1e-2), (Precision::Bf16, 6e-2)];

fn tensors() -> BTreeMap<String, Tensor> {
    let all = inception_v3::parameters(1.0).into_iter();
    all.map(|(name, shape)| (name.clone(), parameter(&name, &shape))).collect()
}

/// Every stage against torchvision's figures, at 299 and at 75 pixels, with either kind of average pool.
pub fn golden(r: &mut Report, gpu: &Device) -> Outcome {
    r.table(&TABLE);
    let tensors = tensors();
    for (precision, tolerance) in FORWARD {
        set_precision(precision);
        for (padding, name) in [(PoolPadding::Counted, "include"), (PoolPadding::Excluded, "exclude")] {
            let network = InceptionV3::new(&tensors, 1.0, padding, gpu)?;
            for (batch, side) in [(1, 299), (2, 75)] {
                let figures = &GOLDEN["forward"][format!("{batch}x3x{side}x{side}/count_{name}_pad")]["stages"];
                let mut x = input(batch, side).to_device(gpu)?;
                let mut worst = 0.0f64;
                for (position, stage) in network.stages().iter().enumerate() {
                    x = network.prefix(position, position + 1, &x)?;
                    if let Some(figures) = figures.get(&stage.name) {
                        let map = x.to_device(&Device::Cpu)?.permute((0, 3, 1, 2))?.contiguous()?;
                        worst = worst.max(error(&map, figures));
                    }
                }
                let what = format!("{}, {side} px, padding {name}d", precision.into_str());
                r.at_most(&what, worst, tolerance);
            }
        }
    }
    set_precision(Precision::default());
    Ok(())
}

/// The largest difference, relative to the largest expected value.
fn difference(found: &Tensor, expected: &Tensor) -> Result<f64> {
    let read = |t: &Tensor| t.to_device(&Device::Cpu)?.flatten_all()?.to_vec1::<f32>();
    let (found, expected) = (read(found)?, read(expected)?);
    let scale = expected.iter().fold(1e-20f32, |m, v| m.max(v.abs()));
    let pairs = found.iter().zip(&expected);
    let worst = pairs.map(|(a, b)| (a - b).abs()).fold(0f32, |m, d| if d.is_nan() { f32::INFINITY } else { m.max(d) });
    Ok(f64::from(worst / scale))
}

/// A training step's output, gradients and suffix.
fn step(
    network: &InceptionV3,
    x: &Tensor,
    from: usize,
    batch_norm: BatchNormMode,
) -> std::result::Result<(Tensor, GradStore, Box<dyn Suffix>), Box<dyn std::error::Error>> {
    let suffix = network.suffix(from, 18, SuffixOptions { batch_norm })?;
    let y = suffix.forward(x, Mode::Train)?.mean((1, 2))?;
    let gradients = backward(&y.sqr()?.mean_all()?, Some(suffix.as_ref()))?;
    Ok((y, gradients, suffix))
}

/// Steps of the last two blocks and of the whole network at 107 pixels; the median parameter and the worst.
pub fn against_cpu(r: &mut Report, gpu: &Device) -> Outcome {
    set_precision(Precision::F32);
    let tensors = tensors();
    let cpu = InceptionV3::new(&tensors, 1.0, PoolPadding::Counted, &Device::Cpu)?;
    let device = InceptionV3::new(&tensors, 1.0, PoolPadding::Counted, gpu)?;
    r.table(&TABLE);
    for from in [16, 0] {
        let x = cpu.prefix(0, from, &input(4, 107))?;
        let on_gpu = x.to_device(gpu)?;
        for batch_norm in [BatchNormMode::Frozen, BatchNormMode::Train] {
            // Statistics of few values amplify rounding, and a changed ReLU or maximum moves a gradient elsewhere.
            let (of_output, of_gradients) = match (batch_norm, from) {
                (BatchNormMode::Frozen, 16) => (1e-4, 2e-3),
                (BatchNormMode::Frozen, _) => (1e-3, 5e-2),
                (BatchNormMode::Train, 16) => (5e-3, 1e-1),
                (BatchNormMode::Train, _) => (5e-2, 5e-1),
            };
            let what = format!("from stage {from}, batch norm {batch_norm:?}");
            let (expected, wanted, theirs) = step(&cpu, &x, from, batch_norm)?;
            let (y, found, ours) = step(&device, &on_gpu, from, batch_norm)?;
            r.at_most(&format!("output, {what}"), difference(&y, &expected)?, of_output);
            let mut errors = Vec::new();
            for ((name, a), (_, b)) in ours.parameters().iter().zip(theirs.parameters()) {
                let (Some(a), Some(b)) = (found.get(a), wanted.get(&b)) else {
                    return Err(format!("{name} has no gradient").into());
                };
                errors.push(difference(&ours.to_file(name, a)?, &theirs.to_file(name, b)?)?);
            }
            errors.sort_by(f64::total_cmp);
            r.at_most(&format!("gradients' median, {what}"), errors[errors.len() / 2], of_gradients / 10.0);
            r.at_most(&format!("gradients' worst, {what}"), errors[errors.len() - 1], of_gradients);
            let (_, again, second) = step(&device, &on_gpu, from, batch_norm)?;
            let mut same = true;
            for ((_, a), (_, b)) in ours.parameters().iter().zip(second.parameters()) {
                let pair = (found.get(a), again.get(&b));
                let (Some(a), Some(b)) = pair else { return Err("a gradient is missing".into()) };
                same &= difference(a, b)? == 0.0;
            }
            r.verdict(&format!("the same bits again, {what}"), &same.to_string(), "true", same);
        }
    }
    set_precision(Precision::default());
    Ok(())
}

/// Checks a directional derivative: by the gradient, and by finite differences of the operation's values.
fn slope(
    r: &mut Report,
    what: &str,
    gpu: &Device,
    shapes: &[&[usize]],
    f: &dyn Fn(&[Tensor]) -> Result<Tensor>,
) -> Outcome {
    let draw = |name: String, shape: &[usize]| {
        let values: Vec<f32> = numbers(&name, shape.iter().product()).map(|v| v as f32).collect();
        Tensor::from_vec(values, shape, gpu)
    };
    let mut vars = Vec::new();
    let mut directions = Vec::new();
    for (i, shape) in shapes.iter().enumerate() {
        vars.push(Var::from_tensor(&draw(format!("{what}/{i}"), shape)?)?);
        directions.push(draw(format!("{what}/direction/{i}"), shape)?);
    }
    let operands: Vec<Tensor> = vars.iter().map(|v| v.as_tensor().clone()).collect();
    let y = f(&operands)?;
    let weights = draw(format!("{what}/weights"), y.dims())?;
    let loss = |y: &Tensor| -> Result<f64> { Ok(f64::from((y * &weights)?.sum_all()?.to_scalar::<f32>()?)) };
    let gradients = (&y * &weights)?.sum_all()?.backward()?;
    let mut analytic = 0.0;
    for (var, direction) in vars.iter().zip(&directions) {
        let Some(gradient) = gradients.get(var) else { return Err(format!("{what}: no gradient").into()) };
        analytic += f64::from((gradient * direction)?.sum_all()?.to_scalar::<f32>()?);
    }
    const STEP: f64 = 1e-3;
    let moved = |by: f64| -> Result<f64> {
        let all = operands.iter().zip(&directions).map(|(t, d)| t.detach() + (d * by)?);
        loss(&f(&all.collect::<Result<Vec<_>>>()?)?)
    };
    let numeric = (moved(STEP)? - moved(-STEP)?) / (2.0 * STEP);
    r.at_most(what, (numeric - analytic).abs() / numeric.abs().max(1.0), 3e-2);
    Ok(())
}

/// The operations' gradients against finite differences of their values.
pub fn differences(r: &mut Report, gpu: &Device) -> Outcome {
    set_precision(Precision::F32);
    r.table(&TABLE);
    let windows = [
        ("1x1", Window::new([1, 1], 1, [0, 0])),
        ("3x3 / 2", Window::new([3, 3], 2, [0, 0])),
        ("1x7", Window::new([1, 7], 1, [0, 3])),
        ("7x1", Window::new([7, 1], 1, [3, 0])),
        ("5x5", Window::new([5, 5], 1, [2, 2])),
    ];
    let x: &[usize] = &[2, 17, 15, 24];
    for (name, window) in windows {
        let [kh, kw] = window.kernel;
        let shapes: [&[usize]; 4] = [x, &[40, kh, kw, 24], &[40], &[40]];
        slope(r, &format!("convolution {name}"), gpu, &shapes[..2], &|t| ops::conv(window, &t[0], &t[1]))?;
        slope(r, &format!("convolution {name}, scale, bias, ReLU"), gpu, &shapes, &|t| {
            ops::conv_affine_relu(window, &t[0], &t[1], &t[2], &t[3])
        })?;
    }
    for (name, window, kind) in [
        ("max pool 3x3 / 2", Window::new([3, 3], 2, [0, 0]), PoolKind::Max),
        ("average pool, padding counted", Window::new([3, 3], 1, [1, 1]), PoolKind::Average(Divisor::Window)),
        ("average pool, padding excluded", Window::new([3, 3], 1, [1, 1]), PoolKind::Average(Divisor::Inside)),
    ] {
        // Far apart within every window, so that no maximum moves to another pixel in a step of the differences.
        let [_, h, w, c] = [x[0], x[1], x[2], x[3]];
        let apart = (0..h * w * c).map(|i| 3.0 * ((i / c / w % 3) * 3 + i / c % w % 3) as f32).collect();
        let apart = Tensor::from_vec(apart, (1, h, w, c), gpu)?;
        slope(r, name, gpu, &[x], &|t| match kind {
            PoolKind::Max => ops::pool(window, kind, &t[0].broadcast_add(&apart)?),
            PoolKind::Average(_) => ops::pool(window, kind, &t[0]),
        })?;
    }
    slope(r, "batch norm, ReLU", gpu, &[x, &[24], &[24]], &|t| Ok(ops::batch_norm_relu(&t[0], &t[1], &t[2], 1e-3)?.0))?;
    slope(r, "concatenation", gpu, &[x, &[2, 17, 15, 8], &[2, 17, 15, 3], x], &ops::concat)?;
    set_precision(Precision::default());
    Ok(())
}
