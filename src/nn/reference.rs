//! Naive implementations of the operations in f64, and derivatives by central differences, for tests to compare with.

use super::kernel::{Arithmetic, ConvShape, Isa, Target, arithmetic};
use crate::rng::{Purpose, StreamRng};
use candle_core::{Device, Tensor, Var};

/// Uniform numbers in [-1, 1), exact in f32.
pub fn numbers(seed: u64, count: usize) -> Vec<f64> {
    let mut rng = StreamRng::keyed(seed, Purpose::Test, &[]);
    (0..count).map(|_| f64::from((2.0 * rng.unit() - 1.0) as f32)).collect()
}

pub fn f32s(values: &[f64]) -> Vec<f32> {
    values.iter().map(|&v| v as f32).collect()
}

/// The nearest bf16 of each.
pub fn bf16s(values: &[f64]) -> Vec<f64> {
    values.iter().map(|&v| half::bf16::from_f32(v as f32).to_f64()).collect()
}

/// Every arithmetic of this processor that rounds operands to bf16.
pub fn narrow() -> impl Iterator<Item = Arithmetic> {
    let pairs = arithmetic::has_pairs().then(|| Arithmetic::bf16(Isa::best()));
    pairs.into_iter().chain(Isa::all_available().map(Arithmetic::rounded))
}

/// A map of `channels` and weights of as many inputs in the form of an arithmetic.
pub fn formed(arithmetic: Arithmetic, map: &[f64], channels: usize, packed: &[f32]) -> [Vec<f32>; 2] {
    let operands = arithmetic.mapped(&f32s(map), channels);
    let mut weights = vec![7.0; packed.len() / channels * arithmetic.words(channels)];
    arithmetic.panels(packed, channels, &mut weights);
    [operands, weights]
}

pub fn var(values: &[f64], shape: &[usize]) -> Var {
    Var::from_vec(f32s(values), shape, &Device::Cpu).unwrap()
}

/// `sum(weights * y)`: a loss whose gradient at `y` is `weights`.
pub fn dot(y: &[f64], weights: &[f64]) -> f64 {
    y.iter().zip(weights).map(|(y, w)| y * w).sum()
}

/// The derivatives of `f` by central differences.
pub fn differences(x: &[f64], f: impl Fn(&[f64]) -> f64) -> Vec<f64> {
    const STEP: f64 = 1e-6;
    let mut x = x.to_vec();
    (0..x.len())
        .map(|i| {
            let at = x[i];
            x[i] = at + STEP;
            let above = f(&x);
            x[i] = at - STEP;
            let below = f(&x);
            x[i] = at;
            (above - below) / (2.0 * STEP)
        })
        .collect()
}

/// The gradients of `sum(weights * y)` for each variable.
pub fn gradients(y: &Tensor, weights: &[f64], vars: &[&Var]) -> Vec<Vec<f32>> {
    let weights = Tensor::from_vec(f32s(weights), y.dims(), &Device::Cpu).unwrap();
    let store = (y * weights).unwrap().sum_all().unwrap().backward().unwrap();
    vars.iter().map(|v| elements(store.get(v).unwrap())).collect()
}

pub fn elements(t: &Tensor) -> Vec<f32> {
    t.flatten_all().unwrap().to_vec1().unwrap()
}

/// Fails where a value is further off than `tolerance` times the largest expected magnitude.
#[track_caller]
pub fn assert_close(ours: &[f32], expected: &[f64], tolerance: f64, what: &str) {
    assert_eq!(ours.len(), expected.len(), "{what}");
    let scale = expected.iter().fold(1e-3, |m: f64, v| m.max(v.abs()));
    for (i, (a, b)) in ours.iter().zip(expected).enumerate() {
        assert!((f64::from(*a) - b).abs() <= tolerance * scale, "{what}: element {i} is {a}, expected {b}");
    }
}

/// Calls `f(source pixel, tap)` for the source pixels under the window at an output position.
fn under(shape: &ConvShape, position: [usize; 3], mut f: impl FnMut(usize, usize)) {
    let [image, y, x] = position;
    let w = shape.window;
    for tap in 0..w.taps() {
        let sy = (y * w.stride + tap / w.kernel[1]).checked_sub(w.padding[0]);
        let sx = (x * w.stride + tap % w.kernel[1]).checked_sub(w.padding[1]);
        if let (Some(sy), Some(sx)) = (sy, sx)
            && sy < shape.input[0]
            && sx < shape.input[1]
        {
            f((image * shape.input[0] + sy) * shape.input[1] + sx, tap);
        }
    }
}

fn positions(shape: &ConvShape) -> impl Iterator<Item = [usize; 3]> {
    let [h, w] = shape.output;
    (0..shape.output_pixels()).map(move |p| [p / (h * w), p / w % h, p % w])
}

