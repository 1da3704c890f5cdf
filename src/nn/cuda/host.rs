//! Naive implementations of the primitives in host memory, with which tests run the device's operations.

use super::ops::Primitive;
use crate::nn::kernel::ConvShape;
use crate::nn::kernel::pool_cpu::Divisor;
use crate::nn::pool::PoolKind;
use crate::nn::reference::{self, f32s};
use crate::nn::tensor::elements;
use candle_core::{CpuStorage, Layout, Result, bail};

fn lent(op: &str, (storage, layout): (&CpuStorage, &Layout)) -> Result<Vec<f64>> {
    if let CpuStorage::BF16(all) = storage {
        let Some((start, end)) = layout.contiguous_offsets() else { bail!("{op}: an operand is not contiguous") };
        return Ok(all[start..end].iter().map(|v| v.to_f64()).collect());
    }
    Ok(elements(op, storage, layout)?.iter().map(|&v| f64::from(v)).collect())
}

/// Results in the type of an operand.
pub(super) fn like(operand: &CpuStorage, result: Vec<f32>) -> CpuStorage {
    match operand {
        CpuStorage::BF16(_) => CpuStorage::BF16(result.into_iter().map(half::bf16::from_f32).collect()),
        _ => CpuStorage::F32(result),
    }
}

/// From `[O, KH, KW, I]` to torch's order.
fn torch_order(shape: &ConvShape, w: &[f64]) -> Vec<f64> {
    let (taps, cin) = (shape.window.taps(), shape.cin);
    let at = |o: usize, c: usize, t: usize| w[(o * taps + t) * cin + c];
    (0..shape.cout).flat_map(|o| (0..cin).flat_map(move |c| (0..taps).map(move |t| at(o, c, t)))).collect()
}

/// Calls `f(output pixel, input pixel, tap)` for every combination of the convolution.
fn meetings(shape: &ConvShape, mut f: impl FnMut(usize, usize, usize)) {
    let ([h, w], [oh, ow], window) = (shape.input, shape.output, shape.window);
    for image in 0..shape.batch {
        for (y, x) in (0..oh * ow).map(|p| (p / ow, p % ow)) {
            for tap in 0..window.taps() {
                let sy = (y * window.stride + tap / window.kernel[1]).wrapping_sub(window.padding[0]);
                let sx = (x * window.stride + tap % window.kernel[1]).wrapping_sub(window.padding[1]);
                if sy < h && sx < w {
                    f((image * oh + y) * ow + x, (image * h + sy) * w + sx, tap);
                }
            }
        }
    }
}

/// What the device would compute.
pub(super) fn compute(primitive: &Primitive, operands: &[(&CpuStorage, &Layout)]) -> Result<Vec<f32>> {
    let all = operands.iter().map(|o| lent("reference", *o)).collect::<Result<Vec<_>>>()?;
    let dims: Vec<&[usize]> = operands.iter().map(|(_, l)| l.dims()).collect();
    Ok(f32s(&match primitive {
        Primitive::Convolve(s) => reference::conv(s, &all[0], &torch_order(s, &all[1])),
        Primitive::ConvolveBiasRelu(s) => {
            let affine = [vec![1.0; s.cout], all[2].clone()].concat();
            reference::affine_relu(&reference::conv(s, &all[0], &torch_order(s, &all[1])), &affine)
        }
        Primitive::DataGradient(s) => {
            let mut dx = vec![0.0; s.input_pixels() * s.cin];
            meetings(s, |output, input, tap| {
                for o in 0..s.cout {
                    for c in 0..s.cin {
                        let w = all[0][(o * s.window.taps() + tap) * s.cin + c];
                        dx[input * s.cin + c] += w * all[1][output * s.cout + o];
                    }
                }
            });
            dx
        }
        Primitive::FilterGradient(s) => {
            let mut dw = vec![0.0; s.cout * s.window.taps() * s.cin];
            meetings(s, |output, input, tap| {
                for o in 0..s.cout {
                    for c in 0..s.cin {
                        dw[(o * s.window.taps() + tap) * s.cin + c] +=
                            all[0][input * s.cin + c] * all[1][output * s.cout + o];
                    }
                }
            });
            dw
        }
        Primitive::ReluGradient => all[0].iter().zip(&all[1]).map(|(y, g)| if *y > 0.0 { *g } else { 0.0 }).collect(),
        Primitive::ChannelSums => {
            let channels = dims[0][3];
            (0..channels).map(|k| all[0].iter().skip(k).step_by(channels).sum()).collect()
        }
        Primitive::Pool(s, PoolKind::Max) => reference::max_pool(s, &all[0]),
        Primitive::Pool(s, PoolKind::Average(d)) => reference::average_pool(s, &all[0], *d == Divisor::Window),
        Primitive::PoolGradient(s, kind) => pool_gradient(s, *kind, &all),
        Primitive::Concat => {
            let pixels = dims[0][..3].iter().product::<usize>();
            let row = |p: usize| all.iter().zip(&dims).flat_map(move |(a, d)| &a[p * d[3]..][..d[3]]);
            (0..pixels).flat_map(row).copied().collect()
        }
        Primitive::Slice { offset, channels } => {
            all[0].chunks(dims[0][3]).flat_map(|pixel| &pixel[*offset..][..*channels]).copied().collect()
        }
    }))
}