/// Convolution with weights in torch's `[O, I, KH, KW]`.
pub fn conv(shape: &ConvShape, x: &[f64], weights: &[f64]) -> Vec<f64> {
    let mut y = Vec::new();
    for position in positions(shape) {
        for o in 0..shape.cout {
            let mut sum = 0.0;
            under(shape, position, |pixel, tap| {
                for c in 0..shape.cin {
                    sum += x[pixel * shape.cin + c] * weights[(o * shape.cin + c) * shape.window.taps() + tap];
                }
            });
            y.push(sum);
        }
    }
    y
}

/// The gradient of the input of [`conv`]: its adjoint.
pub fn conv_input_gradient(shape: &ConvShape, grad: &[f64], weights: &[f64]) -> Vec<f64> {
    let mut dx = vec![0.0; shape.input_pixels() * shape.cin];
    for (position, grad) in positions(shape).zip(grad.chunks(shape.cout)) {
        under(shape, position, |pixel, tap| {
            for c in 0..shape.cin {
                for (o, grad) in grad.iter().enumerate() {
                    dx[pixel * shape.cin + c] += grad * weights[(o * shape.cin + c) * shape.window.taps() + tap];
                }
            }
        });
    }
    dx
}

/// The gradient of the weights of [`conv`], in their layout.
pub fn conv_weight_gradient(shape: &ConvShape, x: &[f64], grad: &[f64]) -> Vec<f64> {
    let taps = shape.window.taps();
    let mut dw = vec![0.0; shape.cout * shape.cin * taps];
    for (position, grad) in positions(shape).zip(grad.chunks(shape.cout)) {
        under(shape, position, |pixel, tap| {
            for c in 0..shape.cin {
                for (o, grad) in grad.iter().enumerate() {
                    dw[(o * shape.cin + c) * taps + tap] += grad * x[pixel * shape.cin + c];
                }
            }
        });
    }
    dw
}

/// What `f` left on `channels` columns in the middle of a wider buffer full of `before`, after a check that it wrote
/// only there.
pub fn columns(pixels: usize, channels: usize, before: f32, what: &str, f: impl FnOnce(&Target<'_>)) -> Vec<f32> {
    let wide = channels + 5;
    let mut out = vec![before; pixels * wide];
    f(&Target::columns(&mut out, wide, 2, channels));
    assert!(out.chunks(wide).all(|row| row[..2] == [before; 2] && row[channels + 2..] == [before; 3]), "{what}");
    out.chunks(wide).flat_map(|row| row[2..channels + 2].to_vec()).collect()
}

/// `relu(scale * y + bias)` by channel; `affine` holds scales, then biases.
pub fn affine_relu(y: &[f64], affine: &[f64]) -> Vec<f64> {
    let c = affine.len() / 2;
    y.iter().enumerate().map(|(i, v)| (v * affine[i % c] + affine[c + i % c]).max(0.0)).collect()
}

pub fn max_pool(shape: &ConvShape, x: &[f64]) -> Vec<f64> {
    let pooled = |position, c| {
        let mut best = f64::NEG_INFINITY;
        under(shape, position, |pixel, _| best = best.max(x[pixel * shape.cin + c]));
        best
    };
    positions(shape).flat_map(|p| (0..shape.cin).map(move |c| pooled(p, c))).collect()
}

pub fn average_pool(shape: &ConvShape, x: &[f64], padding_counts: bool) -> Vec<f64> {
    let pooled = |position, c| {
        let (mut sum, mut count) = (0.0, 0);
        under(shape, position, |pixel, _| {
            sum += x[pixel * shape.cin + c];
            count += 1;
        });
        sum / if padding_counts { shape.window.taps() } else { count } as f64
    };
    positions(shape).flat_map(|p| (0..shape.cin).map(move |c| pooled(p, c))).collect()
}

/// Batch norm with batch statistics, and ReLU.
pub fn batch_norm_relu(x: &[f64], gamma: &[f64], beta: &[f64], eps: f64) -> Vec<f64> {
    let c = gamma.len();
    let n = (x.len() / c) as f64;
    let column = |k: usize| x.iter().skip(k).step_by(c);
    let mean: Vec<f64> = (0..c).map(|k| column(k).sum::<f64>() / n).collect();
    let variance: Vec<f64> = (0..c).map(|k| column(k).map(|v| (v - mean[k]).powi(2)).sum::<f64>() / n).collect();
    let norm = |(i, v): (usize, &f64)| {
        let k = i % c;
        ((v - mean[k]) / (variance[k] + eps).sqrt() * gamma[k] + beta[k]).max(0.0)
    };
    x.iter().enumerate().map(norm).collect()
}