fn pool_gradient(s: &ConvShape, kind: PoolKind, all: &[Vec<f64>]) -> Vec<f64> {
    let c = s.cin;
    let (x, y, dy) = (&all[0], &all[1], &all[2]);
    let mut dx = vec![0.0; s.input_pixels() * c];
    let mut inside = vec![0usize; s.output_pixels()];
    meetings(s, |output, _, _| inside[output] += 1);
    let mut taken = vec![false; s.output_pixels() * c];
    meetings(s, |output, input, _| {
        for k in 0..c {
            let (from, to) = (output * c + k, input * c + k);
            match kind {
                PoolKind::Max if !taken[from] && x[to] == y[from] => {
                    taken[from] = true;
                    dx[to] += dy[from];
                }
                PoolKind::Max => {}
                PoolKind::Average(Divisor::Window) => dx[to] += dy[from] / s.window.taps() as f64,
                PoolKind::Average(Divisor::Inside) => dx[to] += dy[from] / inside[output] as f64,
            }
        }
    });
    dx
}

/// Batch norm with ReLU; and mean, unbiased variance, mean, 1 / standard deviation.
pub(super) fn normalise_relu(eps: f32, operands: [(&CpuStorage, &Layout); 3]) -> Result<(Vec<f32>, Vec<f32>)> {
    let [x, gamma, beta] = operands.map(|o| lent("reference", o));
    let (x, gamma, beta) = (x?, gamma?, beta?);
    let c = gamma.len();
    let n = (x.len() / c) as f64;
    let column = |k: usize| x.iter().skip(k).step_by(c);
    let mean: Vec<f64> = (0..c).map(|k| column(k).sum::<f64>() / n).collect();
    let squares: Vec<f64> = (0..c).map(|k| column(k).map(|v| (v - mean[k]).powi(2)).sum()).collect();
    let unbiased = squares.iter().map(|s| s / (n - 1.0).max(1.0)).collect();
    let inverse = squares.iter().map(|s| (s / n + f64::from(eps)).sqrt().recip()).collect();
    let y = reference::batch_norm_relu(&x, &gamma, &beta, f64::from(eps));
    Ok((f32s(&y), f32s(&[mean.clone(), unbiased, mean, inverse].concat())))
}

/// The gradients of a batch norm, without a ReLU, from input, scale, gradient and [`normalise_relu`]'s statistics: that
/// of the input, and those of scale and shift (Ioffe and Szegedy 2015).
pub(super) fn normalise_gradient(operands: [(&CpuStorage, &Layout); 4]) -> Result<(Vec<f32>, Vec<f32>)> {
    let [x, gamma, dy, stats] = operands.map(|o| lent("reference", o));
    let (x, gamma, dy, stats) = (x?, gamma?, dy?, stats?);
    let c = gamma.len();
    let n = (x.len() / c) as f64;
    let normal = |i: usize| (x[i] - stats[2 * c + i % c]) * stats[3 * c + i % c];
    let sum = |k: usize, f: &dyn Fn(usize) -> f64| (k..x.len()).step_by(c).map(f).sum::<f64>();
    let dbeta: Vec<f64> = (0..c).map(|k| sum(k, &|i| dy[i])).collect();
    let dgamma: Vec<f64> = (0..c).map(|k| sum(k, &|i| dy[i] * normal(i))).collect();
    let dx: Vec<f64> = (0..x.len())
        .map(|i| {
            let k = i % c;
            gamma[k] * stats[3 * c + k] * (dy[i] - (dbeta[k] + normal(i) * dgamma[k]) / n)
        })
        .collect();
    Ok((f32s(&dx), f32s(&[dgamma, dbeta].concat())))
}
